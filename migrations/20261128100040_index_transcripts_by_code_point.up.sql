-- no-transaction
-- The next migration but one makes a constraint of it, in the place of transcripts_user_id_youtube_video_id_key.
-- What that serves, this serves.
-- squawk-ignore prefer-robust-stmts, require-lock-timeout
create unique index concurrently transcripts_user_id_youtube_video_id_new_key
    on transcripts (user_id, youtube_video_id collate "C");
