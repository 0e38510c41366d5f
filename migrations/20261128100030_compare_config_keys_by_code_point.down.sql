set local lock_timeout = '5s';

alter table config alter column key type varchar(100) collate "default";
