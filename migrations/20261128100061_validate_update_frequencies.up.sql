-- Apart from adding it: this reads the table without keeping anybody from it.
set local lock_timeout = '5s';

alter table user_preferences validate constraint user_preferences_update_frequency_check;
