-- Loan documents, and what was read out of them about borrowers.
set local lock_timeout = '5s';

create table documents (
    id               uuid         not null default gen_random_uuid(),
    -- null: nobody's; only the service works on it
    user_id          uuid,
    filename         varchar(255) not null,
    -- SHA-256 of the content, hex
    file_hash        varchar(64)  not null,
    file_type        varchar(10)  not null,
    file_size_bytes  bigint       not null,
    storage_uri      varchar(500),
    status           varchar(20)  not null default 'pending',
    error_message    text,
    page_count       integer,
    processed_at     timestamptz,
    -- how often a worker has claimed it
    attempts         integer      not null default 0,
    -- whose claim holds, and until when; both null when nobody's does
    lease_token      uuid,
    lease_expires_at timestamptz,
    created_at       timestamptz  not null default now(),
    updated_at       timestamptz  not null default now(),
    constraint documents_pkey primary key (id),
    constraint documents_file_hash_key unique (file_hash),
    constraint documents_user_id_fkey foreign key (user_id)
        references users (id) on delete cascade,
    constraint documents_status_check
        check (status in ('pending', 'processing', 'completed', 'failed')),
    constraint documents_file_size_bytes_check check (file_size_bytes >= 0),
    constraint documents_page_count_check check (page_count >= 0),
    constraint documents_attempts_check check (attempts >= 0),
    constraint documents_lease_check
        check ((lease_token is null) = (lease_expires_at is null)),
    -- Clients can't read infinity, nor years of more than four digits.
    constraint documents_times_check
        check (least(processed_at, lease_expires_at, created_at, updated_at)
               >= '0001-01-01 00:00+00'
           and greatest(processed_at, lease_expires_at, created_at, updated_at)
               < '10000-01-01 00:00+00')
);

-- The cascade from users, and one owner's documents, newest first.
create index documents_user_id_created_at_idx on documents (user_id, created_at desc, id desc);
-- All documents, newest first.
create index documents_created_at_idx on documents (created_at desc, id desc);
-- Those of one status, newest first, and how many; read backwards, those that wait.
create index documents_status_created_at_idx on documents (status, created_at desc, id desc);
-- claim_pending: those that wait and those whose lease may have ended, in order of arrival. Small,
-- because it holds only them.
create index documents_claimable_idx on documents (created_at, id)
    where status = 'pending' or (status = 'processing' and lease_expires_at is not null);

-- Only for a change: create_or_get's update, when two create the same one at once, changes nothing.
create trigger documents_set_updated_at
    before update on documents
    for each row when (old.* is distinct from new.*)
    execute function set_updated_at();

create table borrowers (
    id               uuid          not null default gen_random_uuid(),
    user_id          uuid,
    name             varchar(255)  not null,
    ssn_hash         varchar(64),
    address          jsonb,
    confidence_score numeric(3, 2) not null default 0,
    created_at       timestamptz   not null default now(),
    constraint borrowers_pkey primary key (id),
    constraint borrowers_user_id_fkey foreign key (user_id)
        references users (id) on delete cascade,
    constraint borrowers_confidence_score_check check (confidence_score between 0 and 1),
    -- Clients can't read infinity, nor years of more than four digits.
    constraint borrowers_times_check
        check (created_at >= '0001-01-01 00:00+00'
           and created_at < '10000-01-01 00:00+00')
);

-- The pieces of three characters of a text, in lower case: "Ada L" has "ada", "da ", "a l". A text
-- that contains another contains its pieces, so a GIN index on them finds substrings. What the
-- extension pg_trgm does, on servers too that lack it or where the role may not create it.
create function text_trigrams(value text) returns text[]
    language sql immutable strict parallel safe
    set search_path from current
as $$
    select array(
        select substr(lowered, place, 3)
          from lower(value) lowered, generate_series(1, length(lowered) - 2) place
    )
$$;

-- One owner's borrowers, newest first; also the cascade from users.
create index borrowers_user_id_created_at_idx on borrowers (user_id, created_at desc, id desc);
-- search_by_name.
create index borrowers_name_idx on borrowers using gin (text_trigrams(name));
create index borrowers_ssn_hash_idx on borrowers (ssn_hash);

create table income_records (
    id          uuid           not null default gen_random_uuid(),
    borrower_id uuid           not null,
    amount      numeric(12, 2) not null,
    period      varchar(20)    not null,
    year        integer        not null,
    source_type varchar(50)    not null,
    employer    varchar(255),
    created_at  timestamptz    not null default now(),
    constraint income_records_pkey primary key (id),
    constraint income_records_borrower_id_fkey foreign key (borrower_id)
        references borrowers (id) on delete cascade,
    -- numeric has a NaN, which no client could read as an amount
    constraint income_records_amount_check check (amount <> 'NaN'),
    -- Clients can't read infinity, nor years of more than four digits.
    constraint income_records_times_check
        check (created_at >= '0001-01-01 00:00+00'
           and created_at < '10000-01-01 00:00+00')
);

-- Also sum_income_by_year.
create index income_records_borrower_id_idx on income_records (borrower_id, year);

create table account_numbers (
    id           uuid        not null default gen_random_uuid(),
    borrower_id  uuid        not null,
    number       varchar(50) not null,
    account_type varchar(20) not null,
    created_at   timestamptz not null default now(),
    constraint account_numbers_pkey primary key (id),
    constraint account_numbers_borrower_id_fkey foreign key (borrower_id)
        references borrowers (id) on delete cascade,
    -- Clients can't read infinity, nor years of more than four digits.
    constraint account_numbers_times_check
        check (created_at >= '0001-01-01 00:00+00'
           and created_at < '10000-01-01 00:00+00')
);

create index account_numbers_borrower_id_idx on account_numbers (borrower_id);
-- search_by_account_number.
create index account_numbers_number_idx on account_numbers using gin (text_trigrams(number));

create table source_references (
    id          uuid         not null default gen_random_uuid(),
    borrower_id uuid         not null,
    document_id uuid         not null,
    page_number integer      not null,
    section     varchar(100),
    snippet     text         not null,
    char_start  integer,
    char_end    integer,
    created_at  timestamptz  not null default now(),
    constraint source_references_pkey primary key (id),
    constraint source_references_borrower_id_fkey foreign key (borrower_id)
        references borrowers (id) on delete cascade,
    constraint source_references_document_id_fkey foreign key (document_id)
        references documents (id) on delete cascade,
    constraint source_references_page_number_check check (page_number >= 1),
    constraint source_references_char_range_check check (char_start <= char_end),
    -- Clients can't read infinity, nor years of more than four digits.
    constraint source_references_times_check
        check (created_at >= '0001-01-01 00:00+00'
           and created_at < '10000-01-01 00:00+00')
);

create index source_references_borrower_id_idx on source_references (borrower_id);
create index source_references_document_id_idx on source_references (document_id, page_number);

-- Deletes a document, and the borrowers that are known from no other. Says whether there was one.
--
-- A function, because each of its statements sees what was committed before it: whoever refers to
-- one of these borrowers from another document, or deletes that other document, at the same time
-- is waited for, then seen. One statement with CTEs has one snapshot, which is taken before the wait.
create function delete_document(document uuid) returns boolean
    language plpgsql
    set search_path from current
as $$
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
$$;
