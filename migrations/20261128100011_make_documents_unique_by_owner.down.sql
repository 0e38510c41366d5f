-- Fails where two owners have one content: which of their documents go is not for a migration to say.
set local lock_timeout = '5s';

alter table documents drop constraint documents_file_hash_user_id_key;
alter table documents alter column file_hash type varchar(64) collate "default";
create unique index documents_file_hash_user_id_key
    on documents (file_hash collate "C", user_id) nulls not distinct;
do $$
begin
    alter table documents add constraint documents_file_hash_key unique (file_hash);
exception when unique_violation then
    raise unique_violation using
        message = format(
            'documents of one content that several owners have: %s',
            (select string_agg(ids, '; ')
               from (select string_agg(id::text, ', ' order by created_at, id) as ids
                       from documents
                      group by file_hash
                     having count(*) > 1
                      limit 50) same)),
        hint = 'A content is unique among all owners before this migration: delete all but one of each, and revert again.';
end;
$$;
