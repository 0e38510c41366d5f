set local lock_timeout = '5s';

drop table extraction_jobs;
drop table projects;
