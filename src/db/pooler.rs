//! Whether a pooler stands between, and whether prepared statements survive it.
//!
//! A pooler in transaction mode gives a client another server for each transaction. The driver's
//! prepared statements then are those of another client, unless the pooler keeps track of them: the
//! answers would be another statement's. So it is found out before the first one is used.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection, Postgres, QueryBuilder, Row, SqlStr};
use tokio::time::timeout;

use super::attempt::ConnectLimits;
use super::error::{Error, Result};
use super::hosts::Host;

/// What stands between the application and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PoolerMode {
    /// It is found out when connecting: a server, a pooler that keeps track of prepared statements,
    /// or one that does not, which is refused ([`Error::UnsafePooler`]).
    #[default]
    Detect,
    /// Nothing, or a pooler in session mode: each connection is a session of its own.
    Direct,
    /// A pooler in transaction mode that is known to keep track of prepared statements: PgBouncer 1.21
    /// or later with `max_prepared_statements` above zero, for example. Nothing is tried.
    Transaction,
}

impl FromStr for PoolerMode {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        match text {
            "detect" => Ok(Self::Detect),
            "direct" => Ok(Self::Direct),
            "transaction" => Ok(Self::Transaction),
            _ => Err(()),
        }
    }
}

/// Why a pooler can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolerFault {
    /// It switches servers and does not keep track of prepared statements.
    PreparedStatements,
    /// The URL has settings for the session (`options`), and the pooler's sessions are shared.
    SessionSettings,
}

impl fmt::Display for PoolerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PreparedStatements => {
                "it gives each transaction another server and does not keep track of prepared \
                 statements, so that one caller would get another's answers; use PgBouncer 1.21 or \
                 later with max_prepared_statements above 0, or another pooler that tracks them, or \
                 session mode, or connect to the server itself"
            }
            Self::SessionSettings => {
                "the URL's options can't be set through it; use `alter role … set` instead, or connect \
                 to the server itself"
            }
        })
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Each connection has one of its own.
    Own,
    /// They are shared: a connection has one for as long as a transaction lasts.
    Shared,
}

/// The setting that a session has if it began with what this connection asked for.
const MARK: &str = "chancery.connection";
/// How often the servers are made to change places.
const ROUNDS: u32 = 3;
/// How long a pooler may take to find a server while one connection holds another.
const PATIENCE: Duration = Duration::from_millis(500);

/// Finds out how things stand.
pub(crate) async fn detect(host: &Host, limits: ConnectLimits) -> Result<Sessions> {
    let limit = limits.reach;
    let mark = fastrand::u64(..).to_string();
    let marked = host.options.clone().options([(MARK, &mark)]);
    let started = Instant::now();
    match limits.connect(&marked, host).await {
        Ok(mut connection) => {
            let own = bounded(host, limit, is_own(&mut connection, &mark, started)).await;
            connection.close().await.ok();
            if own? {
                return Ok(Sessions::Own);
            }
        }
        Err(Error::ConnectionLost(refused)) if refuses_settings(refused.as_sqlx()) => {}
        Err(error) => return Err(error),
    }
    let fault = |fault| Error::UnsafePooler { address: host.target.address.clone(), fault };
    if host.has_options_of_its_own {
        return Err(fault(PoolerFault::SessionSettings));
    }
    let mut pair = Pair {
        one: Probe::new(limits.connect(&host.bare, host).await?),
        other: Probe::new(limits.connect(&host.bare, host).await?),
    };
    let keeps_track = bounded(host, limit.max(Duration::from_secs(10)), pair.keeps_track()).await?;
    // Without a farewell: one of them may be in the midst of something.
    drop(pair);
    if keeps_track { Ok(Sessions::Shared) } else { Err(fault(PoolerFault::PreparedStatements)) }
}

async fn bounded<T>(
    host: &Host,
    limit: Duration,
    work: impl Future<Output = std::result::Result<T, sqlx::Error>>,
) -> Result<T> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(|error| Error::from_connect(error, &host.target)),
        Err(_) => {
            Err(Error::ConnectTimeout { address: host.target.address.clone(), timeout: limit })
        }
    }
}

/// Whether an attempt to connect was refused for its settings, as PgBouncer does (08P01).
pub(crate) fn refuses_settings(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(e) if e.code().as_deref() == Some("08P01"))
}

/// Whether the session is the one that this connection began: it has the mark, and is no older.
///
/// The age is for poolers that carry settings from server to server.
async fn is_own(
    connection: &mut PgConnection,
    mark: &str,
    started: Instant,
) -> std::result::Result<bool, sqlx::Error> {
    let row = connection
        .fetch_optional(
            "select current_setting('chancery.connection', true),
                    extract(epoch from clock_timestamp() - backend_start)::float8
               from pg_stat_activity
              where pid = pg_backend_pid()",
        )
        .await?;
    let Some(row) = row else { return Ok(false) };
    let (marked, age): (Option<String>, f64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(marked.as_deref() == Some(mark) && age <= started.elapsed().as_secs_f64())
}

/// Two connections, each with a prepared statement that only it has.
struct Pair {
    one: Probe,
    other: Probe,
}

struct Probe {
    connection: PgConnection,
    statement: SqlStr,
    expected: i64,
}

impl Probe {
    fn new(connection: PgConnection) -> Self {
        // A text that no server has seen: one that is known would be found, whoever prepared it.
        let expected = fastrand::i64(0..);
        let mut statement = QueryBuilder::<Postgres>::new("select ");
        statement.push(expected).push("::bigint");
        Self { connection, statement: statement.into_sql(), expected }
    }

    /// Runs the statement as the repositories do theirs. Whether its own answer came.
    async fn asks(&mut self) -> std::result::Result<bool, sqlx::Error> {
        let answer = sqlx::query_scalar::<_, i64>(self.statement.clone())
            .fetch_one(&mut self.connection)
            .await;
        match answer {
            Ok(answer) => Ok(answer == self.expected),
            Err(sqlx::Error::Database(error)) => {
                // There is none of this name, or one already, or it has other parameters.
                match error.code().as_deref() {
                    Some("26000" | "42P05" | "08P01" | "0A000") => Ok(false),
                    _ => Err(sqlx::Error::Database(error)),
                }
            }
            Err(
                sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::Protocol(_),
            ) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a server, until [`releases`](Self::releases).
    async fn pins(&mut self) -> std::result::Result<(), sqlx::Error> {
        self.connection.execute("begin; select").await.map(drop)
    }

    async fn releases(&mut self) -> std::result::Result<(), sqlx::Error> {
        self.connection.execute("rollback").await.map(drop)
    }
}

impl Pair {
    /// Whether both get their own answers, whichever server they are given.
    async fn keeps_track(&mut self) -> std::result::Result<bool, sqlx::Error> {
        // With one server between them the names clash at once.
        for _ in 0..2 {
            if !self.one.asks().await? || !self.other.asks().await? {
                return Ok(false);
            }
        }
        for round in 0..ROUNDS * 4 {
            let Self { one, other } = self;
            // Both hold a server. Which of the two is free first, and who then takes it, are all four
            // cases in turn, whether the pooler hands out the last one or the first.
            one.pins().await?;
            let Ok(held) = timeout(PATIENCE, other.pins()).await else {
                // There is no second server, or none is free; what was seen so far has to do.
                tracing::debug!(target: "chancery", "the pooler has one server, or no other is free");
                return Ok(true);
            };
            held?;
            let (first, second) = if round & 1 == 0 { (one, other) } else { (other, one) };
            first.releases().await?;
            second.releases().await?;
            let (pins, asks) = if round & 2 == 0 { (first, second) } else { (second, first) };
            pins.pins().await?;
            let answer = timeout(PATIENCE, asks.asks()).await;
            pins.releases().await?;
            // None in time: its server is the one that is held, and there is no other.
            let Ok(answer) = answer else { return Ok(true) };
            if !answer? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
