set local lock_timeout = '5s';

alter table sessions
    drop column idle_timeout,
    drop column absolute_expires_at;
