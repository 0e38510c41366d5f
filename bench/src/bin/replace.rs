//! How the time of `replace_all` grows with the transcript: it should be in step with it.
//!
//!     cargo run --release --manifest-path bench/Cargo.toml --bin replace
//!
//! Each time a tenth of the chunks is new and the rest moves, on a private server whose commits do not
//! wait for the disk. Unknown: the statistics say that a transcript has one chunk. Analyzed: they were
//! taken with this one in the table.

use std::error::Error;
use std::time::{Duration, Instant};

use chancery::{ChunkDraft, Database, DatabaseConfig, NewTranscript, NewUser, UserId};
use private_postgres::Server;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Chunks, and how often.
const SIZES: [(usize, usize); 3] = [(1_000, 5), (10_000, 3), (50_000, 1)];

#[tokio::main]
async fn main() -> Outcome<()> {
    let server = Server::builder().setting("synchronous_commit", "off").setting("autovacuum", "off");
    let server = server.start()?;
    let url = server.url("postgres");
    let config = DatabaseConfig::builder()
        .url(&url)
        .pool_size(1)
        .max_overflow(0)
        .statement_timeout(Duration::from_secs(600))
        .build()?;
    let db = Database::connect(&config).await?;
    db.migrate().await?;
    let owner = db.users().create(NewUser::new("replace@example.org")).await?.id;
    for n in 0..300 {
        let new = NewTranscript::new(owner, format!("known{n}"), "text");
        db.transcripts().create_with_chunks(new, vec![ChunkDraft::new("one", 1)]).await?;
    }

    println!(
        "| texts | statistics | chunks | ms | of the size before | chunks: of the size before |"
    );
    println!("|---|---|---:|---:|---:|---:|");
    for equal in [false, true] {
        for analyzed in [false, true] {
            let mut before: Option<(usize, f64)> = None;
            for (size, rounds) in SIZES {
                let mut times = Vec::with_capacity(rounds);
                for _ in 0..rounds {
                    times.push(replaced(&db, owner, size, equal, analyzed).await?);
                }
                times.sort_unstable();
                let median = times[rounds / 2].as_secs_f64() * 1e3;
                let texts = if equal { "equal" } else { "distinct" };
                let known = if analyzed { "analyzed" } else { "unknown" };
                print!("| {texts} | {known} | {size} | {median:.0} |");
                match before {
                    Some((less, time)) => {
                        println!(" {:.1} | {:.0} |", median / time, size as f64 / less as f64);
                    }
                    None => println!(" | |"),
                }
                before = Some((size, median));
            }
        }
    }
    db.close().await;
    Ok(())
}

async fn replaced(
    db: &Database,
    owner: UserId,
    size: usize,
    equal: bool,
    analyzed: bool,
) -> Outcome<Duration> {
    let cut = |from: usize| -> Vec<ChunkDraft> {
        let text = |n| if equal { "the same text".to_owned() } else { format!("{n:-^500}") };
        (from..from + size).map(|n| ChunkDraft::new(text(n), 125)).collect()
    };
    sqlx::raw_sql("analyze chunks, transcripts").execute(db.executor()).await?;
    let new = NewTranscript::new(owner, "replaced", "text");
    let id = db.transcripts().create_with_chunks(new, cut(0)).await?.transcript.id;
    if analyzed {
        sqlx::raw_sql("analyze chunks, transcripts").execute(db.executor()).await?;
    }
    let next = cut(size / 10);
    let started = Instant::now();
    let replaced = db.chunks().replace_all(id, next).await?;
    let taken = started.elapsed();
    if replaced.inserted.len() != if equal { 0 } else { size / 10 } {
        return Err(format!("{} new", replaced.inserted.len()).into());
    }
    db.transcripts().delete(id).await?;
    sqlx::raw_sql("vacuum chunks").execute(db.executor()).await?;
    Ok(taken)
}
