-- no-transaction
-- list_by_video; it takes the place, and the name, of transcripts_youtube_video_id_idx.
-- squawk-ignore prefer-robust-stmts, require-lock-timeout
create index concurrently transcripts_youtube_video_id_new_idx
    on transcripts (youtube_video_id collate "C");
