-- Enough rows for the planner to tell a key from a status: a hundred users and what is theirs. Times
-- do not follow the order on disk, which would make walking by time look cheap.
select setseed(0.5);
insert into users (id, email, created_at)
select md5('user' || n)::uuid, 'user' || n || '@example.org', now() - random() * interval '1 year'
  from generate_series(1, 100) n;
insert into user_preferences (user_id) select id from users;
insert into sessions (user_id, token_hash, expires_at)
select id, md5(id::text || n), now() + n * interval '1 hour' from users, generate_series(-2, 5) n;
insert into conversations (id, user_id, created_at, updated_at)
select md5(id::text || n)::uuid, id, now() - interval '1 year', now() - random() * interval '1 year'
  from users, generate_series(1, 10) n;
insert into messages (conversation_id, role, content, metadata, created_at)
select id, 'user', 'Why the Moon?', jsonb_build_object('place', n), now() - random() * interval '1 year'
  from conversations, generate_series(1, 5) n;
insert into transcripts (user_id, youtube_video_id, transcript_text, metadata, created_at)
select id, 'video' || n, 'We choose to go to the Moon.', jsonb_build_object('place', n),
       now() - random() * interval '1 year'
  from users, generate_series(1, 5) n;
insert into chunks (transcript_id, chunk_text, chunk_index, token_count, metadata)
select id, 'We choose', n, 2, jsonb_build_object('place', n)
  from transcripts, generate_series(0, 5) n;
insert into templates (user_id, template_type, template_name, template_content, is_default)
select id, kind, 'template' || n, 'Hello {name}', n = 1
  from (select id from users union all select null) u, generate_series(1, 3) n,
       unnest(array['linkedin', 'twitter', 'blog', 'email']) kind;
insert into config (key, value) select 'key' || n, 'true' from generate_series(1, 50) n;
insert into documents (id, user_id, filename, file_hash, file_type, file_size_bytes, status, created_at)
select md5(id::text || n)::uuid, id, 'w2.pdf', md5(id::text || n), 'pdf', 1024,
       case n when 1 then 'pending' when 2 then 'processing' else 'completed' end,
       now() - random() * interval '1 year'
  from users, generate_series(1, 10) n;
insert into borrowers (id, user_id, name, ssn_hash, created_at)
select md5(id::text || n)::uuid, id, 'Borrower ' || id, md5(id::text || n),
       now() - random() * interval '1 year'
  from users, generate_series(1, 10) n;
insert into income_records (borrower_id, amount, period, year, source_type)
select id, 1000, 'annual', 2000 + n, 'employment' from borrowers, generate_series(1, 3) n;
insert into account_numbers (borrower_id, number, account_type)
select id, md5(id::text), 'checking' from borrowers;
insert into source_references (borrower_id, document_id, page_number, snippet)
select b.id, d.id, 1, 'Name:' from borrowers b join documents d using (id);
insert into projects (id, user_id, name, created_at)
select md5(id::text || n)::uuid, id, 'Spring catalogue', now() - random() * interval '1 year'
  from users, generate_series(1, 5) n;
insert into extraction_jobs (project_id, source_url, extraction_type, status, run_at, created_at)
select id, 'https://example.org/' || n, 'color',
       case n when 1 then 'pending' when 2 then 'processing' else 'completed' end,
       now() - random() * interval '1 year', now() - random() * interval '1 year'
  from projects, generate_series(1, 5) n;
analyze;
