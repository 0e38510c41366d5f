-- A transcript that is cut anew: what is unchanged stays, with its identifiers.
--
-- A function and not a statement with CTEs: that would see one snapshot, taken before it waits for
-- another re-ingest of the same transcript, and would take away what is no longer there. In a function
-- each statement sees what was committed before it. Its caller sees one statement all the same, and
-- everybody else the old chunks or the new.
set local lock_timeout = '5s';

-- The places of the new chunks are 0 and up, in the order of the arrays. A chunk with the same text as
-- one that is there is that one, wherever it stands now: vectors hang on its identifier. Of several with
-- one text, the first stays the first. Texts are compared by their SHA-256.
--
-- The key on (transcript_id, chunk_index) is checked row by row, so what moves is parked beyond all
-- places first. A deferrable key would spare that, and forbid `on conflict` to everybody.
create function replace_chunks(
    transcript   uuid,
    ids          uuid[],
    texts        text[],
    token_counts integer[],
    notes        jsonb[],
    out unchanged bigint,
    out updated   bigint,
    out inserted  uuid[],
    out deleted   uuid[]
)
    language plpgsql
    set search_path from current
    -- A generic plan would take every array for one of ten.
    set plan_cache_mode = force_custom_plan
as $$
declare
    owner  uuid;
    kept   uuid[];
    places integer[];
    beyond constant integer := 1000000000;
begin
    -- One re-ingest of a transcript at a time.
    select t.user_id into owner from transcripts t where t.id = transcript for no key update;
    if owner is null then
        raise foreign_key_violation using
            message = 'the chunks'' transcript does not exist',
            table = 'chunks',
            constraint = 'chunks_transcript_id_fkey';
    end if;

    select coalesce(array_agg(o.id), '{}'), coalesce(array_agg(n.place), '{}')
      into kept, places
      from (select c.id, h.hash,
                   row_number() over (partition by h.hash order by c.chunk_index) as nth
              from chunks c
             cross join lateral (select sha256(convert_to(c.chunk_text, 'UTF8')) as hash) h
             where c.transcript_id = transcript and c.chunk_index < beyond) o
      join (select u.place::integer - 1 as place, h.hash,
                   row_number() over (partition by h.hash order by u.place) as nth
              from unnest(texts) with ordinality u (chunk_text, place)
             cross join lateral (select sha256(convert_to(u.chunk_text, 'UTF8')) as hash) h) n
        on n.hash = o.hash and n.nth = o.nth;

    with gone as (
        delete from chunks c
         where c.transcript_id = transcript
           and not exists (select from unnest(kept) k (id) where k.id = c.id)
        returning c.id, c.chunk_index
    )
    select coalesce(array_agg(g.id order by g.chunk_index), '{}') into deleted from gone g;

    update chunks c
       set chunk_index = beyond + k.place
      from unnest(kept, places) k (id, place)
     where c.id = k.id and c.transcript_id = transcript and c.chunk_index <> k.place;

    update chunks c
       set chunk_index = k.place, token_count = n.token_count, metadata = n.metadata
      from unnest(kept, places) k (id, place)
      join unnest(token_counts, notes) with ordinality n (token_count, metadata, place)
        on n.place = k.place + 1
     where c.id = k.id and c.transcript_id = transcript
       and (c.chunk_index, c.token_count, c.metadata)
           is distinct from (k.place, n.token_count, n.metadata);
    get diagnostics updated = row_count;
    unchanged := cardinality(kept) - updated;

    with made as (
        insert into chunks (id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata)
        select n.id, transcript, owner, n.chunk_text, n.place - 1, n.token_count, n.metadata
          from unnest(ids, texts, token_counts, notes) with ordinality
               as n (id, chunk_text, token_count, metadata, place)
         where not exists (select from unnest(places) p (place) where p.place = n.place - 1)
        returning id, chunk_index
    )
    select coalesce(array_agg(m.id order by m.chunk_index), '{}') into inserted from made m;
end;
$$;

revoke execute on function replace_chunks(uuid, uuid[], text[], integer[], jsonb[]) from public;
grant execute on function replace_chunks(uuid, uuid[], text[], integer[], jsonb[])
   to chancery_app, chancery_service;
