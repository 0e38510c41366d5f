//! Every statement of the crate is planned, and so is every foreign key's lookup: none reads a whole
//! table or sorts without a bound, and every index is there for a reason.
//!
//! The plans are generic; sequential scans, sorts and joins by other means than a lookup are off: one
//! that is left is one that no index spares.

mod plan;
mod reasons;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Row};

use crate::support::statements::{self, Statement};
use plan::{Catalogue, Index, Plan};
use reasons::{ACCEPTED, KEPT};

const SETTINGS: &str = "set plan_cache_mode = force_generic_plan;
    set enable_seqscan = off;
    set enable_sort = off;
    set enable_incremental_sort = off;
    set enable_hashjoin = off;
    set enable_mergejoin = off;
    set enable_material = off";

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn no_statement_reads_a_whole_table_or_sorts_without_a_bound(pool: PgPool) {
    let mut connection = pool.acquire().await.unwrap();
    let mut planner = Planner::new(&mut connection).await;
    let (mut refused, mut used) = (Vec::new(), BTreeSet::new());
    for statement in planner.statements().await {
        for fault in planner.look_at(&statement).await.faults {
            match ACCEPTED.iter().find(|(name, what, _)| *name == statement.name && *what == fault)
            {
                Some(accepted) => _ = used.insert(accepted),
                None => refused.push(format!("{} {fault}", statement.name)),
            }
        }
    }
    assert!(refused.is_empty(), "no index serves it:\n  {}", refused.join("\n  "));
    let stale: Vec<_> = ACCEPTED.iter().filter(|accepted| !used.contains(accepted)).collect();
    assert!(stale.is_empty(), "accepted, but it does not happen any more: {stale:#?}");
}

/// Takes away each index in turn. Some statement must then be refused, or the index has another
/// reason, which is listed.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn every_index_is_needed_by_a_statement_or_has_another_reason(pool: PgPool) {
    let mut connection = pool.acquire().await.unwrap();
    let mut planner = Planner::new(&mut connection).await;
    let statements = planner.statements().await;
    let mut looks = Vec::new();
    for statement in &statements {
        looks.push(planner.look_at(statement).await);
    }

    let mut needed = BTreeMap::<String, Vec<&str>>::new();
    for index in planner.catalogue.indexes.keys() {
        needed.insert(index.clone(), Vec::new());
    }
    for (index, by) in &mut needed {
        planner.set_valid(index, false).await;
        for (statement, before) in statements.iter().zip(&looks) {
            // A plan that does not read it stays as it is.
            if before.indexes.contains(index)
                && !planner.look_at(statement).await.faults.is_subset(&before.faults)
            {
                by.push(&statement.name);
            }
        }
        planner.set_valid(index, true).await;
    }

    let kept = |index: &str| KEPT.iter().find(|(name, _)| *name == index).map(|(_, why)| *why);
    let idle: Vec<_> = needed.iter().filter(|(i, by)| by.is_empty() && kept(i).is_none()).collect();
    assert!(idle.is_empty(), "no statement needs these indexes, and nothing else: {idle:?}");
    for (index, _) in KEPT {
        let by = needed.get(*index).unwrap_or_else(|| panic!("{index} does not exist"));
        assert!(by.is_empty(), "{index} needs no other reason: {by:?} need it");
    }
    compare_with_the_documentation(&document(
        &planner.version().await,
        &needed,
        &statements,
        &looks,
    ));
}

/// The check itself can fail: without their indexes, these statements are named.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_dropped_index_is_told_by_the_name_of_its_statement(pool: PgPool) {
    let mut connection = pool.acquire().await.unwrap();
    for (index, name, fault) in [
        (
            "messages_conversation_id_created_at_idx",
            "MessageRepository::get_last_n",
            "reads all of messages",
        ),
        ("messages_created_at_idx", "MessageRepository::count_since", "reads all of"),
        ("sessions_user_id_idx", "sessions_user_id_fkey", "reads all of sessions"),
        ("users_email_key", "UserRepository::get_by_email", "reads all of users"),
    ] {
        let mut transaction = connection.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("drop index {index}")))
            .execute(&mut *transaction)
            .await
            .unwrap();
        let mut planner = Planner::new(&mut transaction).await;
        let statements = planner.statements().await;
        let of_that_name = statements.iter().find(|s| s.name.starts_with(name)).unwrap();
        let faults = planner.look_at(of_that_name).await.faults;
        assert!(faults.iter().any(|f| f.starts_with(fault)), "{index}: {faults:?}");
        transaction.rollback().await.unwrap();
    }
    // The index that was there once, without the id: a page sorts the whole conversation.
    let mut transaction = connection.begin().await.unwrap();
    sqlx::raw_sql(
        "drop index messages_conversation_id_created_at_idx;
         create index shorter_idx on messages (conversation_id, created_at)",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    let mut planner = Planner::new(&mut transaction).await;
    let statements = planner.statements().await;
    let page = statements.iter().find(|s| s.name.ends_with("page_by_conversation")).unwrap();
    let faults = planner.look_at(page).await.faults;
    assert!(faults.iter().any(|f| f.starts_with("sorts by ")), "{faults:?}");
    transaction.rollback().await.unwrap();
}

/// What one statement's plan reads, and what is wrong with it.
pub struct Look {
    pub indexes: BTreeSet<String>,
    pub faults: BTreeSet<String>,
}

pub struct Planner<'c> {
    connection: &'c mut PgConnection,
    catalogue: Catalogue,
}

impl<'c> Planner<'c> {
    pub async fn new(connection: &'c mut PgConnection) -> Self {
        sqlx::raw_sql(include_str!("rows.sql")).execute(&mut *connection).await.unwrap();
        Self::of_a_filled_database(connection).await
    }

    pub async fn of_a_filled_database(connection: &'c mut PgConnection) -> Self {
        sqlx::raw_sql(SETTINGS).execute(&mut *connection).await.unwrap();
        let catalogue = catalogue(connection).await;
        Self { connection, catalogue }
    }

    /// The crate's statements, and what the server does by itself for each foreign key: when the row
    /// that it refers to is deleted, and when a row that refers is written.
    pub async fn statements(&mut self) -> Vec<Statement> {
        let mut statements = statements::of_the_crate();
        let keys: Vec<(String, i32, String, String)> = sqlx::query_as(
            "select conname::text, cardinality(conkey),
                    format('delete from only %s where %s', conrelid::regclass,
                           (select string_agg(format('%I = $%s', attname, place), ' and ')
                              from unnest(conkey) with ordinality k (attnum, place)
                              join pg_attribute a on attrelid = conrelid and a.attnum = k.attnum)),
                    format('select 1 from only %s x where %s for key share of x', confrelid::regclass,
                           (select string_agg(format('%I = $%s', attname, place), ' and ')
                              from unnest(confkey) with ordinality k (attnum, place)
                              join pg_attribute a on attrelid = confrelid and a.attnum = k.attnum))
               from pg_constraint
              where contype = 'f' and connamespace = current_schema::regnamespace
              order by conname collate \"C\"",
        )
        .fetch_all(&mut *self.connection)
        .await
        .unwrap();
        for (key, parameters, delete, check) in keys {
            let parameters = parameters as usize;
            statements.push(Statement {
                name: key.clone(),
                text: delete,
                parameters,
                repeatable: false,
            });
            statements.push(Statement {
                name: format!("{key} (check)"),
                text: check,
                parameters,
                repeatable: false,
            });
        }
        statements
    }

    pub async fn look_at(&mut self, statement: &Statement) -> Look {
        let nulls = vec!["null"; statement.parameters].join(", ");
        let arguments = if nulls.is_empty() { nulls } else { format!("({nulls})") };
        let script = format!(
            "prepare planned as {};
             explain (format json) execute planned{arguments};
             deallocate planned",
            statement.text
        );
        let explained = sqlx::raw_sql(AssertSqlSafe(script)).fetch_one(&mut *self.connection).await;
        match explained {
            Ok(row) => {
                let plan: Value = row.get(0);
                let plan = Plan::new(&plan, &self.catalogue);
                Look { indexes: plan.indexes(), faults: plan.faults() }
            }
            // `on conflict` without its unique index.
            Err(error) => {
                _ = sqlx::raw_sql("deallocate planned").execute(&mut *self.connection).await;
                let fault = format!("can't be planned: {error}");
                Look { indexes: BTreeSet::new(), faults: BTreeSet::from([fault]) }
            }
        }
    }

    /// The planner takes no index that is not valid.
    async fn set_valid(&mut self, index: &str, valid: bool) {
        let hide = format!(
            "update pg_index set indisvalid = {valid} where indexrelid = '{index}'::regclass"
        );
        sqlx::raw_sql(AssertSqlSafe(hide)).execute(&mut *self.connection).await.unwrap();
    }

    async fn version(&mut self) -> String {
        sqlx::query_scalar("select current_setting('server_version_num')::int / 10000 || ''")
            .fetch_one(&mut *self.connection)
            .await
            .unwrap()
    }
}

async fn catalogue(connection: &mut PgConnection) -> Catalogue {
    let mut catalogue = Catalogue::default();
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class
          where relnamespace = current_schema::regnamespace and relkind in ('r', 'p')
            and relname not like '\\_%'",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    catalogue.tables.extend(tables);
    let indexes: Vec<(String, String, bool, bool, bool, Vec<String>)> = sqlx::query_as(
        "select i.relname::text, t.relname::text, indpred is not null, indisunique, amname = 'btree',
                array(select coalesce(attname::text, '')
                        from unnest(indkey::int2[]) with ordinality k (attnum, place)
                        left join pg_attribute a on attrelid = indrelid and a.attnum = k.attnum
                                                and k.attnum > 0
                       order by place)
           from pg_index
           join pg_class i on i.oid = indexrelid
           join pg_class t on t.oid = indrelid
           join pg_am am on am.oid = i.relam
          where t.relnamespace = current_schema::regnamespace and t.relname not like '\\_%'
            and t.relkind in ('r', 'p')",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    for (name, table, partial, unique, ordered, columns) in indexes {
        catalogue.indexes.insert(name, Index { table, partial, unique, ordered, columns });
    }
    assert!(catalogue.tables.len() >= 16 && catalogue.indexes.len() >= 40);
    catalogue
}

/// `docs/indexes.md`: which index is there for what, and which method reads which.
fn document(
    version: &str,
    needed: &BTreeMap<String, Vec<&str>>,
    statements: &[Statement],
    looks: &[Look],
) -> String {
    let mut text = format!(
        "# Indexes\n\n\
         Written by a test from the plans of PostgreSQL {version}, and compared with them by it:\n\n    \
         UPDATE_SCHEMA=1 cargo test -p chancery --test suite plans\n\n\
         A statement needs an index if it would read a whole table, or sort without a bound, where that\n\
         index is gone. `…_fkey` is the lookup that the server makes when the row that is referred to is\n\
         deleted.\n\n\
         | index | needed by |\n|---|---|\n"
    );
    for (index, by) in needed {
        let why = KEPT.iter().find(|(name, _)| name == index).map(|(_, why)| format!("*{why}*"));
        let by: BTreeSet<_> = by.iter().flat_map(|names| names.split(", ")).collect();
        let by: Vec<_> = by.iter().map(|name| format!("`{name}`")).collect();
        text += &format!("| `{index}` | {} |\n", why.unwrap_or_else(|| by.join(", ")));
    }
    text += "\n## Methods\n\nThe indexes that each method's statement reads. A method that only inserts reads none.\n\n\
             | method | indexes |\n|---|---|\n";
    for (statement, look) in statements.iter().zip(looks) {
        if !look.indexes.is_empty() && statement.name.contains("::") {
            let indexes: Vec<_> = look.indexes.iter().map(|name| format!("`{name}`")).collect();
            text += &format!(
                "| `{}` | {} |\n",
                statement.name.replace(", ", "`, `"),
                indexes.join(", ")
            );
        }
    }
    text += "\n## What is accepted\n\nThese grow with their table, for a reason.\n\n\
             | method | what | why |\n|---|---|---|\n";
    for (name, fault, why) in ACCEPTED {
        text += &format!("| `{name}` | {fault} | {why} |\n");
    }
    text
}

/// Another version of the server may choose another index of two that serve.
fn compare_with_the_documentation(text: &str) {
    let path = statements::package().join("docs/indexes.md");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let version = |text: &str| text.lines().nth(2).map(str::to_owned);
    if version(&committed) == version(text) {
        assert!(
            committed == text,
            "docs/indexes.md is not what the plans say: run with UPDATE_SCHEMA=1"
        );
    } else {
        println!("docs/indexes.md is of another version of PostgreSQL: not compared");
    }
}
