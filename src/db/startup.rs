//! What a service does with its database when it starts.

use super::config::DatabaseConfig;
use super::database::Database;
use super::error::{Error, Result};
use super::migrate::{MigrationError, SchemaDifference};

/// What [`Database::init`] does about the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Startup {
    /// Apply what is pending. Several services may start at once.
    Migrate,
    /// Refuse to start unless the schema is exactly this crate's. For services whose role may not
    /// change tables.
    #[default]
    Check,
}

impl Database {
    /// Connects, brings or checks the schema, and logs how it went: what a service calls when it
    /// starts. [`close`](Self::close) is what it calls at the end.
    ///
    /// The `tracing` events, all with target `chancery` and a field `event`:
    /// `initializing_database`, `database.connection_initialized` (address, database, server
    /// version, pool sizes), `database_connection_successful`, `database_tables_created` (how many
    /// migrations were applied); at level ERROR `database.connection_failed` or
    /// `database_initialization_failed`. Later, at level DEBUG, `database.session_created` for each
    /// session that the pool opens on the server and for each unit of work; at the end
    /// `database.closed`.
    ///
    /// ```no_run
    /// use chancery::{Database, DatabaseConfig, Startup};
    ///
    /// # async fn example() -> chancery::Result<()> {
    /// let db = Database::init(&DatabaseConfig::from_env()?, Startup::Migrate).await?;
    /// // … serve …
    /// db.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect), [`migrate`](Self::migrate) and
    /// [`check_schema`](Self::check_schema), which is asked in either case. Where it finds only what does
    /// no harm today ([`SchemaDifference::is_harmless_today`](crate::SchemaDifference::is_harmless_today)),
    /// that is logged (`database.schema_differs`, at level WARN), and the service starts.
    pub async fn init(config: &DatabaseConfig, startup: Startup) -> Result<Self> {
        tracing::info!(target: "chancery", event = "initializing_database", ?startup, "starting");
        let database = Self::connect(config).await?;
        tracing::info!(target: "chancery", event = "database_connection_successful", "connected");
        let ready = match startup {
            Startup::Migrate => database.migrate().await.map(|done| done.len()),
            Startup::Check => Ok(0),
        };
        let ready = match ready {
            Ok(applied) => database.check_to_start().await.map(|()| applied),
            Err(error) => Err(error),
        };
        match ready {
            Ok(applied) => {
                tracing::info!(
                    target: "chancery",
                    event = "database_tables_created",
                    applied,
                    "the schema is current"
                );
                Ok(database)
            }
            Err(error) => {
                tracing::error!(
                    target: "chancery",
                    event = "database_initialization_failed",
                    %error,
                    "starting failed"
                );
                database.close().await;
                Err::<_, Error>(error)
            }
        }
    }

    async fn check_to_start(&self) -> Result<()> {
        match self.check_schema().await {
            Err(Error::Migration(MigrationError::Differs(differences)))
                if differences.iter().all(SchemaDifference::is_harmless_today) =>
            {
                for difference in differences {
                    tracing::warn!(
                        target: "chancery",
                        event = "database.schema_differs",
                        "{difference}"
                    );
                }
                Ok(())
            }
            checked => checked,
        }
    }
}
