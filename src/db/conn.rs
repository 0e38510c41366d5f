//! Where a statement runs: on the pool, by itself, or in a unit of work.

use std::panic::Location;
use std::sync::Arc;

use either::Either;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::{FutureExt, TryStreamExt};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Execute, Executor, PgConnection, Postgres, SqlStr};
use uuid::Uuid;

use super::actor::Actor;
use super::answer::{AnswerLimit, answered, was_left_open};
use super::boundary::{note_beginning, still_inside};
use super::error::Error;
use super::lease::{Lease, Leases};
use super::reader::CatchUp;
use super::statement::{Again, Attempt, Statement};
use super::transaction::TransactionOptions;
use super::transaction_state::{Standing, TransactionState};
use super::unit_of_work::UnitOfWork;

/// The connection source of a repository: the pool (each statement commits by itself, maybe as a
/// user's) or a unit of work (they commit together).
///
/// It is an [`Executor`](sqlx::Executor), so an application's own `query!` runs on it as well:
/// [`Database::executor`](crate::Database::executor),
/// [`UnitOfWork::executor`](crate::UnitOfWork::executor). Inside a unit of work it watches how
/// statements end: that is how the unit knows, without asking, that a COMMIT would be refused.
pub struct Conn<'c> {
    source: Source<'c>,
    /// Whose rows the repositories' statements are about, where that is known.
    owner: Option<Uuid>,
}

enum Source<'c> {
    Pool(Pooled<'c>),
    User(Pooled<'c>, Actor),
    Transaction(&'c mut PgConnection, &'c TransactionState, AnswerLimit),
}

#[derive(Clone, Copy)]
struct Pooled<'c> {
    leases: &'c Arc<Leases>,
    place: &'static Location<'static>,
    /// Whether the statement is sent again when the connection breaks.
    repeatable: bool,
    /// What a standby has to have reached first.
    catch_up: Option<CatchUp<'c>>,
}

impl<'c> Conn<'c> {
    pub(crate) fn pool(leases: &'c Arc<Leases>, place: &'static Location<'static>) -> Self {
        let source = Source::Pool(Pooled { leases, place, repeatable: false, catch_up: None });
        Self { source, owner: None }
    }

    pub(crate) fn standby(
        leases: &'c Arc<Leases>,
        place: &'static Location<'static>,
        catch_up: Option<CatchUp<'c>>,
    ) -> Self {
        let source = Source::Pool(Pooled { leases, place, repeatable: false, catch_up });
        Self { source, owner: None }
    }

    pub(crate) fn user(
        leases: &'c Arc<Leases>,
        actor: Actor,
        place: &'static Location<'static>,
    ) -> Self {
        let pooled = Pooled { leases, place, repeatable: false, catch_up: None };
        Self { source: Source::User(pooled, actor), owner: Some(actor.user_id()) }
    }

    pub(crate) fn transaction(
        conn: &'c mut PgConnection,
        state: &'c TransactionState,
        answer: AnswerLimit,
        owner: Option<Uuid>,
    ) -> Self {
        Self { source: Source::Transaction(conn, state, answer), owner }
    }

    pub(crate) fn owner(&self) -> Option<Uuid> {
        self.owner
    }

    pub(crate) fn owned_by(mut self, owner: Option<Uuid>) -> Self {
        self.owner = owner;
        self
    }

    /// For a statement that only reads: it is sent again when the connection breaks. Without this none
    /// is, because nobody knows what it has done.
    pub(crate) fn repeatable(mut self) -> Self {
        if let Source::Pool(pooled) | Source::User(pooled, _) = &mut self.source {
            pooled.repeatable = true;
        }
        self
    }

    /// Begins a unit of work that does what would have been done here; none inside of one.
    pub(crate) async fn begin(&self) -> super::error::Result<Option<UnitOfWork>> {
        let options = TransactionOptions::default();
        let (pooled, options) = match &self.source {
            Source::Pool(pooled) => (pooled, options),
            Source::User(pooled, actor) => (pooled, options.acting_as(*actor)),
            Source::Transaction(..) => return Ok(None),
        };
        UnitOfWork::begin_on(pooled.leases, options, pooled.place).await.map(Some)
    }

    /// The same source for one statement, where a method needs several.
    pub(crate) fn reborrow(&mut self) -> Conn<'_> {
        let source = match &mut self.source {
            Source::Pool(pooled) => Source::Pool(*pooled),
            Source::User(pooled, actor) => Source::User(*pooled, *actor),
            Source::Transaction(conn, state, answer) => Source::Transaction(conn, state, *answer),
        };
        Conn { source, owner: self.owner }
    }
}

impl std::fmt::Debug for Conn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.source {
            Source::Pool(_) => "Conn::Pool",
            Source::User(..) => "Conn::User",
            Source::Transaction(..) => "Conn::Transaction",
        })
    }
}

/// Undoes savepoints that were dropped, so that the next statement does not run inside them.
pub(crate) async fn roll_back_abandoned(
    conn: &mut PgConnection,
    state: &TransactionState,
) -> Result<(), sqlx::Error> {
    if !state.has_abandoned() {
        return Ok(());
    }
    if matches!(state.standing(), Standing::Broken | Standing::Ended) {
        return state.start();
    }
    // Broken until all of them are undone: this future may be dropped half-way.
    state.set(Standing::Broken);
    for _ in 0..state.take_abandoned() {
        conn.execute("rollback to savepoint chancery; release savepoint chancery").await?;
    }
    state.rolled_back_to_savepoint();
    Ok(())
}

type Step = Either<PgQueryResult, PgRow>;

impl Pooled<'_> {
    async fn fetch_optional<'q>(
        self,
        query: impl Execute<'q, Postgres>,
    ) -> Result<Option<PgRow>, sqlx::Error> {
        let mut statement = Statement::new(query, self.repeatable)?;
        let mut lease = self.acquire().await?;
        loop {
            let outcome = if statement.may_begin() {
                lease.doubt();
                let outcome = lease.run(|conn| conn.fetch_optional(statement.attempt())).await;
                Box::pin(lease.settle(outcome)).await
            } else {
                lease.run(|conn| conn.fetch_optional(statement.attempt())).await
            };
            match outcome {
                // Rare, so boxed: the future of every call would hold it.
                Err(error) => lease = Box::pin(self.again(lease, &mut statement, error)).await?,
                row => return row,
            }
        }
    }

    async fn acquire(self) -> Result<Lease, sqlx::Error> {
        let lease = match self.catch_up {
            None => self.leases.acquire(self.place).await,
            // Boxed like what is rare: calls on the primary would hold it.
            Some(catch_up) => Box::pin(catch_up.acquire(self.leases, self.place)).await,
        };
        lease.map_err(Error::into_carrier)
    }

    /// The connection on which a statement that failed is sent again, or its error.
    async fn again(
        self,
        mut lease: Lease,
        statement: &mut Statement,
        error: sqlx::Error,
    ) -> Result<Lease, sqlx::Error> {
        if was_left_open(&error) {
            lease.condemn();
        }
        match statement.again(&error) {
            None => return Err(error),
            Some(Again::Here) if lease.forget_statements().await.is_ok() => return Ok(lease),
            Some(Again::Here | Again::Elsewhere) => self.leases.suspect_all(),
            Some(Again::OnPrimary) => {
                let leaving = lease.leave();
                drop(lease);
                return if leaving.await { self.acquire().await } else { Err(error) };
            }
        }
        drop(lease);
        self.acquire().await
    }

    /// A transaction for one statement of a user's.
    async fn begin_as(self, actor: Actor) -> Result<UnitOfWork, sqlx::Error> {
        let options = TransactionOptions::default().acting_as(actor);
        let begun = UnitOfWork::begin_on(self.leases, options, self.place).await;
        begun.map_err(Error::into_carrier)
    }

    /// The transaction in which a user's statement that failed is sent again, or its error.
    async fn again_as(
        self,
        actor: Actor,
        failed: UnitOfWork,
        statement: &mut Statement,
        error: sqlx::Error,
    ) -> Result<UnitOfWork, sqlx::Error> {
        let leaving = failed.leave();
        drop(failed);
        match statement.again(&error) {
            None => return Err(error),
            // As the unit of work is dropped, its connection forgets what was prepared on it.
            Some(Again::Here) => {}
            Some(Again::Elsewhere) => self.leases.suspect_all(),
            Some(Again::OnPrimary) => {
                let left = match leaving {
                    Some(leaving) => leaving.await,
                    None => false,
                };
                if !left {
                    return Err(error);
                }
            }
        }
        self.begin_as(actor).await
    }

    /// Ends the transaction of a user's statement that succeeded.
    async fn end_as(self, uow: UnitOfWork) -> Result<(), sqlx::Error> {
        match uow.commit().await {
            // What only reads has nothing to store.
            Err(Error::CommitUnknown { .. }) if self.repeatable => {
                self.leases.suspect_all();
                Ok(())
            }
            ended => ended.map_err(Error::into_carrier),
        }
    }

    async fn fetch_optional_as<'q>(
        self,
        actor: Actor,
        query: impl Execute<'q, Postgres>,
    ) -> Result<Option<PgRow>, sqlx::Error> {
        let mut statement = Statement::new(query, self.repeatable)?;
        let mut uow = self.begin_as(actor).await?;
        loop {
            match uow.executor().fetch_optional(statement.attempt()).await {
                Err(error) => uow = self.again_as(actor, uow, &mut statement, error).await?,
                Ok(row) => {
                    self.end_as(uow).await?;
                    return Ok(row);
                }
            }
        }
    }

    async fn prepare(
        self,
        sql: SqlStr,
        parameters: &[PgTypeInfo],
    ) -> Result<PgStatement, sqlx::Error> {
        let mut lease = self.acquire().await?;
        lease.run(|conn| conn.prepare_with(sql, parameters)).await
    }
}

impl<'c> Executor<'c> for Conn<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.source {
            Source::Pool(pooled) => Box::pin(async_stream::try_stream! {
                let mut statement = Statement::new(query, pooled.repeatable)?;
                let answer = pooled.leases.answer_timeout();
                let mut begun = false;
                let mut lease = pooled.acquire().await?;
                loop {
                    lease.begin_statement();
                    if statement.may_begin() {
                        lease.doubt();
                    }
                    let mut steps = (*lease).fetch_many(statement.attempt());
                    let ended = loop {
                        match answered(answer, steps.try_next()).await {
                            Ok(Some(step)) => {
                                begun = true;
                                yield step;
                            }
                            Ok(None) => break Ok(()),
                            Err(error) => break Err(error),
                        }
                    };
                    drop(steps);
                    lease.end_statement(ended.as_ref());
                    let ended = if statement.may_begin() {
                        Box::pin(lease.settle(ended)).await
                    } else {
                        ended
                    };
                    match ended {
                        Err(error) if !begun => {
                            lease = pooled.again(lease, &mut statement, error).await?;
                        }
                        ended => break ended?,
                    }
                }
            }),
            Source::User(pooled, actor) => Box::pin(async_stream::try_stream! {
                let mut statement = Statement::new(query, pooled.repeatable)?;
                let mut begun = false;
                let mut uow = pooled.begin_as(actor).await?;
                loop {
                    let mut steps = uow.executor().fetch_many(statement.attempt());
                    let ended = loop {
                        match steps.try_next().await {
                            Ok(Some(step)) => {
                                begun = true;
                                yield step;
                            }
                            Ok(None) => break Ok(()),
                            Err(error) => break Err(error),
                        }
                    };
                    drop(steps);
                    match ended {
                        Err(error) if !begun => {
                            uow = pooled.again_as(actor, uow, &mut statement, error).await?;
                        }
                        ended => {
                            ended?;
                            break pooled.end_as(uow).await?;
                        }
                    }
                }
            }),
            Source::Transaction(conn, state, answer) => Box::pin(async_stream::try_stream! {
                let statement = Attempt::new(query)?;
                let may_end = statement.may_end();
                roll_back_abandoned(conn, state).await?;
                if may_end {
                    Box::pin(note_beginning(conn, state, answer)).await?;
                }
                state.start()?;
                let mut steps = conn.fetch_many(statement);
                let ended = loop {
                    match answered(answer, steps.try_next()).await {
                        Ok(Some(step)) => yield step,
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                };
                drop(steps);
                let ended = observe(state, ended);
                if may_end {
                    Box::pin(still_inside(conn, state, answer, ended)).await?;
                } else {
                    ended?;
                }
            }),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.source {
            Source::Pool(pooled) => pooled.fetch_optional(query).boxed(),
            Source::User(pooled, actor) => pooled.fetch_optional_as(actor, query).boxed(),
            Source::Transaction(conn, state, answer) => async move {
                let statement = Attempt::new(query)?;
                roll_back_abandoned(conn, state).await?;
                if statement.may_end() {
                    // Rare, so boxed: the future of every call would hold it.
                    return Box::pin(async {
                        note_beginning(conn, state, answer).await?;
                        state.start()?;
                        let row = answered(answer, conn.fetch_optional(statement)).await;
                        still_inside(conn, state, answer, observe(state, row)).await
                    })
                    .await;
                }
                state.start()?;
                let row = answered(answer, conn.fetch_optional(statement)).await;
                observe(state, row)
            }
            .boxed(),
        }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        match self.source {
            // Nothing is read: the statement's own run has the role.
            Source::Pool(pooled) | Source::User(pooled, _) => {
                pooled.prepare(sql, parameters).boxed()
            }
            Source::Transaction(conn, state, answer) => async move {
                roll_back_abandoned(conn, state).await?;
                state.start()?;
                let statement = answered(answer, conn.prepare_with(sql, parameters)).await;
                observe(state, statement)
            }
            .boxed(),
        }
    }

    #[doc(hidden)]
    fn describe<'e>(
        self,
        sql: SqlStr,
    ) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        match self.source {
            Source::Pool(pooled) | Source::User(pooled, _) => async move {
                let mut lease = pooled.acquire().await?;
                lease.run(|conn| conn.describe(sql)).await
            }
            .boxed(),
            Source::Transaction(conn, state, answer) => async move {
                roll_back_abandoned(conn, state).await?;
                state.start()?;
                let description = answered(answer, conn.describe(sql)).await;
                observe(state, description)
            }
            .boxed(),
        }
    }
}

fn observe<T>(state: &TransactionState, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
    match &result {
        Ok(_) => state.succeeded(),
        Err(error) => state.failed(error),
    }
    result
}
