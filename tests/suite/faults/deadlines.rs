//! Callers that go away before the answer comes.

use std::time::{Duration, Instant};

use chancery::{Error, TransactionOptions};
use futures_util::future::join_all;
use sqlx::PgPool;
use tokio::time::timeout;

use super::{open_all, read, rounds, through_proxy};
use crate::support::database::{config, connect, eventually, value};

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
    assert_eq!(reconnects, 0);
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
    let db = connect(config(&pool).pool_size(5).max_overflow(0)).await;
    open_all(&db).await;
    join_all((0..5).map(async |_| {
        let slow = sqlx::query("select pg_sleep(6)").execute(db.executor());
        timeout(Duration::from_millis(100), slow).await.unwrap_err();
    }))
    .await;
    let started = Instant::now();
    read(&db).await.unwrap();
    let served = started.elapsed();
    eventually("the backends are gone", async || {
        value::<i64>(
            &pool,
            "select count(*) from pg_stat_activity
              where datname = current_database() and wait_event = 'PgSleep'",
        )
        .await
            == 0
    })
    .await;
    let gone = started.elapsed();
    eprintln!(
        "fault: 5 callers give up on 6 s queries, pool of 5: next served in {served:.0?}, backends gone in {gone:.0?}"
    );
    assert!(served < Duration::from_millis(1_000), "served after {served:?}");
    assert!(gone < Duration::from_millis(3_000), "gone after {gone:?}");
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_unit_of_work_past_its_deadline_stores_nothing_and_costs_no_connection(pool: PgPool) {
    let db = connect(config(&pool).pool_size(1).max_overflow(0)).await;
    let options = TransactionOptions::default().deadline(Duration::from_millis(150));
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
    eprintln!(
        "fault: a unit of work with 150 ms that takes 20 s: DeadlineExceeded after {took:.0?}"
    );
    db.close().await;
}
