-- Projects, and the jobs that extract design tokens for them: a queue.
set local lock_timeout = '5s';

create table projects (
    id          uuid         not null default gen_random_uuid(),
    -- null: nobody's; only the service works on it
    user_id     uuid,
    name        varchar(255) not null,
    description text,
    created_at  timestamptz  not null default now(),
    updated_at  timestamptz  not null default now(),
    constraint projects_pkey primary key (id),
    constraint projects_user_id_fkey foreign key (user_id) references users (id) on delete cascade,
    -- Clients can't read infinity, nor years of more than four digits.
    constraint projects_times_check
        check (least(created_at, updated_at)
               >= '0001-01-01 00:00+00'
           and greatest(created_at, updated_at)
               < '10000-01-01 00:00+00')
);

-- One owner's projects, newest first; also the cascade from users.
create index projects_user_id_created_at_idx on projects (user_id, created_at desc, id desc);
-- All projects, newest first.
create index projects_created_at_idx on projects (created_at desc, id desc);

create trigger projects_set_updated_at
    before update on projects
    for each row execute function set_updated_at();

create table extraction_jobs (
    id               uuid         not null default gen_random_uuid(),
    project_id       uuid         not null,
    source_url       varchar(512) not null,
    extraction_type  varchar(50)  not null,
    status           varchar(20)  not null default 'pending',
    result_data      jsonb,
    error_message    text,
    -- how often a worker took it, and how often one may
    attempts         integer      not null default 0,
    max_attempts     integer      not null default 5,
    -- not before this
    run_at           timestamptz  not null default now(),
    -- Who works on it, until when. Null with status processing: a program that takes no leases set
    -- that, and nobody takes the job from it.
    lease_token      uuid,
    lease_expires_at timestamptz,
    -- when it ended: completed, or failed for good
    completed_at     timestamptz,
    created_at       timestamptz  not null default now(),
    updated_at       timestamptz  not null default now(),
    constraint extraction_jobs_pkey primary key (id),
    constraint extraction_jobs_project_id_fkey foreign key (project_id)
        references projects (id) on delete cascade,
    constraint extraction_jobs_status_check
        check (status in ('pending', 'processing', 'completed', 'failed')),
    constraint extraction_jobs_attempts_check check (attempts >= 0 and max_attempts >= 1),
    constraint extraction_jobs_lease_check
        check (lease_expires_at is null or (lease_token is not null and status = 'processing')),
    -- Clients can't read infinity, nor years of more than four digits.
    constraint extraction_jobs_times_check
        check (least(run_at, lease_expires_at, completed_at, created_at, updated_at)
               >= '0001-01-01 00:00+00'
           and greatest(run_at, lease_expires_at, completed_at, created_at, updated_at)
               < '10000-01-01 00:00+00')
);

-- One project's jobs, newest first; also the cascade from projects.
create index extraction_jobs_project_id_created_at_idx
    on extraction_jobs (project_id, created_at desc, id desc);
-- Those in one state, newest first.
create index extraction_jobs_status_created_at_idx
    on extraction_jobs (status, created_at desc, id desc);
-- What a worker takes next: waiting jobs by the time they are due, and held ones by the time their
-- lease ends, in one order. Ended jobs are not in it, so it stays as small as the work in hand.
create index extraction_jobs_due_idx
    on extraction_jobs (coalesce(lease_expires_at, run_at), id)
 where status = 'pending' or lease_expires_at is not null;

create trigger extraction_jobs_set_updated_at
    before update on extraction_jobs
    for each row execute function set_updated_at();

-- What belongs to a state, whoever sets it: only a job in process has a lease, only one that has
-- ended has the time of its end, and one that is set back after its end begins anew. The token stays
-- after the end: the worker that ended it can ask again when the answer was lost.
create function settle_extraction_job() returns trigger
    language plpgsql
    set search_path from current
as $$
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
$$;

create trigger extraction_jobs_settle
    before insert or update of status on extraction_jobs
    for each row execute function settle_extraction_job();

-- Wakes the workers that wait: once a statement for new jobs, whatever program inserts them, and for
-- each that goes back to waiting. Equal notifications of a transaction are sent once.
create function notify_extraction_jobs() returns trigger
    language plpgsql
    set search_path from current
as $$
begin
    perform pg_notify('chancery_extraction_jobs', '');
    return null;
end;
$$;

create trigger extraction_jobs_notify_insert
    after insert on extraction_jobs
    for each statement execute function notify_extraction_jobs();

create trigger extraction_jobs_notify_pending
    after update of status on extraction_jobs
    for each row when (new.status = 'pending' and old.status <> 'pending')
    execute function notify_extraction_jobs();
