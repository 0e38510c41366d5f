//! Servers that restart or are down for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use chancery::{Database, DatabaseConfig, Error};
use futures_util::future::join_all;
use private_postgres::{Server, StopMode};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{read, rounds};
use crate::support::database::{PATIENCE, connect, eventually};

/// A server of one's own that loses no commit when it crashes, and its database.
async fn server() -> (Arc<Server>, Database) {
    let server = Server::builder().setting("synchronous_commit", "on").start().unwrap();
    let config = DatabaseConfig::builder().url(&server.url("postgres"));
    let config = config.pool_size(10).max_overflow(0).pool_timeout(PATIENCE);
    let db = connect(config).await;
    db.migrate().await.unwrap();
    (Arc::new(server), db)
}

async fn off_the_runtime<T: Send + 'static>(
    server: &Arc<Server>,
    act: impl FnOnce(&Server) -> T + Send + 'static,
) -> T {
    let server = Arc::clone(server);
    spawn_blocking(move || act(&server)).await.unwrap()
}

/// What became of the keys that one task wrote.
#[derive(Default)]
struct Written {
    acknowledged: Vec<String>,
    lost: Vec<String>,
    refused: Vec<(String, Error)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_fails_no_read_and_loses_no_acknowledged_write() {
    let (server, db) = server().await;
    for round in 0..rounds(1) {
        for mode in [StopMode::Fast, StopMode::Immediate] {
            let done = Arc::new(AtomicBool::new(false));
            let stored = Arc::new(AtomicUsize::new(0));
            let readers = (0..25).map(|_| {
                let (db, done) = (db.clone(), Arc::clone(&done));
                tokio::spawn(async move {
                    let (mut reads, mut errors) = (0, Vec::new());
                    while !done.load(Relaxed) {
                        reads += 1;
                        errors.extend(read(&db).await.err().map(|error| match error {
                            // Which shows itself less shyly.
                            Error::Database(error) => format!("{:?}", error.as_sqlx()),
                            error => format!("{error:?}"),
                        }));
                    }
                    (reads, errors)
                })
            });
            let readers: Vec<_> = readers.collect();
            let writers = (0..25).map(|task| {
                let (db, done, stored) = (db.clone(), Arc::clone(&done), Arc::clone(&stored));
                tokio::spawn(async move {
                    let mut written = Written::default();
                    let mut number = 0;
                    while !done.load(Relaxed) {
                        number += 1;
                        let key = format!("{mode:?} {round} {task} {number}");
                        match db.config().set_value(&key, &number.into(), None).await {
                            Ok(_) => {
                                written.acknowledged.push(key);
                                stored.fetch_add(1, Relaxed);
                            }
                            Err(Error::ConnectionLost(_) | Error::CommitUnknown { .. }) => {
                                written.lost.push(key);
                            }
                            Err(error) => written.refused.push((key, error)),
                        }
                    }
                    written
                })
            });
            let writers: Vec<_> = writers.collect();
            eventually("they write", async || stored.load(Relaxed) >= 200).await;
            off_the_runtime(&server, move |server| {
                server.stop(mode).unwrap();
                server.restart().unwrap();
            })
            .await;
            let before = stored.load(Relaxed);
            eventually("they write again", async || stored.load(Relaxed) >= before + 200).await;
            done.store(true, Relaxed);

            let (mut reads, mut failed) = (0, Vec::new());
            for reader in readers {
                let (count, errors) = reader.await.unwrap();
                reads += count;
                failed.extend(errors);
            }
            let writers = join_all(writers).await;
            let stored: Vec<String> = sqlx::query_scalar("select key from config")
                .fetch_all(db.executor())
                .await
                .unwrap();
            let stored: std::collections::HashSet<_> = stored.into_iter().collect();
            let (mut acknowledged, mut lost, mut missing, mut hidden) = (0, 0, 0, Vec::new());
            let mut refused = 0;
            for writer in writers {
                let written = writer.unwrap();
                acknowledged += written.acknowledged.len();
                missing += written.acknowledged.iter().filter(|key| !stored.contains(*key)).count();
                lost += written.lost.len();
                refused += written.refused.len();
                hidden.extend(written.refused.into_iter().filter(|(key, _)| stored.contains(key)));
            }
            eprintln!(
                "fault: {mode:?} restart, 25 readers, 25 writers: {} of {reads} reads failed; {missing} of {acknowledged} acknowledged writes lost, {lost} reported as unknown, {refused} as not stored, of which {} were",
                failed.len(),
                hidden.len()
            );
            assert!(failed.is_empty(), "{failed:?}");
            assert_eq!(missing, 0);
            assert!(hidden.is_empty(), "{hidden:?}");
        }
    }
    db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_wait_for_a_server_are_served_soon_after_it_is_back() {
    let (server, db) = server().await;
    off_the_runtime(&server, |server| server.stop(StopMode::Fast).unwrap()).await;
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move {
                let outcome = read(&db).await;
                (outcome, Instant::now())
            })
        })
        .collect();
    let outage = std::env::var("FAULTS_OUTAGE").map_or(2, |seconds| seconds.parse().unwrap());
    sleep(Duration::from_secs(outage)).await;
    off_the_runtime(&server, |server| server.restart().unwrap()).await;
    let back = Instant::now();
    let mut slowest = Duration::ZERO;
    for waiter in waiting {
        let (outcome, served) = waiter.await.unwrap();
        outcome.unwrap();
        slowest = slowest.max(served.saturating_duration_since(back));
    }
    eprintln!(
        "fault: server down for {outage} s: 20 of 20 served, within {slowest:.0?} of its return"
    );
    db.close().await;
}
