-- Settings of the application, by key.
set local lock_timeout = '5s';

create table config (
    key         varchar(100) not null,
    value       jsonb        not null,
    description text,
    updated_at  timestamptz  not null default now(),
    constraint config_pkey primary key (key),
    -- Clients can't read infinity, nor years of more than four digits.
    constraint config_times_check
        check (updated_at >= '0001-01-01 00:00+00'
           and updated_at < '10000-01-01 00:00+00')
);

create trigger config_set_updated_at
    before update on config
    for each row execute function set_updated_at();
