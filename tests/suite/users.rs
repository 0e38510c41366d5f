//! Accounts.

use chancery::{
    Constraint, Database, Error, NewUser, NewUserPreferences, PasswordHash, Patch, UserId,
    UserPatch,
};
use sqlx::PgPool;

use crate::support::{conversation_of, invalid_field, messages, new_user, user};

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_new_user_can_be_read_back_by_id_and_by_email(pool: PgPool) {
    let db = Database::from_pool(pool);
    let hash =
        PasswordHash::new("$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaC1vZi0xNi1ieXRlcw").unwrap();
    let new = NewUser::new("ada@example.org").name("Ada").password_hash(hash.clone());
    let created = db.users().create(new).await.unwrap();
    assert_eq!(created.email, "ada@example.org");
    assert_eq!(created.name.as_deref(), Some("Ada"));
    assert_eq!(created.password_hash, Some(hash));
    assert_eq!((created.timezone.as_str(), created.is_active), ("UTC", true));
    assert_eq!(created.created_at, created.updated_at);
    assert_eq!(db.users().get_by_id(created.id).await.unwrap().as_ref(), Some(&created));
    assert_eq!(db.users().get_by_email("ada@example.org").await.unwrap(), Some(created));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_user_that_is_not_there_is_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    assert_eq!(db.users().get_by_id(UserId::new()).await.unwrap(), None);
    assert_eq!(db.users().get_by_email("nobody@example.org").await.unwrap(), None);
    // What can't be stored is not asked for.
    assert_eq!(db.users().get_by_email("nul\0@example.org").await.unwrap(), None);
    assert_eq!(db.users().get_by_email(&"x".repeat(10_000)).await.unwrap(), None);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_email_has_one_account_however_it_is_capitalised(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = db.users().create(NewUser::new("Ada@Example.org")).await.unwrap();
    let second = db.users().create(NewUser::new("ada@example.org")).await;
    assert!(matches!(second, Err(Error::Conflict(Constraint::UsersEmailKey))), "{second:?}");
    assert_eq!(db.users().get_by_email("ADA@EXAMPLE.ORG").await.unwrap().unwrap().id, ada.id);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn input_that_cannot_be_stored_is_refused_by_name(pool: PgPool) {
    let db = Database::from_pool(pool);
    let long = |n: usize| Some("x".repeat(n));
    for (field, new) in [
        ("email", NewUser::new("not an address")),
        ("email", NewUser::new(format!("{}@example.org", "x".repeat(250)))),
        ("name", NewUser { name: long(101), ..new_user() }),
        ("name", NewUser { name: Some("\0".into()), ..new_user() }),
        ("profile_picture", NewUser { profile_picture: long(256), ..new_user() }),
        ("profession", NewUser { profession: long(101), ..new_user() }),
        ("date_of_birth", NewUser { date_of_birth: Some(chrono::NaiveDate::MAX), ..new_user() }),
        ("timezone", NewUser { timezone: String::new(), ..new_user() }),
    ] {
        match db.users().create(new).await {
            Err(Error::InvalidInput(e)) => assert_eq!(e.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_patch_leaves_what_it_does_not_name_and_can_set_null(pool: PgPool) {
    let db = Database::from_pool(pool);
    let before = db
        .users()
        .create(NewUser { profession: Some("analyst".into()), ..new_user().name("Ada") })
        .await
        .unwrap();
    let patch = UserPatch { profession: Patch::Set(None), ..UserPatch::default() };
    let after = db.users().update(before.id, patch).await.unwrap();
    assert_eq!(after.profession, None);
    assert_eq!(after.name.as_deref(), Some("Ada"));
    assert_eq!(after.email, before.email);
    assert!(after.updated_at > before.updated_at);
    assert_eq!(after.created_at, before.created_at);

    let unchanged = db.users().update(before.id, UserPatch::default()).await.unwrap();
    assert_eq!(unchanged.name, after.name);
    let missing = db.users().update(UserId::new(), UserPatch::default()).await;
    assert!(matches!(missing, Err(Error::NotFound("user"))), "{missing:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn deleting_a_user_deletes_what_hangs_on_it(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await, user(&db).await);
    for owner in [&ada, &bob] {
        let conversation = conversation_of(&db, owner.id).await;
        db.messages().create_many(messages(&conversation, 3)).await.unwrap();
    }
    assert!(db.users().delete(ada.id).await.unwrap());
    assert!(!db.users().delete(ada.id).await.unwrap());
    assert_eq!(db.conversations().list_by_user(ada.id, 10, 0).await.unwrap(), []);
    let left = db.conversations().list_by_user(bob.id, 10, 0).await.unwrap();
    assert_eq!(db.messages().list_by_conversation(left[0].id, 10, 0).await.unwrap().len(), 3);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn neither_debug_nor_json_of_a_user_shows_the_password_hash(pool: PgPool) {
    let db = Database::from_pool(pool);
    let hash = PasswordHash::legacy("canary").unwrap();
    let ada = db.users().create(new_user().password_hash(hash)).await.unwrap();
    let shown = format!("{ada:?} {}", serde_json::to_string(&ada).unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_can_be_no_time_zone_is_refused_before_the_server_is_asked(pool: PgPool) {
    let db = Database::from_pool(pool);
    db.close().await;
    for zone in ["", "Not/AZone", "PST", "FOO3", "Europe", "europe/paris", "UTC\0"] {
        let new = NewUser { timezone: zone.into(), ..new_user() };
        let patch = UserPatch { timezone: Patch::Set(zone.into()), ..UserPatch::default() };
        assert_eq!(invalid_field(db.users().create(new.clone()).await), "timezone", "{zone}");
        let both = db.users().create_with_preferences(new, NewUserPreferences::default()).await;
        assert_eq!(invalid_field(both), "timezone", "{zone}");
        assert_eq!(
            invalid_field(db.users().update(UserId::new(), patch).await),
            "timezone",
            "{zone}"
        );
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_time_zone_is_one_that_the_server_knows(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let ada = user(&db).await;
    let set = |zone: &str| UserPatch { timezone: Patch::Set(zone.into()), ..UserPatch::default() };
    let unknown = || NewUser { timezone: "Europe/Atlantis".into(), ..new_user() };
    assert_eq!(invalid_field(db.users().create(unknown()).await), "timezone");
    let both = db.users().create_with_preferences(unknown(), NewUserPreferences::default()).await;
    assert_eq!(invalid_field(both), "timezone");
    assert_eq!(invalid_field(db.users().update(ada.id, set("Europe/Atlantis")).await), "timezone");

    let zones: Vec<String> = sqlx::query_scalar(
        "select name from pg_timezone_names
          where name !~ '^(posix|right)/' and name not in ('localtime', 'posixrules', 'Factory')",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(zones.len() > 300, "{zones:?}");
    let mut uow = db.begin().await.unwrap();
    sqlx::query("set local timezone = 'Asia/Tokyo'").execute(uow.executor()).await.unwrap();
    for zone in zones {
        let changed = uow.users().update(ada.id, set(&zone)).await;
        assert_eq!(changed.as_ref().map(|user| &*user.timezone).ok(), Some(&*zone), "{changed:?}");
    }
    // The session's own is what it was.
    let own: String = sqlx::query_scalar("show timezone").fetch_one(uow.executor()).await.unwrap();
    assert_eq!(own, "Asia/Tokyo");
}
