//! The schema as text, read from the catalogue: the same on every supported version of PostgreSQL.

use std::collections::BTreeMap;

use sqlx::PgPool;

/// Everything that migrations make, in the manner of DDL, in a fixed order. sqlx's bookkeeping table
/// is left out.
pub async fn dump(pool: &PgPool) -> String {
    let mut blocks: Vec<String> = Vec::new();
    for statement in [OTHERS, FUNCTIONS] {
        blocks.extend(sqlx::query_scalar(statement).fetch_all(pool).await.unwrap() as Vec<String>);
    }
    // Each table is followed by its indexes and triggers.
    let mut tables = BTreeMap::<String, String>::new();
    for statement in [TABLES, INDEXES, TRIGGERS] {
        let found: Vec<(String, String)> = sqlx::query_as(statement).fetch_all(pool).await.unwrap();
        for (table, line) in found {
            *tables.entry(table).or_default() += &format!("{line}\n");
        }
    }
    blocks.extend(tables.into_values());
    for statement in [POLICIES, COMMENTS, GRANTS] {
        let lines: Vec<String> = sqlx::query_scalar(statement).fetch_all(pool).await.unwrap();
        blocks.extend(Some(lines.join("\n")).filter(|lines| !lines.is_empty()));
    }
    // `pg_get_indexdef` and `pg_get_functiondef` name the schema, which is wherever the tables are.
    let schema: String = sqlx::query_scalar("select current_schema").fetch_one(pool).await.unwrap();
    let text = blocks
        .iter()
        .map(|block| block.trim_end())
        .collect::<Vec<_>>()
        .join("\n\n")
        .replace(&format!("{schema}."), "")
        .replace("character varying", "varchar")
        .replace("timestamp with time zone", "timestamptz");
    // Functions keep the empty lines of their bodies, without the blanks.
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

/// What has no text of its own below: named, so that it can't appear or stay unseen.
const OTHERS: &str = "
    select format('-- %s %s', kind, name) from (
        select case relkind when 'v' then 'view' when 'm' then 'materialized view'
                            when 'S' then 'sequence' when 'f' then 'foreign table'
                            when 'p' then 'partitioned table' else 'relation ' || relkind::text end,
               relname
          from pg_class
         where relnamespace = current_schema::regnamespace and relkind not in ('r', 'i', 't', 'c')
        union all
        select 'type', format('%s %s', typname,
                              (select string_agg(enumlabel, ', ' order by enumsortorder)
                                 from pg_enum where enumtypid = t.oid))
          from pg_type t
         where typnamespace = current_schema::regnamespace and typrelid = 0 and typelem = 0
        union all
        select 'extension', extname from pg_extension where extname <> 'plpgsql'
        union all
        select 'schema', nspname from pg_namespace
         where nspname not like 'pg\\_%' and nspname not in ('information_schema', current_schema)
        union all
        select 'default privileges', defaclacl::text from pg_default_acl
        union all
        select 'statistics', stxname from pg_statistic_ext
        union all
        select 'event trigger', evtname from pg_event_trigger
        union all
        select 'publication', pubname from pg_publication
    ) others (kind, name)
    order by kind collate \"C\", name collate \"C\"";

const FUNCTIONS: &str = "
    select rtrim(pg_get_functiondef(oid), E'\\n') || ';'
      from pg_proc
     where pronamespace = current_schema::regnamespace and prokind <> 'a'
     order by proname collate \"C\", pg_get_function_identity_arguments(oid) collate \"C\"";

/// Columns in their order, then constraints by kind and name. PostgreSQL 18 has a constraint for each
/// `not null`; here it is told with the column.
const TABLES: &str = "
    select relname::text, format(E'create %stable %s (\\n%s\\n)%s;',
                  case relpersistence when 'u' then 'unlogged ' else '' end,
                  c.oid::regclass,
                  (select string_agg('    ' || line, E',\\n' order by rank, position, name)
                     from (select 0, attnum, '' collate \"C\",
                                  format('%s %s', quote_ident(attname),
                                         format_type(atttypid, atttypmod))
                                  || case when attcollation <> typcollation
                                          then ' collate ' || attcollation::regcollation::text else '' end
                                  || case when attnotnull then ' not null' else '' end
                                  || case when attidentity <> ''
                                          then ' generated as identity ' || attidentity::text else '' end
                                  || coalesce(case when attgenerated <> '' then ' generated '
                                                   else ' default ' end
                                              || pg_get_expr(adbin, adrelid), '')
                             from pg_attribute
                             join pg_type t on t.oid = atttypid
                             left join pg_attrdef on adrelid = attrelid and adnum = attnum
                            where attrelid = c.oid and attnum > 0 and not attisdropped
                           union all
                           select position('p' in contype::text) * -1 + 2, 0, conname,
                                  format('constraint %s %s', quote_ident(conname),
                                         -- The largest double, without its zeros.
                                         regexp_replace(
                                             pg_get_constraintdef(oid, true),
                                             '\\m(\\d)(\\d{16})0{146}0{146}\\M', '\\1.\\2e308', 'g'))
                             from pg_constraint
                            where conrelid = c.oid and contype not in ('n', 't')
                          ) lines (rank, position, name, line)),
                  case when relrowsecurity then ' -- row level security' else '' end
                  || case when relforcerowsecurity then ', forced' else '' end
                  || coalesce(' with ' || reloptions::text, ''))
      from pg_class c
     where relnamespace = current_schema::regnamespace and relkind = 'r'
       and relname not like '\\_%\\_migrations'
     order by relname collate \"C\"";

/// Those that no constraint brings along.
const INDEXES: &str = "
    select indrelid::regclass::text, pg_get_indexdef(indexrelid)
           || case when indisvalid then '' else ' -- invalid' end || ';'
      from pg_index
      join pg_class i on i.oid = indexrelid
     where relnamespace = current_schema::regnamespace
       and indrelid::regclass::text not like '\\_%\\_migrations'
       and not exists (select from pg_constraint where conindid = indexrelid and contype <> 'f')
     order by relname collate \"C\"";

const TRIGGERS: &str = "
    select relname::text, pg_get_triggerdef(t.oid, true)
           || case tgenabled when 'O' then '' else ' -- enabled: ' || tgenabled::text end || ';'
      from pg_trigger t
      join pg_class c on c.oid = tgrelid
     where relnamespace = current_schema::regnamespace and not tgisinternal
     order by relname collate \"C\", tgname collate \"C\"";

const POLICIES: &str = "
    select format('-- policy %s on %s for %s to %s%s%s', polname, polrelid::regclass,
                  case polcmd when '*' then 'all' when 'r' then 'select' when 'a' then 'insert'
                              when 'w' then 'update' when 'd' then 'delete' end,
                  (select string_agg(r::regrole::text, ', ' order by r::regrole::text)
                     from unnest(polroles) r),
                  ' using ' || pg_get_expr(polqual, polrelid),
                  ' with check ' || pg_get_expr(polwithcheck, polrelid))
           || case when polpermissive then '' else ' -- restrictive' end
      from pg_policy
     order by polrelid::regclass::text collate \"C\", polname collate \"C\"";

const COMMENTS: &str = "
    select format('-- comment on %s: %s', pg_describe_object(classoid, d.objoid, objsubid),
                  description)
      from pg_description d
     where classoid in ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_constraint'::regclass,
                        'pg_trigger'::regclass)
       and objoid >= 16384
     order by 1";

/// What differs from a new object's: who else may do something, and what PUBLIC may not. sqlx's
/// bookkeeping table too.
const GRANTS: &str = "
    with granted_objects (name, owner, acl, is_function) as (
        select relname::text, relowner, relacl, false from pg_class
         where relnamespace = current_schema::regnamespace
        union all
        select proname::text, proowner, proacl, true from pg_proc
         where pronamespace = current_schema::regnamespace
        union all
        -- What it grants to PUBLIC by default is the server's.
        select 'the schema', nspowner,
               (select array_agg(item) from unnest(nspacl) item where item::text not like '=%'),
               false
          from pg_namespace where oid = current_schema::regnamespace
    )
    select format('-- grant %s on %s to %s',
                  string_agg(lower(privilege_type), ', ' order by privilege_type), name,
                  grantee::regrole)
      from granted_objects, aclexplode(acl)
     where grantee not in (owner, 0)
     group by name, grantee
    union all
    select format('-- revoke execute on %s from public', name)
      from granted_objects
     where is_function
       and not exists (select from aclexplode(coalesce(acl, acldefault('f', owner)))
                        where grantee = 0)
    union all
    select format('-- grant %s on %s to public', lower(privilege_type), name)
      from granted_objects, aclexplode(acl)
     where grantee = 0 and not is_function
     order by 1";
