-- Of a transcript that the statistics do not know yet, the planner expects a handful of chunks, and loops
-- over all pairs of old and new ones: 400 million for 20,000. So does a merge join of many equal texts,
-- which looks at all pairs that have one hash. A hash join of both columns is as fast for few, and the
-- only one that stays linear.
set local lock_timeout = '5s';

alter function replace_chunks(uuid, uuid[], text[], integer[], jsonb[])
    set enable_nestloop = off;
alter function replace_chunks(uuid, uuid[], text[], integer[], jsonb[])
    set enable_mergejoin = off;
