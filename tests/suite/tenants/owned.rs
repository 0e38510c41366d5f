//! The owner form: statements that name the owner of what they are about.

use chancery::{Constraint, Denied, Error, MessageDraft, NewChunk, NewMessage, PageRequest};
use sqlx::PgPool;

use super::methods::{Case, Everything, cases, nothing};
use super::{Tenants, World, execute};
use crate::support::{chunks, conversation_of, messages, new_transcript, new_user};

/// By the service's own role, which sees everything: the statement alone holds it back.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_is_somebody_elses_is_not_there_by_the_statement_alone(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let world = World::new(db).await;
    let owner = world.user.id;
    let stranger = db.users().create(new_user()).await.unwrap().id;
    let everything = Everything::of(&pool).await;
    let before = everything.now(&pool).await;
    let mut tried = 0;
    for Case { name, call, owned, .. } in cases() {
        let Some(owned) = owned else { continue };
        nothing(name, owned(db.executor(), stranger, &world).await);
        let mut uow = db.begin().await.unwrap();
        nothing(name, owned(uow.executor(), stranger, &world).await);
        let _ = uow.commit().await;
        assert_eq!(everything.now(&pool).await, before, "{name} changed something");

        // The owner finds and does what the plain form does.
        let mut uow = db.begin().await.unwrap();
        let plain = call(uow.executor(), &world).await.unwrap();
        uow.rollback().await.unwrap();
        let mut uow = db.begin().await.unwrap();
        let found = owned(uow.executor(), owner, &world).await.unwrap();
        uow.rollback().await.unwrap();
        assert!(found > 0 && found == plain, "{name}: {found}, and {plain} by the plain form");
        tried += 1;
    }
    assert!(tried > 40, "only {tried} methods");
    assert_eq!(everything.now(&pool).await, before);
    tenants.end().await;
}

/// What a user's own form sends names the user as well: it holds where the database does not watch.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn as_a_user_the_statements_name_the_user_too(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let world = World::new(db).await;
    let stranger = db.users().create(new_user()).await.unwrap().id;
    for table in ["conversations", "messages", "transcripts", "chunks"] {
        execute(&pool, &format!("alter table {table} disable row level security")).await;
    }
    let everything = Everything::of(&pool).await;
    let before = everything.now(&pool).await;
    for Case { name, call, owned, .. } in cases() {
        if owned.is_none() {
            continue;
        }
        nothing(name, call(db.as_user(stranger).executor(), &world).await);
        let mut uow = db.as_user(stranger).begin().await.unwrap();
        nothing(name, call(uow.executor(), &world).await);
        assert!(uow.lock_conversation(world.conversation.id).await.ok().flatten().is_none());
        let mut nested = uow.begin().await;
        if let Ok(savepoint) = &mut nested {
            nothing(name, call(savepoint.executor(), &world).await);
        }
        drop(nested);
        let _ = uow.commit().await;
        assert_eq!(everything.now(&pool).await, before, "{name} changed something");
    }
    tenants.end().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn writing_into_somebody_elses_is_refused_as_if_it_did_not_exist(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let world = World::new(db).await;
    let stranger = db.users().create(new_user()).await.unwrap().id;
    let message = NewMessage::user(world.conversation.id, "Why?");
    let refused = db.messages().owned_by(stranger).create(message).await;
    assert!(
        matches!(refused, Err(Error::ForeignKey(Constraint::MessagesConversationIdFkey))),
        "{refused:?}"
    );
    // One of several is enough to refuse them all.
    let own = conversation_of(db, stranger).await;
    let mut turn = messages(&own, 2);
    turn.extend(messages(&world.conversation, 1));
    let refused = db.messages().owned_by(stranger).create_many(turn).await;
    assert!(
        matches!(refused, Err(Error::ForeignKey(Constraint::MessagesConversationIdFkey))),
        "{refused:?}"
    );
    assert!(db.messages().get_last_n(own.id, 9).await.unwrap().is_empty());
    let more = chunks(world.transcript.id, 3).split_off(1);
    let refused = db.chunks().owned_by(stranger).insert_many(more).await;
    assert!(
        matches!(refused, Err(Error::ForeignKey(Constraint::ChunksTranscriptIdFkey))),
        "{refused:?}"
    );
    let refused = db.chunks().owned_by(stranger).replace_all(world.transcript.id, vec![]).await;
    assert!(
        matches!(refused, Err(Error::ForeignKey(Constraint::ChunksTranscriptIdFkey))),
        "{refused:?}"
    );
    tenants.end().await;
}

/// More than one statement takes: they are sent in a unit of work that is begun for them.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn several_batches_are_all_the_owners(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let world = World::new(db).await;
    let stranger = db.users().create(new_user()).await.unwrap().id;
    let own = db.transcripts().create(new_transcript(stranger)).await.unwrap();
    let large = |transcript_id, count| -> Vec<NewChunk> {
        let text = "We choose to go to the Moon. ".repeat(50_000);
        (1..=count).map(|index| NewChunk::new(transcript_id, index, text.as_str(), 9)).collect()
    };
    // The last one alone is somebody else's.
    let mut mixed = large(own.id, 7);
    mixed.extend(large(world.transcript.id, 1));
    let refused = db.chunks().owned_by(stranger).create_many(mixed.clone()).await;
    assert!(matches!(refused, Err(Error::ForeignKey(_))), "{:?}", refused.map(|c| c.len()));
    let refused = db.as_user(stranger).chunks().create_many(mixed).await;
    assert!(matches!(refused, Err(Error::ForeignKey(_))), "{:?}", refused.map(|c| c.len()));
    assert_eq!(db.chunks().count_by_user(stranger).await.unwrap(), 0);
    let stored = db.chunks().owned_by(stranger).create_many(large(own.id, 7)).await.unwrap();
    assert!(stored.len() == 7 && stored.iter().all(|chunk| chunk.user_id == stranger));
    tenants.end().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_call_that_names_another_user_is_refused_before_the_server(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let world = World::new(db).await;
    let owner = world.user.id;
    let stranger = db.users().create(new_user()).await.unwrap().id;
    // Whoever asks the server now is told that the pool is closed.
    db.close().await;
    let closed = db.conversations().owned_by(owner).create(owner, None).await;
    assert!(matches!(closed, Err(Error::PoolClosed)), "{closed:?}");
    macro_rules! refused {
        ($($repository:ident().$method:ident($($argument:expr),* $(,)?);)+) => {$(
            for outcome in [
                db.$repository().owned_by(stranger).$method($($argument),*).await.map(drop),
                db.as_user(stranger).$repository().$method($($argument),*).await.map(drop),
            ] {
                assert!(
                    matches!(outcome, Err(Error::PermissionDenied(Denied::OtherUser))),
                    "{}: {outcome:?}", stringify!($method)
                );
            }
        )+};
    }
    let (page, some) = (PageRequest::first(5), serde_json::json!({}));
    refused! {
        conversations().create(owner, None);
        conversations().create_with_messages(owner, None, vec![MessageDraft::user("Why?")]);
        conversations().create_with_messages(owner, None, vec![]);
        conversations().list_by_user(owner, 5, 0);
        conversations().page_by_user(owner, page);
        conversations().page_with_last_message(owner, page);
        conversations().page_with_message_count(owner, page);
        messages().list_by_metadata(owner, &some, 5);
        transcripts().create(new_transcript(owner));
        transcripts().create_with_chunks(new_transcript(owner), vec![]);
        transcripts().get_by_video_id(owner, "v");
        transcripts().list_by_user(owner, 5, 0);
        transcripts().page_by_user(owner, page);
        transcripts().list_by_metadata(owner, &some, 5);
        chunks().list_by_metadata(owner, &some, 5);
        chunks().count_by_user(owner);
    }
    tenants.end().await;
}

/// The parts of a repository's type stay what they are.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn it_goes_with_read_only_and_json_as(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let world = World::new(db).await;
    let (owner, id) = (world.user.id, world.message.id);
    let stranger = db.users().create(new_user()).await.unwrap().id;
    for (user, there) in [(owner, true), (stranger, false)] {
        let reading = db.messages().read_only().owned_by(user).json_as::<serde_json::Value>();
        assert_eq!(reading.get_by_id(id).await.unwrap().is_some(), there);
        let reading = db.messages().owned_by(user).json_as::<serde_json::Value>().read_only();
        assert_eq!(reading.get_by_id(id).await.unwrap().is_some(), there);
    }
    // Two that disagree find nothing.
    let both = db.as_user(owner).messages().owned_by(stranger).get_by_id(id).await.unwrap();
    assert!(both.is_none());
    tenants.end().await;
}
