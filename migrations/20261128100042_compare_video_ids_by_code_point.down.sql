set local lock_timeout = '5s';

alter table transcripts drop constraint transcripts_user_id_youtube_video_id_key;
drop index transcripts_youtube_video_id_idx;
alter table transcripts alter column youtube_video_id type varchar(50) collate "default";
alter table transcripts
    add constraint transcripts_user_id_youtube_video_id_key unique (user_id, youtube_video_id);
create index transcripts_youtube_video_id_idx on transcripts (youtube_video_id);
create unique index transcripts_user_id_youtube_video_id_new_key
    on transcripts (user_id, youtube_video_id collate "C");
create index transcripts_youtube_video_id_new_idx on transcripts (youtube_video_id collate "C");
