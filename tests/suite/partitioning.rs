//! The scripts that partition messages, run on a filled copy while others write.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use chancery::{Constraint, Database, Error, MessageId, NewMessage};
use serde_json::json;
use sqlx::PgPool;

use crate::plans::Planner;
use crate::support::database::{eventually, value};
use crate::support::{all_pages, conversation, messages, user};

const PREPARE: &str = include_str!("../../scripts/partition-messages/1-prepare.sql");
const COPY: &str = "call copy_messages(7)";
const SWAP: &str = include_str!("../../scripts/partition-messages/3-swap.sql");

/// Each script on a connection of its own, as psql has it.
async fn run(pool: &PgPool, script: &'static str) {
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql(script).execute(&mut *connection).await.unwrap();
    connection.detach();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn messages_are_partitioned_while_others_write_and_none_is_lost(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut conversations = Vec::new();
    for _ in 0..20 {
        let conversation = conversation(&db).await;
        db.messages().create_many(messages(&conversation, 30)).await.unwrap();
        conversations.push(conversation);
    }
    let before: i64 = value(&pool, "select count(*) from messages").await;
    assert_eq!(before, 600);

    // Writes all the time: new ones, changed ones, deleted ones.
    let done = Arc::new(AtomicBool::new(false));
    let turns = Arc::new(AtomicUsize::new(0));
    let writer = tokio::spawn({
        let conversations = conversations.clone();
        let (db, done, turns) = (db.clone(), Arc::clone(&done), Arc::clone(&turns));
        async move {
            let mut kept = BTreeSet::<MessageId>::new();
            while !done.load(SeqCst) {
                let turn = turns.fetch_add(1, SeqCst);
                let of = &conversations[turn % conversations.len()];
                let written = db.messages().create(NewMessage::user(of.id, "new")).await.unwrap();
                kept.insert(written.id);
                let old = db.messages().get_last_n(of.id, 30).await.unwrap();
                let changed = old[turn % 10].id;
                db.messages().update(changed, "changed", &json!({"turn": turn})).await.unwrap();
                let deleted = old[10 + turn % 10].id;
                db.messages().delete(deleted).await.unwrap();
                kept.remove(&deleted);
            }
            kept
        }
    });
    let writes_go_on = async || {
        let before = turns.load(SeqCst);
        eventually("the writer goes on", async || turns.load(SeqCst) > before + 3).await;
    };
    for script in [PREPARE, COPY, SWAP] {
        writes_go_on().await;
        run(&pool, script).await;
    }
    writes_go_on().await;
    done.store(true, SeqCst);
    let kept = writer.await.unwrap();

    for id in &kept {
        assert!(db.messages().get_by_id(*id).await.unwrap().is_some(), "{id:?} is lost");
    }
    // The old table as it was when the new one took its place: the rows that nobody touched since.
    let lost: i64 = value(
        &pool,
        "select count(*) from (
             select * from messages_before where content like 'message %'
             except all select * from messages) lost
          where id not in (select id from messages where content = 'changed')",
    )
    .await;
    let deleted_since: i64 = value(
        &pool,
        "select count(*) from messages_before b where content like 'message %'
            and not exists (select from messages m where m.id = b.id)",
    )
    .await;
    assert_eq!(lost, deleted_since, "rows were lost, or not copied as they are");
    let partitions: i64 = value(&pool, "select count(distinct tableoid) from messages").await;
    assert!(partitions > 4, "{partitions} partitions hold all conversations");
}

/// Names and rules that the crate, its users and other programs rely on.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_partitioned_table_has_what_the_plain_one_had(pool: PgPool) {
    const RULES: &str = "
        select string_agg(line, E'\\n' order by line) from (
            select conname || ' ' || pg_get_constraintdef(oid) as line
              from pg_constraint where conrelid = 'messages'::regclass and contype <> 'p'
            union all
            select tgname || ' ' || tgfoid::regproc || ' ' || tgtype || coalesce(tgnewtable, '')
              from pg_trigger where tgrelid = 'messages'::regclass and not tgisinternal
            union all
            select regexp_replace(pg_get_indexdef(indexrelid), ' ON (ONLY )?', ' ON ')
              from pg_index where indrelid = 'messages'::regclass and not indisprimary
            union all
            select attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attnotnull || ' '
                   || coalesce(pg_get_expr(adbin, adrelid), '')
              from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
             where attrelid = 'messages'::regclass and attnum > 0
            union all
            select polname || ' ' || polcmd::text || polroles::text
                   || coalesce(pg_get_expr(polqual, polrelid), '')
                   || coalesce(pg_get_expr(polwithcheck, polrelid), '')
              from pg_policy where polrelid = 'messages'::regclass
            union all
            select relrowsecurity || ' ' || relforcerowsecurity || ' ' || relowner::regrole || ' '
                   || coalesce(array_sort(relacl::text[])::text, '')
              from pg_class where oid = 'messages'::regclass) rules";
    sqlx::raw_sql(
        "create function array_sort(text[]) returns text[] language sql
             return array(select a from unnest($1) a order by a collate \"C\")",
    )
    .execute(&pool)
    .await
    .unwrap();
    let before: String = value(&pool, RULES).await;
    run(&pool, PREPARE).await;
    run(&pool, COPY).await;
    run(&pool, SWAP).await;
    let after: String = value(&pool, RULES).await;
    assert_eq!(after, before);
    let key: String = value(
        &pool,
        "select pg_get_constraintdef(oid) from pg_constraint where conname = 'messages_pkey'",
    )
    .await;
    assert_eq!(key, "PRIMARY KEY (id, conversation_id)");

    let db = Database::from_pool(pool.clone());
    db.check_schema().await.unwrap();
    let owned = conversation(&db).await;
    let first = db.messages().create(NewMessage::user(owned.id, "Why?")).await.unwrap();
    let touched = db.conversations().get_by_id(owned.id).await.unwrap().unwrap();
    assert_eq!(touched.updated_at, first.created_at);
    db.messages().create_many(messages(&owned, 20)).await.unwrap();
    let page = all_pages(6, async |page| db.messages().page_by_conversation(owned.id, page).await);
    assert_eq!(page.await.len(), 21);
    assert_eq!(db.messages().get_last_n(owned.id, 2).await.unwrap()[1].content, "message 19");
    db.messages().update(first.id, "How?", &json!({"a": 1})).await.unwrap();
    let found = db.messages().list_by_metadata(owned.user_id, &json!({"a": 1}), 5).await.unwrap();
    assert_eq!(found.len(), 1);

    let twice = db.messages().create(NewMessage::user(owned.id, "Why?").id(first.id)).await;
    match twice {
        Err(Error::Conflict(constraint)) => assert_eq!(constraint, Constraint::MessagesPkey),
        other => panic!("{other:?}"),
    }
    let nowhere = chancery::ConversationId::new();
    let refused = db.messages().create(NewMessage::user(nowhere, "Why?")).await;
    assert!(matches!(refused, Err(Error::ForeignKey(..))), "{refused:?}");
    // The owner changes, and the account goes, with all that is in it.
    let heir = user(&db).await;
    sqlx::query("update conversations set user_id = $1")
        .bind(heir.id.as_uuid())
        .execute(&pool)
        .await
        .unwrap();
    let moved = db.messages().get_by_id(first.id).await.unwrap().unwrap();
    assert_eq!(moved.user_id, heir.id);
    db.users().delete(heir.id).await.unwrap();
    let left: i64 = value(&pool, "select count(*) from messages").await;
    assert_eq!(left, 0);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn statements_keep_their_indexes_on_partitions(pool: PgPool) {
    let mut connection = pool.acquire().await.unwrap();
    let mut planner = Planner::new(&mut connection).await;
    let statements = planner.statements().await;
    let mut before = Vec::new();
    for statement in &statements {
        before.push(planner.look_at(statement).await.faults);
    }
    drop(connection);
    run(&pool, PREPARE).await;
    run(&pool, COPY).await;
    run(&pool, SWAP).await;

    let mut connection = pool.acquire().await.unwrap();
    // Of arguments that are null no partition would be read at all.
    sqlx::raw_sql("analyze; set enable_partition_pruning = off")
        .execute(&mut *connection)
        .await
        .unwrap();
    let mut planner = Planner::of_a_filled_database(&mut connection).await;
    let mut partitioned = 0;
    for (statement, before) in statements.iter().zip(before) {
        let look = planner.look_at(statement).await;
        partitioned +=
            usize::from(look.indexes.iter().any(|name| name.starts_with("messages_p1_")));
        let worse: Vec<_> = look.faults.difference(&before).collect();
        assert!(worse.is_empty(), "{}: {worse:?}", statement.name);
    }
    assert!(partitioned >= 8, "{partitioned} statements read partitions");
}
