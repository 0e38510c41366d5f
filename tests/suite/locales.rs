//! Databases of several locales: what machines compare means the same in each of them.

use chancery::{Constraint, Database, Error, MigrationError, NewUser, RevertTo, UserId};
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::database::{config, connect, url};
use crate::support::intake::new_document;
use crate::support::user;

/// The last migration before addresses and keys were compared by code point.
const BEFORE: i64 = 20261125090400;

/// In C.UTF-8 the Kelvin sign is a capital k; in Turkish, I is the capital of a letter without a dot.
const TURKISH: &str = "locale_provider icu icu_locale 'tr' locale 'C'";
const C_UTF8: &str = "locale 'C.UTF-8'";
const LOCALES: [&str; 4] = [TURKISH, C_UTF8, "locale 'C'", ""];

/// Runs the check in a migrated database of its own with this locale, if the server can have one.
async fn in_locale(pool: &PgPool, locale: &str, check: impl AsyncFnOnce(&Database)) {
    let mut name = format!("l{}", pool.connect_options().get_database().unwrap());
    name.truncate(63);
    let execute = async |statement: String| {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(pool).await.map(drop)
    };
    let made =
        execute(format!("create database \"{name}\" template template0 encoding 'UTF8' {locale}"));
    if let Err(error) = made.await {
        // 0A000: built without ICU. 22023, 42809: the system has no such locale.
        let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default();
        assert!(["0A000", "22023", "42809"].contains(&&*code), "{locale}: {error}");
        println!("SKIPPED: this server has no database with {locale}: {error}");
        return;
    }
    let mut url = url(pool);
    url.set_path(&name);
    let db = connect(config(pool).url(url.as_str())).await;
    db.migrate().await.unwrap();
    check(&db).await;
    db.close().await;
    execute(format!("drop database \"{name}\" with (force)")).await.unwrap();
}

/// Addresses as another program writes them.
async fn insert_users(db: &Database, emails: &[&str]) -> Vec<UserId> {
    let mut ids = Vec::new();
    for email in emails {
        let id: uuid::Uuid =
            sqlx::query_scalar("insert into users (email) values ($1) returning id")
                .bind(email)
                .fetch_one(db.executor())
                .await
                .unwrap();
        ids.push(id.into());
    }
    ids
}

/// What the server said of the migration that failed.
#[track_caller]
fn failed<T: std::fmt::Debug>(result: Result<T, Error>, expected: i64) -> String {
    match result {
        Err(Error::Migration(MigrationError::Failed { version, source, .. })) => {
            assert_eq!(version, expected, "{source}");
            source.as_sqlx().as_database_error().unwrap().message().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn names_all(message: &str, ids: &[UserId]) {
    for id in ids {
        assert!(message.contains(&id.to_string()), "{message}");
    }
}

#[sqlx::test(migrations = false)]
async fn an_address_is_folded_by_ascii_letters_alone_in_every_locale(pool: PgPool) {
    for locale in LOCALES {
        in_locale(&pool, locale, async |db| {
            let created = db.users().create(NewUser::new("INFO@Example.org")).await.unwrap();
            let again = db.users().create(NewUser::new("info@example.ORG")).await;
            assert!(
                matches!(again, Err(Error::Conflict(Constraint::UsersEmailKey))),
                "{locale}: {again:?}"
            );
            let get = async |email: &str| db.users().get_by_email(email).await.unwrap();
            assert_eq!(get("iNfO@eXAMPLE.org").await.as_ref(), Some(&created), "{locale}");
            assert_eq!(get("ınfo@example.org").await, None, "{locale}");
            assert_eq!(get("İNFO@example.org").await, None, "{locale}");

            // Every other character is only itself: neither of two is found by the other.
            for (one, other) in [
                ("mike@example.org", "mi\u{212a}e@example.org"),
                ("jos\u{e9}@example.org", "jose\u{301}@example.org"),
                ("\u{e4}@example.org", "\u{c4}@example.org"),
                ("stra\u{df}e@example.org", "strasse@example.org"),
                ("σ@example.org", "ς@example.org"),
            ] {
                let one = db.users().create(NewUser::new(one)).await.unwrap();
                assert_eq!(get(other).await, None, "{locale}: {other}");
                let other = db.users().create(NewUser::new(other)).await.unwrap();
                assert_eq!(get(&other.email).await.as_ref(), Some(&other), "{locale}");
                assert_eq!(get(&one.email).await.as_ref(), Some(&one), "{locale}");
            }
        })
        .await;
    }
}

#[sqlx::test(migrations = false)]
async fn accounts_that_become_one_are_named_by_the_migration_and_nothing_is_changed(pool: PgPool) {
    in_locale(&pool, TURKISH, async |db| {
        db.revert(RevertTo::Version(BEFORE)).await.unwrap();
        let same = insert_users(db, &["info@example.org", "INFO@example.org"]).await;
        insert_users(db, &["ada@example.org"]).await;
        let message = failed(db.migrate().await, 20261128100001);
        names_all(&message, &same);
        assert!(!message.contains('@'), "addresses are nobody's business: {message}");

        assert!(db.users().delete(same[1]).await.unwrap());
        db.migrate().await.unwrap();
        db.check_schema().await.unwrap();
        assert_eq!(db.users().get_by_email("Info@example.org").await.unwrap().unwrap().id, same[0]);
    })
    .await;
}

#[sqlx::test(migrations = false)]
async fn accounts_that_the_locale_takes_for_one_are_named_when_the_rule_is_reverted(pool: PgPool) {
    in_locale(&pool, C_UTF8, async |db| {
        let same = insert_users(db, &["mike@example.org", "mi\u{212a}e@example.org"]).await;
        let message = failed(db.revert(RevertTo::Version(BEFORE)).await, 20261128100001);
        names_all(&message, &same);
        assert!(db.users().delete(same[1]).await.unwrap());
        db.revert(RevertTo::Version(BEFORE)).await.unwrap();
        db.migrate().await.unwrap();
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn documents_of_two_owners_are_named_when_a_content_becomes_one_again(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await.id, user(&db).await.id);
    let new = new_document();
    let hers = db.documents().create(new.clone().user_id(ada)).await.unwrap().id;
    let his = db.documents().create(new.user_id(bob)).await.unwrap().id;
    let message = failed(db.revert(RevertTo::Version(BEFORE)).await, 20261128100011);
    assert!(message.contains(&hers.to_string()) && message.contains(&his.to_string()), "{message}");
    assert!(db.documents().delete(his).await.unwrap());
    db.revert(RevertTo::Version(BEFORE)).await.unwrap();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn views_that_stand_in_the_way_of_a_new_collation_are_named_at_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    db.revert(RevertTo::Version(BEFORE)).await.unwrap();
    let execute =
        async |text: &'static str| sqlx::raw_sql(text).execute(db.executor()).await.map(drop);
    execute("create view mail as select email from users; create view files as table documents")
        .await
        .unwrap();
    let message = failed(db.migrate().await, 20261128100001);
    assert!(message.contains("mail") && message.contains("files"), "{message}");
    execute("drop view mail, files").await.unwrap();
    db.migrate().await.unwrap();
    db.check_schema().await.unwrap();
    // They may come back.
    execute("create view mail as select email from users; create view files as table documents")
        .await
        .unwrap();
}
