-- users.timezone is a zone that this server knows, by its IANA name, whoever writes it.
--
-- By triggers, not by a check: zones come and go with the server's data, so a check would refuse to restore
-- what another server took, and to touch accounts that are there. What is there stays until it is changed.
set local lock_timeout = '5s';

-- `set timezone` is what makes the change below end with the function.
create function check_user_timezone() returns trigger
    language plpgsql
    set search_path from current
    set timezone to 'UTC'
as $$
begin
    -- The server also takes POSIX rules, such as FOO3 and <+03>-3, and a number of hours. They hold digits;
    -- of the names, only these do. Two folders hold all zones once more.
    if new.timezone ~ '^(posix|right)/'
       or new.timezone !~ '^[A-Za-z][A-Za-z_/-]*$' collate "C"
       and new.timezone !~ '^(Etc/GMT[+-]1?[0-9]|(Etc/)?GMT[+-]?0|EST5EDT|CST6CDT|MST7MDT|PST8PDT)$' collate "C" then
        raise invalid_parameter_value;
    end if;
    perform set_config('timezone', new.timezone, true);
    -- The server takes a name in any case and keeps its own; other libraries take only that.
    if current_setting('timezone') <> new.timezone then
        raise invalid_parameter_value;
    end if;
    return new;
exception when invalid_parameter_value then
    raise invalid_parameter_value using
        message = 'not the name of a time zone that this server knows',
        hint = 'Names are the IANA''s, such as Europe/Paris: select name from pg_timezone_names',
        table = tg_table_name,
        column = 'timezone';
end;
$$;
revoke execute on function check_user_timezone() from public;

create trigger users_check_new_timezone
    before insert on users
    for each row when (new.timezone <> 'UTC')
    execute function check_user_timezone();
create trigger users_check_timezone
    before update of timezone on users
    for each row when (new.timezone <> old.timezone and new.timezone <> 'UTC')
    execute function check_user_timezone();
