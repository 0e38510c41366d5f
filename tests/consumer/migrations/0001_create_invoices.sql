create table invoices (
    id      uuid    primary key default gen_random_uuid(),
    user_id uuid    not null,
    cents   integer not null check (cents >= 0)
);
