//! Conversations that begin with messages: all of it by one statement.

use chancery::{
    Constraint, Database, Error, MAX_STATEMENT_BYTES, MAX_TEXT_BYTES, MessageDraft, MessageId,
    Reason, Role, UserId,
};
use serde_json::json;
use sqlx::PgPool;

use crate::support::{database::value, invalid, user};

fn turn() -> Vec<MessageDraft> {
    vec![
        MessageDraft::system("Be brief."),
        MessageDraft::user("Why the Moon? 🌕"),
        MessageDraft::assistant("Because it is hard.")
            .metadata(json!({"model": "m-1", "n": 1e300})),
    ]
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_conversation_begins_with_its_messages_in_the_order_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let begun = db.conversations().create_with_messages(owner, Some("Rice"), turn()).await.unwrap();
    let id = begun.conversation.id;
    assert_eq!(
        (begun.conversation.user_id, begun.conversation.title.as_deref()),
        (owner, Some("Rice"))
    );
    let said: Vec<_> = begun.messages.iter().map(|m| (m.role, m.content.as_str())).collect();
    assert_eq!(
        said,
        [
            (Role::System, "Be brief."),
            (Role::User, "Why the Moon? 🌕"),
            (Role::Assistant, "Because it is hard.")
        ]
    );
    // What came back is what is there, to the last field.
    assert_eq!(db.conversations().get_by_id(id).await.unwrap(), Some(begun.conversation));
    assert_eq!(db.messages().list_by_conversation(id, 10, 0).await.unwrap(), begun.messages);
    // One moment for all, so the identifiers keep the order.
    assert!(begun.messages.is_sorted_by_key(|m| m.id));
    assert!(begun.messages.iter().all(|m| m.created_at == begun.messages[0].created_at));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_conversation_may_begin_with_a_thousand_messages_or_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let many: Vec<_> = (0..1000).map(|i| MessageDraft::user(i.to_string())).collect();
    let begun = db.conversations().create_with_messages(owner, None, many).await.unwrap();
    let said: Vec<i32> = begun.messages.iter().map(|m| m.content.parse().unwrap()).collect();
    assert_eq!(said, (0..1000).collect::<Vec<_>>());
    let empty = db.conversations().create_with_messages(owner, None, Vec::new()).await.unwrap();
    assert!(empty.messages.is_empty());
    let read = db.conversations().get_by_id(empty.conversation.id).await.unwrap();
    assert_eq!(read, Some(empty.conversation));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_is_refused_leaves_no_conversation(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let owner = user(&db).await.id;
    let begin = async |owner, title: Option<&str>, messages| {
        db.conversations().create_with_messages(owner, title, messages).await
    };
    // By the server.
    let nobody = begin(UserId::new(), None, turn()).await.unwrap_err();
    assert_eq!(nobody.constraint(), Some(Constraint::ConversationsUserIdFkey));
    let id = MessageId::new();
    let twice = vec![MessageDraft::user("a").id(id), MessageDraft::user("b").id(id)];
    let twice = begin(owner, None, twice).await.unwrap_err();
    assert!(matches!(twice, Error::Conflict(Constraint::MessagesPkey)), "{twice:?}");
    // Before it.
    let nul = invalid(begin(owner, None, vec![MessageDraft::user("\0")]).await);
    assert_eq!((nul.field, nul.reason), ("content", Reason::ContainsNul));
    let title = "x".repeat(501);
    assert_eq!(invalid(begin(owner, Some(&title), turn()).await).field, "title");
    let notes = vec![MessageDraft::user("a").metadata(json!({"\0": 1}))];
    assert_eq!(invalid(begin(owner, None, notes).await).field, "metadata");
    let large = vec![MessageDraft::user("x".repeat(MAX_TEXT_BYTES)); 5];
    let large = invalid(begin(owner, None, large).await);
    let max = MAX_STATEMENT_BYTES;
    assert_eq!((large.field, large.reason), ("messages", Reason::TooLarge { max }));
    assert_eq!(value::<i64>(&pool, "select count(*) from conversations").await, 0);
    assert_eq!(value::<i64>(&pool, "select count(*) from messages").await, 0);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_beginning_is_part_of_its_unit_of_work(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let owner = user(&db).await.id;
    let mut uow = db.begin().await.unwrap();
    let begun = uow.conversations().create_with_messages(owner, None, turn()).await.unwrap();
    assert_eq!(uow.messages().get_last_n(begun.conversation.id, 1).await.unwrap().len(), 1);
    uow.rollback().await.unwrap();
    assert_eq!(value::<i64>(&pool, "select count(*) from conversations").await, 0);
}
