-- no-transaction
create index concurrently chunks_user_id_idx on chunks (user_id);
