//! The scripts that distribute the tables over machines: what can be told without a cluster, and the
//! whole of it where CITUS_TEST_URL names one. docs/scale.md says what Citus refuses.

mod cluster;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use chancery::{Database, NewMessage};
use sqlx::PgPool;

use crate::plans::Planner;
use crate::support::database::value;
use crate::support::{chunks, conversation, new_transcript, user};

pub const KEYS: &str = include_str!("../../../scripts/citus/1-keys.sql");
pub const DISTRIBUTE: &str = include_str!("../../../scripts/citus/2-distribute.sql");

/// Where a table's rows lie; one that the script does not name stays on the coordinator.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// By this column, on one of the machines.
    By(String),
    /// Whole, on each machine.
    Everywhere,
}

/// What the script says.
pub fn places() -> BTreeMap<String, Place> {
    let mut places = BTreeMap::new();
    for call in DISTRIBUTE.lines().filter_map(|line| line.strip_prefix("select create_")) {
        let names: Vec<_> = call.split('\'').collect();
        let place = match call.split_once('(').unwrap().0 {
            "reference_table" => Place::Everywhere,
            "distributed_table" => Place::By(names[3].to_owned()),
            other => panic!("create_{other}"),
        };
        places.insert(names[1].to_owned(), place);
    }
    assert_eq!(places.len(), 9, "{places:?}");
    places
}

#[derive(sqlx::FromRow)]
struct Key {
    name: String,
    from: String,
    to: String,
    columns: Vec<String>,
    referred: Vec<String>,
    on_update: String,
}

/// The tables that Citus would refuse to distribute as the script asks, each with a reason.
async fn refused(pool: &PgPool) -> BTreeSet<(String, String)> {
    let places = places();
    let mut refused = BTreeSet::new();
    let mut refuse = |table: &str, why: String| _ = refused.insert((table.to_owned(), why));

    let unique: Vec<(String, String, Vec<String>)> = sqlx::query_as(
        "select t.relname::text, i.relname::text,
                array(select attname::text from pg_attribute
                       where attrelid = indrelid and attnum = any(indkey::int2[]))
           from pg_index
           join pg_class t on t.oid = indrelid
           join pg_class i on i.oid = indexrelid
          where indisunique and t.relnamespace = current_schema::regnamespace",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for (table, index, columns) in unique {
        match places.get(&table) {
            Some(Place::By(column)) if !columns.contains(column) => {
                refuse(&table, format!("{index} is unique without {column}"));
            }
            _ => {}
        }
    }

    let nullable: Vec<(String, String)> = sqlx::query_as(
        "select relname::text, attname::text from pg_attribute join pg_class c on c.oid = attrelid
          where relnamespace = current_schema::regnamespace and attnum > 0 and not attnotnull",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for (table, column) in nullable {
        if places.get(&table) == Some(&Place::By(column.clone())) {
            refuse(&table, format!("{column} may be null"));
        }
    }

    let keys: Vec<Key> = sqlx::query_as(
        r#"select conname::text as name, f.relname::text as "from", t.relname::text as "to",
                  array(select attname::text from unnest(conkey) with ordinality k (attnum, place)
                          join pg_attribute a on attrelid = conrelid and a.attnum = k.attnum
                         order by place) as columns,
                  array(select attname::text from unnest(confkey) with ordinality k (attnum, place)
                          join pg_attribute a on attrelid = confrelid and a.attnum = k.attnum
                         order by place) as referred,
                  confupdtype::text as on_update
             from pg_constraint
             join pg_class f on f.oid = conrelid
             join pg_class t on t.oid = confrelid
            where contype = 'f' and connamespace = current_schema::regnamespace"#,
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for key in keys {
        let why = match (places.get(&key.from), places.get(&key.to)) {
            (_, Some(Place::Everywhere)) | (None, None) => continue,
            (Some(Place::By(from)), Some(Place::By(to))) => {
                let both = key.columns.iter().zip(&key.referred).any(|pair| pair == (from, to));
                match (both, key.on_update.as_str()) {
                    (false, _) => format!("{} does not hold the owner", key.name),
                    (true, "c" | "n" | "d") => format!("{} changes the owner", key.name),
                    (true, _) => continue,
                }
            }
            _ => format!("{} refers to what lies elsewhere", key.name),
        };
        refuse(&key.from, why);
    }

    let joins: Vec<String> = sqlx::query_scalar(
        "select relname::text
           from pg_trigger join pg_class c on c.oid = tgrelid join pg_proc p on p.oid = tgfoid
          where relnamespace = current_schema::regnamespace and tgnewtable is not null
            and prosrc ~ format('(in|from) \\(select [^)]*from %s', tgnewtable)",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for table in joins.iter().filter(|table| places.contains_key(*table)) {
        refuse(table, "a trigger joins its transition table".to_owned());
    }
    refused
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn after_the_script_no_table_would_be_refused(pool: PgPool) {
    let before = refused(&pool).await;
    let tables: BTreeSet<_> = before.iter().map(|(table, _)| table.as_str()).collect();
    let by_column: BTreeSet<_> =
        ["chunks", "conversations", "messages", "sessions", "transcripts", "user_preferences"]
            .into();
    assert_eq!(tables, by_column, "{before:#?}");
    println!("refused as the schema is: {before:#?}");

    sqlx::raw_sql(KEYS).execute(&pool).await.unwrap();
    let after = refused(&pool).await;
    assert!(after.is_empty(), "still refused: {after:#?}");

    // The check can fail: a key of the old form is seen.
    sqlx::raw_sql("alter table messages add unique (conversation_id, created_at, id)")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(refused(&pool).await.len(), 1);
}

/// What an application does on one server while the tables wait to be distributed.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_crate_works_with_the_other_keys(pool: PgPool) {
    sqlx::raw_sql(KEYS).execute(&pool).await.unwrap();
    let db = Database::from_pool(pool.clone());
    db.check_schema().await.unwrap();
    let conversation = conversation(&db).await;
    let message = db.messages().create(NewMessage::user(conversation.id, "Why?")).await.unwrap();
    assert_eq!(message.user_id, conversation.user_id);
    let touched = db.conversations().get_by_id(conversation.id).await.unwrap().unwrap();
    assert_eq!(touched.updated_at, message.created_at);
    assert_eq!(db.messages().get_last_n(conversation.id, 5).await.unwrap(), [message]);
    let owner = user(&db).await;
    let transcript = db.transcripts().create(new_transcript(owner.id)).await.unwrap();
    db.chunks().create_many(chunks(transcript.id, 5)).await.unwrap();
    assert_eq!(db.chunks().count_by_user(owner.id).await.unwrap(), 5);

    db.users().delete(owner.id).await.unwrap();
    db.users().delete(conversation.user_id).await.unwrap();
    let left: i64 =
        value(&pool, "select (select count(*) from chunks) + (select count(*) from messages)")
            .await;
    assert_eq!(left, 0);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn statements_keep_their_indexes_with_the_other_keys(pool: PgPool) {
    let mut connection = pool.acquire().await.unwrap();
    let mut planner = Planner::new(&mut connection).await;
    let statements = planner.statements().await;
    let mut before = Vec::new();
    for statement in &statements {
        before.push(planner.look_at(statement).await.faults);
    }
    drop(connection);
    sqlx::raw_sql(KEYS).execute(&pool).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    let mut planner = Planner::of_a_filled_database(&mut connection).await;
    for (statement, before) in statements.iter().zip(before) {
        let worse = planner.look_at(statement).await.faults;
        let worse: Vec<_> = worse.difference(&before).collect();
        assert!(worse.is_empty(), "{}: {worse:?}", statement.name);
    }
}
