set local lock_timeout = '5s';

drop function replace_chunks(uuid, uuid[], text[], integer[], jsonb[]);
