//! What every table uses: configuration, the pool, units of work, migrations, errors, pages.
//!
//! Nothing in here knows a table's columns; the one list of names is [`Constraint`].

pub(crate) mod actor;
pub(crate) mod answer;
pub(crate) mod attempt;
pub(crate) mod boundary;
pub(crate) mod bulk;
pub(crate) mod config;
pub(crate) mod conn;
pub(crate) mod constraint;
pub(crate) mod database;
pub(crate) mod error;
pub(crate) mod health;
pub(crate) mod hosts;
pub(crate) mod id;
pub(crate) mod input;
pub(crate) mod lease;
pub(crate) mod migrate;
pub(crate) mod outcome;
pub(crate) mod owner;
pub(crate) mod page;
pub(crate) mod pagination;
pub(crate) mod patch;
pub(crate) mod pooler;
pub(crate) mod read_token;
pub(crate) mod reader;
pub(crate) mod role_check;
pub(crate) mod rows;
pub(crate) mod runtime;
pub(crate) mod startup;
pub(crate) mod statement;
pub(crate) mod transaction;
pub(crate) mod transaction_state;
pub(crate) mod unit_of_work;

pub use actor::AsUser;
pub use config::{ConfigError, DatabaseConfig, DatabaseConfigBuilder, PoolOrder, SslMode};
pub use conn::Conn;
pub use constraint::{Constraint, ConstraintName};
pub use database::{Database, PoolStatus};
pub use error::{
    Denied, DriverError, Error, ErrorKind, InvalidInput, PoolTimeout, Reason, Result, UnreadableRow,
};
pub use health::{Health, HealthStatus, ReaderHealth, ServerRole};
pub use input::{MAX_JSON_DEPTH, MAX_STATEMENT_BYTES, MAX_TEXT_BYTES};
pub use migrate::{
    MIGRATOR, MigrationError, MigrationState, MigrationStatus, MissingRight, RevertTo,
    SchemaDifference,
};
pub use outcome::{TransactionId, TransactionOutcome};
pub use page::{Cursor, MAX_PAGE_SIZE, Page, PageRequest};
pub use pagination::{Numbered, PaginationParams};
pub use patch::Patch;
pub use pooler::{PoolerFault, PoolerMode};
pub use read_token::ReadToken;
pub use reader::Reader;
pub use role_check::{RoleCheck, RoleRisk};
pub use startup::Startup;
pub use transaction::{IsolationLevel, TransactionOptions};
pub use unit_of_work::{Savepoint, UnitOfWork};
