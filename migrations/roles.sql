-- The two roles of row-level security, for a cluster whose migrating role may not create roles.
-- An administrator runs it once a cluster; again does no harm:
--
--   psql -v owner=chancery_owner -v login=chancery_login -f migrations/roles.sql
--
-- `owner` is the role that migrates, and owns the tables. `login` is the one that the application
-- connects as: not a superuser, no BYPASSRLS, no owner. It may be the same role for both, where one
-- has to do.
--
-- Roles belong to the cluster. Two databases with this schema in one cluster share these two: keep
-- their applications apart with `revoke connect on database … from public`.
--
-- To remove them, after every database was reverted: drop role chancery_app, chancery_service;
do $$
declare
    name text;
begin
    foreach name in array array['chancery_app', 'chancery_service'] loop
        if not exists (select from pg_roles where rolname = name) then
            execute format('create role %I nologin', name);
        end if;
    end loop;
end;
$$;
-- Who is a member already gets a notice, and stays one.
grant chancery_app, chancery_service to :"owner";
grant chancery_app, chancery_service to :"login";
