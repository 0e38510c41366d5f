-- What strangers held is not given back.
set local lock_timeout = '5s';

do $$
begin
    if to_regclass('_chancery_migrations') is not null then
        drop policy _chancery_migrations_service on _chancery_migrations;
        alter table _chancery_migrations disable row level security;
    end if;
end;
$$;
