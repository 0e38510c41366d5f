-- What users have loaded: transcripts of videos, cut into chunks for retrieval.
set local lock_timeout = '5s';

create table transcripts (
    id               uuid         not null default gen_random_uuid(),
    user_id          uuid         not null,
    youtube_video_id varchar(50)  not null,
    title            varchar(500),
    channel_name     varchar(255),
    -- seconds
    duration         integer,
    transcript_text  text         not null,
    metadata         jsonb        not null default '{}',
    created_at       timestamptz  not null default now(),
    constraint transcripts_pkey primary key (id),
    -- What chunks refer to, so that a chunk's owner is its transcript's owner.
    constraint transcripts_id_user_id_key unique (id, user_id),
    -- Per user: a second user may load the same video.
    constraint transcripts_user_id_youtube_video_id_key unique (user_id, youtube_video_id),
    constraint transcripts_user_id_fkey foreign key (user_id)
        references users (id) on delete cascade,
    constraint transcripts_duration_check check (duration >= 0),
    -- Clients can't read infinity, nor years of more than four digits.
    constraint transcripts_times_check
        check (created_at >= '0001-01-01 00:00+00'
           and created_at < '10000-01-01 00:00+00')
);

-- list_by_user and page_by_user, newest first.
create index transcripts_user_id_created_at_idx
    on transcripts (user_id, created_at desc, id desc);
-- list_by_video: who has loaded this video.
create index transcripts_youtube_video_id_idx on transcripts (youtube_video_id);
-- list_by_metadata: containment.
create index transcripts_metadata_idx on transcripts using gin (metadata);

create table chunks (
    id            uuid        not null default gen_random_uuid(),
    transcript_id uuid        not null,
    user_id       uuid        not null,
    chunk_text    text        not null,
    chunk_index   integer     not null,
    token_count   integer     not null,
    metadata      jsonb       not null default '{}',
    created_at    timestamptz not null default now(),
    constraint chunks_pkey primary key (id),
    -- Also the order in which list_by_transcript reads.
    constraint chunks_transcript_id_chunk_index_key unique (transcript_id, chunk_index),
    constraint chunks_transcript_id_fkey foreign key (transcript_id, user_id)
        references transcripts (id, user_id) on update cascade on delete cascade,
    constraint chunks_chunk_index_check check (chunk_index >= 0),
    constraint chunks_token_count_check check (token_count >= 0),
    -- Clients can't read infinity, nor years of more than four digits.
    constraint chunks_times_check
        check (created_at >= '0001-01-01 00:00+00'
           and created_at < '10000-01-01 00:00+00')
);

-- count_by_user, and the foreign key's second column.
create index chunks_user_id_idx on chunks (user_id);
-- list_by_metadata: containment.
create index chunks_metadata_idx on chunks using gin (metadata);

-- As for messages: a writer may leave the owner out.
create function fill_chunk_user_id() returns trigger
    language plpgsql
    set search_path from current
as $$
begin
    select t.user_id into new.user_id from transcripts t where t.id = new.transcript_id;
    if new.user_id is null then
        raise foreign_key_violation using
            message = 'the chunk''s transcript does not exist',
            table = 'chunks',
            constraint = 'chunks_transcript_id_fkey';
    end if;
    return new;
end;
$$;

create trigger chunks_fill_user_id
    before insert on chunks
    for each row when (new.user_id is null)
    execute function fill_chunk_user_id();
