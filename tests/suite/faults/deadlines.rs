//! Callers that go away before the answer comes.

use std::time::{Duration, Instant};

use chancery::{Error, TransactionOptions};
use futures_util::future::join_all;
use sqlx::PgPool;
use tokio::time::timeout;

use super::{open_all, read, rounds, through_proxy};
use crate::support::database::{PATIENCE, config, connect, eventually, value};

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn calls_given_up_before_their_answer_cost_no_connection(pool: PgPool) {
    let (proxy, db) = through_proxy(&pool, Duration::from_millis(10), 5).await;
    let opened = proxy.opened();
    let calls = rounds(20);
    let given_up: usize = join_all((0..8).map(|_| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut given_up = 0;
            for _ in 0..calls {
                let call = timeout(Duration::from_millis(15), read(&db)).await;
                given_up += usize::from(call.is_err());
            }
            given_up
        })
    }))
    .await
    .into_iter()
    .map(|caller| caller.unwrap())
    .sum();
    read(&db).await.unwrap();
    let reconnects = proxy.opened() - opened;
    eprintln!(
        "fault: {} calls with 15 ms at 20 ms round trip: {given_up} given up, {reconnects} reconnects",
        8 * calls
    );
    assert_eq!(given_up, 8 * calls);
    // An answer that is late by two tenths of a second, on a machine that stands still, costs one.
    assert!(reconnects * 10 < given_up, "{reconnects} reconnects");
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn the_server_is_told_the_limits_of_the_configuration(pool: PgPool) {
    let config = config(&pool)
        .statement_timeout(Duration::from_secs(31))
        .idle_in_transaction_timeout(Duration::from_secs(32))
        .lock_timeout(Duration::from_secs(33))
        .client_connection_check_interval(Duration::from_secs(34));
    let db = connect(config).await;
    let limits: Vec<String> = sqlx::query_scalar(
        "select setting from pg_settings
          where name in ('statement_timeout', 'idle_in_transaction_session_timeout', 'lock_timeout',
                         'client_connection_check_interval')
          order by setting",
    )
    .fetch_all(db.executor())
    .await
    .unwrap();
    assert_eq!(limits, ["31000", "32000", "33000", "34000"]);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_next_caller_does_not_wait_for_queries_that_were_given_up(pool: PgPool) {
    let config = config(&pool).statement_timeout(10 * PATIENCE);
    let db = connect(config.pool_size(5).max_overflow(0)).await;
    open_all(&db).await;
    let asleep = async || -> i64 {
        value(
            &pool,
            "select count(*) from pg_stat_activity
              where datname = current_database() and wait_event = 'PgSleep'",
        )
        .await
    };
    let slow = join_all((0..5).map(|_| {
        // Far longer than anybody waits.
        sqlx::query("select pg_sleep(600)").execute(db.executor())
    }));
    tokio::select! {
        _ = slow => panic!("they ended"),
        () = eventually("all sleep", async || asleep().await == 5) => {}
    }
    let started = Instant::now();
    read(&db).await.unwrap();
    let served = started.elapsed();
    eventually("the backends are gone", async || asleep().await == 0).await;
    let gone = started.elapsed();
    eprintln!(
        "fault: 5 callers give up on queries of 10 min, pool of 5: next served in {served:.0?}, backends gone in {gone:.0?}"
    );
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_unit_of_work_past_its_deadline_stores_nothing_and_costs_no_connection(pool: PgPool) {
    let db = connect(config(&pool).pool_size(1).max_overflow(0)).await;
    // Long enough for what comes before the slow statement.
    let options = TransactionOptions::default().deadline(Duration::from_secs(1));
    let started = Instant::now();
    let outcome = db
        .transaction_with(options, async |uow| {
            uow.config().set_value("not stored", &1.into(), None).await?;
            sqlx::query("select pg_sleep(20)").execute(uow.executor()).await?;
            Ok(())
        })
        .await;
    let took = started.elapsed();
    assert!(matches!(outcome, Err(Error::DeadlineExceeded)), "{outcome:?}");
    assert_eq!(db.config().get_value("not stored").await.unwrap(), None);

    // By hand: the statement ends, and nothing can be committed.
    let mut uow = db.begin_with(options).await.unwrap();
    uow.config().set_value("by hand", &1.into(), None).await.unwrap();
    let slow = sqlx::query("select pg_sleep(20)").execute(uow.executor()).await;
    let error = Error::from(slow.unwrap_err());
    assert!(matches!(error, Error::DeadlineExceeded), "{error:?}");
    let committed = uow.commit().await;
    assert!(matches!(committed, Err(Error::DeadlineExceeded)), "{committed:?}");
    assert_eq!(db.config().get_value("by hand").await.unwrap(), None);
    eprintln!("fault: a unit of work with 1 s that takes 20 s: DeadlineExceeded after {took:.0?}");
    db.close().await;
}
