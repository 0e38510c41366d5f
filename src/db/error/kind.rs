//! Errors by what a caller does about them.

#[cfg(feature = "axum")]
use super::Denied;
use super::Error;

/// Groups the variants of [`Error`] by what a caller does about them.
///
/// ```
/// use chancery::{Error, ErrorKind};
///
/// fn advice(error: &Error) -> &'static str {
///     match error.kind() {
///         ErrorKind::NotFound => "look it up again",
///         ErrorKind::Conflict | ErrorKind::InvalidInput => "ask the user",
///         ErrorKind::PermissionDenied => "refuse",
///         ErrorKind::Collision => "run the transaction again",
///         ErrorKind::Unavailable => "try again later",
///         ErrorKind::OutcomeUnknown => "look whether it was stored",
///         ErrorKind::Setup => "call the operator",
///         _ => "report a defect",
///     }
/// }
/// # assert_eq!(advice(&Error::PoolClosed), "try again later");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A row that the call needs does not exist: the one that it names, or one that its row refers to.
    NotFound,
    /// What is stored contradicts the call: the row exists, is referred to, or a lease was lost.
    Conflict,
    /// A value can't be stored.
    InvalidInput,
    /// The user or the database role may not do this.
    PermissionDenied,
    /// The transaction collided with another one and was rolled back: run it again from its start.
    Collision,
    /// The server, the network or the pool is not to be had in time. It may pass. After a
    /// [`ConnectionLost`](Error::ConnectionLost) a statement that writes may have taken effect.
    Unavailable,
    /// The connection broke during COMMIT: whether it took effect has to be found out.
    OutcomeUnknown,
    /// Configuration, credentials, roles or schema have to be changed by an operator.
    Setup,
    /// A mistake in a program, or an error that this crate does not know.
    Internal,
}

impl Error {
    /// Returns the group of this error, for callers that need no more.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            // In this crate's schema nothing is kept from being deleted by what refers to it, so a key
            // of its own that is broken means that there is no such row.
            Self::ForeignKey(key) if key.is_of_this_schema() => ErrorKind::NotFound,
            Self::Conflict(_) | Self::ForeignKey(_) | Self::LeaseLost => ErrorKind::Conflict,
            Self::InvalidInput(_) | Self::Check(_) => ErrorKind::InvalidInput,
            Self::PermissionDenied(_) => ErrorKind::PermissionDenied,
            Self::SerializationFailure | Self::Deadlock => ErrorKind::Collision,
            Self::Unreachable { .. }
            | Self::ConnectTimeout { .. }
            | Self::TooManyConnections
            | Self::PoolTimedOut(_)
            | Self::NoRuntime
            | Self::PoolClosed
            | Self::ConnectionLost(_)
            | Self::LockTimeout
            | Self::StatementTimeout
            | Self::DeadlineExceeded
            | Self::ReadOnly => ErrorKind::Unavailable,
            Self::CommitUnknown { .. } => ErrorKind::OutcomeUnknown,
            Self::Config(_)
            | Self::AuthenticationFailed { .. }
            | Self::DatabaseMissing { .. }
            | Self::Tls(_)
            | Self::UnsafePooler { .. }
            | Self::DirectUrlMissing(_)
            | Self::NotAMember { .. }
            | Self::RoleRefused { .. }
            | Self::SchemaMismatch(_)
            | Self::Migration(_) => ErrorKind::Setup,
            Self::WouldDeadlock
            | Self::TransactionAborted
            | Self::TransactionControl
            | Self::NoRandomness
            | Self::Decode(_)
            | Self::Unreadable { .. }
            | Self::Database(_) => ErrorKind::Internal,
        }
    }

    /// Whether a user asked for what is another user's, and not the program for what its role may not.
    #[cfg(feature = "axum")]
    pub(crate) fn is_of_another_user(&self) -> bool {
        matches!(self, Self::PermissionDenied(Denied::OtherUser | Denied::Row(_)))
    }
}
