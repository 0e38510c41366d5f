-- 2: copies what was there before, in batches. It may be stopped and run again; it does not begin where
-- it stopped, but what is copied already costs only a look. No lock on the table; a batch's rows can't
-- be changed until it commits.
call copy_messages(1000);
