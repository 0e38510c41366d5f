set local lock_timeout = '5s';

drop index borrowers_ssn_hash_idx;
alter table borrowers alter column ssn_hash type varchar(64) collate "default";
create index borrowers_ssn_hash_idx on borrowers (ssn_hash);
create index borrowers_ssn_hash_new_idx on borrowers (ssn_hash collate "C");
