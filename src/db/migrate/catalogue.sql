-- What the schema consists of, a row each: its kind, what it is, how it is, and what it should be if
-- that is known here. $1: the tables to look at, $2: the functions; null: all in the schema.
--
-- `expected.txt` holds the rows of kind `object` of a database that was just migrated. Left out is what
-- serves speed alone (indexes that are not unique), and what scripts/citus takes away.
with place as (
    select n.oid, n.nspname, n.nspacl
      from pg_class c join pg_namespace n on n.oid = relnamespace
     where c.oid = to_regclass('_chancery_migrations')
), roles as (
    select oid, rolname from pg_roles where rolname in ('chancery_app', 'chancery_service')
), tables as (
    select c.oid, relname, relowner, relacl, relrowsecurity, relforcerowsecurity
      from pg_class c join place on place.oid = relnamespace
     where relkind in ('r', 'p') and ($1::text[] is null or relname = any($1))
), functions as (
    select p.oid, replace(format('%s(%s)', proname, oidvectortypes(proargtypes)), '"', '') as signature
      from pg_proc p join place on place.oid = pronamespace
     where prokind = 'f' and ($2::text[] is null or proname = any($2))
), indexes as (
    select i.relname as name, tables.relname, indexrelid, indisunique, indisvalid, indcollation
      from pg_index join tables on tables.oid = indrelid join pg_class i on i.oid = indexrelid
), found (kind, what, definition, expected) as (
    select 'object', format('role %s', rolname), '', null from roles
    union all
    select 'object', format('table %s', relname),
           concat_ws(', ', case when relrowsecurity then 'row-level security' end,
                           case when relforcerowsecurity then 'forced' end,
                           case when not pg_table_is_visible(oid)
                                then 'hidden by another of that name in the search_path' end), null
      from tables
    union all
    select 'object', format('column %s.%s', relname, attname), '', null
      from tables join pg_attribute on attrelid = oid and attnum > 0 and not attisdropped
    union all
    select 'object', format('constraint %s on %s', conname, relname), '', null
      from tables join pg_constraint on conrelid = tables.oid
     where contype in ('c', 'f', 'p', 'u', 'x')
       and conname not in ('conversations_id_user_id_key', 'transcripts_id_user_id_key')
    union all
    select 'object', format('unique index %s on %s', name, relname), '', null
      from indexes
     where indisunique
       and not exists (select from pg_constraint where conindid = indexrelid and contype <> 'f')
    union all
    select 'object', format('trigger %s on %s', tgname, relname),
           case when tgenabled in ('O', 'A') then 'enabled' else 'disabled' end, null
      from tables join pg_trigger on tgrelid = tables.oid
     where not tgisinternal and tgname not in ('messages_fill_user_id', 'chunks_fill_user_id')
    union all
    select 'object', format('function %s', signature), '', null from functions
    union all
    -- Without what settings and versions of the server write differently.
    select 'object', format('policy %s on %s', polname, relname),
           regexp_replace(replace(replace(format('%s for %s to %s%s%s',
               case when polpermissive then 'permissive' else 'restrictive' end,
               case polcmd when '*' then 'all' when 'r' then 'select' when 'a' then 'insert'
                           when 'w' then 'update' when 'd' then 'delete' end,
               (select string_agg(case role when 0 then 'public' else role::regrole::text end, ', '
                                  order by role::regrole::text) from unnest(polroles) role),
               ' using ' || pg_get_expr(polqual, polrelid),
               ' with check ' || pg_get_expr(polwithcheck, polrelid)),
               '"', ''), place.nspname || '.', ''), '[[:space:]]+', ' ', 'g'), null
      from tables join pg_policy on polrelid = tables.oid cross join place
    union all
    select 'object', format('grant %s on %s to %s', privilege, relname, rolname), '', null
      from tables, roles, unnest(array['select', 'insert', 'update', 'delete']) privilege
     where has_table_privilege(roles.oid, tables.oid, privilege)
    union all
    select 'object', format('grant execute on %s to %s', signature, rolname), '', null
      from functions, roles
     where has_function_privilege(roles.oid, functions.oid, 'execute')
    union all
    select 'object', format('grant usage on the schema to %s', rolname), '', null
      from place, roles
     where has_schema_privilege(roles.oid, place.oid, 'usage')
    union all
    select 'invalid', name, '', null from indexes where not indisvalid
    union all
    -- What row-level security does not stop; and the bookkeeping is its owner's alone.
    select 'granted', relname, string_agg(lower(privilege_type), ', ' order by privilege_type),
           case grantee when 0 then 'public' else pg_get_userbyid(grantee) end
      from tables, aclexplode(relacl)
     where grantee <> relowner
       and (privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
            or relname = '_chancery_migrations'
               and not (privilege_type = 'SELECT' and grantee in (select oid from roles)))
     group by relname, grantee
    union all
    select 'collation', format('database %s', datname), datcollversion,
           pg_database_collation_actual_version(oid)
      from pg_database
     where datname = current_database()
       and datcollversion is not null
       and datcollversion is distinct from pg_database_collation_actual_version(oid)
    union all
    select 'collation', format('collation %s', collname), collversion,
           pg_collation_actual_version(oid)
      from pg_collation
     where oid in (select attcollation from pg_attribute join tables on attrelid = tables.oid
                   union
                   select unnest(indcollation) from indexes)
       and collversion is not null
       and collversion is distinct from pg_collation_actual_version(oid)
)
select kind, what, definition, expected
  from found
 order by kind collate "C", what collate "C"
