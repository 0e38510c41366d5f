//! Accounts, preferences, sessions, conversations and messages.

use chancery::{
    Database, Error, MessageDraft, NewMessage, NewProject, NewUser, NewUserPreferences,
    PasswordHash, Patch, Role, SummaryLength, TokenHash, UpdateFrequency, UserPatch,
    UserPreferencesPatch,
};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use sqlx::PgPool;

use super::values::{
    assert_later_by, assert_same_time, date, duration, email, json, long_text, text, time,
};
use super::{always, assert_same_json, law, taken};
use crate::support::{conversation, token_hash, user};

/// Mostly names that are one.
fn timezone() -> impl Strategy<Value = String> {
    let known = select(vec!["UTC", "Europe/Paris", "America/Port-au-Prince", "Etc/GMT-14"]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => text(50)]
}

fn patch<T>(set: Option<T>) -> Patch<T> {
    set.map_or(Patch::Keep, Patch::Set)
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_account_is_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let values = (
        email(),
        of(text(100)),
        of(text(255)),
        of(text(100)),
        of(date()),
        timezone(),
        of(text(255)),
    );
    law(&db, values, async |uow, (email, name, picture, profession, born, timezone, hash)| {
        let Ok(password_hash) = hash.map(PasswordHash::legacy).transpose() else { return false };
        let new = NewUser {
            email,
            password_hash,
            name,
            profile_picture: picture,
            profession,
            date_of_birth: born,
            timezone,
        };
        let created = uow.users().create(new.clone()).await;
        let Some(created) = taken(uow, created).await else { return false };
        let read = uow.users().get_by_id(created.id).await.unwrap().unwrap();
        assert_eq!(read, created);
        assert_eq!(uow.users().get_by_email(&new.email).await.unwrap().unwrap(), read);
        assert_eq!(
            (read.email, read.password_hash, read.name, read.profile_picture),
            (new.email, new.password_hash, new.name, new.profile_picture)
        );
        assert_eq!(
            (read.profession, read.date_of_birth, read.timezone),
            (new.profession, new.date_of_birth, new.timezone)
        );
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_change_of_an_account_is_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let id = user(&db).await.id;
    let values = (
        of(email()),
        of(of(text(100))),
        of(of(text(255))),
        of(of(text(100))),
        of(of(date())),
        of(timezone()),
    );
    law(&db, values, async |uow, (email, name, picture, profession, born, timezone)| {
        let before = uow.users().get_by_id(id).await.unwrap().unwrap();
        let change = UserPatch {
            email: patch(email.clone()),
            name: patch(name.clone()),
            profile_picture: patch(picture.clone()),
            profession: patch(profession.clone()),
            date_of_birth: patch(born),
            timezone: patch(timezone.clone()),
            ..UserPatch::default()
        };
        let changed = uow.users().update(id, change).await;
        let changed = taken(uow, changed).await;
        let read = uow.users().get_by_id(id).await.unwrap().unwrap();
        let Some(changed) = changed else {
            assert_eq!(read, before);
            return false;
        };
        assert_eq!(read, changed);
        assert_eq!(read.email, email.unwrap_or(before.email));
        assert_eq!(read.name, name.unwrap_or(before.name));
        assert_eq!(read.profile_picture, picture.unwrap_or(before.profile_picture));
        assert_eq!(read.profession, profession.unwrap_or(before.profession));
        assert_eq!(read.date_of_birth, born.unwrap_or(before.date_of_birth));
        assert_eq!(read.timezone, timezone.unwrap_or(before.timezone));
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn no_text_is_too_strange_to_look_for_an_account(pool: PgPool) {
    let db = Database::from_pool(pool);
    user(&db).await;
    always(&db, prop_oneof![text(255), email(), long_text()], async |uow, text| {
        assert_eq!(uow.users().get_by_email(&text).await.unwrap(), None);
        let none = uow.config().get(&text).await.unwrap().is_none();
        assert!(none && uow.config().get_value(&text).await.unwrap().is_none());
        assert!(!uow.config().delete(&text).await.unwrap());
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn preferences_are_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let id = user(&db).await.id;
    let frequency = || select(UpdateFrequency::ALL.to_vec());
    let length = || select(SummaryLength::ALL.to_vec());
    let values =
        (frequency(), length(), any::<bool>(), of(frequency()), of(length()), of(any::<bool>()));
    always(&db, values, async |uow, (frequency, length, mails, f, l, m)| {
        let new = NewUserPreferences {
            update_frequency: frequency,
            summary_length: length,
            email_notifications_enabled: mails,
        };
        let created = uow.user_preferences().create(id, new).await.unwrap();
        assert_eq!(uow.user_preferences().get_by_user(id).await.unwrap().unwrap(), created);
        let change = UserPreferencesPatch {
            update_frequency: patch(f),
            summary_length: patch(l),
            email_notifications_enabled: patch(m),
        };
        let changed = uow.user_preferences().update(id, change).await.unwrap();
        assert_eq!(
            (changed.update_frequency, changed.summary_length, changed.email_notifications_enabled),
            (f.unwrap_or(frequency), l.unwrap_or(length), m.unwrap_or(mails))
        );
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_session_is_refused_or_ends_when_it_was_said_to(pool: PgPool) {
    let db = Database::from_pool(pool);
    let id = user(&db).await.id;
    law(&db, (text(255), time()), async |uow, (hash, end)| {
        let Ok(hash) = TokenHash::new(hash) else { return false };
        let created = uow.sessions().create(id, &hash, end).await;
        let Some(created) = taken(uow, created).await else { return false };
        let read = uow.sessions().get_by_id(created.id).await.unwrap().unwrap();
        assert_eq!(read, created);
        assert_eq!(read.token_hash, hash);
        assert_same_time(end, read.expires_at);
        uow.sessions().get_by_token(&hash).await.unwrap();
        uow.sessions().delete_expired().await.unwrap();
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_lifetime_is_refused_or_kept_to_the_microsecond(pool: PgPool) {
    let db = Database::from_pool(pool);
    let id = user(&db).await.id;
    law(&db, (duration(), duration()), async |uow, (lifetime, more)| {
        let hash = token_hash();
        let created = uow.sessions().create_for(id, &hash, lifetime).await;
        let Some(created) = taken(uow, created).await else { return false };
        assert_later_by(created.created_at, lifetime, created.expires_at);
        match uow.sessions().extend(&hash, more).await {
            Ok(Some(extended)) => {
                assert_later_by(created.created_at, lifetime.max(more), extended.expires_at);
            }
            Ok(None) => assert!(lifetime.as_micros() == 0, "{lifetime:?}"),
            Err(refused) => assert!(matches!(refused, Error::InvalidInput(_))),
        }
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_title_is_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let id = user(&db).await.id;
    law(&db, (of(text(500)), of(text(500))), async |uow, (title, other)| {
        let created = uow.conversations().create(id, title.as_deref()).await;
        let Some(created) = taken(uow, created).await else { return false };
        assert_eq!(created.title, title);
        assert_eq!(uow.conversations().get_by_id(created.id).await.unwrap(), Some(created.clone()));
        match uow.conversations().update_title(created.id, other.as_deref()).await {
            Ok(changed) => assert_eq!(changed.title, other),
            Err(refused) => assert!(matches!(refused, Error::InvalidInput(_))),
        }
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_message_is_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let values = (select(Role::ALL.to_vec()), long_text(), json(), any::<bool>());
    law(&db, values, async |uow, (role, content, metadata, many)| {
        let new = NewMessage::new(conversation.id, role, &*content).metadata(metadata.clone());
        // The array of a statement for many goes another way to the server.
        let created = if many {
            let new = vec![new.clone(), NewMessage::user(conversation.id, "between"), new];
            uow.messages().create_many(new).await
        } else {
            uow.messages().create(new).await.map(|message| vec![message])
        };
        let Some(created) = taken(uow, created).await else { return false };
        assert_eq!(created.len(), if many { 3 } else { 1 });
        for created in [&created[0], &created[created.len() - 1]] {
            let read = uow.messages().get_by_id(created.id).await.unwrap().unwrap();
            assert_eq!((&read.content, read.role), (&content, role));
            assert_same_json(&metadata, &read.metadata);
            assert_eq!(read.metadata, created.metadata);
        }
        let user_id = conversation.user_id;
        let found = uow.messages().list_by_metadata(user_id, &metadata, 1000).await.unwrap();
        assert!(found.len() >= created.len() - usize::from(many), "not found by its metadata");
        let update = uow.messages().update(created[0].id, &content, &created[0].metadata);
        assert_same_json(&metadata, &update.await.unwrap().metadata);
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_unit_of_work_goes_on_after_whatever_was_refused_in_a_nested_one(pool: PgPool) {
    let db = Database::from_pool(pool);
    let known = user(&db).await;
    let values = (any::<[u8; 16]>(), text(50), 0..4);
    always(&db, values, async |uow, (id, text, kind)| {
        let id = uuid::Uuid::from_bytes(id);
        let refused = uow
            .transaction(async |uow| match kind {
                0 => uow.conversations().create(id.into(), Some(&text)).await.map(drop),
                1 => uow.messages().create(NewMessage::user(id.into(), &*text)).await.map(drop),
                2 => uow.users().create(NewUser::new(known.email.to_uppercase())).await.map(drop),
                _ => uow.projects().create(NewProject::new(text.repeat(256))).await.map(drop),
            })
            .await;
        let expected = match (kind, &refused) {
            (0 | 1, Err(Error::InvalidInput(_))) => text.contains('\0') || text.len() > 50,
            (3, Err(Error::InvalidInput(_))) => true,
            (0 | 1, Err(Error::ForeignKey(_))) => true,
            (2, Err(Error::Conflict(_))) => true,
            _ => false,
        };
        assert!(expected, "{kind} {text:?}: {refused:?}");
        assert_eq!(uow.users().get_by_id(known.id).await.unwrap().as_ref(), Some(&known));
        uow.conversations().create(known.id, Some("goes on")).await.unwrap();
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_conversation_with_messages_is_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let user_id = user(&db).await.id;
    let message = (select(Role::ALL.to_vec()), long_text(), json());
    let values = (of(text(500)), proptest::collection::vec(message, 0..4));
    law(&db, values, async |uow, (title, given)| {
        let drafts = given.iter().map(|(role, content, metadata)| {
            MessageDraft::new(*role, &**content).metadata(metadata.clone())
        });
        let drafts = drafts.collect();
        let begun =
            uow.conversations().create_with_messages(user_id, title.as_deref(), drafts).await;
        let Some(begun) = taken(uow, begun).await else { return false };
        let id = begun.conversation.id;
        let read = uow.conversations().get_by_id(id).await.unwrap().unwrap();
        assert_eq!(read, begun.conversation);
        assert_eq!(read.title, title);
        let read = uow.messages().list_by_conversation(id, 10, 0).await.unwrap();
        assert_eq!(read, begun.messages);
        assert_eq!(read.len(), given.len());
        for (read, (role, content, metadata)) in read.iter().zip(&given) {
            assert_eq!((read.role, &read.content), (*role, content));
            assert_same_json(metadata, &read.metadata);
        }
        true
    })
    .await;
}
