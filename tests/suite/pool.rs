//! The pool: how large it gets, what it waits for, and which connections it replaces.

use std::time::{Duration, Instant};

use chancery::{Database, Error, PoolOrder, PoolStatus};
use futures_util::FutureExt;
use futures_util::future::join_all;
use sqlx::PgPool;
use tokio::time::timeout;
use tracing::Level;

use crate::support::database::{PATIENCE, config, connect, eventually, terminate, value};
use crate::support::events::Events;
use crate::support::new_user;

async fn backend(db: &Database) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(db.executor()).await.unwrap()
}

#[sqlx::test(migrations = false)]
async fn there_are_never_more_connections_than_size_and_overflow(pool: PgPool) {
    let config = config(&pool).application_name("counted").pool_size(2).max_overflow(3);
    let db = connect(config).await;
    let count = "select count(*) from pg_stat_activity where application_name = 'counted'";
    let held = join_all((0..5).map(async |_| db.begin().await.unwrap())).await;
    // What found out whether there is a pooler goes as well.
    eventually("five are open", async || value::<i64>(&pool, count).await == 5).await;
    // As many as there are at the most, and forty more who want one.
    let counts = join_all((0..40).map(async |_| {
        let count: i64 = sqlx::query_scalar(count).fetch_one(db.executor()).await.unwrap();
        (count, db.pool_status().size)
    }));
    let mut counts = Box::pin(counts);
    assert!((&mut counts).now_or_never().is_none(), "a sixth was had");
    let full = PoolStatus { size: 5, idle: 0, in_use: 5, max: 5 };
    assert_eq!(db.pool_status(), full);
    drop(held);
    for (count, size) in counts.await {
        assert!(count <= 5 && size <= 5, "{count} on the server, {size} in the pool");
    }
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn pool_size_connections_are_kept_and_the_overflow_is_trimmed(pool: PgPool) {
    let config = config(&pool).pool_size(2).max_overflow(4);
    let db = connect(config.idle_timeout(Duration::from_millis(200))).await;
    let units = join_all((0..6).map(async |_| db.begin().await.unwrap())).await;
    let all = PoolStatus { size: 6, idle: 0, in_use: 6, max: 6 };
    assert_eq!(db.pool_status(), all);
    drop(units);
    eventually("four are closed", async || {
        db.pool_status() == PoolStatus { size: 2, idle: 2, in_use: 0, max: 6 }
    })
    .await;
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn idle_connections_are_kept_in_silence(pool: PgPool) {
    const SIZE: u32 = 20;
    let config = config(&pool).application_name("silent").pool_size(SIZE).max_overflow(0);
    let db = connect(config.idle_timeout(Duration::from_millis(100))).await;
    drop(join_all((0..SIZE).map(async |_| db.begin().await.unwrap())).await);
    let backends = async || {
        value::<Vec<i32>>(
            &pool,
            "select array_agg(pid order by pid) from pg_stat_activity
              where application_name = 'silent'",
        )
        .await
    };
    eventually("no other is left", async || backends().await.len() == SIZE as usize).await;
    let before = backends().await;
    // Each is pinged once more when it is given back after a second; then nothing is sent, though the
    // time after which surplus connections go has passed again and again.
    eventually("nothing was sent for three seconds", async || {
        value::<bool>(
            &pool,
            "select max(state_change) < now() - interval '3 seconds' from pg_stat_activity
              where application_name = 'silent'",
        )
        .await
    })
    .await;
    assert_eq!(backends().await, before, "others were opened in their place");
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn the_connection_that_is_used_next_is_the_first_one_back_or_the_last(pool: PgPool) {
    for (order, turns) in [(PoolOrder::Fifo, [0, 1, 2, 0]), (PoolOrder::Lifo, [2, 2, 2, 2])] {
        let db = connect(config(&pool).pool_size(3).max_overflow(0).pool_order(order)).await;
        let mut units = join_all((0..3).map(async |_| db.begin().await.unwrap())).await;
        let mut pids = Vec::new();
        for unit in &mut units {
            let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
                .fetch_one(unit.executor())
                .await
                .unwrap();
            pids.push(pid);
        }
        for unit in units {
            unit.commit().await.unwrap();
        }
        for turn in turns {
            assert_eq!(backend(&db).await, pids[turn], "{order:?}");
        }
        db.close().await;
    }
}

/// How many connections a call takes before it lets others run.
async fn taken_at_once(db: &Database) -> u32 {
    let before = db.pool_status().in_use;
    let call = sqlx::query("select pg_sleep(60)").execute(db.executor());
    let mut call = Box::pin(call);
    assert!((&mut call).now_or_never().is_none());
    db.pool_status().in_use - before
}

/// Has a connection at hand that was last out for less than a millisecond, however busy the machine is.
async fn used_briefly(db: &Database) {
    eventually("a statement took less than a millisecond", async || {
        let started = Instant::now();
        backend(db).await;
        started.elapsed() < Duration::from_millis(1)
    })
    .await;
}

#[sqlx::test(migrations = false)]
async fn a_caller_gives_way_while_others_hold_connections_unless_the_last_one_comes_first(
    pool: PgPool,
) {
    for (order, beside_others) in [(PoolOrder::Fifo, 0), (PoolOrder::Lifo, 1)] {
        let db = connect(config(&pool).pool_size(3).max_overflow(0).pool_order(order)).await;
        used_briefly(&db).await;
        assert_eq!(taken_at_once(&db).await, 1, "{order:?}");
        let held = db.begin().await.unwrap();
        // Twice: given up at this moment, a call leaves its place to the next one.
        for _ in 0..2 {
            used_briefly(&db).await;
            assert_eq!(taken_at_once(&db).await, beside_others, "{order:?}");
        }
        held.rollback().await.unwrap();
        db.close().await;
    }
}

#[sqlx::test(migrations = false)]
async fn nobody_gives_way_where_calls_take_long(pool: PgPool) {
    let db = connect(config(&pool).pool_size(3).max_overflow(0)).await;
    let held = db.begin().await.unwrap();
    used_briefly(&db).await;
    sqlx::query("select pg_sleep(0.002)").execute(db.executor()).await.unwrap();
    assert_eq!(taken_at_once(&db).await, 1);
    held.rollback().await.unwrap();
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn waiting_for_a_connection_ends_in_time(pool: PgPool) {
    let config = config(&pool).pool_size(1).max_overflow(0);
    let db = connect(config.pool_timeout(Duration::from_millis(100))).await;
    let held = db.begin().await.unwrap();
    let begun = db.begin().await.map(drop);
    assert!(matches!(begun, Err(Error::PoolTimedOut(_))), "{begun:?}");
    let users = db.migration_status().await.map(drop);
    let Err(Error::PoolTimedOut(error)) = users else { panic!("{users:?}") };
    // Unasked it would be five seconds.
    let limits = Duration::from_millis(100)..Duration::from_secs(5);
    assert!(limits.contains(&error.waited), "{error}");
    held.rollback().await.unwrap();
    db.begin().await.unwrap().commit().await.unwrap();
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn a_connection_past_its_age_is_replaced(pool: PgPool) {
    let db = connect(config(&pool).pool_size(1).max_overflow(0)).await;
    let first = backend(&db).await;
    for _ in 0..20 {
        assert_eq!(backend(&db).await, first);
    }
    db.close().await;

    let config = config(&pool).pool_size(1).max_overflow(0);
    let db = connect(config.pool_recycle(Duration::from_millis(1))).await;
    let first = backend(&db).await;
    eventually("it is replaced", async || backend(&db).await != first).await;
    assert_eq!(db.pool_status().size, 1);
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn a_connection_that_is_never_idle_is_replaced_at_its_age(pool: PgPool) {
    let config = config(&pool).pool_size(1).max_overflow(0);
    let db = connect(config.pool_recycle(Duration::from_millis(500))).await;
    // In seconds, by the server's clock.
    let opened = async || -> f64 {
        let sql = "select extract(epoch from backend_start)::float8 from pg_stat_activity
                    where pid = pg_backend_pid()";
        sqlx::query_scalar(sql).fetch_one(db.executor()).await.unwrap()
    };
    let (first, started) = (opened().await, Instant::now());
    let mut second = first;
    while second == first {
        assert!(started.elapsed() < PATIENCE, "it is still there");
        second = opened().await;
    }
    // A tenth less at the least.
    assert!(second - first >= 0.45, "after {} s", second - first);
    assert!(db.pool_status().size <= 1);

    // One that is held goes when it comes back.
    let mut uow = db.begin().await.unwrap();
    let held: i32 = sqlx::query_scalar("select pg_backend_pid() from pg_sleep(0.6)")
        .fetch_one(uow.executor())
        .await
        .unwrap();
    uow.commit().await.unwrap();
    assert_ne!(backend(&db).await, held);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_connection_killed_while_idle_is_replaced_without_an_error(pool: PgPool) {
    let config = config(&pool).application_name("killed").pool_size(1).max_overflow(0);
    let db = connect(config).await;
    let kill = async || assert!(terminate(&pool, "killed").await > 0);
    // Idle for long: it is tested first.
    backend(&db).await;
    kill().await;
    tokio::time::sleep(Duration::from_millis(1_010)).await;
    backend(&db).await;
    // Just used: it is not, but a repository's read and a BEGIN are sent again.
    kill().await;
    db.users().get_by_email("ada@example.org").await.unwrap();
    kill().await;
    db.begin().await.unwrap().commit().await.unwrap();
    // The application's own statement is not: it may have taken effect. The next one is fine.
    eventually("it fails, unless a second has gone by and it was tested", async || {
        kill().await;
        let Err(error) = sqlx::query("select 1").execute(db.executor()).await else { return false };
        let error = Error::from(error);
        assert!(matches!(error, Error::ConnectionLost(_)), "{error:?}");
        true
    })
    .await;
    sqlx::query("select 1").execute(db.executor()).await.unwrap();
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn a_unit_of_work_whose_connection_is_killed_says_so(pool: PgPool) {
    let db = connect(config(&pool).application_name("killed in transaction")).await;
    let uow = db.begin().await.unwrap();
    assert!(terminate(&pool, "killed in transaction").await > 0);
    let lost = uow.commit().await;
    assert!(
        matches!(lost, Err(Error::ConnectionLost(_) | Error::CommitUnknown { .. })),
        "{lost:?}"
    );
    db.begin().await.unwrap().commit().await.unwrap();
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn close_closes_idle_connections_at_once_and_ends_while_one_is_held(pool: PgPool) {
    let config = config(&pool).application_name("closed").pool_size(3).max_overflow(0);
    let db = connect(config.close_timeout(Duration::from_millis(300))).await;
    drop(join_all((0..3).map(async |_| db.begin().await.unwrap())).await);
    eventually("three are idle", async || db.pool_status().idle == 3).await;
    let mut held = db.begin().await.unwrap();
    let connected = async || {
        value::<i64>(
            &pool,
            "select count(*) from pg_stat_activity where application_name = 'closed'",
        )
        .await
    };

    let closing = tokio::spawn({
        let db = db.clone();
        async move { db.close().await }
    });
    eventually("idle ones are closed", async || connected().await == 1).await;
    let closed = timeout(PATIENCE, closing).await.expect("it ends").unwrap();
    assert!(!closed, "closed, although one is held");

    let begun = db.begin().await.map(drop);
    assert!(matches!(begun, Err(Error::PoolClosed)), "{begun:?}");
    let status = db.migration_status().await;
    assert!(matches!(status, Err(Error::PoolClosed)), "{status:?}");
    let migrated = db.migrate().await;
    assert!(matches!(migrated, Err(Error::PoolClosed)), "{migrated:?}");
    assert_eq!(db.health().await.error.as_deref(), Some("the database handle was closed"));

    // What is held may end its work; then its connection goes as well.
    sqlx::query("select 1").execute(held.executor()).await.unwrap();
    held.commit().await.unwrap();
    eventually("the last is closed", async || connected().await == 0).await;
    assert!(db.close().await, "nothing is held any more");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_pool_of_the_applications_is_wrapped_as_it_is(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    assert_eq!(db.pool_status().max, pool.options().get_max_connections());
    db.users().create(new_user()).await.unwrap();
    assert_eq!(value::<i64>(&pool, "select count(*) from users").await, 1);
    // What needs a connection of its own finds the same database.
    assert_eq!(db.migrate().await.unwrap(), [0_i64; 0]);
    let shown = format!("{db:?}");
    assert!(shown.contains(pool.connect_options().get_database().unwrap()), "{shown}");
}

#[sqlx::test(migrations = false)]
async fn a_statement_that_takes_too_long_is_cancelled(pool: PgPool) {
    // Long enough for BEGIN on a busy machine.
    let db = connect(config(&pool).statement_timeout(Duration::from_secs(1))).await;
    let slow = sqlx::query("select pg_sleep(60)").execute(db.executor()).await;
    let error = Error::from(slow.unwrap_err());
    assert!(matches!(error, Error::StatementTimeout), "{error:?}");
    let outcome = db
        .transaction(async |uow| {
            sqlx::query("select pg_sleep(60)").execute(uow.executor()).await?;
            Ok(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::StatementTimeout)), "{outcome:?}");
    db.begin().await.unwrap().commit().await.unwrap();
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn echo_logs_statements_at_info_and_never_their_values(pool: PgPool) {
    let canary = format!("canary{}@example.org", std::process::id());
    for echo in [true, false] {
        let events = Events::capture();
        let db = connect(config(&pool).pool_size(1).echo(echo)).await;
        events.take();
        db.users().get_by_email(&canary).await.unwrap();
        db.transaction(async |uow| uow.users().get_by_email(&canary).await).await.unwrap();
        let seen = events.take();
        let logged = seen
            .iter()
            .filter(|(level, target, text)| {
                *level <= Level::INFO
                    && target == "sqlx::query"
                    && text.contains("from users")
                    && text.contains("email")
            })
            .count();
        assert_eq!(logged, if echo { 2 } else { 0 }, "{seen:?}");
        for (level, target, text) in &seen {
            assert!(!text.contains("canary"), "{level} {target}: {text}");
        }
        db.close().await;
    }
}

#[sqlx::test(migrations = false)]
async fn every_session_has_the_configured_limits(pool: PgPool) {
    let limits = config(&pool)
        .statement_timeout(Duration::from_millis(1_001))
        .lock_timeout(Duration::from_millis(1_002))
        .idle_in_transaction_timeout(Duration::from_millis(1_003))
        .client_connection_check_interval(Duration::from_millis(1_004));
    let db = connect(limits).await;
    let set: Vec<String> = sqlx::query_scalar(
        "select setting from pg_settings
          where name in ('statement_timeout', 'lock_timeout', 'client_connection_check_interval',
                         'idle_in_transaction_session_timeout')
          order by setting",
    )
    .fetch_all(db.executor())
    .await
    .unwrap();
    assert_eq!(set, ["1001", "1002", "1003", "1004"]);
    db.close().await;
}
