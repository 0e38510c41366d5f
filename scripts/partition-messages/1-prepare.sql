-- Partitions messages by hash of the conversation, while they are read and written. docs/growth.md
-- says when and why. Run the three files in order, with psql's -v ON_ERROR_STOP=1, on a direct
-- connection, as the role that migrates.
--
-- 1: the new table beside the old one, and a trigger that repeats every write there. Two transactions,
-- each with a lock on one table in use: who holds two meets writers that took them in another order.
-- Reads go on; writes wait for a moment, of conversations first (its new foreign key), then of messages.
begin;
set local lock_timeout = '5s';

create table messages_partitioned (
    like messages including defaults including constraints including comments
) partition by hash (conversation_id);

do $$
declare
    -- A power of two, so that a partition can be split in two later.
    partitions constant integer := 16;
    definition text;
begin
    for n in 0 .. partitions - 1 loop
        execute format('create table messages_p%s partition of messages_partitioned
                            for values with (modulus %s, remainder %s)', n, partitions, n);
    end loop;
    -- The id comes first: who asks by id alone looks into each partition's index.
    alter table messages_partitioned
        add constraint messages_partitioned_pkey primary key (id, conversation_id);
    for definition in
        select regexp_replace(pg_get_indexdef(indexrelid), '^CREATE (UNIQUE )?INDEX (\S+) ON \S+',
                              format('create \1index %I on messages_partitioned', relname || '_new'))
          from pg_index join pg_class i on i.oid = indexrelid
         where indrelid = 'messages'::regclass and not indisprimary
    loop
        execute definition;
    end loop;
    for definition in
        select format('alter table messages_partitioned add constraint %I %s', conname,
                      pg_get_constraintdef(oid))
          from pg_constraint
         where conrelid = 'messages'::regclass and contype = 'f'
    loop
        execute definition;
    end loop;
end;
$$;

commit;

begin;
set local lock_timeout = '5s';
-- With its owner's rights: whoever writes a message need not know of the other table.
create function repeat_message() returns trigger
    language plpgsql security definer set search_path from current as $$
begin
    if tg_op <> 'INSERT' then
        delete from messages_partitioned
         where id = old.id and conversation_id = old.conversation_id;
    end if;
    if tg_op <> 'DELETE' then
        insert into messages_partitioned select new.*;
    end if;
    return null;
end;
$$;
create trigger repeat_message after insert or update or delete on messages
    for each row execute function repeat_message();

-- Some conversations at a time, each batch in a transaction of its own.
create procedure copy_messages(conversations_at_once integer default 1000)
    language plpgsql as $$
declare
    done uuid := '00000000-0000-0000-0000-000000000000';
    last uuid;
begin
    loop
        select c.id into last
          from (select id from conversations where id > done
                 order by id limit conversations_at_once) c
         order by c.id desc
         limit 1;
        exit when last is null;
        -- `for share`: who changes or deletes one of these rows at this moment waits until it is copied.
        insert into messages_partitioned
        select m.* from messages m
         where m.conversation_id > done and m.conversation_id <= last
           for share
        on conflict do nothing;
        commit;
        done := last;
    end loop;
end;
$$;
commit;
