//! A database by configuration instead of by pool, and looking at it from outside.

use std::time::Duration;

use chancery::{Database, DatabaseConfig, DatabaseConfigBuilder};
use sqlx::postgres::{PgRow, Postgres};
use sqlx::{Decode, PgPool, Type};
use tokio::time::{Instant, sleep};
use url::Url;

/// Longer than anything takes, however busy the machine is: what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The URL of the database that a `#[sqlx::test]` was given.
pub fn url(pool: &PgPool) -> Url {
    let mut url = Url::parse(&std::env::var("DATABASE_URL").unwrap()).unwrap();
    url.set_path(pool.connect_options().get_database().unwrap());
    url
}

/// A configuration for it, whose callers wait for a connection as long as it takes. Close what is
/// connected by it, or the database can't be dropped.
pub fn config(pool: &PgPool) -> DatabaseConfigBuilder {
    DatabaseConfig::builder().url(url(pool).as_str()).pool_timeout(PATIENCE)
}

pub async fn connect(config: DatabaseConfigBuilder) -> Database {
    Database::connect(&config.build().unwrap()).await.unwrap()
}

/// The one value that a statement returns.
pub async fn value<T>(pool: &PgPool, statement: &'static str) -> T
where
    T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
    (T,): for<'r> sqlx::FromRow<'r, PgRow>,
{
    sqlx::query_scalar(statement).fetch_one(pool).await.unwrap()
}

/// Waits for what another process does, asking again and again.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Ends the server's processes of this application in this database. Returns how many, when they are gone.
pub async fn terminate(pool: &PgPool, application: &str) -> i64 {
    sqlx::query_scalar(
        "select count(*) filter (where pg_terminate_backend(pid, 60000)) from pg_stat_activity
          where datname = current_database() and application_name = $1",
    )
    .bind(application)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Waits until a statement waits for a lock in this database.
pub async fn until_one_waits(pool: &PgPool) {
    eventually("a statement waits for a lock", async || {
        value::<i64>(
            pool,
            "select count(*) from pg_stat_activity
              where datname = current_database() and wait_event_type = 'Lock'",
        )
        .await
            > 0
    })
    .await;
}
