//! Migrations: both directions, their bookkeeping, several at once, and what stands in their way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use chancery::{Database, Error, MIGRATOR, MigrationError, RevertTo, SchemaDifference};
use futures_util::future::join_all;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::{Acquire, AssertSqlSafe, PgPool, SqlSafeStr};

use crate::support::database::{PATIENCE, eventually, until_one_waits, url, value};
use crate::support::schema;
use crate::support::user;

mod before;
mod check;
mod settings;

/// The versions, oldest first.
fn versions() -> Vec<i64> {
    MIGRATOR.iter().filter(|m| m.migration_type.is_up_migration()).map(|m| m.version).collect()
}

fn newest() -> i64 {
    *versions().last().unwrap()
}

/// A file of the package.
fn file(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join(name)
}

/// Whether the committed files shall be brought up to date instead of compared.
fn updating() -> bool {
    std::env::var_os("UPDATE_SCHEMA").is_some()
}

async fn advisory_locks(pool: &PgPool) -> i64 {
    value(
        pool,
        "select count(*) from pg_locks join pg_database d on d.oid = database
          where locktype = 'advisory' and datname = current_database()",
    )
    .await
}

/// The server takes a moment to see that a connection has ended.
async fn until_no_lock_is_left(pool: &PgPool) {
    eventually("no lock is left", async || advisory_locks(pool).await == 0).await;
}

async fn execute(pool: &PgPool, statement: &'static str) {
    sqlx::raw_sql(statement).execute(pool).await.unwrap();
}

#[sqlx::test(migrations = false)]
async fn up_down_up_gives_the_committed_schema(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let empty = schema::dump(&pool).await;
    assert_eq!(db.migrate().await.unwrap(), versions());
    let first = schema::dump(&pool).await;
    let mut newest_first = versions();
    newest_first.reverse();
    assert_eq!(db.revert(RevertTo::Nothing).await.unwrap(), newest_first);
    assert_eq!(schema::dump(&pool).await, empty);
    assert_eq!(db.migrate().await.unwrap(), versions());
    assert_eq!(schema::dump(&pool).await, first);

    let text = "-- The whole schema, for reading. Written by a test from the catalogue, after all migrations:\n\
        --   UPDATE_SCHEMA=1 cargo test -p chancery --test suite migrations\n\n"
        .to_owned()
        + &first;
    if updating() {
        std::fs::write(file("schema.sql"), &text).unwrap();
    }
    let committed = std::fs::read_to_string(file("schema.sql")).unwrap_or_default();
    for (number, (committed, now)) in committed.lines().zip(text.lines()).enumerate() {
        assert_eq!(committed, now, "line {} of schema.sql: see its first lines", number + 1);
    }
    assert_eq!(committed.lines().count(), text.lines().count(), "the length of schema.sql");
}

#[sqlx::test(migrations = false)]
async fn each_down_file_reverts_exactly_its_up_file(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut before = Vec::new();
    let mut connection = pool.acquire().await.unwrap();
    connection.ensure_migrations_table(&MIGRATOR.table_name).await.unwrap();
    for up in MIGRATOR.iter().filter(|m| m.migration_type.is_up_migration()) {
        before.push((up.version, schema::dump(&pool).await));
        connection.apply(&MIGRATOR.table_name, up).await.unwrap();
        let after = schema::dump(&pool).await;
        assert_ne!(before.last().unwrap().1, after, "{} does nothing", up.version);
    }
    for (version, before) in before.into_iter().rev() {
        assert_eq!(db.revert(RevertTo::Steps(1)).await.unwrap(), [version]);
        assert_eq!(schema::dump(&pool).await, before, "after the down file of {version}");
    }
}

/// A landed file never changes: it is applied somewhere. What has not landed may: delete its line.
#[test]
fn landed_migrations_never_change() {
    let path = file("migrations/CHECKSUMS");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines: Vec<_> = committed.lines().map(str::to_owned).collect();
    let mut missing = Vec::new();
    let mut now = BTreeMap::new();
    for migration in MIGRATOR.iter() {
        let direction = if migration.migration_type.is_down_migration() { "down" } else { "up" };
        let checksum: String = migration.checksum.iter().map(|b| format!("{b:02x}")).collect();
        now.insert(format!("{} {direction}", migration.version), checksum);
    }
    for (name, checksum) in &now {
        match lines.iter().find_map(|line| line.strip_prefix(&format!("{name} "))) {
            Some(landed) => assert_eq!(landed, checksum, "migration {name} has landed and changed"),
            None => missing.push(format!("{name} {checksum}")),
        }
    }
    for line in lines.iter().filter(|line| !line.starts_with('#')) {
        let name = line.rsplit_once(' ').unwrap().0;
        assert!(now.contains_key(name), "migration {name} has landed and is gone");
    }
    if updating() && !missing.is_empty() {
        lines.append(&mut missing);
        std::fs::write(path, lines.join("\n") + "\n").unwrap();
    }
    assert!(missing.is_empty(), "run with UPDATE_SCHEMA=1 to add to CHECKSUMS: {missing:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn revert_goes_back_by_steps_to_a_version_or_to_nothing(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let all = versions();
    let (last, rest) = all.split_last().unwrap();
    assert_eq!(db.revert(RevertTo::Steps(0)).await.unwrap(), [0_i64; 0]);
    assert_eq!(db.revert(RevertTo::Version(*last)).await.unwrap(), [0_i64; 0]);
    assert_eq!(db.revert(RevertTo::Steps(1)).await.unwrap(), [*last]);
    let unknown = db.revert(RevertTo::Version(*last)).await;
    assert!(
        matches!(&unknown, Err(Error::Migration(MigrationError::UnknownVersion(v))) if v == last),
        "{unknown:?}"
    );
    let reverted = db.revert(RevertTo::Version(all[1])).await.unwrap();
    assert_eq!(reverted, rest[2..].iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(db.migration_status().await.unwrap().version, Some(all[1]));
    assert_eq!(db.revert(RevertTo::Steps(100)).await.unwrap(), [all[1], all[0]]);
    assert_eq!(db.revert(RevertTo::Nothing).await.unwrap(), [0_i64; 0]);
    assert_eq!(db.migrate().await.unwrap(), all);
}

#[sqlx::test(migrations = false)]
async fn the_status_follows_and_check_schema_says_older_or_newer(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let all = versions();
    let status = db.migration_status().await.unwrap();
    assert_eq!((status.version, status.applied, &status.pending), (None, 0, &all));
    let tables: i64 =
        value(&pool, "select count(*) from pg_class where relname = '_chancery_migrations'").await;
    assert_eq!(tables, 0, "asking makes no table");
    let older = db.check_schema().await;
    assert!(
        matches!(&older, Err(Error::Migration(MigrationError::Pending(p))) if *p == all),
        "{older:?}"
    );

    db.migrate().await.unwrap();
    db.check_schema().await.unwrap();
    let status = db.migration_status().await.unwrap();
    assert!(status.is_current());
    assert_eq!((status.version, status.applied), (Some(newest()), all.len()));
    assert!(status.migrations.iter().all(|m| m.applied && !m.description.is_empty()));

    db.revert(RevertTo::Steps(2)).await.unwrap();
    let status = db.migration_status().await.unwrap();
    let pending = &all[all.len() - 2..];
    assert_eq!((status.applied, &*status.pending), (all.len() - 2, pending));
    assert!(!status.is_current());
    let older = db.check_schema().await.unwrap_err();
    let message = older.to_string();
    assert!(message.contains("older") && message.contains(&pending[0].to_string()), "{message}");

    db.migrate().await.unwrap();
    execute(
        &pool,
        "insert into _chancery_migrations (version, description, success, checksum, execution_time)
         values (99990101000000, 'of a later release', true, '', 0)",
    )
    .await;
    let status = db.migration_status().await.unwrap();
    assert_eq!((status.version, &*status.unknown), (Some(99990101000000), &[99990101000000][..]));
    let newer = db.check_schema().await;
    assert!(
        matches!(newer, Err(Error::Migration(MigrationError::Newer(99990101000000)))),
        "{newer:?}"
    );
}

/// Migrating and reverting both refuse, with the same error, and change nothing.
async fn refused(pool: &PgPool, expected: impl Fn(&MigrationError) -> bool) {
    let db = Database::from_pool(pool.clone());
    let before = schema::dump(pool).await;
    for outcome in [db.migrate().await, db.revert(RevertTo::Steps(1)).await] {
        match outcome {
            Err(Error::Migration(error)) if expected(&error) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(schema::dump(pool).await, before);
    until_no_lock_is_left(pool).await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn edited_dirty_and_newer_migrations_are_told_by_version(pool: PgPool) {
    let [first, second, ..] = versions()[..] else { unreachable!() };
    let set = async |statement: &'static str, version: i64| {
        sqlx::query(statement).bind(version).execute(&pool).await.unwrap();
    };
    set("update _chancery_migrations set checksum = '\\x00' || checksum where version = $1", first)
        .await;
    refused(&pool, |error| matches!(error, MigrationError::Edited(v) if *v == first)).await;
    set("update _chancery_migrations set checksum = substr(checksum, 2) where version = $1", first)
        .await;

    set("update _chancery_migrations set success = false where version = $1", second).await;
    refused(&pool, |error| matches!(error, MigrationError::Dirty(v) if *v == second)).await;
    set("update _chancery_migrations set success = true where version = $1", second).await;

    set("update _chancery_migrations set version = $1 where version = (select max(version) from _chancery_migrations)", 99990101000000)
        .await;
    refused(&pool, |error| matches!(error, MigrationError::Newer(99990101000000))).await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_pending_migration_older_than_an_applied_one_is_out_of_order(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let late = versions()[2];
    sqlx::query("delete from _chancery_migrations where version = $1")
        .bind(late)
        .execute(&pool)
        .await
        .unwrap();
    let outcome = db.migrate().await;
    match outcome {
        Err(Error::Migration(MigrationError::OutOfOrder { version, applied })) => {
            assert_eq!((version, applied), (late, newest()));
        }
        other => panic!("{other:?}"),
    }
    until_no_lock_is_left(&pool).await;
}

#[sqlx::test(migrations = false)]
async fn a_migration_that_fails_names_its_version_and_leaves_no_lock(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let [first, second, ..] = versions()[..] else { unreachable!() };
    // As an extension may refuse a statement.
    let refuse = async |code: &str| {
        let text = format!(
            "create or replace function refuse() returns event_trigger language plpgsql as $$
             begin
                 if current_query() like '%create table users%' then
                     raise exception using errcode = '{code}', message = 'no table users today';
                 end if;
             end; $$;
             create event trigger refuse on ddl_command_start execute function refuse()"
        );
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&pool).await.unwrap();
    };
    let let_pass =
        async || execute(&pool, "drop event trigger refuse; drop function refuse()").await;
    // The server's words are told, but not those of a class that quotes values.
    for (code, told) in [("42501", true), ("22P02", false), ("P0001", false)] {
        refuse(code).await;
        match db.migrate().await {
            Err(Error::Migration(error @ MigrationError::Failed { version, .. })) => {
                assert_eq!(version, second);
                let message = error.to_string();
                assert!(message.contains(&second.to_string()), "{message}");
                assert!(message.contains(code), "{message}");
                assert!(message.contains("rolled back"), "{message}");
                assert_eq!(message.contains("no table users today"), told, "{message}");
            }
            other => panic!("{other:?}"),
        }
        let_pass().await;
    }
    let status = db.migration_status().await.unwrap();
    assert_eq!((status.version, status.applied), (Some(first), 1));
    let started = Instant::now();
    assert_eq!(db.migrate().await.unwrap(), versions()[1..]);
    // It would wait for a lock for a minute.
    assert!(started.elapsed() < PATIENCE / 2, "took {:?}", started.elapsed());
    until_no_lock_is_left(&pool).await;

    // The same in the other direction: the application's own table refers to ours.
    execute(&pool, "create table invoices (user_id uuid references users)").await;
    match db.revert(RevertTo::Nothing).await {
        Err(Error::Migration(error @ MigrationError::Failed { version, .. })) => {
            assert_eq!(version, second);
            // With what stands in the way.
            assert!(error.to_string().contains("table invoices"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(db.migration_status().await.unwrap().version, Some(second));
    until_no_lock_is_left(&pool).await;
}

#[sqlx::test(migrations = false)]
async fn eight_at_once_all_succeed_and_each_migration_runs_once(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let outcomes = join_all((0..8).map(|_| {
        let db = db.clone();
        tokio::spawn(async move { db.migrate().await })
    }))
    .await;
    let mut applied: Vec<_> = outcomes.into_iter().flat_map(|o| o.unwrap().unwrap()).collect();
    applied.sort_unstable();
    assert_eq!(applied, versions());
    db.check_schema().await.unwrap();
    until_no_lock_is_left(&pool).await;
}

#[sqlx::test(migrations = false)]
async fn a_migrate_given_up_half_way_leaves_no_lock(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    // The second migration waits for this one to end.
    let mut other = pool.begin().await.unwrap();
    sqlx::query("create table users (id int)").execute(&mut *other).await.unwrap();
    tokio::select! {
        outcome = db.migrate() => panic!("it did not wait: {outcome:?}"),
        () = until_one_waits(&pool) => {}
    }
    assert_eq!(advisory_locks(&pool).await, 1);
    // Before the migration's lock_timeout of five seconds, and while its statement still waits.
    let started = Instant::now();
    until_no_lock_is_left(&pool).await;
    assert!(started.elapsed() < Duration::from_secs(4), "took {:?}", started.elapsed());
    other.rollback().await.unwrap();
    assert_eq!(db.migrate().await.unwrap(), versions()[1..]);
}

#[sqlx::test(migrations = false)]
async fn the_applications_own_migrations_live_beside_these(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    // With a version that this crate has as well: the two have nothing to do with each other.
    let migration = |kind, sql: &'static str| {
        Migration::new(versions()[0], "invoices".into(), kind, sql.into_sql_str(), false)
    };
    let own = Migrator::with_migrations(vec![
        migration(MigrationType::ReversibleUp, "create table invoices (id int)"),
        migration(MigrationType::ReversibleDown, "drop table invoices"),
    ]);

    // Theirs first.
    own.run(&pool).await.unwrap();
    assert_eq!(db.migrate().await.unwrap(), versions());
    db.check_schema().await.unwrap();
    own.run(&pool).await.unwrap();
    user(&db).await;
    own.undo(&pool, 0).await.unwrap();
    db.check_schema().await.unwrap();

    // Ours first; and ours go while theirs stay.
    own.run(&pool).await.unwrap();
    assert_eq!(db.revert(RevertTo::Nothing).await.unwrap().len(), versions().len());
    execute(&pool, "insert into invoices values (1)").await;
    own.run(&pool).await.unwrap();
    assert_eq!(db.migrate().await.unwrap(), versions());
}

#[sqlx::test(migrations = false)]
async fn the_command_line_tool_does_the_same(pool: PgPool) {
    let url = url(&pool);
    let migrate = |action: &str| {
        let mut sqlx = Command::new("sqlx");
        sqlx.current_dir(file("."));
        sqlx.args(["migrate", action, "--database-url", url.as_str()]);
        sqlx.output()
    };
    if Command::new("sqlx").arg("--version").output().is_err() {
        eprintln!("SKIPPED: sqlx is not installed (scripts/install-tools)");
        return;
    }
    let run = |action: &str| {
        let output = migrate(action).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let db = Database::from_pool(pool.clone());
    run("run");
    db.check_schema().await.unwrap();
    assert_eq!(db.migrate().await.unwrap(), [0_i64; 0]);
    let by_tool = schema::dump(&pool).await;

    run("revert");
    assert_eq!(db.migration_status().await.unwrap().pending, [newest()]);
    assert_eq!(db.migrate().await.unwrap(), [newest()]);
    assert_eq!(schema::dump(&pool).await, by_tool);

    assert_eq!(db.revert(RevertTo::Steps(2)).await.unwrap().len(), 2);
    run("run");
    assert_eq!(schema::dump(&pool).await, by_tool);
    db.check_schema().await.unwrap();
    until_no_lock_is_left(&pool).await;
}

#[sqlx::test(migrations = false)]
async fn it_waits_for_the_lock_that_the_tool_takes(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let mut tool = pool.acquire().await.unwrap();
    let tool = tool.acquire().await.unwrap();
    tool.lock().await.unwrap();
    {
        let mut migrating = std::pin::pin!(db.migrate());
        let waited = tokio::time::timeout(Duration::from_millis(300), &mut migrating).await;
        assert!(waited.is_err(), "it did not wait: {waited:?}");
        assert_eq!(db.migration_status().await.unwrap().applied, 0);
        tool.unlock().await.unwrap();
        assert_eq!(migrating.await.unwrap(), versions());
    }
    until_no_lock_is_left(&pool).await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_index_that_was_left_half_built_is_named(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    db.check_schema().await.unwrap();
    // Two equal rows: the unique index fails half-way and stays, invalid.
    for name in ["a", "b"] {
        sqlx::query("insert into config (key, value) values ($1, '1')")
            .bind(name)
            .execute(&pool)
            .await
            .unwrap();
    }
    sqlx::query("create unique index concurrently config_value_idx on config (value)")
        .execute(&pool)
        .await
        .unwrap_err();
    match db.check_schema().await {
        Err(Error::Migration(MigrationError::Differs(found))) => {
            assert_eq!(found, [SchemaDifference::InvalidIndex("config_value_idx".into())]);
        }
        other => panic!("{other:?}"),
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_migration_that_finds_a_table_locked_is_tried_again(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    // The next migration refers to users, so it must lock that table for a moment.
    let reverted = db.revert(RevertTo::Version(20261123090600)).await.unwrap().len();
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table users in access exclusive mode").execute(&mut *holder).await.unwrap();
    let migrating = tokio::spawn({
        let db = db.clone();
        async move { db.migrate().await }
    });
    // Its lock_timeout of 5 s ends the first attempt; the lock is given up in the midst of another.
    let attempts = async || -> i64 {
        sqlx::query_scalar(
            "select xact_rollback from pg_stat_database where datname = current_database()",
        )
        .fetch_one(&pool)
        .await
        .unwrap()
    };
    let before = attempts().await;
    eventually("the first attempt has ended", async || attempts().await > before).await;
    holder.rollback().await.unwrap();
    assert_eq!(migrating.await.unwrap().unwrap().len(), reverted);
}

#[sqlx::test(migrations = false)]
async fn rows_with_json_that_can_not_be_read_are_named_before_they_are_refused(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    db.migrate().await.unwrap();
    db.revert(RevertTo::Version(20261125090400)).await.unwrap();
    execute(&pool, "insert into config (key, value) values ('good', '1'), ('bad', '[1e400]')")
        .await;
    let error = db.migrate().await.unwrap_err();
    let Error::Migration(MigrationError::Failed { version: 20261128110000, source, .. }) = &error
    else {
        panic!("{error:?}")
    };
    let server = source.as_sqlx().as_database_error().unwrap().message().to_owned();
    let told = "column value of config holds JSON that can't be read in the rows bad";
    assert_eq!(server, told);
    // Until they are mended nothing refuses them, and with them what is changed beside them.
    execute(&pool, "update config set description = 'as before' where key = 'bad'").await;
    execute(&pool, "update config set value = '[1]' where key = 'bad'").await;
    db.migrate().await.unwrap();
}
