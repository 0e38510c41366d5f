//! The trigger that gives a conversation the time of its newest message: once a statement, never
//! backwards, and without deadlocks.

use chancery::{
    Conversation, ConversationId, Database, Error, IsolationLevel, NewMessage, TransactionOptions,
    UserId,
};
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::support::{
    backend, conversation, conversation_of, messages, unique, until_blocked, user,
};

/// Some minutes after a time that is long past.
fn minute(minutes: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_600_000_000 + 60 * minutes, 0).unwrap()
}

/// A conversation that nobody has spoken in since `time`, in the order of their identifiers.
async fn quiet_since(db: &Database, user_id: UserId, time: DateTime<Utc>) -> ConversationId {
    let id = ConversationId::new();
    sqlx::query(
        "insert into conversations (id, user_id, created_at, updated_at) values ($1, $2, $3, $3)",
    )
    .bind(id)
    .bind(user_id)
    .bind(time)
    .execute(db.executor())
    .await
    .unwrap();
    id
}

/// Writes messages of given times by one statement.
async fn write_at(db: &Database, messages: &[(ConversationId, DateTime<Utc>)]) {
    let (conversations, times): (Vec<_>, Vec<_>) = messages.iter().copied().unzip();
    let conversations: Vec<_> = conversations.iter().map(ConversationId::as_uuid).collect();
    let done = sqlx::query(
        "insert into messages (conversation_id, role, content, created_at)
         select n.conversation_id, 'user', 'hello', n.created_at
           from unnest($1::uuid[], $2::timestamptz[]) as n (conversation_id, created_at)",
    )
    .bind(conversations)
    .bind(times)
    .execute(db.executor())
    .await
    .unwrap();
    assert_eq!(done.rows_affected(), messages.len() as u64);
}

async fn read(db: &Database, id: ConversationId) -> Conversation {
    db.conversations().get_by_id(id).await.unwrap().unwrap()
}

async fn updated_at(db: &Database, id: ConversationId) -> DateTime<Utc> {
    read(db, id).await.updated_at
}

/// Has the database note each change of a conversation from here on.
async fn note_touches(db: &Database) {
    sqlx::raw_sql(
        "create table touches (conversation_id uuid not null);
         create function note_touch() returns trigger language plpgsql as $$
         begin insert into touches values (new.id); return null; end $$;
         create trigger note_touch after update on conversations
             for each row execute function note_touch();",
    )
    .execute(db.executor())
    .await
    .unwrap();
}

/// The conversations that were changed since the last call, each as often as it was.
async fn touches(db: &Database) -> Vec<ConversationId> {
    let mut touches: Vec<ConversationId> =
        sqlx::query_scalar("delete from touches returning conversation_id")
            .fetch_all(db.executor())
            .await
            .unwrap();
    touches.sort();
    touches
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_message_gives_its_conversation_its_time(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (before, other) = (conversation(&db).await, conversation(&db).await);
    for text in ["first", "second"] {
        let message = db.messages().create(NewMessage::user(before.id, text)).await.unwrap();
        let after = read(&db, before.id).await;
        assert!(message.created_at > before.updated_at);
        assert_eq!(after.updated_at, message.created_at);
        assert_eq!((after.created_at, after.title), (before.created_at, before.title.clone()));
    }
    assert_eq!(read(&db, other.id).await, other);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn each_conversation_gets_the_time_of_its_own_newest_message(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(quiet_since(&db, ada.id, minute(0)).await);
    }
    note_touches(&db).await;
    write_at(
        &db,
        &[
            (ids[1], minute(7)),
            (ids[0], minute(3)),
            (ids[1], minute(9)),
            (ids[2], minute(1)),
            (ids[0], minute(2)),
            (ids[1], minute(8)),
            (ids[0], minute(-5)),
        ],
    )
    .await;
    assert_eq!(updated_at(&db, ids[0]).await, minute(3));
    assert_eq!(updated_at(&db, ids[1]).await, minute(9));
    assert_eq!(updated_at(&db, ids[2]).await, minute(1));
    assert_eq!(updated_at(&db, ids[3]).await, minute(0));
    assert_eq!(touches(&db).await, ids[..3]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn however_many_messages_one_statement_writes_a_conversation_is_touched_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let (mut ids, mut new) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let conversation = conversation_of(&db, ada.id).await;
        ids.push(conversation.id);
        new.extend(messages(&conversation, 20));
    }
    let silent = conversation_of(&db, ada.id).await;
    note_touches(&db).await;
    let written = db.messages().create_many(new).await.unwrap();
    assert_eq!(touches(&db).await, ids);
    for id in ids {
        assert_eq!(updated_at(&db, id).await, written[0].created_at);
    }
    assert_eq!(read(&db, silent.id).await, silent);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_older_message_does_not_move_the_time_back(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let id = quiet_since(&db, ada.id, minute(0)).await;
    let other = quiet_since(&db, ada.id, minute(0)).await;
    write_at(&db, &[(id, minute(10))]).await;
    note_touches(&db).await;
    write_at(&db, &[(id, minute(9))]).await;
    write_at(&db, &[(id, minute(10))]).await;
    write_at(&db, &[(id, minute(-60)), (other, minute(5)), (id, minute(1))]).await;
    assert_eq!(updated_at(&db, id).await, minute(10));
    assert_eq!(updated_at(&db, other).await, minute(5));
    // Where nothing is to change, nothing is written.
    assert_eq!(touches(&db).await, [other]);
    let message = db.messages().create(NewMessage::user(id, "now")).await.unwrap();
    assert_eq!(updated_at(&db, id).await, message.created_at);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_message_from_the_future_is_not_overtaken_by_the_present(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let future = "2222-02-22T00:00:00Z".parse().unwrap();
    write_at(&db, &[(conversation.id, future)]).await;
    db.messages().create(NewMessage::user(conversation.id, "now")).await.unwrap();
    assert_eq!(updated_at(&db, conversation.id).await, future);
    let renamed = db.conversations().update_title(conversation.id, Some("now")).await.unwrap();
    assert_eq!(renamed.updated_at, future);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_statement_that_writes_no_message_touches_nothing(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let written = db.messages().create_many(messages(&conversation, 2)).await.unwrap();
    let before = read(&db, conversation.id).await;
    note_touches(&db).await;
    write_at(&db, &[]).await;
    sqlx::query(
        "insert into messages (id, conversation_id, role, content)
         values ($1, $2, 'user', 'again') on conflict do nothing",
    )
    .bind(written[0].id)
    .bind(conversation.id)
    .execute(db.executor())
    .await
    .unwrap();
    assert_eq!(touches(&db).await, []);
    assert_eq!(read(&db, conversation.id).await, before);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_changed_or_deleted_message_leaves_the_time(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let written = db.messages().create_many(messages(&conversation, 2)).await.unwrap();
    let before = read(&db, conversation.id).await;
    db.messages().update(written[0].id, "changed", &serde_json::json!({})).await.unwrap();
    assert!(db.messages().delete(written[1].id).await.unwrap());
    assert_eq!(read(&db, conversation.id).await, before);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_message_that_was_rolled_back_leaves_the_time(pool: PgPool) {
    let db = Database::from_pool(pool);
    let before = conversation(&db).await;
    let mut uow = db.begin().await.unwrap();
    let message = uow.messages().create(NewMessage::user(before.id, "hello")).await.unwrap();
    let inside = uow.conversations().get_by_id(before.id).await.unwrap().unwrap();
    assert_eq!(inside.updated_at, message.created_at);
    uow.rollback().await.unwrap();
    assert_eq!(read(&db, before.id).await, before);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_copy_touches_each_conversation_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let one = quiet_since(&db, ada.id, minute(0)).await;
    let two = quiet_since(&db, ada.id, minute(0)).await;
    note_touches(&db).await;
    let mut rows = String::new();
    for (id, minutes) in [(one, 1), (two, 4), (one, 3), (two, 2)] {
        rows += &format!("{id}\tuser\thello\t{}\n", minute(minutes).to_rfc3339());
    }
    let mut uow = db.begin().await.unwrap();
    let connection = uow.connection().await.unwrap();
    let mut copy = connection
        .copy_in_raw("copy messages (conversation_id, role, content, created_at) from stdin")
        .await
        .unwrap();
    copy.send(rows.as_bytes()).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 4);
    uow.commit().await.unwrap();
    assert_eq!((updated_at(&db, one).await, updated_at(&db, two).await), (minute(3), minute(4)));
    assert_eq!(touches(&db).await, [one, two]);
    let copied = db.messages().get_last_n(one, 10).await.unwrap();
    assert!(copied.len() == 2 && copied.iter().all(|message| message.user_id == ada.id));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn another_title_is_activity_too(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (before, other) = (conversation(&db).await, conversation(&db).await);
    let message = db.messages().create(NewMessage::user(before.id, "hello")).await.unwrap();
    let mut last = message.created_at;
    for title in [Some("title"), Some("title"), None] {
        let renamed = db.conversations().update_title(before.id, title).await.unwrap();
        assert!(renamed.updated_at > last);
        assert_eq!(renamed.created_at, before.created_at);
        last = renamed.updated_at;
    }
    assert_eq!(read(&db, other.id).await, other);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_happens_in_one_transaction_happens_at_one_time(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let mut uow = db.begin().await.unwrap();
    let created = uow.conversations().create(ada.id, None).await.unwrap();
    let renamed = uow.conversations().update_title(created.id, Some("title")).await.unwrap();
    let message = uow.messages().create(NewMessage::user(created.id, "hello")).await.unwrap();
    uow.commit().await.unwrap();
    assert_eq!(renamed.updated_at, created.created_at);
    assert_eq!(message.created_at, created.created_at);
    assert_eq!(read(&db, created.id).await, renamed);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_transaction_that_began_first_and_ends_last_does_not_turn_time_back(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (one, two) = (conversation(&db).await, conversation(&db).await);
    let mut first = db.begin().await.unwrap();
    let newer = db.messages().create_many([messages(&one, 1), messages(&two, 1)].concat());
    let newer = newer.await.unwrap();
    let older = first.messages().create(NewMessage::user(one.id, "older")).await.unwrap();
    let renamed = first.conversations().update_title(two.id, Some("older")).await.unwrap();
    first.commit().await.unwrap();
    assert!(older.created_at < newer[0].created_at);
    assert_eq!(updated_at(&db, one.id).await, newer[0].created_at);
    assert_eq!(renamed.updated_at, newer[1].created_at);
    assert_eq!(read(&db, two.id).await, renamed);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn of_two_writers_at_once_the_later_one_gives_the_time_whoever_waits(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let id = conversation.id;
    for the_earlier_waits in [true, false] {
        let earlier = db.begin().await.unwrap();
        let later = db.begin().await.unwrap();
        let (mut holder, mut waiter) =
            if the_earlier_waits { (later, earlier) } else { (earlier, later) };
        let held = holder.messages().create(NewMessage::user(id, "held")).await.unwrap();
        let waiting = backend(&mut waiter).await;
        let waiter = tokio::spawn(async move {
            let waited = waiter.messages().create(NewMessage::user(id, "waited")).await.unwrap();
            waiter.commit().await.unwrap();
            waited
        });
        until_blocked(&db, waiting).await;
        assert!(updated_at(&db, id).await < held.created_at);
        holder.commit().await.unwrap();
        let waited = waiter.await.unwrap();
        assert_eq!(waited.created_at < held.created_at, the_earlier_waits);
        assert_eq!(updated_at(&db, id).await, waited.created_at.max(held.created_at));
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_writer_of_a_fixed_snapshot_that_lost_runs_again(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let options = TransactionOptions::default().isolation(IsolationLevel::RepeatableRead);
    let mut late = db.begin_with(options).await.unwrap();
    late.conversations().get_by_id(conversation.id).await.unwrap();
    db.messages().create(NewMessage::user(conversation.id, "meanwhile")).await.unwrap();
    let refused = late.messages().create(NewMessage::user(conversation.id, "late")).await;
    assert!(matches!(refused, Err(Error::SerializationFailure)), "{refused:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn many_writers_leave_the_time_of_the_newest_message(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let writers: Vec<_> = (0..5)
        .map(|_| {
            let (db, id) = (db.clone(), conversation.id);
            tokio::spawn(async move {
                for _ in 0..20 {
                    let text = format!("message {}", unique());
                    db.messages().create(NewMessage::user(id, text)).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let written = db.messages().list_by_conversation(conversation.id, 1000, 0).await.unwrap();
    assert_eq!(written.len(), 100);
    assert_eq!(updated_at(&db, conversation.id).await, written[99].created_at);
}

/// Conversations whose order on disk is not that of their identifiers, in the latter.
async fn scattered(db: &Database, count: i32) -> Vec<ConversationId> {
    let ada = user(db).await;
    let mut ids: Vec<ConversationId> = sqlx::query_scalar(
        "insert into conversations (user_id) select $1 from generate_series(1, $2) returning id",
    )
    .bind(ada.id)
    .bind(count)
    .fetch_all(db.executor())
    .await
    .unwrap();
    sqlx::query("analyze conversations").execute(db.executor()).await.unwrap();
    ids.sort();
    ids
}

fn one_each<'a>(ids: impl IntoIterator<Item = &'a ConversationId>) -> Vec<NewMessage> {
    ids.into_iter().map(|id| NewMessage::user(*id, "hello")).collect()
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn conversations_are_locked_in_the_order_of_their_identifiers(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ids = scattered(&db, 19).await;
    let mixed: Vec<_> = (0..19).map(|i| ids[(i * 4 + 1) % 19]).collect();
    for new in [one_each(&ids), one_each(ids.iter().rev()), one_each(&mixed)] {
        let mut holder = db.begin().await.unwrap();
        holder.lock_conversation(ids[9]).await.unwrap();
        let mut bulk = db.begin().await.unwrap();
        let waiting = backend(&mut bulk).await;
        let bulk = tokio::spawn(async move {
            bulk.messages().create_many(new).await.unwrap();
            bulk.commit().await.unwrap();
        });
        until_blocked(&db, waiting).await;
        // Those before the one that it waits for are taken, those after it are not.
        let mut free: Vec<ConversationId> =
            sqlx::query_scalar("select id from conversations for no key update skip locked")
                .fetch_all(db.executor())
                .await
                .unwrap();
        free.sort();
        assert_eq!(free, ids[10..]);
        holder.commit().await.unwrap();
        bulk.await.unwrap();
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn bulk_inserts_in_opposite_orders_do_not_deadlock(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ids = scattered(&db, 2000).await;
    // A connection plans the trigger's statements once, for the messages that it meets first. Those
    // of one connection began with a single message, those of the other with many: left to their
    // plans, they would take the rows in different orders.
    let connection = async || {
        let options = (*db.pool().connect_options()).clone();
        let one = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        Database::from_pool(one)
    };
    let (begun_with_one, begun_with_many) = (connection().await, connection().await);
    begun_with_one.messages().create_many(one_each(&ids[..1])).await.unwrap();
    begun_with_many.messages().create_many(one_each(&ids)).await.unwrap();

    let some = &ids[..300];
    for _ in 0..30 {
        // Outside of a retrying transaction: a deadlock would be seen.
        let (one, many) = tokio::join!(
            begun_with_one.messages().create_many(one_each(some)),
            begun_with_many.messages().create_many(one_each(some.iter().rev())),
        );
        for written in [one, many] {
            assert_eq!(written.unwrap().len(), 300);
        }
    }
    begun_with_one.close().await;
    begun_with_many.close().await;
}
