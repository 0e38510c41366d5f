set local lock_timeout = '5s';

alter table users validate constraint users_email_check;
