-- Settings of the application, by key.
set local lock_timeout = '5s';

create table config (
    key         varchar(100) not null,
    value       jsonb        not null,
    description text,
    updated_at  timestamptz  not null default now(),
    constraint config_pkey primary key (key)
);

create trigger config_set_updated_at
    before update on config
    for each row execute function set_updated_at();
