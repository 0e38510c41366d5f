//! How chunks are stored: many at once, with their transcript, and a transcript's cut anew.

use std::collections::BTreeMap;

use chancery::{
    Chunk, ChunkDraft, ChunkId, Constraint, Database, Error, MAX_STATEMENT_BYTES, MAX_TEXT_BYTES,
    NewChunk, NewMessage, Reason, TranscriptId, UserId,
};
use serde_json::json;
use sqlx::PgPool;

use crate::support::database::value;
use crate::support::events::Events;
use crate::support::{
    backend, chunks, conversation, invalid, invalid_field, new_transcript, transcript,
    until_blocked, user,
};

fn drafts(texts: &str) -> Vec<ChunkDraft> {
    texts.split_whitespace().map(|text| ChunkDraft::new(text, 1)).collect()
}

async fn all(db: &Database, id: TranscriptId) -> Vec<Chunk> {
    db.chunks().list_by_transcript(id, 1000, 0).await.unwrap()
}

fn texts(chunks: &[Chunk]) -> String {
    chunks.iter().map(|chunk| chunk.chunk_text.as_str()).collect::<Vec<_>>().join(" ")
}

fn ids(chunks: &[Chunk]) -> Vec<ChunkId> {
    chunks.iter().map(|chunk| chunk.id).collect()
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_transcript_is_stored_with_all_its_chunks(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let owner = user(&db).await.id;
    let new = new_transcript(owner).title("Rice").metadata(json!({"n": 1e300}));
    let cut: Vec<_> = (0..500)
        .map(|i| ChunkDraft::new(format!("piece {i}"), i).metadata(json!({"start": i})))
        .collect();
    let stored = db.transcripts().create_with_chunks(new.clone(), cut).await.unwrap();
    let id = stored.transcript.id;
    assert_eq!(db.transcripts().get_by_id(id).await.unwrap(), Some(stored.transcript));
    assert_eq!(all(&db, id).await, stored.chunks);
    assert!(
        stored
            .chunks
            .iter()
            .map(|chunk| (chunk.chunk_index, chunk.token_count))
            .eq((0..500).map(|i| (i, i)))
    );
    // Nothing of a second one: neither it nor its chunks.
    let again = db.transcripts().create_with_chunks(new, drafts("a b")).await.unwrap_err();
    assert_eq!(again.constraint(), Some(Constraint::TranscriptsUserIdYoutubeVideoIdKey));
    let nobodys = new_transcript(UserId::new());
    let refused = db.transcripts().create_with_chunks(nobodys, drafts("a")).await.unwrap_err();
    assert!(matches!(refused, Error::ForeignKey(_)), "{refused:?}");
    let bad = db.transcripts().create_with_chunks(new_transcript(owner), drafts("a \0")).await;
    assert_eq!(invalid_field(bad), "chunk_text");
    let large = vec![ChunkDraft::new("x".repeat(MAX_TEXT_BYTES), 1); 5];
    let large = invalid(db.transcripts().create_with_chunks(new_transcript(owner), large).await);
    let max = MAX_STATEMENT_BYTES;
    assert_eq!((large.field, large.reason), ("chunks", Reason::TooLarge { max }));
    assert_eq!(value::<i64>(&pool, "select count(*) from chunks").await, 500);
    let empty = db.transcripts().create_with_chunks(new_transcript(owner), Vec::new()).await;
    assert!(empty.unwrap().chunks.is_empty());
    assert_eq!(value::<i64>(&pool, "select count(*) from transcripts").await, 2);
}

/// What is more than a statement is given: twelve of 1 MiB.
fn large(id: TranscriptId) -> Vec<NewChunk> {
    (0..12).map(|i| NewChunk::new(id, i, "x".repeat(1024 * 1024), 1)).collect()
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn more_than_a_statement_holds_is_stored_by_several_and_all_or_nothing(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    sqlx::raw_sql(
        "create sequence statements;
         create function count_statement() returns trigger language plpgsql as
         $$begin perform nextval('statements'); return null; end$$;
         create trigger counts after insert on chunks
         for each statement execute function count_statement()",
    )
    .execute(&pool)
    .await
    .unwrap();
    let id = transcript(&db).await.id;
    let created = db.chunks().create_many(large(id)).await.unwrap();
    assert_eq!(value::<i64>(&pool, "select last_value from statements").await, 4);
    assert!(created.iter().map(|chunk| chunk.chunk_index).eq(0..12));
    assert!(created.iter().all(|chunk| chunk.created_at == created[0].created_at));
    assert_eq!(all(&db, id).await, created);

    let other = transcript(&db).await.id;
    assert_eq!(db.chunks().insert_many(large(other)).await.unwrap(), 12);
    assert_eq!(all(&db, other).await.len(), 12);
    assert_eq!(db.chunks().insert_many(Vec::new()).await.unwrap(), 0);

    // The last one is refused: the others are gone with it.
    let third = transcript(&db).await.id;
    let mut twice = large(third);
    twice[11].chunk_index = 0;
    for refused in [
        db.chunks().create_many(twice.clone()).await.map(drop),
        db.chunks().insert_many(twice.clone()).await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    }
    // One that can't be stored is found before anything is sent, also in a unit of work.
    twice[11] = NewChunk::new(third, -1, "x", 1);
    let mut uow = db.begin().await.unwrap();
    assert_eq!(invalid_field(uow.chunks().insert_many(twice).await), "chunk_index");
    assert_eq!(uow.chunks().insert_many(large(third)).await.unwrap(), 12);
    uow.rollback().await.unwrap();
    assert!(all(&db, third).await.is_empty());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn many_large_messages_are_written_by_several_statements_all_or_none(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let c = conversation(&db).await;
    let long = "x".repeat(1024 * 1024);
    let new = || (0..10).map(|i| NewMessage::user(c.id, format!("{i}{long}"))).collect::<Vec<_>>();
    let mut refused = new();
    refused[9].conversation_id = chancery::ConversationId::new();
    let error = db.messages().create_many(refused).await.unwrap_err();
    assert_eq!(error.constraint(), Some(Constraint::MessagesConversationIdFkey));
    assert_eq!(value::<i64>(&pool, "select count(*) from messages").await, 0);
    let written = db.messages().create_many(new()).await.unwrap();
    assert_eq!(db.messages().list_by_conversation(c.id, 20, 0).await.unwrap(), written);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_chunk_whose_text_stays_keeps_its_identifier(pool: PgPool) {
    let db = Database::from_pool(pool);
    let id = transcript(&db).await.id;
    // Old chunks, new ones, and how many are unchanged, updated, inserted and deleted.
    for (old, new, counts) in [
        ("", "a b c", (0, 0, 3, 0)),
        ("a b c", "a b c", (3, 0, 0, 0)),
        ("a b c", "", (0, 0, 0, 3)),
        ("a b c", "x a b c", (0, 3, 1, 0)),
        ("a b c", "b c", (0, 2, 0, 1)),
        ("a b c d", "d c b a", (0, 4, 0, 0)),
        ("a b c d", "b a d c", (0, 4, 0, 0)),
        ("a b c d", "a x c y", (2, 0, 2, 2)),
        ("a b c", "c x a", (0, 2, 1, 1)),
        ("a b c", "x y z", (0, 0, 3, 3)),
        // Of several with one text, the first stays the first.
        ("a a b a", "a b a", (1, 2, 0, 1)),
        ("a", "a a a", (1, 0, 2, 0)),
    ] {
        db.chunks().replace_all(id, drafts(old)).await.unwrap();
        let before = all(&db, id).await;
        assert_eq!(texts(&before), old);
        let replaced = db.chunks().replace_all(id, drafts(new)).await.unwrap();
        let after = all(&db, id).await;
        assert_eq!(texts(&after), new, "{old} → {new}");
        assert!(after.iter().map(|chunk| chunk.chunk_index).eq(0..after.len() as i32));
        let did =
            (replaced.unchanged, replaced.updated, replaced.inserted.len(), replaced.deleted.len());
        assert_eq!(did, counts, "{old} → {new}");
        let (before_ids, after_ids) = (ids(&before), ids(&after));
        let new_ids: Vec<_> =
            after_ids.iter().filter(|id| !before_ids.contains(id)).copied().collect();
        let gone: Vec<_> =
            before_ids.iter().filter(|id| !after_ids.contains(id)).copied().collect();
        assert_eq!((replaced.inserted, replaced.deleted), (new_ids, gone), "{old} → {new}");
        // An identifier means its text, before and after.
        let meant: BTreeMap<_, _> =
            before.iter().map(|chunk| (chunk.id, &chunk.chunk_text)).collect();
        for chunk in &after {
            assert!(meant.get(&chunk.id).is_none_or(|text| **text == chunk.chunk_text));
        }
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_hangs_on_a_kept_chunk_stays_and_its_notes_change(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let id = transcript(&db).await.id;
    db.chunks().replace_all(id, drafts("a b c")).await.unwrap();
    let before = all(&db, id).await;
    sqlx::raw_sql(
        "create table embeddings (chunk_id uuid primary key references chunks on delete cascade);
         insert into embeddings select id from chunks",
    )
    .execute(&pool)
    .await
    .unwrap();
    let noted = ChunkDraft::new("c", 7).metadata(json!({"speaker": "Ada"}));
    let new = vec![ChunkDraft::new("x", 1), noted, ChunkDraft::new("a", 1)];
    let replaced = db.chunks().replace_all(id, new).await.unwrap();
    assert_eq!(
        (replaced.unchanged, replaced.updated, replaced.deleted),
        (0, 2, vec![before[1].id])
    );
    let after = all(&db, id).await;
    assert_eq!((after[1].id, after[1].token_count), (before[2].id, 7));
    assert_eq!(after[1].metadata, json!({"speaker": "Ada"}));
    assert_eq!(after[1].created_at, before[2].created_at);
    assert_eq!(value::<i64>(&pool, "select count(*) from embeddings").await, 2);
    // Another transcript's chunks are its own.
    let other = transcript(&db).await.id;
    db.chunks().create_many(chunks(other, 3)).await.unwrap();
    db.chunks().replace_all(id, Vec::new()).await.unwrap();
    assert_eq!(all(&db, other).await.len(), 3);
    // One that stands too far out to be moved is stored anew.
    let far = NewChunk::new(id, i32::MAX, "far", 1);
    db.chunks().create_many(vec![far]).await.unwrap();
    let replaced = db.chunks().replace_all(id, drafts("far")).await.unwrap();
    assert_eq!((replaced.inserted.len(), replaced.deleted.len()), (1, 1));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_can_not_replace_changes_nothing(pool: PgPool) {
    let db = Database::from_pool(pool);
    let refused = db.chunks().replace_all(TranscriptId::new(), drafts("a")).await.unwrap_err();
    assert_eq!(refused.constraint(), Some(Constraint::ChunksTranscriptIdFkey));
    let id = transcript(&db).await.id;
    db.chunks().replace_all(id, drafts("a b")).await.unwrap();
    let before = all(&db, id).await;
    assert_eq!(invalid_field(db.chunks().replace_all(id, drafts("a \0")).await), "chunk_text");
    let negative = vec![ChunkDraft::new("a", -1)];
    assert_eq!(invalid_field(db.chunks().replace_all(id, negative).await), "token_count");
    let large = vec![ChunkDraft::new("x".repeat(MAX_TEXT_BYTES), 1); 5];
    assert_eq!(invalid_field(db.chunks().replace_all(id, large).await), "chunks");
    let mut uow = db.begin().await.unwrap();
    uow.chunks().replace_all(id, drafts("x y z")).await.unwrap();
    uow.rollback().await.unwrap();
    assert_eq!(all(&db, id).await, before);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_second_re_ingest_waits_and_replaces_what_the_first_has_stored(pool: PgPool) {
    let db = Database::from_pool(pool);
    let id = transcript(&db).await.id;
    db.chunks().replace_all(id, drafts("a b c")).await.unwrap();
    let mut first = db.begin().await.unwrap();
    let stored = first.chunks().replace_all(id, drafts("x a y")).await.unwrap().inserted;
    let (mut second, other) = (db.begin().await.unwrap(), db.clone());
    let process = backend(&mut second).await;
    let second = tokio::spawn(async move {
        let replaced = second.chunks().replace_all(id, drafts("a y z")).await?;
        second.commit().await.map(|()| replaced)
    });
    until_blocked(&other, process).await;
    // Others read what was there.
    assert_eq!(texts(&all(&db, id).await), "a b c");
    first.commit().await.unwrap();
    let replaced = second.await.unwrap().unwrap();
    // x went; y, which only the first has stored, stayed.
    assert_eq!(replaced.deleted, stored[..1]);
    assert_eq!((replaced.updated, replaced.inserted.len()), (2, 1));
    assert_eq!(texts(&all(&db, id).await), "a y z");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn readers_see_the_old_chunks_or_the_new_whoever_replaces_them(pool: PgPool) {
    let db = Database::from_pool(pool);
    let id = transcript(&db).await.id;
    // The sets share some texts, at other places.
    let set = |name: usize| -> Vec<ChunkDraft> {
        let shared = (0..20).map(|i| format!("shared {}", (i * (name + 1)) % 20));
        let own = (0..10 + name).map(|i| format!("own {name} {i}"));
        let all = own.chain(shared);
        all.map(|text| ChunkDraft::new(text, 1).metadata(json!({"set": name}))).collect()
    };
    db.chunks().replace_all(id, set(0)).await.unwrap();
    let writers = (0..4).map(|name| {
        let db = db.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                db.chunks().replace_all(id, set(name)).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut reads = 0;
    while reads < 20 || writers.iter().any(|writer| !writer.is_finished()) {
        let read = all(&db, id).await;
        let name = read[0].metadata["set"].as_u64().unwrap() as usize;
        let expected = set(name);
        assert_eq!(read.len(), expected.len());
        for (chunk, draft) in read.iter().zip(&expected) {
            assert_eq!((&chunk.chunk_text, &chunk.metadata), (&draft.chunk_text, &draft.metadata));
        }
        reads += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

/// How many rows all nodes of all plans have made or thrown away, by what the server logs of them.
fn rows_visited(events: &Events) -> f64 {
    let plans: String = events.take().into_iter().map(|(_, _, text)| text).collect();
    assert!(plans.matches("Hash Cond").count() >= 3, "no plans: {plans}");
    let number = |text: &str| {
        let digits = text.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap();
        digits.trim_end_matches('.').parse::<f64>().unwrap()
    };
    let mut visited = 0.0;
    for line in plans.replace("\\n", "\n").lines() {
        if let Some((_, actual)) = line.split_once("(actual rows=") {
            let loops = actual.split_once("loops=").unwrap().1;
            visited += number(actual) * number(loops);
        }
        // Of one loop.
        if let Some((_, removed)) = line.split_once("Rows Removed by Join Filter: ") {
            visited += number(removed);
        }
    }
    visited
}

/// Counted and not timed: eight times as many chunks visit about eight times as many rows.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn replacing_stays_linear_whatever_the_planner_knows_and_however_many_texts_are_equal(
    pool: PgPool,
) {
    let db = Database::from_pool(pool);
    // As far as the statistics know, a transcript has one chunk.
    let owner = user(&db).await.id;
    let transcripts = "insert into transcripts (user_id, youtube_video_id, transcript_text)
                       select $1, 'known' || n, 'text' from generate_series(1, 300) n";
    sqlx::query(transcripts).bind(owner.as_uuid()).execute(db.executor()).await.unwrap();
    let one_each = "insert into chunks (transcript_id, chunk_text, chunk_index, token_count)
                    select id, 'one', 0, 1 from transcripts";
    sqlx::query(one_each).execute(db.executor()).await.unwrap();
    sqlx::raw_sql("alter table chunks set (autovacuum_enabled = off); analyze chunks, transcripts")
        .execute(db.executor())
        .await
        .unwrap();
    for equal in [false, true] {
        for analyzed in [false, true] {
            let mut visited = Vec::new();
            for count in [500, 4000] {
                let cut = |from: usize| {
                    let text = |n| if equal { "same".to_owned() } else { format!("piece {n}") };
                    (from..from + count).map(|n| ChunkDraft::new(text(n), 1)).collect::<Vec<_>>()
                };
                let mut uow = db.begin().await.unwrap();
                let new = new_transcript(owner);
                let stored = uow.transcripts().create_with_chunks(new, cut(0)).await.unwrap();
                if analyzed {
                    sqlx::raw_sql("analyze chunks").execute(uow.executor()).await.unwrap();
                }
                sqlx::raw_sql(
                    "load 'auto_explain';
                     set local auto_explain.log_min_duration = 0;
                     set local auto_explain.log_nested_statements = on;
                     set local auto_explain.log_analyze = on;
                     set local auto_explain.log_timing = off;
                     set local client_min_messages = log",
                )
                .execute(uow.executor())
                .await
                .unwrap();
                let events = Events::capture();
                // A tenth is new, the rest moves.
                let id = stored.transcript.id;
                let replaced = uow.chunks().replace_all(id, cut(count / 10)).await.unwrap();
                assert_eq!(replaced.inserted.len(), if equal { 0 } else { count / 10 });
                visited.push(rows_visited(&events));
                drop(events);
                uow.rollback().await.unwrap();
            }
            let ratio = visited[1] / visited[0];
            assert!(ratio < 12.0, "equal {equal}, analyzed {analyzed}: {visited:?}");
            assert!(visited[1] > 4000.0, "{visited:?}");
        }
    }
}
