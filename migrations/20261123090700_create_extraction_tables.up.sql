-- Projects, and the jobs that extract design tokens for them.
set local lock_timeout = '5s';

create table projects (
    id          uuid         not null default gen_random_uuid(),
    user_id     uuid,
    name        varchar(255) not null,
    description text,
    created_at  timestamptz  not null default now(),
    updated_at  timestamptz  not null default now(),
    constraint projects_pkey primary key (id),
    constraint projects_user_id_fkey foreign key (user_id) references users (id) on delete cascade
);

-- One owner's projects, newest first; also the cascade from users.
create index projects_user_id_created_at_idx on projects (user_id, created_at desc, id desc);

create trigger projects_set_updated_at
    before update on projects
    for each row execute function set_updated_at();

create table extraction_jobs (
    id              uuid         not null default gen_random_uuid(),
    project_id      uuid         not null,
    source_url      varchar(512) not null,
    extraction_type varchar(50)  not null,
    status          varchar(20)  not null default 'pending',
    result_data     jsonb,
    error_message   text,
    completed_at    timestamptz,
    created_at      timestamptz  not null default now(),
    updated_at      timestamptz  not null default now(),
    constraint extraction_jobs_pkey primary key (id),
    constraint extraction_jobs_project_id_fkey foreign key (project_id)
        references projects (id) on delete cascade,
    constraint extraction_jobs_status_check
        check (status in ('pending', 'processing', 'completed', 'failed'))
);

create index extraction_jobs_project_id_created_at_idx
    on extraction_jobs (project_id, created_at desc, id desc);
create index extraction_jobs_pending_idx
    on extraction_jobs (created_at, id) where status = 'pending';

create trigger extraction_jobs_set_updated_at
    before update on extraction_jobs
    for each row execute function set_updated_at();
