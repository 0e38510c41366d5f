//! Commits whose answer is lost, deadlocks, and what a unit of work leaves behind.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use chancery::{
    Error, IsolationLevel, TransactionId, TransactionOptions, TransactionOutcome, UnitOfWork,
};
use futures_util::future::join_all;
use sqlx::PgPool;
use tokio::sync::{Barrier, Semaphore};

use super::{rounds, through_proxy};
use crate::support::database::{config, connect, eventually, value};

/// The transaction that a commit was about whose outcome is unknown.
#[track_caller]
fn unknown(committed: chancery::Result<()>) -> TransactionId {
    match committed {
        Err(Error::CommitUnknown { transaction: Some(id), .. }) => id,
        other => panic!("not unknown: {other:?}"),
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn how_a_commit_ended_can_be_asked_when_its_answer_was_lost(pool: PgPool) {
    let (proxy, db) = through_proxy(&pool, Duration::ZERO, 2).await;
    let rounds = rounds(3);
    for round in 0..rounds {
        // The server commits, and its answer does not arrive.
        let stored = format!("stored {round}");
        let mut uow = db.begin().await.unwrap();
        let id = uow.transaction_id().await.unwrap();
        uow.config().set_value(&stored, &1.into(), None).await.unwrap();
        proxy.hold_answers();
        let committing = tokio::spawn(uow.commit());
        eventually("it is stored", async || {
            sqlx::query_scalar("select exists (select from config where key = $1)")
                .bind(&stored)
                .fetch_one(&pool)
                .await
                .unwrap()
        })
        .await;
        proxy.cut();
        proxy.resume();
        assert_eq!(unknown(committing.await.unwrap()), id);
        let outcome = db.transaction_outcome(id).await.unwrap();
        assert_eq!(outcome, TransactionOutcome::Committed);

        // COMMIT does not arrive.
        let mut uow = db.begin().await.unwrap();
        let id = uow.transaction_id().await.unwrap();
        uow.config().set_value("not stored", &1.into(), None).await.unwrap();
        let sent = proxy.requests();
        proxy.go_silent();
        let committing = tokio::spawn(uow.commit());
        eventually("COMMIT is sent", async || proxy.requests() > sent).await;
        proxy.cut();
        proxy.resume();
        assert_eq!(unknown(committing.await.unwrap()), id);
        let outcome = db.transaction_outcome(id).await.unwrap();
        assert_eq!(outcome, TransactionOutcome::RolledBack);
        assert_eq!(db.config().get_value("not stored").await.unwrap(), None);
    }
    eprintln!(
        "fault: answer to COMMIT cut, COMMIT cut: {rounds} Committed, {rounds} RolledBack, all told"
    );
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn thirty_two_workers_in_each_others_way_lose_nothing_and_see_no_deadlock(pool: PgPool) {
    sqlx::raw_sql(
        "create table accounts (id integer primary key, balance integer not null);
         insert into accounts select i, 1000 from generate_series(1, 10) i;
         -- So that each takes less than a second.
         do $$ begin
             execute format('alter database %I set deadlock_timeout = 20', current_database());
         end $$",
    )
    .execute(&pool)
    .await
    .unwrap();
    let config = config(&pool).pool_size(10).max_overflow(10);
    let db = connect(config).await;
    // Two that certainly run into one, on accounts of their own.
    let (both_hold, ended) = (Barrier::new(2), Semaphore::new(0));
    let crossing = join_all([(9, 10), (10, 9)].map(async |(from, to)| {
        let first = AtomicBool::new(true);
        db.transaction(async |uow| {
            let first = first.swap(false, Relaxed);
            if !first {
                // The one that was not chosen is through.
                ended.acquire().await.unwrap().forget();
            }
            transfer(uow, from, -1).await?;
            if first {
                both_hold.wait().await;
            }
            transfer(uow, to, 1).await
        })
        .await
        .unwrap();
        ended.add_permits(1);
    }));
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    let transfers = rounds(3);
    // One of them may lose to the others more often than is usual.
    let patient = TransactionOptions::default().max_attempts(1_000);
    let workers = join_all((0..32).map(|_| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut failed = Vec::new();
            for _ in 0..transfers {
                let from = fastrand::i32(1..=8);
                let to = (from + fastrand::i32(0..7)) % 8 + 1;
                let moved = db.transaction_with(patient, async |uow| {
                    transfer(uow, from, -1).await?;
                    transfer(uow, to, 1).await
                });
                failed.extend(moved.await.err());
            }
            failed
        })
    }));
    let (_, workers) = tokio::join!(crossing, workers);
    let failed: Vec<Error> = workers.into_iter().flat_map(|worker| worker.unwrap()).collect();
    let sum: i64 = value(&pool, "select sum(balance) from accounts").await;
    db.close().await;
    // Told by each session when it ends.
    eventually("the server tells of deadlocks", async || value::<i64>(&pool, deadlocks).await > 0)
        .await;
    let happened: i64 = value(&pool, deadlocks).await;
    eprintln!(
        "fault: deadlocks, 32 workers, {} transfers: {happened} happened, {} surfaced, sum {sum} of 10000",
        32 * transfers,
        failed.len()
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(sum, 10_000);
}

async fn transfer(uow: &mut UnitOfWork, account: i32, amount: i32) -> chancery::Result<()> {
    sqlx::query("update accounts set balance = balance + $2 where id = $1")
        .bind(account)
        .bind(amount)
        .execute(uow.executor())
        .await?;
    Ok(())
}

#[sqlx::test(migrations = false)]
async fn what_a_unit_of_work_sets_ends_with_it(pool: PgPool) {
    let db = connect(config(&pool).pool_size(1).max_overflow(0)).await;
    let settings = async || {
        let isolation: (String, String) = sqlx::query_as(
            "select current_setting('transaction_isolation'), current_setting('transaction_read_only')",
        )
        .fetch_one(db.executor())
        .await
        .unwrap();
        isolation
    };
    let defaults = settings().await;
    assert_eq!(defaults, ("read committed".into(), "off".into()));
    let options = TransactionOptions::default().isolation(IsolationLevel::Serializable).read_only();
    for ending in 0..4 {
        let mut uow = db.begin_with(options).await.unwrap();
        let within: String = sqlx::query_scalar("show transaction_isolation")
            .fetch_one(uow.executor())
            .await
            .unwrap();
        assert_eq!(within, "serializable");
        match ending {
            0 => uow.commit().await.unwrap(),
            1 => uow.rollback().await.unwrap(),
            2 => drop(uow),
            _ => {
                sqlx::query("select 1 / 0").execute(uow.executor()).await.unwrap_err();
                uow.commit().await.unwrap_err();
            }
        }
        assert_eq!(settings().await, defaults, "ending {ending}");
        db.transaction(async |uow| {
            sqlx::query("create table written ()").execute(uow.executor()).await?;
            sqlx::query("drop table written").execute(uow.executor()).await?;
            Ok(())
        })
        .await
        .unwrap();
    }
    eprintln!("fault: isolation and read-only left behind: 0 of 4 leak");
    db.close().await;
}
