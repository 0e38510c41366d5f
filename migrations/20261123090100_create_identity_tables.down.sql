set local lock_timeout = '5s';

drop table sessions;
drop table user_preferences;
drop table users;
