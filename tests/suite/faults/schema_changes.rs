//! Schemas that change under a running application.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use chancery::{Database, UnitOfWork};
use futures_util::future::join_all;
use sqlx::PgPool;

use super::{open_all, rounds};
use crate::support::database::{config, connect, value};
use crate::support::{token_hash, user};

const SIZE: u32 = 4;

/// Runs on all connections of the pool, one after the other.
async fn on_each(db: &Database, run: impl AsyncFn(&mut UnitOfWork) -> bool) -> u32 {
    let mut failed = 0;
    let mut units = join_all((0..SIZE).map(async |_| db.begin().await.unwrap())).await;
    for uow in &mut units {
        failed += u32::from(!run(uow).await);
    }
    failed
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_changed_column_type_costs_reads_nothing_and_others_one_failure_a_connection(
    pool: PgPool,
) {
    let db = connect(config(&pool).pool_size(SIZE).max_overflow(0)).await;
    let user = user(&db).await;
    let token = token_hash();
    let hour = std::time::Duration::from_secs(3600);
    db.sessions().create_for(user.id, &token, hour).await.unwrap();
    let changes = [
        "alter table sessions alter token_hash type text",
        "alter table sessions alter token_hash type varchar(300)",
    ];
    let (mut reads, mut writes, mut units) = (0, 0, 0);
    for change in changes {
        open_all(&db).await;
        for _ in 0..SIZE {
            db.sessions().get_by_token(&token).await.unwrap();
        }
        sqlx::query(change).execute(&pool).await.unwrap();
        for _ in 0..40 {
            reads += u32::from(db.sessions().get_by_token(&token).await.is_err());
        }

        // Writes that return the column.
        open_all(&db).await;
        for _ in 0..SIZE {
            db.sessions().extend(&token, hour).await.unwrap();
        }
        let back = "alter table sessions alter token_hash type varchar(255)";
        sqlx::query(back).execute(&pool).await.unwrap();
        for _ in 0..40 {
            writes += u32::from(db.sessions().extend(&token, hour).await.is_err());
        }
        assert!(writes <= SIZE * changes.len() as u32, "{writes} writes failed");

        // Units of work, whose connections have to be replaced as well.
        let read = async |uow: &mut UnitOfWork| uow.sessions().get_by_token(&token).await.is_ok();
        assert_eq!(on_each(&db, read).await, 0);
        sqlx::query(change).execute(&pool).await.unwrap();
        let first = on_each(&db, read).await;
        assert_eq!(on_each(&db, read).await, 0, "they did not heal");
        units += first;
        sqlx::query(back).execute(&pool).await.unwrap();
    }
    eprintln!(
        "fault: column type changed twice, {SIZE} connections: failed reads {reads} of 80, writes {writes} of 80, units of work {units} and then 0"
    );
    assert_eq!(reads, 0);
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn migrators_at_once_all_succeed_while_indexes_are_built(pool: PgPool) {
    sqlx::raw_sql("create table busy as select i from generate_series(1, 100) i")
        .execute(&pool)
        .await
        .unwrap();
    let rounds = rounds(1);
    let done = AtomicBool::new(false);
    let building = async {
        let mut built = 0;
        while !done.load(Relaxed) {
            for statement in ["create index concurrently busy_i on busy (i)", "drop index busy_i"] {
                sqlx::query(statement).execute(&pool).await.unwrap();
            }
            built += 1;
        }
        built
    };
    let migrating = async {
        let mut failed = Vec::new();
        for _ in 0..rounds {
            let outcomes = join_all((0..8).map(async |_| {
                let db = connect(config(&pool).pool_size(1)).await;
                let outcome = db.migrate().await;
                db.close().await;
                outcome
            }))
            .await;
            failed.extend(outcomes.into_iter().filter_map(Result::err));
            let db = connect(config(&pool).pool_size(1)).await;
            db.check_schema().await.unwrap();
            db.revert(chancery::RevertTo::Nothing).await.unwrap();
            db.close().await;
        }
        done.store(true, Relaxed);
        failed
    };
    let (built, failed) = tokio::join!(building, migrating);
    let locks: i64 =
        value(&pool, "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())").await;
    eprintln!(
        "fault: 8 migrators at once beside {built} index builds: {} of {} failed, {locks} locks left",
        failed.len(),
        8 * rounds
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert!(built > 0);
    assert_eq!(locks, 0);
}
