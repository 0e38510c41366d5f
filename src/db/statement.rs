//! One statement on its way to the server: whether it may be sent again, and whether it may begin or
//! end a transaction.

use sqlx::postgres::{PgArguments, PgStatement};
use sqlx::{Arguments, Execute, Postgres, SqlStr};

use super::answer::{breaks_connection, is_stale_plan, refuses_writes, was_left_open};

/// A statement, ready to be sent once more.
pub(crate) struct Statement {
    sent: Attempt,
    /// How often it may be sent again when its connection breaks.
    repeats: u8,
    /// How often it may be sent again when it met a transaction that somebody had left open.
    moves: u8,
    /// Whether it may be sent again when its plan turns out to be stale.
    replan: bool,
    /// Whether it may be sent again when the server turns out to take no writes.
    reroute: bool,
    /// Whether it may leave a transaction open.
    may_begin: bool,
}

/// How often a read is repeated: once for a connection that died unnoticed, once more for a server
/// that was still going down. As often, any statement leaves a connection on which it could not run.
const REPEATS: u8 = 2;

impl Statement {
    pub(crate) fn new<'q>(
        query: impl Execute<'q, Postgres>,
        repeatable: bool,
    ) -> Result<Self, sqlx::Error> {
        let sent = Attempt::new(query)?;
        Ok(Self {
            repeats: if repeatable { REPEATS } else { 0 },
            moves: REPEATS,
            // Without arguments it is sent as it stands, perhaps as several: nothing is planned ahead.
            replan: sent.arguments.is_some(),
            reroute: sent.arguments.is_some() && !sent.may_call(),
            may_begin: sent.may_hold(&["begin", "start", "execute"]),
            sent,
        })
    }

    /// Whether it may leave a transaction open.
    pub(crate) fn may_begin(&self) -> bool {
        self.may_begin
    }

    /// The arguments are copied while it may have to be sent again: that anything is stale shows only
    /// when the server has them, and the driver does not give them back. Measured: two allocations.
    pub(crate) fn attempt(&mut self) -> Attempt {
        let Attempt { sql, arguments, persistent } = &mut self.sent;
        Attempt {
            sql: sql.clone(),
            arguments: if self.repeats > 0 || self.replan || self.reroute {
                arguments.clone()
            } else {
                arguments.take()
            },
            persistent: *persistent,
        }
    }

    /// Whether to send it again after this error, and where.
    pub(crate) fn again(&mut self, error: &sqlx::Error) -> Option<Again> {
        if is_stale_plan(error) {
            // The server has run nothing of it, so it may be one that writes.
            return std::mem::take(&mut self.replan).then_some(Again::Here);
        }
        if refuses_writes(error) {
            // Nor here.
            return std::mem::take(&mut self.reroute).then_some(Again::OnPrimary);
        }
        let left = if was_left_open(error) && self.replan {
            // Nothing of it has run either. Its arguments are there for as long as it is planned.
            &mut self.moves
        } else if breaks_connection(error) {
            &mut self.repeats
        } else {
            return None;
        };
        *left = left.checked_sub(1)?;
        Some(Again::Elsewhere)
    }
}

/// Where a statement is sent once more.
pub(crate) enum Again {
    /// On the same connection, after it has forgotten what was prepared on it.
    Here,
    /// On another one.
    Elsewhere,
    /// On a connection to a server that takes writes, if there is one.
    OnPrimary,
}

/// What is handed to the driver.
pub(crate) struct Attempt {
    sql: SqlStr,
    arguments: Option<PgArguments>,
    persistent: bool,
}

impl Attempt {
    pub(crate) fn new<'q>(mut query: impl Execute<'q, Postgres>) -> Result<Self, sqlx::Error> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        let persistent = query.persistent();
        Ok(Self { sql: query.sql(), arguments, persistent })
    }

    /// Whether it may end the transaction around it.
    pub(crate) fn may_end(&self) -> bool {
        self.may_hold(&["commit", "end", "rollback", "abort", "prepare", "execute"])
            && !self.rolls_back_to_savepoint()
    }

    /// Whether it may call a procedure, which can commit something before it fails.
    fn may_call(&self) -> bool {
        first_word(self.sql.as_str()).is_none_or(|word| word.eq_ignore_ascii_case("call"))
    }

    /// Whether a statement that begins with one of these words may be in it. False only where it is
    /// certain: PostgreSQL has no other way to write a keyword.
    ///
    /// One with arguments is none of them: it is a single statement, and those that begin and end
    /// transactions take no parameters. That is known of nearly all without a look at their text.
    fn may_hold(&self, words: &[&str]) -> bool {
        let is_one = |word: &str| words.iter().any(|other| word.eq_ignore_ascii_case(other));
        let sql = self.sql.as_str();
        match &self.arguments {
            Some(arguments) if arguments.len() > 0 => false,
            // A single statement: its first word says what it is, unless a comment stands before.
            Some(_) => match first_word(sql) {
                Some(word) => is_one(word),
                None => words_of(sql).any(is_one),
            },
            None => words_of(sql).any(is_one),
        }
    }

    /// `rollback to` a savepoint, and nothing else: no second statement, and no comment.
    fn rolls_back_to_savepoint(&self) -> bool {
        let sql = self.sql.as_str();
        let mut words = words_of(sql).map(str::to_ascii_lowercase);
        let second = |word: &String| !matches!(word.as_str(), "work" | "transaction");
        first_word(sql).is_some()
            && words.next().as_deref() == Some("rollback")
            && words.find(second).as_deref() == Some("to")
            && !sql.trim_end().trim_end_matches(';').contains([';', '-', '/'])
    }
}

fn is_of_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn words_of(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(|c| !is_of_a_word(c)).filter(|word| !word.is_empty())
}

/// The word that a text begins with, if nothing but blanks stands before it.
fn first_word(sql: &str) -> Option<&str> {
    let sql = sql.trim_start();
    let end = sql.find(|c| !is_of_a_word(c)).unwrap_or(sql.len());
    (end > 0).then(|| &sql[..end])
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

#[cfg(test)]
mod tests {
    use super::*;

    fn simple(sql: &'static str) -> Attempt {
        Attempt::new(sqlx::raw_sql(sql)).unwrap()
    }

    fn extended(sql: &'static str) -> Attempt {
        Attempt::new(sqlx::query(sql)).unwrap()
    }

    #[test]
    fn a_statement_that_may_begin_a_transaction_is_not_missed() {
        for sql in [
            "begin",
            "BEGIN",
            " \n\tStart transaction",
            "/* why */ begin",
            "-- why\nbegin",
            ";begin",
            "select 1;begin",
            "insert into config values ('a', '1');\nBegin;",
        ] {
            assert!(Statement::new(sqlx::raw_sql(sql), false).unwrap().may_begin(), "{sql}");
        }
        for sql in ["begin", "bEgin isolation level serializable", "/* why */ begin", "; start"] {
            assert!(Statement::new(sqlx::query(sql), false).unwrap().may_begin(), "{sql}");
        }
    }

    #[test]
    fn what_can_not_begin_a_transaction_is_not_suspected() {
        for sql in ["select started_at, \"beginning\" from runs", "truncate config", ""] {
            assert!(!Statement::new(sqlx::raw_sql(sql), false).unwrap().may_begin(), "{sql}");
        }
        // A single statement, which begins with another word.
        let sql = "select 'begin'";
        assert!(!Statement::new(sqlx::query(sql), false).unwrap().may_begin());
        let query = sqlx::query("begin").bind(1);
        assert!(!Statement::new(query, false).unwrap().may_begin());
    }

    #[test]
    fn what_was_refused_to_write_is_sent_again_unless_a_procedure_may_have_committed_before() {
        for (sql, again) in [
            ("insert into config values ($1)", true),
            ("select delete_document($1)", true),
            ("Call archive($1)", false),
            ("/* why */ call archive($1)", false),
        ] {
            assert_eq!(Statement::new(sqlx::query(sql), false).unwrap().reroute, again, "{sql}");
        }
        assert!(!Statement::new(sqlx::raw_sql("delete from config"), false).unwrap().reroute);
    }

    #[test]
    fn a_statement_that_may_end_a_transaction_is_not_missed() {
        for sql in [
            "commit",
            "END",
            "rollback",
            "rollback and chain",
            "abort work",
            "prepare transaction 'x'",
            "select 1; Commit; begin",
            "rollback to a; commit",
            "rollback -- to a",
            "/* why */ rollback to a",
        ] {
            assert!(simple(sql).may_end(), "{sql}");
        }
        assert!(extended("commit").may_end());
        for sql in ["rollback to a", "ROLLBACK work TO SAVEPOINT a; ", "savepoint a", "release a"] {
            assert!(!simple(sql).may_end() && !extended(sql).may_end(), "{sql}");
        }
    }
}
