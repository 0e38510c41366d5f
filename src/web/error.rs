//! Errors as responses: the class is told, what the database said is not.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::db::{Error, InvalidInput};

/// Seconds after which a client may try again when the database was not to be had.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The status that [`Error`] answers with.
///
/// | error | status | `code` |
/// |---|---|---|
/// | `NotFound` | 404 | `not_found` |
/// | `Conflict` | 409 | `conflict` |
/// | `ForeignKey` | 409 | `reference` |
/// | `LeaseLost` | 409 | `lease_lost` |
/// | `InvalidInput`, `Check` | 422 | `invalid_input` |
/// | no connection, a lost one, a timeout, a collision that was not repeated | 503 | `unavailable` |
/// | `CommitUnknown`: it may have happened, so trying again is not for a machine to decide | 500 | `outcome_unknown` |
/// | all others, `WouldDeadlock` among them: a mistake in the program | 500 | `internal` |
///
/// For applications whose error bodies look different.
///
/// ```
/// use chancery::{Error, web};
///
/// assert_eq!(web::status(&Error::NotFound("user")), 404);
/// assert_eq!(web::status(&Error::PoolClosed), 503);
/// ```
pub fn status(error: &Error) -> StatusCode {
    class(error).0
}

fn class(error: &Error) -> (StatusCode, &'static str) {
    match error {
        Error::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
        Error::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
        Error::ForeignKey(_) => (StatusCode::CONFLICT, "reference"),
        Error::LeaseLost => (StatusCode::CONFLICT, "lease_lost"),
        Error::InvalidInput(_) | Error::Check(_) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid_input")
        }
        Error::Unreachable { .. }
        | Error::ConnectTimeout { .. }
        | Error::TooManyConnections
        | Error::PoolTimedOut { .. }
        | Error::PoolClosed
        | Error::ConnectionLost(_)
        | Error::SerializationFailure
        | Error::Deadlock
        | Error::LockTimeout
        | Error::StatementTimeout
        | Error::DeadlineExceeded => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        Error::CommitUnknown { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "outcome_unknown"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

fn message(error: &Error) -> String {
    match error {
        Error::NotFound(what) => format!("{what} not found"),
        Error::Conflict(_) => "it exists already".into(),
        Error::ForeignKey(_) => "it refers to something that does not exist, or is in use".into(),
        Error::InvalidInput(InvalidInput { field, reason }) => format!("{field} {reason}"),
        Error::LeaseLost => "another worker has it, or it has ended".into(),
        Error::Check(_) => "a value is not allowed".into(),
        Error::CommitUnknown { .. } => "whether it was stored is unknown".into(),
        error if status(error) == StatusCode::SERVICE_UNAVAILABLE => {
            "temporarily unavailable, try again".into()
        }
        _ => "internal error".into(),
    }
}

/// The [`status`](crate::web::status) of its class, and a body of the form
///
/// ```json
/// {"error": {"code": "invalid_input", "message": "email is not an e-mail address"}}
/// ```
///
/// that holds no SQL, no name of a constraint or an address, and no value. A 503 has `Retry-After`.
/// What is 500 or above is logged with the error itself. Feature `axum`.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code) = class(&self);
        let mut response = body(status, code, &message(&self));
        // With its sources; none of them prints a value.
        let error = &self as &dyn std::error::Error;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::warn!(target: "chancery", event = "web.unavailable", error, "answered 503");
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        } else if status.is_server_error() {
            tracing::error!(target: "chancery", event = "web.error", error, "answered 500");
        }
        response
    }
}

/// A mistake in the program: the log has been told which one.
pub(super) fn internal() -> Response {
    body(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error")
}

fn body(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({"error": {"code": code, "message": message}});
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], body.to_string()).into_response()
}
