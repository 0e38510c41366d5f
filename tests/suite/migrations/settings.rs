//! Whatever a session's settings are, the schema is the same.

use chancery::{Database, MIGRATOR, RevertTo};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};

use super::{execute, versions};
use crate::support::schema;

/// What an administrator may have set for a role or a database, each with an odd value.
const ODD: &[(&str, &str)] = &[
    ("standard_conforming_strings", "off"),
    ("backslash_quote", "off"),
    ("escape_string_warning", "off"),
    ("transform_null_equals", "on"),
    ("array_nulls", "off"),
    ("quote_all_identifiers", "on"),
    ("check_function_bodies", "off"),
    ("xmloption", "document"),
    ("bytea_output", "escape"),
    ("extra_float_digits", "-15"),
    ("TimeZone", "Asia/Kolkata"),
    ("DateStyle", "SQL, DMY"),
    ("IntervalStyle", "sql_standard"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("default_toast_compression", "pglz"),
    ("plpgsql.variable_conflict", "use_column"),
    ("plan_cache_mode", "force_generic_plan"),
    ("client_min_messages", "debug1"),
    ("synchronous_commit", "off"),
    ("constraint_exclusion", "on"),
    ("jit", "off"),
    ("gin_fuzzy_search_limit", "1"),
    ("row_security", "off"),
    ("plpgsql.extra_errors", "all"),
];

/// Under these the tool may be cut off: `migrate()` sets them, and `migrations/README.md` tells of them.
const ODDER: &[(&str, &str)] = &[
    ("statement_timeout", "300"),
    ("lock_timeout", "300"),
    ("idle_in_transaction_session_timeout", "300"),
];

fn with(pool: &PgPool, settings: &[(&str, &str)]) -> PgPool {
    let options = (*pool.connect_options()).clone().options(settings.iter().copied());
    PgPoolOptions::new().max_connections(1).connect_lazy_with(options)
}

/// Compares line by line: the whole is long.
fn same(found: &str, expected: &str, settings: &[(&str, &str)]) {
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected, "{settings:?}");
    }
    assert_eq!(found.len(), expected.len(), "{settings:?}");
}

#[sqlx::test(migrations = false)]
async fn migrate_and_revert_do_the_same_under_every_odd_setting(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let empty = schema::dump(&pool).await;
    db.migrate().await.unwrap();
    let plain = schema::dump(&pool).await;
    db.revert(RevertTo::Nothing).await.unwrap();
    // One after the other, and then all at once.
    let all: Vec<_> = ODD.iter().chain(ODDER).copied().collect();
    let each = all.iter().map(std::slice::from_ref).chain([&all[..]]);
    for settings in each {
        let odd = Database::from_pool(with(&pool, settings));
        assert_eq!(odd.migrate().await.unwrap(), versions(), "{settings:?}");
        same(&schema::dump(&pool).await, &plain, settings);
        odd.revert(RevertTo::Nothing).await.unwrap();
        same(&schema::dump(&pool).await, &empty, settings);
        odd.close().await;
    }
}

/// A statement that takes longer than the session may is not cut off.
#[sqlx::test(migrations = false)]
async fn a_migration_may_take_longer_than_a_statement_of_the_session(pool: PgPool) {
    execute(
        &pool,
        "create function wait() returns event_trigger language plpgsql as $$
         begin
             if current_query() like '%create table config%' then perform pg_sleep(0.4); end if;
         end; $$;
         create event trigger wait on ddl_command_end when tag in ('CREATE TABLE')
             execute function wait()",
    )
    .await;
    let odd = Database::from_pool(with(&pool, &[("statement_timeout", "300")]));
    assert_eq!(odd.migrate().await.unwrap(), versions());
    odd.close().await;
}

/// The tool sets nothing, and the files must do.
#[sqlx::test(migrations = false)]
async fn the_files_alone_make_the_same_schema_under_every_odd_setting(pool: PgPool) {
    let plain = {
        let db = Database::from_pool(pool.clone());
        db.migrate().await.unwrap();
        let plain = schema::dump(&pool).await;
        db.revert(RevertTo::Nothing).await.unwrap();
        plain
    };
    for settings in ODD.iter().map(std::slice::from_ref).chain([ODD]) {
        let odd = with(&pool, settings);
        MIGRATOR.run(&odd).await.unwrap_or_else(|e| panic!("{settings:?}: {e}"));
        same(&schema::dump(&pool).await, &plain, settings);
        MIGRATOR.undo(&odd, 0).await.unwrap_or_else(|e| panic!("{settings:?}: {e}"));
        odd.close().await;
    }
}

/// A database that was migrated by such a session before.
#[sqlx::test(migrations = false)]
async fn an_email_check_that_lost_its_backslash_is_made_whole(pool: PgPool) {
    let odd = with(&pool, &[("standard_conforming_strings", "off")]);
    MIGRATOR.run_to(20261125090400, &odd).await.unwrap();
    odd.close().await;
    let insert = async |email: &str| {
        let text = format!("insert into users (email) values ('{email}')");
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&pool).await.map(|_| ())
    };
    // The dot stands for any character.
    insert("a@bxc").await.unwrap();
    execute(&pool, "delete from users").await;
    let db = Database::from_pool(pool.clone());
    db.migrate().await.unwrap();
    insert("a@bxc").await.unwrap_err();
}
