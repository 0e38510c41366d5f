//! Projects, extraction jobs and their queue.

use std::time::Duration;

use chancery::{
    Database, Due, Error, ExtractionJobPatch, JobStatus, NewExtractionJob, NewProject, Patch,
    ProjectPatch, RetryPolicy,
};
use chrono::{DateTime, Utc};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use sqlx::PgPool;

use super::values::{
    assert_later_by, assert_same_time, duration, integer, json, long_text, text, time, wide_integer,
};
use super::{assert_same_json, law, taken};
use crate::support::{job, project, user};

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_project_and_its_change_are_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let before = project(&db).await;
    let owner = user(&db).await.id;
    let values = (text(255), of(long_text()), any::<bool>());
    law(&db, values, async |uow, (name, description, owned)| {
        let user_id = owned.then_some(owner);
        let new =
            NewProject { user_id, description: description.clone(), ..NewProject::new(&*name) };
        let created = uow.projects().create(new).await;
        let change = ProjectPatch {
            user_id: Patch::Set(user_id),
            name: Patch::Set(name.clone()),
            description: Patch::Set(description.clone()),
        };
        let Some(created) = taken(uow, created).await else {
            let changed = uow.projects().update(before.id, change).await;
            assert!(taken(uow, changed).await.is_none(), "refused as new, taken as a change");
            return false;
        };
        uow.projects().update(before.id, change).await.unwrap();
        for id in [created.id, before.id] {
            let read = uow.projects().get_by_id(id).await.unwrap().unwrap();
            assert_eq!((&read.name, &read.description), (&name, &description));
            assert_eq!(read.user_id, user_id);
        }
        true
    })
    .await;
}

fn due() -> impl Strategy<Value = Due> {
    prop_oneof![
        1 => Just(Due::Now),
        2 => time().prop_map(Due::At),
        2 => duration().prop_map(Due::In),
    ]
}

fn assert_due(given: Due, now: DateTime<Utc>, run_at: DateTime<Utc>) {
    match given {
        Due::Now => assert_eq!(run_at, now),
        Due::At(time) => assert_same_time(time, run_at),
        Due::In(delay) => assert_later_by(now, delay, run_at),
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_is_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let project = project(&db).await;
    let values = (text(512), text(50), integer(), due(), any::<bool>());
    law(&db, values, async |uow, (url, kind, attempts, due, many)| {
        let new = NewExtractionJob::new(project.id, &*url, &*kind).max_attempts(attempts).due(due);
        let created = if many {
            let other = NewExtractionJob::new(project.id, "between", "color");
            uow.extraction_jobs().create_many(vec![new.clone(), other, new]).await
        } else {
            uow.extraction_jobs().create(new).await.map(|job| vec![job])
        };
        let Some(created) = taken(uow, created).await else { return false };
        for created in [&created[0], &created[created.len() - 1]] {
            let read = uow.extraction_jobs().get_by_id(created.id).await.unwrap().unwrap();
            assert_eq!(&read, created);
            assert_eq!((&read.source_url, &read.extraction_type), (&url, &kind));
            assert_eq!(read.max_attempts, attempts);
            assert_due(due, read.created_at, read.run_at);
        }
        // The queue lives with whatever is in it.
        uow.extraction_jobs().next_due_in().await.unwrap();
        uow.extraction_jobs().claim(10, Duration::from_secs(1)).await.unwrap();
        uow.extraction_jobs().next_due_in().await.unwrap();
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_change_of_a_job_is_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let before = job(&db).await;
    let values = (
        text(512),
        text(50),
        of(select(JobStatus::ALL.to_vec())),
        of(json()),
        of(long_text()),
        integer(),
        due(),
    );
    law(&db, values, async |uow, (url, kind, status, result, message, attempts, due)| {
        let change = ExtractionJobPatch {
            source_url: Patch::Set(url.clone()),
            extraction_type: Patch::Set(kind.clone()),
            status: status.map_or(Patch::Keep, Patch::Set),
            result_data: Patch::Set(result.clone()),
            error_message: Patch::Set(message.clone()),
            max_attempts: Patch::Set(attempts),
            due: Patch::Set(due),
        };
        let changed = uow.extraction_jobs().update(before.id, change).await;
        let changed = taken(uow, changed).await;
        let read = uow.extraction_jobs().get_by_id(before.id).await.unwrap().unwrap();
        let Some(changed) = changed else {
            assert_eq!(read, before);
            return false;
        };
        assert_eq!(read, changed);
        assert_eq!((read.source_url, read.extraction_type), (url, kind));
        assert_eq!((read.error_message, read.max_attempts), (message, attempts));
        assert_eq!(read.result_data.is_some(), result.is_some());
        if let (Some(given), Some(stored)) = (&result, &read.result_data) {
            assert_same_json(given, stored);
        }
        assert_due(due, read.updated_at, read.run_at);
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_queue_takes_any_number_lease_pause_and_outcome_or_refuses_them(pool: PgPool) {
    let db = Database::from_pool(pool);
    job(&db).await;
    let values =
        (wide_integer(), duration(), duration(), duration(), duration(), long_text(), json());
    law(&db, values, async |uow, (n, lease, more, base, cap, message, result)| {
        let claimed = uow.extraction_jobs().claim(n, lease).await;
        let Some(claimed) = taken(uow, claimed).await else { return false };
        for claimed in claimed {
            let held = claimed.lease;
            let kept = |outcome: Result<(), Error>| {
                assert!(matches!(outcome, Ok(()) | Err(Error::InvalidInput(_))), "{outcome:?}");
                outcome.is_ok()
            };
            kept(uow.extraction_jobs().heartbeat(held, more).await);
            kept(uow.extraction_jobs().heartbeat_many(&[held], more).await.map(drop));
            if let Ok(job) = uow.extraction_jobs().complete(held, result.clone()).await {
                assert_same_json(&result, job.result_data.as_ref().unwrap());
                continue;
            }
            let policy = RetryPolicy { base, cap };
            match uow.extraction_jobs().fail(held, &message, policy).await {
                Ok(job) => assert_eq!(job.error_message.as_ref(), Some(&message)),
                Err(refused) => assert!(matches!(refused, Error::InvalidInput(_)), "{refused:?}"),
            }
        }
        true
    })
    .await;
}
