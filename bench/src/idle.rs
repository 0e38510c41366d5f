//! A pool that nobody uses.

use std::fmt;
use std::time::Duration;

use chancery::{Database, DatabaseConfig};
use futures_util::future::join_all;
use sqlx::{Connection, PgConnection};

use crate::allocator;
use crate::contender::Outcome;

const SIZE: u32 = 20;

/// What a pool did while nobody used it.
pub struct Idle {
    pub time: Duration,
    /// Connections, before and after; the same ones.
    pub connections: usize,
    /// How many of them were sent anything.
    pub disturbed: i64,
    pub allocations: u64,
    /// The change of the process's resident memory, in bytes.
    pub memory: i64,
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, connections, disturbed, allocations, memory } = self;
        write!(
            f,
            "{connections} connections idle for {time:?}: {disturbed} of them were sent a query, the same \
             {connections} at the end; {allocations} allocations, {memory:+} bytes of memory"
        )
    }
}

/// Opens all connections of a pool of 20, and looks on.
pub async fn watch(url: &str, time: Duration) -> Outcome<Idle> {
    let config = DatabaseConfig::builder()
        .url(url)
        .application_name("bench_idle")
        .pool_size(SIZE)
        .max_overflow(0)
        .build()?;
    let db = Database::connect(&config).await?;
    for unit in join_all((0..SIZE).map(|_| db.begin())).await {
        unit?.commit().await?;
    }
    // Until each has been given back to the pool, which happens a second after its last use.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut connection = PgConnection::connect(url).await?;
    let looked: (i64, Vec<i32>) = look(&mut connection, Duration::ZERO).await?;
    let memory = resident()?;
    allocator::start();
    tokio::time::sleep(time).await;
    let allocations = allocator::stop();
    let memory = resident()? - memory;
    let (disturbed, connections) = look(&mut connection, time).await?;
    if connections != looked.1 {
        return Err("connections were closed and others opened".into());
    }
    connection.close().await?;
    db.close().await;
    let connections = connections.len();
    Ok(Idle { time, connections, disturbed, allocations: allocations.calls, memory })
}

/// How many of the pool's backends were sent something in the last while, and which there are.
async fn look(connection: &mut PgConnection, time: Duration) -> Outcome<(i64, Vec<i32>)> {
    let looked = sqlx::query_as(
        "select count(*) filter (where state_change > now() - make_interval(secs => $1)),
                array_agg(pid order by pid)
           from pg_stat_activity where application_name = 'bench_idle'",
    )
    .bind(time.as_secs_f64())
    .fetch_one(connection)
    .await?;
    Ok(looked)
}

fn resident() -> Outcome<i64> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let pages: i64 = pages.split(' ').nth(1).ok_or("no second number")?.parse()?;
    Ok(pages * 4096)
}
