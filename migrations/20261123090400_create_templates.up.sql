-- Texts that the application fills in: a user's own templates, and the system's defaults.
set local lock_timeout = '5s';

create table templates (
    id               uuid         not null default gen_random_uuid(),
    -- null: a system template, readable by everybody
    user_id          uuid,
    template_type    varchar(50)  not null,
    template_name    varchar(255) not null,
    template_content text         not null,
    variables        jsonb        not null default '[]',
    is_default       boolean      not null default false,
    created_at       timestamptz  not null default now(),
    updated_at       timestamptz  not null default now(),
    constraint templates_pkey primary key (id),
    -- System rows too: two nulls count as the same owner. Also serves list_by_user and the
    -- cascade from users.
    constraint templates_user_id_template_type_template_name_key
        unique nulls not distinct (user_id, template_type, template_name),
    constraint templates_user_id_fkey foreign key (user_id)
        references users (id) on delete cascade,
    constraint templates_template_type_check
        check (template_type in ('linkedin', 'twitter', 'blog', 'email')),
    -- Clients can't read infinity, nor years of more than four digits.
    constraint templates_times_check
        check (least(created_at, updated_at)
               >= '0001-01-01 00:00+00'
           and greatest(created_at, updated_at)
               < '10000-01-01 00:00+00')
);

-- list_defaults; named by the specification.
create index templates_template_type_is_default_idx on templates (template_type, is_default);

create trigger templates_set_updated_at
    before update on templates
    for each row execute function set_updated_at();
