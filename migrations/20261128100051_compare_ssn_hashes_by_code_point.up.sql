-- A key of machines depends on no locale. Only the catalogue changes.
set local lock_timeout = '5s';

-- squawk-ignore require-concurrent-index-deletion
drop index borrowers_ssn_hash_idx;
-- squawk-ignore changing-column-type
alter table borrowers alter column ssn_hash type varchar(64) collate "C";
alter index borrowers_ssn_hash_new_idx rename to borrowers_ssn_hash_idx;
