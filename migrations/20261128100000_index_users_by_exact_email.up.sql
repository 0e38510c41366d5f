-- no-transaction
-- Other programs' `where email = $1` and `on conflict (email)`, and the specification's unique address.
-- By code point, as the column itself is from the next migration on, which takes this index as it is.
-- Two addresses that are equal are also equal but for their case: users_email_key refuses them, too.
-- squawk-ignore prefer-robust-stmts, require-lock-timeout
create unique index concurrently users_email_exact_key on users (email collate "C");
