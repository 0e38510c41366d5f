-- no-transaction
drop index concurrently documents_file_hash_user_id_key;
