//! Work for one user: a database of which only that user's rows can be seen.

use std::fmt;
use std::panic::Location;

use sqlx::{Postgres, QueryBuilder, SqlStr};
use uuid::Uuid;

use super::conn::Conn;
use super::database::Database;
use super::error::{Error, Result};
use super::transaction::TransactionOptions;
use super::unit_of_work::UnitOfWork;

/// The role that works for one user; the policies of row-level security are made for it.
pub(crate) const APP_ROLE: &str = "chancery_app";

/// The user for whom a transaction works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Actor(Uuid);

impl Actor {
    pub(super) fn user_id(self) -> Uuid {
        self.0
    }

    /// The statement that begins a transaction of this user's: role and identity travel with BEGIN, and
    /// end with the transaction.
    ///
    /// The one statement of this crate that holds a value. BEGIN goes by the simple protocol, which has
    /// no parameters, and a statement of its own would be a round trip more. A `Uuid` prints hex digits
    /// and hyphens, and nothing else.
    pub(super) fn begin_statement(self, begin: &'static str) -> SqlStr {
        QueryBuilder::<Postgres>::new(begin)
            .push("; set local role ")
            .push(APP_ROLE)
            .push("; set local chancery.user_id = '")
            .push(self.0.hyphenated())
            .push("'")
            .sql()
    }

    /// Why such a transaction could not begin.
    pub(super) fn begin_error(error: sqlx::Error) -> Error {
        match error.as_database_error().and_then(|e| e.code()).as_deref() {
            // Not a member; no such role.
            Some("42501" | "22023") => Error::NotAMember { role: APP_ROLE },
            _ => error.into(),
        }
    }
}

/// A database as one user sees it: [`Database::as_user`].
///
/// Each statement runs under the role `chancery_app` and for this user. The database itself leaves out
/// what belongs to others (row-level security): it can't be read, changed, deleted or counted, whatever
/// the statement says. This holds for the repositories and for the application's own statements on
/// these tables.
///
/// ```no_run
/// # async fn example(db: chancery::Database, signed_in: chancery::UserId, from_the_url: chancery::ConversationId) -> chancery::Result<()> {
/// // None when the conversation is somebody else's.
/// let conversation = db.as_user(signed_in).conversations().get_by_id(from_the_url).await?;
///
/// db.as_user(signed_in)
///     .transaction(async |uow| {
///         let c = uow.conversations().create(signed_in, Some("Rice speech")).await?;
///         uow.messages().create(chancery::NewMessage::user(c.id, "Why the Moon?")).await?;
///         Ok(c)
///     })
///     .await?;
/// # Ok(()) }
/// ```
///
/// # What it costs
///
/// A unit of work takes no more round trips than any: role and identity travel with BEGIN. By itself, a
/// statement takes three instead of one (BEGIN, itself, COMMIT), because nothing of a user may outlive a
/// transaction: 1.5 to 2.3 times as long on one machine, more over a network. Several statements in a row
/// are better off in a unit of work.
///
/// The server plans a prepared statement anew when its role is another one than last time on that
/// connection. A second [`Database`] for what users do keeps its plans.
///
/// A statement whose rows are read one by one, and whose stream is dropped before its end, is rolled
/// back.
///
/// # What is refused
///
/// Writing a row that is not this user's is [`Error::PermissionDenied`], and so is what only the
/// service does: to make users, to change settings or the system's templates. What belongs to somebody
/// else is [`NotFound`](Error::NotFound), or [`ForeignKey`](Error::ForeignKey), as if it did not exist.
/// Unique keys hold across users: a document's hash, an e-mail address or a place in a transcript that
/// somebody else has is a [`Conflict`](Error::Conflict) or [`PermissionDenied`](Error::PermissionDenied).
/// A call that names another user to the repository of conversations, messages, transcripts or chunks is
/// [`PermissionDenied`](Error::PermissionDenied), also one that reads; the server is not asked.
///
/// # The application's own tables
///
/// They need policies of their own, and grants; a table without is not to be read as a user:
///
/// ```sql
/// alter table invoices enable row level security, force row level security;
/// create policy invoices_owner on invoices to chancery_app
///     using (user_id = (select chancery_current_user_id()));
/// create policy invoices_service on invoices to chancery_service using (true);
/// grant select, insert, update, delete on invoices to chancery_app, chancery_service;
/// ```
///
/// # What it does not hold back
///
/// It guards against a wrong or forged identifier and a forgotten condition, not against SQL that the
/// user wrote: a statement can `reset role`, or name another user.
#[derive(Clone, Copy)]
pub struct AsUser<'d> {
    db: &'d Database,
    actor: Actor,
}

impl<'d> AsUser<'d> {
    pub(crate) fn new(db: &'d Database, user_id: Uuid) -> Self {
        Self { db, actor: Actor(user_id) }
    }

    /// An executor for the application's own statements: each is a transaction of this user's.
    #[track_caller]
    pub fn executor(self) -> Conn<'d> {
        Conn::user(self.db.leases(), self.actor, Location::caller())
    }

    /// Begins a unit of work of this user's, as [`Database::begin`] does.
    ///
    /// # Errors
    ///
    /// Also [`Error::NotAMember`] when the login role is not a member of `chancery_app`.
    #[track_caller]
    pub fn begin(self) -> impl Future<Output = Result<UnitOfWork>> + Send + use<'d> {
        self.begin_with(TransactionOptions::default())
    }

    /// As [`Database::begin_with`].
    #[track_caller]
    pub fn begin_with(
        self,
        options: TransactionOptions,
    ) -> impl Future<Output = Result<UnitOfWork>> + Send + use<'d> {
        self.db.begin_with(options.acting_as(self.actor))
    }

    /// Runs `body` in a unit of work of this user's, as [`Database::transaction`] does.
    #[track_caller]
    pub fn transaction<T>(
        self,
        body: impl AsyncFnOnce(&mut UnitOfWork) -> Result<T> + Clone,
    ) -> impl Future<Output = Result<T>> {
        self.try_transaction_with(TransactionOptions::default(), body)
    }

    /// As [`Database::transaction_with`].
    #[track_caller]
    pub fn transaction_with<T>(
        self,
        options: TransactionOptions,
        body: impl AsyncFnOnce(&mut UnitOfWork) -> Result<T> + Clone,
    ) -> impl Future<Output = Result<T>> {
        self.try_transaction_with(options, body)
    }

    /// As [`Database::try_transaction`].
    #[track_caller]
    pub fn try_transaction<T, E: From<Error>>(
        self,
        body: impl AsyncFnOnce(&mut UnitOfWork) -> Result<T, E> + Clone,
    ) -> impl Future<Output = Result<T, E>> {
        self.try_transaction_with(TransactionOptions::default(), body)
    }

    /// As [`Database::try_transaction_with`].
    #[track_caller]
    pub fn try_transaction_with<T, E: From<Error>>(
        self,
        options: TransactionOptions,
        body: impl AsyncFnOnce(&mut UnitOfWork) -> Result<T, E> + Clone,
    ) -> impl Future<Output = Result<T, E>> {
        self.db.try_transaction_with(options.acting_as(self.actor), body)
    }
}

impl fmt::Debug for AsUser<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsUser").field("db", self.db).field("user_id", &self.actor.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begin_holds_hex_digits_and_hyphens_of_the_user_and_nothing_else() {
        for user in [Uuid::nil(), Uuid::max(), Uuid::now_v7()] {
            let statement = Actor(user).begin_statement("begin");
            let (before, value) = statement.as_str().split_once("user_id = '").unwrap();
            assert_eq!(before, "begin; set local role chancery_app; set local chancery.");
            let value = value.strip_suffix('\'').unwrap();
            assert_eq!(value.len(), 36);
            assert!(value.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'), "{value}");
            assert_eq!(value.parse::<Uuid>().unwrap(), user);
        }
    }
}
