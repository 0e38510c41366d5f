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
async fn a_changed_column_type_costs_nothing_but_a_unit_of_work_by_hand_once_a_connection(
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
    let back = "alter table sessions alter token_hash type varchar(255)";
    let (mut reads, mut writes, mut own, mut units, mut bodies) = (0, 0, 0, 0, 0);
    let read = async |uow: &mut UnitOfWork| uow.sessions().get_by_token(&token).await.is_ok();
    for change in changes {
        open_all(&db).await;
        for _ in 0..SIZE {
            db.sessions().get_by_token(&token).await.unwrap();
            db.sessions().list_by_user(user.id, 1, 0).await.unwrap();
        }
        sqlx::query(change).execute(&pool).await.unwrap();
        for _ in 0..20 {
            reads += u32::from(db.sessions().get_by_token(&token).await.is_err());
            reads += u32::from(db.sessions().list_by_user(user.id, 1, 0).await.is_err());
        }

        // Writes that return the column.
        open_all(&db).await;
        for _ in 0..SIZE {
            db.sessions().extend(&token, hour).await.unwrap();
        }
        sqlx::query(back).execute(&pool).await.unwrap();
        for _ in 0..40 {
            writes += u32::from(db.sessions().extend(&token, hour).await.is_err());
        }

        // The application's own.
        let insert = async || {
            let insert = "insert into sessions (user_id, token_hash, expires_at)
                          values ($1, gen_random_uuid(), now()) returning token_hash";
            sqlx::query(insert).bind(user.id).fetch_all(db.executor()).await
        };
        open_all(&db).await;
        for _ in 0..SIZE {
            insert().await.unwrap();
        }
        sqlx::query(change).execute(&pool).await.unwrap();
        let before: i64 = value(&pool, "select count(*) from sessions").await;
        for _ in 0..40 {
            own += u32::from(insert().await.is_err());
        }
        let after: i64 = value(&pool, "select count(*) from sessions").await;
        assert_eq!(after - before, 40, "each took effect once");
        sqlx::query(back).execute(&pool).await.unwrap();

        // Units of work by hand, each on a connection of its own: they fail, and those after them
        // do not.
        assert_eq!(on_each(&db, read).await, 0);
        sqlx::query(change).execute(&pool).await.unwrap();
        units += on_each(&db, read).await;
        assert_eq!(on_each(&db, read).await, 0, "they did not heal");

        // The closure form.
        sqlx::query(back).execute(&pool).await.unwrap();
        for _ in 0..40 {
            let body = async |uow: &mut UnitOfWork| uow.sessions().extend(&token, hour).await;
            bodies += u32::from(db.transaction(body).await.is_err());
        }
    }
    eprintln!(
        "fault: column type changed, {SIZE} connections: failed reads {reads} of 80, writes {writes} of 80, the application's own writes {own} of 80, units of work in closure form {bodies} of 80, by hand {units} of {} and then 0",
        SIZE * 2
    );
    assert_eq!((reads, writes, own, bodies), (0, 0, 0, 0));
    assert_eq!(units, SIZE * 2, "the fault was there");
    db.close().await;
}

/// The same SQLSTATE, from where something may have happened before.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_is_not_supported_is_not_tried_again(pool: PgPool) {
    let db = connect(config(&pool).pool_size(1).max_overflow(0)).await;
    sqlx::raw_sql(
        "create sequence tries;
         create function unsupported() returns void language plpgsql as
           $$begin perform nextval('tries'); raise feature_not_supported; end$$;
         create table planned as select 1 as i;
         create procedure planned_inside() language plpgsql as
           $$begin perform nextval('tries'); commit; execute 'execute planned'; end$$;
         prepare planned as select * from planned;
         execute planned",
    )
    .execute(db.executor())
    .await
    .unwrap();
    sqlx::query("alter table planned alter i type bigint").execute(&pool).await.unwrap();
    for (tries, statement) in [(1_i64, "select unsupported()"), (2, "call planned_inside()")] {
        let error = sqlx::query(statement).execute(db.executor()).await.unwrap_err();
        let code = error.as_database_error().and_then(|e| e.code());
        assert_eq!(code.as_deref(), Some("0A000"), "{error:?}");
        assert_eq!(value::<i64>(&pool, "select last_value from tries").await, tries);
    }
    // Neither cost the connection, on which the statement still is prepared.
    sqlx::query("deallocate planned").execute(db.executor()).await.unwrap();
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
