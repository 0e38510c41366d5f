//! What is told before the first migration, and the way out.

use std::time::Duration;

use chancery::{Database, Error, MigrationError, RevertTo};
use sqlx::migrate::Migrate;
use sqlx::{Acquire, AssertSqlSafe, PgPool};

use super::{execute, versions};
use crate::support::database::{config, connect, url, value};
use crate::support::events::Events;
use crate::support::proxy::Proxy;
use crate::support::{conversation_of, new_user, schema};

/// The names that are taken.
async fn taken(db: &Database) -> Vec<String> {
    match db.migrate().await {
        Err(Error::Migration(error)) => {
            let text = error.to_string();
            let MigrationError::NamesTaken { names, .. } = error else { panic!("{error:?}") };
            for name in &names {
                assert!(text.contains(name), "{text}");
            }
            assert!(text.contains("options=-csearch_path%3Dchancery"), "{text}");
            names
        }
        other => panic!("{other:?}"),
    }
}

#[sqlx::test(migrations = false)]
async fn every_name_that_is_taken_is_told_at_once_and_nothing_is_changed(pool: PgPool) {
    execute(
        &pool,
        "create table users (id int);
         create index messages_metadata_idx on users (id);
         create view chunks as select 1;
         create type projects as enum ('a');
         create function set_updated_at() returns trigger language plpgsql as 'begin end';
         -- Another function than ours, and a name that is free again in another schema.
         create function delete_document(text) returns int language sql return 1;
         create schema elsewhere;
         create table elsewhere.messages (id int)",
    )
    .await;
    let before = schema::dump(&pool).await;
    let db = Database::from_pool(pool.clone());
    assert_eq!(
        taken(&db).await,
        [
            "function set_updated_at()",
            "index messages_metadata_idx",
            "table users",
            "type projects",
            "view chunks"
        ]
    );
    assert_eq!(schema::dump(&pool).await, before);
    assert_eq!(db.migration_status().await.unwrap().applied, 0);
}

/// Whoever adds a migration need not think of it.
#[sqlx::test(migrations = false)]
async fn no_name_that_the_migrations_make_is_forgotten(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    db.migrate().await.unwrap();
    let relations: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class
          where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'i', 'S', 'v')
            and relname not like '\\_chancery\\_%'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let functions: Vec<String> = sqlx::query_scalar(
        "select format('%s(%s)', proname, oidvectortypes(proargtypes)) from pg_proc
          where pronamespace = 'public'::regnamespace",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(relations.len() > 60 && functions.len() > 9, "{relations:?} {functions:?}");
    db.revert(RevertTo::Nothing).await.unwrap();
    let mut expected = Vec::new();
    for name in &relations {
        let text = format!("create sequence {name}");
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&pool).await.unwrap();
        expected.push(format!("sequence {name}"));
    }
    for signature in &functions {
        let text = format!("create function {signature} returns int language sql return 1");
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&pool).await.unwrap();
        expected.push(format!("function {signature}"));
    }
    expected.sort_unstable();
    let mut taken = taken(&db).await;
    taken.sort_unstable();
    assert_eq!(taken, expected);
}

#[sqlx::test(migrations = false)]
async fn a_schema_of_its_own_is_named_in_the_url_or_for_the_role_or_the_database(pool: PgPool) {
    execute(
        &pool,
        "create table users (id int); create function set_updated_at() returns int return 1",
    )
    .await;
    let use_it = async |db: &Database, schema: &str| {
        assert_eq!(db.migrate().await.unwrap(), versions());
        db.check_schema().await.unwrap();
        let user = db.users().create(new_user()).await.unwrap();
        let conversation = conversation_of(db, user.id).await;
        let listed = db.as_user(user.id).conversations().list_recent(10, 0).await.unwrap();
        assert_eq!(listed, [conversation]);
        let place: String = sqlx::query_scalar(
            "select relnamespace::regnamespace::text from pg_class where oid = 'users'::regclass",
        )
        .fetch_one(db.executor())
        .await
        .unwrap();
        assert_eq!(place, schema);
        assert_eq!(db.migrate().await.unwrap(), [0_i64; 0]);
    };

    execute(&pool, "create schema chancery").await;
    let mut url = url(&pool);
    url.set_query(Some("options=-csearch_path%3Dchancery"));
    let by_url = connect(config(&pool).url(url.as_str())).await;
    use_it(&by_url, "chancery").await;
    by_url.close().await;

    // Any name will do.
    let database: String = value(&pool, "select quote_ident(current_database())").await;
    execute(&pool, "create schema \"Chan-cery\"").await;
    let alter = format!("alter database {database} set search_path = \"Chan-cery\"");
    sqlx::raw_sql(AssertSqlSafe(alter)).execute(&pool).await.unwrap();
    let by_setting = connect(config(&pool)).await;
    use_it(&by_setting, "\"Chan-cery\"").await;
    by_setting.close().await;
}

#[sqlx::test(migrations = false)]
async fn a_search_path_that_leads_nowhere_or_elsewhere_is_told(pool: PgPool) {
    let with = |path: &str| {
        let options = (*pool.connect_options()).clone().options([("search_path", path)]);
        Database::from_pool(PgPool::connect_lazy_with(options))
    };
    for path in ["missing", "\"\"", "pg_temp, missing", "pg_catalog"] {
        let db = with(path);
        let refused = db.migrate().await;
        assert!(
            matches!(refused, Err(Error::Migration(MigrationError::NoSchema { .. }))),
            "{path}: {refused:?}"
        );
        assert!(refused.unwrap_err().to_string().contains("search_path"));
        db.close().await;
    }

    // The tables are found, and new ones would be made where they hide them.
    execute(&pool, "create schema app; create schema chancery").await;
    let db = with("chancery");
    db.migrate().await.unwrap();
    db.close().await;
    let db = with("app, chancery");
    db.check_schema().await.unwrap();
    match db.migrate().await {
        Err(Error::Migration(MigrationError::OtherSchema { tables, new })) => {
            assert_eq!((&*tables, &*new), ("chancery", "app"));
        }
        other => panic!("{other:?}"),
    }
    execute(&pool, "create table app.users (id int)").await;
    let hidden = db.check_schema().await.unwrap_err().to_string();
    assert!(hidden.contains("table users") && hidden.contains("hidden"), "{hidden}");
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn a_database_that_is_not_utf8_is_refused_by_name(pool: PgPool) {
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let name = format!("{}_{}", pool.connect_options().get_database().unwrap(), &encoding[..3]);
        let name = name[name.len().saturating_sub(60)..].to_owned();
        let create = format!(
            "create database \"{name}\" encoding '{encoding}' locale 'C' template template0"
        );
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&pool).await.unwrap();
        let mut url = url(&pool);
        url.set_path(&name);
        let events = Events::capture();
        let db = connect(config(&pool).url(url.as_str())).await;
        let told = events.take().into_iter().filter(|(_, _, text)| text.contains(encoding));
        assert_eq!(told.count(), 1, "connecting warns of it");
        drop(events);
        match db.migrate().await {
            Err(Error::Migration(error @ MigrationError::NotUtf8 { .. })) => {
                let text = error.to_string();
                assert!(text.contains(&name) && text.contains(encoding), "{text}");
            }
            other => panic!("{other:?}"),
        }
        let tables: i64 = sqlx::query_scalar(
            "select count(*) from pg_class where relnamespace = 'public'::regnamespace",
        )
        .fetch_one(db.executor())
        .await
        .unwrap();
        assert_eq!(tables, 0);
        db.close().await;
        let drop = format!("drop database \"{name}\"");
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&pool).await.unwrap();
    }
}

#[sqlx::test(migrations = false)]
async fn an_index_that_an_attempt_left_half_built_is_told_with_what_removes_it(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    db.migrate().await.unwrap();
    db.revert(RevertTo::Version(20261125090001)).await.unwrap();
    // As the server leaves it: `create index concurrently` that failed.
    execute(&pool, "create index messages_user_id_conversation_id_created_at_idx on messages (id)")
        .await;
    execute(
        &pool,
        "update pg_index set indisvalid = false
          where indexrelid = 'messages_user_id_conversation_id_created_at_idx'::regclass",
    )
    .await;
    let names = taken(&db).await;
    let [name] = &names[..] else { panic!("{names:?}") };
    let remedy = name.split_once("failed: ").unwrap().1.trim_end_matches(')');
    sqlx::raw_sql(AssertSqlSafe(remedy.to_owned())).execute(&pool).await.unwrap();
    db.migrate().await.unwrap();
    db.check_schema().await.unwrap();
}

/// Names that a migration takes over from an earlier one are not taken for a stranger's.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn from_every_version_the_rest_is_applied(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let all = versions();
    for (applied, version) in all.iter().enumerate().rev() {
        db.revert(RevertTo::Version(*version)).await.unwrap();
        let rest = db.migrate().await.unwrap_or_else(|e| panic!("from {version}: {e}"));
        assert_eq!(rest, all[applied + 1..]);
    }
    db.check_schema().await.unwrap();
}

/// What each start of a service costs.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn with_nothing_to_do_it_asks_three_times_and_takes_no_lock(pool: PgPool) {
    let proxy = Proxy::start(&url(&pool), Duration::ZERO).await;
    let through = proxy.url(&url(&pool));
    let db = connect(config(&pool).url(through.as_str()).pool_size(1).max_overflow(0)).await;
    // Somebody who migrates is not waited for.
    let mut tool = pool.acquire().await.unwrap();
    let tool = tool.acquire().await.unwrap();
    tool.lock().await.unwrap();
    let opened = proxy.opened();
    let before = proxy.round_trips();
    let started = std::time::Instant::now();
    assert_eq!(db.migrate().await.unwrap(), [0_i64; 0]);
    let took = started.elapsed();
    let round_trips = proxy.round_trips() - before;
    println!("migrate() with nothing to do: {round_trips} round trips, {took:?}");
    assert_eq!(proxy.opened() - opened, 1);
    // Connecting, the settings, and two statements that are prepared first.
    assert!(round_trips <= 7, "{round_trips}");
    tool.unlock().await.unwrap();
    db.close().await;
}
