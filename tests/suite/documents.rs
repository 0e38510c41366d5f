//! Documents: known by their content, listed, deleted with what only they tell.

use chancery::{
    Constraint, Database, DocumentId, DocumentStatus, Error, FileHash, NewBorrower, NewDocument,
    NewRecords, NewSourceReference, PageRequest, UserId,
};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::intake::{
    borrower_of, document, documents, file_hash, new_document, until_blocked, wide,
};
use crate::support::user;

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_new_document_waits_and_can_be_read_back_by_id_and_by_hash(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await;
    let hash = FileHash::from([0xab; 32]);
    let new = NewDocument::new("1003.pdf", hash.clone(), "pdf", 48_213)
        .user_id(owner.id)
        .storage_uri("gs://loans/1003.pdf");
    let created = db.documents().create(new).await.unwrap();
    assert_eq!(created.user_id, Some(owner.id));
    assert_eq!((created.filename.as_str(), created.file_type.as_str()), ("1003.pdf", "pdf"));
    assert_eq!((created.file_size_bytes, &created.file_hash), (48_213, &hash));
    assert_eq!(created.storage_uri.as_deref(), Some("gs://loans/1003.pdf"));
    assert_eq!((created.status, created.attempts), (DocumentStatus::Pending, 0));
    assert_eq!((created.processed_at, created.lease_expires_at), (None, None));
    assert_eq!(db.documents().get_by_id(created.id).await.unwrap().as_ref(), Some(&created));
    let upper: FileHash = "AB".repeat(32).parse().unwrap();
    assert_eq!(db.documents().get_by_hash(&upper).await.unwrap(), Some(created));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_document_that_is_not_there_is_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    let id = DocumentId::new();
    assert_eq!(db.documents().get_by_id(id).await.unwrap(), None);
    assert_eq!(db.documents().get_by_hash(&file_hash()).await.unwrap(), None);
    assert!(!db.documents().delete(id).await.unwrap());
    let updated = db.documents().update_status(id, DocumentStatus::Failed, None, None).await;
    assert!(matches!(updated, Err(Error::NotFound("document"))), "{updated:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_content_is_stored_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    let first = document(&db).await;
    let again = NewDocument { file_hash: first.file_hash.clone(), ..new_document() };
    let second = db.documents().create(again.clone()).await;
    assert!(
        matches!(second, Err(Error::Conflict(Constraint::DocumentsFileHashUserIdKey))),
        "{second:?}"
    );

    let found = db.documents().create_or_get(again).await.unwrap();
    assert!(!found.created);
    assert_eq!(found.document, first);
    let made = db.documents().create_or_get(new_document()).await.unwrap();
    assert!(made.created);
    assert_eq!(db.documents().get_by_id(made.document.id).await.unwrap(), Some(made.document));
    assert_eq!(db.documents().count(None).await.unwrap(), 2);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn sixteen_that_store_one_content_at_once_get_one_document(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let db = wide(pool, options, 16).await;
    let new = new_document();
    let calls = (0..16).map(|_| {
        let (db, new) = (db.clone(), new.clone());
        tokio::spawn(async move { db.documents().create_or_get(new).await.unwrap() })
    });
    let calls: Vec<_> = calls.collect();
    let mut stored = Vec::new();
    for call in calls {
        stored.push(call.await.unwrap());
    }
    assert_eq!(stored.iter().filter(|s| s.created).count(), 1);
    assert!(stored.iter().all(|s| s.document == stored[0].document));
    assert_eq!(db.documents().count(None).await.unwrap(), 1);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_content_committed_while_others_wait_for_it_is_theirs_too_and_unchanged(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let db = wide(pool, options, 10).await;
    for commits in [true, false] {
        let new = new_document();
        let mut uow = db.begin().await.unwrap();
        let first = uow.documents().create(new.clone()).await.unwrap();
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let (db, new) = (db.clone(), new.clone());
                tokio::spawn(async move { db.documents().create_or_get(new).await.unwrap() })
            })
            .collect();
        until_blocked(&db, 8).await;
        if commits { uow.commit().await } else { uow.rollback().await }.unwrap();
        let mut created = 0;
        let stored = db.documents();
        let mut all = Vec::new();
        for call in calls {
            let stored = call.await.unwrap();
            created += usize::from(stored.created);
            all.push(stored.document);
        }
        let stored = stored.get_by_hash(&new.file_hash).await.unwrap().unwrap();
        assert!(all.iter().all(|document| *document == stored), "{all:?}");
        assert_eq!((stored == first, created), if commits { (true, 0) } else { (false, 1) });
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn input_that_cannot_be_stored_is_refused_by_name(pool: PgPool) {
    let db = Database::from_pool(pool);
    let text = |n: usize| "x".repeat(n);
    for (field, new) in [
        ("filename", NewDocument { filename: text(0), ..new_document() }),
        ("filename", NewDocument { filename: text(256), ..new_document() }),
        ("filename", NewDocument { filename: "\0".into(), ..new_document() }),
        ("file_type", NewDocument { file_type: text(0), ..new_document() }),
        ("file_type", NewDocument { file_type: text(11), ..new_document() }),
        ("file_size_bytes", NewDocument { file_size_bytes: -1, ..new_document() }),
        ("storage_uri", NewDocument { storage_uri: Some(text(501)), ..new_document() }),
    ] {
        for outcome in [
            db.documents().create(new.clone()).await.err(),
            db.documents().create_or_get(new).await.err(),
        ] {
            match outcome {
                Some(Error::InvalidInput(e)) => assert_eq!(e.field, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
    let id = document(&db).await.id;
    for (field, message, pages) in
        [("error_message", Some("\0"), None), ("page_count", None, Some(-1))]
    {
        match db.documents().update_status(id, DocumentStatus::Failed, message, pages).await {
            Err(Error::InvalidInput(e)) => assert_eq!(e.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let nobodys = db.documents().create(new_document().user_id(UserId::new())).await;
    assert!(
        matches!(nobodys, Err(Error::ForeignKey(Constraint::DocumentsUserIdFkey))),
        "{nobodys:?}"
    );
    for (limit, offset) in [(-1, 0), (1001, 0), (1, -1)] {
        let listed = db.documents().list_documents(None, limit, offset).await;
        assert!(matches!(listed, Err(Error::InvalidInput(_))), "{listed:?}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_status_says_when_the_work_ended_and_why_it_failed(pool: PgPool) {
    use DocumentStatus::{Completed, Failed, Pending, Processing};
    let db = Database::from_pool(pool);
    let new = document(&db).await;
    let set = async |status, message, pages| {
        db.documents().update_status(new.id, status, message, pages).await.unwrap()
    };
    let working = set(Processing, None, None).await;
    assert_eq!((working.status, working.processed_at), (Processing, None));
    assert!(working.updated_at > new.updated_at);

    let failed = set(Failed, Some("no text layer"), Some(3)).await;
    assert_eq!(failed.error_message.as_deref(), Some("no text layer"));
    assert_eq!(failed.page_count, Some(3));
    assert_eq!(failed.processed_at, Some(failed.updated_at));
    assert_eq!(set(Failed, None, None).await.processed_at, failed.processed_at);

    let completed = set(Completed, None, None).await;
    assert_eq!((completed.error_message, completed.page_count), (None, Some(3)));
    assert!(completed.processed_at > failed.processed_at);

    let again = set(Pending, None, None).await;
    assert_eq!((again.status, again.processed_at), (Pending, None));
    assert_eq!(db.documents().get_by_id(new.id).await.unwrap(), Some(again));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn lists_are_newest_first_and_those_that_wait_oldest_first(pool: PgPool) {
    use DocumentStatus::{Completed, Failed, Pending};
    let db = Database::from_pool(pool);
    let ids: Vec<_> = documents(&db, 5).await.iter().map(|d| d.id).collect();
    db.documents().update_status(ids[1], Completed, None, None).await.unwrap();
    db.documents().update_status(ids[3], Completed, None, None).await.unwrap();
    let list = async |status, limit, offset| -> Vec<DocumentId> {
        let listed = db.documents().list_documents(status, limit, offset).await.unwrap();
        listed.iter().map(|d| d.id).collect()
    };
    assert_eq!(list(None, 10, 0).await, [ids[4], ids[3], ids[2], ids[1], ids[0]]);
    assert_eq!(list(None, 2, 1).await, [ids[3], ids[2]]);
    assert_eq!(list(Some(Completed), 10, 0).await, [ids[3], ids[1]]);
    assert_eq!(list(Some(Pending), 2, 1).await, [ids[2], ids[0]]);
    assert_eq!(list(Some(Failed), 10, 0).await, []);
    assert_eq!(list(None, 0, 0).await, []);

    let pending = db.documents().list_pending(2).await.unwrap();
    assert_eq!(pending.iter().map(|d| d.id).collect::<Vec<_>>(), [ids[0], ids[2]]);
    for (status, count) in [(None, 5), (Some(Completed), 2), (Some(Pending), 3), (Some(Failed), 0)]
    {
        assert_eq!(db.documents().count(status).await.unwrap(), count, "{status:?}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn pages_show_every_document_once_also_those_of_one_transaction(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let ids = db
        .transaction(async |uow| {
            let mut ids = Vec::new();
            for i in 0..7 {
                let new = new_document();
                let new = if i % 2 == 0 { new.user_id(owner) } else { new };
                ids.push(uow.documents().create(new).await?.id);
            }
            Ok(ids)
        })
        .await
        .unwrap();
    let newest_first: Vec<_> = ids.iter().rev().copied().collect();
    let owned: Vec<_> = ids.iter().step_by(2).rev().copied().collect();
    for (status, user_id, expected) in [
        (None, None, &newest_first),
        (Some(DocumentStatus::Pending), None, &newest_first),
        (Some(DocumentStatus::Failed), None, &vec![]),
        (None, Some(owner), &owned),
    ] {
        let (mut seen, mut request) = (Vec::new(), PageRequest::first(2));
        loop {
            let page = match user_id {
                Some(user_id) => db.documents().page_by_user(user_id, request).await.unwrap(),
                None => db.documents().page_documents(status, request).await.unwrap(),
            };
            seen.extend(page.items.iter().map(|d| d.id));
            let Some(next) = page.next else { break };
            request = PageRequest::after(2, next);
        }
        assert_eq!(&seen, expected);
    }
    let listed = db.documents().list_by_user(owner, 2, 1).await.unwrap();
    assert_eq!(listed.iter().map(|d| d.id).collect::<Vec<_>>(), owned[1..3]);
    assert_eq!(db.documents().list_by_user(UserId::new(), 10, 0).await.unwrap(), []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_deleted_document_takes_along_the_borrowers_that_only_it_tells_of(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (first, second) = (document(&db).await.id, document(&db).await.id);
    let stored = db
        .borrowers()
        .create_many(vec![
            borrower_of(&[first, first]),
            borrower_of(&[first, second]),
            borrower_of(&[second]),
            NewBorrower::new("known from no document"),
        ])
        .await
        .unwrap();
    assert!(db.documents().delete(first).await.unwrap());
    assert!(!db.documents().delete(first).await.unwrap());
    assert_eq!(db.documents().get_by_id(first).await.unwrap(), None);
    let mut left = Vec::new();
    for borrower in &stored {
        let borrower = db.borrowers().get_with_records(borrower.borrower.id).await.unwrap();
        left.push(borrower.map(|b| b.sources.iter().map(|s| s.document_id).collect::<Vec<_>>()));
    }
    assert_eq!(left, [None, Some(vec![second]), Some(vec![second]), Some(vec![])]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn two_documents_deleted_at_once_leave_no_borrower_that_only_they_tell_of(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (first, second) = (document(&db).await.id, document(&db).await.id);
    let shared = db.borrowers().create(borrower_of(&[first, second])).await.unwrap().borrower.id;
    let mut uow = db.begin().await.unwrap();
    assert!(uow.documents().delete(first).await.unwrap());
    let other = db.clone();
    let deletion = tokio::spawn(async move { other.documents().delete(second).await.unwrap() });
    until_blocked(&db, 1).await;
    uow.commit().await.unwrap();
    assert!(deletion.await.unwrap());
    assert_eq!(db.borrowers().get_by_id(shared).await.unwrap(), None);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_borrower_that_becomes_known_from_another_document_meanwhile_stays(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (first, second) = (document(&db).await.id, document(&db).await.id);
    let shared = db.borrowers().create(borrower_of(&[first])).await.unwrap().borrower.id;
    let mut uow = db.begin().await.unwrap();
    let sources = vec![NewSourceReference::new(second, 1, "Name:")];
    let records = NewRecords { sources, ..NewRecords::default() };
    uow.borrowers().add_records(shared, records).await.unwrap();
    let other = db.clone();
    let deletion = tokio::spawn(async move { other.documents().delete(first).await.unwrap() });
    until_blocked(&db, 1).await;
    uow.commit().await.unwrap();
    assert!(deletion.await.unwrap());
    let left = db.borrowers().get_with_records(shared).await.unwrap().unwrap();
    assert_eq!(left.sources.iter().map(|s| s.document_id).collect::<Vec<_>>(), [second]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_user_takes_along_its_documents(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let owned = db.documents().create(new_document().user_id(owner)).await.unwrap().id;
    let nobodys = document(&db).await.id;
    assert!(db.users().delete(owner).await.unwrap());
    assert_eq!(db.documents().get_by_id(owned).await.unwrap(), None);
    assert!(db.documents().get_by_id(nobodys).await.unwrap().is_some());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn debug_of_a_document_shows_nothing_that_was_uploaded(pool: PgPool) {
    let db = Database::from_pool(pool);
    let new = NewDocument::new("canary.pdf", FileHash::from([0xca; 32]), "canary", 1)
        .storage_uri("canary");
    let shown = format!("{new:?}");
    let id = db.documents().create(new).await.unwrap().id;
    let failed = DocumentStatus::Failed;
    let document = db.documents().update_status(id, failed, Some("canary"), None).await.unwrap();
    let shown = format!("{shown} {document:?}");
    assert!(!shown.contains("canary") && !shown.contains("caca"), "{shown}");
}
