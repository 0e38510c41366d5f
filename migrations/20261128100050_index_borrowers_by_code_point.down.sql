-- no-transaction
drop index concurrently borrowers_ssn_hash_new_idx;
