//! The example's service, as its clients see it.

use axum::http::StatusCode;
use chancery::{ConversationId, Database, PageRequest, UserId};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::chat::{Scripted, service_with};
use super::{Server, database};
use crate::support::{conversation, conversation_of, messages, user};

async fn service(db: &Database) -> Server {
    let model = |_, question| stream::iter([Ok("You ask: ".to_owned()), Ok(question)]).boxed();
    service_with(db, Scripted(model)).await
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// The ids of all pages, each of at most `size`.
async fn walk(server: Server, path: &str, size: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let answer = server.get(&format!("{path}?size={size}&after={after}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let page = answer.json();
        assert!(ids(&page).len() <= size);
        all.extend(ids(&page));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return all,
        }
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn health_tells_what_a_load_balancer_needs(pool: PgPool) {
    let db = database(&pool, 1).await;
    let server = service(&db).await;
    let mut expected = json!({
        "status": "healthy",
        "app_name": "axum_service",
        "environment": "test",
        "version": env!("CARGO_PKG_VERSION"),
        "database": "connected",
    });
    let answer = server.get("/health").await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, expected.clone()));

    db.close().await;
    expected["status"] = "unhealthy".into();
    expected["database"] = "disconnected".into();
    let answer = server.get("/health").await;
    assert_eq!((answer.status, answer.json()), (StatusCode::SERVICE_UNAVAILABLE, expected));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_database_test_counts_projects(pool: PgPool) {
    let insert = sqlx::query("insert into projects (name) values ('one'), ('two')");
    insert.execute(&pool).await.unwrap();
    let answer = service(&Database::from_pool(pool)).await.get("/api/v1/db-test").await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["database"], "connected");
    assert_eq!(body["provider"], "PostgreSQL");
    assert_eq!(body["projects_count"], 2);
    assert!(body["message"].is_string());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn users_are_created_read_and_patched(pool: PgPool) {
    let server = service(&Database::from_pool(pool)).await;
    let new = json!({"email": "ada@example.org", "name": "Ada"});
    let created = server.post("/users", new.clone()).await;
    assert_eq!(created.status, 201);
    let path = format!("/users/{}", created.json()["id"].as_str().unwrap());
    assert_eq!(server.get(&path).await.json(), created.json());
    assert!(!created.text.contains("password"));

    let again = server.post("/users", new).await;
    assert_eq!((again.status.as_u16(), &*again.code()), (409, "conflict"));
    let bad = server.post("/users", json!({"email": "no address"})).await;
    assert_eq!((bad.status.as_u16(), &*bad.code()), (422, "invalid_input"));
    let unknown = server.get(&format!("/users/{}", UserId::new())).await;
    assert_eq!((unknown.status.as_u16(), &*unknown.code()), (404, "not_found"));

    let patch = async |body: Value| server.send("PATCH", &path, body.to_string()).await;
    let patched = patch(json!({"profession": "analyst"})).await.json();
    assert_eq!((&patched["name"], &patched["profession"]), (&json!("Ada"), &json!("analyst")));
    let patched = patch(json!({"name": null})).await.json();
    assert_eq!((&patched["name"], &patched["profession"]), (&Value::Null, &json!("analyst")));
    // Not theirs to change.
    assert_eq!(patch(json!({"is_active": false})).await.status, 422);
    assert_eq!(patch(json!({"timezone": null})).await.status, 422);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn conversations_page_to_the_end_with_their_last_message(pool: PgPool) {
    let db = Database::from_pool(pool);
    let server = service(&db).await;
    let ada = user(&db).await;
    let path = format!("/users/{}/conversations", ada.id);
    let created = server.post(&path, json!({"title": "Rice speech"})).await;
    assert_eq!((created.status.as_u16(), &created.json()["title"]), (201, &json!("Rice speech")));
    for _ in 0..6 {
        let conversation = conversation_of(&db, ada.id).await;
        db.messages().create_many(messages(&conversation, 2)).await.unwrap();
    }
    let all = db.conversations().list_by_user(ada.id, 100, 0).await.unwrap();
    let all: Vec<_> = all.iter().map(|conversation| conversation.id.to_string()).collect();
    for size in [1, 2, 3, 7, 8] {
        assert_eq!(walk(server, &path, size).await, all, "pages of {size}");
    }
    let page = server.get(&path).await.json();
    assert_eq!(page["items"][0]["last_message"]["content"], "message 1");
    assert_eq!(page["items"][6]["last_message"], Value::Null);

    let nobody = format!("/users/{}/conversations", UserId::new());
    assert_eq!(server.post(&nobody, json!({"title": null})).await.status, 404);
    assert_eq!(server.get(&nobody).await.json(), json!({"items": [], "next": null}));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_document_is_stored_once_and_shown_to_its_owner(pool: PgPool) {
    let db = Database::from_pool(pool);
    let server = service(&db).await;
    let (ada, bob) = (user(&db).await, user(&db).await);
    let path = |id| format!("/users/{id}/documents");
    let upload = |digit: &str| {
        let hash = digit.repeat(64);
        json!({"filename": "w2.pdf", "file_hash": hash, "file_type": "pdf", "file_size_bytes": 9})
    };
    let created = server.post(&path(ada.id), upload("a")).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let again = server.post(&path(ada.id), upload("A")).await;
    assert_eq!((again.status, again.json()), (StatusCode::OK, created.json()));
    let others = server.post(&path(bob.id), upload("a")).await;
    assert_eq!(others.status, 201, "a content is each user's own: {}", others.text);
    assert_ne!(others.json()["id"], created.json()["id"]);
    assert_eq!(server.post(&path(UserId::new()), upload("b")).await.status, 404);
    assert_eq!(server.post(&path(ada.id), upload("no")).await.status, 422);

    for digit in ["1", "2", "3"] {
        assert_eq!(server.post(&path(ada.id), upload(digit)).await.status, 201);
    }
    let all = db.documents().page_by_user(ada.id, PageRequest::first(10)).await.unwrap().items;
    let all: Vec<_> = all.iter().map(|document| document.id.to_string()).collect();
    for size in [1, 3, 4, 5] {
        assert_eq!(walk(server, &path(ada.id), size).await, all, "pages of {size}");
    }
    assert_eq!(walk(server, &path(bob.id), 10).await, [others.json()["id"].as_str().unwrap()]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_page_that_can_not_be_is_invalid_input(pool: PgPool) {
    let db = Database::from_pool(pool);
    let server = service(&db).await;
    let conversation = conversation(&db).await;
    db.messages().create_many(messages(&conversation, 3)).await.unwrap();
    let page = db.messages().page_by_conversation(conversation.id, PageRequest::first(1));
    let cursor = page.await.unwrap().next.unwrap().to_string();
    let damaged = format!("{}=", &cursor[..cursor.len() - 1]);
    for path in [
        format!("/conversations/{}/messages", conversation.id),
        format!("/users/{}/conversations", conversation.user_id),
        format!("/users/{}/documents", conversation.user_id),
    ] {
        // It is a place in one list, and the others refuse it.
        let expected = if path.ends_with("messages") { 200 } else { 422 };
        assert_eq!(server.get(&format!("{path}?after={cursor}")).await.status, expected);
        for query in [&*format!("after={damaged}"), "after=%00", "size=0", "size=1001", "size=all"]
        {
            let answer = server.get(&format!("{path}?{query}")).await;
            assert_eq!(
                (answer.status.as_u16(), &*answer.code()),
                (422, "invalid_input"),
                "{query}"
            );
        }
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_turn_is_appended_whole_or_not_at_all(pool: PgPool) {
    let db = Database::from_pool(pool);
    let server = service(&db).await;
    let conversation = conversation(&db).await;
    let path = format!("/conversations/{}/messages", conversation.id);
    let turn = |answer: &str| {
        json!([
            {"role": "user", "content": "Why the Moon?"},
            {"role": "assistant", "content": answer},
        ])
    };

    let refused = server.post(&path, turn("nul \0")).await;
    assert_eq!((refused.status.as_u16(), &*refused.code()), (422, "invalid_input"));
    let untouched = db.conversations().get_by_id(conversation.id).await.unwrap();
    assert_eq!(untouched.unwrap().title, None, "the title was rolled back");
    assert_eq!(walk(server, &path, 10).await, [""; 0]);

    for _ in 0..4 {
        let appended = server.post(&path, turn("Because it is hard.")).await;
        assert_eq!(appended.status, 201, "{}", appended.text);
        assert_eq!(appended.json().as_array().unwrap().len(), 2);
    }
    let titled = db.conversations().get_by_id(conversation.id).await.unwrap();
    assert_eq!(titled.unwrap().title.as_deref(), Some("Why the Moon?"));
    let all = db.messages().list_by_conversation(conversation.id, 100, 0).await.unwrap();
    let all: Vec<_> = all.iter().map(|message| message.id.to_string()).collect();
    assert_eq!(all.len(), 8);
    for size in [1, 3, 8, 9] {
        assert_eq!(walk(server, &path, size).await, all, "pages of {size}");
    }

    let nowhere = format!("/conversations/{}/messages", ConversationId::new());
    assert_eq!(server.post(&nowhere, turn("")).await.status, 404);
    let unknown = server.get(&nowhere).await;
    assert_eq!((unknown.status.as_u16(), &*unknown.code()), (404, "not_found"));
}
