-- no-transaction
-- What a user reads under row-level security: one conversation in its order, without a look at its
-- other columns, and everything that the user wrote (count_since, list_by_metadata). All four columns:
-- an index on user_id alone tempts the planner to read the whole conversation and sort it.
-- squawk-ignore prefer-robust-stmts, require-lock-timeout
create index concurrently messages_user_id_conversation_id_created_at_idx
    on messages (user_id, conversation_id, created_at, id);
