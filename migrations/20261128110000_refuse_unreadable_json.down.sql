set local lock_timeout = '5s';

alter table extraction_jobs drop constraint extraction_jobs_result_data_check;
alter table borrowers drop constraint borrowers_address_check;
alter table config drop constraint config_value_check;
alter table templates drop constraint templates_variables_check;
alter table chunks drop constraint chunks_metadata_check;
alter table transcripts drop constraint transcripts_metadata_check;
alter table messages drop constraint messages_metadata_check;
