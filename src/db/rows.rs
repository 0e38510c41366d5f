//! The rows of one statement, of which one that can't be read costs none of the others.
//!
//! The driver ends a list at the first row that it can't turn into its type. Here the rows stay when
//! that happens: the statement's mapping is made anew and goes on with the row after.

use std::task::{Poll, ready};

use chrono::{DateTime, Utc};
use either::Either;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future, stream};
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::query::Map;
use sqlx::{Column, Execute, Executor, Postgres, Row, SqlStr, Type};
use uuid::Uuid;

use super::conn::Conn;
use super::error::{Error, Result, UnreadableRow};

/// The rows of a statement that could be read, and those that could not.
pub(crate) struct Listed<T> {
    pub items: Vec<T>,
    pub lost: Vec<Lost>,
}

/// A row that could not be read.
pub(crate) struct Lost {
    /// How many rows came before it.
    pub position: usize,
    /// Its identifier, where its key is one.
    pub id: Option<Uuid>,
    /// The time that the list is ordered by.
    pub time: Option<DateTime<Utc>>,
    pub row: UnreadableRow,
    pub error: sqlx::Error,
}

impl<T> From<Vec<T>> for Listed<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items, lost: Vec::new() }
    }
}

/// Runs a statement that lists rows of a table. The first column is the row's key; those that can't be
/// read are left out and told in the log. When none can, that is the error: there are rows, and an
/// empty list would say that there are none.
pub(crate) async fn all<'q, F, O>(
    conn: Conn<'_>,
    table: &'static str,
    statement: impl Fn() -> Map<'q, Postgres, F, PgArguments>,
) -> Result<Vec<O>>
where
    F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
    O: Send + Unpin,
{
    let mut listed = listed(conn, table, None, statement).await?;
    match listed.lost.pop() {
        Some(lost) if listed.items.is_empty() => Err(Error::unreadable(lost.row, lost.error)),
        _ => Ok(listed.items),
    }
}

/// The same, and tells which were left out; `time` is the column that a page is ordered by.
pub(crate) async fn listed<'q, F, O>(
    conn: Conn<'_>,
    table: &'static str,
    time: Option<&'static str>,
    statement: impl Fn() -> Map<'q, Postgres, F, PgArguments>,
) -> Result<Listed<O>>
where
    F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
    O: Send + Unpin,
{
    let mut rows = Rows::new(conn, table, time);
    let mut listed = Listed::from(Vec::new());
    loop {
        let mut items = statement().fetch(&mut rows);
        let error = loop {
            match items.try_next().await {
                Ok(Some(item)) => listed.items.push(item),
                Ok(None) => return Ok(listed),
                Err(error) => break error,
            }
        };
        drop(items);
        let mut lost = rows.lost(error)?;
        lost.position = listed.items.len() + listed.lost.len();
        tell(&lost.row);
        listed.lost.push(lost);
    }
}

/// Tells the log of a row that is left out because it can't be read.
pub(crate) fn tell(row: &UnreadableRow) {
    tracing::error!(
        target: "chancery",
        event = "database.row_unreadable",
        table = row.table,
        id = row.id,
        column = row.column,
        "a stored row can't be read and was left out"
    );
}

/// The same, row by row as they come; one that can't be read is an error in its place.
pub(crate) fn stream<'c, F, O>(
    conn: Conn<'c>,
    table: &'static str,
    statement: impl Fn() -> Map<'c, Postgres, F, PgArguments> + Send + 'c,
) -> BoxStream<'c, Result<O>>
where
    F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send + 'c,
    O: Send + Unpin + 'c,
{
    Box::pin(async_stream::stream! {
        let mut rows = Rows::new(conn, table, None);
        loop {
            let mut items = statement().fetch(&mut rows);
            let error = loop {
                match items.try_next().await {
                    Ok(Some(item)) => yield Ok(item),
                    Ok(None) => return,
                    Err(error) => break error,
                }
            };
            drop(items);
            match rows.lost(error) {
                Ok(lost) => yield Err(Error::unreadable(lost.row, lost.error)),
                Err(error) => {
                    yield Err(error);
                    return;
                }
            }
        }
    })
}

/// Runs a statement that reads one row. Only when that row can't be read is it run again, to tell which
/// one it was.
pub(crate) async fn one<'q, F, O>(
    mut conn: Conn<'_>,
    table: &'static str,
    statement: impl Fn() -> Map<'q, Postgres, F, PgArguments>,
) -> Result<Option<O>>
where
    F: FnMut(PgRow) -> Result<O, sqlx::Error> + Send,
    O: Send + Unpin,
{
    match statement().fetch_optional(conn.reborrow()).await {
        Err(error) if is_unreadable(&error) => {
            let mut rows = Rows::new(conn, table, None);
            let again = statement().fetch(&mut rows).try_next().await;
            match again {
                Ok(item) => Ok(item),
                Err(error) => {
                    let lost = rows.lost(error)?;
                    Err(Error::unreadable(lost.row, lost.error))
                }
            }
        }
        outcome => Ok(outcome?),
    }
}

fn is_unreadable(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))
}

type Steps<'c> = BoxStream<'c, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>;

/// An executor that runs the first statement that it is given, and goes on with that one's rows for
/// those that follow.
struct Rows<'c> {
    table: &'static str,
    time: Option<&'static str>,
    conn: Option<Conn<'c>>,
    steps: Option<Steps<'c>>,
    /// The names of the columns, each with a zero behind it: none can hold one.
    columns: String,
    /// Whether the key is an identifier, and where the time is.
    has_id: bool,
    time_at: Option<usize>,
    last: Last,
}

/// How long the names of a row's columns mostly are at most, together.
const NAMES: usize = 256;

/// What is known of the row that came last. Copied, because the driver reads into the same buffer again
/// only when nothing holds on to a row's bytes.
#[derive(Default)]
struct Last {
    id: Option<Uuid>,
    /// The key where it is no identifier.
    key: String,
    time: Option<DateTime<Utc>>,
}

impl<'c> Rows<'c> {
    fn new(conn: Conn<'c>, table: &'static str, time: Option<&'static str>) -> Self {
        Self {
            table,
            time,
            conn: Some(conn),
            steps: None,
            columns: String::new(),
            has_id: false,
            time_at: None,
            last: Last::default(),
        }
    }

    /// The row that came last, if it is what the error is about.
    fn lost(&mut self, error: sqlx::Error) -> Result<Lost> {
        let sqlx::Error::ColumnDecode { index, .. } = &error else { return Err(error.into()) };
        if self.columns.is_empty() {
            return Err(error.into());
        }
        // The macros ask by number.
        let column = index.parse().ok().and_then(|index| self.columns.split('\0').nth(index));
        let column = column.unwrap_or_else(|| index.trim_matches('"'));
        // And what they are told of its type is part of its name.
        let column = column.split([':', '!', '?']).next().unwrap_or_default().to_owned();
        let Last { id, key, time } = &self.last;
        let row = UnreadableRow {
            table: self.table,
            id: id.map_or_else(|| key.clone(), |id| id.to_string()),
            column,
        };
        Ok(Lost { position: 0, id: *id, time: *time, row, error })
    }

    /// Of each row, so it has to be cheap: most are read.
    fn note(&mut self, row: &PgRow) {
        if self.columns.is_empty() {
            self.columns.reserve(NAMES);
            for column in row.columns() {
                self.columns.push_str(column.name());
                self.columns.push('\0');
            }
            let key = row.columns().first().map(Column::type_info);
            self.has_id = key.is_some_and(|key| *key == Uuid::type_info());
            self.time_at =
                self.time.and_then(|time| row.columns().iter().position(|c| c.name() == time));
        }
        if self.has_id {
            self.last.id = row.try_get_unchecked(0).ok();
        } else {
            self.last.key.clear();
            self.last.key.push_str(row.try_get_unchecked(0).unwrap_or_default());
        }
        self.last.time = self.time_at.and_then(|at| row.try_get_unchecked(at).ok());
    }
}

impl std::fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("table", &self.table).finish_non_exhaustive()
    }
}

impl<'r, 'c: 'r> Executor<'r> for &'r mut Rows<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, mut query: E) -> Steps<'e>
    where
        'r: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if let Some(conn) = self.conn.take() {
            let arguments = match query.take_arguments() {
                Ok(arguments) => arguments.unwrap_or_default(),
                Err(error) => {
                    return Box::pin(stream::once(future::err(sqlx::Error::Encode(error))));
                }
            };
            let persistent = query.persistent();
            let statement = sqlx::query_with(query.sql(), arguments).persistent(persistent);
            self.steps = Some(conn.fetch_many(statement));
        }
        Box::pin(stream::poll_fn(move |context| {
            let Some(steps) = &mut self.steps else { return Poll::Ready(None) };
            let step = ready!(steps.poll_next_unpin(context));
            if let Some(Ok(Either::Right(row))) = &step {
                self.note(row);
            }
            Poll::Ready(step)
        }))
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'r: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let mut rows = self.fetch(query);
        async move { rows.try_next().await }.boxed()
    }

    fn prepare_with<'e>(
        self,
        _: SqlStr,
        _: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'r: 'e,
    {
        future::err(only_runs()).boxed()
    }

    #[doc(hidden)]
    fn describe<'e>(self, _: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, sqlx::Error>>
    where
        'r: 'e,
    {
        future::err(only_runs()).boxed()
    }
}

fn only_runs() -> sqlx::Error {
    sqlx::Error::Protocol("the rows of a statement prepare no other".into())
}
