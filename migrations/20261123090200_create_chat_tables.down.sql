set local lock_timeout = '5s';

drop table messages;
drop function update_conversation_timestamp();
drop function fill_message_user_id();
drop table conversations;
