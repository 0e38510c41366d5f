-- The same check without a backslash: a session with `standard_conforming_strings = off` stored it without,
-- and any character passed for the dot. `not valid`, so that the rows are read without a lock, by the next.
set local lock_timeout = '5s';

alter table users
    drop constraint users_email_check,
    add constraint users_email_check
        check (email ~* '^[^@[:space:]]+@[^@[:space:]]+[.][^@[:space:]]+$') not valid;
