//! Documents shared by several workers.

use std::collections::HashMap;
use std::time::Duration;

use chancery::{ClaimedDocument, Database, DocumentClaim, DocumentId, DocumentStatus, Error};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::PATIENCE;
use crate::support::intake::{document, documents, wide};

const LEASE: Duration = Duration::from_secs(60);

async fn claim(db: &Database, limit: i64) -> Vec<ClaimedDocument> {
    db.documents().claim_pending(limit, LEASE).await.unwrap()
}

fn ids(claimed: &[ClaimedDocument]) -> Vec<DocumentId> {
    claimed.iter().map(|c| c.document.id).collect()
}

/// As if the time of all leases had passed.
async fn end_all_leases(db: &Database) {
    sqlx::query(
        "update documents set lease_expires_at = now() - interval '1 second'
          where lease_expires_at is not null",
    )
    .execute(db.executor())
    .await
    .unwrap();
}

/// None of a worker's calls is accepted.
async fn assert_lost(db: &Database, claim: &DocumentClaim) {
    let before = db.documents().get_by_id(claim.document_id()).await.unwrap();
    for outcome in [
        db.documents().complete(claim, Some(1)).await,
        db.documents().fail(claim, "too late").await,
        db.documents().extend(claim, LEASE).await,
        db.documents().release(claim).await,
    ] {
        assert!(matches!(outcome, Err(Error::NotFound(_))), "{outcome:?}");
    }
    assert_eq!(db.documents().get_by_id(claim.document_id()).await.unwrap(), before);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn claims_are_oldest_first_and_each_document_is_claimed_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    let all: Vec<_> = documents(&db, 5).await.iter().map(|d| d.id).collect();
    db.documents().update_status(all[1], DocumentStatus::Completed, None, None).await.unwrap();
    let first = claim(&db, 2).await;
    assert_eq!(ids(&first), [all[0], all[2]]);
    assert_eq!(ids(&claim(&db, 10).await), [all[3], all[4]]);
    assert_eq!(ids(&claim(&db, 10).await), []);
    assert_eq!(ids(&claim(&db, 0).await), []);

    let document = &first[0].document;
    assert_eq!((document.status, document.attempts), (DocumentStatus::Processing, 1));
    let lease = document.lease_expires_at.unwrap() - document.updated_at;
    assert_eq!(lease.to_std().unwrap(), LEASE);
    assert_eq!(first[0].claim.document_id(), document.id);
    assert_eq!(db.documents().list_pending(10).await.unwrap(), []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_worker_ends_its_claim_by_completing_failing_or_giving_back(pool: PgPool) {
    let db = Database::from_pool(pool);
    documents(&db, 3).await;
    let claimed = claim(&db, 3).await;

    let done = db.documents().complete(&claimed[0].claim, Some(7)).await.unwrap();
    assert_eq!((done.status, done.page_count), (DocumentStatus::Completed, Some(7)));
    assert_eq!((done.processed_at, done.lease_expires_at), (Some(done.updated_at), None));

    let failed = db.documents().fail(&claimed[1].claim, "unreadable").await.unwrap();
    assert_eq!(failed.status, DocumentStatus::Failed);
    assert_eq!(failed.error_message.as_deref(), Some("unreadable"));
    assert_eq!((failed.processed_at, failed.lease_expires_at), (Some(failed.updated_at), None));

    let back = db.documents().release(&claimed[2].claim).await.unwrap();
    assert_eq!((back.status, back.attempts), (DocumentStatus::Pending, 1));
    assert_eq!((back.processed_at, back.lease_expires_at), (None, None));

    for claimed in &claimed {
        assert_lost(&db, &claimed.claim).await;
    }
    let again = claim(&db, 10).await;
    assert_eq!(ids(&again), [back.id]);
    assert_eq!(again[0].document.attempts, 2);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_lease_that_has_ended_passes_to_the_next_worker_before_younger_documents(pool: PgPool) {
    let db = Database::from_pool(pool);
    let old = document(&db).await.id;
    let dead = claim(&db, 1).await;
    let young = document(&db).await.id;
    end_all_leases(&db).await;
    let taken = claim(&db, 2).await;
    assert_eq!(ids(&taken), [old, young]);
    assert_eq!(taken[0].document.attempts, 2);
    assert_lost(&db, &dead[0].claim).await;
    db.documents().complete(&taken[0].claim, None).await.unwrap();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_ended_lease_that_nobody_took_over_can_be_extended_and_completed(pool: PgPool) {
    let db = Database::from_pool(pool);
    documents(&db, 2).await;
    let claimed = claim(&db, 2).await;
    end_all_leases(&db).await;
    db.documents().complete(&claimed[1].claim, None).await.unwrap();
    let extended = db.documents().extend(&claimed[0].claim, 2 * LEASE).await.unwrap();
    let lease = extended.lease_expires_at.unwrap() - extended.updated_at;
    assert_eq!(lease.to_std().unwrap(), 2 * LEASE);
    assert_eq!(ids(&claim(&db, 10).await), []);
    db.documents().complete(&claimed[0].claim, None).await.unwrap();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_status_set_by_hand_or_a_deletion_ends_a_claim(pool: PgPool) {
    let db = Database::from_pool(pool);
    documents(&db, 3).await;
    let claimed = claim(&db, 3).await;
    for (claimed, status) in
        claimed.iter().zip([DocumentStatus::Pending, DocumentStatus::Processing])
    {
        let id = claimed.document.id;
        let set = db.documents().update_status(id, status, None, None).await.unwrap();
        assert_eq!(set.lease_expires_at, None);
        assert_lost(&db, &claimed.claim).await;
    }
    db.documents().delete(claimed[2].document.id).await.unwrap();
    assert_lost(&db, &claimed[2].claim).await;
    // Processing without a claim is somebody else's.
    end_all_leases(&db).await;
    assert_eq!(ids(&claim(&db, 10).await), [claimed[0].document.id]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_status_set_by_another_program_ends_a_claim_though_the_lease_stays(pool: PgPool) {
    let db = Database::from_pool(pool);
    documents(&db, 2).await;
    let claimed = claim(&db, 2).await;
    for (claimed, status) in claimed.iter().zip(["pending", "completed"]) {
        sqlx::query("update documents set status = $2 where id = $1")
            .bind(claimed.document.id)
            .bind(status)
            .execute(db.executor())
            .await
            .unwrap();
        assert_lost(&db, &claimed.claim).await;
    }
    end_all_leases(&db).await;
    assert_eq!(ids(&claim(&db, 10).await), [claimed[0].document.id]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn nobody_waits_for_a_document_that_is_being_completed_or_takes_it(pool: PgPool) {
    let db = Database::from_pool(pool);
    documents(&db, 2).await;
    let late = claim(&db, 1).await;
    end_all_leases(&db).await;
    let mut uow = db.begin().await.unwrap();
    uow.documents().complete(&late[0].claim, None).await.unwrap();
    let next = tokio::time::timeout(PATIENCE, claim(&db, 10)).await.unwrap();
    assert_eq!(next.len(), 1);
    assert_ne!(ids(&next), ids(&late));
    uow.commit().await.unwrap();
    assert_eq!(ids(&claim(&db, 10).await), []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn limits_and_leases_out_of_range_are_refused(pool: PgPool) {
    let db = Database::from_pool(pool);
    document(&db).await;
    let (second, day) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
    for (field, limit, lease) in [
        ("limit", -1, LEASE),
        ("limit", 1001, LEASE),
        ("lease", 1, second - Duration::from_nanos(1)),
        ("lease", 1, day + Duration::from_nanos(1)),
        ("lease", 1, Duration::MAX),
    ] {
        match db.documents().claim_pending(limit, lease).await {
            Err(Error::InvalidInput(e)) => assert_eq!(e.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let claimed = db.documents().claim_pending(1, second).await.unwrap();
    db.documents().extend(&claimed[0].claim, day).await.unwrap();
    let refused = db.documents().extend(&claimed[0].claim, Duration::ZERO).await;
    assert!(matches!(refused, Err(Error::InvalidInput(_))), "{refused:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn eight_workers_complete_two_thousand_documents_once_each_though_one_dies(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    const DOCUMENTS: usize = 2000;
    let db = wide(pool, options, 8).await;
    sqlx::query(
        "insert into documents (filename, file_hash, file_type, file_size_bytes)
         select 'w2.pdf', lpad(to_hex(n), 64, '0'), 'pdf', 1 from generate_series(1, $1) n",
    )
    .bind(i32::try_from(DOCUMENTS).unwrap())
    .execute(db.executor())
    .await
    .unwrap();

    // Takes documents until there are none, or dies with its second handful.
    let work = async |db: Database, dies: bool| {
        let (mut done, mut held) = (Vec::new(), Vec::new());
        for round in 1.. {
            let claimed = claim(&db, 25).await;
            if claimed.is_empty() || dies && round == 2 {
                held = claimed;
                break;
            }
            for claimed in claimed {
                done.push(db.documents().complete(&claimed.claim, None).await.unwrap().id);
            }
        }
        (done, held)
    };
    let mut completed: HashMap<DocumentId, usize> = HashMap::new();
    let mut orphans = Vec::new();
    for round in 0..2 {
        let workers: Vec<_> =
            (0..8).map(|n| tokio::spawn(work(db.clone(), round == 0 && n == 0))).collect();
        for worker in workers {
            let (done, held) = worker.await.unwrap();
            done.into_iter().for_each(|id| *completed.entry(id).or_default() += 1);
            orphans.extend(held);
        }
        if round == 0 {
            assert_eq!((completed.len(), orphans.len()), (DOCUMENTS - 25, 25));
            end_all_leases(&db).await;
        }
    }
    assert_eq!(completed.len(), DOCUMENTS);
    assert!(completed.values().all(|times| *times == 1));
    let done = db.documents().count(Some(DocumentStatus::Completed)).await.unwrap();
    assert_eq!(usize::try_from(done).unwrap(), DOCUMENTS);
    for orphan in &orphans {
        let document = db.documents().get_by_id(orphan.document.id).await.unwrap().unwrap();
        assert_eq!(document.attempts, 2);
    }
    assert_lost(&db, &orphans[0].claim).await;
}
