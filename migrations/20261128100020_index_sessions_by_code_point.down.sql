-- no-transaction
drop index concurrently sessions_token_hash_new_key;
