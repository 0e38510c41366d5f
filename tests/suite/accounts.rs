//! Accounts with preferences, sign-in, and their end.

use std::time::Duration;

use chancery::{
    Constraint, Database, Error, NewUser, NewUserPreferences, Patch, SummaryLength,
    UpdateFrequency, UserId, UserPatch, UserPreferencesPatch,
};
use sqlx::PgPool;

use crate::support::{new_user, token_hash, user};

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_account_is_made_with_its_preferences(pool: PgPool) {
    let db = Database::from_pool(pool);
    let wanted =
        NewUserPreferences { update_frequency: UpdateFrequency::Daily, ..Default::default() };
    let (user, preferences) =
        db.users().create_with_preferences(new_user().name("Ada"), wanted).await.unwrap();
    assert_eq!(user.password_hash, None);
    assert_eq!(preferences.user_id, user.id);
    assert_eq!(preferences.update_frequency, UpdateFrequency::Daily);
    assert_eq!(preferences.summary_length, SummaryLength::Standard);
    assert!(preferences.email_notifications_enabled);
    assert_eq!(db.users().get_by_id(user.id).await.unwrap(), Some(user.clone()));
    assert_eq!(db.user_preferences().get_by_user(user.id).await.unwrap(), Some(preferences));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_account_that_is_refused_leaves_no_preferences(pool: PgPool) {
    let db = Database::from_pool(pool);
    db.users().create(NewUser::new("ada@example.org")).await.unwrap();
    let again = db
        .users()
        .create_with_preferences(NewUser::new("Ada@example.org"), NewUserPreferences::default())
        .await;
    assert!(matches!(again, Err(Error::Conflict(Constraint::UsersEmailKey))), "{again:?}");
    let left: i64 = sqlx::query_scalar("select count(*) from user_preferences")
        .fetch_one(db.executor())
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_user_has_preferences_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    assert_eq!(db.user_preferences().get_by_user(ada.id).await.unwrap(), None);
    let new = NewUserPreferences::default();
    db.user_preferences().create(ada.id, new).await.unwrap();
    let twice = db.user_preferences().create(ada.id, new).await;
    assert!(matches!(twice, Err(Error::Conflict(Constraint::UserPreferencesUserIdKey))));
    let nobody = db.user_preferences().create(UserId::new(), new).await;
    assert!(matches!(nobody, Err(Error::ForeignKey(Constraint::UserPreferencesUserIdFkey))));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_patch_changes_what_it_names_and_makes_missing_preferences(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let quiet = UserPreferencesPatch {
        email_notifications_enabled: Patch::Set(false),
        ..Default::default()
    };
    let made = db.user_preferences().update(ada.id, quiet).await.unwrap();
    assert_eq!(made.update_frequency, UpdateFrequency::Weekly);
    assert!(!made.email_notifications_enabled);

    let detailed = UserPreferencesPatch {
        summary_length: Patch::Set(SummaryLength::Detailed),
        ..Default::default()
    };
    let changed = db.user_preferences().update(ada.id, detailed).await.unwrap();
    assert_eq!(changed.id, made.id);
    assert_eq!(changed.summary_length, SummaryLength::Detailed);
    assert!(!changed.email_notifications_enabled);
    assert!(changed.updated_at > made.updated_at);

    let nobody = db.user_preferences().update(UserId::new(), detailed).await;
    assert!(matches!(nobody, Err(Error::ForeignKey(Constraint::UserPreferencesUserIdFkey))));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn signing_in_is_noted_for_active_accounts_only(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    assert_eq!(ada.last_login, None);
    let noted = db.users().touch_last_login(ada.id).await.unwrap();
    assert!(noted.is_some());
    assert_eq!(db.users().get_by_id(ada.id).await.unwrap().unwrap().last_login, noted);
    assert_eq!(db.users().touch_last_login(UserId::new()).await.unwrap(), None);

    db.users().deactivate(ada.id).await.unwrap();
    assert_eq!(db.users().touch_last_login(ada.id).await.unwrap(), None);
    let reopen = UserPatch { is_active: Patch::Set(true), ..Default::default() };
    assert!(db.users().update(ada.id, reopen).await.unwrap().is_active);
    assert!(db.users().touch_last_login(ada.id).await.unwrap() > noted);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn deactivating_ends_the_sessions_and_keeps_the_account(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await, user(&db).await);
    let (hers, his) = (token_hash(), token_hash());
    db.sessions().create_for(ada.id, &hers, Duration::from_secs(60)).await.unwrap();
    db.sessions().create_for(bob.id, &his, Duration::from_secs(60)).await.unwrap();
    db.users().deactivate(ada.id).await.unwrap();
    assert!(!db.users().get_by_id(ada.id).await.unwrap().unwrap().is_active);
    assert_eq!(db.sessions().get_by_token(&hers).await.unwrap(), None);
    assert!(db.sessions().get_by_token(&his).await.unwrap().is_some());
    let missing = db.users().deactivate(UserId::new()).await;
    assert!(matches!(missing, Err(Error::NotFound("user"))));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn deleting_an_account_deletes_its_preferences(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, _) = db
        .users()
        .create_with_preferences(new_user(), NewUserPreferences::default())
        .await
        .unwrap();
    assert!(db.users().delete(ada.id).await.unwrap());
    assert_eq!(db.user_preferences().get_by_user(ada.id).await.unwrap(), None);
}
