-- no-transaction
-- A user's chunks under row-level security, in the order of a transcript; also count_by_user, and the
-- foreign key's second column. It takes the place of chunks_user_id_idx.
-- squawk-ignore prefer-robust-stmts, require-lock-timeout
create index concurrently chunks_user_id_transcript_id_chunk_index_idx
    on chunks (user_id, transcript_id, chunk_index);
