-- A key of machines depends on no locale, and on no version of a locale's library. Only the catalogue changes.
set local lock_timeout = '5s';

alter table sessions drop constraint sessions_token_hash_key;
-- squawk-ignore changing-column-type
alter table sessions alter column token_hash type varchar(255) collate "C";
alter table sessions
    add constraint sessions_token_hash_key unique using index sessions_token_hash_new_key;
