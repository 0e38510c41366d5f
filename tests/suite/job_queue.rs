//! The jobs as a queue: leases, fencing, retries, wake-ups.

use std::time::Duration;

use chancery::{
    ClaimedJob, Database, Due, Error, ExtractionJob, ExtractionJobId, ExtractionJobPatch, JobLease,
    JobStatus, RetryPolicy,
};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::timeout;

use crate::support::{PATIENCE, job, jobs, new_job, project};

const LEASE: Duration = Duration::from_secs(60);
const RETRY: RetryPolicy =
    RetryPolicy { base: Duration::from_secs(100), cap: Duration::from_secs(1000) };

async fn claim(db: &Database, n: i64) -> Vec<ClaimedJob> {
    db.extraction_jobs().claim(n, LEASE).await.unwrap()
}

async fn claim_one(db: &Database) -> ClaimedJob {
    let mut claimed = claim(db, 1).await;
    assert_eq!(claimed.len(), 1);
    claimed.remove(0)
}

fn ids(claimed: &[ClaimedJob]) -> Vec<ExtractionJobId> {
    claimed.iter().map(|claimed| claimed.job.id).collect()
}

async fn get(db: &Database, id: ExtractionJobId) -> ExtractionJob {
    db.extraction_jobs().get_by_id(id).await.unwrap().unwrap()
}

/// As if the lease's time had passed.
async fn expire(db: &Database, lease: JobLease) {
    sqlx::query(
        "update extraction_jobs set lease_expires_at = now() - interval '1 second' where id = $1",
    )
    .bind(lease.job_id().as_uuid())
    .execute(db.pool())
    .await
    .unwrap();
}

/// As if the wait's time had passed.
async fn make_due(db: &Database, id: ExtractionJobId) {
    let patch = ExtractionJobPatch { due: Due::Now.into(), ..Default::default() };
    db.extraction_jobs().update(id, patch).await.unwrap();
}

/// Seconds from the database's now to a column of the job.
async fn seconds_until(db: &Database, id: ExtractionJobId, run_at: bool) -> f64 {
    let sql = if run_at {
        "select extract(epoch from run_at - clock_timestamp())::float8 from extraction_jobs where id = $1"
    } else {
        "select extract(epoch from lease_expires_at - clock_timestamp())::float8 from extraction_jobs where id = $1"
    };
    sqlx::query_scalar(sql).bind(id.as_uuid()).fetch_one(db.pool()).await.unwrap()
}

fn assert_lost<T: std::fmt::Debug>(result: chancery::Result<T>) {
    assert!(matches!(result, Err(Error::LeaseLost)), "{result:?}");
}

async fn assert_all_refuse(db: &Database, lease: JobLease) {
    let before = db.extraction_jobs().get_by_id(lease.job_id()).await.unwrap();
    assert_lost(db.extraction_jobs().complete(lease, json!("stale")).await);
    assert_lost(db.extraction_jobs().fail(lease, "stale", RETRY).await);
    assert_lost(db.extraction_jobs().give_up(lease, "stale").await);
    assert_lost(db.extraction_jobs().heartbeat(lease, LEASE).await);
    assert_eq!(db.extraction_jobs().heartbeat_many(&[lease], LEASE).await.unwrap(), [lease]);
    assert_eq!(db.extraction_jobs().release(&[lease]).await.unwrap(), 0);
    assert_eq!(db.extraction_jobs().get_by_id(lease.job_id()).await.unwrap(), before);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn jobs_are_taken_in_the_order_in_which_they_are_due(pool: PgPool) {
    let db = Database::from_pool(pool);
    let project = project(&db).await;
    let now = chrono::Utc::now();
    let minutes_ago = |m| new_job(project.id).due(Due::At(now - chrono::TimeDelta::minutes(m)));
    let later = new_job(project.id).due(Due::In(Duration::from_secs(3600)));
    let stored = db
        .extraction_jobs()
        .create_many(vec![minutes_ago(1), later, minutes_ago(3), minutes_ago(2), minutes_ago(3)])
        .await
        .unwrap();
    let expected: Vec<_> = [2, 4, 3, 0].map(|i| stored[i].id).to_vec();
    let first = claim(&db, 3).await;
    assert_eq!(ids(&first), expected[..3]);
    for claimed in &first {
        assert_eq!((claimed.job.status, claimed.job.attempts), (JobStatus::Processing, 1));
        assert_eq!(get(&db, claimed.job.id).await, claimed.job);
    }
    assert_eq!(ids(&claim(&db, 3).await), expected[3..]);
    assert_eq!(claim(&db, 3).await, []);
    let next = db.extraction_jobs().next_due_in().await.unwrap().unwrap();
    assert!(next > LEASE - Duration::from_secs(20) && next <= LEASE, "{next:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_time_of_the_next_job_is_told(pool: PgPool) {
    let db = Database::from_pool(pool);
    assert_eq!(db.extraction_jobs().next_due_in().await.unwrap(), None);
    let job = job(&db).await;
    assert_eq!(db.extraction_jobs().next_due_in().await.unwrap(), Some(Duration::ZERO));
    let claimed = claim_one(&db).await;
    db.extraction_jobs().complete(claimed.lease, json!(1)).await.unwrap();
    assert_eq!(db.extraction_jobs().next_due_in().await.unwrap(), None);
    let later = new_job(job.project_id).due(Due::In(Duration::from_secs(1000)));
    db.extraction_jobs().create(later).await.unwrap();
    let next = db.extraction_jobs().next_due_in().await.unwrap().unwrap().as_secs_f64();
    assert!((980.0..=1000.0).contains(&next), "{next}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn jobs_that_another_transaction_is_taking_are_passed_over(pool: PgPool) {
    let db = Database::from_pool(pool);
    let jobs = jobs(&db, 5).await;
    let mut uow = db.begin().await.unwrap();
    let first = uow.extraction_jobs().claim(2, LEASE).await.unwrap();
    // Does not wait for the first two, and no more than two were locked.
    let second = timeout(PATIENCE, claim(&db, 10)).await.unwrap();
    assert_eq!(ids(&first), [jobs[0].id, jobs[1].id]);
    assert_eq!(ids(&second), [jobs[2].id, jobs[3].id, jobs[4].id]);
    uow.rollback().await.unwrap();
    assert_eq!(ids(&claim(&db, 10).await), ids(&first));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_lease_that_ended_can_be_taken_over_and_its_holder_is_shut_out(pool: PgPool) {
    let db = Database::from_pool(pool);
    job(&db).await;
    let stale = claim_one(&db).await;
    assert_eq!(claim(&db, 1).await, []);
    expire(&db, stale.lease).await;
    let fresh = claim_one(&db).await;
    assert_eq!((fresh.job.id, fresh.job.attempts), (stale.job.id, 2));
    assert_all_refuse(&db, stale.lease).await;
    let done = db.extraction_jobs().complete(fresh.lease, json!({"blue": 1})).await.unwrap();
    assert_eq!((done.status, done.result_data), (JobStatus::Completed, Some(json!({"blue": 1}))));
    assert_all_refuse(&db, stale.lease).await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_lease_that_ended_holds_until_somebody_takes_the_job(pool: PgPool) {
    let db = Database::from_pool(pool);
    jobs(&db, 2).await;
    let claimed = claim(&db, 2).await;
    for claimed in &claimed {
        expire(&db, claimed.lease).await;
    }
    db.extraction_jobs().heartbeat(claimed[0].lease, LEASE).await.unwrap();
    let done = db.extraction_jobs().complete(claimed[1].lease, json!(1)).await.unwrap();
    assert_eq!((done.status, done.lease_expires_at), (JobStatus::Completed, None));
    assert_eq!(claim(&db, 2).await, []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_heartbeat_extends_by_the_databases_clock_and_never_shortens(pool: PgPool) {
    let db = Database::from_pool(pool);
    jobs(&db, 3).await;
    let claimed = claim(&db, 3).await;
    let leases: Vec<_> = claimed.iter().map(|c| c.lease).collect();
    db.extraction_jobs().heartbeat(leases[0], Duration::from_secs(600)).await.unwrap();
    assert_eq!(
        db.extraction_jobs().heartbeat_many(&leases[1..], Duration::from_secs(600)).await.unwrap(),
        []
    );
    db.extraction_jobs().heartbeat(leases[0], LEASE).await.unwrap();
    assert_eq!(db.extraction_jobs().heartbeat_many(&leases, LEASE).await.unwrap(), []);
    for lease in &leases {
        let left = seconds_until(&db, lease.job_id(), false).await;
        assert!((580.0..=600.0).contains(&left), "{left}");
    }
    assert_eq!(db.extraction_jobs().heartbeat_many(&[], LEASE).await.unwrap(), []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn heartbeats_tell_what_is_lost_and_wait_for_nobody(pool: PgPool) {
    let db = Database::from_pool(pool);
    jobs(&db, 5).await;
    let claimed = claim(&db, 5).await;
    let leases: Vec<_> = claimed.iter().map(|c| c.lease).collect();
    expire(&db, leases[0]).await;
    claim_one(&db).await;
    db.extraction_jobs().delete(leases[1].job_id()).await.unwrap();
    db.extraction_jobs().complete(leases[2], json!(1)).await.unwrap();
    // The fourth is just being completed, and the fifth is held up by nothing.
    let mut uow = db.begin().await.unwrap();
    uow.extraction_jobs().complete(leases[3], json!(1)).await.unwrap();
    let beating = async { db.extraction_jobs().heartbeat_many(&leases, LEASE * 10).await };
    let lost = timeout(PATIENCE, beating).await.unwrap().unwrap();
    assert_eq!(lost, leases[..2]);
    assert!(seconds_until(&db, leases[4].job_id(), false).await > 500.0);
    uow.commit().await.unwrap();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn completing_twice_is_the_same_as_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    job(&db).await;
    let claimed = claim_one(&db).await;
    let done = db.extraction_jobs().complete(claimed.lease, json!("first")).await.unwrap();
    assert_eq!(done.completed_at, Some(done.updated_at));
    let again = db.extraction_jobs().complete(claimed.lease, json!("second")).await.unwrap();
    assert_eq!((again.result_data, again.completed_at), (Some(json!("first")), done.completed_at));
    assert_lost(db.extraction_jobs().fail(claimed.lease, "no", RETRY).await);
    assert_lost(db.extraction_jobs().heartbeat(claimed.lease, LEASE).await);
    assert_eq!(claim(&db, 1).await, []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_completion_that_is_rolled_back_did_not_happen(pool: PgPool) {
    let db = Database::from_pool(pool);
    job(&db).await;
    let claimed = claim_one(&db).await;
    let mut uow = db.begin().await.unwrap();
    uow.extraction_jobs().complete(claimed.lease, json!(1)).await.unwrap();
    uow.rollback().await.unwrap();
    assert_eq!(get(&db, claimed.job.id).await, claimed.job);
    db.extraction_jobs().complete(claimed.lease, json!(2)).await.unwrap();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_that_failed_comes_back_later_each_time_until_it_is_given_up(pool: PgPool) {
    let db = Database::from_pool(pool);
    let project = project(&db).await;
    let job = db.extraction_jobs().create(new_job(project.id).max_attempts(6)).await.unwrap();
    for (attempt, longest) in [(1, 100.0), (2, 200.0), (3, 400.0), (4, 800.0), (5, 1000.0)] {
        let claimed = claim_one(&db).await;
        assert_eq!(claimed.job.attempts, attempt);
        let error = format!("attempt {attempt}");
        let failed = db.extraction_jobs().fail(claimed.lease, &error, RETRY).await.unwrap();
        assert_eq!((failed.status, failed.completed_at), (JobStatus::Pending, None));
        assert_eq!(failed.error_message, Some(error));
        assert_eq!(failed.lease_expires_at, None);
        let wait = seconds_until(&db, job.id, true).await;
        assert!((longest / 2.0 - 20.0..=longest).contains(&wait), "attempt {attempt}: {wait}");
        assert_eq!(claim(&db, 1).await, []);
        assert_all_refuse(&db, claimed.lease).await;
        make_due(&db, job.id).await;
    }
    let last = claim_one(&db).await;
    let failed = db.extraction_jobs().fail(last.lease, "the last", RETRY).await.unwrap();
    assert_eq!((failed.status, failed.completed_at), (JobStatus::Failed, Some(failed.updated_at)));
    assert_eq!(failed.error_message.as_deref(), Some("the last"));
    make_due(&db, job.id).await;
    assert_eq!(claim(&db, 1).await, []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_waits_of_jobs_that_fail_together_differ(pool: PgPool) {
    let db = Database::from_pool(pool);
    jobs(&db, 20).await;
    let mut waits = std::collections::BTreeSet::new();
    for claimed in claim(&db, 20).await {
        let failed = db.extraction_jobs().fail(claimed.lease, "no", RETRY).await.unwrap();
        waits.insert((failed.run_at - failed.updated_at).num_seconds());
    }
    assert!(waits.len() > 5, "{waits:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_can_be_given_up_at_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    job(&db).await;
    let claimed = claim_one(&db).await;
    let failed = db.extraction_jobs().give_up(claimed.lease, "no such file").await.unwrap();
    assert_eq!((failed.status, failed.attempts), (JobStatus::Failed, 1));
    assert_eq!(failed.error_message.as_deref(), Some("no such file"));
    assert_all_refuse(&db, claimed.lease).await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_whose_workers_crash_is_given_up_and_holds_nobody_up(pool: PgPool) {
    let db = Database::from_pool(pool);
    let project = project(&db).await;
    let poison = db.extraction_jobs().create(new_job(project.id).max_attempts(3)).await.unwrap();
    for attempt in 1..=3 {
        let claimed = claim_one(&db).await;
        assert_eq!((claimed.job.id, claimed.job.attempts), (poison.id, attempt));
        expire(&db, claimed.lease).await;
    }
    // Due after the poison job; one is asked for, and the poison job does not take its place.
    let good = db.extraction_jobs().create(new_job(project.id)).await.unwrap();
    assert_eq!(ids(&claim(&db, 1).await), [good.id]);
    let failed = get(&db, poison.id).await;
    assert_eq!((failed.status, failed.attempts), (JobStatus::Failed, 3));
    assert!(failed.error_message.unwrap().contains("after 3 attempts"));
    assert!(failed.completed_at.is_some());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_that_is_given_back_keeps_its_place_and_its_attempts(pool: PgPool) {
    let db = Database::from_pool(pool);
    let jobs = jobs(&db, 3).await;
    let claimed = claim(&db, 2).await;
    let leases: Vec<_> = claimed.iter().map(|c| c.lease).collect();
    assert_eq!(db.extraction_jobs().release(&leases).await.unwrap(), 2);
    assert_eq!(db.extraction_jobs().release(&leases).await.unwrap(), 0);
    assert_eq!(db.extraction_jobs().release(&[]).await.unwrap(), 0);
    assert_all_refuse(&db, leases[0]).await;
    let again = claim(&db, 3).await;
    assert_eq!(ids(&again), [jobs[0].id, jobs[1].id, jobs[2].id]);
    assert!(again.iter().all(|c| c.job.attempts == 1));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_that_is_changed_or_deleted_by_hand_is_lost_to_its_worker(pool: PgPool) {
    let db = Database::from_pool(pool);
    jobs(&db, 4).await;
    let claimed = claim(&db, 4).await;
    for (claimed, status) in claimed.iter().zip([JobStatus::Pending, JobStatus::Failed]) {
        let patch = ExtractionJobPatch { status: status.into(), ..Default::default() };
        db.extraction_jobs().update(claimed.job.id, patch).await.unwrap();
    }
    db.extraction_jobs().delete(claimed[2].job.id).await.unwrap();
    for claimed in &claimed[..3] {
        assert_all_refuse(&db, claimed.lease).await;
    }
    db.projects().delete(claimed[3].job.project_id).await.unwrap();
    assert_all_refuse(&db, claimed[3].lease).await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_that_is_set_back_after_its_end_begins_anew(pool: PgPool) {
    let db = Database::from_pool(pool);
    job(&db).await;
    for end in [true, false] {
        let claimed = claim_one(&db).await;
        assert_eq!(claimed.job.attempts, 1);
        match end {
            true => db.extraction_jobs().complete(claimed.lease, json!(1)).await.unwrap(),
            false => db.extraction_jobs().give_up(claimed.lease, "no").await.unwrap(),
        };
        let patch = ExtractionJobPatch { status: JobStatus::Pending.into(), ..Default::default() };
        let again = db.extraction_jobs().update(claimed.job.id, patch).await.unwrap();
        assert_eq!((again.attempts, again.completed_at, &again.result_data), (0, None, &None));
        assert_eq!(again.run_at, again.updated_at);
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_that_another_program_works_on_without_a_lease_is_left_to_it(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    job(&db).await;
    sqlx::query("update extraction_jobs set status = 'processing'").execute(&pool).await.unwrap();
    assert_eq!(claim(&db, 1).await, []);
    assert_eq!(db.extraction_jobs().next_due_in().await.unwrap(), None);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_claim_reads_what_it_takes_however_many_jobs_wait_or_have_ended(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let project = project(&db).await;
    // Some wait, most have ended, some leases have run out.
    sqlx::query(
        "insert into extraction_jobs (project_id, source_url, extraction_type, status, lease_token,
                                      lease_expires_at)
         select $1, 'x', 'color', s.status, gen_random_uuid(),
                case when s.status = 'processing' then now() - i * interval '1 ms' end
           from generate_series(1, 10000) i,
                lateral (select case i % 10 when 0 then 'pending' when 1 then 'processing'
                                            else 'completed' end as status) s",
    )
    .bind(project.id.as_uuid())
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query("analyze extraction_jobs").execute(&pool).await.unwrap();
    for plan in ["force_custom_plan", "force_generic_plan"] {
        let mut uow = db.begin().await.unwrap();
        sqlx::query("select set_config('plan_cache_mode', $1, true)")
            .bind(plan)
            .execute(uow.executor())
            .await
            .unwrap();
        assert_eq!(uow.extraction_jobs().claim(10, LEASE).await.unwrap().len(), 10);
        uow.extraction_jobs().next_due_in().await.unwrap();
        let (scans, rows): (i64, i64) = sqlx::query_as(
            "select seq_scan, idx_tup_fetch from pg_stat_xact_user_tables where relid = 'extraction_jobs'::regclass",
        )
        .fetch_one(uow.executor())
        .await
        .unwrap();
        assert_eq!(scans, 0, "{plan}");
        assert!((20..50).contains(&rows), "{plan}: {rows}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn inputs_out_of_range_are_refused(pool: PgPool) {
    let db = Database::from_pool(pool);
    job(&db).await;
    let refused = |result: chancery::Result<()>| {
        assert!(matches!(result, Err(Error::InvalidInput(_))), "{result:?}")
    };
    for n in [-1, 0, 1001] {
        refused(db.extraction_jobs().claim(n, LEASE).await.map(drop));
    }
    let claimed = claim_one(&db).await;
    for lease in [Duration::ZERO, Duration::MAX] {
        refused(db.extraction_jobs().claim(1, lease).await.map(drop));
        refused(db.extraction_jobs().heartbeat(claimed.lease, lease).await);
        refused(db.extraction_jobs().heartbeat_many(&[claimed.lease], lease).await.map(drop));
    }
    refused(db.extraction_jobs().complete(claimed.lease, json!(["\0"])).await.map(drop));
    refused(db.extraction_jobs().fail(claimed.lease, "\0", RETRY).await.map(drop));
    refused(db.extraction_jobs().give_up(claimed.lease, "\0").await.map(drop));
    let endless = RetryPolicy { base: Duration::MAX, ..RETRY };
    refused(db.extraction_jobs().fail(claimed.lease, "no", endless).await.map(drop));
    let huge =
        RetryPolicy { base: Duration::from_secs(1 << 31), cap: Duration::from_secs(1 << 31) };
    db.extraction_jobs().fail(claimed.lease, "no", huge).await.unwrap();
}
