-- The whole schema, for reading. Written by a test from the catalogue, after all migrations:
--   UPDATE_SCHEMA=1 cargo test -p chancery --test suite migrations

CREATE OR REPLACE FUNCTION chancery_current_user_id()
 RETURNS uuid
 LANGUAGE sql
 STABLE PARALLEL SAFE
RETURN (NULLIF(current_setting('chancery.user_id'::text, true), ''::text))::uuid;

CREATE OR REPLACE FUNCTION check_user_timezone()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO '$user', 'public'
 SET "TimeZone" TO 'UTC'
AS $function$
begin
    -- The server also takes POSIX rules, such as FOO3 and <+03>-3, and a number of hours. They hold digits;
    -- of the names, only these do. Two folders hold all zones once more.
    if new.timezone ~ '^(posix|right)/'
       or new.timezone !~ '^[A-Za-z][A-Za-z_/-]*$' collate "C"
       and new.timezone !~ '^(Etc/GMT[+-]1?[0-9]|(Etc/)?GMT[+-]?0|EST5EDT|CST6CDT|MST7MDT|PST8PDT)$' collate "C" then
        raise invalid_parameter_value;
    end if;
    perform set_config('timezone', new.timezone, true);
    -- The server takes a name in any case and keeps its own; other libraries take only that.
    if current_setting('timezone') <> new.timezone then
        raise invalid_parameter_value;
    end if;
    return new;
exception when invalid_parameter_value then
    raise invalid_parameter_value using
        message = 'not the name of a time zone that this server knows',
        hint = 'Names are the IANA''s, such as Europe/Paris: select name from pg_timezone_names',
        table = tg_table_name,
        column = 'timezone';
end;
$function$;

CREATE OR REPLACE FUNCTION delete_document(document uuid)
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO '$user', 'public'
AS $function$
begin
    perform from documents d where d.id = document for update;
    if not found then
        return false;
    end if;
    -- In one order, so that two calls that share borrowers do not block each other.
    perform from borrowers b
      where b.id in (select s.borrower_id from source_references s where s.document_id = document)
      order by b.id
        for update;
    delete from borrowers b
     where b.id in (select s.borrower_id from source_references s where s.document_id = document)
       and not exists (
           select from source_references s
            where s.borrower_id = b.id and s.document_id <> document
       );
    delete from documents d where d.id = document;
    return true;
end;
$function$;

CREATE OR REPLACE FUNCTION end_user_sessions()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO '$user', 'public'
AS $function$
begin
    delete from sessions where user_id = new.id;
    return null;
end;
$function$;

CREATE OR REPLACE FUNCTION fill_chunk_user_id()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO '$user', 'public'
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION fill_message_user_id()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO '$user', 'public'
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION notify_extraction_jobs()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO '$user', 'public'
AS $function$
begin
    perform pg_notify('chancery_extraction_jobs', '');
    return null;
end;
$function$;

CREATE OR REPLACE FUNCTION refuse_records_of_unseen_borrowers()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO '$user', 'public'
AS $function$
begin
    if exists (select from inserted i
                where not exists (select from borrowers b where b.id = i.borrower_id)) then
        raise foreign_key_violation using
            message = 'the borrower does not exist',
            table = tg_table_name,
            constraint = tg_table_name || '_borrower_id_fkey';
    end if;
    return null;
end;
$function$;

CREATE OR REPLACE FUNCTION refuse_references_to_unseen_documents()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO '$user', 'public'
AS $function$
begin
    if exists (select from inserted i
                where not exists (select from documents d where d.id = i.document_id)) then
        raise foreign_key_violation using
            message = 'the document does not exist',
            table = tg_table_name,
            constraint = tg_table_name || '_document_id_fkey';
    end if;
    return null;
end;
$function$;

CREATE OR REPLACE FUNCTION replace_chunks(transcript uuid, ids uuid[], texts text[], token_counts integer[], notes jsonb[], OUT unchanged bigint, OUT updated bigint, OUT inserted uuid[], OUT deleted uuid[])
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO '$user', 'public'
 SET plan_cache_mode TO 'force_custom_plan'
 SET enable_nestloop TO 'off'
 SET enable_mergejoin TO 'off'
AS $function$
declare
    owner  uuid;
    kept   uuid[];
    places integer[];
    beyond constant integer := 1000000000;
begin
    -- One re-ingest of a transcript at a time.
    select t.user_id into owner from transcripts t where t.id = transcript for no key update;
    if owner is null then
        raise foreign_key_violation using
            message = 'the chunks'' transcript does not exist',
            table = 'chunks',
            constraint = 'chunks_transcript_id_fkey';
    end if;

    select coalesce(array_agg(o.id), '{}'), coalesce(array_agg(n.place), '{}')
      into kept, places
      from (select c.id, h.hash,
                   row_number() over (partition by h.hash order by c.chunk_index) as nth
              from chunks c
             cross join lateral (select sha256(convert_to(c.chunk_text, 'UTF8')) as hash) h
             where c.transcript_id = transcript and c.chunk_index < beyond) o
      join (select u.place::integer - 1 as place, h.hash,
                   row_number() over (partition by h.hash order by u.place) as nth
              from unnest(texts) with ordinality u (chunk_text, place)
             cross join lateral (select sha256(convert_to(u.chunk_text, 'UTF8')) as hash) h) n
        on n.hash = o.hash and n.nth = o.nth;

    with gone as (
        delete from chunks c
         where c.transcript_id = transcript
           and not exists (select from unnest(kept) k (id) where k.id = c.id)
        returning c.id, c.chunk_index
    )
    select coalesce(array_agg(g.id order by g.chunk_index), '{}') into deleted from gone g;

    update chunks c
       set chunk_index = beyond + k.place
      from unnest(kept, places) k (id, place)
     where c.id = k.id and c.transcript_id = transcript and c.chunk_index <> k.place;

    update chunks c
       set chunk_index = k.place, token_count = n.token_count, metadata = n.metadata
      from unnest(kept, places) k (id, place)
      join unnest(token_counts, notes) with ordinality n (token_count, metadata, place)
        on n.place = k.place + 1
     where c.id = k.id and c.transcript_id = transcript
       and (c.chunk_index, c.token_count, c.metadata)
           is distinct from (k.place, n.token_count, n.metadata);
    get diagnostics updated = row_count;
    unchanged := cardinality(kept) - updated;

    with made as (
        insert into chunks (id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata)
        select n.id, transcript, owner, n.chunk_text, n.place - 1, n.token_count, n.metadata
          from unnest(ids, texts, token_counts, notes) with ordinality
               as n (id, chunk_text, token_count, metadata, place)
         where not exists (select from unnest(places) p (place) where p.place = n.place - 1)
        returning id, chunk_index
    )
    select coalesce(array_agg(m.id order by m.chunk_index), '{}') into inserted from made m;
end;
$function$;

CREATE OR REPLACE FUNCTION set_updated_at()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO '$user', 'public'
AS $function$
begin
    if new.updated_at is not distinct from old.updated_at then
        new.updated_at := now();
    end if;
    new.updated_at := greatest(old.updated_at, new.updated_at);
    return new;
end;
$function$;

CREATE OR REPLACE FUNCTION settle_extraction_job()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO '$user', 'public'
AS $function$
begin
    if new.status <> 'processing' then
        new.lease_expires_at := null;
    end if;
    if new.status in ('completed', 'failed') then
        new.completed_at := coalesce(new.completed_at, now());
        return new;
    end if;
    new.completed_at := null;
    if new.status = 'pending' then
        new.lease_token := null;
    end if;
    if tg_op = 'UPDATE' and old.status in ('completed', 'failed') then
        new.attempts := 0;
        new.result_data := null;
        if new.run_at is not distinct from old.run_at then
            new.run_at := now();
        end if;
    end if;
    return new;
end;
$function$;

CREATE OR REPLACE FUNCTION text_trigrams(value text)
 RETURNS text[]
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
 SET search_path TO '$user', 'public'
AS $function$
    select array(
        select substr(lowered, place, 3)
          from lower(value) lowered, generate_series(1, length(lowered) - 2) place
    )
$function$;

CREATE OR REPLACE FUNCTION update_conversation_timestamp()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO '$user', 'public'
AS $function$
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
$function$;

create table account_numbers (
    id uuid not null default gen_random_uuid(),
    borrower_id uuid not null,
    number varchar(50) not null,
    account_type varchar(20) not null,
    created_at timestamptz not null default now(),
    constraint account_numbers_pkey PRIMARY KEY (id),
    constraint account_numbers_borrower_id_fkey FOREIGN KEY (borrower_id) REFERENCES borrowers(id) ON DELETE CASCADE,
    constraint account_numbers_times_check CHECK (created_at >= '0001-01-01 00:00:00+00'::timestamptz AND created_at < '10000-01-01 00:00:00+00'::timestamptz)
) -- row level security, forced;
CREATE INDEX account_numbers_borrower_id_idx ON account_numbers USING btree (borrower_id);
CREATE INDEX account_numbers_number_idx ON account_numbers USING gin (text_trigrams((number)::text));
CREATE TRIGGER account_numbers_seen_borrower AFTER INSERT ON account_numbers REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT WHEN (NOT pg_has_role('chancery_service'::name, 'usage'::text)) EXECUTE FUNCTION refuse_records_of_unseen_borrowers();

create table borrowers (
    id uuid not null default gen_random_uuid(),
    user_id uuid,
    name varchar(255) not null,
    ssn_hash varchar(64) collate "C",
    address jsonb,
    confidence_score numeric(3,2) not null default 0,
    created_at timestamptz not null default now(),
    constraint borrowers_pkey PRIMARY KEY (id),
    constraint borrowers_address_check CHECK (NOT jsonb_path_exists(address, 'strict $.**{127 to last}'::jsonpath) AND NOT jsonb_path_exists(address, 'strict $.**?(@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)'::jsonpath)),
    constraint borrowers_confidence_score_check CHECK (confidence_score >= 0::numeric AND confidence_score <= 1::numeric),
    constraint borrowers_times_check CHECK (created_at >= '0001-01-01 00:00:00+00'::timestamptz AND created_at < '10000-01-01 00:00:00+00'::timestamptz),
    constraint borrowers_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
) -- row level security, forced;
CREATE INDEX borrowers_name_idx ON borrowers USING gin (text_trigrams((name)::text));
CREATE INDEX borrowers_ssn_hash_idx ON borrowers USING btree (ssn_hash);
CREATE INDEX borrowers_user_id_created_at_idx ON borrowers USING btree (user_id, created_at DESC, id DESC);

create table chunks (
    id uuid not null default gen_random_uuid(),
    transcript_id uuid not null,
    user_id uuid not null,
    chunk_text text not null,
    chunk_index integer not null,
    token_count integer not null,
    metadata jsonb not null default '{}'::jsonb,
    created_at timestamptz not null default now(),
    constraint chunks_pkey PRIMARY KEY (id),
    constraint chunks_chunk_index_check CHECK (chunk_index >= 0),
    constraint chunks_metadata_check CHECK (NOT jsonb_path_exists(metadata, 'strict $.**{127 to last}'::jsonpath) AND NOT jsonb_path_exists(metadata, 'strict $.**?(@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)'::jsonpath)),
    constraint chunks_times_check CHECK (created_at >= '0001-01-01 00:00:00+00'::timestamptz AND created_at < '10000-01-01 00:00:00+00'::timestamptz),
    constraint chunks_token_count_check CHECK (token_count >= 0),
    constraint chunks_transcript_id_chunk_index_key UNIQUE (transcript_id, chunk_index),
    constraint chunks_transcript_id_fkey FOREIGN KEY (transcript_id, user_id) REFERENCES transcripts(id, user_id) ON UPDATE CASCADE ON DELETE CASCADE
) -- row level security, forced;
CREATE INDEX chunks_metadata_idx ON chunks USING gin (metadata);
CREATE INDEX chunks_user_id_transcript_id_chunk_index_idx ON chunks USING btree (user_id, transcript_id, chunk_index);
CREATE TRIGGER chunks_fill_user_id BEFORE INSERT ON chunks FOR EACH ROW WHEN (new.user_id IS NULL) EXECUTE FUNCTION fill_chunk_user_id();

create table config (
    key varchar(100) collate "C" not null,
    value jsonb not null,
    description text,
    updated_at timestamptz not null default now(),
    constraint config_pkey PRIMARY KEY (key),
    constraint config_times_check CHECK (updated_at >= '0001-01-01 00:00:00+00'::timestamptz AND updated_at < '10000-01-01 00:00:00+00'::timestamptz),
    constraint config_value_check CHECK (NOT jsonb_path_exists(value, 'strict $.**{127 to last}'::jsonpath) AND NOT jsonb_path_exists(value, 'strict $.**?(@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)'::jsonpath))
) -- row level security, forced;
CREATE TRIGGER config_set_updated_at BEFORE UPDATE ON config FOR EACH ROW EXECUTE FUNCTION set_updated_at();

create table conversations (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    title varchar(500),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint conversations_pkey PRIMARY KEY (id),
    constraint conversations_id_user_id_key UNIQUE (id, user_id),
    constraint conversations_times_check CHECK (LEAST(created_at, updated_at) >= '0001-01-01 00:00:00+00'::timestamptz AND GREATEST(created_at, updated_at) < '10000-01-01 00:00:00+00'::timestamptz),
    constraint conversations_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
) -- row level security, forced;
CREATE INDEX conversations_updated_at_idx ON conversations USING btree (updated_at DESC, id DESC);
CREATE INDEX conversations_user_id_updated_at_idx ON conversations USING btree (user_id, updated_at DESC, id DESC);
CREATE TRIGGER conversations_set_updated_at BEFORE UPDATE ON conversations FOR EACH ROW EXECUTE FUNCTION set_updated_at();

create table documents (
    id uuid not null default gen_random_uuid(),
    user_id uuid,
    filename varchar(255) not null,
    file_hash varchar(64) collate "C" not null,
    file_type varchar(10) not null,
    file_size_bytes bigint not null,
    storage_uri varchar(500),
    status varchar(20) not null default 'pending'::varchar,
    error_message text,
    page_count integer,
    processed_at timestamptz,
    attempts integer not null default 0,
    lease_token uuid,
    lease_expires_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint documents_pkey PRIMARY KEY (id),
    constraint documents_attempts_check CHECK (attempts >= 0),
    constraint documents_file_hash_user_id_key UNIQUE NULLS NOT DISTINCT (file_hash, user_id),
    constraint documents_file_size_bytes_check CHECK (file_size_bytes >= 0),
    constraint documents_lease_check CHECK ((lease_token IS NULL) = (lease_expires_at IS NULL)),
    constraint documents_page_count_check CHECK (page_count >= 0),
    constraint documents_status_check CHECK (status::text = ANY (ARRAY['pending'::varchar, 'processing'::varchar, 'completed'::varchar, 'failed'::varchar]::text[])),
    constraint documents_times_check CHECK (LEAST(processed_at, lease_expires_at, created_at, updated_at) >= '0001-01-01 00:00:00+00'::timestamptz AND GREATEST(processed_at, lease_expires_at, created_at, updated_at) < '10000-01-01 00:00:00+00'::timestamptz),
    constraint documents_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
) -- row level security, forced;
CREATE INDEX documents_claimable_idx ON documents USING btree (created_at, id) WHERE (((status)::text = 'pending'::text) OR (((status)::text = 'processing'::text) AND (lease_expires_at IS NOT NULL)));
CREATE INDEX documents_created_at_idx ON documents USING btree (created_at DESC, id DESC);
CREATE INDEX documents_status_created_at_idx ON documents USING btree (status, created_at DESC, id DESC);
CREATE INDEX documents_user_id_created_at_idx ON documents USING btree (user_id, created_at DESC, id DESC);
CREATE TRIGGER documents_set_updated_at BEFORE UPDATE ON documents FOR EACH ROW WHEN (old.* IS DISTINCT FROM new.*) EXECUTE FUNCTION set_updated_at();

create table extraction_jobs (
    id uuid not null default gen_random_uuid(),
    project_id uuid not null,
    source_url varchar(512) not null,
    extraction_type varchar(50) not null,
    status varchar(20) not null default 'pending'::varchar,
    result_data jsonb,
    error_message text,
    attempts integer not null default 0,
    max_attempts integer not null default 5,
    run_at timestamptz not null default now(),
    lease_token uuid,
    lease_expires_at timestamptz,
    completed_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint extraction_jobs_pkey PRIMARY KEY (id),
    constraint extraction_jobs_attempts_check CHECK (attempts >= 0 AND max_attempts >= 1),
    constraint extraction_jobs_lease_check CHECK (lease_expires_at IS NULL OR lease_token IS NOT NULL AND status::text = 'processing'::text),
    constraint extraction_jobs_project_id_fkey FOREIGN KEY (project_id) REFERENCES projects(id) ON DELETE CASCADE,
    constraint extraction_jobs_result_data_check CHECK (NOT jsonb_path_exists(result_data, 'strict $.**{127 to last}'::jsonpath) AND NOT jsonb_path_exists(result_data, 'strict $.**?(@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)'::jsonpath)),
    constraint extraction_jobs_status_check CHECK (status::text = ANY (ARRAY['pending'::varchar, 'processing'::varchar, 'completed'::varchar, 'failed'::varchar]::text[])),
    constraint extraction_jobs_times_check CHECK (LEAST(run_at, lease_expires_at, completed_at, created_at, updated_at) >= '0001-01-01 00:00:00+00'::timestamptz AND GREATEST(run_at, lease_expires_at, completed_at, created_at, updated_at) < '10000-01-01 00:00:00+00'::timestamptz)
) -- row level security, forced;
CREATE INDEX extraction_jobs_due_idx ON extraction_jobs USING btree (COALESCE(lease_expires_at, run_at), id) WHERE (((status)::text = 'pending'::text) OR (lease_expires_at IS NOT NULL));
CREATE INDEX extraction_jobs_project_id_created_at_idx ON extraction_jobs USING btree (project_id, created_at DESC, id DESC);
CREATE INDEX extraction_jobs_status_created_at_idx ON extraction_jobs USING btree (status, created_at DESC, id DESC);
CREATE TRIGGER extraction_jobs_notify_insert AFTER INSERT ON extraction_jobs FOR EACH STATEMENT EXECUTE FUNCTION notify_extraction_jobs();
CREATE TRIGGER extraction_jobs_notify_pending AFTER UPDATE OF status ON extraction_jobs FOR EACH ROW WHEN (new.status::text = 'pending'::text AND old.status::text <> 'pending'::text) EXECUTE FUNCTION notify_extraction_jobs();
CREATE TRIGGER extraction_jobs_set_updated_at BEFORE UPDATE ON extraction_jobs FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER extraction_jobs_settle BEFORE INSERT OR UPDATE OF status ON extraction_jobs FOR EACH ROW EXECUTE FUNCTION settle_extraction_job();

create table income_records (
    id uuid not null default gen_random_uuid(),
    borrower_id uuid not null,
    amount numeric(12,2) not null,
    period varchar(20) not null,
    year integer not null,
    source_type varchar(50) not null,
    employer varchar(255),
    created_at timestamptz not null default now(),
    constraint income_records_pkey PRIMARY KEY (id),
    constraint income_records_amount_check CHECK (amount <> 'NaN'::numeric),
    constraint income_records_borrower_id_fkey FOREIGN KEY (borrower_id) REFERENCES borrowers(id) ON DELETE CASCADE,
    constraint income_records_times_check CHECK (created_at >= '0001-01-01 00:00:00+00'::timestamptz AND created_at < '10000-01-01 00:00:00+00'::timestamptz)
) -- row level security, forced;
CREATE INDEX income_records_borrower_id_idx ON income_records USING btree (borrower_id, year);
CREATE TRIGGER income_records_seen_borrower AFTER INSERT ON income_records REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT WHEN (NOT pg_has_role('chancery_service'::name, 'usage'::text)) EXECUTE FUNCTION refuse_records_of_unseen_borrowers();

create table messages (
    id uuid not null default gen_random_uuid(),
    conversation_id uuid not null,
    user_id uuid not null,
    role varchar(50) not null,
    content text not null,
    metadata jsonb not null default '{}'::jsonb,
    created_at timestamptz not null default now(),
    constraint messages_pkey PRIMARY KEY (id),
    constraint messages_conversation_id_fkey FOREIGN KEY (conversation_id, user_id) REFERENCES conversations(id, user_id) ON UPDATE CASCADE ON DELETE CASCADE,
    constraint messages_metadata_check CHECK (NOT jsonb_path_exists(metadata, 'strict $.**{127 to last}'::jsonpath) AND NOT jsonb_path_exists(metadata, 'strict $.**?(@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)'::jsonpath)),
    constraint messages_role_check CHECK (role::text = ANY (ARRAY['user'::varchar, 'assistant'::varchar, 'system'::varchar]::text[])),
    constraint messages_times_check CHECK (created_at >= '0001-01-01 00:00:00+00'::timestamptz AND created_at < '10000-01-01 00:00:00+00'::timestamptz)
) -- row level security, forced;
CREATE INDEX messages_conversation_id_created_at_idx ON messages USING btree (conversation_id, created_at, id);
CREATE INDEX messages_created_at_idx ON messages USING btree (created_at);
CREATE INDEX messages_metadata_idx ON messages USING gin (metadata);
CREATE INDEX messages_user_id_conversation_id_created_at_idx ON messages USING btree (user_id, conversation_id, created_at, id);
CREATE TRIGGER messages_fill_user_id BEFORE INSERT ON messages FOR EACH ROW WHEN (new.user_id IS NULL) EXECUTE FUNCTION fill_message_user_id();
CREATE TRIGGER trigger_update_conversation AFTER INSERT ON messages REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION update_conversation_timestamp();

create table projects (
    id uuid not null default gen_random_uuid(),
    user_id uuid,
    name varchar(255) not null,
    description text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint projects_pkey PRIMARY KEY (id),
    constraint projects_times_check CHECK (LEAST(created_at, updated_at) >= '0001-01-01 00:00:00+00'::timestamptz AND GREATEST(created_at, updated_at) < '10000-01-01 00:00:00+00'::timestamptz),
    constraint projects_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
) -- row level security, forced;
CREATE INDEX projects_created_at_idx ON projects USING btree (created_at DESC, id DESC);
CREATE INDEX projects_user_id_created_at_idx ON projects USING btree (user_id, created_at DESC, id DESC);
CREATE TRIGGER projects_set_updated_at BEFORE UPDATE ON projects FOR EACH ROW EXECUTE FUNCTION set_updated_at();

create table sessions (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    token_hash varchar(255) collate "C" not null,
    expires_at timestamptz not null,
    created_at timestamptz not null default now(),
    absolute_expires_at timestamptz,
    idle_timeout interval,
    constraint sessions_pkey PRIMARY KEY (id),
    constraint sessions_absolute_expires_at_check CHECK (absolute_expires_at >= '0001-01-01 00:00:00+00'::timestamptz AND absolute_expires_at < '10000-01-01 00:00:00+00'::timestamptz),
    constraint sessions_idle_timeout_check CHECK (idle_timeout > '00:00:00'::interval),
    constraint sessions_times_check CHECK (LEAST(expires_at, created_at) >= '0001-01-01 00:00:00+00'::timestamptz AND GREATEST(expires_at, created_at) < '10000-01-01 00:00:00+00'::timestamptz),
    constraint sessions_token_hash_key UNIQUE (token_hash),
    constraint sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
) -- row level security, forced;
CREATE INDEX sessions_expires_at_idx ON sessions USING btree (expires_at);
CREATE INDEX sessions_user_id_idx ON sessions USING btree (user_id);

create table source_references (
    id uuid not null default gen_random_uuid(),
    borrower_id uuid not null,
    document_id uuid not null,
    page_number integer not null,
    section varchar(100),
    snippet text not null,
    char_start integer,
    char_end integer,
    created_at timestamptz not null default now(),
    constraint source_references_pkey PRIMARY KEY (id),
    constraint source_references_borrower_id_fkey FOREIGN KEY (borrower_id) REFERENCES borrowers(id) ON DELETE CASCADE,
    constraint source_references_char_range_check CHECK (char_start <= char_end),
    constraint source_references_document_id_fkey FOREIGN KEY (document_id) REFERENCES documents(id) ON DELETE CASCADE,
    constraint source_references_page_number_check CHECK (page_number >= 1),
    constraint source_references_times_check CHECK (created_at >= '0001-01-01 00:00:00+00'::timestamptz AND created_at < '10000-01-01 00:00:00+00'::timestamptz)
) -- row level security, forced;
CREATE INDEX source_references_borrower_id_idx ON source_references USING btree (borrower_id);
CREATE INDEX source_references_document_id_idx ON source_references USING btree (document_id, page_number);
CREATE TRIGGER source_references_seen_borrower AFTER INSERT ON source_references REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT WHEN (NOT pg_has_role('chancery_service'::name, 'usage'::text)) EXECUTE FUNCTION refuse_records_of_unseen_borrowers();
CREATE TRIGGER source_references_seen_document AFTER INSERT ON source_references REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT WHEN (NOT pg_has_role('chancery_service'::name, 'usage'::text)) EXECUTE FUNCTION refuse_references_to_unseen_documents();

create table templates (
    id uuid not null default gen_random_uuid(),
    user_id uuid,
    template_type varchar(50) not null,
    template_name varchar(255) not null,
    template_content text not null,
    variables jsonb not null default '[]'::jsonb,
    is_default boolean not null default false,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint templates_pkey PRIMARY KEY (id),
    constraint templates_template_type_check CHECK (template_type::text = ANY (ARRAY['linkedin'::varchar, 'twitter'::varchar, 'blog'::varchar, 'email'::varchar]::text[])),
    constraint templates_times_check CHECK (LEAST(created_at, updated_at) >= '0001-01-01 00:00:00+00'::timestamptz AND GREATEST(created_at, updated_at) < '10000-01-01 00:00:00+00'::timestamptz),
    constraint templates_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    constraint templates_user_id_template_type_template_name_key UNIQUE NULLS NOT DISTINCT (user_id, template_type, template_name),
    constraint templates_variables_check CHECK (NOT jsonb_path_exists(variables, 'strict $.**{127 to last}'::jsonpath) AND NOT jsonb_path_exists(variables, 'strict $.**?(@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)'::jsonpath))
) -- row level security, forced;
CREATE INDEX templates_template_type_is_default_idx ON templates USING btree (template_type, is_default);
CREATE TRIGGER templates_set_updated_at BEFORE UPDATE ON templates FOR EACH ROW EXECUTE FUNCTION set_updated_at();

create table transcripts (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    youtube_video_id varchar(50) collate "C" not null,
    title varchar(500),
    channel_name varchar(255),
    duration integer,
    transcript_text text not null,
    metadata jsonb not null default '{}'::jsonb,
    created_at timestamptz not null default now(),
    constraint transcripts_pkey PRIMARY KEY (id),
    constraint transcripts_duration_check CHECK (duration >= 0),
    constraint transcripts_id_user_id_key UNIQUE (id, user_id),
    constraint transcripts_metadata_check CHECK (NOT jsonb_path_exists(metadata, 'strict $.**{127 to last}'::jsonpath) AND NOT jsonb_path_exists(metadata, 'strict $.**?(@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)'::jsonpath)),
    constraint transcripts_times_check CHECK (created_at >= '0001-01-01 00:00:00+00'::timestamptz AND created_at < '10000-01-01 00:00:00+00'::timestamptz),
    constraint transcripts_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    constraint transcripts_user_id_youtube_video_id_key UNIQUE (user_id, youtube_video_id)
) -- row level security, forced;
CREATE INDEX transcripts_metadata_idx ON transcripts USING gin (metadata);
CREATE INDEX transcripts_user_id_created_at_idx ON transcripts USING btree (user_id, created_at DESC, id DESC);
CREATE INDEX transcripts_youtube_video_id_idx ON transcripts USING btree (youtube_video_id);

create table user_preferences (
    id uuid not null default gen_random_uuid(),
    user_id uuid not null,
    update_frequency varchar(20) not null default 'weekly'::varchar,
    summary_length varchar(20) not null default 'standard'::varchar,
    email_notifications_enabled boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint user_preferences_pkey PRIMARY KEY (id),
    constraint user_preferences_summary_length_check CHECK (summary_length::text = ANY (ARRAY['concise'::varchar, 'standard'::varchar, 'detailed'::varchar]::text[])),
    constraint user_preferences_times_check CHECK (LEAST(created_at, updated_at) >= '0001-01-01 00:00:00+00'::timestamptz AND GREATEST(created_at, updated_at) < '10000-01-01 00:00:00+00'::timestamptz),
    constraint user_preferences_update_frequency_check CHECK (update_frequency::text = ANY (ARRAY['daily'::varchar, 'every_3_days'::varchar, 'weekly'::varchar, 'every_2_weeks'::varchar, 'monthly'::varchar, 'never'::varchar]::text[])),
    constraint user_preferences_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    constraint user_preferences_user_id_key UNIQUE (user_id)
) -- row level security, forced;
CREATE TRIGGER user_preferences_set_updated_at BEFORE UPDATE ON user_preferences FOR EACH ROW EXECUTE FUNCTION set_updated_at();

create table users (
    id uuid not null default gen_random_uuid(),
    email varchar(255) collate "C" not null,
    password_hash varchar(255),
    name varchar(100),
    profile_picture varchar(255),
    profession varchar(100),
    date_of_birth date,
    timezone varchar(50) not null default 'UTC'::varchar,
    is_active boolean not null default true,
    last_login timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint users_pkey PRIMARY KEY (id),
    constraint users_date_of_birth_check CHECK (date_of_birth >= '0001-01-01'::date AND date_of_birth <= '9999-12-31'::date),
    constraint users_email_check CHECK (email::text ~* '^[^@[:space:]]+@[^@[:space:]]+[.][^@[:space:]]+$'::text),
    constraint users_times_check CHECK (LEAST(last_login, created_at, updated_at) >= '0001-01-01 00:00:00+00'::timestamptz AND GREATEST(last_login, created_at, updated_at) < '10000-01-01 00:00:00+00'::timestamptz)
) -- row level security, forced;
CREATE UNIQUE INDEX users_email_exact_key ON users USING btree (email);
CREATE UNIQUE INDEX users_email_key ON users USING btree (lower(((email)::text COLLATE "C")));
CREATE TRIGGER users_check_new_timezone BEFORE INSERT ON users FOR EACH ROW WHEN (new.timezone::text <> 'UTC'::text) EXECUTE FUNCTION check_user_timezone();
CREATE TRIGGER users_check_timezone BEFORE UPDATE OF timezone ON users FOR EACH ROW WHEN (new.timezone::text <> old.timezone::text AND new.timezone::text <> 'UTC'::text) EXECUTE FUNCTION check_user_timezone();
CREATE TRIGGER users_end_sessions AFTER UPDATE OF is_active ON users FOR EACH ROW WHEN (new.is_active <> old.is_active) EXECUTE FUNCTION end_user_sessions();
CREATE TRIGGER users_set_updated_at BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION set_updated_at();

-- policy _chancery_migrations_service on _chancery_migrations for select to chancery_service using true
-- policy account_numbers_insert on account_numbers for insert to chancery_app with check true
-- policy account_numbers_owner on account_numbers for select to chancery_app using (borrower_id = ANY (ARRAY( SELECT b.id
   FROM borrowers b
  WHERE (b.user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id)))))
-- policy account_numbers_service on account_numbers for all to chancery_service using true
-- policy borrowers_owner on borrowers for all to chancery_app using (user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id))
-- policy borrowers_service on borrowers for all to chancery_service using true
-- policy chunks_owner on chunks for all to chancery_app using (user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id))
-- policy chunks_service on chunks for all to chancery_service using true
-- policy config_read on config for select to chancery_app using (( SELECT chancery_current_user_id() AS chancery_current_user_id) IS NOT NULL)
-- policy config_service on config for all to chancery_service using true
-- policy conversations_owner on conversations for all to chancery_app using (user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id))
-- policy conversations_service on conversations for all to chancery_service using true
-- policy documents_owner on documents for all to chancery_app using (user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id))
-- policy documents_service on documents for all to chancery_service using true
-- policy extraction_jobs_owner on extraction_jobs for all to chancery_app using (project_id = ANY (ARRAY( SELECT p.id
   FROM projects p
  WHERE (p.user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id)))))
-- policy extraction_jobs_service on extraction_jobs for all to chancery_service using true
-- policy income_records_insert on income_records for insert to chancery_app with check true
-- policy income_records_owner on income_records for select to chancery_app using (borrower_id = ANY (ARRAY( SELECT b.id
   FROM borrowers b
  WHERE (b.user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id)))))
-- policy income_records_service on income_records for all to chancery_service using true
-- policy messages_owner on messages for all to chancery_app using (user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id))
-- policy messages_service on messages for all to chancery_service using true
-- policy projects_owner on projects for all to chancery_app using (user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id))
-- policy projects_service on projects for all to chancery_service using true
-- policy sessions_owner on sessions for all to chancery_app using (user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id))
-- policy sessions_service on sessions for all to chancery_service using true
-- policy source_references_insert on source_references for insert to chancery_app with check true
-- policy source_references_owner on source_references for select to chancery_app using (borrower_id = ANY (ARRAY( SELECT b.id
   FROM borrowers b
  WHERE (b.user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id)))))
-- policy source_references_service on source_references for all to chancery_service using true
-- policy templates_owner on templates for all to chancery_app using (user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id))
-- policy templates_service on templates for all to chancery_service using true
-- policy templates_system on templates for select to chancery_app using ((user_id IS NULL) AND (( SELECT chancery_current_user_id() AS chancery_current_user_id) IS NOT NULL))
-- policy transcripts_owner on transcripts for all to chancery_app using (user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id))
-- policy transcripts_service on transcripts for all to chancery_service using true
-- policy user_preferences_owner on user_preferences for all to chancery_app using (user_id = ( SELECT chancery_current_user_id() AS chancery_current_user_id))
-- policy user_preferences_service on user_preferences for all to chancery_service using true
-- policy users_owner on users for all to chancery_app using (id = ( SELECT chancery_current_user_id() AS chancery_current_user_id))
-- policy users_service on users for all to chancery_service using true

-- grant delete, insert, select, update on account_numbers to chancery_service
-- grant delete, insert, select, update on borrowers to chancery_app
-- grant delete, insert, select, update on borrowers to chancery_service
-- grant delete, insert, select, update on chunks to chancery_app
-- grant delete, insert, select, update on chunks to chancery_service
-- grant delete, insert, select, update on config to chancery_service
-- grant delete, insert, select, update on conversations to chancery_app
-- grant delete, insert, select, update on conversations to chancery_service
-- grant delete, insert, select, update on documents to chancery_app
-- grant delete, insert, select, update on documents to chancery_service
-- grant delete, insert, select, update on extraction_jobs to chancery_app
-- grant delete, insert, select, update on extraction_jobs to chancery_service
-- grant delete, insert, select, update on income_records to chancery_service
-- grant delete, insert, select, update on messages to chancery_app
-- grant delete, insert, select, update on messages to chancery_service
-- grant delete, insert, select, update on projects to chancery_app
-- grant delete, insert, select, update on projects to chancery_service
-- grant delete, insert, select, update on sessions to chancery_app
-- grant delete, insert, select, update on sessions to chancery_service
-- grant delete, insert, select, update on source_references to chancery_service
-- grant delete, insert, select, update on templates to chancery_app
-- grant delete, insert, select, update on templates to chancery_service
-- grant delete, insert, select, update on transcripts to chancery_app
-- grant delete, insert, select, update on transcripts to chancery_service
-- grant delete, insert, select, update on user_preferences to chancery_service
-- grant delete, insert, select, update on users to chancery_service
-- grant delete, select, update on users to chancery_app
-- grant execute on chancery_current_user_id to chancery_app
-- grant execute on chancery_current_user_id to chancery_service
-- grant execute on delete_document to chancery_app
-- grant execute on delete_document to chancery_service
-- grant execute on replace_chunks to chancery_app
-- grant execute on replace_chunks to chancery_service
-- grant execute on text_trigrams to chancery_app
-- grant execute on text_trigrams to chancery_service
-- grant insert, select on account_numbers to chancery_app
-- grant insert, select on income_records to chancery_app
-- grant insert, select on source_references to chancery_app
-- grant insert, select, update on user_preferences to chancery_app
-- grant select on _chancery_migrations to chancery_service
-- grant select on config to chancery_app
-- grant usage on the schema to chancery_app
-- grant usage on the schema to chancery_service
-- revoke execute on chancery_current_user_id from public
-- revoke execute on check_user_timezone from public
-- revoke execute on delete_document from public
-- revoke execute on end_user_sessions from public
-- revoke execute on fill_chunk_user_id from public
-- revoke execute on fill_message_user_id from public
-- revoke execute on notify_extraction_jobs from public
-- revoke execute on refuse_records_of_unseen_borrowers from public
-- revoke execute on refuse_references_to_unseen_documents from public
-- revoke execute on replace_chunks from public
-- revoke execute on set_updated_at from public
-- revoke execute on settle_extraction_job from public
-- revoke execute on text_trigrams from public
-- revoke execute on update_conversation_timestamp from public
