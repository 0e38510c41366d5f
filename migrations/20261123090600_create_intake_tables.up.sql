-- Loan documents, and what was read out of them about borrowers.
set local lock_timeout = '5s';

create table documents (
    id              uuid         not null default gen_random_uuid(),
    -- null: nobody's; only the service works on it
    user_id         uuid,
    filename        varchar(255) not null,
    -- SHA-256 of the content, hex
    file_hash       varchar(64)  not null,
    file_type       varchar(10)  not null,
    file_size_bytes bigint       not null,
    storage_uri     varchar(500),
    status          varchar(20)  not null default 'pending',
    error_message   text,
    page_count      integer,
    processed_at    timestamptz,
    created_at      timestamptz  not null default now(),
    updated_at      timestamptz  not null default now(),
    constraint documents_pkey primary key (id),
    constraint documents_file_hash_key unique (file_hash),
    constraint documents_user_id_fkey foreign key (user_id)
        references users (id) on delete cascade,
    constraint documents_status_check
        check (status in ('pending', 'processing', 'completed', 'failed')),
    constraint documents_file_size_bytes_check check (file_size_bytes >= 0),
    constraint documents_page_count_check check (page_count >= 0)
);

-- The cascade from users, and one owner's documents, newest first.
create index documents_user_id_created_at_idx on documents (user_id, created_at desc, id desc);
-- All documents, newest first.
create index documents_created_at_idx on documents (created_at desc, id desc);
-- Those that wait, in order of arrival: small, because it holds only them.
create index documents_pending_idx on documents (created_at, id) where status = 'pending';

create trigger documents_set_updated_at
    before update on documents
    for each row execute function set_updated_at();

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
    constraint borrowers_confidence_score_check check (confidence_score between 0 and 1)
);

create index borrowers_user_id_idx on borrowers (user_id);
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
        references borrowers (id) on delete cascade
);

create index income_records_borrower_id_idx on income_records (borrower_id, year);

create table account_numbers (
    id           uuid        not null default gen_random_uuid(),
    borrower_id  uuid        not null,
    number       varchar(50) not null,
    account_type varchar(20) not null,
    created_at   timestamptz not null default now(),
    constraint account_numbers_pkey primary key (id),
    constraint account_numbers_borrower_id_fkey foreign key (borrower_id)
        references borrowers (id) on delete cascade
);

create index account_numbers_borrower_id_idx on account_numbers (borrower_id);

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
    constraint source_references_char_range_check check (char_start <= char_end)
);

create index source_references_borrower_id_idx on source_references (borrower_id);
create index source_references_document_id_idx on source_references (document_id);
