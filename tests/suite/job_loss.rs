//! What becomes of jobs when workers, leases and connections are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chancery::{Database, JobStatus, WorkerOptions};
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::job_worker::{OPTIONS, endless, get, named, start, terminate, told, until};
use crate::support::{PATIENCE, eventually, job, jobs, new_job, project};

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_worker_that_is_dropped_stops_and_its_job_is_done_by_another(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let job = job(&db).await;
    let (handler, mut began, mut gone) = endless();
    let first = start(&db, WorkerOptions { lease: Duration::from_secs(1), ..OPTIONS }, handler);
    told(&mut began).await;
    first.task.abort();
    told(&mut gone).await;
    assert_eq!(get(&db, job.id).await.status, JobStatus::Processing);
    // It wakes when the lease ends: nobody tells it.
    let second = start(&db, OPTIONS, async |_| Ok(json!("second")));
    let done = until(&db, job.id, JobStatus::Completed).await;
    assert_eq!((done.attempts, done.result_data), (2, Some(json!("second"))));
    second.stop().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_worker_survives_the_loss_of_all_its_connections(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let jobs = jobs(&db, 2).await;
    let own = named(&pool, "worker", 3).await;
    let killer = pool.clone();
    let worker = start(&own, WorkerOptions { concurrency: 1, ..OPTIONS }, move |_| {
        let pool = killer.clone();
        async move {
            assert!(terminate(&pool, "worker").await > 0);
            Ok(json!(1))
        }
    });
    for job in jobs {
        assert_eq!(until(&db, job.id, JobStatus::Completed).await.attempts, 1);
    }
    // It waits for notifications, on a connection that is lost as well.
    eventually("its connections are closed", async || terminate(&pool, "worker").await > 0).await;
    let another = job(&db).await;
    until(&db, another.id, JobStatus::Completed).await;
    worker.stop().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn eight_workers_complete_ten_thousand_jobs_once_each_though_one_is_killed(pool: PgPool) {
    const JOBS: i64 = 10_000;
    let db = Database::from_pool(pool.clone());
    // Counts completions where they happen.
    sqlx::raw_sql(
        "create table completions (job_id uuid);
         create function note_completion() returns trigger language plpgsql as
             $$ begin insert into completions values (new.id); return null; end $$;
         create trigger note_completion after update of status on extraction_jobs for each row
             when (new.status = 'completed' and old.status <> 'completed')
             execute function note_completion();",
    )
    .execute(&pool)
    .await
    .unwrap();
    let project = project(&db).await.id;
    let new = (0..JOBS).map(|_| new_job(project)).collect();
    db.extraction_jobs().create_many(new).await.unwrap();

    let options =
        WorkerOptions { concurrency: 8, prefetch: 100, lease: Duration::from_secs(2), ..OPTIONS };
    let (half, mut at_half) = mpsc::unbounded_channel();
    let begun = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    let stuck = Arc::new(AtomicBool::new(false));
    for i in 0..8 {
        let own = named(&pool, &format!("worker {i}"), 4).await;
        let (begun, half, stuck) = (begun.clone(), half.clone(), stuck.clone());
        workers.push(start(&own, options, move |_| {
            // The one that dies has a job in its hands.
            let sticks = i == 0 && !stuck.swap(true, Ordering::SeqCst);
            if begun.fetch_add(1, Ordering::SeqCst) == JOBS as usize / 3 {
                half.send(()).unwrap();
            }
            async move {
                if sticks {
                    std::future::pending::<()>().await;
                }
                Ok(json!({"tokens": 3}))
            }
        }));
    }
    timeout(2 * PATIENCE, at_half.recv()).await.unwrap();
    eventually("the first has a job", async || stuck.load(Ordering::SeqCst)).await;
    // One dies, and another loses its connections, each with jobs in its hands.
    workers.remove(0).task.abort();
    assert!(terminate(&pool, "worker 1").await > 0);

    let all = async {
        while db.extraction_jobs().counts_by_project(project).await.unwrap().completed < JOBS {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(2 * PATIENCE, all).await.expect("all jobs done");
    for worker in workers {
        worker.stop().await;
    }
    let (completions, distinct): (i64, i64) =
        sqlx::query_as("select count(*), count(distinct job_id) from completions")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!((completions, distinct), (JOBS, JOBS));
    // Those that the dead worker held were taken again.
    let again: i64 = sqlx::query_scalar("select count(*) from extraction_jobs where attempts > 1")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(again > 0);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_handler_whose_lease_is_lost_is_stopped(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let job = job(&db).await;
    let options = WorkerOptions { lease: Duration::from_secs(1), ..OPTIONS };
    let (handler, mut began, mut gone) = endless();
    let worker = start(&db, options, handler);
    told(&mut began).await;
    sqlx::query("update extraction_jobs set lease_token = gen_random_uuid(), lease_expires_at = now() + interval '1 day'")
        .execute(&pool)
        .await
        .unwrap();
    told(&mut gone).await;
    worker.stop().await;
    let left = get(&db, job.id).await;
    assert_eq!((left.status, left.attempts), (JobStatus::Processing, 1));
}
