//! Runtimes that end, several of them, and none: nothing panics, and nothing is wrongly told.

use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use chancery::{Database, DatabaseConfig, Error, PoolOrder, UnitOfWork};
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use sqlx::PgPool;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::support::database::{config, url, value};
use crate::support::{new_transcript, new_user, unique, user};

const STATE: &str = "CHANCERY_TEST_RUNTIME_STATE";
const URL: &str = "CHANCERY_TEST_RUNTIME_URL";

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// All that a program may still hold when its runtime ends. Each part is the last that holds its pool.
struct Held {
    parts: Vec<Box<dyn std::any::Any + Send>>,
    unit: UnitOfWork,
    db: Database,
}

/// A call that was begun and not ended, with all that it borrows.
type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn pooled(config: &DatabaseConfig) -> Database {
    let db = Database::connect_lazy(config);
    sqlx::query("select 1").execute(db.executor()).await.unwrap();
    db
}

async fn hold(config: &DatabaseConfig) -> Held {
    let mut parts: Vec<Box<dyn std::any::Any + Send>> = Vec::new();
    let mut begun = async |mut call: Call| {
        let pending =
            std::future::poll_fn(|cx| Poll::Ready(call.poll_unpin(cx).is_pending())).await;
        assert!(pending);
        parts.push(Box::new(std::sync::Mutex::new(call)));
    };
    // In the midst of a statement, of rows, of connecting.
    let db = pooled(config).await;
    begun(Box::pin(async move {
        sqlx::query("select pg_sleep(60)").execute(db.executor()).await.unwrap();
    }))
    .await;
    let db = pooled(config).await;
    begun(Box::pin(async move {
        let mut rows =
            sqlx::query("select 1 union all select 2 from pg_sleep(60)").fetch(db.executor());
        while rows.next().await.is_some() {}
    }))
    .await;
    let db = Database::connect_lazy(config);
    begun(Box::pin(async move {
        sqlx::query("select pg_sleep(60)").execute(db.executor()).await.unwrap();
    }))
    .await;
    // A unit of work in the midst of a statement, one that failed, one whose connection broke.
    let db = pooled(config).await;
    let mut unit = db.begin().await.unwrap();
    begun(Box::pin(async move {
        let db = db;
        sqlx::query("select pg_sleep(60)").execute(unit.executor()).await.unwrap();
        drop(db);
    }))
    .await;
    for statement in ["select 1/0", "select pg_terminate_backend(pg_backend_pid())"] {
        let db = pooled(config).await;
        let mut unit = db.begin().await.unwrap();
        sqlx::raw_sql(statement).execute(unit.executor()).await.unwrap_err();
        parts.push(Box::new(unit));
    }
    // Idle ones, and one that listens.
    parts.push(Box::new(pooled(config).await));
    let db = pooled(config).await;
    parts.push(Box::new(db.listen_extraction_jobs().await.unwrap()));
    // The unit of work that is left, and a connection that is at hand.
    let db = Database::connect_lazy(config);
    let (mut unit, other) = (db.begin().await.unwrap(), db.begin().await.unwrap());
    other.rollback().await.unwrap();
    let key = format!("never committed {}", unique());
    unit.config().set_value(&key, &json!(1), None).await.unwrap();
    Held { parts, unit, db }
}

impl Held {
    fn drop_all(self) {
        let Self { parts, unit, db } = self;
        drop(db);
        drop(unit);
        drop(parts);
    }
}

/// One run: everything is held, the runtime ends in this way, and everything is dropped.
fn run(state: &str, round: usize, config: &DatabaseConfig) {
    let runtime = if round.is_multiple_of(2) { multi_thread() } else { current_thread() };
    let held = runtime.block_on(hold(config));
    match state {
        "none" => {
            // Before it ends, or after.
            let runtime = if round % 4 < 2 { Some(runtime) } else { None };
            held.drop_all();
            drop(runtime);
        }
        "other" => {
            let runtime = if round % 4 < 2 { Some(runtime) } else { None };
            let other = if round % 8 < 4 { multi_thread() } else { current_thread() };
            other.block_on(async move { held.drop_all() });
            drop((runtime, other));
        }
        "current-thread" => {
            drop(runtime);
            let runtime = current_thread();
            let held = runtime.block_on(hold(config));
            if round.is_multiple_of(2) {
                runtime.spawn(async move {
                    std::future::pending::<()>().await;
                    held.drop_all();
                });
                drop(runtime);
            } else {
                runtime.block_on(async move { held.drop_all() });
            }
        }
        "shutting down" => {
            drop((held, runtime));
            shut_down(config, round);
        }
        other => panic!("{other}"),
    }
}

/// The runtime begins to shut down while one of its tasks is at work, which then goes on.
fn shut_down(config: &DatabaseConfig, round: usize) {
    let runtime = multi_thread();
    let held = runtime.block_on(hold(config));
    let (begun, wait) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let down = Arc::new(AtomicBool::new(false));
    let task = {
        let (down, handle) = (Arc::clone(&down), runtime.handle().clone());
        let work = async move {
            let Held { parts, unit, db } = held;
            begun.send(()).unwrap();
            while !down.load(SeqCst) {
                std::thread::yield_now();
            }
            // Until a worker has seen it, tasks are still taken.
            while !tokio::spawn(std::future::pending::<()>()).is_finished() {
                std::thread::yield_now();
            }
            let begin = db.begin().await.map(drop);
            // It may find a connection, whose answer would not be heard any more.
            let read = db.config().get_value("any").now_or_never();
            // From here on the unit of work is the last that holds the pool.
            drop(db);
            let ended = if round % 4 < 2 { unit.commit().await } else { unit.rollback().await };
            let spawned = tokio::spawn(async move { drop(parts) }).await;
            assert!(spawned.is_err());
            tell.send((begin, read, ended)).unwrap();
        };
        if round.is_multiple_of(2) {
            handle.spawn(work);
            None
        } else {
            // The same from outside, by its handle.
            Some(std::thread::spawn(move || handle.block_on(work)))
        }
    };
    wait.recv().unwrap();
    runtime.shutdown_background();
    down.store(true, SeqCst);
    let (begin, read, ended) = told.recv().unwrap();
    assert!(matches!(begin, Err(Error::NoRuntime)), "{begin:?}");
    assert!(read.as_ref().is_none_or(Result::is_err), "{read:?}");
    let unknown = matches!(ended, Err(Error::CommitUnknown { .. } | Error::NoRuntime));
    assert!(unknown, "{ended:?}");
    if let Some(thread) = task {
        thread.join().unwrap();
    }
}

/// Runs each state in a process of its own, which a panic ends, in whatever task: 200 runs each with
/// FAULTS_ROUNDS=10.
async fn survives(pool: PgPool, state: &'static str) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "runtimes::in_a_process_of_its_own", "--nocapture"]);
    child.env(STATE, state).env(URL, url(&pool).as_str());
    let output = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{state}: {:?}\n{shown}", output.status);
    assert!(shown.contains("0 panics"), "{shown}");
    eprint!(
        "{}",
        shown.lines().filter(|line| line.starts_with("fault:")).collect::<String>() + "\n"
    );
    assert_eq!(value::<i64>(&pool, "select count(*) from config").await, 0, "it was committed");
}

#[test]
fn in_a_process_of_its_own() {
    let (Ok(state), Ok(url)) = (std::env::var(STATE), std::env::var(URL)) else { return };
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}\n{}", std::backtrace::Backtrace::force_capture());
        std::process::abort();
    }));
    // In this order nobody gives way, which a task of a runtime that shuts down does not come back from.
    let config = DatabaseConfig::builder().url(&url).pool_size(2).max_overflow(0);
    let config = config.pool_order(PoolOrder::Lifo).build().unwrap();
    let rounds =
        std::env::var("FAULTS_ROUNDS").map_or(8, |rounds| 20 * rounds.parse::<usize>().unwrap());
    for round in 0..rounds {
        run(&state, round, &config);
    }
    eprintln!("fault: runtime {state}: {rounds} runs, 0 panics");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn nothing_panics_that_is_dropped_outside_of_a_runtime(pool: PgPool) {
    survives(pool, "none").await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn nothing_panics_that_is_dropped_in_another_runtime(pool: PgPool) {
    survives(pool, "other").await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn nothing_panics_that_is_dropped_with_its_current_thread_runtime(pool: PgPool) {
    survives(pool, "current-thread").await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_runtime_that_shuts_down_makes_nothing_panic_and_no_commit_a_success(pool: PgPool) {
    survives(pool, "shutting down").await;
}

/// What a test of an application's does with its one database.
async fn use_database(db: &Database, number: usize) {
    let user = user(db).await;
    assert_eq!(db.users().get_by_id(user.id).await.unwrap().unwrap().id, user.id);
    db.transaction(async |uow| uow.users().create(new_user()).await).await.unwrap();
    let mut unit = db.begin().await.unwrap();
    unit.config().set_value(&format!("key {number}"), &json!(number), None).await.unwrap();
    unit.commit().await.unwrap();
    let as_user = db.as_user(user.id);
    as_user.transcripts().create(new_transcript(user.id)).await.unwrap();
    assert_eq!(as_user.transcripts().list_by_user(user.id, 10, 0).await.unwrap().len(), 1);
}

/// Leaves calls in all stages behind.
async fn leave_in_midst(db: &Database) {
    for _ in 0..2 {
        let mut call = sqlx::query("select pg_sleep(60)").execute(db.executor()).boxed();
        std::future::poll_fn(|cx| Poll::Ready(call.poll_unpin(cx).is_pending())).await;
    }
    let mut unit = db.begin().await.unwrap();
    let given_up = sqlx::query("select pg_sleep(60)").execute(unit.executor());
    tokio::time::timeout(Duration::from_millis(1), given_up).await.unwrap_err();
}

async fn off_the_runtime(act: impl FnOnce() + Send + 'static) {
    // Not `spawn_blocking`, whose threads know their runtime.
    let thread = std::thread::spawn(move || {
        assert!(Handle::try_current().is_err());
        act();
    });
    tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn one_database_serves_twenty_runtimes_one_after_the_other(pool: PgPool) {
    let config = config(&pool).pool_size(3).max_overflow(1).build().unwrap();
    off_the_runtime(move || {
        let db = Database::connect_lazy(&config);
        for number in 0..20 {
            let runtime = if number % 2 == 0 { current_thread() } else { multi_thread() };
            runtime.block_on(async {
                use_database(&db, number).await;
                leave_in_midst(&db).await;
            });
        }
        current_thread().block_on(db.close());
    })
    .await;
    assert_eq!(value::<i64>(&pool, "select count(*) from users").await, 40);
    assert_eq!(value::<i64>(&pool, "select count(*) from config").await, 20);
    assert_eq!(value::<i64>(&pool, "select count(*) from transcripts").await, 20);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn one_database_serves_several_runtimes_at_once_that_end_at_different_times(pool: PgPool) {
    let config = config(&pool).pool_size(3).max_overflow(1).build().unwrap();
    off_the_runtime(move || {
        let db = Database::connect_lazy(&config);
        let threads = (0..6).map(|thread| {
            let db = db.clone();
            std::thread::spawn(move || {
                for number in 0..4 {
                    let runtime = if thread % 3 == 0 { multi_thread() } else { current_thread() };
                    runtime.block_on(async {
                        for call in 0..=thread {
                            use_database(&db, thread * 1000 + number * 100 + call).await;
                        }
                    });
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        current_thread().block_on(db.close());
    })
    .await;
    assert_eq!(value::<i64>(&pool, "select count(*) from config").await, 4 * 21);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_pool_may_be_wrapped_outside_of_a_runtime(pool: PgPool) {
    let wrapped = pool.clone();
    off_the_runtime(move || {
        let db = Database::from_pool(wrapped);
        let without = db.begin().now_or_never().expect("it waits for nothing");
        assert!(matches!(without, Err(Error::NoRuntime)), "{without:?}");
        for number in 0..3 {
            current_thread().block_on(use_database(&db, number));
        }
    })
    .await;
    assert_eq!(value::<i64>(&pool, "select count(*) from config").await, 3);
}
