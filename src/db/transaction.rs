//! Transactions as closures, and how they begin.

use std::panic::Location;
use std::time::Duration;

use sqlx::{SqlSafeStr, SqlStr};

use super::actor::Actor;
use super::database::Database;
use super::error::{Error, Result};
use super::unit_of_work::UnitOfWork;

/// How much of other transactions' work a transaction sees.
///
/// <https://www.postgresql.org/docs/current/transaction-iso.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IsolationLevel {
    /// Each statement sees what was committed before it began. PostgreSQL's default.
    #[default]
    ReadCommitted,
    /// All statements see what was committed before the first one began.
    RepeatableRead,
    /// As if transactions ran one after the other. Expect
    /// [`Error::SerializationFailure`]; the closure form repeats.
    Serializable,
}

/// How a unit of work begins, and how often the closure form tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionOptions {
    isolation: IsolationLevel,
    pub(super) read_only: bool,
    max_attempts: u32,
    pub(super) deadline: Option<Duration>,
    pub(super) actor: Option<Actor>,
}

impl Default for TransactionOptions {
    /// Read committed, read and write, at most 10 attempts.
    fn default() -> Self {
        Self {
            isolation: IsolationLevel::ReadCommitted,
            read_only: false,
            max_attempts: 10,
            deadline: None,
            actor: None,
        }
    }
}

impl TransactionOptions {
    /// The isolation level.
    pub fn isolation(mut self, level: IsolationLevel) -> Self {
        self.isolation = level;
        self
    }

    /// Refuse to write: [`Error::ReadOnly`].
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// How often the closure form runs its body at most; at least once.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// How long the whole unit of work may take, repetitions included: after it the closure form gives
    /// up with [`Error::DeadlineExceeded`], and a statement or a commit of the manual form does.
    /// None unless said.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// For this user.
    pub(super) fn acting_as(mut self, actor: Actor) -> Self {
        self.actor = Some(actor);
        self
    }

    /// The statement that begins such a transaction: its settings travel with it.
    pub(super) fn begin_statement(self) -> SqlStr {
        use IsolationLevel::{ReadCommitted, RepeatableRead, Serializable};
        // Never "read write": it would write where `default_transaction_read_only` forbids it.
        let begin = match (self.isolation, self.read_only) {
            (ReadCommitted, false) => "begin isolation level read committed",
            (ReadCommitted, true) => "begin isolation level read committed read only",
            (RepeatableRead, false) => "begin isolation level repeatable read",
            (RepeatableRead, true) => "begin isolation level repeatable read read only",
            (Serializable, false) => "begin isolation level serializable",
            (Serializable, true) => "begin isolation level serializable read only",
        };
        match self.actor {
            None => begin.into_sql_str(),
            Some(actor) => actor.begin_statement(begin),
        }
    }
}

impl Database {
    /// Begins a unit of work with the default [`TransactionOptions`].
    ///
    /// It may write where a statement by itself may: not on a standby, nor where a role, a database or
    /// a server has `default_transaction_read_only`. What writes there is [`Error::ReadOnly`]. Who may
    /// and wants to write nonetheless begins with the statement `set transaction read write`.
    ///
    /// # Errors
    ///
    /// Those of getting a connection: [`Error::PoolTimedOut`], [`Error::PoolClosed`], …
    #[track_caller]
    pub fn begin(&self) -> impl Future<Output = Result<UnitOfWork>> + Send {
        self.begin_with(TransactionOptions::default())
    }

    /// Begins a unit of work.
    #[track_caller]
    pub fn begin_with(
        &self,
        options: TransactionOptions,
    ) -> impl Future<Output = Result<UnitOfWork>> + Send {
        UnitOfWork::begin_on(self.leases(), options, Location::caller())
    }

    /// Runs `body` in a unit of work: committed when it returns `Ok`, rolled back when it returns
    /// `Err`, panics or is dropped.
    ///
    /// When the database reports a serialization failure or a deadlock, that a prepared statement no
    /// longer fits a schema that was changed meanwhile, or that the server takes no writes while another
    /// one does, all of it runs again: at most
    /// [`max_attempts`](TransactionOptions::max_attempts) times, with random pauses that grow from 5 ms
    /// to 500 ms. That is why the body must be `Clone` (it can't capture a `&mut`), and why it should do
    /// nothing outside of the database that must happen only once.
    ///
    /// The body should use `uow` alone. What it asks of the database itself takes a second connection,
    /// which is served when one is free and else refused with [`Error::WouldDeadlock`], not waited
    /// for. Tasks that the body spawns are not watched.
    ///
    /// ```no_run
    /// # use chancery::{Database, NewMessage, UserId};
    /// # async fn example(db: Database, user_id: UserId) -> chancery::Result<()> {
    /// let conversation = db
    ///     .transaction(async |uow| {
    ///         let c = uow.conversations().create(user_id, Some("Rice speech")).await?;
    ///         uow.messages().create(NewMessage::user(c.id, "Why the Moon?")).await?;
    ///         Ok(c)
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn transaction<T>(
        &self,
        body: impl AsyncFnOnce(&mut UnitOfWork) -> Result<T> + Clone,
    ) -> impl Future<Output = Result<T>> {
        self.try_transaction_with(TransactionOptions::default(), body)
    }

    /// [`transaction`](Self::transaction) with options.
    #[track_caller]
    pub fn transaction_with<T>(
        &self,
        options: TransactionOptions,
        body: impl AsyncFnOnce(&mut UnitOfWork) -> Result<T> + Clone,
    ) -> impl Future<Output = Result<T>> {
        self.try_transaction_with(options, body)
    }

    /// [`transaction`](Self::transaction) for a body with an error type of the application's.
    ///
    /// What is repeated is decided by what the database reported, not by the body's error.
    ///
    /// ```no_run
    /// # #[derive(Debug)] enum AppError { Sql(chancery::Error), Closed }
    /// # impl From<chancery::Error> for AppError { fn from(e: chancery::Error) -> Self { Self::Sql(e) } }
    /// # async fn example(db: chancery::Database) -> Result<(), AppError> {
    /// db.try_transaction(async |uow| {
    ///     uow.sessions().delete_expired().await?;
    ///     Err::<(), _>(AppError::Closed) // rolled back
    /// })
    /// .await
    /// # }
    /// ```
    #[track_caller]
    pub fn try_transaction<T, E: From<Error>>(
        &self,
        body: impl AsyncFnOnce(&mut UnitOfWork) -> Result<T, E> + Clone,
    ) -> impl Future<Output = Result<T, E>> {
        self.try_transaction_with(TransactionOptions::default(), body)
    }

    /// [`try_transaction`](Self::try_transaction) with options.
    #[track_caller]
    pub fn try_transaction_with<T, E: From<Error>>(
        &self,
        options: TransactionOptions,
        body: impl AsyncFnOnce(&mut UnitOfWork) -> Result<T, E> + Clone,
    ) -> impl Future<Output = Result<T, E>> {
        self.repeat(options, body, Location::caller())
    }

    async fn repeat<T, E: From<Error>>(
        &self,
        options: TransactionOptions,
        body: impl AsyncFnOnce(&mut UnitOfWork) -> Result<T, E> + Clone,
        place: &'static Location<'static>,
    ) -> Result<T, E> {
        let deadline = options.deadline.map(|limit| tokio::time::Instant::now() + limit);
        let mut attempt = 1;
        loop {
            let work = async {
                let mut uow = UnitOfWork::begin_on(self.leases(), options, place).await?;
                let body = body.clone()(&mut uow);
                let outcome = self.leases().while_held(body).await;
                Ok::<_, Error>((uow, outcome))
            };
            // The commit is outside: given up half-way, nobody would know how it ended.
            let (uow, outcome) = match deadline {
                None => work.await?,
                Some(deadline) => tokio::time::timeout_at(deadline, work)
                    .await
                    .map_err(|_| Error::DeadlineExceeded)??,
            };
            let mut again = uow.is_retryable();
            let leaving = uow.leave();
            let outcome = match outcome {
                Ok(value) => uow.commit().await.map(|()| value).map_err(|error| {
                    again |= error.is_retryable();
                    E::from(error)
                }),
                Err(error) => {
                    // Whatever becomes of the rollback: the connection is not used again before it.
                    let _ = uow.rollback().await;
                    Err(error)
                }
            };
            if outcome.is_err()
                && let Some(leaving) = leaving
            {
                again |= match deadline {
                    None => leaving.await,
                    Some(end) => tokio::time::timeout_at(end, leaving).await.unwrap_or(false),
                };
            }
            if outcome.is_ok() || !again || attempt >= options.max_attempts {
                return outcome;
            }
            tracing::debug!(target: "chancery", attempt, "collided with another transaction: again");
            let rest = tokio::time::Instant::now() + pause(attempt);
            if deadline.is_some_and(|deadline| deadline <= rest) {
                return outcome;
            }
            tokio::time::sleep_until(rest).await;
            attempt += 1;
        }
    }
}

/// Full jitter: anything between nothing and 5 ms · 2^attempt, capped at 500 ms.
fn pause(attempt: u32) -> Duration {
    let ceiling = 5_000_u64.saturating_mul(1 << attempt.min(10)).min(500_000);
    Duration::from_micros(fastrand::u64(0..=ceiling))
}
