-- A key of machines depends on no locale. Only the catalogue changes.
set local lock_timeout = '5s';

alter table transcripts drop constraint transcripts_user_id_youtube_video_id_key;
-- squawk-ignore require-concurrent-index-deletion
drop index transcripts_youtube_video_id_idx;
-- squawk-ignore changing-column-type
alter table transcripts alter column youtube_video_id type varchar(50) collate "C";
alter table transcripts
    add constraint transcripts_user_id_youtube_video_id_key
        unique using index transcripts_user_id_youtube_video_id_new_key;
alter index transcripts_youtube_video_id_new_idx rename to transcripts_youtube_video_id_idx;
