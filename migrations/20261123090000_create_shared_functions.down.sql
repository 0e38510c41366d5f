set local lock_timeout = '5s';

drop function set_updated_at();
