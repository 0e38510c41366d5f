-- JSON that jsonb holds and most programs can't read is refused from every writer: numbers beyond a
-- double, such as 1e400, and what is nested 128 levels deep and more. A single such row would be
-- missing in every list that it belongs to.
set local lock_timeout = '5s';

-- First, and before anything is locked: where there are such rows, which ones. A constraint that is not
-- valid would keep them from being changed, and with a job of theirs all that are claimed with it.
do $$
declare
    c      record;
    broken text;
begin
    for c in
        select *
          from (values ('messages', 'id', 'metadata'),
                       ('transcripts', 'id', 'metadata'),
                       ('chunks', 'id', 'metadata'),
                       ('templates', 'id', 'variables'),
                       ('config', 'key', 'value'),
                       ('borrowers', 'id', 'address'),
                       ('extraction_jobs', 'id', 'result_data')) as c (name, key, col)
    loop
        execute format(
            'select string_agg(key, '', '')
               from (select %1$I::text as key
                       from %2$I
                      where jsonb_path_exists(%3$I, ''strict $.**{127 to last}'')
                         or jsonb_path_exists(%3$I, ''strict $.** ? (@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)'')
                      limit 20) b',
            c.key, c.name, c.col) into broken;
        if broken is not null then
            raise check_violation using
                message = format('column %s of %s holds JSON that can''t be read in the rows %s',
                                 c.col, c.name, broken),
                hint = 'It holds numbers beyond a double (1e400), or is nested 128 levels deep: '
                       'change those rows, and migrate again.',
                table = c.name,
                column = c.col,
                constraint = c.name || '_' || c.col || '_check';
        end if;
    end loop;
end;
$$;

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
