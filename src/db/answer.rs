//! How statements end: in time or not, and whether their connection is still good.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use sqlx::postgres::PgDatabaseError;
use tokio::time::{Sleep, sleep};

use super::error::Error;

/// Whether the server hung up in the midst of connecting, as one that is going down does; the pool
/// itself only tries again when it is refused or told that the server is starting.
pub(crate) fn hangs_up(error: &sqlx::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        sqlx::Error::Io(e) => {
            matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        }
        // In place of an answer to the request for TLS: the driver takes the end for a byte of zero.
        sqlx::Error::Protocol(said) => {
            said.starts_with("unexpected response from SSLRequest: 0x00")
        }
        _ => false,
    }
}

/// Whether the server refused to bind a prepared statement because what it returns has another type
/// by now: "cached plan must not change result type". Nothing of it has run then.
///
/// Its SQLSTATE says no more than "not supported"; the routine that reports it does, in every
/// language. Context of more than one line means that SQL inside of a function executed what SQL had
/// prepared: a procedure may have committed something before. (One line is there at most otherwise:
/// the parameters, when the server is set to tell them.)
pub(crate) fn is_stale_plan(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.try_downcast_ref::<PgDatabaseError>().is_some_and(|e| {
        e.code() == "0A000"
            && e.routine() == Some("RevalidateCachedQuery")
            && e.r#where().is_none_or(|context| context.lines().count() < 2)
    })
}

/// Whether the transaction that the session is inside of had failed before.
pub(crate) fn is_aborted(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(e) if e.code().as_deref() == Some("25P02"))
}

/// Whether the server refused to look at a statement because the session is inside of a transaction
/// that failed: for one that was sent outside of any, somebody had left it open. Nothing of it has run.
///
/// The routine tells it from a function that raises the same SQLSTATE.
pub(crate) fn was_left_open(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    is_aborted(error)
        && database.try_downcast_ref::<PgDatabaseError>().is_some_and(|e| {
            e.routine().is_some_and(|routine| {
                routine == "exec_simple_query"
                    || (routine.starts_with("exec_") && routine.ends_with("_message"))
            })
        })
}

/// Whether a SQLSTATE says that the server has ended the connection, or never had it.
pub(crate) fn ends_connection(sqlstate: &str) -> bool {
    sqlstate.starts_with("08")
        || matches!(sqlstate, "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04")
}

/// Whether nothing more can come over the connection.
pub(crate) fn breaks_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(e) => ends_connection(e.code().as_deref().unwrap_or_default()),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Whether the server takes no writes, or this transaction does not.
///
/// Mostly it is told by a SQLSTATE of its own. What a standby refuses for other reasons comes as "not
/// supported" and "not in this state"; the routine that reports it tells, in every language.
pub(crate) fn refuses_writes(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    let by_a_standby = |routines: &[&str]| {
        let routine = error.try_downcast_ref::<PgDatabaseError>().and_then(|e| e.routine());
        routine.is_some_and(|routine| routines.contains(&routine))
    };
    match error.code().as_deref() {
        Some("25006") => true,
        // BEGIN READ WRITE; BEGIN SERIALIZABLE; a statement where that is the default.
        Some("0A000") => by_a_standby(&[
            "call_bool_check_hook",
            "call_enum_check_hook",
            "GetSerializableTransactionSnapshot",
        ]),
        // Where the log is written to.
        Some("55000") => {
            by_a_standby(&["pg_current_wal_insert_lsn", "pg_current_wal_lsn", "pg_walfile_name"])
        }
        _ => false,
    }
}

/// Bounds the wait for an answer. The server has its own limit for a statement; this one is for the
/// network that went silent, which the driver would wait for without end.
pub(crate) async fn answered<T>(
    limit: impl Into<AnswerLimit>,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let (limit, deadline) = match limit.into() {
        AnswerLimit::Forever => return answer.await,
        AnswerLimit::Network(limit) => (limit, false),
        AnswerLimit::Deadline(left) => (left, true),
    };
    let (mut answer, mut silence) = (pin!(answer), pin!(None::<Sleep>));
    let answer = poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        // Most rows are there already: a timer for each of them would be set for nothing.
        if silence.is_none() {
            silence.set(Some(sleep(limit)));
        }
        let silence = silence.as_mut().as_pin_mut().expect("it was just set");
        silence.poll(cx).map(|()| None)
    });
    match answer.await {
        Some(answer) => answer,
        // The connection is as good as any that was left busy.
        None if deadline => Err(Error::DeadlineExceeded.into_carrier()),
        None => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the server did not answer in time",
        ))),
    }
}

/// How long to wait for an answer, and why no longer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AnswerLimit {
    Forever,
    /// The network counts as silent then.
    Network(Duration),
    /// What is left of a unit of work's time.
    Deadline(Duration),
}

impl From<Option<Duration>> for AnswerLimit {
    fn from(network: Option<Duration>) -> Self {
        network.map_or(Self::Forever, Self::Network)
    }
}
