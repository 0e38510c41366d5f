-- What the migrating role may not do, a row each, and the statement that lets it. $1: the tables of
-- this crate that are there; they are changed by their owner alone.
with me as (
    select rolname, rolsuper, rolcreaterole, rolinherit,
           current_setting('server_version_num')::int as version
      from pg_roles where rolname = current_user
), place as (
    select oid, nspname, nspowner, nspacl from pg_namespace where nspname = current_schema()
), roles as (
    select needed.name, r.oid,
           coalesce(pg_has_role(r.oid, 'usage'), false) as usable,
           case when r.oid is null then me.rolsuper or me.rolcreaterole
                else me.rolsuper or me.rolcreaterole and version < 160000
                     or pg_has_role(r.oid, 'member with admin option') end as can_be_had,
           coalesce(has_schema_privilege(r.oid, place.oid, 'usage'),
                    exists (select from aclexplode(nspacl)
                             where grantee = 0 and privilege_type = 'USAGE')) as finds_the_schema
      from (values ('chancery_app'), ('chancery_service')) needed (name)
      left join pg_roles r on r.rolname = needed.name
     cross join me cross join place
)
select format('create anything in schema %I', nspname),
       format('grant usage, create on schema %I to %I', nspname, rolname)
  from me, place
 where not has_schema_privilege(place.oid, 'create')
union all
select format('create role %s', name), format('create role %s nologin; grant %1$s to %I', name, rolname)
  from me, roles
 where oid is null and not can_be_had
union all
select format('become a member of %s', name), format('grant %s to %I', name, rolname)
  from me, roles
 where oid is not null and not usable and not can_be_had
union all
select format('inherit the rights of %s', name),
       case when version < 160000 then format('alter role %I inherit', rolname)
            when oid is null then format('alter role %I inherit', rolname)
            else format('grant %s to %I with inherit true', name, rolname) end
  from me, roles
 where not usable and not rolinherit
union all
select format('let %s use schema %I', string_agg(name, ' and ' order by name), nspname),
       format('grant usage on schema %I to %I with grant option', nspname, rolname)
  from me, place, roles
 where not finds_the_schema and not pg_has_role(nspowner, 'usage')
   and not has_schema_privilege(place.oid, 'usage with grant option')
 group by nspname, rolname
union all
select format('change the tables of %I', owner), format('grant %I to %I', owner, rolname)
  from me,
       (select distinct pg_get_userbyid(relowner) as owner
          from pg_class c, place
         where relnamespace = place.oid and relkind in ('r', 'p') and relname = any($1)
           and not pg_has_role(relowner, 'usage')) owners
