//! Chunks stored by arrays, as `create_many` and `insert_many` do it, and by binary COPY.
//!
//!     cargo run --release --manifest-path bench/Cargo.toml --bin bulk
//!
//! The ways take turns in one run on a private server whose commits do not wait for the disk; the table
//! is emptied before each. COPY is given the owners, which `insert_many` looks up in its statement; rows
//! that COPY has stored can be returned only by reading them.

use std::error::Error;
use std::time::{Duration, Instant};

use chancery::{ChunkRepository, Database, DatabaseConfig, NewChunk, NewTranscript, TranscriptId};
use futures_util::pin_mut;
use private_postgres::Server;
use serde_json::{Value, json};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Rows at once, and how often.
const SIZES: [(usize, usize); 3] = [(10, 201), (1_000, 31), (100_000, 5)];
/// Of each text.
const TEXT_BYTES: usize = 1_000;

const WAYS: [Way; 4] = [Way::CreateMany, Way::CopyAndRead, Way::InsertMany, Way::Copy];

#[derive(Clone, Copy)]
enum Way {
    CreateMany,
    CopyAndRead,
    InsertMany,
    Copy,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::CreateMany => "arrays, rows returned",
            Self::CopyAndRead => "COPY, rows read back",
            Self::InsertMany => "arrays",
            Self::Copy => "COPY",
        }
    }
}

struct Row {
    transcript_id: Uuid,
    user_id: Uuid,
    text: String,
    index: i32,
    metadata: Value,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let server =
        Server::builder().setting("synchronous_commit", "off").setting("max_wal_size", "4GB");
    let server = server.start()?;
    let url = server.url("postgres");
    let config = DatabaseConfig::builder().url(&url).pool_size(1).max_overflow(0).build()?;
    let db = Database::connect(&config).await?;
    db.migrate().await?;
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    let user = db.users().create(chancery::NewUser::new("bulk@example.org")).await?;
    let transcript =
        db.transcripts().create(NewTranscript::new(user.id, "bulk", "A transcript")).await?;

    println!("| rows | way | ms | rows a second | of the first |\n|---:|---|---:|---:|---:|");
    for (size, rounds) in SIZES {
        let mut times = WAYS.map(|_| Vec::with_capacity(rounds));
        for round in 0..rounds {
            for turn in 0..WAYS.len() {
                let who = (turn + round) % WAYS.len();
                let rows = rows(size, transcript.id, user.id.as_uuid());
                client.batch_execute("truncate chunks cascade").await?;
                times[who].push(timed(WAYS[who], &db, &client, rows).await?);
            }
        }
        let medians = times.each_mut().map(|times| {
            times.sort_unstable();
            times[rounds / 2].as_secs_f64()
        });
        for (way, median) in WAYS.into_iter().zip(medians) {
            println!(
                "| {size} | {} | {:.2} | {:.0} | {:.2} |",
                way.name(),
                median * 1e3,
                size as f64 / median,
                median / medians[0]
            );
        }
    }
    db.close().await;
    Ok(())
}

fn rows(size: usize, transcript_id: TranscriptId, user_id: Uuid) -> Vec<Row> {
    let row = |index: usize| Row {
        transcript_id: transcript_id.as_uuid(),
        user_id,
        text: format!("{index:-^TEXT_BYTES$}"),
        index: i32::try_from(index).expect("an index fits"),
        metadata: json!({ "page": index / 10, "speaker": "narrator" }),
    };
    (0..size).map(row).collect()
}

async fn timed(way: Way, db: &Database, client: &Client, rows: Vec<Row>) -> Outcome<Duration> {
    let size = rows.len();
    let new = |row: Row| {
        NewChunk::new(TranscriptId::from(row.transcript_id), row.index, row.text, 250)
            .metadata(row.metadata)
    };
    let chunks: ChunkRepository<'_> = db.chunks();
    let started = Instant::now();
    let stored = match way {
        Way::CreateMany => chunks.create_many(rows.into_iter().map(new).collect()).await?.len(),
        Way::InsertMany => {
            let stored = chunks.insert_many(rows.into_iter().map(new).collect()).await?;
            usize::try_from(stored)?
        }
        Way::Copy => copy(client, &rows).await?,
        Way::CopyAndRead => {
            copy(client, &rows).await?;
            let statement =
                "select id, transcript_id, user_id, chunk_text, chunk_index, token_count,
                                    metadata, created_at
                               from chunks where transcript_id = $1 order by chunk_index";
            let read = client.query(statement, &[&rows[0].transcript_id]).await?;
            let decoded = |row: &tokio_postgres::Row| (row.get(3), row.get(6));
            read.iter().map(decoded).collect::<Vec<(String, Value)>>().len()
        }
    };
    let taken = started.elapsed();
    if stored == size { Ok(taken) } else { Err(format!("{stored} rows of {size}").into()) }
}

async fn copy(client: &Client, rows: &[Row]) -> Outcome<usize> {
    let statement = "copy chunks (id, transcript_id, user_id, chunk_text, chunk_index, token_count,
                                  metadata)
                     from stdin (format binary)";
    let types =
        [Type::UUID, Type::UUID, Type::UUID, Type::TEXT, Type::INT4, Type::INT4, Type::JSONB];
    let writer = BinaryCopyInWriter::new(client.copy_in(statement).await?, &types);
    pin_mut!(writer);
    for row in rows {
        writer
            .as_mut()
            .write(&[
                &Uuid::now_v7(),
                &row.transcript_id,
                &row.user_id,
                &row.text,
                &row.index,
                &250_i32,
                &row.metadata,
            ])
            .await?;
    }
    Ok(usize::try_from(writer.finish().await?)?)
}
