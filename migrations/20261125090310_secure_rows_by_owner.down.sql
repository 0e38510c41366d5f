-- The roles stay: they belong to the cluster, where other databases may use them, and login roles be
-- their members. migrations/roles.sql says how they go.
set local lock_timeout = '5s';

drop trigger income_records_seen_borrower on income_records;
drop trigger account_numbers_seen_borrower on account_numbers;
drop trigger source_references_seen_borrower on source_references;
drop trigger source_references_seen_document on source_references;
drop function refuse_references_to_unseen_documents();
drop function refuse_records_of_unseen_borrowers();

drop policy source_references_insert on source_references;
drop policy account_numbers_insert on account_numbers;
drop policy income_records_insert on income_records;
drop policy source_references_owner on source_references;
drop policy account_numbers_owner on account_numbers;
drop policy income_records_owner on income_records;
drop policy extraction_jobs_owner on extraction_jobs;
drop policy config_read on config;
drop policy templates_system on templates;
drop policy projects_owner on projects;
drop policy borrowers_owner on borrowers;
drop policy documents_owner on documents;
drop policy templates_owner on templates;
drop policy chunks_owner on chunks;
drop policy transcripts_owner on transcripts;
drop policy messages_owner on messages;
drop policy conversations_owner on conversations;
drop policy sessions_owner on sessions;
drop policy user_preferences_owner on user_preferences;
drop policy users_owner on users;
drop policy extraction_jobs_service on extraction_jobs;
drop policy projects_service on projects;
drop policy source_references_service on source_references;
drop policy account_numbers_service on account_numbers;
drop policy income_records_service on income_records;
drop policy borrowers_service on borrowers;
drop policy documents_service on documents;
drop policy config_service on config;
drop policy templates_service on templates;
drop policy chunks_service on chunks;
drop policy transcripts_service on transcripts;
drop policy messages_service on messages;
drop policy conversations_service on conversations;
drop policy sessions_service on sessions;
drop policy user_preferences_service on user_preferences;
drop policy users_service on users;

alter table users disable row level security, no force row level security;
alter table user_preferences disable row level security, no force row level security;
alter table sessions disable row level security, no force row level security;
alter table conversations disable row level security, no force row level security;
alter table messages disable row level security, no force row level security;
alter table transcripts disable row level security, no force row level security;
alter table chunks disable row level security, no force row level security;
alter table templates disable row level security, no force row level security;
alter table config disable row level security, no force row level security;
alter table documents disable row level security, no force row level security;
alter table borrowers disable row level security, no force row level security;
alter table income_records disable row level security, no force row level security;
alter table account_numbers disable row level security, no force row level security;
alter table source_references disable row level security, no force row level security;
alter table projects disable row level security, no force row level security;
alter table extraction_jobs disable row level security, no force row level security;

drop function chancery_current_user_id();
grant execute on function
    delete_document(uuid), fill_chunk_user_id(), fill_message_user_id(), notify_extraction_jobs(),
    set_updated_at(), settle_extraction_job(), text_trigrams(text), update_conversation_timestamp()
to public;
revoke execute on function delete_document(uuid), text_trigrams(text)
  from chancery_app, chancery_service;
revoke all
    on users, user_preferences, sessions, conversations, messages, transcripts, chunks, templates,
       config, documents, borrowers, income_records, account_numbers, source_references, projects,
       extraction_jobs
  from chancery_app, chancery_service;

do $$
begin
    execute format('revoke usage on schema %I from chancery_app, chancery_service', current_schema());
    if to_regclass('_chancery_migrations') is not null then
        revoke select on _chancery_migrations from chancery_service;
    end if;
end;
$$;
