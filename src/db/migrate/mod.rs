//! Migrations: embedded in the crate, applied and reverted under a lock, with their state told.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migration, Migrator};
use sqlx::{Connection, PgConnection};

use super::answer::refuses_writes;
use super::constraint::Constraint;
use super::database::Database;
use super::error::{DriverError, Error, Result};

/// The crate's migrations, embedded.
///
/// Tests of an application give it to sqlx, which makes a database for each of them:
///
/// ```
/// #[sqlx::test(migrator = "chancery::MIGRATOR")]
/// async fn a_user_signs_up(pool: sqlx::PgPool) -> chancery::Result<()> {
///     let db = chancery::Database::from_pool(pool);
///     db.users().create(chancery::NewUser::new("ada@example.org")).await?;
///     Ok(())
/// }
/// # fn main() {}
/// ```
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// How long to wait for another process that migrates the same database.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a migration is tried that can't lock a table within its `lock_timeout`. Between two
/// attempts whoever queued up behind it gets its turn.
const ATTEMPTS: u32 = 5;

/// Why migrating failed, or why the schema does not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// The database's schema is older than the crate.
    #[error(
        "the database's schema is older than this crate: {} migrations are pending, the first is {}; \
         call migrate() or run `sqlx migrate run`", .0.len(), .0.first().copied().unwrap_or_default()
    )]
    Pending(Vec<i64>),
    /// The database's schema is newer than the crate.
    #[error(
        "the database's schema is newer than this crate: it has migration {0}, which this version \
         does not know; update the crate, or revert with the version that knows it"
    )]
    Newer(i64),
    /// A migration was applied from a file with another content than the one embedded here.
    #[error(
        "migration {0} was changed after it was applied: restore the file, add a new migration instead"
    )]
    Edited(i64),
    /// A migration is pending although later ones are applied.
    #[error(
        "migration {version} is older than {applied}, which is applied: give it a later version"
    )]
    OutOfOrder {
        /// The pending one.
        version: i64,
        /// The newest applied one.
        applied: i64,
    },
    /// A migration without a transaction failed half-way.
    #[error(
        "migration {0} was applied in part: repair by hand, then correct its row in _chancery_migrations"
    )]
    Dirty(i64),
    /// Reverting to a version that is not there.
    #[error("there is no migration {0} to revert to")]
    UnknownVersion(i64),
    /// Indexes of this crate's tables were left half-built, by `create index concurrently` that failed:
    /// they serve no statement, and `if not exists` takes them for done.
    #[error("these indexes are invalid and serve nothing: {}; drop them and build them again", .0.join(", "))]
    InvalidIndex(Vec<String>),
    /// The roles of row-level security are missing, or the migrating role is not their member, and it
    /// may not change that: an administrator runs `migrations/roles.sql` of this crate once.
    #[error(
        "migration {version} needs the roles chancery_app and chancery_service, and membership in \
         them, which this role may not make: let an administrator run migrations/roles.sql once: {source}"
    )]
    RolesMissing {
        /// Which migration needs them.
        version: i64,
        /// What the server said.
        source: DriverError,
    },
    /// Another process has been migrating for a minute.
    #[error("another process is migrating this database and did not finish in time")]
    LockTimeout,
    /// A migration's own statement failed; it was rolled back.
    #[error("migration {version} failed and was rolled back: {source}")]
    Failed {
        /// Which one.
        version: i64,
        /// What the server said.
        source: DriverError,
    },
}

/// The state of one migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigrationState {
    /// Its version: the date and time at the start of the file's name.
    pub version: i64,
    /// The rest of the name.
    pub description: String,
    /// Whether it is applied.
    pub applied: bool,
}

/// The state of a database's schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigrationStatus {
    /// The newest applied version.
    pub version: Option<i64>,
    /// How many of the crate's migrations are applied.
    pub applied: usize,
    /// The versions that are not, oldest first.
    pub pending: Vec<i64>,
    /// Applied versions that this crate does not know: a newer one was here.
    pub unknown: Vec<i64>,
    /// Each of the crate's migrations, oldest first.
    #[serde(skip)]
    pub migrations: Vec<MigrationState>,
}

impl MigrationStatus {
    /// Whether the schema is exactly the crate's.
    pub fn is_current(&self) -> bool {
        self.pending.is_empty() && self.unknown.is_empty()
    }
}

/// How far to revert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevertTo {
    /// So many migrations back.
    Steps(usize),
    /// Back to this version, which stays applied.
    Version(i64),
    /// Everything: no table of this crate is left. **All its data is gone.**
    Nothing,
}

impl Database {
    /// Applies the migrations that are pending, oldest first, each in a transaction of its own.
    /// Returns their versions.
    ///
    /// Any number of processes may call it at once: one works, the others wait for it (a minute at
    /// most) and find nothing left to do. The lock is the one that `sqlx migrate` takes, on a
    /// connection that is closed afterwards, so no failure leaves it behind. Behind a pooler that
    /// connection is made to the [`direct_url`](crate::DatabaseConfigBuilder::direct_url).
    ///
    /// # Errors
    ///
    /// [`MigrationError`], [`Error::DirectUrlMissing`], [`Error::ReadOnly`] on a standby or where
    /// `default_transaction_read_only` is on, and those of connecting.
    pub async fn migrate(&self) -> Result<Vec<i64>> {
        let mut connection = self.lock_migrations().await?;
        let outcome = migrate(&mut connection).await;
        connection.close().await.ok();
        outcome
    }

    /// Reverts migrations, newest first. Returns their versions. **Data in their tables is lost.**
    ///
    /// # Errors
    ///
    /// As [`migrate`](Self::migrate).
    pub async fn revert(&self, to: RevertTo) -> Result<Vec<i64>> {
        let mut connection = self.lock_migrations().await?;
        let outcome = revert(&mut connection, to).await;
        connection.close().await.ok();
        outcome
    }

    /// Which migrations are applied. Changes nothing; a database that was never migrated is all
    /// pending.
    pub async fn migration_status(&self) -> Result<MigrationStatus> {
        let bookkept = sqlx::query_scalar!(
            r#"select to_regclass('_chancery_migrations') is not null as "bookkept!""#
        )
        .fetch_one(self.executor())
        .await?;
        let applied = if bookkept {
            sqlx::query_scalar!("select version from _chancery_migrations where success order by 1")
                .fetch_all(self.executor())
                .await?
        } else {
            Vec::new()
        };
        Ok(status(&applied))
    }

    /// Checks that the schema is exactly the one that this version of the crate was made for.
    ///
    /// # Errors
    ///
    /// [`MigrationError::Pending`] when it is older, [`MigrationError::Newer`] when it is newer,
    /// [`MigrationError::InvalidIndex`] when an index of its tables was left half-built.
    pub async fn check_schema(&self) -> Result<()> {
        let status = self.migration_status().await?;
        if let Some(version) = status.unknown.last() {
            return Err(MigrationError::Newer(*version).into());
        }
        if !status.pending.is_empty() {
            return Err(MigrationError::Pending(status.pending).into());
        }
        let tables: Vec<String> = Constraint::ALL
            .iter()
            .filter_map(|constraint| constraint.name().strip_suffix("_pkey"))
            .map(str::to_owned)
            .collect();
        let invalid = sqlx::query_scalar!(
            r#"select i.relname::text as "name!"
                 from pg_index x
                 join pg_class i on i.oid = x.indexrelid
                 join pg_class t on t.oid = x.indrelid
                where not x.indisvalid
                  and t.relnamespace = current_schema()::regnamespace
                  and t.relname = any($1::text[])
                order by 1"#,
            &tables,
        )
        .fetch_all(self.executor())
        .await?;
        if !invalid.is_empty() {
            return Err(MigrationError::InvalidIndex(invalid).into());
        }
        Ok(())
    }

    /// A connection of its own that holds the migration lock; closing it releases the lock.
    async fn lock_migrations(&self) -> Result<PgConnection> {
        let mut connection = self.open_session("migrating").await?;
        // A migration may take longer than a statement of the application.
        sqlx::query("set statement_timeout = 0").execute(&mut connection).await?;
        // A caller that goes away while a migration waits for a table lock: the server notices, and
        // gives up the migration lock, although it has nothing to send. Not every system can do it.
        sqlx::query("set client_connection_check_interval = '500ms'")
            .execute(&mut connection)
            .await
            .ok();
        let database = sqlx::query_scalar!(r#"select current_database() as "name!""#)
            .fetch_one(&mut connection)
            .await?;
        let key = lock_key(&database);
        let give_up = tokio::time::Instant::now() + LOCK_TIMEOUT;
        loop {
            // Asked, not waited for: a waiting statement is a transaction that `create index
            // concurrently` in the other process would wait for in turn.
            let locked =
                sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "locked!""#, key)
                    .fetch_one(&mut connection)
                    .await?;
            if locked {
                return Ok(connection);
            }
            if tokio::time::Instant::now() >= give_up {
                return Err(MigrationError::LockTimeout.into());
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(20..100))).await;
        }
    }
}

/// The key of the advisory lock that sqlx's own migrator and its command-line tool take.
fn lock_key(database: &str) -> i64 {
    const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    0x3d32_ad9e * i64::from(CRC.checksum(database.as_bytes()))
}

fn status(applied: &[i64]) -> MigrationStatus {
    let migrations: Vec<_> = ups()
        .map(|m| MigrationState {
            version: m.version,
            description: m.description.to_string(),
            applied: applied.binary_search(&m.version).is_ok(),
        })
        .collect();
    MigrationStatus {
        version: applied.last().copied(),
        applied: migrations.iter().filter(|m| m.applied).count(),
        pending: migrations.iter().filter(|m| !m.applied).map(|m| m.version).collect(),
        unknown: applied.iter().copied().filter(|v| !MIGRATOR.version_exists(*v)).collect(),
        migrations,
    }
}

fn ups() -> impl Iterator<Item = &'static Migration> {
    MIGRATOR.iter().filter(|m| !m.migration_type.is_down_migration())
}

async fn migrate(connection: &mut PgConnection) -> Result<Vec<i64>> {
    let table = &MIGRATOR.table_name;
    connection.ensure_migrations_table(table).await.map_err(failed(0))?;
    let applied = checked(connection).await?;
    let newest = applied.last_key_value().map(|(version, _)| *version);
    let mut done = Vec::new();
    for migration in ups().filter(|m| !applied.contains_key(&m.version)) {
        let version = migration.version;
        if let Some(applied) = newest.filter(|newest| *newest > version) {
            return Err(MigrationError::OutOfOrder { version, applied }.into());
        }
        let took = apply(connection, table, migration).await?;
        tracing::info!(target: "chancery", event = "database.migrated", version, ?took);
        done.push(version);
    }
    Ok(done)
}

/// Applies one migration; again when it could not lock a table in time. It was rolled back then.
async fn apply(
    connection: &mut PgConnection,
    table: &str,
    migration: &Migration,
) -> Result<Duration> {
    let version = migration.version;
    let mut attempt = 1;
    loop {
        let error = match connection.apply(table, migration).await {
            Ok(took) => return Ok(took),
            Err(error) => failed(version)(error),
        };
        let busy = matches!(
            &error,
            Error::Migration(MigrationError::Failed { source, .. })
                if source.sqlstate().as_deref() == Some("55P03")
        );
        if !busy || migration.no_tx || attempt >= ATTEMPTS {
            return Err(error);
        }
        tracing::warn!(
            target: "chancery",
            event = "database.migration_waits",
            version,
            attempt,
            "a table was locked for too long: trying again"
        );
        tokio::time::sleep(Duration::from_millis(fastrand::u64(100..500))).await;
        attempt += 1;
    }
}

async fn revert(connection: &mut PgConnection, to: RevertTo) -> Result<Vec<i64>> {
    let table = &MIGRATOR.table_name;
    connection.ensure_migrations_table(table).await.map_err(failed(0))?;
    let applied = checked(connection).await?;
    let newest_first = applied.keys().rev().copied();
    let versions: Vec<i64> = match to {
        RevertTo::Steps(steps) => newest_first.take(steps).collect(),
        RevertTo::Version(version) if applied.contains_key(&version) => {
            newest_first.take_while(|v| *v > version).collect()
        }
        RevertTo::Version(version) => return Err(MigrationError::UnknownVersion(version).into()),
        RevertTo::Nothing => newest_first.collect(),
    };
    for version in &versions {
        let down = MIGRATOR
            .iter()
            .find(|m| m.version == *version && m.migration_type.is_down_migration())
            .ok_or(MigrationError::UnknownVersion(*version))?;
        let took = connection.revert(table, down).await.map_err(failed(*version))?;
        tracing::info!(target: "chancery", event = "database.reverted", version, ?took);
    }
    Ok(versions)
}

/// The applied migrations, after checking that they are the crate's.
async fn checked(connection: &mut PgConnection) -> Result<BTreeMap<i64, AppliedMigration>> {
    let table = &MIGRATOR.table_name;
    if let Some(version) = connection.dirty_version(table).await.map_err(failed(0))? {
        return Err(MigrationError::Dirty(version).into());
    }
    let applied = connection.list_applied_migrations(table).await.map_err(failed(0))?;
    for known in &applied {
        match ups().find(|m| m.version == known.version) {
            None => return Err(MigrationError::Newer(known.version).into()),
            Some(m) if m.checksum != known.checksum => {
                return Err(MigrationError::Edited(known.version).into());
            }
            Some(_) => {}
        }
    }
    Ok(applied.into_iter().map(|m| (m.version, m)).collect())
}

fn failed(version: i64) -> impl FnOnce(MigrateError) -> Error {
    move |error| match error {
        MigrateError::ExecuteMigration(source, _) | MigrateError::Execute(source)
            if refuses_writes(&source) =>
        {
            Error::ReadOnly
        }
        // invalid_role_specification: what the migration that needs roles raises.
        MigrateError::ExecuteMigration(source, version)
            if source.as_database_error().and_then(|e| e.code()).as_deref() == Some("0P000") =>
        {
            MigrationError::RolesMissing { version, source: DriverError::new(source) }.into()
        }
        MigrateError::ExecuteMigration(source, version) => {
            MigrationError::Failed { version, source: DriverError::new(source) }.into()
        }
        MigrateError::Execute(source) if version > 0 => {
            MigrationError::Failed { version, source: DriverError::new(source) }.into()
        }
        MigrateError::Execute(source) => source.into(),
        other => Error::Database(DriverError::new(other.into())),
    }
}
