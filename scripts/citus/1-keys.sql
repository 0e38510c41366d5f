-- Makes the keys such that Citus can distribute the tables; docs/scale.md says why each. It needs no
-- Citus: on a plain server everything goes on working, except that a message's or chunk's owner must be
-- named and does not follow its conversation's. Run it with psql's -v ON_ERROR_STOP=1, on a direct
-- connection, as the role that migrates, while nobody writes: each table is locked while its new key is
-- built, and each row of messages and chunks is checked once.
begin;
set local lock_timeout = '5s';

-- First what refers to the keys that go. An owner does not change on Citus (it says where the row is),
-- so the new foreign keys do not follow one.
alter table messages drop constraint messages_conversation_id_fkey;
alter table chunks drop constraint chunks_transcript_id_fkey;

-- The owner is in each key, and not in front: who asks by id alone still finds it at once.
alter table conversations
    drop constraint conversations_pkey,
    drop constraint conversations_id_user_id_key,
    add constraint conversations_pkey primary key (id, user_id);
alter table transcripts
    drop constraint transcripts_pkey,
    drop constraint transcripts_id_user_id_key,
    add constraint transcripts_pkey primary key (id, user_id);
alter table messages
    drop constraint messages_pkey,
    add constraint messages_pkey primary key (id, user_id),
    add constraint messages_conversation_id_fkey foreign key (conversation_id, user_id)
        references conversations (id, user_id) on delete cascade;
alter table chunks
    drop constraint chunks_pkey,
    drop constraint chunks_transcript_id_chunk_index_key,
    add constraint chunks_pkey primary key (id, user_id),
    add constraint chunks_transcript_id_chunk_index_key
        unique (transcript_id, chunk_index, user_id),
    add constraint chunks_transcript_id_fkey foreign key (transcript_id, user_id)
        references transcripts (id, user_id) on delete cascade;
alter table user_preferences
    drop constraint user_preferences_pkey,
    add constraint user_preferences_pkey primary key (id, user_id);
-- Looked up by token, before the user is known: distributed by it.
alter table sessions
    drop constraint sessions_pkey,
    add constraint sessions_pkey primary key (id, token_hash);

-- A row without an owner has no place: nothing can be filled in later.
drop trigger messages_fill_user_id on messages;
drop trigger chunks_fill_user_id on chunks;

-- As before, but without a join with the transition table, and with the owner in the condition.
create or replace function update_conversation_timestamp() returns trigger
    language plpgsql set search_path from current as $$
declare
    newest record;
begin
    for newest in
        select i.conversation_id, i.user_id, max(i.created_at) as created_at
          from inserted i
         group by i.conversation_id, i.user_id
         order by i.conversation_id
    loop
        update conversations c
           set updated_at = newest.created_at
         where c.id = newest.conversation_id
           and c.user_id = newest.user_id
           and c.updated_at < newest.created_at;
    end loop;
    return null;
end;
$$;
commit;
