//! What wakes a worker that waits.

use std::time::Duration;

use chancery::{Database, Error, JobListener};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::timeout;

use crate::support::{PATIENCE, eventually, job, new_job, project};

const LONG: Duration = Duration::from_secs(3600);

async fn assert_woken(listener: &mut JobListener) {
    let woken = timeout(PATIENCE, listener.wait(LONG)).await;
    assert!(woken.expect("woken"));
}

/// Nothing is on its way: what was sent before on another connection has arrived by now.
async fn assert_quiet(listener: &mut JobListener) {
    assert!(!listener.wait(Duration::from_millis(300)).await);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_listener_is_woken_by_new_jobs_and_by_those_that_come_back(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let project = project(&db).await;
    let mut listener = db.listen_extraction_jobs().await.unwrap();
    assert_quiet(&mut listener).await;

    let (woken, _) = tokio::join!(assert_woken(&mut listener), async {
        db.extraction_jobs().create(new_job(project.id)).await.unwrap()
    });
    assert_eq!(woken, ());
    let claimed = db.extraction_jobs().claim(1, LONG).await.unwrap().remove(0);
    assert_quiet(&mut listener).await;
    db.extraction_jobs().release(&[claimed.lease]).await.unwrap();
    assert_woken(&mut listener).await;

    let claimed = db.extraction_jobs().claim(1, LONG).await.unwrap().remove(0);
    db.extraction_jobs().fail(claimed.lease, "no", Default::default()).await.unwrap();
    assert_woken(&mut listener).await;

    // A program that knows the first columns only.
    sqlx::query(
        "insert into extraction_jobs (project_id, source_url, extraction_type) values ($1, 'x', 'y')",
    )
    .bind(project.id.as_uuid())
    .execute(&pool)
    .await
    .unwrap();
    assert_woken(&mut listener).await;
    let claimed = db.extraction_jobs().claim(1, LONG).await.unwrap().remove(0);
    db.extraction_jobs().complete(claimed.lease, json!(1)).await.unwrap();
    assert_quiet(&mut listener).await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_that_is_rolled_back_wakes_nobody_and_many_wake_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    let project = project(&db).await;
    let mut listener = db.listen_extraction_jobs().await.unwrap();
    let mut uow = db.begin().await.unwrap();
    uow.extraction_jobs().create(new_job(project.id)).await.unwrap();
    uow.rollback().await.unwrap();
    assert_quiet(&mut listener).await;
    db.transaction(async |uow| {
        uow.extraction_jobs().create_many(vec![new_job(project.id); 100]).await?;
        uow.extraction_jobs().create(new_job(project.id)).await
    })
    .await
    .unwrap();
    assert_woken(&mut listener).await;
    assert_quiet(&mut listener).await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_lost_connection_is_made_again_and_counts_as_a_wake_up(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut listener = db.listen_extraction_jobs().await.unwrap();
    for _ in 0..2 {
        let ended: i64 = sqlx::query_scalar(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
              where datname = current_database() and query like 'LISTEN%'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!(ended, 1);
        // Lost; and made again, before which a job may have been stored that nobody told of.
        assert_woken(&mut listener).await;
        assert_woken(&mut listener).await;
        assert_quiet(&mut listener).await;
        job(&db).await;
        assert_woken(&mut listener).await;
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_listener_takes_no_place_in_the_pool_and_leaves_no_connection(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let listening = "select count(*) from pg_stat_activity
                      where datname = current_database() and query ~ '^(UN)?LISTEN'";
    let listener = db.listen_extraction_jobs().await.unwrap();
    assert_eq!(db.pool_status().in_use, 0);
    assert_eq!(sqlx::query_scalar::<_, i64>(listening).fetch_one(&pool).await.unwrap(), 1);
    // Outside of the runtime, which a program may do at its end.
    std::thread::spawn(move || drop(listener)).join().unwrap();
    eventually("the connection is closed", async || {
        sqlx::query_scalar::<_, i64>(listening).fetch_one(&pool).await.unwrap() == 0
    })
    .await;
}

#[tokio::test]
async fn listening_where_no_server_is_tells_so() {
    let config = chancery::DatabaseConfig::builder()
        .url("postgres://nobody@127.0.0.1:1/none")
        .connect_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let db = Database::connect_lazy(&config);
    let error = db.listen_extraction_jobs().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}
