//! Messages: order, pages, JSON, and rows that other programs write.

use chancery::{
    Constraint, Conversation, ConversationId, Database, Error, MAX_JSON_DEPTH, MAX_PAGE_SIZE,
    MAX_TEXT_BYTES, Message, MessageId, NewMessage, PageRequest, Reason, Role, UserId,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{
    BAD_LIMITS, all_pages, conversation, conversation_of, invalid, messages, user,
};

fn contents(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.content.as_str()).collect()
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(
        json!(1),
        |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({"a": inner}) },
    )
}

/// Messages in four transactions, so that there are ties of every size: 1, 2 and 3 rows by single
/// inserts, 4 by one statement. Those of another conversation lie between them.
async fn with_ties(db: &Database) -> (Conversation, Vec<Message>) {
    let (conversation, other) = (conversation(db).await, conversation(db).await);
    let mut expected = Vec::new();
    for count in 1..=3 {
        let mut uow = db.begin().await.unwrap();
        for _ in 0..count {
            let new = NewMessage::user(conversation.id, format!("message {}", expected.len()));
            expected.push(uow.messages().create(new).await.unwrap());
            uow.messages().create(NewMessage::user(other.id, "elsewhere")).await.unwrap();
        }
        uow.commit().await.unwrap();
    }
    let new = messages(&conversation, 4)
        .into_iter()
        .flat_map(|new| [new, NewMessage::user(other.id, "elsewhere")])
        .collect();
    let written = db.messages().create_many(new).await.unwrap();
    expected.extend(written.into_iter().filter(|m| m.conversation_id == conversation.id));
    assert_eq!(expected.len(), 10);
    (conversation, expected)
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_new_message_can_be_read_back(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let id = conversation.id;
    for (new, role) in [
        (NewMessage::user(id, "Why the Moon?"), Role::User),
        (NewMessage::assistant(id, "Because it is hard."), Role::Assistant),
        (NewMessage::system(id, "Be brief."), Role::System),
        (NewMessage::new(id, Role::User, "Why?"), Role::User),
    ] {
        let created = db.messages().create(new.clone()).await.unwrap();
        assert_eq!((created.conversation_id, created.user_id), (id, conversation.user_id));
        assert_eq!((created.role, &created.content), (role, &new.content));
        assert_eq!(created.metadata, json!({}));
        assert_eq!(db.messages().get_by_id(created.id).await.unwrap(), Some(created));
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_message_that_is_not_there_is_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (id, nowhere) = (MessageId::new(), ConversationId::new());
    let first = PageRequest::first(10);
    assert_eq!(db.messages().get_by_id(id).await.unwrap(), None);
    assert_eq!(db.messages().list_by_conversation(nowhere, 10, 0).await.unwrap(), []);
    assert_eq!(db.messages().get_last_n(nowhere, 10).await.unwrap(), []);
    let page = db.messages().page_by_conversation(nowhere, first).await.unwrap();
    assert_eq!((page.items, page.next), (vec![], None));
    let page = db.messages().page_back_by_conversation(nowhere, first).await.unwrap();
    assert_eq!((page.items, page.next), (vec![], None));
    let found = db.messages().list_by_metadata(UserId::new(), &json!({}), 10).await.unwrap();
    assert_eq!(found, []);
    assert_eq!(db.messages().count_since(DateTime::UNIX_EPOCH).await.unwrap(), 0);
    assert!(!db.messages().delete(id).await.unwrap());
    let missing = db.messages().update(id, "text", &json!({})).await;
    assert!(matches!(missing, Err(Error::NotFound("message"))), "{missing:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn every_text_comes_back_as_it_was_written(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let long = "Wörter ".repeat(200_000);
    let texts = ["", " ", "a\r\n\tb\n", "'\"\\ $1 % _ {}", "e\u{301} é 漢字 🚀 \u{10FFFF}", &long];
    let new: Vec<_> = texts.iter().map(|t| NewMessage::user(conversation.id, *t)).collect();
    for new in new.clone() {
        db.messages().create(new).await.unwrap();
    }
    db.messages().create_many(new).await.unwrap();
    let stored = db.messages().list_by_conversation(conversation.id, 100, 0).await.unwrap();
    assert!(contents(&stored) == [texts, texts].concat());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn all_json_comes_back_as_it_was_written(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let documents = [
        json!({}),
        json!([]),
        json!(null),
        json!(true),
        json!(""),
        json!("text"),
        json!({"": {"": [[], {}, null, "", false]}}),
        json!({"ключ 漢字 🚀": "e\u{301} \u{7f} \u{1} \" \\ / \n \u{2028} \u{10FFFF}"}),
        json!({"b": 1, "a": 2, "aa": 3}),
        json!([0, -1, 1, i64::MIN, i64::MAX, u64::MAX]),
        nested(MAX_JSON_DEPTH),
    ];
    for document in &documents {
        let new = NewMessage::user(conversation.id, "").metadata(document.clone());
        let created = db.messages().create(new).await.unwrap();
        assert_eq!(&created.metadata, document);
        let read = db.messages().get_by_id(created.id).await.unwrap().unwrap();
        assert_eq!(&read.metadata, document);
        let updated = db.messages().update(created.id, "", document).await.unwrap();
        assert_eq!(&updated.metadata, document);
    }
    let new = documents
        .iter()
        .map(|document| NewMessage::user(conversation.id, "").metadata(document.clone()))
        .collect();
    let written = db.messages().create_many(new).await.unwrap();
    let written: Vec<_> = written.into_iter().map(|message| message.metadata).collect();
    assert_eq!(written, documents);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn numbers_in_json_keep_their_value_to_the_last_bit(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let mut numbers = vec![
        0.0,
        0.1,
        -0.1,
        1.0,
        1e15,
        1e16,
        1e20,
        1e23,
        1.0 / 3.0,
        f64::MAX,
        f64::MIN,
        f64::EPSILON,
        f64::MIN_POSITIVE,
        5e-324,
        9_007_199_254_740_993.0,
    ];
    // Similarities as a model computes them: any bits of the mantissa.
    let mut state = 1_u64;
    for _ in 0..2000 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        numbers.push((state >> 11) as f64 / (1_u64 << 53) as f64);
    }
    let new = NewMessage::user(conversation.id, "").metadata(json!(numbers));
    let read = db.messages().create(new).await.unwrap().metadata;
    let read: Vec<f64> = read.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
    let changed: Vec<_> = numbers.iter().zip(&read).filter(|(a, b)| a != b).collect();
    assert!(changed.is_empty(), "{} changed: {:?}", changed.len(), changed.first());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_message_of_no_conversation_is_refused_by_the_key(pool: PgPool) {
    let db = Database::from_pool(pool);
    let refused = db.messages().create(NewMessage::user(ConversationId::new(), "hello")).await;
    let expected =
        matches!(refused, Err(Error::ForeignKey(Constraint::MessagesConversationIdFkey)));
    assert!(expected, "{refused:?}");
    assert_eq!(db.messages().count_since(DateTime::UNIX_EPOCH).await.unwrap(), 0);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn many_messages_come_back_in_the_order_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let mut conversations = vec![conversation(&db).await];
    for _ in 0..4 {
        conversations.insert(0, conversation_of(&db, ada.id).await);
    }
    let new: Vec<_> = (0..100)
        .map(|i| {
            let conversation = &conversations[(i * 7) % 5];
            NewMessage::new(conversation.id, Role::ALL[i % 3], format!("message {i}"))
                .metadata(json!({"place": i}))
        })
        .collect();
    let written = db.messages().create_many(new.clone()).await.unwrap();
    assert_eq!(written.len(), new.len());
    for (i, (new, message)) in new.iter().zip(&written).enumerate() {
        let conversation = &conversations[(i * 7) % 5];
        assert_eq!(message.conversation_id, conversation.id);
        assert_eq!(message.user_id, conversation.user_id);
        assert_eq!((message.role, &message.content), (new.role, &new.content));
        assert_eq!(message.metadata, json!({"place": i}));
        assert_eq!(message.created_at, written[0].created_at);
    }
    for conversation in &conversations {
        let expected: Vec<_> =
            written.iter().filter(|m| m.conversation_id == conversation.id).cloned().collect();
        let stored = db.messages().list_by_conversation(conversation.id, 100, 0).await.unwrap();
        assert_eq!(stored, expected);
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn no_messages_are_written_without_a_statement(pool: PgPool) {
    let db = Database::from_pool(pool);
    db.close().await;
    assert_eq!(db.messages().create_many(Vec::new()).await.unwrap(), []);
    let one = vec![NewMessage::user(ConversationId::new(), "hello")];
    assert!(matches!(db.messages().create_many(one).await, Err(Error::PoolClosed)));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn many_messages_are_written_all_or_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    for place in [0, 5, 10] {
        let mut new = messages(&conversation, 10);
        new.insert(place, NewMessage::user(ConversationId::new(), "nowhere"));
        let refused = db.messages().create_many(new).await;
        let expected =
            matches!(refused, Err(Error::ForeignKey(Constraint::MessagesConversationIdFkey)));
        assert!(expected, "{refused:?}");
    }
    assert_eq!(db.messages().list_by_conversation(conversation.id, 10, 0).await.unwrap(), []);
    let unchanged = db.conversations().get_by_id(conversation.id).await.unwrap();
    assert_eq!(unchanged, Some(conversation));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_message_that_cannot_be_stored_is_refused_and_the_unit_of_work_goes_on(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let good = || NewMessage::user(conversation.id, "good");
    let too_large = "x".repeat(MAX_TEXT_BYTES + 1);
    let too_deep = Reason::TooDeep { max: MAX_JSON_DEPTH };
    let large = Reason::TooLarge { max: MAX_TEXT_BYTES };
    let mut uow = db.begin().await.unwrap();
    for (field, reason, bad) in [
        ("content", Reason::ContainsNul, NewMessage::user(conversation.id, "a\0b")),
        ("content", large.clone(), NewMessage::user(conversation.id, too_large.as_str())),
        ("metadata", Reason::ContainsNul, good().metadata(json!({"a": ["\0"]}))),
        ("metadata", Reason::ContainsNul, good().metadata(json!([{"a\0": 1}]))),
        ("metadata", too_deep.clone(), good().metadata(nested(MAX_JSON_DEPTH + 1))),
        ("metadata", too_deep, good().metadata(nested(1000))),
        ("metadata", large, good().metadata(json!(too_large))),
    ] {
        let update = uow.messages().update(MessageId::new(), &bad.content, &bad.metadata).await;
        let refused = invalid(update);
        assert_eq!((refused.field, &refused.reason), (field, &reason));
        if field == "metadata" {
            let search =
                uow.messages().list_by_metadata(conversation.user_id, &bad.metadata, 1).await;
            let refused = invalid(search);
            assert_eq!((refused.field, &refused.reason), ("contained", &reason));
        }
        let many = vec![good(), bad.clone(), good()];
        let refused = invalid(uow.messages().create_many(many).await);
        assert_eq!((refused.field, &refused.reason), (field, &reason));
        let refused = invalid(uow.messages().create(bad).await);
        assert_eq!((refused.field, &refused.reason), (field, &reason));
    }
    for time in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
        assert_eq!(invalid(uow.messages().count_since(time).await).field, "since");
    }

    let stored = uow.messages().create(good()).await.unwrap();
    uow.commit().await.unwrap();
    let all = db.messages().list_by_conversation(conversation.id, 10, 0).await.unwrap();
    assert_eq!(all, [stored]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn messages_stand_in_the_order_in_which_they_were_written(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (conversation, expected) = with_ties(&db).await;
    let id = conversation.id;
    assert_eq!(db.messages().list_by_conversation(id, 100, 0).await.unwrap(), expected);
    let backwards: Vec<_> = expected.iter().rev().cloned().collect();
    for size in [1, 2, 3, 5, 9, 10, 11, MAX_PAGE_SIZE] {
        let forth =
            all_pages(size, async |page| db.messages().page_by_conversation(id, page).await);
        assert_eq!(forth.await, expected, "pages of {size}");
        let back =
            all_pages(size, async |page| db.messages().page_back_by_conversation(id, page).await);
        assert_eq!(back.await, backwards, "pages of {size}");
        let mut by_offset = Vec::new();
        for offset in (0..10).step_by(size as usize) {
            by_offset.extend(db.messages().list_by_conversation(id, size, offset).await.unwrap());
        }
        assert_eq!(by_offset, expected, "limit {size}");
    }
    for n in 0..=11 {
        let last = db.messages().get_last_n(id, n).await.unwrap();
        let skipped = expected.len().saturating_sub(n as usize);
        assert_eq!(last, expected[skipped..], "the last {n}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn time_comes_before_identifier(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    db.messages().create(NewMessage::user(conversation.id, "now")).await.unwrap();
    // Random identifiers, and times that differ by the least that is stored.
    sqlx::query(
        "insert into messages (conversation_id, role, content, created_at)
         select $1, 'user', n::text, '2020-02-02 02:02:02Z'::timestamptz + n * interval '1 us'
           from generate_series(9, 0, -1) n",
    )
    .bind(conversation.id)
    .execute(db.executor())
    .await
    .unwrap();
    let expected = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "now"];
    let list = db.messages().list_by_conversation(conversation.id, 100, 0).await.unwrap();
    assert_eq!(contents(&list), expected);
    let last = db.messages().get_last_n(conversation.id, 3).await.unwrap();
    assert_eq!(contents(&last), ["8", "9", "now"]);
    let forth =
        all_pages(2, async |page| db.messages().page_by_conversation(conversation.id, page).await);
    assert_eq!(forth.await, list);
    let mut back = all_pages(2, async |page| {
        db.messages().page_back_by_conversation(conversation.id, page).await
    })
    .await;
    back.reverse();
    assert_eq!(back, list);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_list_of_messages_is_bounded(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let (id, user_id) = (conversation.id, conversation.user_id);
    let all = db.messages().create_many(messages(&conversation, 1001)).await.unwrap();
    for (limit, offset, expected) in [
        (0, 0, 0..0),
        (1, 0, 0..1),
        (MAX_PAGE_SIZE, 0, 0..1000),
        (MAX_PAGE_SIZE, 1000, 1000..1001),
        (10, 1001, 0..0),
        (10, i64::MAX, 0..0),
    ] {
        let listed = db.messages().list_by_conversation(id, limit, offset).await.unwrap();
        assert_eq!(listed, all[expected], "limit {limit} offset {offset}");
    }
    for n in [0, 1, 1000] {
        assert_eq!(db.messages().get_last_n(id, n).await.unwrap(), all[1001 - n as usize..]);
        let found = db.messages().list_by_metadata(user_id, &json!({}), n).await.unwrap();
        assert_eq!(found.len(), n as usize);
    }
    let forth =
        all_pages(MAX_PAGE_SIZE, async |page| db.messages().page_by_conversation(id, page).await);
    assert_eq!(forth.await, all);

    for limit in BAD_LIMITS {
        assert_eq!(invalid(db.messages().list_by_conversation(id, limit, 0).await).field, "limit");
        assert_eq!(invalid(db.messages().get_last_n(id, limit).await).field, "n");
        let search = db.messages().list_by_metadata(user_id, &json!({}), limit).await;
        assert_eq!(invalid(search).field, "limit");
    }
    for size in BAD_LIMITS.into_iter().chain([0]) {
        let page = PageRequest::first(size);
        assert_eq!(invalid(db.messages().page_by_conversation(id, page).await).field, "size");
        assert_eq!(invalid(db.messages().page_back_by_conversation(id, page).await).field, "size");
    }
    for offset in [-1, i64::MIN] {
        let refused = invalid(db.messages().list_by_conversation(id, 1, offset).await);
        assert_eq!(refused.field, "offset");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn pages_are_not_shifted_by_what_is_written_meanwhile(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (conversation, before) = with_ties(&db).await;
    let id = conversation.id;
    let first = db.messages().page_back_by_conversation(id, PageRequest::first(4)).await.unwrap();
    let new = db.messages().create(NewMessage::user(id, "meanwhile")).await.unwrap();
    let after = PageRequest::after(100, first.next.unwrap());
    let rest = db.messages().page_back_by_conversation(id, after).await.unwrap();
    let mut seen = [first.items, rest.items].concat();
    seen.reverse();
    assert_eq!(seen, before);
    // Forwards, a client that has seen all can go on from the last page but one.
    let page = db.messages().page_by_conversation(id, PageRequest::first(9)).await.unwrap();
    let after = PageRequest::after(100, page.next.unwrap());
    let rest = db.messages().page_by_conversation(id, after).await.unwrap();
    assert_eq!(rest.items, [before[9].clone(), new]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn messages_are_found_by_what_their_metadata_contains(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (of_ada, of_bob) = (conversation(&db).await, conversation(&db).await);
    let second = conversation_of(&db, of_ada.user_id).await;
    let chunks = |ids: &[i32]| json!({"chunk_ids": ids, "model": {"name": "m", "step": 1}});
    let new = vec![
        NewMessage::assistant(of_ada.id, "one").metadata(chunks(&[1])),
        NewMessage::assistant(second.id, "one and two").metadata(chunks(&[2, 1])),
        NewMessage::assistant(of_bob.id, "one, of another user").metadata(chunks(&[1])),
        NewMessage::assistant(of_ada.id, "none"),
        NewMessage::assistant(of_ada.id, "a list").metadata(json!(["chunk_ids"])),
    ];
    db.messages().create_many(new).await.unwrap();
    for (contained, expected) in [
        (json!({"chunk_ids": [1]}), vec!["one and two", "one"]),
        (json!({"chunk_ids": [1, 2]}), vec!["one and two"]),
        (json!({"chunk_ids": [3]}), vec![]),
        (json!({"chunk_ids": []}), vec!["one and two", "one"]),
        (json!({"model": {"name": "m"}}), vec!["one and two", "one"]),
        (json!({"model": {"name": "%"}}), vec![]),
        (json!({"chunk_ids": 1}), vec![]),
        (json!({}), vec!["none", "one and two", "one"]),
        (json!([]), vec!["a list"]),
        (json!("chunk_ids"), vec!["a list"]),
    ] {
        let found = db.messages().list_by_metadata(of_ada.user_id, &contained, 10).await.unwrap();
        assert_eq!(contents(&found), expected, "{contained}");
    }
    let newest = db.messages().list_by_metadata(of_ada.user_id, &chunks(&[1]), 1).await.unwrap();
    assert_eq!(contents(&newest), ["one and two"]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn messages_are_counted_from_a_time_on(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (one, other) = (conversation(&db).await, conversation(&db).await);
    let first = db.messages().create(NewMessage::user(one.id, "first")).await.unwrap();
    let new = [messages(&one, 2), messages(&other, 3)].concat();
    let later = db.messages().create_many(new).await.unwrap()[0].created_at;
    let least = TimeDelta::microseconds(1);
    for (since, count) in [
        (DateTime::UNIX_EPOCH, 6),
        (first.created_at, 6),
        (first.created_at + least, 5),
        (later, 5),
        (later + least, 0),
        ("9999-12-31T23:59:59Z".parse().unwrap(), 0),
        ("0001-01-01T00:00:00Z".parse().unwrap(), 6),
    ] {
        assert_eq!(db.messages().count_since(since).await.unwrap(), count, "{since}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_changed_message_keeps_its_place(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (conversation, before) = with_ties(&db).await;
    let changed =
        db.messages().update(before[4].id, "changed", &json!({"edited": true})).await.unwrap();
    assert_eq!(changed.content, "changed");
    assert_eq!(changed.metadata, json!({"edited": true}));
    let mut expected = before;
    expected[4].content = "changed".into();
    expected[4].metadata = json!({"edited": true});
    let stored = db.messages().list_by_conversation(conversation.id, 100, 0).await.unwrap();
    assert_eq!(stored, expected);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_deleted_message_is_gone_alone(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (conversation, mut expected) = with_ties(&db).await;
    let gone = expected.remove(4);
    assert!(db.messages().delete(gone.id).await.unwrap());
    assert!(!db.messages().delete(gone.id).await.unwrap());
    assert_eq!(db.messages().get_by_id(gone.id).await.unwrap(), None);
    let stored = db.messages().list_by_conversation(conversation.id, 100, 0).await.unwrap();
    assert_eq!(stored, expected);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_row_of_a_program_that_knows_only_the_seeds_columns_is_a_message(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    sqlx::query("insert into messages (conversation_id, role, content) values ($1, $2, $3)")
        .bind(conversation.id)
        .bind("assistant")
        .bind("hello")
        .execute(db.executor())
        .await
        .unwrap();
    let [message] =
        <[Message; 1]>::try_from(db.messages().get_last_n(conversation.id, 10).await.unwrap())
            .unwrap();
    assert_eq!(message.user_id, conversation.user_id);
    assert_eq!((message.role, message.content.as_str()), (Role::Assistant, "hello"));
    assert_eq!(message.metadata, json!({}));
    assert!(message.created_at > conversation.updated_at);
    let touched = db.conversations().get_by_id(conversation.id).await.unwrap().unwrap();
    assert_eq!(touched.updated_at, message.created_at);
    assert_eq!(db.messages().get_by_id(message.id).await.unwrap(), Some(message));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn rows_of_another_program_are_held_to_the_same_rules(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (conversation, bob) = (conversation(&db).await, user(&db).await);
    let foreign_key = Error::ForeignKey(Constraint::MessagesConversationIdFkey).to_string();
    let check = Error::Check(Constraint::MessagesRoleCheck).to_string();
    for (conversation_id, user_id, role, refusal) in [
        (ConversationId::new(), None, "user", &foreign_key),
        (ConversationId::new(), Some(conversation.user_id), "user", &foreign_key),
        (conversation.id, Some(bob.id), "user", &foreign_key),
        (conversation.id, Some(UserId::new()), "user", &foreign_key),
        (conversation.id, None, "tool", &check),
        (conversation.id, Some(conversation.user_id), "User", &check),
    ] {
        let refused = sqlx::query(
            "insert into messages (conversation_id, user_id, role, content)
             values ($1, $2, $3, 'hello')",
        )
        .bind(conversation_id)
        .bind(user_id)
        .bind(role)
        .execute(db.executor())
        .await;
        assert_eq!(&Error::from(refused.unwrap_err()).to_string(), refusal);
    }
    // Nor can a message be given to somebody else afterwards.
    let message = db.messages().create(NewMessage::user(conversation.id, "mine")).await.unwrap();
    let refused = sqlx::query("update messages set user_id = $2 where id = $1")
        .bind(message.id)
        .bind(bob.id)
        .execute(db.executor())
        .await;
    assert_eq!(Error::from(refused.unwrap_err()).to_string(), foreign_key);
    assert_eq!(db.messages().get_by_id(message.id).await.unwrap(), Some(message));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn debug_of_a_message_does_not_show_what_was_written(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let new = NewMessage::user(conversation.id, "canary").metadata(json!({"canary": 1}));
    let shown = format!("{new:?}");
    let message = db.messages().create(new.clone()).await.unwrap();
    let lost = NewMessage { conversation_id: ConversationId::new(), ..new };
    let refused = db.messages().create(lost).await.unwrap_err();
    let shown = format!("{shown} {message:?} {refused:?} {refused}");
    assert!(shown.contains("NewMessage"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_message_sent_twice_with_its_identifier_is_stored_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let new = NewMessage::user(conversation.id, "once").id(MessageId::new());
    let stored = db.messages().create(new.clone()).await.unwrap();
    assert_eq!(Some(stored.id), new.id);
    let again = db.messages().create(new.clone()).await;
    assert!(matches!(again, Err(Error::Conflict(Constraint::MessagesPkey))), "{again:?}");
    let many = db.messages().create_many(vec![new]).await;
    assert!(matches!(many, Err(Error::Conflict(Constraint::MessagesPkey))), "{many:?}");
    assert_eq!(db.messages().list_by_conversation(conversation.id, 10, 0).await.unwrap().len(), 1);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn messages_with_identifiers_of_the_callers_come_back_in_the_order_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let conversation = conversation(&db).await;
    let ids: Vec<_> = (0..5).map(|_| MessageId::new()).collect();
    let new = ids.iter().rev().map(|id| NewMessage::user(conversation.id, "x").id(*id)).collect();
    let stored = db.messages().create_many(new).await.unwrap();
    assert!(stored.iter().map(|message| message.id).eq(ids.into_iter().rev()));
}
