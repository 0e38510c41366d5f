-- no-transaction
-- One content once for each owner, and once for nobody: the next migration makes a constraint of it.
-- create_or_get, get_by_hash and get_by_user_and_hash read it, so the content stands first. By code point,
-- as the column itself is from then on.
-- squawk-ignore prefer-robust-stmts, require-lock-timeout
create unique index concurrently documents_file_hash_user_id_key
    on documents (file_hash collate "C", user_id) nulls not distinct;
