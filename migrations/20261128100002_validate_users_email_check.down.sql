set local lock_timeout = '5s';

do $$
declare
    rule text;
begin
    select pg_get_constraintdef(oid) into rule
      from pg_constraint where conrelid = 'users'::regclass and conname = 'users_email_check';
    alter table users drop constraint users_email_check;
    execute format('alter table users add constraint users_email_check %s not valid', rule);
end;
$$;
