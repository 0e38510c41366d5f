//! Transactions that SQL begins or ends by itself, behind the back of the pool and of units of work.
//!
//! The server says with each answer whether the session is inside of a transaction; the driver keeps
//! that for itself. So the server is asked, but only after a statement that may have done it: see
//! [`Statement::may_begin`](super::statement::Statement::may_begin).

use sqlx::postgres::PgTransactionManager;
use sqlx::{PgConnection, Row, SqlSafeStr};
use sqlx_core::transaction::TransactionManager;

use super::answer::{AnswerLimit, answered, is_aborted};
use super::error::Error;
use super::transaction_state::{Standing, TransactionState};

/// Whether a session is inside of a transaction, though nobody should have begun one. If so, the
/// connection is not to be used again.
pub(crate) async fn is_inside(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // The driver looks at what the answer says of the transaction where a statement was to begin one.
    match PgTransactionManager::begin(conn, Some("select".into_sql_str())).await {
        Ok(()) | Err(sqlx::Error::InvalidSavePointStatement) => Ok(true),
        Err(sqlx::Error::BeginFailed) => Ok(false),
        Err(error) if is_aborted(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// When the transaction began that a session is inside of: no other one of the session's began then.
/// Outside of a transaction it is the moment of the question.
pub(crate) async fn beginning(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let asked = sqlx::raw_sql("select (extract(epoch from now()) * 1000000)::bigint");
    asked.fetch_one(conn).await?.try_get(0)
}

/// Notes when a unit of work's transaction began, before something runs that may end it.
pub(crate) async fn note_beginning(
    conn: &mut PgConnection,
    state: &TransactionState,
    answer: AnswerLimit,
) -> Result<(), sqlx::Error> {
    // A failed one is not to be stored anyway, and answers nothing.
    if state.beginning().is_some() || state.standing() == Standing::Failed {
        return Ok(());
    }
    state.start()?;
    match answered(answer, beginning(conn)).await {
        Ok(began) => {
            state.note_beginning(began);
            state.succeeded();
            Ok(())
        }
        Err(error) => {
            state.failed(&error);
            Err(error)
        }
    }
}

/// Makes sure that a unit of work's transaction is still there, after a statement that may have ended
/// it. Gives that statement's outcome back.
pub(crate) async fn still_inside<T>(
    conn: &mut PgConnection,
    state: &TransactionState,
    answer: AnswerLimit,
    outcome: Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    if state.is_unfit() {
        return outcome;
    }
    let Some(began) = state.beginning() else {
        // It had failed before. Then the server refuses everything but what ends it.
        return match outcome {
            Err(error) if is_aborted(&error) => Err(error),
            _ => Err(ended(state)),
        };
    };
    // Dropped half-way, nothing is known.
    let standing = state.standing();
    state.set(Standing::Unknown);
    match answered(answer, beginning(conn)).await {
        Ok(now) if now == began => {
            state.set(standing);
            outcome
        }
        Ok(_) => Err(ended(state)),
        // The statement failed, and the transaction with it.
        Err(error) => {
            state.failed(&error);
            outcome.and(Err(error))
        }
    }
}

fn ended(state: &TransactionState) -> sqlx::Error {
    state.set(Standing::Ended);
    Error::TransactionControl.into_carrier()
}
