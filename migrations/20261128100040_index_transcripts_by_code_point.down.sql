-- no-transaction
drop index concurrently transcripts_user_id_youtube_video_id_new_key;
