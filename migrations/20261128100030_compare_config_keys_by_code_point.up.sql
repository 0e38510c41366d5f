-- A key of machines depends on no locale. The table holds settings: its one index is built anew at once.
-- ConfigRepository::list is in the order of code points from now on.
set local lock_timeout = '5s';

-- squawk-ignore changing-column-type
alter table config alter column key type varchar(100) collate "C";
