-- no-transaction
-- chunks_user_id_transcript_id_chunk_index_idx begins with the same column.
-- squawk-ignore prefer-robust-stmts, require-lock-timeout
drop index concurrently chunks_user_id_idx;
