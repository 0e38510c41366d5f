-- Nothing is left to default privileges. Where `alter default privileges` grants everything on new tables
-- to everybody, as hosted PostgreSQL often has it, a stranger could empty a table (row-level security does
-- not stop TRUNCATE), put a trigger on it, and delete the rows of the bookkeeping.
--
-- What strangers hold on rows is left: no policy is made for them, so it gives them none, and it may be
-- there for a policy of the application's. So is what they hold on functions, which run with the rights of
-- who calls them.
set local lock_timeout = '5s';

do $$
declare
    stranger record;
begin
    for stranger in
        select c.oid::regclass as name, string_agg(distinct privilege_type, ', ') as rights,
               case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end as role
          from pg_class c
          join pg_namespace n on n.oid = relnamespace and nspname = current_schema(),
               aclexplode(relacl)
         where grantee <> relowner
           and (relname in ('users', 'user_preferences', 'sessions', 'conversations', 'messages',
                            'transcripts', 'chunks', 'templates', 'config', 'documents', 'borrowers',
                            'income_records', 'account_numbers', 'source_references', 'projects',
                            'extraction_jobs')
                and privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
                or relname = '_chancery_migrations'
                   and (grantee = 0 or pg_get_userbyid(grantee) <> 'chancery_service'))
         group by c.oid, grantee
    loop
        execute format('revoke %s on %s from %s cascade', stranger.rights, stranger.name, stranger.role);
    end loop;

    -- Not forced: the owner migrates. Whoever migrates without this table's name in sqlx.toml has none.
    if to_regclass('_chancery_migrations') is not null then
        alter table _chancery_migrations enable row level security;
        create policy _chancery_migrations_service on _chancery_migrations for select
            to chancery_service using (true);
    end if;
end;
$$;
