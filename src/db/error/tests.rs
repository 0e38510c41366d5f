//! Which error becomes what, and that none shows a value; no server is asked.

use std::borrow::Cow;
use std::error::Error as _;
use std::io;

use sqlx::error::{DatabaseError, ErrorKind};

use super::*;

const CANARY: &str = "c4n4ry";

/// What a server reports, with a value in its message.
#[derive(Debug)]
struct Report {
    sqlstate: Option<&'static str>,
    constraint: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Report {}

impl DatabaseError for Report {
    fn message(&self) -> &str {
        CANARY
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        self.sqlstate.map(Cow::Borrowed)
    }

    fn constraint(&self) -> Option<&str> {
        self.constraint.as_deref()
    }

    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

fn reported(sqlstate: &'static str, constraint: Option<&str>) -> sqlx::Error {
    let constraint = constraint.map(str::to_owned);
    sqlx::Error::Database(Box::new(Report { sqlstate: Some(sqlstate), constraint }))
}

fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(" {cause} {cause:?}");
        source = cause.source();
    }
    text
}

/// A value has the form of the pattern, and shows nothing of what the driver said.
macro_rules! assert_error {
    ($error:expr, $pattern:pat) => {{
        let error: Error = $error;
        assert!(matches!(error, $pattern), "{error:?}");
        assert!(!shown(&error).contains(CANARY), "{}", shown(&error));
    }};
}

#[test]
fn a_refused_row_names_its_constraint() {
    use Constraint::{MessagesRoleCheck, Other, SessionsUserIdFkey, UsersEmailKey};
    let name = |error: Error| error.constraint().unwrap().name().to_owned();
    let from = |sqlstate, name: Option<&str>| Error::from(reported(sqlstate, name));
    assert_error!(from("23505", Some("users_email_key")), Error::Conflict(UsersEmailKey));
    assert_error!(from("23P01", Some("users_email_key")), Error::Conflict(UsersEmailKey));
    assert_error!(
        from("23503", Some("sessions_user_id_fkey")),
        Error::ForeignKey(SessionsUserIdFkey)
    );
    assert_error!(from("23514", Some("messages_role_check")), Error::Check(MessagesRoleCheck));
    // The application's own, and those of a server that names none.
    assert_error!(from("23505", Some("their_key")), Error::Conflict(Other(_)));
    assert_eq!(name(from("23505", Some("their_key"))), "their_key");
    assert_eq!(name(from("23505", Some("their_p3_key"))), "their_p3_key");
    // As long as PostgreSQL keeps a name, and no longer, whatever a trigger says.
    for (reported, kept) in [("n".repeat(63), "n".repeat(63)), ("é".repeat(40), "é".repeat(31))] {
        assert_eq!(name(from("23514", Some(&reported))), kept);
    }
    assert_error!(from("23505", None), Error::Conflict(Other(_)));
    assert_eq!(name(from("23503", None)), "");
    assert_eq!(from("23503", None).constraint().unwrap().to_string(), "(unnamed)");
    assert_eq!(from("23502", Some("users_email_key")).constraint(), None);
}

#[test]
fn each_sqlstate_that_has_a_variant_gets_it() {
    let from = |sqlstate| Error::from(reported(sqlstate, None));
    assert_error!(from("25P02"), Error::TransactionAborted);
    assert_error!(from("25006"), Error::ReadOnly);
    assert_error!(from("40001"), Error::SerializationFailure);
    assert_error!(from("40P01"), Error::Deadlock);
    assert_error!(from("42501"), Error::PermissionDenied(Denied::Privilege(_)));
    assert_error!(from("42P01"), Error::SchemaMismatch(_));
    assert_error!(from("42703"), Error::SchemaMismatch(_));
    assert_error!(from("53300"), Error::TooManyConnections);
    assert_error!(from("55P03"), Error::LockTimeout);
    assert_error!(from("57014"), Error::StatementTimeout);
    for lost in [
        "08000", "08003", "08006", "08P01", "57P01", "57P02", "57P03", "57P04", "57P05", "25P03",
        "25P04",
    ] {
        assert_error!(from(lost), Error::ConnectionLost(_));
    }
    for other in ["23502", "22P02", "22001", "42601", "0A000", "XX000", ""] {
        assert_error!(from(other), Error::Database(_));
    }
    let nameless = Report { sqlstate: None, constraint: None };
    assert_error!(sqlx::Error::Database(Box::new(nameless)).into(), Error::Database(_));
}

#[test]
fn each_error_of_the_driver_gets_its_variant() {
    let io = || sqlx::Error::Io(io::ErrorKind::ConnectionReset.into());
    assert_error!(io().into(), Error::ConnectionLost(_));
    assert_error!(sqlx::Error::Tls(io::Error::other("x").into()).into(), Error::Tls(_));
    assert_error!(sqlx::Error::PoolTimedOut.into(), Error::PoolTimedOut(_));
    assert_error!(sqlx::Error::PoolClosed.into(), Error::PoolClosed);
    assert_error!(sqlx::Error::RowNotFound.into(), Error::NotFound("row"));
    assert_error!(sqlx::Error::Decode(CANARY.into()).into(), Error::Decode(_));
    assert_error!(
        sqlx::Error::ColumnDecode { index: "\"role\"".into(), source: CANARY.into() }.into(),
        Error::Decode(_)
    );
    assert_error!(sqlx::Error::Encode(CANARY.into()).into(), Error::Database(_));
    assert_error!(sqlx::Error::Protocol(CANARY.into()).into(), Error::Database(_));
    assert_error!(sqlx::Error::WorkerCrashed.into(), Error::Database(_));
}

#[test]
fn only_what_the_server_has_rolled_back_is_retryable() {
    assert!(Error::from(reported("40001", None)).is_retryable());
    assert!(Error::from(reported("40P01", None)).is_retryable());
    for not in ["23505", "25P02", "55P03", "57014", "57P01", "08006", "53300"] {
        assert!(!Error::from(reported(not, None)).is_retryable(), "{not}");
    }
    let lost = sqlx::Error::Io(io::ErrorKind::ConnectionReset.into());
    assert!(!Error::from(lost).is_retryable());
}

#[test]
fn an_attempt_to_connect_tells_what_was_tried() {
    let target = ConnectTarget {
        address: "db.example.org:5432".into(),
        user: "ada".into(),
        database: "app".into(),
        files: Vec::new(),
    };
    let from = |error| Error::from_connect(error, &target);
    let refused = from(sqlx::Error::Io(io::ErrorKind::ConnectionRefused.into()));
    assert!(refused.to_string().contains("db.example.org:5432"), "{refused}");
    assert_error!(refused, Error::Unreachable { .. });
    for sqlstate in ["28P01", "28000"] {
        let error = from(reported(sqlstate, None));
        assert!(error.to_string().contains("\"ada\""), "{error}");
        assert_error!(error, Error::AuthenticationFailed { .. });
    }
    let missing = from(reported("3D000", None));
    assert!(missing.to_string().contains("\"app\""), "{missing}");
    assert_error!(missing, Error::DatabaseMissing { .. });
    assert_error!(from(reported("53300", None)), Error::TooManyConnections);
    assert_error!(from(reported("57P03", None)), Error::ConnectionLost(_));
    assert_error!(from(sqlx::Error::Tls(io::Error::other("x").into())), Error::Tls(_));
}

#[test]
fn the_driver_s_error_tells_its_sqlstate_and_keeps_the_rest() {
    let error = DriverError::new(reported("22P02", None));
    assert_eq!(error.sqlstate().as_deref(), Some("22P02"));
    assert_eq!(error.to_string(), "SQLSTATE 22P02");
    assert!(error.source().is_none());
    assert!(error.as_sqlx().to_string().contains(CANARY));
    assert!(error.into_sqlx().to_string().contains(CANARY));
    assert_eq!(DriverError::new(sqlx::Error::PoolClosed).sqlstate(), None);
}
