-- Who uses the application: users, what they prefer, and their signed-in sessions.
set local lock_timeout = '5s';

create table users (
    id              uuid         not null default gen_random_uuid(),
    email           varchar(255) not null,
    -- null: the account signs in through an identity provider
    password_hash   varchar(255),
    name            varchar(100),
    profile_picture varchar(255),
    profession      varchar(100),
    date_of_birth   date,
    timezone        varchar(50)  not null default 'UTC',
    is_active       boolean      not null default true,
    last_login      timestamptz,
    created_at      timestamptz  not null default now(),
    updated_at      timestamptz  not null default now(),
    constraint users_pkey primary key (id),
    constraint users_email_check check (email ~* '^[^@[:space:]]+@[^@[:space:]]+\.[^@[:space:]]+$'),
    -- Clients can't read infinity, nor years of more than four digits.
    constraint users_times_check
        check (least(last_login, created_at, updated_at)
               >= '0001-01-01 00:00+00'
           and greatest(last_login, created_at, updated_at)
               < '10000-01-01 00:00+00'),
    constraint users_date_of_birth_check
        check (date_of_birth between '0001-01-01' and '9999-12-31')
);

-- One account a mailbox, however its owner types it: unique without regard to case, and the index
-- that UserRepository::get_by_email reads.
create unique index users_email_key on users (lower(email));

create trigger users_set_updated_at
    before update on users
    for each row execute function set_updated_at();

create table user_preferences (
    id                          uuid        not null default gen_random_uuid(),
    user_id                     uuid        not null,
    update_frequency            varchar(20) not null default 'weekly',
    summary_length              varchar(20) not null default 'standard',
    email_notifications_enabled boolean     not null default true,
    created_at                  timestamptz not null default now(),
    updated_at                  timestamptz not null default now(),
    constraint user_preferences_pkey primary key (id),
    constraint user_preferences_user_id_key unique (user_id),
    constraint user_preferences_user_id_fkey foreign key (user_id)
        references users (id) on delete cascade,
    constraint user_preferences_update_frequency_check
        check (update_frequency in ('daily', 'weekly', 'monthly', 'never')),
    constraint user_preferences_summary_length_check
        check (summary_length in ('concise', 'standard', 'detailed')),
    -- Clients can't read infinity, nor years of more than four digits.
    constraint user_preferences_times_check
        check (least(created_at, updated_at)
               >= '0001-01-01 00:00+00'
           and greatest(created_at, updated_at)
               < '10000-01-01 00:00+00')
);

create trigger user_preferences_set_updated_at
    before update on user_preferences
    for each row execute function set_updated_at();

create table sessions (
    id         uuid         not null default gen_random_uuid(),
    user_id    uuid         not null,
    token_hash varchar(255) not null,
    expires_at timestamptz  not null,
    created_at timestamptz  not null default now(),
    constraint sessions_pkey primary key (id),
    constraint sessions_token_hash_key unique (token_hash),
    constraint sessions_user_id_fkey foreign key (user_id) references users (id) on delete cascade,
    -- Clients can't read infinity, nor years of more than four digits.
    constraint sessions_times_check
        check (least(expires_at, created_at)
               >= '0001-01-01 00:00+00'
           and greatest(expires_at, created_at)
               < '10000-01-01 00:00+00')
);

-- list_by_user and delete_by_user; also serves the cascade from users.
create index sessions_user_id_idx on sessions (user_id);
-- delete_expired.
create index sessions_expires_at_idx on sessions (expires_at);
