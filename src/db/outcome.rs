//! How a transaction ended whose answer was lost.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::database::Database;
use super::error::{InvalidInput, Reason, Result};

/// A transaction of the server: `pg_current_xact_id()`. As text it can be kept, to ask later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(u64);

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TransactionId {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        text.parse().map(Self).map_err(|_| {
            InvalidInput::new("transaction_id", Reason::Malformed("a transaction's identifier"))
        })
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionOutcome {
    /// It took effect.
    Committed,
    /// It did not.
    RolledBack,
    /// It is still running: its session has not noticed yet that its client is gone.
    InProgress,
    /// It is too long ago: the server does not remember.
    Forgotten,
}

impl Database {
    /// Asks the server how a transaction ended, on another connection.
    ///
    /// What an application does with [`Error::CommitUnknown`](crate::Error::CommitUnknown): note the identifier before it commits
    /// what must not happen twice, ask here when the answer was lost, and run the unit of work again
    /// only when it was rolled back.
    ///
    /// ```no_run
    /// use chancery::{Database, Error, TransactionOutcome};
    ///
    /// # async fn example(db: Database) -> chancery::Result<()> {
    /// let mut uow = db.begin().await?;
    /// uow.transaction_id().await?;
    /// // … what must not happen twice …
    /// match uow.commit().await {
    ///     Err(Error::CommitUnknown { transaction: Some(id), .. }) => {
    ///         match db.transaction_outcome(id).await? {
    ///             TransactionOutcome::Committed => {}
    ///             _ => { /* run it again */ }
    ///         }
    ///     }
    ///     other => other?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// While it is [`InProgress`](TransactionOutcome::InProgress) it asks again, for 5 seconds at most:
    /// the server notices a lost client within its `client_connection_check_interval` or when it next
    /// writes to it.
    ///
    /// # Errors
    ///
    /// Those of getting a connection. An identifier that the server never gave out is refused by it
    /// ([`Error::Database`](crate::Error::Database), SQLSTATE 22023).
    pub async fn transaction_outcome(&self, id: TransactionId) -> Result<TransactionOutcome> {
        let give_up = tokio::time::Instant::now() + Duration::from_secs(5);
        loop {
            let status =
                sqlx::query_scalar!("select pg_xact_status($1::text::xid8)", id.to_string())
                    .fetch_one(self.executor().repeatable())
                    .await?;
            let outcome = match status.as_deref() {
                Some("committed") => TransactionOutcome::Committed,
                Some("aborted") => TransactionOutcome::RolledBack,
                Some(_) => TransactionOutcome::InProgress,
                None => TransactionOutcome::Forgotten,
            };
            if outcome != TransactionOutcome::InProgress || tokio::time::Instant::now() >= give_up {
                return Ok(outcome);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
