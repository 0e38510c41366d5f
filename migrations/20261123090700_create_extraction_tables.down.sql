set local lock_timeout = '5s';

drop table extraction_jobs;
drop table projects;
drop function notify_extraction_jobs();
drop function settle_extraction_job();
