//! The contenders, each as its users would write it.

mod chancery;
mod diesel;
mod pgbench;
mod seaorm;
mod sqlalchemy;
mod sqlx;
mod tokio_postgres;

use crate::Entry;
use crate::contender::Outcome;
use crate::options::Options;
use crate::workload::Workload;

pub const CHANCERY: &str = "chancery";
pub const CHANCERY_LIFO: &str = "chancery-lifo";
pub const SQLX: &str = "sqlx";
pub const SQLX_TUNED: &str = "sqlx-tuned";
pub const SQLX_KEPT: &str = "sqlx-kept";
pub const ROW_BY_ROW: &str = "row-by-row";
pub const TOKIO_POSTGRES: &str = "tokio-postgres";
pub const DIESEL: &str = "diesel-async";
pub const SEAORM: &str = "sea-orm";
pub const PGBENCH: &str = "pgbench";
pub const SQLALCHEMY: &str = "sqlalchemy";

/// What each name stands for.
pub const LEGEND: [(&str, &str); 11] = [
    (CHANCERY, "this crate, with its guards as they come"),
    (CHANCERY_LIFO, "the same, handing on the connection that was used last (`PoolOrder::Lifo`)"),
    (SQLX, "sqlx on its pool as it comes"),
    (SQLX_TUNED, "sqlx with `test_before_acquire(false)`"),
    (
        SQLX_KEPT,
        "sqlx on connections that are kept and handed on, first in first out: no pool, no guard",
    ),
    (ROW_BY_ROW, "the same, a statement for each row, in one transaction"),
    (
        TOKIO_POSTGRES,
        "tokio-postgres with deadpool-postgres, statements cached; the turn is pipelined, the bulk without rows returned is a binary COPY",
    ),
    (DIESEL, "diesel-async with deadpool (`RecyclingMethod::Fast`)"),
    (SEAORM, "SeaORM 2, by its entities"),
    (
        PGBENCH,
        "`pgbench -M prepared` with as many clients, at most one for each connection: the server and the C library alone, rows are not decoded",
    ),
    (SQLALCHEMY, "SQLAlchemy 2 with asyncpg, one process"),
];

/// Connects those that are asked for, each with a pool of the same size.
pub async fn all(options: &Options, url: &str) -> Outcome<Vec<Entry>> {
    let connections = options.connections;
    let not_raw = |workload| workload != Workload::ReadChunksRaw;
    let mut entries = Vec::new();
    if options.takes(CHANCERY) {
        let contender = chancery::pool(url, connections, Default::default()).await?;
        entries.push(Entry::new(CHANCERY, contender, |_| true));
    }
    if options.takes(CHANCERY_LIFO) {
        let contender = chancery::pool(url, connections, ::chancery::PoolOrder::Lifo).await?;
        entries.push(Entry::new(CHANCERY_LIFO, contender, |w| w == Workload::GetById));
    }
    if options.takes(SQLX) {
        entries.push(Entry::new(SQLX, sqlx::default_pool(url, connections).await?, |_| true));
    }
    if options.takes(SQLX_TUNED) {
        entries.push(Entry::new(SQLX_TUNED, sqlx::tuned_pool(url, connections).await?, |_| true));
    }
    if options.takes(SQLX_KEPT) {
        entries.push(Entry::new(SQLX_KEPT, sqlx::kept(url, connections, false).await?, |_| true));
    }
    if options.takes(ROW_BY_ROW) {
        let contender = sqlx::kept(url, 1, true).await?;
        entries.push(Entry::new(ROW_BY_ROW, contender, |w| w == Workload::LoadChunks));
    }
    if options.takes(TOKIO_POSTGRES) {
        let contender = tokio_postgres::pool(url, connections).await?;
        entries.push(Entry::new(TOKIO_POSTGRES, contender, |_| true));
    }
    if options.takes(DIESEL) {
        entries.push(Entry::new(DIESEL, diesel::pool(url, connections).await?, not_raw));
    }
    if options.takes(SEAORM) {
        entries.push(Entry::new(SEAORM, seaorm::pool(url, connections).await?, not_raw));
    }
    if options.takes(PGBENCH) {
        match pgbench::find() {
            Some(program) => {
                let contender = pgbench::Pgbench {
                    program,
                    url: url.to_owned(),
                    connections: connections as usize,
                };
                entries.push(Entry::new(PGBENCH, contender, |w| w == Workload::GetById));
            }
            None => eprintln!("pgbench is not installed: skipped"),
        }
    }
    if options.python && options.takes(SQLALCHEMY) {
        let contender = sqlalchemy::start(url, connections)?;
        entries.push(Entry::new(SQLALCHEMY, contender, not_raw));
    }
    Ok(entries)
}
