-- no-transaction
-- list_by_ssn_hash; it takes the place, and the name, of borrowers_ssn_hash_idx.
-- squawk-ignore prefer-robust-stmts, require-lock-timeout
create index concurrently borrowers_ssn_hash_new_idx on borrowers (ssn_hash collate "C");
