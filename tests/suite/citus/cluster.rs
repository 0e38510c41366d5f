//! On a real cluster: CITUS_TEST_URL names an empty database of its coordinator, with the extension and
//! with all nodes added.

use std::io::Write as _;

use chancery::{Database, DatabaseConfig, NewMessage, PageRequest};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::rules::REFUSED;
use super::{DISTRIBUTE, KEYS, places};
use crate::support::{new_user, statements, token_hash};

#[tokio::test]
async fn on_a_cluster_the_tables_are_distributed_and_the_statements_run() {
    let Ok(url) = std::env::var("CITUS_TEST_URL") else {
        // Not by a macro, whose output the test harness keeps to itself.
        let said = "SKIPPED: no Citus cluster was tested: CITUS_TEST_URL is not set\n";
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        return;
    };
    let config = DatabaseConfig::builder().url(&url).build().unwrap();
    let db = Database::connect(&config).await.unwrap();
    db.migrate().await.unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for script in [KEYS, DISTRIBUTE] {
        sqlx::raw_sql(script).execute(&mut connection).await.unwrap();
    }
    let spread: i64 = sqlx::query_scalar("select count(*) from citus_tables")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(spread >= places().len() as i64, "{spread} tables are known to Citus");

    // Each statement is planned; those that are listed as refused are, and no other.
    let mut wrong = Vec::new();
    for statement in statements::of_the_crate() {
        let nulls = vec!["null"; statement.parameters].join(", ");
        let arguments = if nulls.is_empty() { nulls } else { format!("({nulls})") };
        let script = format!(
            "prepare planned as {}; explain execute planned{arguments}; deallocate planned",
            statement.text
        );
        let planned = sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut connection).await;
        if planned.is_err() {
            _ = sqlx::raw_sql("deallocate planned").execute(&mut connection).await;
        }
        let listed = statement.name.split(", ").any(|n| REFUSED.contains(&n));
        match (planned, listed) {
            (Err(error), false) => wrong.push(format!("{} is refused: {error}", statement.name)),
            (Ok(_), true) => wrong.push(format!("{} is not refused", statement.name)),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // One user's work, by what names the user.
    let user = db.users().create(new_user()).await.unwrap();
    let conversation = db.conversations().create(user.id, Some("Rice speech")).await.unwrap();
    let messages = || db.messages().owned_by(user.id);
    let id =
        messages().create(NewMessage::user(conversation.id, "Why the Moon?")).await.unwrap().id;
    let turn = vec![
        NewMessage::assistant(conversation.id, "Because it is hard."),
        NewMessage::user(conversation.id, "Why else?"),
    ];
    messages().create_many(turn).await.unwrap();
    let last = messages().get_last_n(conversation.id, 5).await.unwrap();
    assert_eq!((last.len(), last[0].id), (3, id));
    let page = db.conversations().page_with_last_message(user.id, PageRequest::first(5)).await;
    assert_eq!(page.unwrap().items[0].last_message.as_ref().unwrap().id, last[2].id);
    let touched = db.conversations().get_by_id(conversation.id).await.unwrap().unwrap();
    assert_eq!(touched.updated_at, last[2].created_at);
    let list = db.conversations().list_by_user(user.id, 10, 0).await.unwrap();
    assert_eq!(list, [touched]);
    let token = token_hash();
    let lasting = std::time::Duration::from_secs(60);
    db.sessions().create_for(user.id, &token, lasting).await.unwrap();
    assert!(db.sessions().get_by_token(&token).await.unwrap().is_some());
    // A write that Citus refuses is an error, and nothing is half done.
    let refused = db.messages().create(NewMessage::user(conversation.id, "Why?")).await;
    assert!(refused.is_err());
    db.users().delete(user.id).await.unwrap();
    assert!(db.messages().get_by_id(id).await.unwrap().is_none());
    db.close().await;
}
