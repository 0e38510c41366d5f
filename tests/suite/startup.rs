//! Starting a service: connect, bring or check the schema.

use chancery::{Database, DatabaseConfig, Error, MigrationError, Startup};
use sqlx::PgPool;

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
