-- Where a connection is, and where migrations were written down, if they were.
select current_database()::text as database,
       (select pg_encoding_to_char(encoding)::text from pg_database where datname = current_database())
           as encoding,
       current_setting('search_path') as search_path,
       current_schema()::text as schema,
       (select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where c.oid = bookkeeping) as bookkept_in,
       -- Under row-level security: who is neither its owner nor the service sees an empty table.
       coalesce(has_table_privilege(bookkeeping, 'select')
                and (not row_security_active(bookkeeping)
                     or pg_has_role(to_regrole('chancery_service'), 'usage')), false) as may_read
  from (select to_regclass('_chancery_migrations')::oid) found (bookkeeping)
