//! What is known of a transaction from the answers to its statements.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, Ordering::Relaxed};

use super::answer::{breaks_connection, is_stale_plan, refuses_writes};
use super::error::Error;

/// How a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    /// The last statement succeeded, so the server would commit: in a failed transaction it answers
    /// every statement with an error.
    Healthy = 0,
    /// A statement's end was not seen (its future was dropped, or the application had the bare
    /// connection). The server has to be asked.
    Unknown = 1,
    /// A statement failed: COMMIT would be answered with ROLLBACK.
    Failed = 2,
    /// Opening or closing a savepoint did not finish. Nothing more may be sent but ROLLBACK.
    Broken = 3,
    /// A statement ended the transaction by itself. Nothing more may be sent.
    Ended = 4,
}

/// Shared by a unit of work and the statements that run in it.
///
/// Only one statement runs at a time (they borrow the connection), so the atomics need no order:
/// they are there because the futures must be `Send`.
#[derive(Debug, Default)]
pub(crate) struct TransactionState {
    standing: AtomicU8,
    retryable: AtomicBool,
    unfit: AtomicBool,
    stale: AtomicBool,
    refused_writing: AtomicBool,
    /// Savepoints that were dropped and whose rollback has still to be sent.
    abandoned: AtomicU32,
    /// When the transaction began, in microseconds; zero for as long as nobody had to know.
    beginning: AtomicI64,
}

impl TransactionState {
    pub(crate) fn standing(&self) -> Standing {
        match self.standing.load(Relaxed) {
            0 => Standing::Healthy,
            1 => Standing::Unknown,
            2 => Standing::Failed,
            3 => Standing::Broken,
            _ => Standing::Ended,
        }
    }

    pub(crate) fn set(&self, standing: Standing) {
        self.standing.store(standing as u8, Relaxed);
    }

    /// A statement is about to be sent. Refused once the transaction is broken.
    pub(crate) fn start(&self) -> Result<(), sqlx::Error> {
        match self.standing() {
            Standing::Broken => Err(sqlx::Error::Protocol(
                "the transaction can take no more statements: a savepoint was left half-way".into(),
            )),
            Standing::Ended => Err(Error::TransactionControl.into_carrier()),
            Standing::Failed => Ok(()),
            Standing::Healthy | Standing::Unknown => {
                self.set(Standing::Unknown);
                Ok(())
            }
        }
    }

    /// A statement ended well.
    pub(crate) fn succeeded(&self) {
        self.set(Standing::Healthy);
    }

    /// A statement ended with an error. Only the server's own errors abort a transaction.
    pub(crate) fn failed(&self, error: &sqlx::Error) {
        if breaks_connection(error) {
            self.unfit.store(true, Relaxed);
        }
        if refuses_writes(error) {
            self.refused_writing.store(true, Relaxed);
        }
        if let sqlx::Error::Database(e) = error {
            self.set(Standing::Failed);
            let stale = is_stale_plan(error);
            if stale {
                self.stale.store(true, Relaxed);
            }
            if stale || matches!(e.code().as_deref(), Some("40001" | "40P01")) {
                self.retryable.store(true, Relaxed);
            }
        }
    }

    /// Whether a statement failed in a way that running the whole transaction again cures; also when
    /// a nested unit of work was undone since, for its error may be why the transaction ends.
    pub(crate) fn is_retryable(&self) -> bool {
        self.retryable.load(Relaxed)
    }

    /// Whether the connection must not be used again after the transaction: it broke.
    pub(crate) fn is_unfit(&self) -> bool {
        self.unfit.load(Relaxed)
    }

    /// Whether what is prepared on the connection no longer fits the schema.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.load(Relaxed)
    }

    /// Whether a statement was refused because the transaction, or the server, takes no writes.
    pub(crate) fn refused_writing(&self) -> bool {
        self.refused_writing.load(Relaxed)
    }

    /// The work since the last savepoint was undone, and with it what was wrong.
    pub(crate) fn rolled_back_to_savepoint(&self) {
        self.set(Standing::Healthy);
    }

    /// A savepoint was dropped: its rollback is sent before the next statement.
    pub(crate) fn abandon_savepoint(&self) {
        self.abandoned.fetch_add(1, Relaxed);
    }

    pub(crate) fn take_abandoned(&self) -> u32 {
        self.abandoned.swap(0, Relaxed)
    }

    /// When the transaction began, if something ran since that may have ended it.
    pub(crate) fn beginning(&self) -> Option<i64> {
        Some(self.beginning.load(Relaxed)).filter(|began| *began != 0)
    }

    pub(crate) fn note_beginning(&self, began: i64) {
        self.beginning.store(began, Relaxed);
    }

    /// The transaction was ended as it should be.
    pub(crate) fn forget_beginning(&self) {
        self.beginning.store(0, Relaxed);
    }

    pub(crate) fn has_abandoned(&self) -> bool {
        self.abandoned.load(Relaxed) > 0
    }
}
