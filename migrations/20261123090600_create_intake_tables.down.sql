set local lock_timeout = '5s';

drop table source_references;
drop table account_numbers;
drop table income_records;
drop table borrowers;
drop table documents;
