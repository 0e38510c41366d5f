-- Distributes the tables. After 1-keys.sql, in the coordinator's database, with the extension there and
-- the workers and the coordinator added. Each call copies its table to the shards, in one transaction
-- with the others: all tables are distributed, or none. Nobody writes meanwhile.
begin;
set local lock_timeout = '5s';
-- The conversation's trigger writes only what lies on its message's shard.
set local citus.enable_unsafe_triggers = on;
set local citus.multi_shard_modify_mode = 'sequential';

-- Whole on each node: an e-mail address is unique among all users, templates have rows of nobody's.
select create_reference_table('users');
select create_reference_table('config');
select create_reference_table('templates');

-- By their owner: what is one user's lies together.
select create_distributed_table('conversations', 'user_id');
select create_distributed_table('user_preferences', 'user_id', colocate_with => 'conversations');
select create_distributed_table('messages', 'user_id', colocate_with => 'conversations');
select create_distributed_table('transcripts', 'user_id', colocate_with => 'conversations');
select create_distributed_table('chunks', 'user_id', colocate_with => 'conversations');

select create_distributed_table('sessions', 'token_hash', colocate_with => 'none');

-- Documents, borrowers and their records, projects and jobs stay on the coordinator.
commit;
