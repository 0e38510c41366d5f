set local lock_timeout = '5s';

-- As it was, whatever the session's settings.
alter table users
    drop constraint users_email_check,
    add constraint users_email_check
        check (email ~* E'^[^@[:space:]]+@[^@[:space:]]+\\.[^@[:space:]]+$');
