-- 3: the new table takes the old one's place: names, triggers, policies, privileges, owner. Nobody
-- reads or writes messages meanwhile; it is some DDL, and no row is looked at. If the lock is not had
-- within two seconds, nothing has changed: run it again.
begin;
set local lock_timeout = '2s';
lock table messages in access exclusive mode;

drop trigger repeat_message on messages;
drop function repeat_message();
drop procedure copy_messages(integer);

alter table messages rename to messages_before;
alter table messages_partitioned rename to messages;

do $$
declare
    old constant regclass := 'messages_before'::regclass;
    change text;
begin
    for change in
        -- Indexes, first the old ones out of the way.
        select format('alter index %s rename to %I', indexrelid::regclass, relname || '_old')
          from pg_index join pg_class i on i.oid = indexrelid
         where indrelid = old
        union all
        select format('alter index %s rename to %I', indexrelid::regclass,
                      case when indisprimary then 'messages_pkey'
                           else regexp_replace(relname, '_new$', '') end)
          from pg_index join pg_class i on i.oid = indexrelid
         where indrelid = 'messages'::regclass
        union all
        select regexp_replace(pg_get_triggerdef(oid), '( ON )\S*messages_before ', '\1messages ')
          from pg_trigger
         where tgrelid = old and not tgisinternal
        union all
        select format('create policy %I on messages as %s for %s to %s', polname,
                      case when polpermissive then 'permissive' else 'restrictive' end,
                      case polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
                                  when 'd' then 'delete' else 'all' end,
                      (select string_agg(case role when 0 then 'public' else role::regrole::text end, ', ')
                         from unnest(polroles) role))
               || coalesce(' using (' || pg_get_expr(polqual, polrelid) || ')', '')
               || coalesce(' with check (' || pg_get_expr(polwithcheck, polrelid) || ')', '')
          from pg_policy
         where polrelid = old
        union all
        select case when relrowsecurity then 'alter table messages enable row level security' end
          from pg_class where oid = old
        union all
        select case when relforcerowsecurity then 'alter table messages force row level security' end
          from pg_class where oid = old
        union all
        select format('grant %s on messages to %s', privilege_type,
                      case grantee when 0 then 'public' else grantee::regrole::text end)
               || case when is_grantable then ' with grant option' else '' end
          from pg_class, aclexplode(relacl)
         where pg_class.oid = old and grantee <> relowner
        union all
        select format('grant %s (%I) on messages to %s', privilege_type, attname,
                      case grantee when 0 then 'public' else grantee::regrole::text end)
          from pg_attribute, aclexplode(attacl)
         where attrelid = old and attacl is not null
        union all
        select format('alter table messages owner to %s', relowner::regrole)
          from pg_class where oid = old
    loop
        if change is not null then
            execute change;
        end if;
    end loop;
end;
$$;
commit;

-- Then, when nothing was missed: drop table messages_before;
