//! Transactions that SQL begins or ends by itself: nobody's work is swallowed by them.

use std::time::Duration;

use chancery::{Database, Error, UnitOfWork};
use futures_util::{FutureExt, TryStreamExt};
use sqlx::{Connection, Executor, PgConnection, PgPool};

use crate::support::database::{config, connect, url, value};
use crate::support::proxy::Proxy;
use crate::support::{new_user, user};

/// One connection, so that the next caller gets the one that was left in a transaction.
async fn single(pool: &PgPool) -> Database {
    connect(config(pool).pool_size(1).max_overflow(0)).await
}

/// Ten accounts are made, and seen by others.
async fn ten_are_stored(db: &Database, pool: &PgPool) {
    for _ in 0..10 {
        let user = user(db).await;
        let seen = sqlx::query_scalar::<_, bool>("select exists (select from users where id = $1)")
            .bind(user.id.as_uuid());
        assert!(seen.fetch_one(pool).await.unwrap(), "acknowledged, and not stored");
    }
    assert!(db.health().await.is_healthy());
}

#[track_caller]
fn is_control<T: std::fmt::Debug>(outcome: Result<T, impl Into<Error>>) {
    let error = outcome.map_err(Into::into).unwrap_err();
    assert!(matches!(error, Error::TransactionControl), "{error:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_a_statement_on_the_pool_begins_swallows_nobodys_work(pool: PgPool) {
    let db = single(&pool).await;
    for sql in ["begin", "START TRANSACTION", "/* why */ begin", "; begin", "select 1; Begin"] {
        is_control(sqlx::raw_sql(sql).execute(db.executor()).await);
        ten_are_stored(&db, &pool).await;
        is_control(sqlx::raw_sql(sql).fetch_optional(db.executor()).await);
        ten_are_stored(&db, &pool).await;
        is_control(sqlx::raw_sql(sql).fetch(db.executor()).try_collect::<Vec<_>>().await);
        ten_are_stored(&db, &pool).await;
    }
    for sql in ["begin", "start transaction read write", "-- why\nbegin", "; begin"] {
        is_control(sqlx::query(sql).execute(db.executor()).await);
        ten_are_stored(&db, &pool).await;
        is_control(sqlx::query(sql).persistent(false).fetch_optional(db.executor()).await);
        ten_are_stored(&db, &pool).await;
    }
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_a_statement_on_the_pool_leaves_open_is_rolled_back(pool: PgPool) {
    let db = single(&pool).await;
    let stored = "select count(*) from config";
    is_control(
        sqlx::raw_sql("begin; insert into config (key, value) values ('a', '1')")
            .execute(db.executor())
            .await,
    );
    assert_eq!(value::<i64>(&pool, stored).await, 0);
    // One that ends what it begins is as good as any.
    sqlx::raw_sql("begin; insert into config (key, value) values ('b', '1'); commit")
        .execute(db.executor())
        .await
        .unwrap();
    assert_eq!(value::<i64>(&pool, stored).await, 1);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_transaction_that_fails_on_the_pool_fails_nobody_else(pool: PgPool) {
    let db = single(&pool).await;
    let sql = "begin; insert into config (key, value) values ('a', '1'); select 1 / 0; commit";
    let failed = sqlx::raw_sql(sql).execute(db.executor()).await.unwrap_err();
    // The statement's own error, not what became of the transaction.
    assert_eq!(failed.as_database_error().unwrap().code().as_deref(), Some("22012"));
    ten_are_stored(&db, &pool).await;
    let failed = sqlx::raw_sql(sql).fetch_optional(db.executor()).await.unwrap_err();
    assert_eq!(failed.as_database_error().unwrap().code().as_deref(), Some("22012"));
    ten_are_stored(&db, &pool).await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_transaction_whose_beginning_nobody_waited_for_swallows_nobodys_work(pool: PgPool) {
    let db = single(&pool).await;
    // Given up after the first row.
    let mut rows = sqlx::raw_sql("begin; select 1; select 2").fetch(db.executor());
    rows.try_next().await.unwrap().unwrap();
    drop(rows);
    ten_are_stored(&db, &pool).await;
    // Given up as soon as it was sent.
    let sql = "begin; select pg_sleep(0.1)";
    assert!(sqlx::raw_sql(sql).execute(db.executor()).now_or_never().is_none());
    ten_are_stored(&db, &pool).await;
    assert!(sqlx::raw_sql(sql).fetch_optional(db.executor()).now_or_never().is_none());
    ten_are_stored(&db, &pool).await;
    db.close().await;
}

/// `begin` can be prepared by the protocol, and run by its name: the word is another one then.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_prepared_begin_swallows_nobodys_work(pool: PgPool) {
    let db = single(&pool).await;
    db.executor().prepare(sqlx::SqlSafeStr::into_sql_str("begin")).await.unwrap();
    let named: String =
        sqlx::query_scalar("select name from pg_prepared_statements where statement = 'begin'")
            .fetch_one(db.executor())
            .await
            .unwrap();
    let sql = sqlx::AssertSqlSafe(format!("execute \"{named}\""));
    is_control(sqlx::raw_sql(sql).execute(db.executor()).await);
    ten_are_stored(&db, &pool).await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_is_left_open_on_a_connection_of_the_pools_own_swallows_nobodys_work(pool: PgPool) {
    let db = single(&pool).await;
    for sql in ["begin", "begin; select 1 / 0"] {
        let mut taken = db.pool().acquire().await.unwrap();
        // The second one fails.
        _ = taken.execute(sql).await;
        drop(taken);
        ten_are_stored(&db, &pool).await;
    }
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_is_left_open_in_the_applications_pool_swallows_nobodys_work(pool: PgPool) {
    let own = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .connect_with((*pool.connect_options()).clone())
        .await
        .unwrap();
    let db = Database::from_pool(own.clone());
    for sql in ["begin", "begin; select 1 / 0"] {
        let mut taken = own.acquire().await.unwrap();
        _ = taken.execute(sql).await;
        drop(taken);
        ten_are_stored(&db, &pool).await;
        // The pool gets it back, for the next round.
        drop(own.acquire().await.unwrap());
    }
    db.close().await;
}

/// As through a pooler that mixes sessions up.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_statement_that_meets_a_failed_transaction_runs_on_another_connection(pool: PgPool) {
    let proxy = Proxy::start(&url(&pool), Duration::ZERO).await;
    let through = proxy.url(&url(&pool));
    let db = connect(config(&pool).url(through.as_str()).pool_size(1).max_overflow(0)).await;
    user(&db).await;
    proxy.slip_in("begin; select 1 / 0").await;
    ten_are_stored(&db, &pool).await;
    proxy.slip_in("begin; select 1 / 0").await;
    let rows = sqlx::query("select id from users where id <> $1").bind(uuid::Uuid::nil());
    assert_eq!(rows.fetch(db.executor()).try_collect::<Vec<_>>().await.unwrap().len(), 11);
    proxy.slip_in("begin; select 1 / 0").await;
    let uow = db.begin().await.unwrap();
    uow.commit().await.unwrap();
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn nothing_is_asked_but_after_what_may_begin_a_transaction(pool: PgPool) {
    let proxy = Proxy::start(&url(&pool), Duration::ZERO).await;
    let through = proxy.url(&url(&pool));
    let db = connect(config(&pool).url(through.as_str()).pool_size(1).max_overflow(0)).await;
    let count = async |sql: &'static str| {
        sqlx::raw_sql(sql).execute(db.executor()).await.unwrap();
        let before = proxy.round_trips();
        sqlx::raw_sql(sql).execute(db.executor()).await.unwrap();
        proxy.round_trips() - before
    };
    assert_eq!(count("select 1").await, 1);
    assert_eq!(count("begin; commit").await, 2);
    assert_eq!(count("do $$ begin perform 1; end $$").await, 2);
    let count = async |uow: &mut UnitOfWork, sql: &'static str| {
        let before = proxy.round_trips();
        sqlx::raw_sql(sql).execute(uow.executor()).await.unwrap();
        proxy.round_trips() - before
    };
    let mut uow = db.begin().await.unwrap();
    for sql in ["select 1", "savepoint a", "rollback to a", "release a"] {
        assert_eq!(count(&mut uow, sql).await, 1, "{sql}");
    }
    assert_eq!(count(&mut uow, "do $$ begin perform 1; end $$").await, 3);
    assert_eq!(count(&mut uow, "do $$ begin perform 1; end $$").await, 2);
    let before = proxy.round_trips();
    uow.commit().await.unwrap();
    assert_eq!(proxy.round_trips() - before, 2);
    db.close().await;
}

async fn set(uow: &mut UnitOfWork, key: &str) -> chancery::Result<()> {
    uow.config().set_value(key, &1.into(), None).await.map(drop)
}

/// What is stored, of `before` and `after`.
async fn stored(pool: &PgPool) -> Vec<String> {
    let keys = sqlx::query_scalar("delete from config returning key").fetch_all(pool).await;
    keys.unwrap()
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_unit_of_work_that_a_statement_ends_acknowledges_nothing_more(pool: PgPool) {
    let db = single(&pool).await;
    for (sql, is_stored) in [
        ("commit", true),
        ("END", true),
        ("/* why */ commit", true),
        ("rollback", false),
        ("abort", false),
        ("commit; begin", true),
        ("rollback; begin", false),
        ("commit and chain", true),
        ("rollback and chain", false),
    ] {
        for prepared in [false, true] {
            if prepared && sql.contains(';') {
                continue;
            }
            let mut uow = db.begin().await.unwrap();
            set(&mut uow, "before").await.unwrap();
            is_control(if prepared {
                sqlx::query(sql).execute(uow.executor()).await
            } else {
                sqlx::raw_sql(sql).execute(uow.executor()).await
            });
            is_control(set(&mut uow, "after").await);
            is_control(uow.begin().await.map(drop));
            is_control(uow.commit().await);
            let expected: &[&str] = if is_stored { &["before"] } else { &[] };
            assert_eq!(stored(&pool).await, expected, "{sql}");
        }
    }
    ten_are_stored(&db, &pool).await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_failed_unit_of_work_that_a_statement_ends_acknowledges_nothing_more(pool: PgPool) {
    let db = single(&pool).await;
    for sql in ["rollback", "commit", "rollback; begin", "rollback and chain"] {
        let mut uow = db.begin().await.unwrap();
        set(&mut uow, "before").await.unwrap();
        sqlx::query("select 1 / 0").execute(uow.executor()).await.unwrap_err();
        is_control(sqlx::raw_sql(sql).execute(uow.executor()).await);
        is_control(set(&mut uow, "after").await);
        is_control(uow.commit().await);
        assert_eq!(stored(&pool).await, [""; 0], "{sql}");
    }
    ten_are_stored(&db, &pool).await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn savepoints_and_blocks_of_the_applications_own_end_nothing(pool: PgPool) {
    let db = single(&pool).await;
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "kept").await.unwrap();
    for sql in ["savepoint a", "do $$ begin perform 1; end $$", "select case when true then 1 end"]
    {
        sqlx::raw_sql(sql).execute(uow.executor()).await.unwrap();
    }
    set(&mut uow, "undone").await.unwrap();
    sqlx::query("select 1 / 0").execute(uow.executor()).await.unwrap_err();
    for sql in ["rollback to a", "release savepoint a"] {
        sqlx::raw_sql(sql).execute(uow.executor()).await.unwrap();
    }
    uow.commit().await.unwrap();
    assert_eq!(stored(&pool).await, ["kept"]);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_unit_of_work_that_ends_on_the_bare_connection_is_not_acknowledged(pool: PgPool) {
    let db = single(&pool).await;
    for sql in ["commit", "rollback", "rollback; begin", "commit and chain"] {
        for later in [false, true] {
            let mut uow = db.begin().await.unwrap();
            set(&mut uow, "before").await.unwrap();
            uow.connection().await.unwrap().execute(sql).await.unwrap();
            if later {
                // What it says before the commit is no promise.
                set(&mut uow, "after").await.unwrap();
            }
            is_control(uow.commit().await);
            stored(&pool).await;
        }
        let mut uow = db.begin().await.unwrap();
        uow.connection().await.unwrap().execute(sql).await.unwrap();
        uow.rollback().await.unwrap();
        let mut uow = db.begin().await.unwrap();
        uow.connection().await.unwrap().execute(sql).await.unwrap();
        drop(uow);
        ten_are_stored(&db, &pool).await;
    }
    db.close().await;
}

/// Begins a transaction of the driver's, and gives it up when it was sent and not answered.
async fn begin_and_give_up(conn: &mut PgConnection) {
    // Now and then the answer is there at once.
    while let Some(begun) = conn.begin().now_or_never() {
        begun.unwrap().rollback().await.unwrap();
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn savepoints_of_the_drivers_that_were_given_up_or_forgotten_are_not_acknowledged(
    pool: PgPool,
) {
    let db = single(&pool).await;
    // Given up, it rolls back the transaction and not the savepoint.
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "before").await.unwrap();
    begin_and_give_up(uow.connection().await.unwrap()).await;
    is_control(uow.commit().await);
    assert_eq!(stored(&pool).await, [""; 0]);
    // Left in a transaction that the driver does not know of.
    let mut uow = db.begin().await.unwrap();
    let bare = uow.connection().await.unwrap();
    begin_and_give_up(bare).await;
    bare.execute("begin").await.unwrap();
    drop(uow);
    ten_are_stored(&db, &pool).await;

    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "before").await.unwrap();
    std::mem::forget(uow.connection().await.unwrap().begin().await.unwrap());
    is_control(uow.commit().await);
    assert_eq!(stored(&pool).await, [""; 0]);
    // As it is meant.
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "before").await.unwrap();
    uow.connection().await.unwrap().begin().await.unwrap().commit().await.unwrap();
    uow.commit().await.unwrap();
    assert_eq!(stored(&pool).await, ["before"]);
    ten_are_stored(&db, &pool).await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_users_statement_that_ends_its_transaction_leaves_the_next_one_to_its_user(pool: PgPool) {
    let db = single(&pool).await;
    let (ada, other) = (user(&db).await, user(&db).await);
    for sql in ["commit", "rollback", "commit; begin", "begin; commit"] {
        is_control(sqlx::raw_sql(sql).execute(db.as_user(ada.id).executor()).await);
        is_control(sqlx::raw_sql(sql).fetch_optional(db.as_user(ada.id).executor()).await);
        assert!(db.as_user(ada.id).users().get_by_id(other.id).await.unwrap().is_none(), "{sql}");
        assert!(db.users().create(new_user()).await.is_ok());
    }
    db.close().await;
}
