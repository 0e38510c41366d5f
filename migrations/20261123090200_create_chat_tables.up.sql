-- Conversations and their messages, with the trigger that keeps a conversation's timestamp.
set local lock_timeout = '5s';

create table conversations (
    id         uuid         not null default gen_random_uuid(),
    user_id    uuid         not null,
    title      varchar(500),
    created_at timestamptz  not null default now(),
    updated_at timestamptz  not null default now(),
    constraint conversations_pkey primary key (id),
    -- What messages refer to, so that a message's owner is its conversation's owner.
    constraint conversations_id_user_id_key unique (id, user_id),
    constraint conversations_user_id_fkey foreign key (user_id)
        references users (id) on delete cascade,
    -- Clients can't read infinity, nor years of more than four digits.
    constraint conversations_times_check
        check (least(created_at, updated_at)
               >= '0001-01-01 00:00+00'
           and greatest(created_at, updated_at)
               < '10000-01-01 00:00+00')
);

-- list_by_user and page_by_user: one user's, latest activity first; the id makes the order total.
create index conversations_user_id_updated_at_idx
    on conversations (user_id, updated_at desc, id desc);
-- list_recent: everybody's, latest activity first.
create index conversations_updated_at_idx on conversations (updated_at desc, id desc);

create trigger conversations_set_updated_at
    before update on conversations
    for each row execute function set_updated_at();

create table messages (
    id              uuid        not null default gen_random_uuid(),
    conversation_id uuid        not null,
    user_id         uuid        not null,
    role            varchar(50) not null,
    content         text        not null,
    metadata        jsonb       not null default '{}',
    created_at      timestamptz not null default now(),
    constraint messages_pkey primary key (id),
    -- Both columns: user_id is the owner by this key, and follows when a conversation changes hands.
    constraint messages_conversation_id_fkey foreign key (conversation_id, user_id)
        references conversations (id, user_id) on update cascade on delete cascade,
    constraint messages_role_check check (role in ('user', 'assistant', 'system')),
    -- Clients can't read infinity, nor years of more than four digits.
    constraint messages_times_check
        check (created_at >= '0001-01-01 00:00+00'
           and created_at < '10000-01-01 00:00+00')
);

-- get_last_n, list_by_conversation, page_by_conversation. Rows of one transaction share
-- created_at: without the id in the index a page would sort the whole conversation.
create index messages_conversation_id_created_at_idx
    on messages (conversation_id, created_at, id);
-- count_since: how much was said lately, over all conversations.
create index messages_created_at_idx on messages (created_at);
-- list_by_metadata: containment (metadata @> …), for example the messages that cite a chunk.
create index messages_metadata_idx on messages using gin (metadata);

-- A writer that does not know the owner column leaves it out; the owner is looked up here. A missing
-- conversation is reported as the foreign key that it would break.
create function fill_message_user_id() returns trigger
    language plpgsql
    set search_path from current
as $$
begin
    select c.user_id into new.user_id from conversations c where c.id = new.conversation_id;
    if new.user_id is null then
        raise foreign_key_violation using
            message = 'the message''s conversation does not exist',
            table = 'messages',
            constraint = 'messages_conversation_id_fkey';
    end if;
    return new;
end;
$$;

create trigger messages_fill_user_id
    before insert on messages
    for each row when (new.user_id is null)
    execute function fill_message_user_id();

-- A conversation's updated_at is the time of its newest message. Once a statement, over the
-- transition table, so that a bulk insert touches each conversation once. Rows are locked in id
-- order first: two bulk inserts over the same conversations wait instead of deadlocking. Time never
-- goes backwards: an older message changes nothing.
create function update_conversation_timestamp() returns trigger
    language plpgsql
    set search_path from current
as $$
begin
    perform 1
       from conversations c
      where c.id in (select i.conversation_id from inserted i)
      order by c.id
        for no key update;

    update conversations c
       set updated_at = newest.created_at
      from (select i.conversation_id, max(i.created_at) as created_at
              from inserted i
             group by i.conversation_id) newest
     where c.id = newest.conversation_id
       and c.updated_at < newest.created_at;
    return null;
end;
$$;

create trigger trigger_update_conversation
    after insert on messages
    referencing new table as inserted
    for each statement execute function update_conversation_timestamp();
