//! Errors as responses: the class is told, what the database said is not.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::db::{Error, ErrorKind};

/// Seconds after which a client may try again when the database was not to be had.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Returns the status that [`Error`] answers with, by its [`kind`](Error::kind).
///
/// | error | status | `code` |
/// |---|---|---|
/// | `NotFound` | 404 | `not_found` |
/// | a row refers to one that does not exist (`ForeignKey`) | 404 | `not_found` |
/// | the same by a key of the application's own, which may also be referred to | 409 | `reference` |
/// | `Conflict` | 409 | `conflict` |
/// | `LeaseLost` | 409 | `lease_lost` |
/// | `InvalidInput`, `Check` | 422 | `invalid_input` |
/// | the call or the row is another user's (`PermissionDenied`) | 403 | `forbidden` |
/// | no connection, a lost one, a timeout, a collision that was not repeated | 503 | `unavailable` |
/// | the server takes no writes (`ReadOnly`), as during a switch-over | 503 | `unavailable` |
/// | `CommitUnknown`: it may have happened, so trying again is not for a machine to decide | 500 | `outcome_unknown` |
/// | all others, a missing privilege and `WouldDeadlock` among them: a mistake in the program | 500 | `internal` |
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
    match error.kind() {
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        ErrorKind::Conflict => (
            StatusCode::CONFLICT,
            match error {
                Error::ForeignKey(_) => "reference",
                Error::LeaseLost => "lease_lost",
                _ => "conflict",
            },
        ),
        ErrorKind::InvalidInput => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_input"),
        ErrorKind::PermissionDenied if error.is_of_another_user() => {
            (StatusCode::FORBIDDEN, "forbidden")
        }
        ErrorKind::Unavailable | ErrorKind::Collision => {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        }
        ErrorKind::OutcomeUnknown => (StatusCode::INTERNAL_SERVER_ERROR, "outcome_unknown"),
        ErrorKind::PermissionDenied | ErrorKind::Setup | ErrorKind::Internal => {
            (StatusCode::INTERNAL_SERVER_ERROR, "internal")
        }
    }
}

fn message(error: &Error, code: &str) -> String {
    let message = match (error, code) {
        (Error::NotFound(row), _) => return format!("{row} not found"),
        (Error::InvalidInput(invalid), _) => return invalid.to_string(),
        (_, "not_found") => "a row that this refers to was not found",
        (_, "reference") => "it refers to a row that does not exist, or is referred to",
        (_, "lease_lost") => "another worker has it, or it has ended",
        (_, "conflict") => "it exists already",
        (_, "invalid_input") => "a value is not allowed",
        (_, "forbidden") => "it belongs to another user",
        (_, "unavailable") => "temporarily unavailable, try again",
        (_, "outcome_unknown") => "whether it was stored is unknown",
        _ => "internal error",
    };
    message.into()
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
        let mut response = body(status, code, &message(&self, code));
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
