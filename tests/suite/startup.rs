//! Starting a service: connect, bring or check the schema.

use chancery::{Database, DatabaseConfig, Error, MigrationError, Startup};
use sqlx::PgPool;
use tracing::Level;

use crate::support::events::Events;

/// The configuration that leads to the test's own database.
fn config(pool: &PgPool) -> DatabaseConfig {
    let options = pool.connect_options();
    let server = std::env::var("DATABASE_URL").unwrap();
    let (server, parameters) = server.split_once('?').unwrap_or((&server, ""));
    let (server, _) = server.rsplit_once('/').unwrap();
    DatabaseConfig::builder()
        .url(&format!("{server}/{}?{parameters}", options.get_database().unwrap()))
        .pool_size(1)
        .max_overflow(1)
        .build()
        .unwrap()
}

#[sqlx::test(migrations = false)]
async fn starting_with_migrate_makes_an_empty_database_ready(pool: PgPool) {
    let db = Database::init(&config(&pool), Startup::Migrate).await.unwrap();
    assert!(db.migration_status().await.unwrap().is_current());
    assert!(db.close().await);
    let again = Database::init(&config(&pool), Startup::Check).await.unwrap();
    assert!(again.health().await.is_healthy());
    assert!(again.close().await);
}

#[sqlx::test(migrations = false)]
async fn starting_with_check_refuses_a_schema_that_is_not_current(pool: PgPool) {
    match Database::init(&config(&pool), Startup::Check).await {
        Err(Error::Migration(MigrationError::Pending(versions))) => {
            assert_eq!(versions.len(), chancery::MIGRATOR.iter().count() / 2);
        }
        other => panic!("{other:?}"),
    }
}

/// The level and name of each event that this crate has logged.
fn logged(events: &Events) -> Vec<(Level, String)> {
    let name = |fields: &str| Some(fields.split_once("event=\"")?.1.split_once('"')?.0.to_owned());
    let ours = events.take().into_iter().filter(|(_, target, _)| target == "chancery");
    ours.filter_map(|(level, _, fields)| Some((level, name(&fields)?))).collect()
}

#[sqlx::test(migrations = false)]
async fn a_start_is_told_by_the_specified_events(pool: PgPool) {
    let events = Events::capture();
    let db = Database::init(&config(&pool), Startup::Migrate).await.unwrap();
    let started = logged(&events);
    let first_and_last = [
        "initializing_database",
        "database.connection_initialized",
        "database_connection_successful",
        "database_tables_created",
    ];
    let told: Vec<_> = started.iter().filter(|(level, _)| *level == Level::INFO).collect();
    let told: Vec<_> = told.iter().map(|(_, name)| &**name).collect();
    let specified: Vec<_> = told.into_iter().filter(|name| first_and_last.contains(name)).collect();
    assert_eq!(specified, first_and_last);

    // One of the server's, which looked at the schema and serves the first call, then one for the unit of
    // work that uses it.
    let session = (Level::DEBUG, "database.session_created".to_owned());
    db.projects().count().await.unwrap();
    let opened = started.iter().cloned().chain(logged(&events)).filter(|event| *event == session);
    assert_eq!(opened.count(), 1);
    db.begin().await.unwrap().commit().await.unwrap();
    assert_eq!(logged(&events), [session]);
    assert!(db.close().await);
    assert_eq!(logged(&events), [(Level::INFO, "database.closed".to_owned())]);
}

#[sqlx::test(migrations = false)]
async fn a_start_that_fails_is_told_by_the_specified_events(pool: PgPool) {
    let events = Events::capture();
    Database::init(&config(&pool), Startup::Check).await.unwrap_err();
    let failed = (Level::ERROR, "database_initialization_failed".to_owned());
    assert!(logged(&events).contains(&failed));

    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere =
        DatabaseConfig::from_url(&format!("postgres://app@127.0.0.1:{port}/app")).unwrap();
    Database::connect(&nowhere).await.unwrap_err();
    assert_eq!(logged(&events), [(Level::ERROR, "database.connection_failed".to_owned())]);
}
