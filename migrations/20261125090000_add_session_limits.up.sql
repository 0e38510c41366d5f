-- Sessions that end when they are not used, and at the latest at a set time.
--
-- expires_at stays the one moment from which on a session is void, for every program that reads it: using
-- the session moves it, by idle_timeout and never past absolute_expires_at. So looking a session up and
-- removing those that have expired go on reading sessions_token_hash_key and sessions_expires_at_idx.
set local lock_timeout = '5s';

alter table sessions
    -- null: expires_at alone decides
    add column absolute_expires_at timestamptz,
    -- null: being used does not move expires_at
    add column idle_timeout        interval,
    -- Clients can't read infinity, nor years of more than four digits.
    add constraint sessions_absolute_expires_at_check
        check (absolute_expires_at >= '0001-01-01 00:00+00'
           and absolute_expires_at < '10000-01-01 00:00+00') not valid,
    add constraint sessions_idle_timeout_check check (idle_timeout > interval '0') not valid;
