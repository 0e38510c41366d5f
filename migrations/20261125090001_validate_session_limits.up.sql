-- Apart from adding them: this reads the table without keeping anybody from it.
set local lock_timeout = '5s';

alter table sessions validate constraint sessions_absolute_expires_at_check;
alter table sessions validate constraint sessions_idle_timeout_check;
