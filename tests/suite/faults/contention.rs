//! More callers than connections.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chancery::Error;
use futures_util::future::join_all;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{open_all, read};
use crate::support::database::{PATIENCE, config, connect, eventually};
use crate::support::events::Events;

#[sqlx::test(migrations = false)]
async fn each_connection_that_comes_back_goes_to_the_task_that_waits_for_longest(pool: PgPool) {
    let db = connect(config(&pool).pool_size(5).max_overflow(0)).await;
    let mut held: VecDeque<_> =
        join_all((0..5).map(async |_| db.begin().await.unwrap())).await.into();
    let (served, mut serving) = mpsc::unbounded_channel();
    for task in 0..200 {
        let (db, served) = (db.clone(), served.clone());
        tokio::spawn(async move {
            let uow = db.begin().await.unwrap();
            served.send((task, uow)).unwrap_or_else(|_| panic!("nobody waits"));
        });
        // It runs until it waits.
        tokio::task::yield_now().await;
    }
    for expected in 0..200 {
        held.pop_front().unwrap().rollback().await.unwrap();
        let (task, uow) = timeout(PATIENCE, serving.recv()).await.unwrap().unwrap();
        assert_eq!(task, expected);
        held.push_back(uow);
    }
    drop(held);
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn two_hundred_tasks_on_five_connections_wait_no_longer_than_they_must(pool: PgPool) {
    const TASKS: u32 = 200;
    let db = connect(config(&pool).pool_size(5).max_overflow(0)).await;
    open_all(&db).await;
    let started = Instant::now();
    // How long each waited, and how long it then had the connection.
    let mut served: Vec<(Duration, Duration)> = join_all((0..TASKS).map(|_| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut uow = db.begin().await.unwrap();
            let waited = started.elapsed();
            sqlx::query("select pg_sleep(0.02)").execute(uow.executor()).await.unwrap();
            uow.rollback().await.unwrap();
            (waited, started.elapsed() - waited)
        })
    }))
    .await
    .into_iter()
    .map(|task| task.unwrap())
    .collect();
    served.sort_unstable();
    let held: Duration = served.iter().map(|(_, held)| *held).sum::<Duration>() / TASKS;
    // The last but one in a hundred starts when 39 others have had each connection.
    let (p99, ideal) = (served[TASKS as usize * 99 / 100 - 1].0, held * 39);
    let ratio = p99.as_secs_f64() / ideal.as_secs_f64();
    eprintln!("fault: 200 tasks on 5 connections: p99 wait {p99:.0?}, {ratio:.2} × ideal");
    // Usually 1.1; what tells each other by looking now and then would be far beyond.
    assert!(ratio < 5.0, "{ratio}");
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn the_timeout_says_how_the_pool_stands_and_who_holds_it(pool: PgPool) {
    let config = config(&pool).pool_size(2).max_overflow(0);
    // Long enough to open the second.
    let limit = Duration::from_secs(2);
    let db = connect(config.pool_timeout(limit)).await;
    let _first = db.begin().await.unwrap();
    let line = line!() + 1;
    let _second = db.begin().await.unwrap();
    let Err(Error::PoolTimedOut(error)) = read(&db).await else { panic!("it did not time out") };
    assert_eq!((error.max, error.size, error.idle, error.in_use), (2, 2, 0, 2));
    assert!(error.waited >= limit, "{error}");
    let place = format!("{}:{line}:", file!());
    let shown = error.to_string();
    eprintln!("fault: pool exhausted: {shown}");
    assert!(shown.contains(&place), "{place} is not in {shown}");
    assert!(shown.contains("2 of 2 open, 0 idle, 2 in use"), "{shown}");
}

#[sqlx::test(migrations = false)]
async fn who_holds_a_connection_for_long_is_named_while_it_does(pool: PgPool) {
    let events = Events::capture();
    let db = connect(config(&pool).hold_warning(Duration::from_millis(50))).await;
    let place = format!("{}:{}:", file!(), line!() + 1);
    let held = db.begin().await.unwrap();
    let mut warnings = Vec::new();
    eventually("a warning", async || {
        warnings.extend(events.take().into_iter().map(|(_, _, text)| text));
        warnings.retain(|text| text.contains("connection_held_long"));
        !warnings.is_empty()
    })
    .await;
    assert!(warnings[0].contains(&place), "{place} is not in {warnings:?}");
    eprintln!("fault: a connection held over hold_warning: named while it is held");
    held.rollback().await.unwrap();
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_second_connection_inside_of_a_unit_of_work_is_had_at_once_or_refused_at_once(
    pool: PgPool,
) {
    const SIZE: u32 = 4;
    let db = connect(config(&pool).pool_size(SIZE).max_overflow(0)).await;
    // One is free: served.
    db.transaction(async |_| read(&db).await).await.unwrap();

    // All are held by those who want another one.
    let all_in = tokio::sync::Barrier::new(SIZE as usize);
    let started = Instant::now();
    let outcomes = join_all((0..SIZE).map(async |_| {
        db.transaction(async |_| {
            all_in.wait().await;
            let read = read(&db).await;
            let begun = db.begin().await.map(drop);
            let nested = db.transaction(async |_| Ok(())).await;
            all_in.wait().await;
            Ok([read, begun, nested])
        })
        .await
        .unwrap()
    }))
    .await;
    let took = started.elapsed();
    for refused in outcomes.iter().flatten() {
        assert!(matches!(refused, Err(Error::WouldDeadlock)), "{refused:?}");
    }
    eprintln!(
        "fault: {SIZE} units of work that all want a second connection of {SIZE}: {} of {} refused in {took:.0?}",
        outcomes.iter().flatten().count(),
        3 * SIZE
    );
    // As long as the pool would wait.
    assert!(took < PATIENCE, "took {took:?}");

    // Another database is waited for, inside of a unit of work as elsewhere.
    let other = connect(config(&pool).pool_size(1).max_overflow(0)).await;
    let held = std::sync::Mutex::new(Some(other.begin().await.unwrap()));
    db.transaction(async |_| {
        let let_go = async { drop(held.lock().unwrap().take()) };
        tokio::join!(read(&other), let_go).0?;
        // Inside of both it is refused where none is free.
        other
            .transaction(async |_| {
                let refused = read(&other).await;
                assert!(matches!(refused, Err(Error::WouldDeadlock)), "{refused:?}");
                read(&db).await
            })
            .await
    })
    .await
    .unwrap();
    other.close().await;
    db.close().await;
}
