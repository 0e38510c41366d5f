set local lock_timeout = '5s';

alter table sessions drop constraint sessions_token_hash_key;
alter table sessions alter column token_hash type varchar(255) collate "default";
alter table sessions add constraint sessions_token_hash_key unique (token_hash);
create unique index sessions_token_hash_new_key on sessions (token_hash collate "C");
