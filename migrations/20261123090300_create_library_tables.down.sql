set local lock_timeout = '5s';

drop table chunks;
drop function fill_chunk_user_id();
drop table transcripts;
