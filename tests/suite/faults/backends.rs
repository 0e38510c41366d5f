//! Server processes that are killed or hang, and a network that does.

use std::process::Command;
use std::time::{Duration, Instant};

use chancery::{DatabaseConfig, Error};
use futures_util::future::join_all;
use private_postgres::Server;
use sqlx::PgPool;
use tokio::time::{sleep, timeout};

use super::{open_all, read, rounds, through_proxy};
use crate::support::backend;
use crate::support::database::{PATIENCE, config, connect, eventually, terminate, url, value};
use crate::support::proxy::Proxy;

/// Those of this database, but for the test's own.
async fn kill_all(pool: &PgPool) -> i64 {
    terminate(pool, "chancery faults").await
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn no_read_fails_when_all_idle_backends_were_killed(pool: PgPool) {
    let config = config(&pool).application_name("chancery faults");
    let db = connect(config.pool_size(5).max_overflow(0)).await;
    let (mut reads, mut failed) = (0, 0);
    for round in 0..rounds(4) {
        open_all(&db).await;
        if round % 2 == 1 {
            // Past the time in which a connection counts as fresh, and back in the pool.
            sleep(Duration::from_millis(1_300)).await;
        }
        // What looked for a pooler may still be on its way out.
        assert!(kill_all(&pool).await >= 5);
        for _ in 0..8 {
            reads += 1;
            failed += u32::from(read(&db).await.is_err());
        }
    }
    eprintln!("fault: 5 idle backends killed, then 8 reads: {failed} of {reads} failed");
    assert_eq!(failed, 0);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_call_costs_one_request_and_no_ping(pool: PgPool) {
    let (proxy, db) = through_proxy(&pool, Duration::ZERO, 5).await;
    // On each connection the statement is prepared the first time.
    for _ in 0..5 {
        read(&db).await.unwrap();
    }
    let mut requests = 0;
    // Unless the machine stands still for a second, after which a connection is pinged.
    eventually("as many requests as reads", async || {
        let before = proxy.requests();
        for _ in 0..100 {
            read(&db).await.unwrap();
        }
        requests = proxy.requests() - before;
        requests == 100
    })
    .await;
    eprintln!("fault: none, 100 reads on warm connections: {requests} requests");
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn killed_in_mid_query_or_transaction_is_connection_lost_and_the_next_call_is_fine(
    pool: PgPool,
) {
    let config = config(&pool).application_name("chancery faults");
    let db = connect(config.pool_size(1).max_overflow(0)).await;
    let (mut lost, rounds) = (0, rounds(3));
    for _ in 0..rounds {
        let sleeping = tokio::spawn({
            let db = db.clone();
            async move { sqlx::query("select pg_sleep(60)").execute(db.executor()).await }
        });
        eventually("it sleeps", async || {
            value::<i64>(
                &pool,
                "select count(*) from pg_stat_activity where datname = current_database()
                    and application_name = 'chancery faults' and wait_event = 'PgSleep'",
            )
            .await
                == 1
        })
        .await;
        kill_all(&pool).await;
        let error = Error::from(sleeping.await.unwrap().unwrap_err());
        assert!(matches!(error, Error::ConnectionLost(_)), "{error:?}");
        read(&db).await.unwrap();

        let mut uow = db.begin().await.unwrap();
        uow.config().set_value("lost", &1.into(), None).await.unwrap();
        kill_all(&pool).await;
        let error = uow.config().set_value("lost", &2.into(), None).await.unwrap_err();
        assert!(matches!(error, Error::ConnectionLost(_)), "{error:?}");
        let committed = uow.commit().await;
        assert!(committed.is_err(), "{committed:?}");
        assert_eq!(db.config().get_value("lost").await.unwrap(), None);
        lost += 2;
    }
    eprintln!(
        "fault: killed in mid-query, mid-transaction: {lost} of {} ConnectionLost, next call fine",
        2 * rounds
    );
    db.close().await;
}

fn signal(signal: &str, pids: &[i32]) {
    let pids = pids.iter().map(ToString::to_string);
    assert!(Command::new("kill").arg(signal).args(pids).status().unwrap().success());
}

#[tokio::test]
async fn frozen_backends_hold_up_a_call_for_one_ping_each() {
    let server = Server::start().unwrap();
    let config = DatabaseConfig::builder().url(&server.url("postgres"));
    let db = connect(config.pool_size(3).max_overflow(0)).await;
    db.migrate().await.unwrap();
    let mut units = join_all((0..3).map(async |_| db.begin().await.unwrap())).await;
    let mut frozen = Vec::new();
    for uow in &mut units {
        frozen.push(backend(uow).await);
    }
    drop(units);
    // A connection that was used within a second is taken as good.
    sleep(Duration::from_millis(1_300)).await;
    signal("-STOP", &frozen);
    let started = Instant::now();
    let outcome = timeout(PATIENCE, read(&db)).await;
    let took = started.elapsed();
    signal("-CONT", &frozen);
    eprintln!(
        "fault: 3 idle backends frozen: the next read took {took:.0?}, {:.0?} each",
        took / 3
    );
    // The frozen ones would never answer.
    outcome.unwrap().unwrap();
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_network_silent_in_mid_query_holds_up_neither_the_caller_nor_close(pool: PgPool) {
    let proxy = Proxy::start(&url(&pool), Duration::ZERO).await;
    // Unasked it would be ten seconds.
    let close_timeout = Duration::from_secs(1);
    let config = config(&pool).url(proxy.url(&url(&pool)).as_str()).pool_size(3);
    let db = connect(config.close_timeout(close_timeout)).await;
    open_all(&db).await;
    proxy.go_silent();
    let started = Instant::now();
    let outcome = timeout(Duration::from_millis(200), read(&db)).await;
    let gave_up = started.elapsed();
    assert!(outcome.is_err(), "{outcome:?}");
    let started = Instant::now();
    let clean = timeout(PATIENCE, db.close()).await.expect("it closes");
    let closed = started.elapsed();
    eprintln!(
        "fault: network silent in mid-query: a caller's 200 ms took {gave_up:.0?}, close {closed:.0?} (clean: {clean})"
    );
    assert!(closed < 9 * close_timeout, "took {closed:?}");
}
