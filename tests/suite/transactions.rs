//! The closure form: what it repeats, what it isolates, and where it compiles.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use chancery::{
    Database, Error, IsolationLevel, NewMessage, Role, TransactionOptions, UnitOfWork, UserId,
};
use futures_util::future::join_all;
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::{Barrier, Semaphore};

use crate::support::database::{config, connect, value};
use crate::support::user;

fn isolated(level: IsolationLevel) -> TransactionOptions {
    TransactionOptions::default().isolation(level)
}

async fn number(db: &Database, key: &str) -> i64 {
    db.config().get_value(key).await.unwrap().unwrap().as_i64().unwrap()
}

async fn set_number(db: &Database, key: &str, number: i64) {
    db.config().set_value(key, &json!(number), None).await.unwrap();
}

/// Reads, then writes: nothing but the isolation level protects what is in between.
async fn read_add_write(uow: &mut UnitOfWork, key: &str) -> chancery::Result<()> {
    let number = uow.config().get_value(key).await?.unwrap().as_i64().unwrap();
    uow.config().set_value(key, &json!(number + 1), None).await?;
    Ok(())
}

/// Adds under the row's lock: nothing is lost whatever the isolation level.
async fn add_one(uow: &mut UnitOfWork, key: &str) -> chancery::Result<()> {
    let add = "update config set value = to_jsonb(value::bigint + 1) where key = $1";
    sqlx::query(add).bind(key).execute(uow.executor()).await?;
    Ok(())
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn ok_commits_and_an_error_or_a_panic_rolls_back(pool: PgPool) {
    let db = Database::from_pool(pool);
    let set = async |uow: &mut UnitOfWork, n| {
        uow.config().set_value("n", &json!(n), None).await.unwrap();
    };
    db.transaction(async |uow| {
        set(uow, 1).await;
        Ok(())
    })
    .await
    .unwrap();
    let failed = db
        .transaction(async |uow| {
            set(uow, 2).await;
            Err::<(), _>(Error::NotFound("reason"))
        })
        .await;
    assert!(matches!(failed, Err(Error::NotFound("reason"))), "{failed:?}");
    let panicking = db.clone();
    let panicked = tokio::spawn(async move {
        panicking
            .transaction(async |uow| {
                uow.config().set_value("n", &json!(3), None).await?;
                if uow.config().get("n").await?.is_some() {
                    std::panic::resume_unwind(Box::new("a bug"));
                }
                Ok(())
            })
            .await
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(number(&db, "n").await, 1);
    // No lock is left behind by either.
    set_number(&db, "n", 4).await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_body_that_hides_a_failed_statement_is_not_committed(pool: PgPool) {
    let db = Database::from_pool(pool);
    let outcome = db
        .transaction(async |uow| {
            uow.config().set_value("n", &json!(1), None).await?;
            sqlx::query("select 1 / 0").execute(uow.executor()).await.unwrap_err();
            Ok(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::TransactionAborted)), "{outcome:?}");
    assert_eq!(db.config().get("n").await.unwrap(), None);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_isolation_level_is_the_one_that_was_asked_for(pool: PgPool) {
    let db = Database::from_pool(pool);
    for (level, name) in [
        (IsolationLevel::ReadCommitted, "read committed"),
        (IsolationLevel::RepeatableRead, "repeatable read"),
        (IsolationLevel::Serializable, "serializable"),
    ] {
        for (options, read_only) in [(isolated(level), "off"), (isolated(level).read_only(), "on")]
        {
            let mut uow = db.begin_with(options).await.unwrap();
            let settings: (String, String) = sqlx::query_as(
                "select current_setting('transaction_isolation'),
                        current_setting('transaction_read_only')",
            )
            .fetch_one(uow.executor())
            .await
            .unwrap();
            assert_eq!(settings, (name.into(), read_only.into()));
        }
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn only_read_committed_sees_a_later_commit(pool: PgPool) {
    let db = Database::from_pool(pool);
    for (level, seen) in [
        (IsolationLevel::ReadCommitted, 2),
        (IsolationLevel::RepeatableRead, 1),
        (IsolationLevel::Serializable, 1),
    ] {
        set_number(&db, "n", 1).await;
        let mut uow = db.begin_with(isolated(level)).await.unwrap();
        assert_eq!(uow.config().get_value("n").await.unwrap(), Some(json!(1)));
        set_number(&db, "n", 2).await;
        assert_eq!(uow.config().get_value("n").await.unwrap(), Some(json!(seen)), "{level:?}");
    }
}

/// One of two must stay on call: each goes off only if the other is on.
async fn go_off(uow: &mut UnitOfWork, own: &str, other: &str) -> chancery::Result<bool> {
    let other_is_on = uow.config().get_value(other).await?.unwrap() == json!(1);
    if other_is_on {
        uow.config().set_value(own, &json!(0), None).await?;
    }
    Ok(other_is_on)
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn write_skew_fails_by_hand_and_is_repeated_by_the_closure_form(pool: PgPool) {
    let db = Database::from_pool(pool);
    let serializable = isolated(IsolationLevel::Serializable);
    set_number(&db, "ada", 1).await;
    set_number(&db, "bob", 1).await;
    let mut first = db.begin_with(serializable).await.unwrap();
    let mut second = db.begin_with(serializable).await.unwrap();
    assert!(go_off(&mut first, "ada", "bob").await.unwrap());
    assert!(go_off(&mut second, "bob", "ada").await.unwrap());
    first.commit().await.unwrap();
    let refused = second.commit().await.unwrap_err();
    assert!(matches!(refused, Error::SerializationFailure), "{refused:?}");
    assert!(refused.is_retryable());

    set_number(&db, "ada", 1).await;
    let (attempts, barrier) = (AtomicU32::new(0), Barrier::new(2));
    let run = async |own, other| {
        let first = AtomicBool::new(true);
        db.transaction_with(serializable, async |uow| {
            attempts.fetch_add(1, SeqCst);
            let off = go_off(uow, own, other).await?;
            if first.swap(false, SeqCst) {
                barrier.wait().await;
            }
            Ok(off)
        })
        .await
        .unwrap()
    };
    let (ada, bob) = tokio::join!(run("ada", "bob"), run("bob", "ada"));
    assert!(ada ^ bob, "both or none went off");
    assert_eq!(number(&db, "ada").await + number(&db, "bob").await, 1);
    assert!(attempts.load(SeqCst) >= 3, "{attempts:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_deadlock_is_repeated(pool: PgPool) {
    let db = Database::from_pool(pool);
    set_number(&db, "a", 0).await;
    set_number(&db, "b", 0).await;
    let (attempts, barrier, ended) = (AtomicU32::new(0), Barrier::new(2), Semaphore::new(0));
    let run = async |one, other| {
        let first = AtomicBool::new(true);
        let outcome = db
            .transaction(async |uow| {
                attempts.fetch_add(1, SeqCst);
                let first = first.swap(false, SeqCst);
                if !first {
                    // The one that was not chosen is through: there is no second deadlock.
                    ended.acquire().await.unwrap().forget();
                }
                sqlx::query("set local deadlock_timeout = '20ms'").execute(uow.executor()).await?;
                add_one(uow, one).await?;
                if first {
                    barrier.wait().await;
                }
                add_one(uow, other).await
            })
            .await;
        ended.add_permits(1);
        outcome
    };
    let (one, other) = tokio::join!(run("a", "b"), run("b", "a"));
    one.unwrap();
    other.unwrap();
    assert_eq!(attempts.load(SeqCst), 3);
    assert_eq!((number(&db, "a").await, number(&db, "b").await), (2, 2));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn sixteen_tasks_counting_in_one_value_lose_nothing(pool: PgPool) {
    let db = connect(config(&pool).pool_size(16)).await;
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        set_number(&db, "n", 0).await;
        let attempts = Arc::new(AtomicU32::new(0));
        let all_have_read = Arc::new(Barrier::new(16));
        // One of them may lose to the others more often than is usual.
        let options = isolated(level).max_attempts(1_000);
        let tasks = (0..16).map(|_| {
            let (db, attempts) = (db.clone(), Arc::clone(&attempts));
            let all_have_read = Arc::clone(&all_have_read);
            tokio::spawn(async move {
                let first = AtomicBool::new(true);
                db.transaction_with(options, async |uow| {
                    attempts.fetch_add(1, SeqCst);
                    if first.swap(false, SeqCst) {
                        uow.config().get_value("n").await?;
                        all_have_read.wait().await;
                    }
                    read_add_write(uow, "n").await
                })
                .await
            })
        });
        for task in join_all(tasks).await {
            task.unwrap().unwrap();
        }
        assert_eq!(number(&db, "n").await, 16);
        // Of the sixteen that had read the same only one could write.
        assert!(attempts.load(SeqCst) >= 31, "{attempts:?}");
    }
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn attempts_end_and_the_last_error_is_told(pool: PgPool) {
    let db = Database::from_pool(pool);
    set_number(&db, "n", 0).await;
    for max in [0, 1, 3] {
        let attempts = AtomicU32::new(0);
        let options = isolated(IsolationLevel::RepeatableRead).max_attempts(max);
        let outcome = db
            .transaction_with(options, async |uow| {
                attempts.fetch_add(1, SeqCst);
                uow.config().get("n").await?;
                set_number(&db, "n", 1).await; // another transaction's
                read_add_write(uow, "n").await
            })
            .await;
        assert!(matches!(outcome, Err(Error::SerializationFailure)), "{outcome:?}");
        assert_eq!(attempts.load(SeqCst), max.max(1));
    }
}

/// Collides with another transaction in its first attempt only.
async fn collide_once(db: &Database, uow: &mut UnitOfWork, first: bool) -> chancery::Result<()> {
    uow.config().get("n").await?;
    if first {
        set_number(db, "n", 1).await;
    }
    read_add_write(uow, "n").await
}

#[derive(Debug)]
enum AppError {
    Database(Error),
    Refused,
}

impl From<Error> for AppError {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_error_of_the_applications_rolls_back_and_is_not_repeated(pool: PgPool) {
    let db = Database::from_pool(pool);
    let attempts = AtomicU32::new(0);
    let outcome = db
        .try_transaction(async |uow| {
            attempts.fetch_add(1, SeqCst);
            uow.config().set_value("n", &json!(1), None).await?;
            Err::<(), _>(AppError::Refused)
        })
        .await;
    assert!(matches!(outcome, Err(AppError::Refused)), "{outcome:?}");
    assert_eq!(attempts.load(SeqCst), 1);
    assert_eq!(db.config().get("n").await.unwrap(), None);

    let outcome: Result<(), _> = db
        .try_transaction(async |uow| {
            uow.config().set_value("", &json!(1), None).await?;
            Ok::<_, AppError>(())
        })
        .await;
    assert!(matches!(outcome, Err(AppError::Database(Error::InvalidInput(_)))), "{outcome:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_collision_is_repeated_whatever_the_body_makes_of_it(pool: PgPool) {
    let db = Database::from_pool(pool);
    let options = isolated(IsolationLevel::RepeatableRead);
    let attempts = AtomicU32::new(0);
    let first = || attempts.fetch_add(1, SeqCst) == 0;

    set_number(&db, "n", 0).await;
    db.try_transaction_with(options, async |uow| {
        collide_once(&db, uow, first()).await.map_err(|_| AppError::Refused)
    })
    .await
    .unwrap();
    assert_eq!((attempts.swap(0, SeqCst), number(&db, "n").await), (2, 2));

    // Swallowed: the commit would be refused.
    set_number(&db, "n", 0).await;
    db.transaction_with(options, async |uow| {
        let _ = collide_once(&db, uow, first()).await;
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!((attempts.swap(0, SeqCst), number(&db, "n").await), (2, 2));

    // Inside a nested unit, which is undone before the outer ends.
    set_number(&db, "n", 0).await;
    db.transaction_with(options, async |uow| {
        let first = first();
        uow.config().get("n").await?;
        uow.transaction(async |uow| collide_once(&db, uow, first).await).await
    })
    .await
    .unwrap();
    assert_eq!((attempts.swap(0, SeqCst), number(&db, "n").await), (2, 2));

    // There, and made into another error.
    set_number(&db, "n", 0).await;
    db.try_transaction_with(options, async |uow| {
        let first = first();
        uow.transaction(async |uow| Ok(collide_once(&db, uow, first).await?))
            .await
            .map_err(|_: AppError| AppError::Refused)
    })
    .await
    .unwrap();
    assert_eq!((attempts.swap(0, SeqCst), number(&db, "n").await), (2, 2));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_collision_caught_in_a_nested_unit_does_not_repeat_the_outer(pool: PgPool) {
    let db = Database::from_pool(pool);
    set_number(&db, "n", 0).await;
    let attempts = AtomicU32::new(0);
    db.transaction_with(isolated(IsolationLevel::RepeatableRead), async |uow| {
        attempts.fetch_add(1, SeqCst);
        let nested: chancery::Result<()> =
            uow.transaction(async |uow| collide_once(&db, uow, true).await).await;
        assert!(matches!(nested, Err(Error::SerializationFailure)), "{nested:?}");
        uow.config().set_value("outer", &json!(true), None).await?;
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(attempts.load(SeqCst), 1);
    assert_eq!(db.config().get_value("outer").await.unwrap(), Some(json!(true)));
}

/// The shape that `async_trait` writes: the future must be `Send`, and borrows.
trait Greeter {
    fn greet<'a>(
        &'a self,
        user: &'a UserId,
        text: &'a str,
    ) -> Pin<Box<dyn Future<Output = chancery::Result<i64>> + Send + 'a>>;
}

struct Service {
    db: Database,
}

impl Greeter for Service {
    fn greet<'a>(
        &'a self,
        user: &'a UserId,
        text: &'a str,
    ) -> Pin<Box<dyn Future<Output = chancery::Result<i64>> + Send + 'a>> {
        Box::pin(async move {
            self.db
                .transaction(async |uow| {
                    let conversation = uow.conversations().create(*user, Some(text)).await?;
                    for role in [Role::User, Role::Assistant] {
                        let mut message = NewMessage::user(conversation.id, text);
                        message.role = role;
                        uow.messages().create(message).await?;
                    }
                    let messages = uow.messages().get_last_n(conversation.id, 10).await?;
                    Ok(messages.len() as i64)
                })
                .await
        })
    }
}

/// As axum asks of a handler.
fn spawnable<F: Future + Send + 'static>(future: F) -> F {
    future
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_closures_compile_where_applications_use_them(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let user = user(&db).await;

    let service: Box<dyn Greeter + Send + Sync> = Box::new(Service { db: db.clone() });
    assert_eq!(service.greet(&user.id, "Hello").await.unwrap(), 2);

    // Captured references, a nested unit, an application's own statement, all in a spawned task.
    let title = String::from("Rice speech");
    let handler = spawnable(async move {
        let (user, title) = (&user, title.as_str());
        db.transaction(async |uow| {
            let conversation = uow.conversations().create(user.id, Some(title)).await?;
            let nested = uow
                .transaction(async |uow| {
                    uow.messages().create(NewMessage::user(conversation.id, title)).await
                })
                .await?;
            sqlx::query("update messages set content = content || '!' where id = $1")
                .bind(nested.id.as_uuid())
                .execute(uow.executor())
                .await?;
            Ok(conversation)
        })
        .await
    });
    let conversation = tokio::spawn(handler).await.unwrap().unwrap();
    assert_eq!(conversation.title.as_deref(), Some("Rice speech"));
    let count = "select count(*) from messages where content = 'Rice speech!'";
    assert_eq!(value::<i64>(&pool, count).await, 1);
}
