//! Units of work: several operations that take effect together or not at all.

use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::Arc;
use std::time::Instant;

use sqlx::postgres::PgTransactionManager;
use sqlx::{Executor, PgConnection, Postgres, QueryBuilder, SqlStr};
use sqlx_core::transaction::TransactionManager;
use uuid::Uuid;

use super::actor::Actor;
use super::answer::{AnswerLimit, breaks_connection, is_aborted, refuses_writes};
use super::boundary::{beginning, note_beginning};
use super::conn::{Conn, roll_back_abandoned};
use super::error::{DriverError, Error, Result};
use super::lease::{Lease, Leases};
use super::outcome::TransactionId;
use super::read_token::{ReadToken, current};
use super::runtime::{detached, finished, here};
use super::transaction::TransactionOptions;
use super::transaction_state::{Standing, TransactionState};

/// A transaction, with the repositories that work in it.
///
/// What was done is stored by [`commit`](Self::commit), and only by it: dropped, it rolls back. It
/// is made by [`Database::begin`](crate::Database::begin) or handed to the body of [`Database::transaction`](crate::Database::transaction).
///
/// ```no_run
/// # async fn example(db: chancery::Database) -> chancery::Result<()> {
/// let mut uow = db.begin().await?;
/// uow.sessions().delete_expired().await?;
/// uow.commit().await?;
/// # Ok(()) }
/// ```
///
/// An application's own statements join the same transaction:
///
/// ```no_run
/// # async fn example(db: chancery::Database) -> chancery::Result<()> {
/// let mut uow = db.begin().await?;
/// sqlx::query("update invoices set paid = true where id = $1")
///     .bind(17)
///     .execute(uow.executor())
///     .await?;
/// uow.commit().await?;
/// # Ok(()) }
/// ```
pub struct UnitOfWork {
    // Dropped inside a transaction, it rolls back before it goes to the next caller.
    lease: Lease,
    state: TransactionState,
    id: Option<TransactionId>,
    deadline: Option<Instant>,
    read_only: bool,
    owner: Option<Uuid>,
}

/// How often BEGIN is sent: a connection that died unnoticed costs one attempt.
const BEGIN_ATTEMPTS: u8 = 3;

impl UnitOfWork {
    /// Begins on a connection of the pool.
    ///
    /// In a task of its own: when the caller goes away while BEGIN is on the wire, the connection
    /// would otherwise return inside a transaction, and swallow the next caller's work.
    pub(crate) async fn begin_on(
        leases: &Arc<Leases>,
        options: TransactionOptions,
        place: &'static Location<'static>,
    ) -> Result<Self> {
        let started = Instant::now();
        let mut attempt = 1;
        loop {
            let mut lease = leases.acquire(place).await?;
            let begun = detached(async move {
                let settings = lease.leases().transaction_settings();
                let statement = with_settings(options.begin_statement(), settings);
                let outcome =
                    lease.run(|conn| PgTransactionManager::begin(conn, Some(statement))).await;
                // The driver does not know of a transaction that began and failed at once.
                if outcome.as_ref().is_err_and(|error| !breaks_connection(error))
                    && lease.run(|conn| conn.execute("rollback")).await.is_err()
                {
                    lease.condemn();
                }
                match outcome {
                    Ok(()) => Ok(lease),
                    Err(error) => {
                        let leaving = refuses_writes(&error).then(|| lease.leave());
                        Err((error, leaving))
                    }
                }
            });
            let (error, leaving) = match begun.await? {
                Ok(lease) => {
                    tracing::debug!(target: "chancery", event = "database.session_created", ?options);
                    return Ok(Self {
                        lease,
                        state: TransactionState::default(),
                        id: None,
                        deadline: options.deadline.map(|limit| started + limit),
                        read_only: options.read_only,
                        owner: options.actor.map(Actor::user_id),
                    });
                }
                Err(failed) => failed,
            };
            // Nothing was done yet, so nothing is done twice. In a transaction that somebody had left
            // open it was refused, and that one is rolled back by now.
            let unusable = breaks_connection(&error) || is_aborted(&error);
            let again = match leaving {
                _ if attempt == BEGIN_ATTEMPTS => false,
                Some(leaving) => leaving.await,
                None => unusable,
            };
            match options.actor {
                _ if again => {}
                Some(_) => return Err(Actor::begin_error(error)),
                None => return Err(error.into()),
            }
            if unusable {
                leases.suspect_all();
            }
            attempt += 1;
        }
    }

    /// The transaction as an executor, for the application's own statements:
    /// `query!(…).execute(uow.executor())`.
    ///
    /// SQL that ends the transaction (`commit`, `rollback`, `… and chain`) is answered with
    /// [`Error::TransactionControl`], and so is everything after it, the commit too: nothing is
    /// acknowledged that may not be stored. `savepoint`, `rollback to` and `release` may be used. To find
    /// it out, the server is asked before and after a statement without arguments in whose text one of
    /// the words `commit`, `end`, `rollback`, `abort`, `prepare` and `execute` stands.
    pub fn executor(&mut self) -> Conn<'_> {
        let answer = self.answer_limit();
        Conn::transaction(&mut self.lease, &self.state, answer, self.owner)
    }

    /// Notes the transaction's identifier, and returns it: with it the server can be asked how the
    /// commit ended when its answer was lost ([`Error::CommitUnknown`] carries it).
    ///
    /// It costs a round trip, because the answer to BEGIN can't hold it, and it makes the transaction
    /// one that writes: call it where the outcome matters.
    pub async fn transaction_id(&mut self) -> Result<TransactionId> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        let id = sqlx::query_scalar!(r#"select pg_current_xact_id()::text as "id!""#)
            .fetch_one(self.executor())
            .await?;
        let id = id.parse()?;
        self.id = Some(id);
        Ok(id)
    }

    /// How long the answer to the next statement may take.
    fn answer_limit(&self) -> AnswerLimit {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match (self.lease.leases().answer_timeout(), left) {
            (Some(network), Some(left)) if network < left => AnswerLimit::Network(network),
            (_, Some(left)) => AnswerLimit::Deadline(left),
            (network, None) => network.into(),
        }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// The bare connection, for what an executor can't do (COPY, for example).
    ///
    /// The unit of work can't see what happens on it. So it asks the server before when its transaction
    /// began, and again before it commits whether it is still that one: a round trip more each. Do not
    /// end the transaction on it; the commit fails then ([`Error::TransactionControl`]).
    ///
    /// # Errors
    ///
    /// When a nested unit of work was dropped and can't be rolled back, or a statement was given up and
    /// the transaction failed with it.
    pub async fn connection(&mut self) -> Result<&mut PgConnection> {
        let answer = self.answer_limit();
        roll_back_abandoned(&mut self.lease, &self.state).await?;
        note_beginning(&mut self.lease, &self.state, answer).await?;
        self.state.start()?;
        Ok(&mut self.lease)
    }

    /// Begins a nested unit of work: a savepoint.
    ///
    /// # Errors
    ///
    /// [`Error::TransactionAborted`] when a statement of this one has failed.
    pub async fn begin(&mut self) -> Result<Savepoint<'_>> {
        if self.state.standing() == Standing::Failed && !self.state.has_abandoned() {
            return Err(Error::TransactionAborted);
        }
        self.savepoint_statement("savepoint chancery").await?;
        Ok(Savepoint { parent: self, open: true })
    }

    /// Runs `body` in a nested unit of work: kept when it returns `Ok`, undone when it returns `Err`.
    /// The outer one goes on either way.
    ///
    /// ```no_run
    /// # use chancery::{Constraint, Error, NewUser};
    /// # async fn example(db: chancery::Database) -> chancery::Result<()> {
    /// db.transaction(async |uow| {
    ///     let new = NewUser::new("ada@example.org");
    ///     match uow.transaction(async |uow| uow.users().create(new).await).await {
    ///         Ok(user) => tracing::info!(%user.id, "signed up"),
    ///         Err(Error::Conflict(Constraint::UsersEmailKey)) => tracing::info!("known"),
    ///         Err(e) => return Err(e),
    ///     }
    ///     uow.sessions().delete_expired().await // still works
    /// })
    /// .await?;
    /// # Ok(()) }
    /// ```
    pub async fn transaction<T, E: From<Error>>(
        &mut self,
        body: impl AsyncFnOnce(&mut UnitOfWork) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut savepoint = self.begin().await?;
        match body(&mut savepoint).await {
            Ok(value) => savepoint.commit().await.map(|()| value).map_err(E::from),
            Err(error) => {
                // The body's error says more than a failure to undo, which the commit would report.
                let _ = savepoint.rollback().await;
                Err(error)
            }
        }
    }

    /// Stores everything that was done.
    ///
    /// It runs to its end also when the caller goes away.
    ///
    /// # Errors
    ///
    /// * [`Error::TransactionAborted`]: a statement had failed, so the server would have answered
    ///   COMMIT with ROLLBACK. Everything was rolled back.
    /// * [`Error::TransactionControl`]: a statement had ended the transaction by itself.
    /// * [`Error::DeadlineExceeded`]: it is past its deadline. Everything was rolled back.
    /// * [`Error::CommitUnknown`]: the connection broke; whether it took effect is unknown.
    ///   [`Database::transaction_outcome`](crate::Database::transaction_outcome) finds out.
    /// * Constraints that are checked at the end (`deferrable initially deferred`): as elsewhere.
    pub async fn commit(self) -> Result<()> {
        self.store(false).await.map(drop)
    }

    /// As [`commit`](Self::commit), and says how far the database has come with it, for reads that have
    /// to see it: [`Reader::after`](crate::Reader::after). One round trip more.
    ///
    /// When the connection breaks between the two, what was stored is stored, and the token is one
    /// whose reads go to the primary.
    pub async fn commit_with_token(self) -> Result<ReadToken> {
        Ok(self.store(true).await?.unwrap_or(ReadToken::PRIMARY))
    }

    async fn store(mut self, with_token: bool) -> Result<Option<ReadToken>> {
        if self.is_late() {
            // Dropped: the connection may still be busy with what took too long.
            return Err(Error::DeadlineExceeded);
        }
        let runtime = here()?;
        let transaction = self.id;
        let ending = async move {
            match self.check().await {
                Standing::Healthy if self.depth() == 1 => {}
                // Or the driver has a savepoint open that the application forgot.
                Standing::Healthy | Standing::Ended => return Err(Error::TransactionControl),
                _ => {
                    self.lease.run(PgTransactionManager::rollback).await?;
                    return Err(Error::TransactionAborted);
                }
            }
            self.lease.run(PgTransactionManager::commit).await.map_err(|error| {
                if breaks_connection(&error) {
                    Error::CommitUnknown { transaction, source: DriverError::new(error) }
                } else {
                    error.into()
                }
            })?;
            self.state.forget_beginning();
            if !with_token {
                return Ok(None);
            }
            Ok(self.lease.run(current).await.ok())
        };
        let ended = finished(runtime.spawn(ending)).await;
        // The runtime shut down, and the connection with it: COMMIT may have been sent.
        ended.unwrap_or_else(|_| Err(Error::CommitUnknown { transaction, source: shut_down() }))
    }

    /// Undoes everything that was done. Dropping does the same, without saying how it went.
    pub async fn rollback(mut self) -> Result<()> {
        if self.is_late() {
            return Ok(());
        }
        let ending = async move {
            let open = self.depth() > 0;
            let ended = self.lease.run(PgTransactionManager::rollback).await;
            if open {
                self.state.forget_beginning();
            }
            ended
        };
        detached(ending).await??;
        Ok(())
    }

    pub(crate) fn is_retryable(&self) -> bool {
        self.state.is_retryable()
    }

    /// Looks for whoever takes writes, if one was refused that should not have been.
    pub(crate) fn leave(&self) -> Option<impl Future<Output = bool> + Send + use<>> {
        let refused = self.state.refused_writing() && !self.read_only;
        refused.then(|| self.lease.leave())
    }

    /// How the transaction stands; asks the server where that was not seen.
    async fn check(&mut self) -> Standing {
        if roll_back_abandoned(&mut self.lease, &self.state).await.is_err() {
            return Standing::Broken;
        }
        // Answered with an error in a failed transaction, or on a dead connection.
        match (self.state.standing(), self.state.beginning()) {
            (Standing::Unknown, None) => {
                match self.lease.run(|conn| conn.execute("select")).await {
                    Ok(_) => self.state.succeeded(),
                    Err(error) => self.state.failed(&error),
                }
            }
            (Standing::Unknown | Standing::Healthy, Some(began)) => {
                match self.lease.run(beginning).await {
                    Ok(now) if now == began => self.state.succeeded(),
                    Ok(_) => self.state.set(Standing::Ended),
                    Err(error) => self.state.failed(&error),
                }
            }
            _ => {}
        }
        self.state.standing()
    }

    /// How many transactions and savepoints the driver has begun on the connection.
    fn depth(&self) -> usize {
        PgTransactionManager::get_transaction_depth(&self.lease)
    }

    /// Sends a statement that opens or closes a savepoint.
    async fn savepoint_statement(&mut self, statement: &'static str) -> Result<()> {
        roll_back_abandoned(&mut self.lease, &self.state).await?;
        self.state.start()?;
        // If this future is dropped or fails, nobody knows which savepoints there are.
        self.state.set(Standing::Broken);
        match self.lease.run(|conn| conn.execute(statement)).await {
            Ok(_) => {
                self.state.succeeded();
                Ok(())
            }
            Err(error) => {
                self.state.failed(&error);
                Err(error.into())
            }
        }
    }
}

impl Drop for UnitOfWork {
    fn drop(&mut self) {
        if self.state.refused_writing() && !self.read_only {
            self.lease.mark_refused();
        }
        let left_open = self.state.beginning().is_some() && self.depth() == 0;
        if self.state.is_unfit() || self.state.standing() == Standing::Ended || left_open {
            self.lease.condemn();
        }
        if self.state.is_stale() {
            self.lease.mark_stale();
        }
    }
}

impl std::fmt::Debug for UnitOfWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnitOfWork").finish_non_exhaustive()
    }
}

/// A nested unit of work, by hand: [`UnitOfWork::begin`].
///
/// It dereferences to its [`UnitOfWork`], so the repositories are at hand. Dropped, it is undone.
#[derive(Debug)]
pub struct Savepoint<'u> {
    parent: &'u mut UnitOfWork,
    open: bool,
}

impl Savepoint<'_> {
    /// Keeps what was done, as part of the outer unit of work.
    ///
    /// # Errors
    ///
    /// [`Error::TransactionAborted`] when a statement had failed; what was done since the savepoint
    /// was undone, and the outer unit of work goes on.
    pub async fn commit(mut self) -> Result<()> {
        // Open while it asks: given up there, it is undone, and so is what it is nested in.
        let standing = self.parent.check().await;
        self.open = false;
        if standing == Standing::Failed {
            self.parent.undo_savepoint().await?;
            return Err(Error::TransactionAborted);
        }
        self.parent.savepoint_statement("release savepoint chancery").await
    }

    /// Undoes what was done since the savepoint. The outer unit of work goes on.
    pub async fn rollback(mut self) -> Result<()> {
        self.open = false;
        self.parent.undo_savepoint().await
    }
}

impl UnitOfWork {
    async fn undo_savepoint(&mut self) -> Result<()> {
        self.state.abandon_savepoint();
        Ok(roll_back_abandoned(&mut self.lease, &self.state).await?)
    }
}

impl Drop for Savepoint<'_> {
    fn drop(&mut self) {
        if self.open {
            self.parent.state.abandon_savepoint();
        }
    }
}

impl Deref for Savepoint<'_> {
    type Target = UnitOfWork;

    fn deref(&self) -> &UnitOfWork {
        self.parent
    }
}

impl DerefMut for Savepoint<'_> {
    fn deref_mut(&mut self) -> &mut UnitOfWork {
        self.parent
    }
}

/// The statement that begins a transaction, with settings that end with it: names and values of
/// this crate's own.
fn with_settings(begin: SqlStr, settings: &[(&'static str, String)]) -> SqlStr {
    if settings.is_empty() {
        return begin;
    }
    let mut statement = QueryBuilder::<Postgres>::new(begin.as_str());
    for (name, value) in settings {
        statement.push("; set local ").push(name).push(" = ").push(value);
    }
    statement.into_sql()
}

fn shut_down() -> DriverError {
    DriverError::new(sqlx::Error::Io(std::io::Error::other("the tokio runtime shut down")))
}
