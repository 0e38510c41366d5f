//! Where a statement runs: on the pool, by itself, or in a unit of work.

use either::Either;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future, stream};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Execute, Executor, PgConnection, PgPool, Postgres, SqlStr};

use super::transaction_state::{Standing, TransactionState};

/// The connection source of a repository: the pool (each statement commits by itself) or a unit of
/// work (they commit together).
///
/// It is an [`Executor`](sqlx::Executor), so an application's own `query!` runs on it as well; see
/// [`UnitOfWork::executor`](crate::UnitOfWork::executor). Inside a unit of work it watches how
/// statements end: that is how the unit knows, without asking, that a COMMIT would be refused.
pub struct Conn<'c>(Source<'c>);

enum Source<'c> {
    Pool(&'c PgPool),
    Transaction(&'c mut PgConnection, &'c TransactionState),
}

impl<'c> Conn<'c> {
    pub(crate) fn pool(pool: &'c PgPool) -> Self {
        Self(Source::Pool(pool))
    }

    /// The same source for one statement, where a method needs several.
    pub(crate) fn reborrow(&mut self) -> Conn<'_> {
        match &mut self.0 {
            Source::Pool(pool) => Conn::pool(pool),
            Source::Transaction(conn, state) => Conn::transaction(conn, state),
        }
    }

    pub(crate) fn transaction(conn: &'c mut PgConnection, state: &'c TransactionState) -> Self {
        Self(Source::Transaction(conn, state))
    }
}

impl std::fmt::Debug for Conn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Source::Pool(_) => "Conn::Pool",
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

type Step = Either<PgQueryResult, PgRow>;

impl<'c> Executor<'c> for Conn<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (conn, state) = match self.0 {
            Source::Pool(pool) => return pool.fetch_many(query),
            Source::Transaction(conn, state) => (conn, state),
        };
        if state.has_abandoned() {
            return stream::once(async move {
                roll_back_abandoned(conn, state).await?;
                Ok::<_, sqlx::Error>(Conn::transaction(conn, state).fetch_many(query))
            })
            .try_flatten()
            .boxed();
        }
        if let Err(error) = state.start() {
            return stream::once(future::ready(Err(error))).boxed();
        }
        let mut intact = true;
        let ended = stream::once(future::ready(()));
        conn.fetch_many(query)
            .map(Some)
            .chain(ended.map(|()| None))
            .filter_map(move |step| {
                match &step {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        intact = false;
                        state.failed(error);
                    }
                    None if intact => state.succeeded(),
                    None => {}
                }
                future::ready(step)
            })
            .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.0 {
            Source::Pool(pool) => pool.fetch_optional(query),
            Source::Transaction(conn, state) => async move {
                roll_back_abandoned(conn, state).await?;
                state.start()?;
                let row = conn.fetch_optional(query).await;
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
        match self.0 {
            Source::Pool(pool) => pool.prepare_with(sql, parameters),
            Source::Transaction(conn, state) => async move {
                roll_back_abandoned(conn, state).await?;
                state.start()?;
                let statement = conn.prepare_with(sql, parameters).await;
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
        match self.0 {
            Source::Pool(pool) => pool.describe(sql),
            Source::Transaction(conn, state) => async move {
                roll_back_abandoned(conn, state).await?;
                state.start()?;
                let description = conn.describe(sql).await;
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
