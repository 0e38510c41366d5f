//! Servers that take no writes, for a while or for good: what calls, health and workers make of it.

use std::sync::Arc;
use std::time::Duration;

use chancery::{
    ClaimedJob, Database, DatabaseConfig, Error, HealthStatus, IsolationLevel, JobStatus, Result,
    RevertTo, ServerRole, TransactionOptions, UserId, WorkerOptions,
};
use private_postgres::{Server, StopMode};
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use url::Url;

use crate::job_worker::{OPTIONS, Work, get, start, told, until};
use crate::replicas::{caught_up, on, pair};
use crate::support::database::{connect, eventually};
use crate::support::events::Events;
use crate::support::proxy::Proxy;
use crate::support::{job, new_job, new_user, project, user};

const CONNECTIONS: u32 = 4;

/// How a call writes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Statement,
    Closure,
    Manual,
    AsUser,
    ClosureAsUser,
}

const FORMS: [Form; 5] =
    [Form::Statement, Form::Closure, Form::Manual, Form::AsUser, Form::ClosureAsUser];

impl Form {
    async fn write(self, db: &Database, owner: UserId) -> Result<()> {
        match self {
            Self::Statement => db.conversations().create(owner, None).await.map(drop),
            Self::Closure => {
                db.transaction(async |uow| uow.conversations().create(owner, None).await.map(drop))
                    .await
            }
            Self::Manual => {
                let mut uow = db.begin().await?;
                uow.conversations().create(owner, None).await?;
                uow.commit().await
            }
            Self::AsUser => db.as_user(owner).conversations().create(owner, None).await.map(drop),
            Self::ClosureAsUser => {
                db.as_user(owner)
                    .transaction(async |uow| {
                        uow.conversations().create(owner, None).await.map(drop)
                    })
                    .await
            }
        }
    }
}

/// Reads in every form; none may fail where nothing can be written.
async fn read(db: &Database, owner: UserId) {
    assert!(db.users().get_by_id(owner).await.unwrap().is_some());
    assert!(db.as_user(owner).users().get_by_id(owner).await.unwrap().is_some());
    let mut uow = db.begin().await.unwrap();
    assert!(uow.users().get_by_id(owner).await.unwrap().is_some());
    uow.commit().await.unwrap();
}

/// Eight tasks write in these forms. Returns how many calls succeeded, and the errors of the others.
async fn round(db: &Database, owner: UserId, forms: &'static [Form]) -> (usize, Vec<Error>) {
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let db = db.clone();
        tasks.spawn(async move {
            let mut outcomes = Vec::new();
            for form in forms.iter().cycle().take(100) {
                outcomes.push(form.write(&db, owner).await);
            }
            outcomes
        });
    }
    let (mut succeeded, mut errors) = (0, Vec::new());
    for outcome in tasks.join_all().await.into_iter().flatten() {
        match outcome {
            Ok(()) => succeeded += 1,
            Err(error) => errors.push(error),
        }
    }
    (succeeded, errors)
}

/// At most one call a connection fails, and then none.
async fn assert_found(db: &Database, owner: UserId, forms: &'static [Form], what: &str) {
    let (succeeded, errors) = round(db, owner, forms).await;
    let (later, none) = round(db, owner, forms).await;
    eprintln!(
        "fault: {what}: {} of {} calls failed {errors:?}, then {} of {}",
        errors.len(),
        succeeded + errors.len(),
        none.len(),
        later + none.len()
    );
    assert!(errors.len() <= CONNECTIONS as usize, "{errors:?}");
    assert!(none.is_empty(), "{none:?}");
}

async fn assert_refused(db: &Database, owner: UserId) {
    for form in FORMS {
        let refused = form.write(db, owner).await;
        assert!(matches!(refused, Err(Error::ReadOnly)), "{form:?}: {refused:?}");
    }
}

/// A handle with a few connections, all of them open.
async fn connected(url: &str) -> Database {
    let config = DatabaseConfig::builder().url(url).pool_size(CONNECTIONS).max_overflow(0);
    let db = connect(config).await;
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        all.push(db.begin().await.unwrap());
    }
    drop(all);
    db
}

fn both(one: &Server, other: &Server) -> String {
    let (one, other) = (one.port(), other.port());
    format!("postgres://postgres@127.0.0.1:{one},127.0.0.1:{other}/postgres")
}

/// The primary becomes the standby of its standby: first the new primary, then the new standby.
async fn exchange(primary: Server, standby: Server) -> (Server, Server) {
    let exchanged = tokio::task::spawn_blocking(move || {
        primary.stop(StopMode::Fast).unwrap();
        standby.promote().unwrap();
        primary.follow(&standby).unwrap();
        (standby, primary)
    });
    exchanged.await.unwrap()
}

#[tokio::test]
async fn an_application_that_idles_while_roles_are_exchanged_writes_on_the_new_primary() {
    let Some((primary, standby)) = pair().await else { return };
    let db = connected(&both(&primary, &standby)).await;
    let owner = user(&db).await.id;
    let mut servers = (primary, standby);
    for what in ["roles exchanged", "and back"] {
        servers = exchange(servers.0, servers.1).await;
        assert_found(&db, owner, &FORMS, what).await;
        read(&db, owner).await;
        let health = db.health().await;
        assert_eq!(
            (health.status, health.role, health.error),
            (HealthStatus::Healthy, Some(ServerRole::Primary), None)
        );
        // Sessions beside the pool go there as well.
        assert_eq!(db.migrate().await.unwrap(), [0_i64; 0]);
        db.listen_extraction_jobs().await.unwrap();
    }
    db.close().await;
}

#[tokio::test]
async fn an_address_that_moves_to_the_primary_is_followed_though_its_connections_stay() {
    let Some((primary, standby)) = pair().await else { return };
    let db = connected(&primary.url("postgres")).await;
    let owner = user(&db).await.id;
    caught_up(&standby, db.read_token().await.unwrap()).await;
    db.close().await;

    let url = |server: &Server| Url::parse(&server.url("postgres")).unwrap();
    for forms in [&FORMS[..], &[Form::Manual]] {
        let proxy = Proxy::start(&url(&standby), Duration::ZERO).await;
        let db = connected(proxy.url(&url(&standby)).as_str()).await;
        read(&db, owner).await;
        proxy.redirect(&url(&primary));
        assert_found(&db, owner, forms, "an address moved").await;
        assert!(db.health().await.is_healthy());
        db.close().await;
    }
    // Only who begins by hand can't be tried again.
    let proxy = Proxy::start(&url(&standby), Duration::ZERO).await;
    let db = connected(proxy.url(&url(&standby)).as_str()).await;
    proxy.redirect(&url(&primary));
    let others = &[Form::Statement, Form::Closure, Form::AsUser, Form::ClosureAsUser];
    let (_, errors) = round(&db, owner, others).await;
    assert!(errors.is_empty(), "{errors:?}");
    db.close().await;
}

#[tokio::test]
async fn a_standby_alone_is_told_as_read_only_by_all_that_writes_and_by_health() {
    let Some((primary, standby)) = pair().await else { return };
    let db = connected(&primary.url("postgres")).await;
    let owner = user(&db).await.id;
    caught_up(&standby, db.read_token().await.unwrap()).await;
    db.close().await;

    let db = connected(&standby.url("postgres")).await;
    assert_refused(&db, owner).await;
    read(&db, owner).await;
    let serializable = TransactionOptions::default().isolation(IsolationLevel::Serializable);
    let mut explicit = db.begin().await.unwrap();
    let explicit = sqlx::query("set transaction read write").execute(explicit.executor()).await;
    for (what, refused) in [
        ("serializable", db.begin_with(serializable).await.map(drop)),
        ("as user", db.as_user(owner).begin_with(serializable).await.map(drop)),
        ("explicit", explicit.map(drop).map_err(Error::from)),
        ("identifier", db.begin().await.unwrap().transaction_id().await.map(drop)),
        ("token", db.read_token().await.map(drop)),
        ("listen", db.listen_extraction_jobs().await.map(drop)),
        ("jobs", db.extraction_jobs().claim(1, Duration::from_secs(60)).await.map(drop)),
        ("documents", db.documents().claim_pending(1, Duration::from_secs(60)).await.map(drop)),
    ] {
        assert!(matches!(refused, Err(Error::ReadOnly)), "{what}: {refused:?}");
    }
    assert_eq!(db.migrate().await.unwrap(), [0; 0], "there is nothing to apply");
    for sql in ["select pg_current_wal_lsn()", "select pg_walfile_name('0/1')"] {
        let refused = sqlx::query(sql).execute(db.executor()).await.map_err(Error::from);
        assert!(matches!(refused, Err(Error::ReadOnly)), "{sql}: {refused:?}");
    }
    let url =
        standby.url("postgres") + "?options=-c%20default_transaction_isolation%3Dserializable";
    let refused = Database::connect(&DatabaseConfig::from_url(&url).unwrap()).await;
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    let health = db.health().await;
    assert_eq!((health.status, health.role), (HealthStatus::ReadOnly, Some(ServerRole::Standby)));
    assert_eq!(health.error.as_deref(), Some("the server takes no writes: it is a standby"));
    assert_eq!(serde_json::to_value(health.status).unwrap(), json!("read_only"));
    assert!(!health.is_healthy());

    let standby = tokio::task::spawn_blocking(move || {
        standby.promote().unwrap();
        standby
    });
    let standby = standby.await.unwrap();
    let (_, errors) = round(&db, owner, &FORMS).await;
    assert!(errors.is_empty(), "{errors:?}");
    assert!(db.health().await.is_healthy());
    db.close().await;
    drop(standby);
}

async fn migrated() -> (Server, Database) {
    let server = tokio::task::spawn_blocking(|| Server::start().unwrap()).await.unwrap();
    let db = connected(&server.url("postgres")).await;
    db.migrate().await.unwrap();
    (server, db)
}

/// Holds for sessions that begin from now on.
async fn set_read_only(server: &Server) {
    on(server, &["alter database postgres set default_transaction_read_only = on"]).await;
}

async fn set_read_write(server: &Server) {
    on(
        server,
        &[
            "set default_transaction_read_only = off",
            "alter database postgres reset default_transaction_read_only",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_default_of_read_only_holds_for_every_form_and_ends_without_a_restart() {
    let (server, db) = migrated().await;
    let owner = user(&db).await.id;
    // So that there is one to apply: it validates a constraint.
    db.revert(RevertTo::Steps(1)).await.unwrap();
    db.close().await;
    set_read_only(&server).await;
    let db = connected(&server.url("postgres")).await;
    assert_refused(&db, owner).await;
    read(&db, owner).await;
    let refused = db.migrate().await;
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    let refused = db.revert(RevertTo::Steps(1)).await;
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    let health = db.health().await;
    assert_eq!((health.status, health.role), (HealthStatus::ReadOnly, Some(ServerRole::Primary)));
    assert_eq!(
        health.error.as_deref(),
        Some("the server takes no writes (default_transaction_read_only)")
    );
    // Who says so may write.
    let mut uow = db.begin().await.unwrap();
    sqlx::query("set transaction read write").execute(uow.executor()).await.unwrap();
    uow.users().create(new_user()).await.unwrap();
    uow.commit().await.unwrap();

    // Its sessions go on as they began: others are made.
    set_read_write(&server).await;
    eventually("it is healthy again", async || db.health().await.is_healthy()).await;
    assert_found(&db, owner, &FORMS, "writes allowed again").await;
    db.close().await;
}

#[tokio::test]
async fn a_write_in_a_transaction_that_was_to_read_starts_no_search() {
    let (server, db) = migrated().await;
    let owner = user(&db).await.id;
    db.close().await;
    let config = DatabaseConfig::builder().url(&server.url("postgres")).pool_size(1);
    let db = connect(config.max_overflow(0)).await;
    let backend = async || {
        let sql = "select pg_backend_pid()";
        sqlx::query_scalar::<_, i32>(sql).fetch_one(db.executor()).await.unwrap()
    };
    let before = backend().await;
    let options = TransactionOptions::default().read_only();
    let mut uow = db.as_user(owner).begin_with(options).await.unwrap();
    let refused = uow.conversations().create(owner, None).await;
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    uow.rollback().await.unwrap();
    let refused = db
        .transaction_with(options, async |uow| uow.conversations().create(owner, None).await)
        .await;
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    assert_eq!(backend().await, before);
    db.close().await;
}

/// A handler that tells when it begins, and ends when it is told.
fn gated() -> (
    impl Fn(ClaimedJob) -> Work + Send + Sync + 'static,
    mpsc::UnboundedReceiver<()>,
    Arc<Semaphore>,
) {
    let (began, has_begun) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let opens = gate.clone();
    let handler = move |_| {
        let (began, opens) = (began.clone(), opens.clone());
        let work: Work = Box::pin(async move {
            began.send(()).unwrap();
            opens.acquire().await.unwrap().forget();
            Ok(json!(1))
        });
        work
    };
    (handler, has_begun, gate)
}

/// Waits until a line was logged that has all of these in it.
async fn until_logged(events: &Events, words: &[&str]) {
    eventually(&format!("{words:?} is logged"), async || {
        events.take().iter().any(|(_, _, text)| words.iter().all(|word| text.contains(word)))
    })
    .await;
}

#[tokio::test]
async fn a_worker_stores_what_was_done_while_roles_were_exchanged_and_goes_on() {
    let Some((primary, standby)) = pair().await else { return };
    let db = connected(&both(&primary, &standby)).await;
    let first = job(&db).await;
    let (handler, mut began, gate) = gated();
    let worker = start(&db, OPTIONS, handler);
    told(&mut began).await;
    let servers = exchange(primary, standby).await;
    gate.add_permits(2);
    let done = until(&db, first.id, JobStatus::Completed).await;
    assert_eq!((done.attempts, done.result_data), (1, Some(json!(1))));
    let second = db.extraction_jobs().create(new_job(first.project_id)).await.unwrap();
    until(&db, second.id, JobStatus::Completed).await;
    worker.stop().await;
    db.close().await;
    drop(servers);
}

#[tokio::test]
async fn a_worker_waits_for_the_end_of_a_read_only_time_and_stores_what_was_done() {
    let (server, db) = migrated().await;
    let first = job(&db).await;
    let events = Events::capture();
    let (handler, mut began, gate) = gated();
    let worker = start(&db, OPTIONS, handler);
    told(&mut began).await;
    set_read_only(&server).await;
    on(
        &server,
        &["select pg_terminate_backend(pid) from pg_stat_activity
            where pid <> pg_backend_pid() and backend_type = 'client backend'"],
    )
    .await;
    gate.add_permits(2);
    until_logged(&events, &["storing an outcome failed", "read-only"]).await;
    until_logged(&events, &["claiming extraction jobs failed", "read-only"]).await;
    assert_eq!(get(&db, first.id).await.status, JobStatus::Processing);
    assert!(!worker.task.is_finished());

    set_read_write(&server).await;
    let done = until(&db, first.id, JobStatus::Completed).await;
    assert_eq!((done.attempts, done.result_data), (1, Some(json!(1))));
    let second = db.extraction_jobs().create(new_job(first.project_id)).await.unwrap();
    until(&db, second.id, JobStatus::Completed).await;
    worker.stop().await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_worker_waits_for_a_schema_that_is_being_changed(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let first = job(&db).await;
    let events = Events::capture();
    let (handler, mut began, gate) = gated();
    let poll_interval = Duration::from_millis(20);
    let options = WorkerOptions { poll_interval, listen: false, ..OPTIONS };
    let worker = start(&db, options, handler);
    told(&mut began).await;
    sqlx::query("alter table extraction_jobs rename to gone").execute(&pool).await.unwrap();
    gate.add_permits(1);
    until_logged(&events, &["storing an outcome failed", "schema"]).await;
    until_logged(&events, &["claiming extraction jobs failed", "schema"]).await;
    sqlx::query("alter table gone rename to extraction_jobs").execute(&pool).await.unwrap();
    let done = until(&db, first.id, JobStatus::Completed).await;
    assert_eq!((done.attempts, done.result_data), (1, Some(json!(1))));
    worker.stop().await;
}

#[sqlx::test(migrations = false)]
async fn a_worker_that_starts_on_a_database_without_tables_says_so(pool: PgPool) {
    let db = Database::from_pool(pool);
    let worker = start(&db, OPTIONS, async |_| Ok(json!(1)));
    let ended = worker.task.await.unwrap();
    assert!(matches!(ended, Err(Error::SchemaMismatch(_))), "{ended:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_result_that_the_table_refuses_is_a_failed_attempt(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let sql = "alter table extraction_jobs add constraint small check (result_data <> '7')";
    sqlx::query(sql).execute(&pool).await.unwrap();
    let project = project(&db).await;
    let new = new_job(project.id).max_attempts(1);
    let job = db.extraction_jobs().create(new).await.unwrap();
    let worker = start(&db, OPTIONS, async |_| Ok(json!(7)));
    let failed = until(&db, job.id, JobStatus::Failed).await;
    let message = failed.error_message.unwrap();
    assert!(message.starts_with("the result can't be stored"), "{message}");
    worker.stop().await;
}
