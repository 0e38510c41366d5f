set local lock_timeout = '5s';

do $$
declare
    rule text;
begin
    select pg_get_constraintdef(oid) into rule
      from pg_constraint where conrelid = 'users'::regclass and conname = 'users_email_check';
    alter table users drop constraint users_email_check;
    drop index users_email_key, users_email_exact_key;
    alter table users alter column email type varchar(255) collate "default";
    execute format('alter table users add constraint users_email_check %s',
                   replace(rule, ' NOT VALID', ''));
    create unique index users_email_exact_key on users (email collate "C");
    begin
        create unique index users_email_key on users (lower(email));
    exception when unique_violation then
        raise unique_violation using
            message = format(
                'accounts whose addresses the database''s locale takes for one: %s',
                (select string_agg(ids, '; ')
                   from (select string_agg(id::text, ', ' order by created_at, id) as ids
                           from users
                          group by lower(email)
                         having count(*) > 1
                          limit 50) same)),
            hint = 'Change or delete all but one of each, and revert again.';
    end;
end;
$$;
