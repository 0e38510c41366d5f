-- What every later migration leans on: one trigger function keeps `updated_at` for all tables.
set local lock_timeout = '5s';

-- An UPDATE that does not name updated_at gets the transaction's time. One that sets it (the
-- conversation trigger does) keeps its value. Either way the column never moves backwards, so a
-- transaction that began earlier and commits later cannot make a row look older than it is.
create function set_updated_at() returns trigger
    language plpgsql
    set search_path from current
as $$
begin
    if new.updated_at is not distinct from old.updated_at then
        new.updated_at := now();
    end if;
    new.updated_at := greatest(old.updated_at, new.updated_at);
    return new;
end;
$$;
