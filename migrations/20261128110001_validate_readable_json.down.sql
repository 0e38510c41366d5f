-- A constraint that is validated can't be made unvalidated: it is made anew.
set local lock_timeout = '5s';

alter table extraction_jobs drop constraint extraction_jobs_result_data_check;
alter table borrowers drop constraint borrowers_address_check;
alter table config drop constraint config_value_check;
alter table templates drop constraint templates_variables_check;
alter table chunks drop constraint chunks_metadata_check;
alter table transcripts drop constraint transcripts_metadata_check;
alter table messages drop constraint messages_metadata_check;

alter table messages add constraint messages_metadata_check check (
    not jsonb_path_exists(metadata, 'strict $.**{127 to last}')
    and not jsonb_path_exists(metadata, 'strict $.** ? (@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)')
) not valid;
alter table transcripts add constraint transcripts_metadata_check check (
    not jsonb_path_exists(metadata, 'strict $.**{127 to last}')
    and not jsonb_path_exists(metadata, 'strict $.** ? (@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)')
) not valid;
alter table chunks add constraint chunks_metadata_check check (
    not jsonb_path_exists(metadata, 'strict $.**{127 to last}')
    and not jsonb_path_exists(metadata, 'strict $.** ? (@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)')
) not valid;
alter table templates add constraint templates_variables_check check (
    not jsonb_path_exists(variables, 'strict $.**{127 to last}')
    and not jsonb_path_exists(variables, 'strict $.** ? (@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)')
) not valid;
alter table config add constraint config_value_check check (
    not jsonb_path_exists(value, 'strict $.**{127 to last}')
    and not jsonb_path_exists(value, 'strict $.** ? (@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)')
) not valid;
alter table borrowers add constraint borrowers_address_check check (
    not jsonb_path_exists(address, 'strict $.**{127 to last}')
    and not jsonb_path_exists(address, 'strict $.** ? (@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)')
) not valid;
alter table extraction_jobs add constraint extraction_jobs_result_data_check check (
    not jsonb_path_exists(result_data, 'strict $.**{127 to last}')
    and not jsonb_path_exists(result_data, 'strict $.** ? (@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)')
) not valid;
