//! What another client can write past this crate's checks: refused by the tables, or read without harm.

use chancery::{Database, Error};
use serde_json::Value;
use sqlx::PgPool;

use crate::support::intake::{account, borrower_of, document, income};
use crate::support::{
    chunks, conversation, job, messages, new_template, token_hash, transcript, user,
};

/// One row in every table.
async fn a_row_everywhere(db: &Database) {
    let owner = user(db).await.id;
    db.user_preferences().create(owner, Default::default()).await.unwrap();
    let day = std::time::Duration::from_secs(86_400);
    db.sessions().create_for(owner, &token_hash(), day).await.unwrap();
    let conversation = conversation(db).await;
    db.messages().create_many(messages(&conversation, 1)).await.unwrap();
    let transcript = transcript(db).await;
    db.chunks().create_many(chunks(transcript.id, 1)).await.unwrap();
    db.templates().create_template(new_template(None)).await.unwrap();
    db.config().set_value("k", &Value::Null, None).await.unwrap();
    let document = document(db).await;
    let borrower = borrower_of(&[document.id]).income(income(1)).account(account("1"));
    db.borrowers().create(borrower).await.unwrap();
    job(db).await;
}

/// The columns of some types, as `table.column`, and the same quoted for a statement.
async fn columns(db: &Database, types: &[&str]) -> Vec<(String, String)> {
    sqlx::query_as(
        "select relname::text, attname::text
           from pg_attribute join pg_class c on c.oid = attrelid
          where relnamespace = current_schema::regnamespace and relkind in ('r', 'p')
            and relname not like '\\_%\\_migrations' and attnum > 0 and not attisdropped
            and atttypid::regtype::text = any($1)
          order by 1, 2",
    )
    .bind(types)
    .fetch_all(db.executor())
    .await
    .unwrap()
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn no_table_takes_a_time_that_cannot_be_read(pool: PgPool) {
    let db = Database::from_pool(pool);
    a_row_everywhere(&db).await;
    let columns = columns(&db, &["timestamp with time zone", "date"]).await;
    assert!(columns.len() >= 25, "{columns:?}");
    for (table, column) in columns {
        let mut uow = db.begin().await.unwrap();
        // Triggers set some of the times: they are not what this is about.
        let set = |value: &str| {
            sqlx::AssertSqlSafe(format!(
                "update {table} set {column} = '{value}'{}",
                // What a lease's time needs beside it.
                match (&*table, &*column) {
                    ("documents", "lease_expires_at") => {
                        ", status = 'processing', lease_token = gen_random_uuid()"
                    }
                    ("extraction_jobs", "lease_expires_at") => {
                        ", status = 'processing', lease_token = gen_random_uuid()"
                    }
                    _ => "",
                }
            ))
        };
        sqlx::raw_sql("set local session_replication_role = replica")
            .execute(uow.executor())
            .await
            .unwrap();
        for edge in ["0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"] {
            let kept: Result<_, Error> =
                sqlx::raw_sql(set(edge)).execute(uow.executor()).await.map_err(Error::from);
            assert!(kept.unwrap().rows_affected() > 0, "{table}.{column}: {edge}");
        }
        for far in
            ["infinity", "-infinity", "10000-01-01 00:00:00+00", "294276-12-31", "0001-12-31 BC"]
        {
            let refused: Result<(), Error> = uow
                .transaction(async |uow| {
                    sqlx::raw_sql(set(far)).execute(uow.executor()).await?;
                    Ok(())
                })
                .await;
            assert!(
                matches!(refused, Err(Error::Check(_))),
                "{table}.{column}: {far}: {refused:?}"
            );
        }
        uow.rollback().await.unwrap();
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn json_that_this_crate_would_refuse_is_read_or_reported(pool: PgPool) {
    let db = Database::from_pool(pool);
    db.config().set_value("k", &Value::Null, None).await.unwrap();
    let c = conversation(&db).await;
    let m = db.messages().create_many(messages(&c, 1)).await.unwrap().remove(0);
    let array = format!("[{}]", vec!["1"; 65_536].join(","));
    let object =
        format!("{{{}}}", Vec::from_iter((0..20_000).map(|n| format!("\"{n}\":{n}"))).join(","));
    for drop in [
        "alter table config drop constraint config_value_check",
        "alter table messages drop constraint messages_metadata_check",
    ] {
        sqlx::query(drop).execute(db.executor()).await.unwrap();
    }
    for (text, readable) in [
        (format!("{}1{}", "[".repeat(100), "]".repeat(100)), true),
        (format!("{}1{}", "[".repeat(200), "]".repeat(200)), false),
        (format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200)), false),
        (format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000)), false),
        ("1e400".into(), false),
        ("[-1e131071]".into(), false),
        ("1e-400".into(), true),
        (format!("0.{}", "1".repeat(16_000)), true),
        ("1".repeat(300), true),
        ("18446744073709551616".into(), true),
        (array, true),
        (object, true),
        ("[\"\\u0001\\ud83d\\ude00\\uffff\"]".into(), true),
        ("{\"\": {\"\": 0}, \"a\": 1, \"a\": 2}".into(), true),
    ] {
        let shown = &text[..text.len().min(30)];
        sqlx::query("update config set value = $1::text::jsonb")
            .bind(&text)
            .execute(db.executor())
            .await
            .unwrap();
        sqlx::query("update messages set metadata = $1::text::jsonb")
            .bind(&text)
            .execute(db.executor())
            .await
            .unwrap();
        let mut uow = db.begin().await.unwrap();
        for read in [
            uow.config().get_value("k").await.map(drop),
            uow.config().list(10, 0).await.map(drop),
            uow.messages().get_by_id(m.id).await.map(drop),
            uow.messages().list_by_conversation(c.id, 10, 0).await.map(drop),
        ] {
            let told = matches!(read, Ok(()) | Err(Error::Decode(_) | Error::Unreadable { .. }));
            assert!(told, "{shown}…: {read:?}");
            assert_eq!(read.is_ok(), readable, "{shown}…");
        }
        // A value that can't be read breaks neither the connection nor the unit of work.
        uow.config().set_value("other", &Value::Null, None).await.unwrap();
        uow.config().delete("other").await.unwrap();
        uow.commit().await.unwrap();
    }
}
