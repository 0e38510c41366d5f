//! Health: a true answer, in time, whatever happens to the server.

use std::time::Duration;

use chancery::{Database, DatabaseConfig, Error, HealthStatus, MIGRATOR};
use private_postgres::{Server, StopMode};
use sqlx::PgPool;
use tokio::time::timeout;

use crate::support::database::{PATIENCE, config, connect, eventually, url, value};
use crate::support::proxy::Proxy;

/// Long enough for a server that answers, however busy the machine is.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks, and checks that the answer came in time.
async fn health(db: &Database) -> chancery::Health {
    let health = db.health().await;
    assert!(health.latency < TIMEOUT + PATIENCE, "took {:?}", health.latency);
    assert_eq!(health.is_healthy(), health.error.is_none());
    health
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_healthy_database_tells_version_schema_and_pool(pool: PgPool) {
    let db = connect(config(&pool).pool_size(2).max_overflow(1)).await;
    let health = health(&db).await;
    assert_eq!((health.status, &health.error), (HealthStatus::Healthy, &None));
    let version: String = value(&pool, "show server_version").await;
    assert_eq!(health.server_version.as_deref(), Some(&*version));
    assert!(health.latency > Duration::ZERO);
    assert_eq!(health.pool.max, 3);
    let schema = health.schema.unwrap();
    assert!(schema.is_current());
    assert_eq!(schema.version, MIGRATOR.iter().map(|m| m.version).max());
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn as_json_it_is_what_an_endpoint_returns(pool: PgPool) {
    let db = connect(config(&pool).pool_size(2).max_overflow(1)).await;
    let mut json = serde_json::to_value(health(&db).await).unwrap();
    let latency = json["latency_ms"].take().as_f64().unwrap();
    assert!(latency > 0.0 && latency < 60_000.0, "{latency}");
    assert!(json["server_version"].take().is_string());
    assert!(json["pool"]["size"].take().as_u64().unwrap() >= 1);
    assert!(json["pool"]["idle"].take().is_u64() && json["pool"]["in_use"].take().is_u64());
    let applied = MIGRATOR.iter().filter(|m| m.migration_type.is_up_migration()).count();
    let expected = serde_json::json!({
        "status": "healthy",
        "role": "primary",
        "latency_ms": null,
        "server_version": null,
        "pool": { "size": null, "idle": null, "in_use": null, "max": 3 },
        "schema": {
            "version": MIGRATOR.iter().map(|m| m.version).max(),
            "applied": applied,
            "pending": [],
            "unknown": [],
        },
        "reader": null,
        "error": null,
    });
    assert_eq!(json, expected);
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn a_database_that_was_never_migrated_shows_everything_pending(pool: PgPool) {
    let health = health(&Database::from_pool(pool)).await;
    assert!(health.is_healthy());
    let schema = health.schema.unwrap();
    assert_eq!((schema.version, schema.applied, schema.unknown.len()), (None, 0, 0));
    assert_eq!(schema.pending.len(), schema.migrations.len());
    assert!(schema.pending.is_sorted() && !schema.pending.is_empty() && !schema.is_current());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_pool_whose_connections_are_all_held_is_unhealthy(pool: PgPool) {
    let config = config(&pool).pool_size(1).max_overflow(0).health_timeout(TIMEOUT);
    let patient = connect(config.clone()).await;
    let held = patient.begin().await.unwrap();
    let busy = health(&patient).await;
    assert_eq!(busy.error.as_deref(), Some("no answer in time (health_timeout)"));
    assert_eq!((busy.server_version, busy.schema, busy.pool.in_use), (None, None, 1));
    held.rollback().await.unwrap();
    assert!(health(&patient).await.is_healthy());
    patient.close().await;

    let config = config.pool_timeout(Duration::from_secs(1)).health_timeout(PATIENCE);
    let hasty = connect(config).await;
    let held = hasty.begin().await.unwrap();
    let busy = health(&hasty).await;
    assert_eq!(busy.error.as_deref(), Some("all connections are in use"));
    held.rollback().await.unwrap();
    hasty.close().await;
}

#[tokio::test]
async fn a_frozen_or_stopped_server_is_unhealthy_until_it_is_back() {
    let server = Server::start().unwrap();
    let config =
        DatabaseConfig::builder().url(&server.url("postgres")).health_timeout(TIMEOUT).build();
    let db = Database::connect(&config.unwrap()).await.unwrap();
    assert!(health(&db).await.is_healthy());

    server.freeze().unwrap();
    let frozen = health(&db).await;
    assert_eq!(frozen.status, HealthStatus::Unhealthy);
    assert_eq!(frozen.error.as_deref(), Some("no answer in time (health_timeout)"));
    server.thaw().unwrap();
    eventually("it is healthy again", async || health(&db).await.is_healthy()).await;

    server.stop(StopMode::Fast).unwrap();
    let stopped = health(&db).await;
    assert_eq!(stopped.status, HealthStatus::Unhealthy);
    assert_eq!((stopped.server_version, stopped.schema), (None, None));
    server.restart().unwrap();
    eventually("it is healthy again", async || health(&db).await.is_healthy()).await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_network_that_went_silent_is_unhealthy_and_does_not_hold_up_closing(pool: PgPool) {
    let proxy = Proxy::start(&url(&pool), Duration::ZERO).await;
    let config = config(&pool).url(proxy.url(&url(&pool)).as_str()).health_timeout(TIMEOUT);
    let db = connect(config.close_timeout(TIMEOUT)).await;
    let mut uow = db.begin().await.unwrap();
    proxy.go_silent();
    let stuck = tokio::spawn(async move { uow.config().get("any").await.map(drop) });
    let silent = health(&db).await;
    assert_eq!(silent.error.as_deref(), Some("no answer in time (health_timeout)"));
    let closed = timeout(PATIENCE, db.close()).await.expect("it ends");
    assert!(!closed, "closed, although a statement waits");
    proxy.cut();
    let lost = stuck.await.unwrap();
    assert!(matches!(lost, Err(Error::ConnectionLost(_))), "{lost:?}");
}
