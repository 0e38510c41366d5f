-- no-transaction
drop index concurrently transcripts_youtube_video_id_new_idx;
