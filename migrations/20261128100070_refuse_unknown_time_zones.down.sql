set local lock_timeout = '5s';

drop trigger users_check_timezone on users;
drop trigger users_check_new_timezone on users;
drop function check_user_timezone();
