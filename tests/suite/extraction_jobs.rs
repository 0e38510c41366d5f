//! Extraction jobs as rows; as a queue they are in job_queue.rs.

use std::time::Duration;

use chancery::{
    Constraint, Database, Due, Error, ExtractionJobId, ExtractionJobPatch, ExtractionJobSummary,
    JobStatus, NewExtractionJob, PageRequest, Patch, ProjectId,
};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgPool;

use crate::support::{job, jobs, new_job, project};

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_new_job_waits_and_is_due_at_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    let project = project(&db).await;
    let new = NewExtractionJob::new(project.id, "https://example.org/a.png", "color");
    let job = db.extraction_jobs().create(new).await.unwrap();
    assert_eq!((job.project_id, job.status), (project.id, JobStatus::Pending));
    assert_eq!(
        (job.source_url.as_str(), job.extraction_type.as_str()),
        ("https://example.org/a.png", "color")
    );
    assert_eq!((job.attempts, job.max_attempts), (0, 5));
    assert_eq!((&job.result_data, &job.error_message), (&None, &None));
    assert_eq!((job.lease_expires_at, job.completed_at), (None, None));
    assert_eq!(job.run_at, job.created_at);
    assert_eq!(db.extraction_jobs().get_by_id(job.id).await.unwrap(), Some(job));
    assert_eq!(db.extraction_jobs().get_by_id(ExtractionJobId::new()).await.unwrap(), None);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_can_be_due_at_a_time_or_after_a_while_by_the_databases_clock(pool: PgPool) {
    let db = Database::from_pool(pool);
    let project = project(&db).await;
    let time: DateTime<Utc> = "2040-01-02T03:04:05Z".parse().unwrap();
    let due = |due| new_job(project.id).due(due);
    let new = vec![due(Due::Now), due(Due::At(time)), due(Due::In(Duration::from_millis(90_500)))];
    let one = db.extraction_jobs().create(new[2].clone()).await.unwrap();
    let many = db.extraction_jobs().create_many(new).await.unwrap();
    assert_eq!(many[0].run_at, many[0].created_at);
    assert_eq!(many[1].run_at, time);
    for job in [&many[2], &one] {
        assert_eq!(job.run_at - job.created_at, chrono::TimeDelta::milliseconds(90_500));
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn many_jobs_are_stored_in_order_or_not_at_all(pool: PgPool) {
    let db = Database::from_pool(pool);
    assert_eq!(db.extraction_jobs().create_many(Vec::new()).await.unwrap(), []);
    let project = project(&db).await;
    let new: Vec<_> = (0..500)
        .map(|i| {
            NewExtractionJob::new(project.id, format!("https://example.org/{i}"), "color")
                .max_attempts(i + 1)
        })
        .collect();
    let stored = db.extraction_jobs().create_many(new.clone()).await.unwrap();
    let urls = |jobs: &[chancery::ExtractionJob]| {
        jobs.iter().map(|job| (job.source_url.clone(), job.max_attempts)).collect::<Vec<_>>()
    };
    let expected: Vec<_> =
        new.iter().map(|job| (job.source_url.clone(), job.max_attempts)).collect();
    assert_eq!(urls(&stored), expected);

    let mut one_wrong = new;
    one_wrong[499].project_id = ProjectId::new();
    let refused = db.extraction_jobs().create_many(one_wrong).await;
    assert!(
        matches!(refused, Err(Error::ForeignKey(Constraint::ExtractionJobsProjectIdFkey))),
        "{refused:?}"
    );
    assert_eq!(db.extraction_jobs().count_by_status(JobStatus::Pending).await.unwrap(), 500);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn lists_pages_and_counts_are_of_one_project_or_one_state(pool: PgPool) {
    let db = Database::from_pool(pool);
    let mut first = jobs(&db, 7).await;
    first.reverse();
    let (first_project, other) = (first[0].project_id, jobs(&db, 3).await);
    let first_ids: Vec<_> = first.iter().map(|job| job.id).collect();
    let ids = |jobs: &[ExtractionJobSummary]| jobs.iter().map(|job| job.id).collect::<Vec<_>>();
    let list = |limit, offset| db.extraction_jobs().list_by_project(first_project, limit, offset);
    assert_eq!(ids(&list(100, 0).await.unwrap()), first_ids);
    assert_eq!(ids(&list(2, 3).await.unwrap()), first_ids[3..5]);
    let mut paged = Vec::new();
    let mut request = PageRequest::first(3);
    loop {
        let page = db.extraction_jobs().page_by_project(first_project, request).await.unwrap();
        paged.extend(page.items);
        let Some(next) = page.next else { break };
        request = PageRequest::after(3, next);
    }
    assert_eq!(ids(&paged), first_ids);

    for (job, status) in
        first.iter().zip([JobStatus::Processing, JobStatus::Completed, JobStatus::Failed])
    {
        let patch = ExtractionJobPatch { status: status.into(), ..Default::default() };
        let changed = db.extraction_jobs().update(job.id, patch).await.unwrap();
        let [listed] = &db.extraction_jobs().list_by_status(status, 10, 0).await.unwrap()[..]
        else {
            panic!("not one job is {status}")
        };
        assert_eq!((listed.id, listed.status), (changed.id, changed.status));
        assert_eq!(
            (listed.project_id, &listed.source_url),
            (changed.project_id, &changed.source_url)
        );
        assert_eq!((listed.completed_at, listed.run_at), (changed.completed_at, changed.run_at));
        assert_eq!(
            (listed.attempts, listed.max_attempts),
            (changed.attempts, changed.max_attempts)
        );
        assert_eq!(
            (listed.created_at, listed.updated_at),
            (changed.created_at, changed.updated_at)
        );
        assert_eq!(db.extraction_jobs().count_by_status(status).await.unwrap(), 1);
    }
    let pending = db.extraction_jobs().list_by_status(JobStatus::Pending, 4, 0).await.unwrap();
    assert_eq!(ids(&pending), [other[2].id, other[1].id, other[0].id, first[3].id]);
    let counts = db.extraction_jobs().counts_by_project(first_project).await.unwrap();
    assert_eq!((counts.pending, counts.processing), (4, 1));
    assert_eq!((counts.completed, counts.failed), (1, 1));
    let none = db.extraction_jobs().counts_by_project(ProjectId::new()).await.unwrap();
    assert_eq!(none, Default::default());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_patch_changes_what_it_names(pool: PgPool) {
    let db = Database::from_pool(pool);
    let before = job(&db).await;
    let patch = ExtractionJobPatch {
        source_url: "https://example.org/b.png".to_owned().into(),
        extraction_type: "spacing".to_owned().into(),
        result_data: Some(json!({"partial": true})).into(),
        error_message: Some("slow".to_owned()).into(),
        max_attempts: 2.into(),
        due: Due::In(Duration::from_secs(60)).into(),
        ..Default::default()
    };
    let after = db.extraction_jobs().update(before.id, patch).await.unwrap();
    assert_eq!(
        (after.source_url.as_str(), after.extraction_type.as_str()),
        ("https://example.org/b.png", "spacing")
    );
    assert_eq!(
        (&after.result_data, after.error_message.as_deref()),
        (&Some(json!({"partial": true})), Some("slow"))
    );
    assert_eq!((after.max_attempts, after.status), (2, JobStatus::Pending));
    assert!(after.run_at > before.run_at);
    let patch = ExtractionJobPatch {
        result_data: Patch::Set(None),
        error_message: Patch::Set(None),
        ..Default::default()
    };
    let cleared = db.extraction_jobs().update(before.id, patch).await.unwrap();
    assert_eq!((&cleared.result_data, &cleared.error_message), (&None, &None));
    assert_eq!((cleared.run_at, cleared.max_attempts), (after.run_at, 2));
    let missing = db.extraction_jobs().update(ExtractionJobId::new(), Default::default()).await;
    assert!(matches!(missing, Err(Error::NotFound("extraction job"))), "{missing:?}");
    assert!(db.extraction_jobs().delete(before.id).await.unwrap());
    assert!(!db.extraction_jobs().delete(before.id).await.unwrap());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_database_notes_the_end_whoever_sets_the_state(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let project = project(&db).await;
    // A program that knows the first columns only.
    let insert = "insert into extraction_jobs (project_id, source_url, extraction_type, status)
                  values ($1, 'https://example.org', 'color', $2) returning id";
    for (status, ends) in
        [("pending", false), ("processing", false), ("completed", true), ("failed", true)]
    {
        let id: uuid::Uuid = sqlx::query_scalar(insert)
            .bind(project.id.as_uuid())
            .bind(status)
            .fetch_one(&pool)
            .await
            .unwrap();
        let job = db.extraction_jobs().get_by_id(id.into()).await.unwrap().unwrap();
        assert_eq!(job.completed_at, ends.then_some(job.created_at), "{status}");

        sqlx::query("update extraction_jobs set status = 'completed' where id = $1")
            .bind(id)
            .execute(&pool)
            .await
            .unwrap();
        let ended = db.extraction_jobs().get_by_id(id.into()).await.unwrap().unwrap();
        assert_eq!(
            ended.completed_at,
            if ends { job.completed_at } else { Some(ended.updated_at) }
        );
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_cannot_be_stored_is_refused_by_name(pool: PgPool) {
    let db = Database::from_pool(pool);
    let job = job(&db).await;
    let base = || new_job(job.project_id);
    let too_long = Duration::from_secs(101 * 366 * 24 * 3600);
    for (field, new) in [
        ("source_url", NewExtractionJob { source_url: "x".repeat(513), ..base() }),
        ("source_url", NewExtractionJob { source_url: String::new(), ..base() }),
        ("extraction_type", NewExtractionJob { extraction_type: "x".repeat(51), ..base() }),
        ("extraction_type", NewExtractionJob { extraction_type: "\0".into(), ..base() }),
        ("max_attempts", base().max_attempts(0)),
        ("due", base().due(Due::At(DateTime::<Utc>::MAX_UTC))),
        ("due", base().due(Due::In(too_long))),
    ] {
        let patch = ExtractionJobPatch {
            source_url: new.source_url.clone().into(),
            extraction_type: new.extraction_type.clone().into(),
            max_attempts: new.max_attempts.into(),
            due: new.due.into(),
            ..Default::default()
        };
        for result in [
            db.extraction_jobs().create(new.clone()).await.map(drop),
            db.extraction_jobs().create_many(vec![base(), new]).await.map(drop),
            db.extraction_jobs().update(job.id, patch).await.map(drop),
        ] {
            assert!(
                matches!(&result, Err(Error::InvalidInput(e)) if e.field == field),
                "{field}: {result:?}"
            );
        }
    }
    for patch in [
        ExtractionJobPatch { result_data: Some(json!("\0")).into(), ..Default::default() },
        ExtractionJobPatch { error_message: Some("\0".to_owned()).into(), ..Default::default() },
    ] {
        let result = db.extraction_jobs().update(job.id, patch).await;
        assert!(matches!(result, Err(Error::InvalidInput(_))), "{result:?}");
    }
    let nowhere = db.extraction_jobs().create(new_job(ProjectId::new())).await;
    assert!(
        matches!(nowhere, Err(Error::ForeignKey(Constraint::ExtractionJobsProjectIdFkey))),
        "{nowhere:?}"
    );
    assert!(matches!(
        db.extraction_jobs().list_by_project(job.project_id, -1, 0).await,
        Err(Error::InvalidInput(_))
    ));
    assert!(matches!(
        db.extraction_jobs().list_by_status(JobStatus::Failed, 1, -1).await,
        Err(Error::InvalidInput(_))
    ));
    assert!(matches!(
        db.extraction_jobs().page_by_project(job.project_id, PageRequest::first(1001)).await,
        Err(Error::InvalidInput(_))
    ));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn debug_of_a_job_shows_neither_its_source_nor_its_result(pool: PgPool) {
    let db = Database::from_pool(pool);
    let project = project(&db).await;
    let new = NewExtractionJob::new(project.id, "https://example.org/canary", "color");
    let job = db.extraction_jobs().create(new.clone()).await.unwrap();
    let patch = ExtractionJobPatch {
        error_message: Some("canary".to_owned()).into(),
        ..Default::default()
    };
    let patched = db.extraction_jobs().update(job.id, patch.clone()).await.unwrap();
    let shown = format!("{new:?} {job:?} {patch:?} {patched:?}");
    assert!(!shown.contains("canary"), "{shown}");
}
