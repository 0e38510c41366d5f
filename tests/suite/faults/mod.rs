//! Faults, made for real: backends killed and frozen, servers stopped, networks cut and silent. Each
//! test prints what it measured; `scripts/faults` shows the figures as a table.

mod answers;
mod backends;
mod commits;
mod contention;
mod deadlines;
mod outages;
mod schema_changes;

use std::time::Duration;

use chancery::Database;
use futures_util::future::join_all;
use sqlx::PgPool;

use crate::support::database::{config, connect, eventually, url};
use crate::support::proxy::Proxy;

/// How often a test that is a loop goes round: what is enough for every day, FAULTS_ROUNDS times.
fn rounds(usual: usize) -> usize {
    std::env::var("FAULTS_ROUNDS").map_or(usual, |rounds| usual * rounds.parse::<usize>().unwrap())
}

/// A pool of so many connections by way of a proxy, all of them open and idle.
async fn through_proxy(pool: &PgPool, delay: Duration, size: u32) -> (Proxy, Database) {
    let proxy = Proxy::start(&url(pool), delay).await;
    let config = config(pool).url(proxy.url(&url(pool)).as_str());
    let db = connect(config.pool_size(size).max_overflow(0)).await;
    open_all(&db).await;
    (proxy, db)
}

/// Uses all connections of the pool at once, so that all are open, and just used.
async fn open_all(db: &Database) {
    let max = db.pool_status().max;
    let units = join_all((0..max).map(async |_| db.begin().await.unwrap())).await;
    for uow in units {
        uow.rollback().await.unwrap();
    }
    eventually("all are idle", async || db.pool_status().idle == max).await;
}

/// A repository's read.
async fn read(db: &Database) -> chancery::Result<()> {
    db.config().get_value("any").await.map(drop)
}
