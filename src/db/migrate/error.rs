//! Why migrating failed, or why the schema does not fit: told so that the reader knows what to do.

use std::fmt;

use serde::Serialize;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

use super::{MIGRATOR, SchemaDifference};
use crate::db::answer::refuses_writes;
use crate::db::error::{DriverError, Error};

/// A right that the migrating role lacks, and what gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MissingRight {
    /// What the role may not do: `create anything in schema public`.
    pub what: String,
    /// The statement that an administrator runs.
    pub remedy: String,
}

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
    /// All migrations are applied, and still the schema is not what they make: somebody changed it, or it
    /// was restored in part. `migrations/README.md` says how to restore.
    #[error("the schema is not what its migrations make: {}", list(.0, "; "))]
    Differs(Vec<SchemaDifference>),
    /// The database's encoding is not UTF8, so it can't store every text.
    #[error(
        "database {database:?} has the encoding {encoding}, and UTF8 is needed: make another one, with \
         `create database … encoding 'UTF8' template template0`, and move the data there"
    )]
    NotUtf8 {
        /// The database.
        database: String,
        /// Its encoding.
        encoding: String,
    },
    /// The `search_path` leads to no schema where tables can be made.
    #[error(
        "the search_path ({search_path}) leads to no schema for tables: create the schema that it names, \
         or name another one"
    )]
    NoSchema {
        /// The setting.
        search_path: String,
    },
    /// The tables are in another schema of the `search_path` than new ones would be made in.
    #[error(
        "this crate's tables are in schema {tables}, and the search_path puts new ones into {new}: let \
         it begin with the schema that is meant, and not hold the other"
    )]
    OtherSchema {
        /// Where the tables are.
        tables: String,
        /// The first of the `search_path`.
        new: String,
    },
    /// The migrating role lacks rights. Nothing was changed.
    #[error("role {role} may not migrate: {}{}", list(.missing, "; "), script(.missing))]
    NotAllowed {
        /// The role.
        role: String,
        /// All that it lacks.
        missing: Vec<MissingRight>,
    },
    /// Something in the schema has the name of a table, an index or a function that pending migrations
    /// make. Nothing was changed.
    #[error(
        "schema {schema} already has the names that this crate needs: {}; give the crate a schema of its \
         own: `create schema chancery`, and `options=-csearch_path%3Dchancery` in the URL", .names.join(", ")
    )]
    NamesTaken {
        /// The schema.
        schema: String,
        /// What there is, all of it: `table users`, `function set_updated_at()`.
        names: Vec<String>,
    },
    /// Another process has been migrating for a minute.
    #[error("another process is migrating this database and did not finish in time")]
    LockTimeout,
    /// A migration's own statement failed. It was rolled back, unless it builds or drops an index
    /// concurrently.
    #[error("migration {version} failed{}: {}", rolled_back(*.version), told(.source))]
    Failed {
        /// Which one.
        version: i64,
        /// What the server said.
        source: DriverError,
    },
}

impl fmt::Display for MissingRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it may not {} (an administrator runs: {})", self.what, self.remedy)
    }
}

fn list<T: fmt::Display>(items: &[T], separator: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(separator)
}

/// The two roles come with a script.
fn script(missing: &[MissingRight]) -> &'static str {
    if missing.iter().any(|right| right.what.contains(" chancery_")) {
        "; migrations/roles.sql of this crate makes the roles and their members"
    } else {
        ""
    }
}

fn rolled_back(version: i64) -> &'static str {
    let in_transaction = MIGRATOR.iter().all(|m| m.version != version || !m.no_tx);
    if in_transaction { " and was rolled back" } else { "" }
}

/// The server's own words. Migrations hold no values, so their messages tell none, but for those of
/// classes that quote what could not be read (22) or that are the application's own (P0 and the like).
fn told(source: &DriverError) -> String {
    let code = source.sqlstate().unwrap_or_default();
    let quotes =
        !["08", "0A", "0P", "23", "25", "28", "2B", "3D", "3F", "40", "42", "53", "54", "55", "57"]
            .contains(&code.get(..2).unwrap_or_default());
    let error = source.as_sqlx().as_database_error();
    match error.and_then(|e| e.try_downcast_ref::<PgDatabaseError>()) {
        Some(error) if !quotes => {
            // What depends on what is dropped is in the detail. Others hold the row.
            let detail = error.detail().filter(|_| code.starts_with("2B"));
            let detail = detail.map(|detail| format!(" ({})", detail.replace('\n', "; ")));
            let hint = error.hint().map(|hint| format!(". {hint}")).unwrap_or_default();
            format!("{}{}{hint} ({source})", error.message(), detail.unwrap_or_default())
        }
        _ => source.to_string(),
    }
}

/// What sqlx reports of a migration; 0 stands for none in particular.
pub(super) fn failed(version: i64) -> impl FnOnce(MigrateError) -> Error {
    move |error| match error {
        MigrateError::ExecuteMigration(source, _) | MigrateError::Execute(source)
            if refuses_writes(&source) =>
        {
            Error::ReadOnly
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
