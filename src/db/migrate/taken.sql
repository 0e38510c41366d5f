-- Names that migrations are about to make and that are taken. $1: tables, $2: all relations,
-- $3: functions with the types of their arguments.
select case relkind when 'r' then 'table' when 'p' then 'table' when 'f' then 'foreign table'
                    when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence'
                    when 'c' then 'type' else 'index' end
       || ' ' || relname
       || case when coalesce(indisvalid, true) then ''
               else format(' (half-built by an attempt that failed: drop index concurrently %I)', relname)
          end as name
  from pg_class c
  join pg_namespace n on n.oid = relnamespace and nspname = current_schema()
  left join pg_index on indexrelid = c.oid
 where relname = any($2)
union all
-- Each table brings a type of its name. An array type gives way.
select 'type ' || typname
  from pg_type
  join pg_namespace n on n.oid = typnamespace and nspname = current_schema()
 where typname = any($1) and typrelid = 0 and typelem = 0
union all
select 'function ' || signature
  from unnest($3) signature
 where to_regprocedure(quote_ident(current_schema()) || '.' || signature) is not null
 order by 1
