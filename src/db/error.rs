//! One error type for everything that this crate does.

use std::fmt;
use std::time::Duration;

use sqlx::postgres::PgDatabaseError;

use super::answer::{ends_connection, hangs_up, refuses_writes};
use super::config::{ConfigError, PemFile};
use super::constraint::Constraint;
use super::migrate::MigrationError;
use super::outcome::TransactionId;
use super::pooler::PoolerFault;
use super::role_check::RoleRisk;

mod kind;

pub use kind::ErrorKind;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
///
/// No variant's `Display` or `Debug` holds a value of a row, a bound parameter or a password: a
/// driver's own message can contain all three (PostgreSQL prints the failing row), so it is kept
/// behind [`DriverError`].
///
/// ```
/// use chancery::{Constraint, Error};
///
/// fn answer(error: &Error) -> u16 {
///     match error {
///         Error::Conflict(Constraint::UsersEmailKey) => 409, // this e-mail has an account
///         Error::InvalidInput(_) => 422,
///         Error::NotFound(_) => 404,
///         e if e.is_retryable() => 503,
///         _ => 500,
///     }
/// }
/// # assert_eq!(answer(&Error::NotFound("user")), 404);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration can't be used: wrong URL, missing or malformed variable.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// No connection could be made: refused, unknown host, no route.
    #[error(
        "no PostgreSQL server answers at {address}: {source}; is it running, and are host and port right?"
    )]
    Unreachable {
        /// Host and port, or the socket's path.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// Nothing took the connection within `connect_timeout`, or what took it did not let the session
    /// begin within `pool_timeout`.
    #[error(
        "{address} did not finish connecting within {timeout:?} (DATABASE_CONNECT_TIMEOUT until it is reached, DATABASE_POOL_TIMEOUT until it answers)"
    )]
    ConnectTimeout {
        /// Host and port, or the socket's path.
        address: String,
        /// How long was waited.
        timeout: Duration,
    },

    /// The server refused the user or the password (28P01, 28000).
    #[error("the server refused user {user:?}: check the user name, the password and pg_hba.conf")]
    AuthenticationFailed {
        /// The user that was tried.
        user: String,
    },

    /// The server has no such database (3D000).
    #[error("the server has no database {database:?}: create it, for example with `createdb`")]
    DatabaseMissing {
        /// The database that was asked for.
        database: String,
    },

    /// The connection can't be encrypted as the configuration asks.
    #[error(
        "TLS with the server failed: {0}; see sslmode and sslrootcert in the URL (channel_binding=require checks the certificate as sslmode=verify-full does)"
    )]
    Tls(#[source] DriverError),

    /// A pooler stands between, and statements would get wrong answers or lose their settings.
    #[error("the pooler at {address} can't be used: {fault}")]
    UnsafePooler {
        /// Host and port, or the socket's path.
        address: String,
        /// Why, and what helps.
        fault: PoolerFault,
    },

    /// Migrating and listening need a session of their own, and through a pooler in transaction mode
    /// there is none.
    #[error(
        "{0} needs a session of its own, and a pooler in transaction mode gives none: set DATABASE_DIRECT_URL to the server itself"
    )]
    DirectUrlMissing(&'static str),

    /// The server accepts no more connections (53300).
    #[error(
        "the server accepts no more connections: lower the pool's size or raise max_connections"
    )]
    TooManyConnections,

    /// No connection was to be had for the whole acquire timeout.
    #[error("{0}")]
    PoolTimedOut(Box<PoolTimeout>),

    /// The body of [`Database::transaction`](crate::Database::transaction) asked for a second
    /// connection of the same database while none was free. It was refused at once: when all
    /// connections are held by such bodies, they would wait for each other.
    #[error(
        "the body of a unit of work asked for a second connection while none was free, and could wait for itself: use the repositories and the executor of its own unit of work"
    )]
    WouldDeadlock,

    /// There is no tokio runtime to work on: the call was made outside of one, or the runtime is
    /// shutting down. Nothing of the call took effect.
    #[error("there is no tokio runtime to work on, or it is shutting down")]
    NoRuntime,

    /// The [`Database`](crate::Database) was closed.
    #[error("the database handle was closed")]
    PoolClosed,

    /// The connection broke. Whether the statement took effect is unknown unless it only read.
    #[error("the connection to the server was lost: {0}")]
    ConnectionLost(#[source] DriverError),

    /// The connection broke while COMMIT was under way: it may or may not have happened.
    ///
    /// [`Database::transaction_outcome`](crate::Database::transaction_outcome) asks the server, for a
    /// unit of work that had noted its
    /// [`transaction_id`](crate::UnitOfWork::transaction_id).
    #[error(
        "the connection was lost during commit, so whether it took effect is unknown: {source}"
    )]
    CommitUnknown {
        /// The transaction, if the unit of work had noted it.
        transaction: Option<TransactionId>,
        /// What the driver said.
        source: DriverError,
    },

    /// The unit of work was not done by its deadline. It was rolled back, unless a commit was under
    /// way: then it is [`CommitUnknown`](Self::CommitUnknown).
    #[error("the unit of work was not done by its deadline, and was rolled back")]
    DeadlineExceeded,

    /// The transaction can't commit because a statement in it failed; it was rolled back.
    #[error("the transaction was rolled back, because a statement in it had failed")]
    TransactionAborted,

    /// A statement began or ended a transaction by itself, as `begin` and `commit` do. Transactions are
    /// begun with [`begin`](crate::Database::begin) and ended with
    /// [`commit`](crate::UnitOfWork::commit) or [`rollback`](crate::UnitOfWork::rollback).
    ///
    /// On the pool, what it left open was rolled back. In a unit of work, the transaction is over: what
    /// was done before it is stored if it was `commit`, and what is done after it is refused.
    #[error(
        "a statement began or ended a transaction by itself: use begin(), commit() and rollback(); what it left open was rolled back"
    )]
    TransactionControl,

    /// Another transaction changed the same rows (40001). Running the whole transaction again helps.
    #[error("the transaction collided with another one; run it again")]
    SerializationFailure,

    /// Two transactions waited for each other (40P01). Running the whole transaction again helps.
    #[error("the transaction was chosen to end a deadlock; run it again")]
    Deadlock,

    /// A lock was not to be had within `lock_timeout` (55P03).
    #[error("a lock was not to be had in time (lock_timeout)")]
    LockTimeout,

    /// The statement was cancelled, usually by `statement_timeout` (57014).
    #[error("the statement was cancelled (statement_timeout, or a request to cancel it)")]
    StatementTimeout,

    /// A row that the call says must exist does not.
    #[error("{0} not found")]
    NotFound(&'static str),

    /// The worker's lease was taken over after it expired, or the job has ended or is gone: nothing
    /// was stored.
    #[error("the lease is lost: another worker may have the job, or it has ended")]
    LeaseLost,

    /// The row exists already: a unique constraint refused it (23505, 23P01).
    #[error("refused by unique constraint {0}")]
    Conflict(Constraint),

    /// The row refers to one that does not exist, or is referred to (23503).
    #[error("refused by foreign key {0}")]
    ForeignKey(Constraint),

    /// A check constraint refused the row (23514).
    #[error("refused by check constraint {0}")]
    Check(Constraint),

    /// The input can't be stored. The server was not asked, but for the name of a time zone of the right
    /// form: only it knows which there are.
    #[error(transparent)]
    InvalidInput(#[from] InvalidInput),

    /// The system's random generator has nothing to give.
    #[error("the system gives no random bytes")]
    NoRandomness,

    /// The role or the user may not do this.
    #[error("permission denied: {0}")]
    PermissionDenied(#[source] Denied),

    /// The login role is not a member of the role that works for one user, or there is no such role:
    /// [`Database::as_user`](crate::Database::as_user).
    #[error(
        "the login role can't work for a user: it must be a member of {role} (migrations/roles.sql)"
    )]
    NotAMember {
        /// The role.
        role: &'static str,
    },

    /// The login role may do more than an application need, and the configuration refuses that
    /// ([`RoleCheck::Refuse`](crate::RoleCheck::Refuse)).
    #[error("the database role {role:?} {risk}, and DATABASE_ROLE_CHECK refuses that")]
    RoleRefused {
        /// The role.
        role: String,
        /// What is wrong with it.
        risk: RoleRisk,
    },

    /// Something that writes was tried in a read-only transaction, on a standby, or where
    /// `default_transaction_read_only` is on (25006). Nothing of it was done.
    ///
    /// Where a server takes writes again, or another one does, new calls get there by themselves.
    #[error("the transaction or the server is read-only")]
    ReadOnly,

    /// A table or column is missing (42P01, 42703): the schema is not this crate's.
    #[error(
        "the schema does not fit this version of the crate: call `migrate()` or look at `migration_status()`"
    )]
    SchemaMismatch(#[source] DriverError),

    /// Migrating failed.
    #[error(transparent)]
    Migration(#[from] MigrationError),

    /// A stored row can't be read: its JSON is not of the type that it is read as, or a newer version
    /// has stored what this one does not know. Lists leave such a row out and tell it in the log.
    #[error("a stored row can't be read: {row}")]
    Unreadable {
        /// Which row, and which of its columns.
        row: Box<UnreadableRow>,
        /// What the driver said.
        source: DriverError,
    },

    /// A stored value can't be read as its type.
    #[error("a stored value can't be read: {0}")]
    Decode(#[source] DriverError),

    /// Anything else that the server or the driver reports.
    #[error("the database reports an error: {0}")]
    Database(#[source] DriverError),
}

impl Error {
    /// Whether running the same transaction again, from its start, can succeed.
    ///
    /// True for serialization failures and deadlocks, where the server has rolled everything back.
    /// A lost connection is not in here: a write may have happened.
    pub fn is_retryable(&self) -> bool {
        self.kind() == ErrorKind::Collision
    }

    /// The constraint that refused the row, if one did.
    pub fn constraint(&self) -> Option<Constraint> {
        match self {
            Self::Conflict(c) | Self::ForeignKey(c) | Self::Check(c) => Some(*c),
            _ => None,
        }
    }

    /// Whether an attempt to connect failed for what may pass: the server is starting, or away.
    pub(crate) fn is_of_the_network(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::ConnectTimeout { .. } | Self::ConnectionLost(_)
        )
    }

    /// `InvalidInput` for a field.
    pub(crate) fn invalid(field: &'static str, reason: Reason) -> Self {
        Self::InvalidInput(InvalidInput::new(field, reason))
    }

    /// `InvalidInput` told with the element of a list that it is in; other errors as they are.
    pub(crate) fn within(self, list: &'static str, index: usize) -> Self {
        match self {
            Self::InvalidInput(error) => Self::InvalidInput(error.within(list, index)),
            other => other,
        }
    }

    /// A row that can't be read.
    pub(crate) fn unreadable(row: UnreadableRow, source: sqlx::Error) -> Self {
        Self::Unreadable { row: Box::new(row), source: DriverError(source) }
    }

    /// As an error of the driver's, for the signature of its `Executor`; [`From`] takes it out again.
    pub(crate) fn into_carrier(self) -> sqlx::Error {
        sqlx::Error::AnyDriverError(Box::new(self))
    }

    fn carried(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::AnyDriverError(carried) => match carried.downcast::<Self>() {
                Ok(error) => *error,
                Err(other) => Self::Database(DriverError(sqlx::Error::AnyDriverError(other))),
            },
            other => Self::Database(DriverError(other)),
        }
    }

    /// The error of an attempt to connect, told with what was tried.
    pub(crate) fn from_connect(error: sqlx::Error, target: &ConnectTarget) -> Self {
        // A file that the driver needs may have gone since the configuration was made.
        let of_files = matches!(
            error,
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Configuration(_)
        );
        if of_files && let Err(error) = target.files.iter().try_for_each(PemFile::check) {
            return Self::Config(error);
        }
        match error {
            // RFC 4013, which other clients don't insist on. The driver's words hold the character.
            sqlx::Error::Configuration(e) if e.to_string().contains("saslprep") => {
                let user = e.to_string().contains("username");
                Self::Config(ConfigError::OutOfRange {
                    setting: if user { "user" } else { "password" },
                    expected: "of other characters: the driver can't send some of them (emoji, for example) to a \
                               server that asks for scram-sha-256; ASCII is safe",
                })
            }
            // What TLS makes of a certificate that it refuses.
            sqlx::Error::Io(source)
                if source.kind() == std::io::ErrorKind::InvalidData
                    && source.get_ref().is_some() =>
            {
                Self::Tls(DriverError(sqlx::Error::Io(source)))
            }
            sqlx::Error::Io(source) => {
                Self::Unreachable { address: target.address.clone(), source }
            }
            sqlx::Error::Protocol(_) if hangs_up(&error) => Self::Unreachable {
                address: target.address.clone(),
                source: std::io::ErrorKind::UnexpectedEof.into(),
            },
            sqlx::Error::Database(e) => match e.code().as_deref() {
                Some("28P01" | "28000") => Self::AuthenticationFailed { user: target.user.clone() },
                Some("3D000") => Self::DatabaseMissing { database: target.database.clone() },
                _ => sqlx::Error::Database(e).into(),
            },
            other => other.into(),
        }
    }
}

/// Who refused, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// A call on one user's form of a repository names another user. The server was not asked.
    #[error("the call names another user than the one that it works for")]
    OtherUser,
    /// Row-level security refused to store a row: it is another user's.
    #[error("row-level security refuses the row: {0}")]
    Row(#[source] DriverError),
    /// The database role lacks a privilege (42501), such as a GRANT on the table that is named.
    #[error("the database role lacks a privilege: {0}")]
    Privilege(#[source] DriverError),
}

impl Denied {
    fn by_server(error: DriverError) -> Self {
        match error.routine() {
            Some(ROW_SECURITY) => Self::Row(error),
            _ => Self::Privilege(error),
        }
    }
}

/// The server's routine that refuses a row that a policy's check does not take.
const ROW_SECURITY: &str = "ExecWithCheckOptions";

/// The server's routines whose messages hold the names of objects and nothing else.
const NAMING_ROUTINES: [&str; 3] = ["aclcheck_error", "aclcheck_error_col", ROW_SECURITY];

/// Why no connection was to be had in time: who has them, or why none could be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolTimeout {
    /// The most connections there can be.
    pub max: u32,
    /// Those that were open.
    pub size: u32,
    /// Those of them that nobody used.
    pub idle: usize,
    /// Those that somebody used.
    pub in_use: usize,
    /// How long was waited.
    pub waited: Duration,
    /// What the last attempt to connect failed with, if one failed.
    pub last_connect_error: Option<String>,
    /// Where the connections in use were asked for and how long they have been held: the five that
    /// have been held longest.
    pub holders: Vec<(String, Duration)>,
}

impl fmt::Display for PoolTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no connection within {:.1?}: {} of {} open, {} idle, {} in use",
            self.waited, self.size, self.max, self.idle, self.in_use
        )?;
        if let Some(error) = &self.last_connect_error {
            write!(f, "; connecting failed: {error}")?;
        }
        for (place, held) in &self.holders {
            write!(f, "; held for {held:.1?} since {place}")?;
        }
        Ok(())
    }
}

/// What an attempt to connect was made to, without the password.
#[derive(Debug, Clone)]
pub(crate) struct ConnectTarget {
    pub address: String,
    pub user: String,
    pub database: String,
    /// What TLS needs.
    pub files: Vec<PemFile>,
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(e) => {
                let constraint = || Constraint::from_name(e.constraint().unwrap_or_default());
                match e.code().as_deref().unwrap_or_default() {
                    "23505" | "23P01" => Self::Conflict(constraint()),
                    "23503" => Self::ForeignKey(constraint()),
                    "23514" => Self::Check(constraint()),
                    "25P02" => Self::TransactionAborted,
                    "25006" | "0A000" | "55000" if refuses_writes(&error) => Self::ReadOnly,
                    "40001" => Self::SerializationFailure,
                    "40P01" => Self::Deadlock,
                    "42501" => Self::PermissionDenied(Denied::by_server(DriverError(error))),
                    "42P01" | "42703" => Self::SchemaMismatch(DriverError(error)),
                    "53300" => Self::TooManyConnections,
                    "55P03" => Self::LockTimeout,
                    "57014" => Self::StatementTimeout,
                    code if ends_connection(code) => Self::ConnectionLost(DriverError(error)),
                    _ => Self::Database(DriverError(error)),
                }
            }
            sqlx::Error::Io(_) => Self::ConnectionLost(DriverError(error)),
            sqlx::Error::Tls(_) => Self::Tls(DriverError(error)),
            sqlx::Error::AnyDriverError(carried) if carried.is::<Self>() => Self::carried(error),
            sqlx::Error::PoolTimedOut => Self::PoolTimedOut(Box::default()),
            sqlx::Error::PoolClosed => Self::PoolClosed,
            sqlx::Error::RowNotFound => Self::NotFound("row"),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                Self::Decode(DriverError(error))
            }
            _ => Self::Database(DriverError(error)),
        }
    }
}

/// The driver's own error, which prints no value.
///
/// PostgreSQL's messages can hold the failing row or the offending value, so `Display` and `Debug`
/// show what is safe: the SQLSTATE and the names of table, column and constraint. Whoever needs the
/// rest, and knows where it goes, calls [`into_sqlx`](Self::into_sqlx).
pub struct DriverError(sqlx::Error);

impl DriverError {
    pub(crate) fn new(error: sqlx::Error) -> Self {
        Self(error)
    }

    /// The five-character SQLSTATE, if the server reported the error.
    pub fn sqlstate(&self) -> Option<String> {
        self.0.as_database_error().and_then(|e| e.code()).map(|code| code.into_owned())
    }

    /// The server's routine that reported it: the same in every language.
    fn routine(&self) -> Option<&str> {
        let error = self.0.as_database_error()?;
        error.try_downcast_ref::<PgDatabaseError>()?.routine()
    }

    /// The whole error, values and all.
    pub fn into_sqlx(self) -> sqlx::Error {
        self.0
    }

    /// The whole error, values and all.
    pub fn as_sqlx(&self) -> &sqlx::Error {
        &self.0
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            sqlx::Error::Database(e) => {
                write!(f, "SQLSTATE {}", e.code().as_deref().unwrap_or("unknown"))?;
                if let Some(e) = e.try_downcast_ref::<PgDatabaseError>() {
                    for (what, name) in [
                        ("table", e.table()),
                        ("column", e.column()),
                        ("constraint", e.constraint()),
                    ] {
                        if let Some(name) = name {
                            write!(f, ", {what} {name}")?;
                        }
                    }
                    if self.routine().is_some_and(|routine| NAMING_ROUTINES.contains(&routine)) {
                        write!(f, ", {}", e.message())?;
                    }
                }
                Ok(())
            }
            sqlx::Error::Io(e) => write!(f, "{e}"),
            sqlx::Error::Tls(e) => write!(f, "{e}"),
            sqlx::Error::ColumnDecode { index, .. } => write!(f, "column {index}"),
            sqlx::Error::Decode(_) => f.write_str("decoding"),
            sqlx::Error::Encode(_) => f.write_str("encoding a parameter"),
            sqlx::Error::Protocol(_) => f.write_str("protocol"),
            _ => f.write_str("driver"),
        }
    }
}

impl fmt::Debug for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DriverError({self})")
    }
}

impl std::error::Error for DriverError {}

/// An input that can't be stored, told before the server is asked.
///
/// ```
/// use chancery::{InvalidInput, Reason};
///
/// let error = InvalidInput::new("chunk_text", Reason::ContainsNul).within("chunks", 371);
/// assert_eq!(error.to_string(), "chunks[371].chunk_text contains a NUL character");
/// assert_eq!(error.index(), Some(371));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidInput {
    /// The input's name, as in the method's signature or the input struct.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: Reason,
    /// Which element of which list it belongs to, from the outermost list inwards. Empty where no list
    /// was given.
    pub place: Vec<(&'static str, usize)>,
}

impl InvalidInput {
    /// Names an input and says what is wrong with it.
    pub fn new(field: &'static str, reason: Reason) -> Self {
        Self { field, reason, place: Vec::new() }
    }

    /// Adds that the input belongs to this element of a list, counted from 0.
    pub fn within(mut self, list: &'static str, index: usize) -> Self {
        self.place.insert(0, (list, index));
        self
    }

    /// Returns the place, from 0, of the element that is refused in the list that was given; none where
    /// no list was given.
    pub fn index(&self) -> Option<usize> {
        self.place.first().map(|(_, index)| *index)
    }
}

impl fmt::Display for InvalidInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (list, index) in &self.place {
            write!(f, "{list}[{index}].")?;
        }
        write!(f, "{} {}", self.field, self.reason)
    }
}

impl std::error::Error for InvalidInput {}

/// Names a row that is stored and that this version, or the type that the caller reads it as, can't
/// read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct UnreadableRow {
    /// The row's table.
    pub table: &'static str,
    /// The row's key.
    pub id: String,
    /// The column that can't be read.
    pub column: String,
}

impl fmt::Display for UnreadableRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {} of {} {}", self.column, self.table, self.id)
    }
}

/// What is wrong with an input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It is empty and must not be.
    #[error("must not be empty")]
    Empty,
    /// More characters than the column holds.
    #[error("is longer than {max} characters")]
    TooLong {
        /// The column's length, in characters.
        max: usize,
    },
    /// More bytes than the crate sends in one value.
    #[error("is larger than {max} bytes")]
    TooLarge {
        /// The limit, in bytes.
        max: usize,
    },
    /// PostgreSQL stores no NUL character, neither in text nor in JSON.
    #[error("contains a NUL character")]
    ContainsNul,
    /// JSON nested deeper than can be read back.
    #[error("is nested deeper than {max} levels")]
    TooDeep {
        /// The limit, in levels of arrays and objects.
        max: usize,
    },
    /// A number or a time out of its range.
    #[error("must be between {min} and {max}")]
    OutOfRange {
        /// The smallest accepted value.
        min: i64,
        /// The largest accepted value.
        max: i64,
    },
    /// A time that can't be stored and read back.
    #[error("is a time outside of the years 1 to 9999")]
    TimeOutOfRange,
    /// Not of the form that is asked for.
    #[error("is not {0}")]
    Malformed(&'static str),
}

#[cfg(test)]
mod tests;
