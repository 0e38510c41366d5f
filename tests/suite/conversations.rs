//! Conversations: lists, pages, titles, owners and locks.

use std::collections::HashSet;

use chancery::{
    Constraint, Conversation, ConversationId, Database, Error, IsolationLevel, MAX_PAGE_SIZE,
    NewMessage, PageRequest, Reason, Role, TransactionOptions, UserId,
};
use sqlx::PgPool;

use crate::support::{
    BAD_LIMITS, all_pages, backend, conversation, conversation_of, invalid, messages,
    until_blocked, user,
};

/// So many conversations of a user in two transactions: those of each share their times.
async fn conversations(db: &Database, user_id: UserId, count: usize) -> Vec<Conversation> {
    let mut all = Vec::new();
    for half in [count / 2, count - count / 2] {
        let mut uow = db.begin().await.unwrap();
        for _ in 0..half {
            all.push(uow.conversations().create(user_id, None).await.unwrap());
        }
        uow.commit().await.unwrap();
    }
    all
}

/// More conversations than any list returns, all of one time.
async fn a_thousand_and_one(db: &Database) -> UserId {
    let ada = user(db).await;
    sqlx::query("insert into conversations (user_id) select $1 from generate_series(1, 1001)")
        .bind(ada.id)
        .execute(db.executor())
        .await
        .unwrap();
    ada.id
}

fn ids(conversations: &[Conversation]) -> Vec<ConversationId> {
    conversations.iter().map(|conversation| conversation.id).collect()
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_new_conversation_can_be_read_back(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let longest = "🚀".repeat(500);
    for title in [None, Some(""), Some("Rice speech"), Some("Ünïcode 漢字 \n'\"\\"), Some(&longest)]
    {
        let created = db.conversations().create(ada.id, title).await.unwrap();
        assert_eq!((created.user_id, created.title.as_deref()), (ada.id, title));
        assert_eq!(created.created_at, created.updated_at);
        assert_eq!(db.conversations().get_by_id(created.id).await.unwrap(), Some(created));
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_conversation_that_is_not_there_is_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (id, nobody) = (ConversationId::new(), UserId::new());
    let first = PageRequest::first(10);
    assert_eq!(db.conversations().get_by_id(id).await.unwrap(), None);
    assert_eq!(db.conversations().list_by_user(nobody, 10, 0).await.unwrap(), []);
    assert_eq!(db.conversations().list_recent(10, 0).await.unwrap(), []);
    let page = db.conversations().page_by_user(nobody, first).await.unwrap();
    assert_eq!((page.items, page.next), (vec![], None));
    let page = db.conversations().page_with_last_message(nobody, first).await.unwrap();
    assert_eq!((page.items, page.next), (vec![], None));
    assert!(!db.conversations().delete(id).await.unwrap());
    let missing = db.conversations().update_title(id, Some("title")).await;
    assert!(matches!(missing, Err(Error::NotFound("conversation"))), "{missing:?}");
    let mut uow = db.begin().await.unwrap();
    assert_eq!(uow.lock_conversation(id).await.unwrap(), None);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_conversation_of_nobody_is_refused_by_the_key(pool: PgPool) {
    let db = Database::from_pool(pool);
    let refused = db.conversations().create(UserId::new(), Some("title")).await;
    let expected = matches!(refused, Err(Error::ForeignKey(Constraint::ConversationsUserIdFkey)));
    assert!(expected, "{refused:?}");
    assert_eq!(db.conversations().list_recent(10, 0).await.unwrap(), []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_title_that_cannot_be_stored_is_refused_and_the_unit_of_work_goes_on(pool: PgPool) {
    let db = Database::from_pool(pool);
    let before = conversation(&db).await;
    let mut uow = db.begin().await.unwrap();
    for (title, reason) in [
        ("a".repeat(501), Reason::TooLong { max: 500 }),
        ("🚀".repeat(501), Reason::TooLong { max: 500 }),
        ("a\0b".to_owned(), Reason::ContainsNul),
    ] {
        for refused in [
            uow.conversations().create(before.user_id, Some(&title)).await,
            uow.conversations().update_title(before.id, Some(&title)).await,
        ] {
            let refused = invalid(refused);
            assert_eq!((refused.field, &refused.reason), ("title", &reason));
        }
    }
    let new = uow.conversations().create(before.user_id, Some("good")).await.unwrap();
    uow.commit().await.unwrap();
    let stored = db.conversations().list_by_user(before.user_id, 10, 0).await.unwrap();
    assert_eq!(stored, [new, before]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_title_can_be_changed_and_taken_away(pool: PgPool) {
    let db = Database::from_pool(pool);
    let before = conversation(&db).await;
    let other = conversation_of(&db, before.user_id).await;
    for title in [Some("Rice speech"), Some(""), Some("漢字"), None] {
        let changed = db.conversations().update_title(before.id, title).await.unwrap();
        assert_eq!(changed.title.as_deref(), title);
        assert_eq!((changed.id, changed.user_id), (before.id, before.user_id));
        assert_eq!(changed.created_at, before.created_at);
        assert_eq!(db.conversations().get_by_id(before.id).await.unwrap(), Some(changed));
    }
    assert_eq!(db.conversations().get_by_id(other.id).await.unwrap(), Some(other));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_conversation_goes_with_its_messages_and_no_others(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (gone, kept) = (conversation(&db).await, conversation(&db).await);
    let of_gone = db.messages().create_many(messages(&gone, 3)).await.unwrap();
    let of_kept = db.messages().create_many(messages(&kept, 3)).await.unwrap();
    assert!(db.conversations().delete(gone.id).await.unwrap());
    assert!(!db.conversations().delete(gone.id).await.unwrap());
    assert_eq!(db.conversations().get_by_id(gone.id).await.unwrap(), None);
    assert_eq!(db.messages().get_by_id(of_gone[0].id).await.unwrap(), None);
    assert_eq!(db.messages().list_by_conversation(gone.id, 10, 0).await.unwrap(), []);
    assert_eq!(db.messages().list_by_conversation(kept.id, 10, 0).await.unwrap(), of_kept);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn conversations_are_listed_by_latest_activity(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let created = conversations(&db, ada.id, 4).await;
    let newest_first: Vec<_> = ids(&created).into_iter().rev().collect();
    assert_eq!(ids(&db.conversations().list_by_user(ada.id, 10, 0).await.unwrap()), newest_first);

    db.messages().create(NewMessage::user(created[0].id, "hello")).await.unwrap();
    db.conversations().update_title(created[2].id, Some("title")).await.unwrap();
    let expected = [created[2].id, created[0].id, created[3].id, created[1].id];
    assert_eq!(ids(&db.conversations().list_by_user(ada.id, 10, 0).await.unwrap()), expected);
    assert_eq!(ids(&db.conversations().list_recent(10, 0).await.unwrap()), expected);
    let page = db.conversations().page_by_user(ada.id, PageRequest::first(10)).await.unwrap();
    assert_eq!(ids(&page.items), expected);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_users_lists_hold_nobody_elses_conversations(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await, user(&db).await);
    // Of one transaction, so that the two users' rows lie between each other's.
    let mut uow = db.begin().await.unwrap();
    let (mut of_ada, mut everybodys) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        for user_id in [ada.id, bob.id] {
            let created = uow.conversations().create(user_id, None).await.unwrap();
            everybodys.insert(0, created.clone());
            if user_id == ada.id {
                of_ada.insert(0, created);
            }
        }
    }
    uow.commit().await.unwrap();
    assert_eq!(db.conversations().list_by_user(ada.id, 10, 0).await.unwrap(), of_ada);
    let paged = all_pages(1, async |page| db.conversations().page_by_user(ada.id, page).await);
    assert_eq!(paged.await, of_ada);
    assert_eq!(db.conversations().list_recent(10, 0).await.unwrap(), everybodys);

    // A cursor is a place in one list, and not a permission: another user's list refuses it.
    let first = db.conversations().page_by_user(ada.id, PageRequest::first(1)).await.unwrap();
    let after = PageRequest::after(10, first.next.unwrap());
    assert_eq!(invalid(db.conversations().page_by_user(bob.id, after).await).field, "after");
    let page = db.conversations().page_by_user(bob.id, PageRequest::first(10)).await.unwrap();
    assert!(page.items.iter().all(|conversation| conversation.user_id == bob.id));
    assert_eq!(page.items.len(), 3);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn pages_of_every_size_make_up_the_whole_list(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    conversations(&db, ada.id, 7).await;
    let list = db.conversations().list_by_user(ada.id, 10, 0).await.unwrap();
    assert_eq!(list.len(), 7);
    for size in [1, 2, 3, 6, 7, 8, MAX_PAGE_SIZE] {
        let paged =
            all_pages(size, async |page| db.conversations().page_by_user(ada.id, page).await);
        assert_eq!(paged.await, list, "pages of {size}");
        let paged = all_pages(size, async |page| {
            db.conversations().page_with_last_message(ada.id, page).await
        });
        let paged: Vec<_> = paged.await.into_iter().map(|s| s.conversation).collect();
        assert_eq!(paged, list, "pages of {size}");
        let mut by_offset = Vec::new();
        for offset in (0..7).step_by(size as usize) {
            by_offset.extend(db.conversations().list_by_user(ada.id, size, offset).await.unwrap());
        }
        assert_eq!(by_offset, list, "limit {size}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_list_of_conversations_is_bounded(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = a_thousand_and_one(&db).await;
    for (limit, offset, count) in [
        (0, 0, 0),
        (1, 0, 1),
        (MAX_PAGE_SIZE, 0, 1000),
        (MAX_PAGE_SIZE, 1000, 1),
        (10, 1001, 0),
        (10, i64::MAX, 0),
    ] {
        let listed = db.conversations().list_by_user(ada, limit, offset).await.unwrap();
        assert_eq!(listed.len(), count, "limit {limit} offset {offset}");
        assert_eq!(db.conversations().list_recent(limit, offset).await.unwrap(), listed);
    }
    for (limit, offset, field) in BAD_LIMITS
        .map(|limit| (limit, 0, "limit"))
        .into_iter()
        .chain([(1, -1, "offset"), (0, i64::MIN, "offset")])
    {
        let of_user = invalid(db.conversations().list_by_user(ada, limit, offset).await);
        let recent = invalid(db.conversations().list_recent(limit, offset).await);
        assert_eq!((of_user.field, recent.field), (field, field), "limit {limit} offset {offset}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_page_of_conversations_is_bounded(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = a_thousand_and_one(&db).await;
    let paged =
        all_pages(MAX_PAGE_SIZE, async |page| db.conversations().page_by_user(ada, page).await);
    assert_eq!(ids(&paged.await).into_iter().collect::<HashSet<_>>().len(), 1001);
    for size in BAD_LIMITS.into_iter().chain([0]) {
        let page = PageRequest::first(size);
        let plain = invalid(db.conversations().page_by_user(ada, page).await);
        let summaries = invalid(db.conversations().page_with_last_message(ada, page).await);
        assert_eq!((plain.field, summaries.field), ("size", "size"), "{size}");
        assert_eq!(plain.reason, Reason::OutOfRange { min: 1, max: MAX_PAGE_SIZE });
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_page_goes_on_where_it_ended_when_its_last_row_is_gone(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    conversations(&db, ada.id, 6).await;
    let list = db.conversations().list_by_user(ada.id, 10, 0).await.unwrap();
    let first = db.conversations().page_by_user(ada.id, PageRequest::first(2)).await.unwrap();
    db.conversations().delete(list[1].id).await.unwrap();
    let after = PageRequest::after(10, first.next.unwrap());
    let rest = db.conversations().page_by_user(ada.id, after).await.unwrap();
    assert_eq!((rest.items.as_slice(), rest.next), (&list[2..], None));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_summary_has_the_newest_message_or_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let [empty, one, several, tied, unordered] = {
        let created = conversations(&db, ada.id, 5).await;
        <[Conversation; 5]>::try_from(created).unwrap()
    };
    let of_one = db.messages().create(NewMessage::system(one.id, "")).await.unwrap();
    db.messages().create(NewMessage::user(several.id, "first")).await.unwrap();
    let of_several = db.messages().create(NewMessage::assistant(several.id, "last")).await.unwrap();
    // Of one statement: they share their time, and the last one given is the newest.
    let of_tied = db.messages().create_many(messages(&tied, 5)).await.unwrap().pop().unwrap();
    assert_eq!(of_tied.content, "message 4");
    // Newest by its time, though it was inserted first.
    sqlx::query(
        "insert into messages (conversation_id, role, content, created_at)
         values ($1, 'user', 'newest', now()), ($1, 'user', 'older', now() - interval '1 hour')",
    )
    .bind(unordered.id)
    .execute(db.executor())
    .await
    .unwrap();

    let page = PageRequest::default();
    let page = db.conversations().page_with_last_message(ada.id, page).await.unwrap();
    let shown: Vec<_> = page
        .items
        .iter()
        .map(|summary| {
            let last = summary.last_message.as_ref();
            (summary.conversation.id, last.map(|last| (last.role, last.content.as_str())))
        })
        .collect();
    let expected = [
        (unordered.id, Some((Role::User, "newest"))),
        (tied.id, Some((Role::User, "message 4"))),
        (several.id, Some((Role::Assistant, "last"))),
        (one.id, Some((Role::System, ""))),
        (empty.id, None),
    ];
    assert_eq!(shown, expected);
    for (place, message) in [(1, of_tied), (2, of_several), (3, of_one)] {
        let last = page.items[place].last_message.as_ref().unwrap();
        assert_eq!((last.id, last.created_at), (message.id, message.created_at));
    }
    // The same list with counts, whatever the size of its pages.
    let counted =
        all_pages(2, async |page| db.conversations().page_with_message_count(ada.id, page).await);
    let (summaries, counts): (Vec<_>, Vec<_>) =
        counted.await.into_iter().map(|o| (o.summary, o.message_count)).unzip();
    assert_eq!((&summaries, &counts[..]), (&page.items, &[2, 5, 2, 1, 0][..]));
    // What a summary says of its conversation is what the conversation is.
    let list = db.conversations().list_by_user(ada.id, 10, 0).await.unwrap();
    assert_eq!(page.items.into_iter().map(|s| s.conversation).collect::<Vec<_>>(), list);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn summaries_are_of_the_given_user_only(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (of_ada, of_bob) = (conversation(&db).await, conversation(&db).await);
    let new = [messages(&of_ada, 2), messages(&of_bob, 3)].concat();
    db.messages().create_many(new).await.unwrap();
    for (conversation, last) in [(of_ada, "message 1"), (of_bob, "message 2")] {
        let all = all_pages(1, async |page| {
            db.conversations().page_with_last_message(conversation.user_id, page).await
        });
        let [summary] = <[_; 1]>::try_from(all.await).unwrap();
        assert_eq!(summary.conversation.id, conversation.id);
        assert_eq!(summary.last_message.unwrap().content, last);
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_conversation_that_changes_hands_takes_its_messages_along(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (moved, bob) = (conversation(&db).await, user(&db).await);
    let kept = conversation_of(&db, moved.user_id).await;
    let new = [messages(&moved, 2), messages(&kept, 1)].concat();
    let before = db.messages().create_many(new).await.unwrap();
    sqlx::query("update conversations set user_id = $2 where id = $1")
        .bind(moved.id)
        .bind(bob.id)
        .execute(db.executor())
        .await
        .unwrap();

    let after = db.messages().list_by_conversation(moved.id, 10, 0).await.unwrap();
    let expected: Vec<_> = before[..2]
        .iter()
        .cloned()
        .map(|mut message| {
            message.user_id = bob.id;
            message
        })
        .collect();
    assert_eq!(after, expected);
    let everything = serde_json::json!({});
    let of_bob = db.messages().list_by_metadata(bob.id, &everything, 10).await.unwrap();
    assert_eq!(of_bob.len(), 2);
    let left = db.messages().list_by_metadata(moved.user_id, &everything, 10).await.unwrap();
    assert_eq!(left, before[2..]);
    // The former owner's account can go without them.
    assert!(db.users().delete(moved.user_id).await.unwrap());
    assert_eq!(db.messages().list_by_conversation(moved.id, 10, 0).await.unwrap(), expected);
    assert_eq!(db.messages().list_by_conversation(kept.id, 10, 0).await.unwrap(), []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn whoever_wants_a_locked_conversation_waits_and_sees_what_its_holder_did(pool: PgPool) {
    let db = Database::from_pool(pool);
    let before = conversation(&db).await;
    let mut holder = db.begin().await.unwrap();
    assert_eq!(holder.lock_conversation(before.id).await.unwrap(), Some(before.clone()));

    let mut waiter = db.begin().await.unwrap();
    let waiting = backend(&mut waiter).await;
    let waiter = tokio::spawn(async move {
        let locked = waiter.lock_conversation(before.id).await;
        waiter.commit().await.unwrap();
        locked
    });
    until_blocked(&db, waiting).await;

    let changed = holder.conversations().update_title(before.id, Some("mine")).await.unwrap();
    holder.commit().await.unwrap();
    assert_eq!(waiter.await.unwrap().unwrap(), Some(changed));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_locked_conversation_can_be_read_but_neither_changed_nor_spoken_in(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (locked, other) = (conversation(&db).await, conversation(&db).await);
    let mut holder = db.begin().await.unwrap();
    holder.lock_conversation(locked.id).await.unwrap();

    let mut uow = db.begin().await.unwrap();
    sqlx::query("set local lock_timeout = '50ms'").execute(uow.executor()).await.unwrap();
    let read = uow.conversations().get_by_id(locked.id).await.unwrap();
    assert_eq!(read.as_ref(), Some(&locked));
    uow.messages().create(NewMessage::user(other.id, "elsewhere")).await.unwrap();

    let lock = uow.transaction(async |uow| uow.lock_conversation(locked.id).await.map(drop));
    assert!(matches!(lock.await, Err(Error::LockTimeout)));
    let title = uow
        .transaction(async |uow| uow.conversations().update_title(locked.id, None).await.map(drop));
    assert!(matches!(title.await, Err(Error::LockTimeout)));
    let delete = uow.transaction(async |uow| uow.conversations().delete(locked.id).await.map(drop));
    assert!(matches!(delete.await, Err(Error::LockTimeout)));
    let message = uow.transaction(async |uow| {
        uow.messages().create(NewMessage::user(locked.id, "hello")).await.map(drop)
    });
    assert!(matches!(message.await, Err(Error::LockTimeout)));

    holder.messages().create(NewMessage::user(locked.id, "by the holder")).await.unwrap();
    holder.rollback().await.unwrap();
    // Now that the lock is gone, all of it goes.
    uow.lock_conversation(locked.id).await.unwrap();
    uow.messages().create(NewMessage::user(locked.id, "hello")).await.unwrap();
    uow.commit().await.unwrap();
    let stored = db.messages().list_by_conversation(locked.id, 10, 0).await.unwrap();
    assert_eq!(stored.iter().map(|m| m.content.as_str()).collect::<Vec<_>>(), ["hello"]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_repeatable_read_that_lost_the_lock_runs_again(pool: PgPool) {
    let db = Database::from_pool(pool);
    let before = conversation(&db).await;
    let options = TransactionOptions::default().isolation(IsolationLevel::RepeatableRead);
    let mut late = db.begin_with(options).await.unwrap();
    late.conversations().get_by_id(before.id).await.unwrap();
    db.conversations().update_title(before.id, Some("meanwhile")).await.unwrap();
    let refused = late.lock_conversation(before.id).await;
    assert!(matches!(refused, Err(Error::SerializationFailure)), "{refused:?}");
    assert!(refused.unwrap_err().is_retryable());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn debug_of_a_conversation_does_not_show_what_was_written(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let conversation = db.conversations().create(ada.id, Some("canary")).await.unwrap();
    db.messages().create(NewMessage::user(conversation.id, "canary")).await.unwrap();
    let page = PageRequest::default();
    let page = db.conversations().page_with_last_message(ada.id, page).await.unwrap();
    let shown = format!("{conversation:?} {page:?}");
    assert!(shown.contains("Conversation"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
    // JSON is for the client: there it is, with the conversation's fields beside the message.
    let json = serde_json::to_value(&page.items[0]).unwrap();
    assert_eq!(json["title"], "canary");
    assert_eq!(json["last_message"]["content"], "canary");
}
