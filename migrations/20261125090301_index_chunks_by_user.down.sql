-- no-transaction
drop index concurrently chunks_user_id_transcript_id_chunk_index_idx;
