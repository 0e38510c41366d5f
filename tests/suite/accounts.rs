//! Accounts with preferences, sign-in, and their end.

use std::time::Duration;

use chancery::{
    Constraint, Database, Error, NewUser, NewUserPreferences, Patch, SessionToken, SummaryLength,
    TokenHash, UpdateFrequency, UserId, UserPatch, UserPreferencesPatch,
};
use chrono::Utc;
use sqlx::PgPool;

use crate::support::{new_user, token_hash, user};

const MINUTE: Duration = Duration::from_secs(60);

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

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn every_frequency_of_the_specifications_system_is_taken(pool: PgPool) {
    let db = Database::from_pool(pool);
    for (text, frequency) in [
        ("daily", UpdateFrequency::Daily),
        ("every_3_days", UpdateFrequency::EveryThreeDays),
        ("weekly", UpdateFrequency::Weekly),
        ("every_2_weeks", UpdateFrequency::EveryTwoWeeks),
        ("monthly", UpdateFrequency::Monthly),
    ] {
        let ada = user(&db).await;
        sqlx::query("insert into user_preferences (user_id, update_frequency) values ($1, $2)")
            .bind(ada.id)
            .bind(text)
            .execute(db.executor())
            .await
            .expect(text);
        let stored = db.user_preferences().get_by_user(ada.id).await.unwrap().unwrap();
        assert_eq!((stored.update_frequency, stored.update_frequency.as_str()), (frequency, text));
    }
}

/// What happens to a session of an account that is not active, however it became so.
async fn assert_signed_out(db: &Database, id: UserId, token: &str) {
    let hash = TokenHash::of_token(token).unwrap();
    assert_eq!(db.sessions().authenticate(token).await.unwrap(), None);
    assert_eq!(db.sessions().get_by_token(&hash).await.unwrap(), None);
    assert_eq!(db.sessions().extend(&hash, MINUTE).await.unwrap(), None);
    assert!(db.sessions().rotate(token).await.unwrap().is_none());
    assert_eq!(db.sessions().list_by_user(id, 10, 0).await.unwrap(), []);
    for refused in [
        db.sessions().create(id, &token_hash(), Utc::now() + MINUTE).await.map(drop),
        db.sessions().create_for(id, &token_hash(), MINUTE).await.map(drop),
        db.sessions().create_with_token(id, MINUTE, None).await.map(drop),
        db.sessions().create_with_token(id, MINUTE, Some(MINUTE)).await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::NotFound("active user"))), "{refused:?}");
    }
}

async fn activate(db: &Database, id: UserId, is_active: bool) {
    let patch = UserPatch { is_active: Patch::Set(is_active), ..Default::default() };
    db.users().update(id, patch).await.unwrap();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_account_that_is_not_active_has_no_session_and_opens_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    let bob = user(&db).await.id;
    let (his, _) = db.sessions().create_with_token(bob, MINUTE, None).await.unwrap();
    for way in ["update", "deactivate", "another program"] {
        let ada = user(&db).await.id;
        let (token, session) =
            db.sessions().create_with_token(ada, MINUTE, Some(MINUTE)).await.unwrap();
        // A change of something else ends nothing.
        activate(&db, ada, true).await;
        db.users().touch_last_login(ada).await.unwrap();
        assert!(db.sessions().authenticate(token.expose()).await.unwrap().is_some());
        match way {
            "update" => activate(&db, ada, false).await,
            "deactivate" => db.users().deactivate(ada).await.unwrap(),
            _ => {
                sqlx::query("update users set is_active = false where id = $1")
                    .bind(ada)
                    .execute(db.executor())
                    .await
                    .unwrap();
            }
        }
        assert_signed_out(&db, ada, token.expose()).await;
        activate(&db, ada, true).await;
        assert_eq!(db.sessions().get_by_id(session.id).await.unwrap(), None, "{way}");
        assert_eq!(db.sessions().authenticate(token.expose()).await.unwrap(), None, "{way}");
        let (token, _) = db.sessions().create_with_token(ada, MINUTE, None).await.unwrap();
        assert!(db.sessions().authenticate(token.expose()).await.unwrap().is_some(), "{way}");
    }
    assert!(db.sessions().authenticate(his.expose()).await.unwrap().is_some());
    // Nobody's session is refused as before.
    let nobody = db.sessions().create_with_token(UserId::new(), MINUTE, None).await;
    assert!(matches!(nobody, Err(Error::ForeignKey(Constraint::SessionsUserIdFkey))), "{nobody:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_session_that_is_opened_while_its_account_is_deactivated_opens_nothing(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await.id;
    let mut signing_in = db.begin().await.unwrap();
    let (token, session) =
        signing_in.sessions().create_with_token(ada, MINUTE, Some(MINUTE)).await.unwrap();
    db.users().deactivate(ada).await.unwrap();
    signing_in.commit().await.unwrap();
    assert_signed_out(&db, ada, token.expose()).await;
    assert!(db.sessions().get_by_id(session.id).await.unwrap().is_some(), "it is stored");

    // As is one that a program stores that knows nothing of this.
    let theirs = SessionToken::generate().unwrap();
    sqlx::query(
        "insert into sessions (user_id, token_hash, expires_at)
         values ($1, $2, now() + interval '1 hour')",
    )
    .bind(ada)
    .bind(theirs.hash().expose())
    .execute(db.executor())
    .await
    .unwrap();
    assert_signed_out(&db, ada, theirs.expose()).await;

    activate(&db, ada, true).await;
    for token in [&token, &theirs] {
        assert_eq!(db.sessions().authenticate(token.expose()).await.unwrap(), None);
    }
    assert_eq!(db.sessions().get_by_id(session.id).await.unwrap(), None);
}

/// Under row-level security the sessions are the user's own to end.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_user_who_deactivates_the_own_account_is_signed_out(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await.id;
    let (token, _) = db.sessions().create_with_token(ada, MINUTE, None).await.unwrap();
    let patch = UserPatch { is_active: Patch::Set(false), ..Default::default() };
    db.as_user(ada).users().update(ada, patch).await.unwrap();
    assert_signed_out(&db, ada, token.expose()).await;
    let refused = db.as_user(ada).sessions().create_for(ada, &token_hash(), MINUTE).await;
    assert!(matches!(refused, Err(Error::NotFound("active user"))), "{refused:?}");
}
