set local lock_timeout = '5s';

alter table users
    drop constraint users_email_check,
    add constraint users_email_check
        check (email ~* '^[^@[:space:]]+@[^@[:space:]]+[.][^@[:space:]]+$') not valid;
