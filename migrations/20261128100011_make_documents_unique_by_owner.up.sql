-- A content was unique among all users: whoever uploaded what another had was refused, and learned that
-- somebody has it. Without users it stays what the specification says.
--
-- Only the catalogue changes: the index is there, and the column's new collation is the index's. The version
-- of the crate before this one can't run `create_or_get` from here on: it names the key that goes.
set local lock_timeout = '5s';

alter table documents drop constraint documents_file_hash_key;
-- squawk-ignore changing-column-type
alter table documents alter column file_hash type varchar(64) collate "C";
alter table documents
    add constraint documents_file_hash_user_id_key unique using index documents_file_hash_user_id_key;
