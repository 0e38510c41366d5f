-- One rule for addresses in every database: A to Z are a to z, every other character is itself. Until now
-- the database's locale decided: in Turkish, `info@` and `INFO@` were two accounts; in C.UTF-8 the Kelvin
-- sign was a k, and found the account of another.
--
-- The column is compared by code point from now on, so a plain `where email = $1` reads users_email_exact_key,
-- and `lower(email)` of a program that knows nothing of this reads users_email_key.
--
-- Nothing is rewritten. The table is locked for as long as it takes to build one index, users_email_key: it is
-- on an expression, and such an index can't be kept when its column changes.
set local lock_timeout = '5s';

-- All views at once, for this and the next migrations: the server names one, and in the midst of them.
do $$
declare
    views text;
begin
    select string_agg(distinct r.ev_class::regclass::text, ', ') into views
      from (values ('users', 'email'), ('documents', 'file_hash'), ('sessions', 'token_hash'),
                   ('config', 'key'), ('transcripts', 'youtube_video_id'), ('borrowers', 'ssn_hash')
           ) changed (table_name, column_name)
      join pg_attribute a on a.attrelid = table_name::regclass and a.attname = column_name
      join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
                      and d.refobjid = a.attrelid and d.refobjsubid = a.attnum
      join pg_rewrite r on r.oid = d.objid;
    if views is not null then
        raise dependent_objects_still_exist using
            message = format('views use columns whose collation changes: %s', views),
            hint = 'Drop them, migrate, and create them again.';
    end if;
end;
$$;

do $$
declare
    rule text;
begin
    -- Taken away meanwhile, or the whole table is checked against it while it is locked.
    select pg_get_constraintdef(oid) into rule
      from pg_constraint where conrelid = 'users'::regclass and conname = 'users_email_check';
    alter table users drop constraint users_email_check;
    drop index users_email_key;
    alter table users alter column email type varchar(255) collate "C";
    execute format('alter table users add constraint users_email_check %s not valid',
                   replace(rule, ' NOT VALID', ''));
    begin
        -- UserRepository::get_by_email; one account a mailbox, however its owner types it.
        create unique index users_email_key on users (lower(email collate "C"));
    exception when unique_violation then
        raise unique_violation using
            message = format(
                'accounts whose addresses differ in nothing but the case of ASCII letters: %s',
                (select string_agg(ids, '; ')
                   from (select string_agg(id::text, ', ' order by created_at, id) as ids
                           from users
                          group by lower(email collate "C")
                         having count(*) > 1
                          limit 50) same)),
            hint = 'They are one address from now on: change or delete all but one of each, and migrate again.';
    end;
end;
$$;
