-- no-transaction
drop index concurrently messages_user_id_conversation_id_created_at_idx;
