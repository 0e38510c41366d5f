-- Preferences for a frequency that is unknown again get the nearest one that is known.
set local lock_timeout = '5s';

update user_preferences set update_frequency = 'daily' where update_frequency = 'every_3_days';
update user_preferences set update_frequency = 'weekly' where update_frequency = 'every_2_weeks';
alter table user_preferences drop constraint user_preferences_update_frequency_check;
alter table user_preferences
    add constraint user_preferences_update_frequency_check
        check (update_frequency in ('daily', 'weekly', 'monthly', 'never'));
