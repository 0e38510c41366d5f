//! Errors as responses.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::{Router, routing};
use chancery::{
    Constraint, ConversationId, Database, DatabaseConfig, Denied, Error, NewMessage, NewUser,
    Result, UserId,
};
use http_body_util::BodyExt;
use serde_json::json;
use sqlx::PgPool;

use super::{Answer, Log, serve};
use crate::support;

async fn answer(error: Error) -> Answer {
    let (parts, body) = error.into_response().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}

#[tokio::test]
async fn every_class_has_its_status_and_code_and_tells_nothing_more() {
    let host = || "canary.internal:5432".to_owned();
    let invalid = "canary".parse::<chancery::Cursor>().unwrap_err();
    for (status, code, error) in [
        (404, "not_found", Error::NotFound("user")),
        (409, "conflict", Error::Conflict(Constraint::UsersEmailKey)),
        (404, "not_found", Error::ForeignKey(Constraint::MessagesConversationIdFkey)),
        (409, "lease_lost", Error::LeaseLost),
        (403, "forbidden", Error::PermissionDenied(Denied::OtherUser)),
        (503, "unavailable", Error::ReadOnly),
        (422, "invalid_input", Error::Check(Constraint::UsersEmailKey)),
        (422, "invalid_input", Error::InvalidInput(invalid)),
        (503, "unavailable", Error::PoolClosed),
        (503, "unavailable", Error::TooManyConnections),
        (503, "unavailable", Error::SerializationFailure),
        (503, "unavailable", Error::Deadlock),
        (503, "unavailable", Error::LockTimeout),
        (503, "unavailable", Error::StatementTimeout),
        (
            503,
            "unavailable",
            Error::Unreachable { address: host(), source: io::Error::other("canary") },
        ),
        (
            503,
            "unavailable",
            Error::ConnectTimeout { address: host(), timeout: Duration::from_secs(1) },
        ),
        (500, "internal", Error::AuthenticationFailed { user: "canary".into() }),
        (500, "internal", Error::DatabaseMissing { database: "canary".into() }),
        (500, "internal", Error::TransactionAborted),
        (500, "internal", Error::WouldDeadlock),
        (500, "internal", DatabaseConfig::from_url("canary").unwrap_err().into()),
    ] {
        let name = format!("{error:?}");
        let answer = answer(error).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (status, code), "{name}");
        assert_eq!(answer.headers["content-type"], "application/json", "{name}");
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503, "{name}");
        for secret in ["canary", "5432", "users_email_key"] {
            assert!(!answer.text.contains(secret), "{name}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn invalid_input_names_the_field_and_the_reason() {
    let cursor = "damaged".parse::<chancery::Cursor>().unwrap_err();
    let answer = answer(cursor.into()).await;
    let body = json!({"error": {"code": "invalid_input", "message": "after is not a cursor"}});
    assert_eq!(answer.json(), body);
}

/// What the server reports, with a canary wherever PostgreSQL puts values and names.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_the_server_reports_stays_in_the_log(pool: PgPool) {
    sqlx::raw_sql(
        "create function fail(code text) returns void language plpgsql as $$
         begin
             raise exception 'canary_value' using errcode = code, detail = 'canary_value',
                 hint = 'canary_value', constraint = 'canary_name', column = 'canary_name',
                 table = 'canary_name', schema = 'canary_name';
         end $$",
    )
    .execute(&pool)
    .await
    .unwrap();
    let db = Database::from_pool(pool);
    let fail = async |State(db): State<Database>, Path(code): Path<String>| -> Result<()> {
        sqlx::query("select fail($1)").bind(code).execute(db.executor()).await?;
        Ok(())
    };
    let server = serve(Router::new().route("/{code}", routing::get(fail)).with_state(db)).await;
    for (sqlstate, status, code) in [
        ("23505", 409, "conflict"),
        ("23503", 409, "reference"),
        ("23514", 422, "invalid_input"),
        ("40001", 503, "unavailable"),
        ("40P01", 503, "unavailable"),
        ("53300", 503, "unavailable"),
        ("55P03", 503, "unavailable"),
        ("57014", 503, "unavailable"),
        ("57P01", 503, "unavailable"),
        ("08006", 503, "unavailable"),
        ("42501", 500, "internal"),
        ("42P01", 500, "internal"),
        ("22P02", 500, "internal"),
        ("23502", 500, "internal"),
        ("XX000", 500, "internal"),
    ] {
        let log = Log::start();
        let answer = server.get(&format!("/{sqlstate}")).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (status, code), "{sqlstate}");
        for secret in ["canary", sqlstate, "fail(", "select"] {
            assert!(!answer.text.contains(secret), "{sqlstate}: {}", answer.text);
        }
        // The names are for the log, the values for nobody.
        assert_eq!(log.text().contains("chancery"), status >= 500, "{sqlstate}: {}", log.text());
        if status == 500 && sqlstate != "42501" {
            assert!(log.text().contains(sqlstate), "{sqlstate}: {}", log.text());
            assert!(log.text().contains("canary_name"), "{sqlstate}: {}", log.text());
        }
        assert!(!log.text().contains("canary_value"), "{sqlstate}: {}", log.text());
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_server_that_is_not_there_is_unavailable(_pool: PgPool) {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = DatabaseConfig::builder()
        .url(&format!("postgres://canary@127.0.0.1:{port}/canary"))
        .pool_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let db = Arc::new(Database::connect_lazy(&config));
    let create = async |State(db): State<Arc<Database>>| -> Result<()> {
        db.users().create(NewUser::new("canary@example.org")).await.map(drop)
    };
    let server = serve(Router::new().route("/", routing::get(create)).with_state(db)).await;
    let answer = server.get("/").await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (503, "unavailable"));
    assert_eq!(answer.headers["retry-after"], "1");
    assert!(!answer.text.contains("canary") && !answer.text.contains(&port.to_string()));
}

/// What handlers written as in the module's documentation answer with, without a look first.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn rows_of_nobody_and_of_others_are_not_a_mistake_of_the_program(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = support::user(&db).await;
    let other = support::user(&db).await;
    let say = async |State(db): State<Database>, Path(id): Path<ConversationId>| -> Result<()> {
        db.messages().create(NewMessage::user(id, "Why the Moon?")).await.map(drop)
    };
    let list =
        async |State(db): State<Database>, Path(ids): Path<(UserId, UserId)>| -> Result<()> {
            db.as_user(ids.0).conversations().list_by_user(ids.1, 10, 0).await.map(drop)
        };
    let server = serve(
        Router::new()
            .route("/conversations/{id}", routing::get(say))
            .route("/users/{id}/of/{other}", routing::get(list))
            .with_state(db),
    )
    .await;
    for (path, status, code) in [
        (format!("/conversations/{}", ConversationId::new()), 404, "not_found"),
        (format!("/users/{}/of/{}", owner.id, other.id), 403, "forbidden"),
        (format!("/users/{}/of/{}", owner.id, owner.id), 200, ""),
    ] {
        let answer = server.get(&path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
        assert!(status == 200 || answer.code() == code, "{path}: {}", answer.text);
    }
}
