//! Workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chancery::{
    ClaimedJob, Database, Due, Error, ExtractionJob, ExtractionJobId, JobError, JobStatus,
    RetryPolicy, Worker, WorkerOptions,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use crate::support::database::terminate;
use crate::support::{PATIENCE, eventually, job, jobs, new_job, project};

/// Nothing in these tests is found by polling unless it says so.
pub const OPTIONS: WorkerOptions = WorkerOptions {
    concurrency: 4,
    prefetch: 0,
    lease: Duration::from_secs(60),
    poll_interval: Duration::from_secs(3600),
    listen: true,
    grace: Duration::from_secs(30),
    retry: RetryPolicy { base: Duration::from_millis(20), cap: Duration::from_millis(40) },
};

pub struct Running {
    pub task: JoinHandle<chancery::Result<()>>,
    pub stop: Arc<Notify>,
}

impl Running {
    pub async fn stop(self) {
        self.stop.notify_one();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

pub fn start<F>(
    db: &Database,
    options: WorkerOptions,
    handler: impl Fn(ClaimedJob) -> F + Send + Sync + 'static,
) -> Running
where
    F: Future<Output = Result<Value, JobError>> + Send + 'static,
{
    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let worker = Worker::with_options(db, options);
    let task = tokio::spawn(worker.run(handler, async move { stopped.notified().await }));
    Running { task, stop }
}

/// A database handle with connections of its own, which the server shows under this name.
pub async fn named(pool: &PgPool, name: &str, connections: u32) -> Database {
    let options = (*pool.connect_options()).clone().application_name(name);
    let pool = PgPoolOptions::new().max_connections(connections).connect_with(options);
    Database::from_pool(pool.await.unwrap())
}

pub async fn get(db: &Database, id: ExtractionJobId) -> ExtractionJob {
    db.extraction_jobs().get_by_id(id).await.unwrap().unwrap()
}

pub async fn until(db: &Database, id: ExtractionJobId, status: JobStatus) -> ExtractionJob {
    eventually(status.as_str(), async || get(db, id).await.status == status).await;
    get(db, id).await
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_worker_stores_what_the_handler_returns_and_is_woken_by_new_jobs(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let first = job(&db).await;
    let worker = start(&db, OPTIONS, async |claimed| Ok(json!({"from": claimed.job.source_url})));
    let done = until(&db, first.id, JobStatus::Completed).await;
    assert_eq!(done.result_data, Some(json!({"from": first.source_url})));
    assert_eq!((done.attempts, done.error_message, done.lease_expires_at), (1, None, None));
    eventually("it listens", async || {
        let listening = "select count(*) from pg_stat_activity
                          where datname = current_database() and query like 'LISTEN%'";
        sqlx::query_scalar::<_, i64>(listening).fetch_one(&pool).await.unwrap() == 1
    })
    .await;
    let id: uuid::Uuid = sqlx::query_scalar(
        "insert into extraction_jobs (project_id, source_url, extraction_type)
         values ($1, 'x', 'y') returning id",
    )
    .bind(first.project_id.as_uuid())
    .fetch_one(&pool)
    .await
    .unwrap();
    until(&db, id.into(), JobStatus::Completed).await;
    worker.stop().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_for_later_is_done_when_it_is_due_without_a_poll(pool: PgPool) {
    let db = Database::from_pool(pool);
    let project = project(&db).await;
    let later = new_job(project.id).due(Due::In(Duration::from_millis(400)));
    let job = db.extraction_jobs().create(later).await.unwrap();
    let worker = start(&db, OPTIONS, async |_| Ok(json!(1)));
    let done = until(&db, job.id, JobStatus::Completed).await;
    assert!(done.completed_at.unwrap() >= job.run_at);
    worker.stop().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn polling_finds_jobs_when_no_notification_comes(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let project = project(&db).await;
    for trigger in ["notify_insert", "notify_pending"] {
        let off = format!("drop trigger extraction_jobs_{trigger} on extraction_jobs");
        sqlx::raw_sql(sqlx::AssertSqlSafe(off)).execute(&pool).await.unwrap();
    }
    let poll_interval = Duration::from_millis(30);
    for listen in [true, false] {
        let options = WorkerOptions { poll_interval, listen, ..OPTIONS };
        let worker = start(&db, options, async |_| Ok(json!(1)));
        for _ in 0..3 {
            let job = db.extraction_jobs().create(new_job(project.id)).await.unwrap();
            until(&db, job.id, JobStatus::Completed).await;
        }
        worker.stop().await;
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn errors_panics_and_results_that_cannot_be_stored_are_tried_again(pool: PgPool) {
    let db = Database::from_pool(pool);
    let project = project(&db).await;
    let kinds = ["error", "panic", "unstorable", "nul", "permanent", "third time"];
    let new = kinds.map(|kind| chancery::NewExtractionJob {
        extraction_type: kind.into(),
        ..new_job(project.id).max_attempts(3)
    });
    let stored = db.extraction_jobs().create_many(new.to_vec()).await.unwrap();
    let worker = start(&db, OPTIONS, async |claimed: ClaimedJob| {
        match claimed.job.extraction_type.as_str() {
            "error" => Err(std::io::Error::other("no route").into()),
            "panic" => panic!("out of {}", "ideas"),
            "unstorable" => Ok(json!("\0")),
            "nul" => Err(JobError::retry("a\0b".repeat(10_000))),
            "permanent" => Err(JobError::permanent("no such file")),
            _ if claimed.job.attempts < 3 => Err(JobError::retry("not yet")),
            _ => Ok(json!("at last")),
        }
    });
    let mut ended = Vec::new();
    for (job, kind) in stored.iter().zip(kinds) {
        let status = if kind == "third time" { JobStatus::Completed } else { JobStatus::Failed };
        ended.push(until(&db, job.id, status).await);
    }
    worker.stop().await;
    assert_eq!(ended.iter().map(|job| job.attempts).collect::<Vec<_>>(), [3, 3, 3, 3, 1, 3]);
    let messages: Vec<_> =
        ended.iter().map(|j| j.error_message.clone().unwrap_or_default()).collect();
    assert_eq!(messages[0], "no route");
    assert_eq!(messages[1], "the handler panicked: out of ideas");
    assert!(messages[2].contains("can't be stored"), "{}", messages[2]);
    assert_eq!(messages[3], "ab".repeat(2000));
    assert_eq!((messages[4].as_str(), messages[5].as_str()), ("no such file", ""));
    assert_eq!(ended[5].result_data, Some(json!("at last")));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn no_transaction_is_open_while_a_handler_runs(pool: PgPool) {
    let db = named(&pool, "worker", 5).await;
    let job = job(&db).await;
    let observer = pool.clone();
    let worker = start(&db, OPTIONS, move |_| {
        let pool = observer.clone();
        async move {
            // A statement of the worker's may be under way; what is held open would never go.
            let open = "select count(*) from pg_stat_activity
                         where datname = current_database() and application_name = 'worker'
                           and xact_start is not null";
            while sqlx::query_scalar::<_, i64>(open).fetch_one(&pool).await? > 0 {
                tokio::task::yield_now().await;
            }
            Ok(json!(1))
        }
    });
    assert_eq!(until(&db, job.id, JobStatus::Completed).await.attempts, 1);
    worker.stop().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn no_more_jobs_run_at_a_time_than_asked_for(pool: PgPool) {
    let db = Database::from_pool(pool);
    let jobs = jobs(&db, 40).await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, seen) = (running.clone(), most.clone());
    let options = WorkerOptions { concurrency: 3, prefetch: 10, ..OPTIONS };
    let worker = start(&db, options, move |_| {
        let (running, most) = (counted.clone(), seen.clone());
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(json!(1))
        }
    });
    let project = jobs[0].project_id;
    eventually("all done", async || {
        db.extraction_jobs().counts_by_project(project).await.unwrap().completed == 40
    })
    .await;
    worker.stop().await;
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_that_takes_longer_than_its_lease_keeps_it(pool: PgPool) {
    let db = Database::from_pool(pool);
    let job = job(&db).await;
    // A busy machine may be late for one heartbeat, not for all.
    let options = WorkerOptions { lease: Duration::from_secs(3), ..OPTIONS };
    let reader = db.clone();
    let worker = start(&db, options, move |claimed| {
        let (db, first_end) = (reader.clone(), claimed.job.lease_expires_at.unwrap());
        async move {
            let past = "select clock_timestamp() > $1 + interval '200 ms'";
            while !sqlx::query_scalar(past).bind(first_end).fetch_one(db.pool()).await? {
                tokio::task::yield_now().await;
            }
            assert!(db.extraction_jobs().claim(1, OPTIONS.lease).await.unwrap().is_empty());
            Ok(json!(1))
        }
    });
    assert_eq!(until(&db, job.id, JobStatus::Completed).await.attempts, 1);
    worker.stop().await;
}

/// Tells when it goes.
struct Goes(mpsc::UnboundedSender<()>);

impl Drop for Goes {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

pub type Work = futures_util::future::BoxFuture<'static, Result<Value, JobError>>;

/// A handler that never ends, and what tells that one began and that it was stopped.
pub fn endless()
-> (impl Fn(ClaimedJob) -> Work, mpsc::UnboundedReceiver<()>, mpsc::UnboundedReceiver<()>) {
    let (began, has_begun) = mpsc::unbounded_channel();
    let (goes, has_gone) = mpsc::unbounded_channel();
    let handler = move |_| {
        let (began, goes) = (began.clone(), Goes(goes.clone()));
        let work: Work = Box::pin(async move {
            let _goes = goes;
            began.send(()).unwrap();
            std::future::pending().await
        });
        work
    };
    (handler, has_begun, has_gone)
}

pub async fn told(receiver: &mut mpsc::UnboundedReceiver<()>) {
    timeout(PATIENCE, receiver.recv()).await.expect("told in time").unwrap();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn shutting_down_gives_back_what_was_not_begun_and_lets_the_rest_end(pool: PgPool) {
    let db = Database::from_pool(pool);
    let jobs = jobs(&db, 4).await;
    let (began, mut has_begun) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let handlers = gate.clone();
    let options = WorkerOptions { concurrency: 1, prefetch: 3, ..OPTIONS };
    let worker = start(&db, options, move |_| {
        let (began, gate) = (began.clone(), handlers.clone());
        async move {
            began.send(()).unwrap();
            gate.acquire().await.unwrap().forget();
            Ok(json!(1))
        }
    });
    told(&mut has_begun).await;
    assert_eq!(get(&db, jobs[3].id).await.status, JobStatus::Processing);
    worker.stop.notify_one();
    for job in &jobs[1..] {
        assert_eq!(until(&db, job.id, JobStatus::Pending).await.attempts, 0);
    }
    gate.add_permits(4);
    worker.stop().await;
    assert_eq!(get(&db, jobs[0].id).await.status, JobStatus::Completed);
    assert_eq!(db.extraction_jobs().count_by_status(JobStatus::Pending).await.unwrap(), 3);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_does_not_end_in_time_is_stopped_and_given_back(pool: PgPool) {
    let db = Database::from_pool(pool);
    let job = job(&db).await;
    let (handler, mut began, mut gone) = endless();
    let options = WorkerOptions { grace: Duration::from_millis(50), ..OPTIONS };
    let worker = start(&db, options, handler);
    told(&mut began).await;
    worker.stop().await;
    told(&mut gone).await;
    let back = get(&db, job.id).await;
    assert_eq!((back.status, back.attempts), (JobStatus::Pending, 0));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_worker_ends_when_its_database_handle_is_closed(pool: PgPool) {
    let db = named(&pool, "worker", 3).await;
    let worker = start(&db, OPTIONS, async |_| Ok(json!(1)));
    let done = job(&db).await;
    until(&db, done.id, JobStatus::Completed).await;
    db.close().await;
    let ended = timeout(PATIENCE, worker.task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(Error::PoolClosed)), "{ended:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn options_out_of_range_are_refused(pool: PgPool) {
    let db = Database::from_pool(pool);
    for (field, options) in [
        ("concurrency", WorkerOptions { concurrency: 0, ..OPTIONS }),
        ("concurrency", WorkerOptions { concurrency: 501, ..OPTIONS }),
        ("prefetch", WorkerOptions { prefetch: 501, ..OPTIONS }),
        ("lease", WorkerOptions { lease: Duration::from_millis(999), ..OPTIONS }),
        ("lease", WorkerOptions { lease: Duration::MAX, ..OPTIONS }),
        ("poll_interval", WorkerOptions { poll_interval: Duration::ZERO, ..OPTIONS }),
        ("grace", WorkerOptions { grace: Duration::MAX, ..OPTIONS }),
        (
            "cap",
            WorkerOptions { retry: RetryPolicy { cap: Duration::MAX, ..OPTIONS.retry }, ..OPTIONS },
        ),
    ] {
        let worker = Worker::with_options(&db, options);
        let ended = worker.run(async |_| Ok::<_, JobError>(json!(1)), std::future::pending()).await;
        assert!(
            matches!(&ended, Err(Error::InvalidInput(e)) if e.field == field),
            "{field}: {ended:?}"
        );
    }
}
