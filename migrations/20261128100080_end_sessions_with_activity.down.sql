set local lock_timeout = '5s';

drop trigger users_end_sessions on users;
drop function end_user_sessions();
