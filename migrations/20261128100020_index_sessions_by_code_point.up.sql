-- no-transaction
-- The next migration makes a constraint of it, in the place of sessions_token_hash_key. What that serves,
-- this serves.
-- squawk-ignore prefer-robust-stmts, require-lock-timeout
create unique index concurrently sessions_token_hash_new_key on sessions (token_hash collate "C");
