//! Documents of several owners that have one content.

use std::time::Duration;

use chancery::{Constraint, Database, Error, FileHash, NewDocument, UserId};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::intake::{new_document, wide};
use crate::support::{statements, user};

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_content_is_each_owners_own_and_nobodys(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await.id, user(&db).await.id);
    let new = |owner| NewDocument {
        user_id: owner,
        file_hash: FileHash::from([7; 32]),
        ..NewDocument::new("w2.pdf", FileHash::from([7; 32]), "pdf", 9)
    };
    let hash = FileHash::from([7; 32]);
    let owners = [Some(ada), None, Some(bob)];
    let mut stored = Vec::new();
    for owner in owners {
        assert_eq!(db.documents().get_by_user_and_hash(owner, &hash).await.unwrap(), None);
        let made = if owner == Some(bob) {
            db.documents().create(new(owner)).await.unwrap()
        } else {
            let made = db.documents().create_or_get(new(owner)).await.unwrap();
            assert!(made.created, "{owner:?}");
            made.document
        };
        assert_eq!(made.user_id, owner);
        stored.push(made);
    }
    for (owner, document) in owners.into_iter().zip(&stored) {
        let twice = db.documents().create(new(owner)).await;
        let expected = Constraint::DocumentsFileHashUserIdKey;
        assert!(matches!(&twice, Err(Error::Conflict(key)) if *key == expected), "{twice:?}");
        let again = db.documents().create_or_get(new(owner)).await.unwrap();
        assert_eq!((&again.document, again.created), (document, false));
        let found = db.documents().get_by_user_and_hash(owner, &hash).await.unwrap();
        assert_eq!(found.as_ref(), Some(document));
        // Without a word of whose: nobody's.
        assert_eq!(db.documents().get_by_hash(&hash).await.unwrap().as_ref(), Some(&stored[1]));
    }
    assert_eq!(
        db.documents().get_by_user_and_hash(Some(UserId::new()), &hash).await.unwrap(),
        None
    );

    // Each is work of its own, and goes by itself.
    let claimed = db.documents().claim_pending(10, Duration::from_secs(60)).await.unwrap();
    let claimed: Vec<_> = claimed.iter().map(|claimed| claimed.document.id).collect();
    assert_eq!(claimed, stored.iter().map(|document| document.id).collect::<Vec<_>>());
    assert!(db.documents().delete(stored[1].id).await.unwrap());
    let of_owners = db.documents().get_by_hash(&hash).await.unwrap();
    assert!(of_owners.is_some_and(|document| document.user_id.is_some()));
    assert!(db.documents().delete(stored[0].id).await.unwrap());
    let last = db.documents().get_by_hash(&hash).await.unwrap().map(|document| document.id);
    assert_eq!(last, Some(stored[2].id));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn owners_that_store_one_content_at_once_get_a_document_each(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let db = wide(pool, options, 16).await;
    let owners = [None, Some(user(&db).await.id), Some(user(&db).await.id)];
    let new = new_document();
    let calls = (0..24).map(|n| {
        let (db, new) = (db.clone(), NewDocument { user_id: owners[n % 3], ..new.clone() });
        tokio::spawn(async move { db.documents().create_or_get(new).await.unwrap() })
    });
    let calls: Vec<_> = calls.collect();
    let mut stored = Vec::new();
    for call in calls {
        stored.push(call.await.unwrap());
    }
    assert_eq!(stored.iter().filter(|s| s.created).count(), 3);
    for (n, found) in stored.iter().enumerate() {
        assert_eq!(found.document.user_id, owners[n % 3]);
        assert_eq!(found.document.id, stored[n % 3].document.id);
    }
    assert_eq!(db.documents().count(None).await.unwrap(), 3);
}

/// Whoever has it as well: the key is read at two places.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_content_that_many_have_is_found_by_its_owner_as_fast_as_another(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await.id;
    let document = db.documents().create(new_document().user_id(ada)).await.unwrap();
    sqlx::query(
        "with others as (insert into users (email)
                         select n || '@example.com' from generate_series(1, 5000) n returning id)
         insert into documents (user_id, filename, file_hash, file_type, file_size_bytes)
         select id, 'w2.pdf', $1, 'pdf', 1 from others",
    )
    .bind(document.file_hash.as_str())
    .execute(db.executor())
    .await
    .unwrap();
    sqlx::query("analyze documents").execute(db.executor()).await.unwrap();
    let known = statements::of_the_crate()
        .into_iter()
        .find(|s| s.name == "DocumentRepository::get_by_user_and_hash")
        .unwrap();
    for mode in ["force_generic_plan", "force_custom_plan"] {
        let mut uow = db.begin().await.unwrap();
        let text = format!("set local plan_cache_mode = {mode}; prepare q as {}", known.text);
        sqlx::raw_sql(AssertSqlSafe(text)).execute(uow.executor()).await.unwrap();
        let run = format!(
            "explain (analyze, buffers, format json) execute q('{ada}', '{}')",
            document.file_hash.as_str()
        );
        let plan: serde_json::Value = sqlx::query_scalar(AssertSqlSafe(run))
            .persistent(false)
            .fetch_one(uow.executor())
            .await
            .unwrap();
        let plan = &plan[0]["Plan"];
        let read = ["Shared Hit Blocks", "Shared Read Blocks"].map(|b| plan[b].as_i64().unwrap());
        assert!(read.iter().sum::<i64>() < 20, "{mode}: {plan:#}");
        sqlx::raw_sql("deallocate q").execute(uow.executor()).await.unwrap();
    }
}
