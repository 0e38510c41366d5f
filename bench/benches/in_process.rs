//! What happens inside of the process: decoding rows, cursors as text, and handing on a connection.
//!
//!     cargo bench --manifest-path bench/Cargo.toml

use std::hint::black_box;

use chancery::{
    Chunk, Cursor, Database, DatabaseConfig, NewChunk, NewMessage, NewTranscript, NewUser,
    PageRequest,
};
use criterion::{Criterion, criterion_group, criterion_main};
use private_postgres::Server;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::{Connection, FromRow, PgConnection, PgPool};
use tokio::runtime::Runtime;
use uuid::Uuid;

struct Prepared {
    rows: Vec<PgRow>,
    cursor: Cursor,
}

async fn prepare(db: &Database) -> chancery::Result<Prepared> {
    db.migrate().await?;
    let user = db.users().create(NewUser::new("ada@example.org")).await?;
    let conversation = db.conversations().create(user.id, None).await?;
    for _ in 0..2 {
        db.messages().create(NewMessage::user(conversation.id, "Why the Moon?")).await?;
    }
    let page = db.messages().page_by_conversation(conversation.id, PageRequest::first(1)).await?;
    let transcript = db.transcripts().create(NewTranscript::new(user.id, "video", "words")).await?;
    let chunk = |n| {
        let text = format!("Chunk {n}{}", " of a long speech".repeat(40));
        let metadata = json!({"start": f64::from(n) * 12.5, "speaker": "S1", "words": ["moon"]});
        NewChunk::new(transcript.id, n, text, 160).metadata(metadata)
    };
    db.chunks().create_many((0..1_000).map(chunk).collect()).await?;
    let rows = sqlx::query("select * from chunks").fetch_all(db.executor()).await?;
    let cursor = page.next.expect("a second message follows");
    Ok(Prepared { rows, cursor })
}

fn in_process(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let server = Server::start().expect("a server");
    let url = server.url("postgres");
    let config = DatabaseConfig::from_url(&url).expect("the server's URL");
    let (db, pool, mut kept, prepared) = runtime.block_on(async {
        let db = Database::connect(&config).await.expect("a connection");
        let pool = PgPool::connect(&url).await.expect("a connection");
        let kept = PgConnection::connect(&url).await.expect("a connection");
        let prepared = prepare(&db).await.expect("rows");
        (db, pool, kept, prepared)
    });

    let mut decoding = criterion.benchmark_group("decode 1,000 chunks");
    decoding.bench_function("whole", |bencher| {
        bencher.iter(|| {
            for row in &prepared.rows {
                black_box(Chunk::<Value>::from_row(row).expect("a chunk"));
            }
        });
    });
    decoding.bench_function("with raw JSON", |bencher| {
        bencher.iter(|| {
            for row in &prepared.rows {
                black_box(Chunk::<Box<RawValue>>::from_row(row).expect("a chunk"));
            }
        });
    });
    decoding.finish();

    let text = prepared.cursor.to_string();
    criterion.bench_function("cursor to text", |bencher| {
        bencher.iter(|| black_box(prepared.cursor).to_string());
    });
    criterion.bench_function("cursor from text", |bencher| {
        bencher.iter(|| black_box(&text).parse::<Cursor>().expect("a cursor"));
    });
    criterion.bench_function("a new identifier", |bencher| bencher.iter(Uuid::now_v7));

    // One statement each: what differs is how the connection is had and given back.
    let mut handing_on = criterion.benchmark_group("hand on a connection, with one statement");
    handing_on.bench_function("kept", |bencher| {
        bencher.iter(|| {
            let query = sqlx::query("select $1::int4").bind(1);
            runtime.block_on(query.fetch_optional(&mut kept)).expect("an answer")
        });
    });
    handing_on.bench_function("chancery", |bencher| {
        bencher.iter(|| {
            let query = sqlx::query("select $1::int4").bind(1);
            runtime.block_on(query.fetch_optional(db.executor())).expect("an answer")
        });
    });
    handing_on.bench_function("sqlx", |bencher| {
        bencher.iter(|| {
            let query = sqlx::query("select $1::int4").bind(1);
            runtime.block_on(query.fetch_optional(&pool)).expect("an answer")
        });
    });
    handing_on.finish();
    runtime.block_on(async {
        db.close().await;
        pool.close().await;
    });
}

criterion_group!(benches, in_process);
criterion_main!(benches);
