//! How many round trips each operation costs, counted between client and server, against the table in
//! `docs/round-trips.md`.

mod chat;
mod extraction;
mod identity;
mod intake;
mod library;
mod others;
pub mod source;
mod units_of_work;

use std::collections::BTreeMap;
use std::time::Duration;

use chancery::Database;
use sqlx::PgPool;

use crate::support::database::{config, connect, url};
use crate::support::proxy::Proxy;

/// What was measured so far.
struct Meter {
    proxy: Proxy,
    // One connection, by way of the proxy: what it has prepared stays prepared.
    db: Database,
    // Another way to the same database, for what an operation needs to be there.
    setup: Database,
    measured: BTreeMap<String, usize>,
}

impl Meter {
    async fn start(pool: &PgPool) -> Self {
        let proxy = Proxy::start(&url(pool), Duration::ZERO).await;
        let through = proxy.url(&url(pool));
        let db = connect(config(pool).url(through.as_str()).pool_size(1).max_overflow(0)).await;
        let setup = Database::from_pool(pool.clone());
        Self { proxy, db, setup, measured: BTreeMap::new() }
    }

    /// Counts what an operation costs on a connection that knows its statements. A connection that
    /// was idle for a second is pinged, which no operation is charged with: the least of three.
    async fn count(&mut self, name: &str, operation: impl AsyncFn(&Proxy, &Database) -> usize) {
        operation(&self.proxy, &self.db).await;
        let mut least = usize::MAX;
        for _ in 0..3 {
            least = least.min(operation(&self.proxy, &self.db).await);
        }
        let before = self.measured.insert(name.to_owned(), least);
        assert_eq!(before, None, "{name} is measured twice");
    }
}

/// Counts the round trips of a repository's method. Its arguments are made anew for each call, by way
/// of another connection.
macro_rules! count {
    ($meter:ident, $repository:ident().$method:ident($($argument:expr),* $(,)?)) => {{
        let name = concat!(stringify!($repository), "().", stringify!($method));
        let call = async |proxy: &$crate::support::proxy::Proxy, db: &chancery::Database| {
            let before = proxy.round_trips();
            db.$repository().$method($($argument),*).await.unwrap();
            proxy.round_trips() - before
        };
        $meter.count(name, call).await;
    }};
}

/// The same, of a method that gives a stream, which is read to its end.
macro_rules! stream {
    ($meter:ident, $repository:ident().$method:ident($($argument:expr),* $(,)?)) => {{
        let name = concat!(stringify!($repository), "().", stringify!($method));
        let call = async |proxy: &$crate::support::proxy::Proxy, db: &chancery::Database| {
            let before = proxy.round_trips();
            let stream = db.$repository().$method($($argument),*);
            let rows: Vec<_> = futures_util::TryStreamExt::try_collect(stream).await.unwrap();
            assert!(!rows.is_empty());
            proxy.round_trips() - before
        };
        $meter.count(name, call).await;
    }};
}
use {count, stream};

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn every_operation_costs_the_round_trips_that_the_table_says(pool: PgPool) {
    let mut meter = Meter::start(&pool).await;
    units_of_work::measure(&mut meter).await;
    identity::measure(&mut meter).await;
    chat::measure(&mut meter).await;
    library::measure(&mut meter).await;
    others::measure(&mut meter).await;
    intake::measure(&mut meter).await;
    extraction::measure(&mut meter).await;
    meter.db.close().await;

    let measured = meter.measured;
    let unmeasured: Vec<_> =
        source::methods().into_iter().filter(|name| !measured.contains_key(name)).collect();
    assert!(unmeasured.is_empty(), "public methods that are not measured here: {unmeasured:?}");
    let table = source::table();
    let wrong: Vec<_> = measured
        .iter()
        .filter(|(name, count)| table.get(*name) != Some(count))
        .map(|(name, count)| format!("| `{name}` | {count} |"))
        .collect();
    assert!(wrong.is_empty(), "docs/round-trips.md should say:\n{}", wrong.join("\n"));
    let gone: Vec<_> = table.keys().filter(|name| !measured.contains_key(*name)).collect();
    assert!(gone.is_empty(), "docs/round-trips.md tells of what there is not: {gone:?}");
}
