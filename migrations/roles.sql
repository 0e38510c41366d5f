-- The two roles of row-level security, for a cluster whose migrating role may not create roles.
-- An administrator runs it once a cluster:
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
create role chancery_app nologin;
create role chancery_service nologin;
grant chancery_app, chancery_service to :"owner";
grant chancery_app, chancery_service to :"login";
