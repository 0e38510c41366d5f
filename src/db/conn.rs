//! Where a statement runs: on the pool, by itself, or in a unit of work.

use std::panic::Location;
use std::sync::Arc;

use either::Either;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::{FutureExt, TryStreamExt};
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Execute, Executor, PgConnection, Postgres, SqlStr};
use uuid::Uuid;

use super::actor::Actor;
use super::answer::{AnswerLimit, answered, breaks_connection, is_stale_plan, refuses_writes};
use super::error::Error;
use super::lease::{Lease, Leases};
use super::reader::CatchUp;
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
    /// Whether reads are run again when the connection breaks: those of the repositories, which are
    /// known to do nothing else.
    repeat_reads: bool,
    /// What a standby has to have reached first.
    catch_up: Option<CatchUp<'c>>,
}

impl<'c> Conn<'c> {
    pub(crate) fn pool(leases: &'c Arc<Leases>, place: &'static Location<'static>) -> Self {
        let source = Source::Pool(Pooled { leases, place, repeat_reads: false, catch_up: None });
        Self { source, owner: None }
    }

    pub(crate) fn standby(
        leases: &'c Arc<Leases>,
        place: &'static Location<'static>,
        catch_up: Option<CatchUp<'c>>,
    ) -> Self {
        let source = Source::Pool(Pooled { leases, place, repeat_reads: false, catch_up });
        Self { source, owner: None }
    }

    pub(crate) fn user(
        leases: &'c Arc<Leases>,
        actor: Actor,
        place: &'static Location<'static>,
    ) -> Self {
        let pooled = Pooled { leases, place, repeat_reads: false, catch_up: None };
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

    /// For a repository: its reads may be repeated.
    pub(crate) fn repeating_reads(mut self) -> Self {
        if let Source::Pool(pooled) | Source::User(pooled, _) = &mut self.source {
            pooled.repeat_reads = true;
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
    if state.standing() == Standing::Broken {
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

/// A statement, ready to be sent once more.
struct Statement {
    sql: SqlStr,
    arguments: Option<PgArguments>,
    persistent: bool,
    /// How often it may be sent again when its connection breaks.
    repeats: u8,
    /// Whether it may be sent again when its plan turns out to be stale.
    replan: bool,
    /// Whether it may be sent again when the server turns out to take no writes.
    reroute: bool,
}

/// How often a read is repeated: once for a connection that died unnoticed, once more for a server
/// that was still going down.
const REPEATS: u8 = 2;

impl Statement {
    fn new<'q>(
        mut query: impl Execute<'q, Postgres>,
        pooled: Pooled<'_>,
    ) -> Result<Self, sqlx::Error> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        let persistent = query.persistent();
        let sql = query.sql();
        let repeats =
            if pooled.repeat_reads && sql.as_str().starts_with("select") { REPEATS } else { 0 };
        // Without arguments it is sent as it stands, perhaps as several: nothing is planned ahead.
        let replan = arguments.is_some();
        Ok(Self { sql, arguments, persistent, repeats, replan, reroute: replan })
    }

    /// The arguments are copied while it may have to be sent again: that anything is stale shows only
    /// when the server has them, and the driver does not give them back. Measured: two allocations.
    fn attempt(&mut self) -> Attempt {
        Attempt {
            sql: self.sql.clone(),
            arguments: if self.repeats > 0 || self.replan || self.reroute {
                self.arguments.clone()
            } else {
                self.arguments.take()
            },
            persistent: self.persistent,
        }
    }

    /// Whether to send it again after this error, and where.
    fn again(&mut self, error: &sqlx::Error) -> Option<Again> {
        if is_stale_plan(error) {
            // The server has run nothing of it, so it may be one that writes.
            return std::mem::take(&mut self.replan).then_some(Again::Here);
        }
        if refuses_writes(error) {
            // Nor here.
            return std::mem::take(&mut self.reroute).then_some(Again::OnPrimary);
        }
        if self.repeats == 0 || !breaks_connection(error) {
            return None;
        }
        self.repeats -= 1;
        Some(Again::Elsewhere)
    }
}

/// Where a statement is sent once more.
enum Again {
    /// On the same connection, after it has forgotten what was prepared on it.
    Here,
    /// On another one.
    Elsewhere,
    /// On a connection to a server that takes writes, if there is one.
    OnPrimary,
}

struct Attempt {
    sql: SqlStr,
    arguments: Option<PgArguments>,
    persistent: bool,
}

impl Execute<'_, Postgres> for Attempt {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, sqlx::error::BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

type Step = Either<PgQueryResult, PgRow>;

impl Pooled<'_> {
    async fn fetch_optional<'q>(
        self,
        query: impl Execute<'q, Postgres>,
    ) -> Result<Option<PgRow>, sqlx::Error> {
        let mut statement = Statement::new(query, self)?;
        let mut lease = self.acquire().await?;
        loop {
            let outcome = lease.run(|conn| conn.fetch_optional(statement.attempt())).await;
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

    async fn fetch_optional_as<'q>(
        self,
        actor: Actor,
        query: impl Execute<'q, Postgres>,
    ) -> Result<Option<PgRow>, sqlx::Error> {
        let mut statement = Statement::new(query, self)?;
        let mut uow = self.begin_as(actor).await?;
        loop {
            match uow.executor().fetch_optional(statement.attempt()).await {
                Err(error) => uow = self.again_as(actor, uow, &mut statement, error).await?,
                Ok(row) => {
                    uow.commit().await.map_err(Error::into_carrier)?;
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
                let mut statement = Statement::new(query, pooled)?;
                let answer = pooled.leases.answer_timeout();
                let mut begun = false;
                let mut lease = pooled.acquire().await?;
                loop {
                    lease.begin_statement();
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
                    match ended {
                        Err(error) if !begun => {
                            lease = pooled.again(lease, &mut statement, error).await?;
                        }
                        ended => break ended?,
                    }
                }
            }),
            Source::User(pooled, actor) => Box::pin(async_stream::try_stream! {
                let mut statement = Statement::new(query, pooled)?;
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
                            break uow.commit().await.map_err(Error::into_carrier)?;
                        }
                    }
                }
            }),
            Source::Transaction(conn, state, answer) => Box::pin(async_stream::try_stream! {
                roll_back_abandoned(conn, state).await?;
                state.start()?;
                let mut steps = conn.fetch_many(query);
                loop {
                    match answered(answer, steps.try_next()).await {
                        Ok(Some(step)) => yield step,
                        Ok(None) => break,
                        Err(error) => {
                            state.failed(&error);
                            Err(error)?;
                        }
                    }
                }
                state.succeeded();
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
                roll_back_abandoned(conn, state).await?;
                state.start()?;
                let row = answered(answer, conn.fetch_optional(query)).await;
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
