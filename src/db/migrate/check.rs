//! Whether the schema is what the migrations make.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use super::MigrationError;
use crate::db::database::Database;
use crate::db::error::Result;

/// What a database that was just migrated consists of: `what: how`, a line each, as `catalogue.sql`
/// finds it.
const EXPECTED: &str = include_str!("expected.txt");

const ROLES: [&str; 2] = ["chancery_app", "chancery_service"];

/// How the schema differs from what the migrations make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum SchemaDifference {
    /// It is not there: a role, a table, a column, a constraint, a unique index, a trigger, a function, a
    /// policy, or a right of one of the two roles. `policy users_owner on users`.
    Missing(String),
    /// It is there, and another than it should be.
    Changed {
        /// What: `table users`.
        what: String,
        /// How it should be: `row-level security, forced`.
        expected: String,
        /// How it is.
        found: String,
    },
    /// An index was left half-built, by `create index concurrently` that failed: it serves no statement.
    InvalidIndex(String),
    /// Somebody else than the owner and the two roles holds a right that row-level security does not bound:
    /// to truncate a table, for example, or to put a trigger on it.
    Granted {
        /// Who: a role, or `public`.
        to: String,
        /// The table.
        table: String,
        /// The rights.
        rights: String,
    },
    /// The system sorts text in another way than when this was made: indexes on text may not find what is
    /// there, and unique ones may take it twice.
    CollationVersion {
        /// `database app`, or `collation en_US`.
        what: String,
        /// The version that it was made with.
        made_with: String,
        /// The system's version now, if it has one.
        now: Option<String>,
    },
}

impl SchemaDifference {
    /// Whether statements do what they should all the same, so that
    /// [`Database::init`](crate::Database::init) logs it and goes on.
    pub fn is_harmless_today(&self) -> bool {
        matches!(self, Self::Granted { .. } | Self::CollationVersion { .. })
    }
}

impl fmt::Display for SchemaDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) => write!(f, "{what} is missing"),
            Self::Changed { what, expected, found } => {
                write!(f, "{what} is {found:?} and should be {expected:?}")
            }
            Self::InvalidIndex(name) => {
                write!(
                    f,
                    "index {name} is half-built and serves nothing: drop it and build it again"
                )
            }
            Self::Granted { to, table, rights } => {
                write!(f, "{to} may {rights} {table}: revoke {rights} on {table} from {to}")
            }
            Self::CollationVersion { what, made_with, now } => write!(
                f,
                "{what} was made with version {made_with} of its collation, and the system has {}: \
                 `reindex`, then `alter {what} refresh {}version`",
                now.as_deref().unwrap_or("none"),
                if what.starts_with("database") { "collation " } else { "" }
            ),
        }
    }
}

impl Database {
    /// Checks that the schema is exactly the one that this version of the crate was made for: all
    /// migrations applied, and everything there that they make: tables, columns, constraints, triggers,
    /// functions, the two roles, policies and rights. Tables, indexes and policies of the application's own
    /// are not looked at.
    ///
    /// # Errors
    ///
    /// [`MigrationError::Pending`] when it is older, [`MigrationError::Newer`] when it is newer,
    /// [`MigrationError::Differs`] with everything that differs.
    pub async fn check_schema(&self) -> Result<()> {
        let status = self.migration_status().await?;
        if let Some(version) = status.unknown.last() {
            return Err(MigrationError::Newer(*version).into());
        }
        if !status.pending.is_empty() {
            return Err(MigrationError::Pending(status.pending).into());
        }
        let differences = self.schema_differences().await?;
        if differences.is_empty() {
            return Ok(());
        }
        Err(MigrationError::Differs(differences).into())
    }

    async fn schema_differences(&self) -> Result<Vec<SchemaDifference>> {
        let expected: Vec<(&str, &str)> =
            EXPECTED.lines().map(|line| line.split_once(": ").unwrap_or((line, ""))).collect();
        let named = |kind: &str| -> Vec<&str> {
            expected
                .iter()
                .filter_map(|(what, _)| what.strip_prefix(kind))
                .map(|name| name.split('(').next().unwrap_or(name))
                .collect()
        };
        let rows: Vec<(String, String, Option<String>, Option<String>)> =
            sqlx::query_as(include_str!("catalogue.sql"))
                .bind(named("table "))
                .bind(named("function "))
                .fetch_all(self.executor())
                .await?;
        let mut found = HashMap::new();
        let mut differences = Vec::new();
        for (kind, what, definition, other) in rows {
            let definition = definition.unwrap_or_default();
            match &*kind {
                "object" => {
                    found.insert(what, definition);
                }
                "invalid" => differences.push(SchemaDifference::InvalidIndex(what)),
                "granted" => differences.push(SchemaDifference::Granted {
                    to: other.unwrap_or_default(),
                    table: what,
                    rights: definition,
                }),
                _ => differences.push(SchemaDifference::CollationVersion {
                    what,
                    made_with: definition,
                    now: other,
                }),
            }
        }
        let absent: Vec<_> =
            ROLES.iter().filter(|role| !found.contains_key(&format!("role {role}"))).collect();
        for (what, expected) in expected {
            match found.remove(what) {
                Some(found) if found == expected => {}
                Some(found) => differences.push(SchemaDifference::Changed {
                    what: what.to_owned(),
                    expected: expected.to_owned(),
                    found,
                }),
                // A role that is missing holds nothing.
                None if what.starts_with("grant ")
                    && absent.iter().any(|role| what.ends_with(**role)) => {}
                None => differences.push(SchemaDifference::Missing(what.to_owned())),
            }
        }
        Ok(differences)
    }
}
