set local lock_timeout = '5s';

alter table sessions
    drop constraint sessions_absolute_expires_at_check,
    drop constraint sessions_idle_timeout_check,
    add constraint sessions_absolute_expires_at_check
        check (absolute_expires_at >= '0001-01-01 00:00+00'
           and absolute_expires_at < '10000-01-01 00:00+00') not valid,
    add constraint sessions_idle_timeout_check check (idle_timeout > interval '0') not valid;
