//! Reads that carry no more than is asked for: JSON without a tree, and rows one by one.

use chancery::{Chunk, Database, Error, Message, NewChunk, NewMessage, ReadOnly};
use futures_util::TryStreamExt;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use sqlx::PgPool;

use crate::support::database::{config, connect, value};
use crate::support::{chunks, conversation, eventually, messages, transcript};

#[derive(Debug, PartialEq, Deserialize)]
struct Cited {
    model: String,
    #[serde(default)]
    chunks: Vec<u32>,
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn metadata_comes_as_text_or_as_a_type_of_the_callers(pool: PgPool) {
    let db = Database::from_pool(pool);
    let c = conversation(&db).await;
    let notes = json!({"model": "m-1", "chunks": [3, 7]});
    let new = NewMessage::assistant(c.id, "Because.").metadata(notes.clone());
    let written = db.messages().create(new).await.unwrap();
    let cited = Cited { model: "m-1".into(), chunks: vec![3, 7] };

    let typed = || db.messages().json_as::<Cited>();
    let one = typed().get_by_id(written.id).await.unwrap().unwrap();
    assert_eq!((one.id, &one.content, &one.metadata), (written.id, &written.content, &cited));
    assert_eq!(typed().get_last_n(c.id, 5).await.unwrap()[0].metadata, cited);
    assert_eq!(typed().list_by_metadata(c.user_id, &notes, 5).await.unwrap()[0].metadata, cited);

    // The text as PostgreSQL writes it, which is the same document.
    let raw: Vec<Message<Box<RawValue>>> =
        db.messages().json_as().list_by_conversation(c.id, 5, 0).await.unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(raw[0].metadata.get()).unwrap(), notes);
    // It goes on to a client as it came.
    let answer = serde_json::to_value(&raw).unwrap();
    assert_eq!(answer, serde_json::to_value(vec![written]).unwrap());

    let source = transcript(&db).await;
    let chunk = NewChunk::new(source.id, 0, "We choose", 2).metadata(notes);
    let [chunk] = &db.chunks().create_many(vec![chunk]).await.unwrap()[..] else { panic!() };
    let found: Vec<Chunk<Cited>> =
        db.chunks().read_only().json_as().get_by_ids(&[chunk.id]).await.unwrap();
    assert_eq!(found[0].metadata, cited);
    let whole = db.transcripts().json_as::<Box<RawValue>>();
    let whole = whole.get_with_chunk_count(source.id).await.unwrap().unwrap();
    assert_eq!((whole.transcript.metadata.get(), whole.chunk_count), ("{}", 1));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn metadata_that_is_not_of_the_callers_type_is_an_error_that_does_not_quote_it(pool: PgPool) {
    let db = Database::from_pool(pool);
    let c = conversation(&db).await;
    let notes = json!({"model": ["hush"]});
    db.messages().create(NewMessage::user(c.id, "Why?").metadata(notes)).await.unwrap();
    let error = db.messages().json_as::<Cited>().get_last_n(c.id, 1).await.unwrap_err();
    assert!(matches!(error, Error::Decode(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    let source = transcript(&db).await.id;
    let error = db.transcripts().json_as::<Cited>().get_with_chunk_count(source).await.unwrap_err();
    assert!(matches!(error, Error::Decode(_)), "{error:?}");
    // The connection is as good as before.
    assert_eq!(db.messages().get_last_n(c.id, 1).await.unwrap().len(), 1);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_stream_gives_every_row_in_order(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (c, other) = (conversation(&db).await, conversation(&db).await);
    let written = db.messages().create_many(messages(&c, 3000)).await.unwrap();
    db.messages().create_many(messages(&other, 3)).await.unwrap();
    let read: Vec<Message> =
        db.messages().stream_by_conversation(c.id).try_collect().await.unwrap();
    assert_eq!(read, written);

    let source = transcript(&db).await.id;
    let mut new = chunks(source, 3000);
    new.reverse();
    db.chunks().create_many(new).await.unwrap();
    let read_only: chancery::ChunkRepository<'_, ReadOnly> = db.chunks().read_only();
    let read: Vec<Chunk> = read_only.stream_by_transcript(source).try_collect().await.unwrap();
    assert!(read.iter().map(|chunk| chunk.chunk_index).eq(0..3000));
    // In a unit of work, it reads what that has written.
    let mut uow = db.begin().await.unwrap();
    uow.chunks().delete_by_transcript(source).await.unwrap();
    let left: Vec<Chunk> = uow.chunks().stream_by_transcript(source).try_collect().await.unwrap();
    assert!(left.is_empty());
    uow.rollback().await.unwrap();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_stream_that_is_dropped_midway_leaves_a_clean_connection(pool: PgPool) {
    let db = connect(config(&pool).pool_size(1).max_overflow(0)).await;
    let c = conversation(&db).await;
    let long = "x".repeat(10_000);
    let new = (0..2000).map(|_| NewMessage::user(c.id, &*long)).collect();
    db.messages().create_many(new).await.unwrap();
    for read in [0, 1, 50] {
        let mut stream = Box::pin(db.messages().stream_by_conversation(c.id));
        for _ in 0..read {
            stream.try_next().await.unwrap().unwrap();
        }
        drop(stream);
        // The only connection, or another in its place, serves the next caller at once.
        assert_eq!(db.messages().get_last_n(c.id, 1).await.unwrap().len(), 1, "after {read}");
    }
    // So does the one of a unit of work, which knows nothing failed.
    let mut uow = db.begin().await.unwrap();
    uow.conversations().update_title(c.id, Some("kept")).await.unwrap();
    let mut stream = Box::pin(uow.messages().stream_by_conversation(c.id));
    stream.try_next().await.unwrap().unwrap();
    drop(stream);
    assert_eq!(uow.messages().get_last_n(c.id, 1).await.unwrap().len(), 1);
    uow.commit().await.unwrap();
    let kept = db.conversations().get_by_id(c.id).await.unwrap().unwrap();
    assert_eq!(kept.title.as_deref(), Some("kept"));
    // And nothing goes on at the server.
    eventually("no statement runs on", async || {
        value::<i64>(
            &pool,
            "select count(*) from pg_stat_activity
              where datname = current_database() and state = 'active' and pid <> pg_backend_pid()",
        )
        .await
            == 0
    })
    .await;
    db.close().await;
}
