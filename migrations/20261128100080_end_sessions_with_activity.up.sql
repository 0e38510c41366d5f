-- An account that is deactivated, by whatever writer, has no sessions left; and none from before when it is
-- activated again, also of those that were opened while it was being deactivated.
set local lock_timeout = '5s';

create function end_user_sessions() returns trigger
    language plpgsql
    set search_path from current
as $$
begin
    delete from sessions where user_id = new.id;
    return null;
end;
$$;
revoke execute on function end_user_sessions() from public;

create trigger users_end_sessions
    after update of is_active on users
    for each row when (new.is_active <> old.is_active)
    execute function end_user_sessions();
