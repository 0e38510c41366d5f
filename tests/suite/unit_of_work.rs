//! Units of work by hand: what is stored, what is not, and that nobody is told otherwise.

use std::pin::pin;
use std::time::Duration;

use chancery::{Constraint, Database, Error, TransactionOptions, UnitOfWork};
use futures_util::FutureExt;
use serde_json::json;
use sqlx::{PgExecutor, PgPool};
use tokio::time::timeout;

use crate::support::database::{config, connect, eventually, until_one_waits, url, value};
use crate::support::proxy::Proxy;
use crate::support::{new_user, user};

async fn set(uow: &mut UnitOfWork, key: &str) {
    uow.config().set_value(key, &json!(1), None).await.unwrap();
}

/// The keys that are stored, as another connection sees them.
async fn stored(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("select key from config order by key").fetch_all(pool).await.unwrap()
}

/// A statement that the server refuses.
async fn fail(on: impl PgExecutor<'_>) {
    sqlx::query("insert into config (key, value) values ('refused', null)")
        .execute(on)
        .await
        .unwrap_err();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn commit_stores_rollback_and_drop_do_not(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "committed").await;
    assert_eq!(stored(&pool).await, [""; 0], "visible before the commit");
    uow.commit().await.unwrap();

    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "rolled back").await;
    uow.rollback().await.unwrap();

    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "dropped").await;
    drop(uow);
    // Waits for the lock of the dropped one, if that still holds it.
    db.config().set_value("dropped", &json!(2), None).await.unwrap();
    assert_eq!(db.config().get_value("dropped").await.unwrap(), Some(json!(2)));
    assert_eq!(stored(&pool).await, ["committed", "dropped"]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_failed_statement_makes_commit_an_error_where_plain_sqlx_says_ok(pool: PgPool) {
    let mut plain = pool.begin().await.unwrap();
    sqlx::query("insert into config (key, value) values ('plain', '1')")
        .execute(&mut *plain)
        .await
        .unwrap();
    fail(&mut *plain).await;
    assert!(plain.commit().await.is_ok(), "sqlx has changed: is the check still needed?");

    let db = Database::from_pool(pool.clone());
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "ours").await;
    fail(uow.executor()).await;
    let committed = uow.commit().await;
    assert!(matches!(committed, Err(Error::TransactionAborted)), "{committed:?}");
    assert_eq!(stored(&pool).await, [""; 0]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn later_statements_of_a_failed_transaction_say_that_it_failed(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let taken = user(&db).await;
    let mut uow = db.begin().await.unwrap();
    let mut twin = new_user();
    twin.email = taken.email;
    let refused = uow.users().create(twin).await;
    assert!(matches!(refused, Err(Error::Conflict(Constraint::UsersEmailKey))), "{refused:?}");
    let next = uow.config().get("any").await;
    assert!(matches!(next, Err(Error::TransactionAborted)), "{next:?}");
    let nested = uow.begin().await.map(drop);
    assert!(matches!(nested, Err(Error::TransactionAborted)), "{nested:?}");
    assert!(matches!(uow.commit().await, Err(Error::TransactionAborted)));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn input_refused_before_it_reached_the_server_spoils_nothing(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "good").await;
    let refused = uow.config().set_value("", &json!(1), None).await;
    assert!(matches!(refused, Err(Error::InvalidInput(_))), "{refused:?}");
    uow.commit().await.unwrap();
    assert_eq!(stored(&pool).await, ["good"]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_failure_on_the_bare_connection_makes_commit_an_error(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "good").await;
    fail(uow.connection().await.unwrap()).await;
    let committed = uow.commit().await;
    assert!(matches!(committed, Err(Error::TransactionAborted)), "{committed:?}");
    assert_eq!(stored(&pool).await, [""; 0]);

    let mut uow = db.begin().await.unwrap();
    let bare = uow.connection().await.unwrap();
    let mut copy = bare.copy_in_raw("copy config (key, value) from stdin").await.unwrap();
    copy.send(&b"copied\t1\n"[..]).await.unwrap();
    copy.finish().await.unwrap();
    uow.commit().await.unwrap();
    assert_eq!(stored(&pool).await, ["copied"]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_failure_that_nobody_saw_makes_commit_an_error(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *holder).await.unwrap();

    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "lost").await;
    {
        let failing = sqlx::query(
            "with waited as materialized (select pg_advisory_xact_lock(1), 0 as zero)
             select 1 / zero from waited",
        )
        .execute(uow.executor());
        tokio::select! {
            ended = failing => panic!("it did not wait: {ended:?}"),
            () = until_one_waits(&pool) => {}
        }
    }
    holder.rollback().await.unwrap();
    let committed = uow.commit().await;
    assert!(matches!(committed, Err(Error::TransactionAborted)), "{committed:?}");
    assert_eq!(stored(&pool).await, [""; 0]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_stream_given_up_half_way_leaves_the_transaction_usable(pool: PgPool) {
    use futures_util::StreamExt;
    let db = Database::from_pool(pool.clone());
    let mut uow = db.begin().await.unwrap();
    {
        let mut rows = sqlx::query("select * from generate_series(1, 10000)").fetch(uow.executor());
        rows.next().await.unwrap().unwrap();
    }
    set(&mut uow, "after").await;
    uow.commit().await.unwrap();
    assert_eq!(stored(&pool).await, ["after"]);

    // The same, when what was not read would have been an error.
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "lost").await;
    {
        let mut rows = sqlx::query("select 1 / (9999 - n) from generate_series(1, 10000) n")
            .fetch(uow.executor());
        rows.next().await.unwrap().unwrap();
    }
    assert!(matches!(uow.commit().await, Err(Error::TransactionAborted)));
    assert_eq!(stored(&pool).await, ["after"]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_constraint_checked_at_commit_is_that_constraints_error(pool: PgPool) {
    sqlx::raw_sql(
        "create table parents (id int primary key);
         create table children (parent int references parents deferrable initially deferred)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let mut uow = Database::from_pool(pool).begin().await.unwrap();
    sqlx::query("insert into children values (1)").execute(uow.executor()).await.unwrap();
    let committed = uow.commit().await;
    assert!(matches!(committed, Err(Error::ForeignKey(Constraint::Other(_)))), "{committed:?}");
    let key = committed.unwrap_err().constraint().unwrap();
    assert_eq!(key.name(), "children_parent_fkey");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_applications_own_statements_join(pool: PgPool) {
    sqlx::query("create table invoices (id int)").execute(&pool).await.unwrap();
    let db = Database::from_pool(pool.clone());
    let invoices = async || value::<i64>(&pool, "select count(*) from invoices").await;

    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "first").await;
    sqlx::query("insert into invoices values (1)").execute(uow.executor()).await.unwrap();
    let seen: i64 = sqlx::query_scalar("select count(*) from invoices, config")
        .fetch_one(uow.executor())
        .await
        .unwrap();
    assert_eq!(seen, 1);
    assert_eq!(invoices().await, 0);
    uow.rollback().await.unwrap();
    assert_eq!((invoices().await, stored(&pool).await.len()), (0, 0));

    let mut uow = db.begin().await.unwrap();
    sqlx::query("insert into invoices values (1)").execute(uow.executor()).await.unwrap();
    set(&mut uow, "second").await;
    uow.commit().await.unwrap();
    assert_eq!((invoices().await, stored(&pool).await.len()), (1, 1));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn read_only_refuses_to_write(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut uow = db.begin_with(TransactionOptions::default().read_only()).await.unwrap();
    assert_eq!(uow.config().list(10, 0).await.unwrap(), []);
    let refused = uow.config().set_value("key", &json!(1), None).await;
    assert!(matches!(refused, Err(Error::ReadOnly)), "{refused:?}");
    drop(uow);
    // The next transaction on the same connection may write again.
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "key").await;
    uow.commit().await.unwrap();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_nested_unit_is_kept_or_undone_and_the_outer_goes_on(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "0 outer").await;

    let mut kept = uow.begin().await.unwrap();
    set(&mut kept, "1 kept").await;
    kept.commit().await.unwrap();

    let mut undone = uow.begin().await.unwrap();
    set(&mut undone, "undone").await;
    undone.rollback().await.unwrap();

    let mut dropped = uow.begin().await.unwrap();
    set(&mut dropped, "dropped").await;
    drop(dropped);

    let kept: Result<_, Error> = uow
        .transaction(async |uow| {
            set(uow, "2 kept by closure").await;
            Ok(7)
        })
        .await;
    assert_eq!(kept.unwrap(), 7);

    let undone = uow
        .transaction(async |uow| {
            set(uow, "undone by closure").await;
            Err::<(), _>(Error::NotFound("reason"))
        })
        .await;
    assert!(matches!(undone, Err(Error::NotFound("reason"))), "{undone:?}");

    set(&mut uow, "3 after").await;
    uow.commit().await.unwrap();
    assert_eq!(stored(&pool).await, ["0 outer", "1 kept", "2 kept by closure", "3 after"]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_failure_inside_a_nested_unit_leaves_the_outer_good(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "outer").await;

    // Caught by the closure, and returned by it.
    for caught in [true, false] {
        let nested: Result<(), Error> = uow
            .transaction(async |uow| {
                set(uow, "nested").await;
                fail(uow.executor()).await;
                if caught { Ok(()) } else { Err(Error::NotFound("reason")) }
            })
            .await;
        match nested {
            Err(Error::TransactionAborted) if caught => {}
            Err(Error::NotFound("reason")) if !caught => {}
            other => panic!("{other:?}"),
        }
    }
    // By hand: committed in spite of it, rolled back, dropped.
    for end in ["commit", "rollback", "drop"] {
        let mut nested = uow.begin().await.unwrap();
        set(&mut nested, "nested").await;
        fail(nested.executor()).await;
        match end {
            "commit" => {
                let committed = nested.commit().await;
                assert!(matches!(committed, Err(Error::TransactionAborted)), "{committed:?}");
            }
            "rollback" => nested.rollback().await.unwrap(),
            _ => drop(nested),
        }
    }
    // On the bare connection, where the unit of work does not see it.
    let mut nested = uow.begin().await.unwrap();
    fail(nested.connection().await.unwrap()).await;
    assert!(matches!(nested.commit().await, Err(Error::TransactionAborted)));

    set(&mut uow, "still").await;
    uow.commit().await.unwrap();
    assert_eq!(stored(&pool).await, ["outer", "still"]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn nested_units_nest(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut uow = db.begin().await.unwrap();

    // The inner is undone, the middle kept.
    let mut middle = uow.begin().await.unwrap();
    set(&mut middle, "1 middle").await;
    let mut inner = middle.begin().await.unwrap();
    set(&mut inner, "undone").await;
    fail(inner.executor()).await;
    drop(inner);
    set(&mut middle, "2 middle").await;
    middle.commit().await.unwrap();

    // The inner is kept, then undone with the middle.
    let mut middle = uow.begin().await.unwrap();
    let mut inner = middle.begin().await.unwrap();
    set(&mut inner, "kept, then undone").await;
    inner.commit().await.unwrap();
    drop(middle);

    // Both dropped at once, then straight to another nested one.
    let mut middle = uow.begin().await.unwrap();
    set(&mut middle, "undone").await;
    let mut inner = middle.begin().await.unwrap();
    set(&mut inner, "undone too").await;
    drop(inner);
    drop(middle);
    let mut last = uow.begin().await.unwrap();
    set(&mut last, "3 last").await;
    last.commit().await.unwrap();

    // Dropped right before the commit.
    let mut dropped = uow.begin().await.unwrap();
    set(&mut dropped, "dropped").await;
    fail(dropped.executor()).await;
    drop(dropped);
    uow.commit().await.unwrap();
    assert_eq!(stored(&pool).await, ["1 middle", "2 middle", "3 last"]);
}

/// A future that can't end, given up.
async fn give_up(future: impl Future) {
    assert!(timeout(Duration::from_millis(20), future).await.is_err(), "it ended");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_nested_begin_given_up_half_way_spoils_the_outer_and_nothing_else(pool: PgPool) {
    let proxy = Proxy::start(&url(&pool), Duration::ZERO).await;
    let db = connect(config(&pool).url(proxy.url(&url(&pool)).as_str()).pool_size(1)).await;
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "lost").await;
    proxy.hold_answers();
    give_up(uow.begin()).await;
    proxy.resume();
    assert!(uow.config().get("any").await.is_err());
    let committed = uow.commit().await;
    assert!(matches!(committed, Err(Error::TransactionAborted)), "{committed:?}");
    assert_eq!(stored(&pool).await, [""; 0]);

    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "next").await;
    uow.commit().await.unwrap();
    assert_eq!(stored(&pool).await, ["next"]);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_nested_commit_given_up_half_way_is_undone(pool: PgPool) {
    let proxy = Proxy::start(&url(&pool), Duration::ZERO).await;
    let db = connect(config(&pool).url(proxy.url(&url(&pool)).as_str()).pool_size(1)).await;
    let mut uow = db.begin().await.unwrap();
    let mut middle = uow.begin().await.unwrap();
    set(&mut middle, "middle").await;
    let mut inner = middle.begin().await.unwrap();
    // On the bare connection, so that the commit has to ask before it ends the savepoint.
    sqlx::query("insert into config (key, value) values ('inner', '1')")
        .execute(inner.connection().await.unwrap())
        .await
        .unwrap();
    proxy.hold_answers();
    give_up(inner.commit()).await;
    proxy.resume();
    drop(middle);
    set(&mut uow, "outer").await;
    uow.commit().await.unwrap();
    assert_eq!(stored(&pool).await, ["outer"]);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_commit_goes_on_when_its_caller_goes_away(pool: PgPool) {
    let proxy = Proxy::start(&url(&pool), Duration::from_millis(5)).await;
    let db = connect(config(&pool).url(proxy.url(&url(&pool)).as_str()).pool_size(1)).await;
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "stored").await;
    {
        let mut committing = pin!(uow.commit());
        assert!((&mut committing).now_or_never().is_none());
    }
    eventually("it is stored", async || stored(&pool).await == ["stored"]).await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_commit_whose_answer_is_lost_says_that_it_does_not_know(pool: PgPool) {
    let proxy = Proxy::start(&url(&pool), Duration::ZERO).await;
    let db = connect(config(&pool).url(proxy.url(&url(&pool)).as_str()).pool_size(1)).await;
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "stored all the same").await;
    proxy.hold_answers();
    let committing = tokio::spawn(uow.commit());
    eventually("it is stored", async || stored(&pool).await.len() == 1).await;
    proxy.cut();
    let committed = committing.await.unwrap();
    assert!(matches!(committed, Err(Error::CommitUnknown { .. })), "{committed:?}");

    // A connection that broke before is another matter: nothing was stored.
    proxy.resume();
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "not stored").await;
    proxy.cut();
    let lost = uow.config().get("any").await;
    assert!(matches!(lost, Err(Error::ConnectionLost(_))), "{lost:?}");
    let committed = uow.commit().await;
    assert!(committed.is_err(), "{committed:?}");
    assert_eq!(stored(&pool).await, ["stored all the same"]);
    // One that was idle for less than a second is not tested, and may have been cut as well.
    eventually("the pool recovers", async || db.config().get("any").await.is_ok()).await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_begin_given_up_at_any_moment_poisons_no_connection(pool: PgPool) {
    let proxy = Proxy::start(&url(&pool), Duration::from_millis(20)).await;
    let one = config(&pool).url(proxy.url(&url(&pool)).as_str()).pool_size(1).max_overflow(0);
    // Four pools of one connection share the steps, so that it takes a quarter of the time.
    let given_up = futures_util::future::join_all((1..=4).map(async |first| {
        let db = connect(one.clone()).await;
        let mut given_up = 0;
        for step in (first..=35).step_by(4) {
            match timeout(Duration::from_millis(5 * step), db.begin()).await {
                Ok(begun) => drop(begun.unwrap()),
                Err(_) => given_up += 1,
            }
            // On the same connection: inside a transaction that nobody ends, it would be lost.
            db.config().set_value(&format!("key {step}"), &json!(step), None).await.unwrap();
        }
        db.close().await;
        given_up
    }))
    .await;
    // Certainly in the midst of it.
    let db = connect(one).await;
    for step in 36..=40 {
        proxy.hold_answers();
        give_up(db.begin()).await;
        proxy.resume();
        db.config().set_value(&format!("key {step}"), &json!(step), None).await.unwrap();
    }
    db.close().await;
    let given_up = given_up.iter().sum::<usize>() + 5;
    assert_eq!(stored(&pool).await.len(), 40, "lost, although reported as stored");
    // Each pool: one to find out what stands between, one to try the address, and its own; and now and
    // then another where the machine stands still.
    assert!(proxy.opened() <= 15 + given_up / 2, "{} of {given_up}", proxy.opened());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_unit_of_work_may_be_dropped_outside_of_the_runtime(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut uow = db.begin().await.unwrap();
    set(&mut uow, "dropped elsewhere").await;
    std::thread::spawn(move || drop(uow)).join().unwrap();
    db.config().set_value("dropped elsewhere", &json!(2), None).await.unwrap();
    assert_eq!(db.config().get_value("dropped elsewhere").await.unwrap(), Some(json!(2)));

    // And after the runtime has ended.
    let config = config(&pool).build().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let uow = runtime
            .block_on(async { Database::connect(&config).await.unwrap().begin().await.unwrap() });
        drop(runtime);
        drop(uow);
    })
    .join()
    .unwrap();
}
