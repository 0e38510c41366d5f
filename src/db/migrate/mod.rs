//! Migrations: embedded in the crate, applied and reverted under a lock, with their state told.

use std::time::Duration;

use serde::Serialize;
use sqlx::migrate::{Migrate, Migration, Migrator};
use sqlx::{Connection, PgConnection};

use super::database::Database;
use super::error::{Error, Result};

mod check;
mod error;
mod names;
mod preflight;

pub use check::SchemaDifference;
use error::failed;
pub use error::{MigrationError, MissingRight};
use preflight::{Place, checked};

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

/// What a session may have been given by its role or its database, as `alter role … set`, and what the text
/// of a migration depends on. Not the `search_path`, the tablespace and the access method: they say where
/// and how tables are to be kept.
const SETTINGS: &str = "
    set statement_timeout = 0;
    set lock_timeout = 0;
    set idle_in_transaction_session_timeout = 0;
    select set_config(name, '0', false) from pg_settings where name = 'transaction_timeout';
    set default_transaction_isolation = 'read committed';
    set default_transaction_deferrable = off;
    set standard_conforming_strings = on;
    set backslash_quote = safe_encoding;
    set escape_string_warning = on;
    set transform_null_equals = off;
    set array_nulls = on;
    set quote_all_identifiers = off;
    set row_security = on;
    set check_function_bodies = on;
    set xmloption = content;
    set bytea_output = hex;
    set extra_float_digits = 1;
    set \"TimeZone\" = 'UTC';
    set \"DateStyle\" = 'ISO, MDY';
    set \"IntervalStyle\" = postgres;
    select set_config('plpgsql.extra_errors', 'none', false),
           set_config('plpgsql.extra_warnings', 'none', false)";

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
    /// Before the first one it looks for what would stop one of them: rights that the role lacks, names
    /// that are taken, an encoding that is not UTF8. All of it is told at once, and nothing is changed.
    /// With nothing to apply it needs no right but to read which are: membership in `chancery_service`.
    ///
    /// # A schema of its own
    ///
    /// Tables are made in the first schema of the `search_path`, usually `public`. Where that has tables
    /// of the same names, give the crate another one. `create schema chancery`, and then in the URL:
    ///
    /// ```
    /// # fn main() -> Result<(), chancery::ConfigError> {
    /// let config = chancery::DatabaseConfig::from_url(
    ///     "postgres://app:secret@localhost/app?options=-csearch_path%3Dchancery",
    /// )?;
    /// # Ok(()) }
    /// ```
    ///
    /// or for a role, which holds behind a pooler too:
    /// `alter role app in database app set search_path = chancery`. Name that one schema: where the path
    /// holds a second one, a table that is not in the first is looked for there.
    ///
    /// # Errors
    ///
    /// [`MigrationError`], [`Error::DirectUrlMissing`], [`Error::ReadOnly`] on a standby or where
    /// `default_transaction_read_only` is on, and those of connecting.
    pub async fn migrate(&self) -> Result<Vec<i64>> {
        let mut connection = self.open_session("migrating").await?;
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
        let mut connection = self.open_session("migrating").await?;
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
}

/// Waits for the migration lock; closing the connection releases it.
async fn lock(connection: &mut PgConnection, database: &str) -> Result<()> {
    // A caller that goes away while a migration waits for a table lock: the server notices, and
    // gives up the migration lock, although it has nothing to send. Not every system can do it.
    sqlx::query("set client_connection_check_interval = '500ms'")
        .execute(&mut *connection)
        .await
        .ok();
    let key = lock_key(database);
    let give_up = tokio::time::Instant::now() + LOCK_TIMEOUT;
    loop {
        // Asked, not waited for: a waiting statement is a transaction that `create index
        // concurrently` in the other process would wait for in turn.
        let locked = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "locked!""#, key)
            .fetch_one(&mut *connection)
            .await?;
        if locked {
            return Ok(());
        }
        if tokio::time::Instant::now() >= give_up {
            return Err(MigrationError::LockTimeout.into());
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..100))).await;
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
    sqlx::raw_sql(SETTINGS).execute(&mut *connection).await?;
    let place = Place::of(connection).await?;
    if place.pending(connection).await?.0.is_empty() {
        return Ok(Vec::new());
    }
    lock(connection, &place.database).await?;
    // Again: somebody else may have migrated meanwhile.
    let place = Place::of(connection).await?;
    let (pending, applied) = place.pending(connection).await?;
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    place.preflight(connection, &pending, &applied).await?;
    let table = &MIGRATOR.table_name;
    connection.ensure_migrations_table(table).await.map_err(failed(0))?;
    let mut done = Vec::new();
    for migration in pending {
        let version = migration.version;
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
    sqlx::raw_sql(SETTINGS).execute(&mut *connection).await?;
    let place = Place::of(connection).await?;
    lock(connection, &place.database).await?;
    let table = &MIGRATOR.table_name;
    connection.ensure_migrations_table(table).await.map_err(failed(0))?;
    let applied = checked(connection).await?;
    let newest_first = applied.iter().rev().copied();
    let versions: Vec<i64> = match to {
        RevertTo::Steps(steps) => newest_first.take(steps).collect(),
        RevertTo::Version(version) if applied.contains(&version) => {
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
