-- The specification's own system stores two more.
set local lock_timeout = '5s';

alter table user_preferences drop constraint user_preferences_update_frequency_check;
alter table user_preferences
    add constraint user_preferences_update_frequency_check
        check (update_frequency in
               ('daily', 'every_3_days', 'weekly', 'every_2_weeks', 'monthly', 'never')) not valid;
