//! The unit of work of a request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{BoxError, Json, Router, handler::Handler, routing};
use chancery::web::{self, Tx, TxAfter};
use chancery::{Database, Error, NewUser, UnitOfWork};
use futures_util::stream;
use serde_json::json;
use sqlx::PgPool;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{Log, Server, all_connections_are_free, config, database, eventually, serve};

const EMAIL: &str = "ada@example.org";
const POST: &[u8] = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";

/// A server whose one route has the handler, inside the layer.
async fn serve_one<T: 'static>(db: &Database, handler: impl Handler<T, ()>) -> Server {
    let layer = middleware::from_fn_with_state(db.clone(), web::unit_of_work);
    serve(Router::new().route("/", routing::any(handler)).layer(layer)).await
}

async fn write(uow: &mut UnitOfWork) {
    uow.users().create(NewUser::new(EMAIL)).await.unwrap();
}

async fn is_stored(db: &Database) -> bool {
    db.users().get_by_email(EMAIL).await.unwrap().is_some()
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_success_is_stored_when_its_response_arrives(pool: PgPool) {
    let db = Database::from_pool(pool);
    for status in [200, 201, 204, 304] {
        let server = serve_one(&db, move |mut tx: Tx| async move {
            write(&mut tx).await;
            StatusCode::from_u16(status).unwrap()
        })
        .await;
        assert_eq!(server.get("/").await.status, status);
        let user = db.users().get_by_email(EMAIL).await.unwrap();
        db.users().delete(user.expect("it is stored").id).await.unwrap();
    }
    let server = serve_one(&db, |mut tx: Tx| async move {
        write(&mut tx).await;
        Redirect::to("/elsewhere")
    })
    .await;
    assert_eq!(server.get("/").await.status, 303);
    assert!(is_stored(&db).await);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_error_response_is_rolled_back(pool: PgPool) {
    let db = database(&pool, 1).await;
    for status in [400, 404, 422, 500, 503] {
        let server = serve_one(&db, move |mut tx: Tx| async move {
            write(&mut tx).await;
            StatusCode::from_u16(status).unwrap()
        })
        .await;
        assert_eq!(server.get("/").await.status, status);
        assert!(!is_stored(&db).await, "{status}");
    }
    let server = serve_one(&db, |mut tx: Tx| async move {
        write(&mut tx).await;
        Err::<(), _>(Error::NotFound("user"))
    })
    .await;
    assert_eq!(server.get("/").await.status, 404);
    assert!(!is_stored(&db).await);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_panic_is_rolled_back(pool: PgPool) {
    let db = database(&pool, 1).await;
    let server = serve_one(&db, |mut tx: Tx| async move {
        write(&mut tx).await;
        if true {
            panic!("on purpose");
        }
    })
    .await;
    assert!(server.open("GET", "/", "").await.is_err(), "the connection is closed");
    assert!(!is_stored(&db).await);
    all_connections_are_free(&db).await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_panic_of_a_task_that_had_it_is_rolled_back_whatever_the_handler_answers(pool: PgPool) {
    let db = database(&pool, 1).await;
    let server = serve_one(&db, |mut tx: Tx| async move {
        let task = tokio::spawn(async move {
            write(&mut tx).await;
            if true {
                panic!("on purpose");
            }
        });
        assert!(task.await.is_err());
        StatusCode::OK
    })
    .await;
    let log = Log::start();
    assert_eq!(server.get("/").await.status, 500);
    assert!(log.text().contains("panicked with the request's Tx"), "{}", log.text());
    assert!(!is_stored(&db).await);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_client_that_goes_away_is_rolled_back(pool: PgPool) {
    let db = database(&pool, 1).await;
    let (written, mut wrote) = mpsc::channel(1);
    // Dropped with the handler's future, which the other end receives as an error.
    let (alive, gone) = oneshot::channel::<()>();
    let alive = Arc::new(Mutex::new(Some(alive)));
    let server = serve_one(&db, async move |mut tx: Tx| {
        write(&mut tx).await;
        let _alive = alive.lock().await.take();
        written.send(()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;

    let mut socket = server.socket().await;
    socket.write_all(POST).await.unwrap();
    wrote.recv().await.unwrap();
    assert_eq!(db.pool_status().in_use, 1);
    drop(socket);
    assert!(gone.await.is_err(), "the handler's future is dropped");
    assert!(!is_stored(&db).await);
    all_connections_are_free(&db).await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_commit_that_is_under_way_ends_also_when_the_client_goes_away(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    // A commit that waits for the lock.
    sqlx::raw_sql(
        "create function wait() returns trigger language plpgsql as
             $$ begin perform pg_advisory_xact_lock(1); return null; end $$;
         create constraint trigger wait after insert on users deferrable initially deferred
             for each row execute function wait()",
    )
    .execute(&pool)
    .await
    .unwrap();
    let mut lock = db.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(1)").execute(lock.executor()).await.unwrap();

    let (alive, gone) = oneshot::channel::<()>();
    let alive = Arc::new(Mutex::new(Some(alive)));
    let outermost = middleware::from_fn(move |request: Request, next: Next| {
        let alive = alive.clone();
        async move {
            let _alive = alive.lock().await.take();
            next.run(request).await
        }
    });
    let handler = routing::any(async |mut tx: Tx| write(&mut tx).await);
    let layer = middleware::from_fn_with_state(db.clone(), web::unit_of_work);
    let server = serve(Router::new().route("/", handler).layer(layer).layer(outermost)).await;

    let mut socket = server.socket().await;
    socket.write_all(POST).await.unwrap();
    eventually("the commit waits", async || {
        sqlx::query_scalar::<_, bool>(
            "select exists (select from pg_locks where locktype = 'advisory' and not granted
                and database = (select oid from pg_database where datname = current_database()))",
        )
        .fetch_one(&pool)
        .await
        .unwrap()
    })
    .await;
    drop(socket);
    assert!(gone.await.is_err(), "the request's future is dropped");
    lock.rollback().await.unwrap();
    eventually("it is stored", async || is_stored(&db).await).await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_commit_that_fails_is_the_response(pool: PgPool) {
    let db = database(&pool, 1).await;
    sqlx::query(
        "create table tickets (seat int constraint tickets_seat_key unique deferrable initially deferred)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let server = serve_one(&db, |mut tx: Tx| async move {
        write(&mut tx).await;
        for _ in 0..2 {
            let insert = sqlx::query("insert into tickets values (7)");
            insert.execute(tx.executor()).await.unwrap();
        }
        (StatusCode::CREATED, [("set-cookie", "sold=7")])
    })
    .await;
    let answer = server.get("/").await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (409, "conflict"));
    assert!(!answer.headers.contains_key("set-cookie"), "nothing of the success is left");
    assert!(!is_stored(&db).await);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_success_after_a_failed_statement_is_an_error(pool: PgPool) {
    let db = database(&pool, 1).await;
    let server = serve_one(&db, |mut tx: Tx| async move {
        write(&mut tx).await;
        assert!(tx.users().create(NewUser::new(EMAIL)).await.is_err());
        StatusCode::OK
    })
    .await;
    assert_eq!(server.get("/").await.status, 500);
    assert!(!is_stored(&db).await);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_connection_that_breaks_before_the_commit_is_an_error(pool: PgPool) {
    let db = database(&pool, 1).await;
    let other = pool.clone();
    let server = serve_one(&db, async move |mut tx: Tx| {
        write(&mut tx).await;
        let pid: i32 =
            sqlx::query_scalar("select pg_backend_pid()").fetch_one(tx.executor()).await.unwrap();
        let terminate = sqlx::query("select pg_terminate_backend($1, 10000)").bind(pid);
        terminate.execute(&other).await.unwrap();
        StatusCode::OK
    })
    .await;
    let answer = server.get("/").await;
    assert!(answer.status.is_server_error(), "{}", answer.status);
    assert!(!is_stored(&db).await);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_tx_that_outlives_its_handler_is_an_error_and_never_stored(pool: PgPool) {
    let db = database(&pool, 1).await;
    let in_a_stream = serve_one(&db, |mut tx: Tx| async move {
        write(&mut tx).await;
        Body::from_stream(stream::once(async move {
            drop(tx);
            Ok::<_, Infallible>("stored, or so it seems")
        }))
    })
    .await;
    let (release, released) = oneshot::channel::<()>();
    let (done, mut is_done) = mpsc::channel::<()>(1);
    let released = Arc::new(Mutex::new(Some(released)));
    let in_a_task = serve_one(&db, async move |mut tx: Tx| {
        let released = released.lock().await.take().unwrap();
        let done = done.clone();
        tokio::spawn(async move {
            write(&mut tx).await;
            released.await.unwrap();
            drop(tx);
            done.send(()).await.unwrap();
        });
        StatusCode::OK
    })
    .await;

    let log = Log::start();
    let answer = in_a_stream.get("/").await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (500, "internal"));
    assert!(log.text().contains("a Tx outlived its handler"), "{}", log.text());
    all_connections_are_free(&db).await;
    assert!(!is_stored(&db).await);

    assert_eq!(in_a_task.get("/").await.status, 500);
    release.send(()).unwrap();
    is_done.recv().await.unwrap();
    all_connections_are_free(&db).await;
    assert!(!is_stored(&db).await);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn without_the_layer_the_log_says_what_to_install(_pool: PgPool) {
    let routes = Router::new()
        .route("/tx", routing::get(|_: Tx| async {}))
        .route("/after", routing::post(|_: TxAfter<String>| async {}));
    let server = serve(routes).await;
    for (method, path) in [("GET", "/tx"), ("POST", "/after")] {
        let log = Log::start();
        let answer = server.send(method, path, "").await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (500, "internal"));
        let advice = "from_fn_with_state(db, chancery::web::unit_of_work)";
        assert!(log.text().contains(advice), "{}", log.text());
        assert!(!answer.text.contains("unit_of_work"));
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn two_at_a_time_are_refused_and_the_first_is_given_back(pool: PgPool) {
    let db = database(&pool, 1).await;
    let server = serve_one(&db, |_: Tx, _: Tx| async {}).await;
    let log = Log::start();
    assert_eq!(server.get("/").await.status, 500);
    assert!(log.text().contains("another Tx of this request is in use"), "{}", log.text());
    all_connections_are_free(&db).await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn one_after_the_other_they_are_the_same_unit_of_work(pool: PgPool) {
    let db = database(&pool, 1).await;
    for (status, stored) in [(404, false), (200, true)] {
        let handler = routing::any(async move |mut tx: Tx| {
            let seen = tx.users().get_by_email(EMAIL).await.unwrap();
            assert!(seen.is_some(), "what the middleware wrote");
            StatusCode::from_u16(status).unwrap()
        });
        let before = middleware::from_fn(async |mut tx: Tx, request: Request, next: Next| {
            write(&mut tx).await;
            drop(tx);
            next.run(request).await
        });
        // Installed twice, as happens with nested routers: still one.
        let layer = || middleware::from_fn_with_state(db.clone(), web::unit_of_work);
        let routes = Router::new().route("/", handler).layer(layer()).layer(before).layer(layer());
        assert_eq!(serve(routes).await.get("/").await.status, status);
        assert_eq!(is_stored(&db).await, stored);
    }
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn only_a_request_that_asks_for_one_uses_a_connection(pool: PgPool) {
    let db = database(&pool, 1).await;
    let layer = middleware::from_fn_with_state(db.clone(), web::unit_of_work);
    let routes = Router::new()
        .route("/without", routing::get(|| async {}))
        .route("/with", routing::get(|_: Tx| async {}))
        .layer(layer);
    let server = serve(routes).await;
    db.close().await;
    assert_eq!(server.get("/without").await.status, 200);
    let answer = server.get("/with").await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (503, "unavailable"));
    assert!(answer.headers.contains_key("retry-after"));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_request_that_gets_no_connection_in_time_is_asked_to_come_again(pool: PgPool) {
    let config = config(&pool, 1).pool_timeout(Duration::from_secs(1)).build().unwrap();
    let db = Database::connect(&config).await.unwrap();
    let server = serve_one(&db, |_: Tx| async {}).await;
    let the_only_one = db.begin().await.unwrap();
    let answer = server.get("/").await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (503, "unavailable"));
    assert!(answer.headers.contains_key("retry-after"));
    the_only_one.rollback().await.unwrap();
    assert_eq!(server.get("/").await.status, 200);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_slow_upload_occupies_no_connection(pool: PgPool) {
    let db = database(&pool, 1).await;
    let (arrived, mut arrival) = mpsc::channel::<()>(2);
    let outermost = middleware::from_fn(move |request: Request, next: Next| {
        let arrived = arrived.clone();
        async move {
            arrived.send(()).await.unwrap();
            next.run(request).await
        }
    });
    let create = async |TxAfter(email, mut tx): TxAfter<String>| -> chancery::Result<String> {
        Ok(tx.users().create(NewUser::new(email)).await?.email)
    };
    let layer = middleware::from_fn_with_state(db.clone(), web::unit_of_work);
    let routes = Router::new().route("/", routing::post(create)).layer(layer).layer(outermost);
    let server = serve(routes).await;

    let mut slow = server.socket().await;
    slow.write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 15\r\n\r\nada@")
        .await
        .unwrap();
    arrival.recv().await.unwrap();
    let other = server.send("POST", "/", "bob@example.org").await;
    assert_eq!((other.status.as_u16(), &*other.text), (200, "bob@example.org"));
    assert!(!is_stored(&db).await);

    slow.write_all(b"example.org").await.unwrap();
    eventually("the slow one is stored", async || is_stored(&db).await).await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_body_that_is_refused_keeps_its_own_answer(pool: PgPool) {
    let db = Database::from_pool(pool);
    let server = serve_one(&db, |TxAfter(Json(_), _): TxAfter<Json<Vec<String>>>| async {}).await;
    assert_eq!(server.post("/", json!("no list")).await.status, 422);
    assert_eq!(server.send("POST", "/", "no json").await.status, 400);
    assert_eq!(server.post("/", json!([])).await.status, 200);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_application_s_own_error_rolls_back_as_well(pool: PgPool) {
    struct Teapot;
    impl IntoResponse for Teapot {
        fn into_response(self) -> Response {
            StatusCode::IM_A_TEAPOT.into_response()
        }
    }
    impl From<BoxError> for Teapot {
        fn from(_: BoxError) -> Self {
            Self
        }
    }
    let db = Database::from_pool(pool);
    let server = serve_one(&db, |mut tx: Tx| async move {
        write(&mut tx).await;
        Err::<(), _>(Teapot::from(BoxError::from("short and stout")))
    })
    .await;
    assert_eq!(server.get("/").await.status, 418);
    assert!(!is_stored(&db).await);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn savepoints_work_inside(pool: PgPool) {
    let db = Database::from_pool(pool);
    let server = serve_one(&db, |mut tx: Tx| async move {
        write(&mut tx).await;
        let again = tx.transaction(async |uow| uow.users().create(NewUser::new(EMAIL)).await);
        assert!(matches!(again.await, Err(Error::Conflict(_))));
        StatusCode::OK
    })
    .await;
    let answer = tokio::time::timeout(crate::support::PATIENCE, server.get("/")).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(is_stored(&db).await);
}
