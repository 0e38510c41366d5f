//! Working for a user begins and ends with the transaction.

use std::time::Duration;

use chancery::{
    Constraint, Database, Denied, Error, IsolationLevel, NewMessage, TemplateType,
    TransactionOptions, UserId,
};
use futures_util::future::join_all;
use sqlx::PgPool;

use super::{HOUR, Tenants, World, execute, role_name};
use crate::support::database::{config, connect, url};
use crate::support::intake::new_document;
use crate::support::proxy::Proxy;
use crate::support::{conversation_of, new_template, new_user};

/// The role and the user of each connection of the pool, as a caller that names no user finds them.
async fn left_behind(db: &Database) -> Vec<(String, Option<String>)> {
    let mut held = Vec::new();
    for _ in 0..db.pool_status().max {
        let mut uow = db.begin().await.unwrap();
        let found = sqlx::query_as(
            "select current_user::text, nullif(current_setting('chancery.user_id', true), '')",
        )
        .fetch_one(uow.executor())
        .await
        .unwrap();
        held.push((uow, found));
    }
    held.into_iter().map(|(_, found)| found).collect()
}

#[track_caller]
fn nothing_is_left(found: Vec<(String, Option<String>)>, login: &str) {
    for found in found {
        assert_eq!(found, (login.to_owned(), None));
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn commit_rollback_drop_and_errors_end_it(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let user = db.users().create(new_user()).await.unwrap().id;
    let clean = async || nothing_is_left(left_behind(db).await, &tenants.login);

    let mut uow = db.as_user(user).begin().await.unwrap();
    let inside: (String, String) =
        sqlx::query_as("select current_user::text, current_setting('chancery.user_id')")
            .fetch_one(uow.executor())
            .await
            .unwrap();
    assert_eq!(inside, ("chancery_app".into(), user.to_string()));
    uow.commit().await.unwrap();
    clean().await;

    db.as_user(user).begin().await.unwrap().rollback().await.unwrap();
    clean().await;
    drop(db.as_user(user).begin().await.unwrap());
    clean().await;
    db.as_user(user).conversations().list_by_user(user, 10, 0).await.unwrap();
    clean().await;
    let failed = db.as_user(user).config().delete("theme").await;
    assert!(matches!(failed, Err(Error::PermissionDenied(_))), "{failed:?}");
    clean().await;
    let mut uow = db.as_user(user).begin().await.unwrap();
    let failed = sqlx::query("select 1 / 0").execute(uow.executor()).await;
    assert!(failed.is_err());
    assert!(matches!(uow.commit().await, Err(Error::TransactionAborted)));
    clean().await;
    tenants.end().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn nothing_survives_a_caller_that_goes_away(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let user = tenants.db.users().create(new_user()).await.unwrap().id;
    let mut url = url(&pool);
    url.set_username(&tenants.login).unwrap();
    url.set_password(Some("x")).unwrap();
    let proxy = Proxy::start(&url, Duration::from_millis(3)).await;
    let through = proxy.url(&url);
    let db = connect(config(&pool).url(through.as_str()).pool_size(2).max_overflow(0)).await;
    let mut given_up = 0;
    // BEGIN, the statement and COMMIT take 6 ms each.
    for after in 0..24 {
        let writing = async { db.as_user(user).conversations().create(user, None).await };
        let limit = Duration::from_millis(after);
        given_up += usize::from(tokio::time::timeout(limit, writing).await.is_err());
        let unit = async {
            let mut uow = db.as_user(user).begin().await?;
            uow.conversations().create(user, None).await?;
            uow.commit().await
        };
        given_up += usize::from(tokio::time::timeout(limit, unit).await.is_err());
        nothing_is_left(left_behind(&db).await, &tenants.login);
    }
    assert!(given_up > 10, "only {given_up} callers went away");
    // What the next caller writes is stored.
    let kept = conversation_of(&db, user).await.id;
    assert!(tenants.db.conversations().get_by_id(kept).await.unwrap().is_some());
    db.close().await;
    tenants.end().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn users_and_the_service_take_turns_on_two_connections(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let mut users = Vec::new();
    for count in 1..4 {
        let user = db.users().create(new_user()).await.unwrap().id;
        for _ in 0..count {
            conversation_of(db, user).await;
        }
        users.push((user, count));
    }
    let turns = (0..8_usize).map(|caller| {
        let (db, users) = (db.clone(), users.clone());
        tokio::spawn(async move {
            for turn in 0..40 {
                // The same statements for all of them, prepared once on each connection.
                let (user, count) = users[(caller + turn) % users.len()];
                let own = db.as_user(user).conversations().list_recent(100, 0).await.unwrap();
                assert_eq!(own.len(), count);
                assert!(own.iter().all(|conversation| conversation.user_id == user));
                let all = db.conversations().list_recent(100, 0).await.unwrap();
                assert_eq!(all.len(), 6);
                let counted = db
                    .as_user(user)
                    .transaction(async |uow| uow.conversations().list_recent(100, 0).await)
                    .await
                    .unwrap();
                assert_eq!(counted, own);
            }
        })
    });
    for turn in join_all(turns).await {
        turn.unwrap();
    }
    nothing_is_left(left_behind(db).await, &tenants.login);
    tenants.end().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_superusers_pool_is_held_to_the_policies_as_well(pool: PgPool) {
    let db = Database::from_pool(pool);
    let world = World::new(&db).await;
    let stranger = db.users().create(new_user()).await.unwrap().id;
    assert!(db.conversations().get_by_id(world.conversation.id).await.unwrap().is_some());
    let seen = db.as_user(stranger).conversations().get_by_id(world.conversation.id).await.unwrap();
    assert!(seen.is_none());
    let all: i64 = sqlx::query_scalar("select count(*) from users")
        .fetch_one(db.as_user(stranger).executor())
        .await
        .unwrap();
    assert_eq!(all, 1);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn nested_units_of_work_and_options_are_the_users_too(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let world = World::new(db).await;
    let stranger = db.users().create(new_user()).await.unwrap().id;
    let own = conversation_of(db, stranger).await.id;

    let mut uow = db.as_user(stranger).begin().await.unwrap();
    let mut nested = uow.begin().await.unwrap();
    assert!(nested.conversations().get_by_id(world.conversation.id).await.unwrap().is_none());
    nested.messages().create(NewMessage::user(own, "kept")).await.unwrap();
    nested.commit().await.unwrap();
    let mut nested = uow.begin().await.unwrap();
    let refused = nested.messages().create(NewMessage::user(world.conversation.id, "no")).await;
    assert!(
        matches!(refused, Err(Error::ForeignKey(Constraint::MessagesConversationIdFkey))),
        "{refused:?}"
    );
    nested.rollback().await.unwrap();
    assert!(uow.conversations().get_by_id(world.conversation.id).await.unwrap().is_none());
    uow.commit().await.unwrap();
    assert_eq!(db.messages().get_last_n(own, 10).await.unwrap().len(), 1);

    let options = TransactionOptions::default().isolation(IsolationLevel::Serializable).read_only();
    let outcome = db
        .as_user(stranger)
        .transaction_with(options, async |uow| {
            let level: String =
                sqlx::query_scalar("show transaction_isolation").fetch_one(uow.executor()).await?;
            assert_eq!(level, "serializable");
            uow.conversations().create(stranger, None).await
        })
        .await;
    assert!(matches!(outcome, Err(Error::ReadOnly)), "{outcome:?}");
    let late = TransactionOptions::default().deadline(Duration::from_millis(50));
    let outcome = db
        .as_user(stranger)
        .transaction_with(late, async |uow| {
            sqlx::query("select pg_sleep(5)").execute(uow.executor()).await?;
            Ok(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::DeadlineExceeded)), "{outcome:?}");
    tenants.end().await;
}

/// Each attempt is the user's: a collision repeats all of it.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_repeated_transaction_is_still_the_users(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let user = db.users().create(new_user()).await.unwrap().id;
    let shared = conversation_of(db, user).await.id;
    let options = TransactionOptions::default().isolation(IsolationLevel::RepeatableRead);
    let attempts = std::sync::atomic::AtomicUsize::new(0);
    let attempts = &attempts;
    db.as_user(user)
        .transaction_with(options, async move |uow| {
            let role: String =
                sqlx::query_scalar("select current_user::text").fetch_one(uow.executor()).await?;
            assert_eq!(role, "chancery_app");
            uow.conversations().get_by_id(shared).await?;
            if attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                db.conversations().update_title(shared, Some("Meanwhile")).await?;
            }
            uow.conversations().update_title(shared, Some("Mine")).await
        })
        .await
        .unwrap();
    assert_eq!(attempts.load(std::sync::atomic::Ordering::Relaxed), 2);
    tenants.end().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_login_role_that_is_no_member_is_told_and_its_connection_stays_good(pool: PgPool) {
    let login = role_name(&pool, "outsider");
    execute(&pool, &format!("create role \"{login}\" login password 'x' in role chancery_service"))
        .await;
    let mut url = url(&pool);
    url.set_username(&login).unwrap();
    url.set_password(Some("x")).unwrap();
    let db = connect(config(&pool).url(url.as_str()).pool_size(1).max_overflow(0)).await;
    let backend = async || -> i32 {
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(db.executor()).await.unwrap()
    };
    let user = db.users().create(new_user()).await.unwrap().id;
    let before = backend().await;
    let by_itself = db.as_user(user).users().get_by_id(user).await;
    assert!(matches!(by_itself, Err(Error::NotAMember { role: "chancery_app" })), "{by_itself:?}");
    let unit = db.as_user(user).begin().await.unwrap_err();
    assert!(unit.to_string().contains("must be a member of chancery_app"), "{unit}");
    // Not inside of a transaction that failed.
    assert!(db.users().get_by_id(user).await.unwrap().is_some());
    assert_eq!(backend().await, before);
    db.close().await;
    execute(&pool, &format!("drop role \"{login}\"")).await;
}

/// A database for tenants only: what leaves the role finds one that sees as little.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_login_role_for_users_alone_sees_nothing_without_one(pool: PgPool) {
    let world = World::new(&Database::from_pool(pool.clone())).await;
    let login = role_name(&pool, "tenant");
    execute(&pool, &format!("create role \"{login}\" login password 'x' in role chancery_app"))
        .await;
    let mut url = url(&pool);
    url.set_username(&login).unwrap();
    url.set_password(Some("x")).unwrap();
    let db = connect(config(&pool).url(url.as_str()).pool_size(1).max_overflow(0)).await;
    let user = world.user.id;
    assert!(db.as_user(user).users().get_by_id(user).await.unwrap().is_some());
    assert!(db.users().get_by_id(user).await.unwrap().is_none());
    let mut uow = db.as_user(user).begin().await.unwrap();
    sqlx::raw_sql("reset role; set local chancery.user_id = ''")
        .execute(uow.executor())
        .await
        .unwrap();
    assert!(uow.users().get_by_id(user).await.unwrap().is_none());
    let escaped = sqlx::query("set role chancery_service").execute(uow.executor()).await;
    assert!(matches!(escaped.map_err(Error::from), Err(Error::PermissionDenied(_))));
    drop(uow);
    db.close().await;
    execute(&pool, &format!("drop role \"{login}\"")).await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_applications_own_table_is_protected_by_four_statements(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    execute(&pool, "create table invoices (user_id uuid not null, amount integer not null)").await;
    let user = db.users().create(new_user()).await.unwrap().id;
    let other = db.users().create(new_user()).await.unwrap().id;
    let amounts = async |user: UserId| -> Result<Vec<i32>, Error> {
        Ok(sqlx::query_scalar("select amount from invoices order by amount")
            .fetch_all(db.as_user(user).executor())
            .await?)
    };
    let missing = amounts(user).await.unwrap_err();
    assert!(matches!(missing, Error::PermissionDenied(Denied::Privilege(_))), "{missing:?}");
    assert!(missing.to_string().contains("invoices"), "{missing}");
    execute(
        &pool,
        "alter table invoices enable row level security, force row level security;
         create policy invoices_owner on invoices to chancery_app
             using (user_id = (select chancery_current_user_id()));
         create policy invoices_service on invoices to chancery_service using (true);
         grant select, insert, update, delete on invoices to chancery_app, chancery_service;",
    )
    .await;
    let bill = async |actor: UserId, of: UserId, amount: i32| -> Result<(), Error> {
        sqlx::query("insert into invoices values ($1, $2)")
            .bind(of.as_uuid())
            .bind(amount)
            .execute(db.as_user(actor).executor())
            .await?;
        Ok(())
    };
    bill(user, user, 1).await.unwrap();
    bill(other, other, 2).await.unwrap();
    let refused = bill(user, other, 3).await.unwrap_err();
    assert!(matches!(refused, Error::PermissionDenied(Denied::Row(_))), "{refused:?}");
    assert!(refused.to_string().contains("invoices"), "{refused}");
    assert_eq!(amounts(user).await.unwrap(), [1]);
    let all: i64 =
        sqlx::query_scalar("select count(*) from invoices").fetch_one(db.executor()).await.unwrap();
    assert_eq!(all, 2);
    tenants.end().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_systems_templates_are_read_by_all_and_changed_by_the_service(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let user = db.users().create(new_user()).await.unwrap().id;
    let system = new_template(None).default_for_type();
    let system = db.templates().create_template(system).await.unwrap();
    let as_user = db.as_user(user);
    let found = as_user.templates().get_template(user, TemplateType::Blog).await.unwrap();
    assert_eq!(found.as_ref(), Some(&system));
    assert_eq!(as_user.templates().get_by_id(system.id).await.unwrap(), found);
    assert!(!as_user.templates().delete(system.id).await.unwrap());
    let changed = as_user.templates().update(system.id, chancery::TemplatePatch::default()).await;
    assert!(matches!(changed, Err(Error::NotFound(_))), "{changed:?}");
    let own = as_user.templates().create_template(new_template(Some(user))).await.unwrap();
    let defaults = as_user.templates().list_defaults(TemplateType::Blog, 10).await.unwrap();
    assert_eq!(defaults.iter().map(|t| t.id).collect::<Vec<_>>(), [system.id]);
    assert!(as_user.templates().delete(own.id).await.unwrap());
    tenants.end().await;
}

/// Neither by a refusal nor by an answer does a user learn what others have.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_content_that_somebody_else_has_is_the_users_own_to_store(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let world = World::new(db).await;
    let stranger = db.users().create(new_user()).await.unwrap().id;
    let mut same = new_document().user_id(stranger);
    same.file_hash = world.document.file_hash.clone();
    let hash = same.file_hash.clone();
    let as_stranger = db.as_user(stranger);
    assert_eq!(as_stranger.documents().get_by_hash(&hash).await.unwrap(), None);
    let made = as_stranger.documents().create(same.clone()).await.unwrap();
    assert_eq!(as_stranger.documents().get_by_hash(&hash).await.unwrap().as_ref(), Some(&made));
    let got = as_stranger.documents().create_or_get(same.clone()).await.unwrap();
    assert_eq!((got.document.id, got.created), (made.id, false));
    assert!(as_stranger.documents().delete(made.id).await.unwrap());
    assert!(as_stranger.documents().create_or_get(same).await.unwrap().created);
    assert_eq!(db.documents().get_by_id(world.document.id).await.unwrap().unwrap(), world.document);
    tenants.end().await;
}

/// A record goes to a borrower and a document that are both the user's.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn records_are_not_to_be_hung_on_what_is_somebody_elses(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let world = World::new(db).await;
    let stranger = db.users().create(new_user()).await.unwrap().id;
    let own = db.documents().create(new_document().user_id(stranger)).await.unwrap();
    let borrower = |documents: &[chancery::DocumentId]| {
        crate::support::intake::borrower_of(documents).user_id(stranger)
    };
    let stored = db.as_user(stranger).borrowers().create(borrower(&[own.id])).await.unwrap();
    assert_eq!(stored.sources.len(), 1);
    let refused = db.as_user(stranger).borrowers().create(borrower(&[world.document.id])).await;
    assert!(
        matches!(refused, Err(Error::ForeignKey(Constraint::SourceReferencesDocumentIdFkey))),
        "{refused:?}"
    );
    for (table, constraint) in [
        ("account_numbers", Constraint::AccountNumbersBorrowerIdFkey),
        ("income_records", Constraint::IncomeRecordsBorrowerIdFkey),
    ] {
        let columns = if table == "account_numbers" {
            "number, account_type) values ($1, '1', 'checking')"
        } else {
            "amount, period, year, source_type) values ($1, 1, 'annual', 2025, 'employment')"
        };
        let text = format!("insert into {table} (borrower_id, {columns}");
        let refused = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(world.borrower.borrower.id.as_uuid())
            .execute(db.as_user(stranger).executor())
            .await
            .map_err(Error::from);
        assert!(matches!(&refused, Err(Error::ForeignKey(c)) if *c == constraint), "{refused:?}");
    }
    // The borrower that is only known from the user's own document goes with it.
    assert!(db.as_user(stranger).documents().delete(own.id).await.unwrap());
    assert!(db.borrowers().get_by_id(stored.borrower.id).await.unwrap().is_none());
    assert!(db.sessions().extend(&world.session.token_hash, HOUR).await.unwrap().is_some());
    tenants.end().await;
}
