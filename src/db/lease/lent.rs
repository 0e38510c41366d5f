//! One connection on loan, and what becomes of it when it comes back.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgTransactionManager;
use sqlx::{Connection, PgConnection, Postgres};
use sqlx_core::transaction::TransactionManager;
use tokio::runtime::Handle;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::{Leases, Lifetime, PING, RELEASE, Tenure, Warm};
use crate::db::answer::{answered, breaks_connection, refuses_writes};
use crate::db::boundary::is_inside;
use crate::db::error::Error;
use crate::db::read_token::ReadToken;
use crate::db::runtime::{Anywhere, drop_anywhere};

/// Waits until a connection answers, and has it forget what is prepared on it if that is stale.
pub(super) async fn made_ready(
    connection: &mut PgConnection,
    stale: bool,
) -> Result<(), sqlx::Error> {
    if stale { connection.clear_cached_statements().await } else { connection.ping().await }
}

/// A connection of the pool's, with the runtime that opened it.
///
/// Dropped, anywhere, its socket closes, its place in the pool is free at once, and the server notices
/// by its `client_connection_check_interval`.
pub(crate) struct Anchored {
    // None only while it is dropped or closed.
    connection: Option<PoolConnection<Postgres>>,
    runtime: Handle,
}

impl Anchored {
    pub fn new(connection: PoolConnection<Postgres>, runtime: &Handle) -> Self {
        Self { connection: Some(connection), runtime: runtime.clone() }
    }

    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Hands it back to the pool, which pings it: here with a bound. What does not answer is dropped.
    pub async fn returned(mut self) {
        let returning = self.connection.as_mut().expect(TAKEN).return_to_pool();
        let _ = timeout(PING, returning).await;
    }

    /// Closes it, with a farewell to the server.
    pub async fn closed(mut self) {
        let connection = self.connection.take().expect(TAKEN);
        let mut closing = Anywhere::new(Box::pin(connection.close()), self.runtime.clone());
        let _ = timeout(PING, &mut *closing).await;
    }

    /// Parts with it because its time is over.
    pub async fn parted(self, lifetime: Lifetime) {
        match lifetime {
            Lifetime::Recycle(_) => self.closed().await,
            Lifetime::Lend(_) => self.returned().await,
        }
    }

    /// Does one of these in a task of its runtime's.
    pub fn spawn<F>(self, task: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = self.runtime.clone();
        runtime.spawn(task(self));
    }
}

impl Deref for Anchored {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect(TAKEN)
    }
}

impl DerefMut for Anchored {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect(TAKEN)
    }
}

impl Drop for Anchored {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            // Takes the connection itself out, and drops it.
            drop(connection.return_to_pool());
            drop_anywhere(connection, &self.runtime);
        }
    }
}

/// What is known of a leased connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// Ready for the next statement.
    Clean,
    /// A statement was sent and its end was not seen.
    Busy,
    /// It failed: not to be used again.
    Broken,
}

impl Condition {
    fn after<T>(outcome: Result<&T, &sqlx::Error>) -> Self {
        match outcome {
            Err(error) if breaks_connection(error) => Self::Broken,
            _ => Self::Clean,
        }
    }
}

/// A place among those who may hold a connection. Dropped, it is the next one's.
pub(super) struct Turn {
    leases: Arc<Leases>,
}

impl Turn {
    pub(super) fn new(leases: &Arc<Leases>, permit: SemaphorePermit<'_>) -> Self {
        permit.forget();
        Self { leases: Arc::clone(leases) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leases.turns.add_permits(1);
    }
}

/// A connection on loan. Dropped, it goes to the next caller.
pub(crate) struct Lease {
    // None only while `drop` runs, both of them.
    connection: Option<Anchored>,
    turn: Option<Turn>,
    condition: Condition,
    /// Whether what is prepared on it no longer fits the schema.
    stale: bool,
    /// Whether it was refused a write: not to be used before it was looked where writes go.
    refused: bool,
    /// Whether it may be inside of a transaction that a statement began by itself.
    doubtful: bool,
    tenure: Tenure,
    holder: usize,
}

impl Lease {
    pub(super) fn new(warm: Warm, holder: usize, turn: Turn) -> Self {
        Self {
            connection: Some(warm.connection),
            turn: Some(turn),
            condition: Condition::Clean,
            stale: false,
            refused: false,
            doubtful: false,
            tenure: warm.tenure,
            holder,
        }
    }

    /// A statement is about to be sent.
    pub(crate) fn begin_statement(&mut self) {
        self.condition = Condition::Busy;
    }

    /// A statement's end was seen.
    pub(crate) fn end_statement<T>(&mut self, outcome: Result<&T, &sqlx::Error>) {
        self.condition = Condition::after(outcome);
        self.refused |= outcome.is_err_and(refuses_writes);
    }

    /// Runs one statement, watched.
    pub(crate) async fn run<'l, T, F>(
        &'l mut self,
        statement: impl FnOnce(&'l mut PgConnection) -> F,
    ) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>> + 'l,
    {
        let limit = self.leases().answer_timeout();
        let Self { connection, condition, refused, .. } = self;
        *condition = Condition::Busy;
        let connection = connection.as_deref_mut().expect(TAKEN);
        let outcome = answered(limit, statement(connection)).await;
        *condition = Condition::after(outcome.as_ref());
        *refused |= outcome.as_ref().is_err_and(refuses_writes);
        outcome
    }

    /// It is not to be used again.
    pub(crate) fn condemn(&mut self) {
        self.condition = Condition::Broken;
    }

    /// A statement is about to be sent that may leave a transaction open.
    pub(crate) fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// Makes sure that the statement has left no transaction open: one round trip. Gives its outcome
    /// back. A connection that is inside of one, or did not say, is not used again.
    pub(crate) async fn settle<T>(
        &mut self,
        outcome: Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        if self.condition == Condition::Broken {
            return outcome;
        }
        match self.run(is_inside).await {
            Ok(false) => {
                self.doubtful = false;
                outcome
            }
            Ok(true) => outcome.and(Err(Error::TransactionControl.into_carrier())),
            Err(error) => outcome.and(Err(error)),
        }
    }

    /// What is prepared on it no longer fits the schema: it is forgotten when it comes back.
    pub(crate) fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// It was refused a write, as was seen by who works on it.
    pub(crate) fn mark_refused(&mut self) {
        self.refused = true;
    }

    /// Looks for whoever takes writes, because this one was refused one: [`Leases::leave`].
    pub(crate) fn leave(&self) -> impl Future<Output = bool> + Send + use<> {
        self.leases().leave(self.tenure.opened)
    }

    /// Drops what is prepared on it, in one round trip.
    pub(crate) async fn forget_statements(&mut self) -> Result<(), sqlx::Error> {
        self.leases().stale_all();
        self.run(|conn| conn.clear_cached_statements()).await
    }

    /// How far its server had come when it was last asked.
    pub(crate) fn reached(&self) -> Option<ReadToken> {
        self.tenure.reached
    }

    pub(crate) fn set_reached(&mut self, reached: ReadToken) {
        self.tenure.reached = Some(reached);
    }

    pub(crate) fn leases(&self) -> &Arc<Leases> {
        &self.turn.as_ref().expect(TAKEN).leases
    }
}

const TAKEN: &str = "the connection is taken only when the lease is dropped";

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_deref().expect(TAKEN)
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_deref_mut().expect(TAKEN)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(connection), Some(turn)) = (self.connection.take(), self.turn.take()) else {
            return;
        };
        let leases = &turn.leases;
        if self.doubtful {
            self.condition = Condition::Broken;
        }
        let open = PgTransactionManager::get_transaction_depth(&connection) > 0;
        // Until it is known whether it goes to the right server, it is out: it fails one call at most.
        let leaving = (self.refused && leases.hosts.are_for_writing())
            .then(|| leases.leave_soon(self.tenure.opened));
        match self.condition {
            // The connection first, then the turn: who waits for it finds the connection.
            Condition::Clean if !open && !self.stale && leaving.is_none() => {
                leases.keep(connection, self.tenure, Some(self.holder))
            }
            Condition::Broken => {
                leases.state().holders.remove(self.holder);
                // What broke it may have broken the others: one failure is enough.
                leases.suspect_all();
                drop(connection);
            }
            Condition::Clean | Condition::Busy => {
                leases.state().holders.remove(self.holder);
                let (tenure, stale) = (self.tenure, self.stale);
                if stale {
                    leases.stale_all();
                }
                connection.spawn(move |mut connection| async move {
                    while PgTransactionManager::get_transaction_depth(&connection) > 0 {
                        PgTransactionManager::start_rollback(&mut connection);
                    }
                    if let Ok(Ok(())) = timeout(RELEASE, made_ready(&mut connection, stale)).await {
                        if let Some(leaving) = leaving {
                            leaving.await;
                        }
                        turn.leases.keep(connection, tenure, None);
                    }
                    drop(turn);
                });
            }
        }
    }
}
