-- Nobody reads what is not theirs: two roles, row-level security on every table, and nothing that is
-- granted to everybody.
--
-- * chancery_app: who works for one user. It sees and changes what belongs to the user whom
--   chancery_current_user_id() names, and nothing when none is named. No DDL, and only the DML that the
--   statements of this crate need.
-- * chancery_service: jobs, sign-in, migrations. It sees all rows.
--
-- An application's login role is a member of both. Row-level security is forced, so the tables' owner
-- sees rows as chancery_service, whose member it becomes here.
set local lock_timeout = '5s';

-- Roles belong to the cluster, not to this database: they may be there already, or be made at this
-- moment by a migration of another database. Then there is a role, or this waits for it and finds it.
do $$
declare
    role_name text;
begin
    foreach role_name in array array['chancery_app', 'chancery_service'] loop
        if not exists (select from pg_roles where rolname = role_name) then
            begin
                execute format('create role %I nologin', role_name);
            exception
                when duplicate_object or unique_violation then null;
                when insufficient_privilege then
                    raise invalid_role_specification using
                        message = format('the role %s does not exist, and %s may not create it',
                                         role_name, current_user),
                        hint = 'Let an administrator run migrations/roles.sql once for the cluster.';
            end;
        end if;
        -- True for a superuser, who is not made a member.
        if not pg_has_role(role_name, 'usage') then
            begin
                execute format('grant %I to %I', role_name, current_user);
            exception
                -- internal_error: "tuple concurrently updated".
                when unique_violation or internal_error then null;
                when insufficient_privilege then
                    raise invalid_role_specification using
                        message = format('%s is not a member of %s, and may not make itself one',
                                         current_user, role_name),
                        hint = 'Let an administrator run migrations/roles.sql once for the cluster.';
            end;
            if not pg_has_role(role_name, 'usage') then
                raise invalid_role_specification using
                    message = format('%s does not inherit the rights of %s', current_user, role_name),
                    hint = 'Alter the role to inherit, or see migrations/roles.sql.';
            end if;
        end if;
    end loop;
    execute format('grant usage on schema %I to chancery_app, chancery_service', current_schema());
    -- For the health check, and the look at the version at start-up.
    if to_regclass('_chancery_migrations') is not null then
        grant select on _chancery_migrations to chancery_service;
    end if;
end;
$$;

-- The user for whom the transaction works; null when none is named. Without `set search_path`, so that
-- the planner can put its expression into a policy's place: its body is parsed here, once, and looks
-- nothing up later.
create function chancery_current_user_id() returns uuid
    language sql stable parallel safe
    return nullif(current_setting('chancery.user_id', true), '')::uuid;

-- A new function is executable by everybody unless that is revoked. Trigger functions need nobody's right.
revoke execute on function
    chancery_current_user_id(), delete_document(uuid), fill_chunk_user_id(), fill_message_user_id(),
    notify_extraction_jobs(), set_updated_at(), settle_extraction_job(), text_trigrams(text),
    update_conversation_timestamp()
from public;
grant execute on function chancery_current_user_id(), delete_document(uuid), text_trigrams(text)
   to chancery_app, chancery_service;

grant select, insert, update, delete
   on users, user_preferences, sessions, conversations, messages, transcripts, chunks, templates,
      config, documents, borrowers, income_records, account_numbers, source_references, projects,
      extraction_jobs
   to chancery_service;
-- Signing up is the service's.
grant select, update, delete on users to chancery_app;
grant select, insert, update on user_preferences to chancery_app;
grant select, insert, update, delete
   on sessions, conversations, messages, transcripts, chunks, templates, documents, borrowers,
      projects, extraction_jobs
   to chancery_app;
-- Records go with their borrower or document.
grant select, insert on income_records, account_numbers, source_references to chancery_app;
-- Nobody's: readable for all users, so no place for secrets.
grant select on config to chancery_app;

alter table users enable row level security, force row level security;
alter table user_preferences enable row level security, force row level security;
alter table sessions enable row level security, force row level security;
alter table conversations enable row level security, force row level security;
alter table messages enable row level security, force row level security;
alter table transcripts enable row level security, force row level security;
alter table chunks enable row level security, force row level security;
alter table templates enable row level security, force row level security;
alter table config enable row level security, force row level security;
alter table documents enable row level security, force row level security;
alter table borrowers enable row level security, force row level security;
alter table income_records enable row level security, force row level security;
alter table account_numbers enable row level security, force row level security;
alter table source_references enable row level security, force row level security;
alter table projects enable row level security, force row level security;
alter table extraction_jobs enable row level security, force row level security;

-- One policy a role, not one with `or`: each role's condition can be an index's. `(select …)` is
-- evaluated once a statement.
create policy users_service on users to chancery_service using (true);
create policy user_preferences_service on user_preferences to chancery_service using (true);
create policy sessions_service on sessions to chancery_service using (true);
create policy conversations_service on conversations to chancery_service using (true);
create policy messages_service on messages to chancery_service using (true);
create policy transcripts_service on transcripts to chancery_service using (true);
create policy chunks_service on chunks to chancery_service using (true);
create policy templates_service on templates to chancery_service using (true);
create policy config_service on config to chancery_service using (true);
create policy documents_service on documents to chancery_service using (true);
create policy borrowers_service on borrowers to chancery_service using (true);
create policy income_records_service on income_records to chancery_service using (true);
create policy account_numbers_service on account_numbers to chancery_service using (true);
create policy source_references_service on source_references to chancery_service using (true);
create policy projects_service on projects to chancery_service using (true);
create policy extraction_jobs_service on extraction_jobs to chancery_service using (true);

create policy users_owner on users to chancery_app
    using (id = (select chancery_current_user_id()));
create policy user_preferences_owner on user_preferences to chancery_app
    using (user_id = (select chancery_current_user_id()));
create policy sessions_owner on sessions to chancery_app
    using (user_id = (select chancery_current_user_id()));
create policy conversations_owner on conversations to chancery_app
    using (user_id = (select chancery_current_user_id()));
create policy messages_owner on messages to chancery_app
    using (user_id = (select chancery_current_user_id()));
create policy transcripts_owner on transcripts to chancery_app
    using (user_id = (select chancery_current_user_id()));
create policy chunks_owner on chunks to chancery_app
    using (user_id = (select chancery_current_user_id()));
create policy templates_owner on templates to chancery_app
    using (user_id = (select chancery_current_user_id()));
create policy documents_owner on documents to chancery_app
    using (user_id = (select chancery_current_user_id()));
create policy borrowers_owner on borrowers to chancery_app
    using (user_id = (select chancery_current_user_id()));
create policy projects_owner on projects to chancery_app
    using (user_id = (select chancery_current_user_id()));
-- The system's templates are everybody's to read. An unnamed user still sees nothing.
create policy templates_system on templates for select to chancery_app
    using (user_id is null and (select chancery_current_user_id()) is not null);
create policy config_read on config for select to chancery_app
    using ((select chancery_current_user_id()) is not null);

-- Through the parent. As an array of the user's parents, which an index on the parent's key can be
-- asked for: `exists` would look at every row of everybody's, where a statement names no parent.
create policy extraction_jobs_owner on extraction_jobs to chancery_app
    using (project_id = any (array(
        select p.id from projects p where p.user_id = (select chancery_current_user_id()))));
create policy income_records_owner on income_records for select to chancery_app
    using (borrower_id = any (array(
        select b.id from borrowers b where b.user_id = (select chancery_current_user_id()))));
create policy account_numbers_owner on account_numbers for select to chancery_app
    using (borrower_id = any (array(
        select b.id from borrowers b where b.user_id = (select chancery_current_user_id()))));
create policy source_references_owner on source_references for select to chancery_app
    using (borrower_id = any (array(
        select b.id from borrowers b where b.user_id = (select chancery_current_user_id()))));

-- A borrower and its records are stored by one statement, and a policy's query does not see what its
-- own statement inserts. So these rows are let in, and looked at when the statement ends. What the
-- role can't see is refused as if it did not exist.
create policy income_records_insert on income_records for insert to chancery_app with check (true);
create policy account_numbers_insert on account_numbers for insert to chancery_app with check (true);
create policy source_references_insert on source_references for insert to chancery_app
    with check (true);

create function refuse_records_of_unseen_borrowers() returns trigger
    language plpgsql
    set search_path from current
as $$
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
$$;

create function refuse_references_to_unseen_documents() returns trigger
    language plpgsql
    set search_path from current
as $$
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
$$;

revoke execute on function
    refuse_records_of_unseen_borrowers(), refuse_references_to_unseen_documents()
from public;

-- Not for the service, which sees all rows: the foreign keys are enough there.
create trigger income_records_seen_borrower
    after insert on income_records
    referencing new table as inserted
    for each statement when (not pg_has_role('chancery_service', 'usage'))
    execute function refuse_records_of_unseen_borrowers();
create trigger account_numbers_seen_borrower
    after insert on account_numbers
    referencing new table as inserted
    for each statement when (not pg_has_role('chancery_service', 'usage'))
    execute function refuse_records_of_unseen_borrowers();
create trigger source_references_seen_borrower
    after insert on source_references
    referencing new table as inserted
    for each statement when (not pg_has_role('chancery_service', 'usage'))
    execute function refuse_records_of_unseen_borrowers();
create trigger source_references_seen_document
    after insert on source_references
    referencing new table as inserted
    for each statement when (not pg_has_role('chancery_service', 'usage'))
    execute function refuse_references_to_unseen_documents();
