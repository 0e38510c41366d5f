-- Apart from adding them: this reads the tables without keeping anybody from them.
set local lock_timeout = '5s';

alter table messages validate constraint messages_metadata_check;
alter table transcripts validate constraint transcripts_metadata_check;
alter table chunks validate constraint chunks_metadata_check;
alter table templates validate constraint templates_variables_check;
alter table config validate constraint config_value_check;
alter table borrowers validate constraint borrowers_address_check;
alter table extraction_jobs validate constraint extraction_jobs_result_data_check;
