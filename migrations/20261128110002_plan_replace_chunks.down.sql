set local lock_timeout = '5s';

alter function replace_chunks(uuid, uuid[], text[], integer[], jsonb[])
    reset enable_nestloop;
alter function replace_chunks(uuid, uuid[], text[], integer[], jsonb[])
    reset enable_mergejoin;
