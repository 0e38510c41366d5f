//! Servers and roles that allow fewer connections than the pool would open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use chancery::{Database, DatabaseConfig, Error};
use futures_util::future::join_all;
use private_postgres::Server;
use sqlx::{Connection, Executor, PgConnection};

use crate::support::database::{connect, eventually};

const TASKS: usize = 12;

/// A server that allows so many connections.
fn server(max: u32) -> Server {
    Server::builder()
        .setting("max_connections", max.to_string())
        .setting("superuser_reserved_connections", "0")
        .setting("max_wal_senders", "0")
        .start()
        .unwrap()
}

/// A pool that would open more, and waits for less than any test takes that is stuck.
async fn pool(url: &str) -> Database {
    let config = DatabaseConfig::builder().url(url).pool_size(15).max_overflow(0);
    connect(config.pool_timeout(Duration::from_secs(20))).await
}

/// How many calls each of the tasks makes until all of them together have made enough.
async fn calls(db: &Database) -> Vec<usize> {
    let made = Arc::new(AtomicUsize::new(0));
    let tasks = (0..TASKS).map(|_| {
        let (db, made) = (db.clone(), Arc::clone(&made));
        tokio::spawn(async move {
            let mut calls = 0;
            while made.fetch_add(1, Relaxed) < 300 * TASKS {
                sqlx::query("select 1").execute(db.executor()).await.unwrap();
                calls += 1;
            }
            calls
        })
    });
    join_all(tasks).await.into_iter().map(|calls| calls.unwrap()).collect()
}

#[track_caller]
fn assert_fair(calls: &[usize]) {
    let (least, most) = (calls.iter().min().unwrap(), calls.iter().max().unwrap());
    eprintln!(
        "fault: {TASKS} tasks on 3 connections of 15: {least} to {most} calls each, 0 failed"
    );
    // Each waits its turn: only how they begin is left to chance.
    assert!(3 * least >= *most, "{calls:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_starves_where_a_role_may_have_few_connections() {
    let server = server(30);
    let mut admin = PgConnection::connect(&server.url("postgres")).await.unwrap();
    admin.execute("create role limited login connection limit 3").await.unwrap();
    let db = pool(&server.url("postgres").replace("postgres@", "limited@")).await;
    assert_fair(&calls(&db).await);
    // Those that the pool still tries to open count as in use until it gives up.
    eventually("nobody uses any", async || db.pool_status().in_use == 0).await;

    // What is held by others is waited for, and taken as it comes back.
    let mut held = join_all((0..3).map(async |_| db.begin().await.unwrap())).await;
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { db.begin().await }
    });
    held.pop().unwrap().rollback().await.unwrap();
    held.push(waiting.await.unwrap().unwrap());

    // More are opened when more are allowed, also for those who wait already.
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { join_all((0..9).map(async |_| db.begin().await.unwrap())).await }
    });
    admin.execute("alter role limited connection limit 12").await.unwrap();
    let others = waiting.await.unwrap();
    assert_eq!(db.pool_status().in_use, 12);
    drop((held, others));
    db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_starves_where_the_server_is_full() {
    let server = server(5);
    let url = server.url("postgres");
    let db = pool(&url).await;
    let mut others = Vec::new();
    for _ in 0..2 {
        others.push(PgConnection::connect(&url).await.unwrap());
    }
    assert_fair(&calls(&db).await);
    db.close().await;

    // Not one is left: that is told, and the first that becomes free is taken.
    let config = DatabaseConfig::builder().url(&url).pool_size(2).max_overflow(0);
    let db = connect(config.pool_timeout(Duration::from_secs(2))).await;
    while let Ok(other) = PgConnection::connect(&url).await {
        others.push(other);
    }
    let error = db.begin().await.unwrap_err();
    let Error::PoolTimedOut(timeout) = &error else { panic!("{error:?}") };
    assert_eq!(timeout.in_use, 0, "{error}");
    let cause = timeout.last_connect_error.as_deref();
    assert!(cause.is_some_and(|cause| cause.contains("no more connections")), "{error}");
    others.pop().unwrap().close().await.unwrap();
    eventually("the one that is free is taken", async || db.begin().await.is_ok()).await;
    db.close().await;
}
