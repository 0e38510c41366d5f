//! `check_schema` finds what was changed by hand, or not restored.

use chancery::{Database, Error, MigrationError, SchemaDifference, Startup};
use sqlx::{AssertSqlSafe, PgPool};

use super::{execute, file, updating};
use crate::support::database::{config, connect, value};
use crate::support::events::Events;
use crate::support::{new_user, user};
use crate::tenants::role_name;

async fn run(pool: &PgPool, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(pool).await.unwrap();
}

async fn differences(db: &Database) -> Vec<SchemaDifference> {
    match db.check_schema().await {
        Ok(()) => Vec::new(),
        Err(Error::Migration(MigrationError::Differs(found))) => found,
        Err(other) => panic!("{other:?}"),
    }
}

/// After a new migration the file is brought up to date, as `schema.sql` is.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_is_expected_is_what_the_migrations_make(pool: PgPool) {
    let statement = std::fs::read_to_string(file("src/db/migrate/catalogue.sql")).unwrap();
    let rows: Vec<(String, String, String)> = sqlx::query_as(AssertSqlSafe(statement))
        .bind(None::<Vec<String>>)
        .bind(None::<Vec<String>>)
        .fetch_all(&pool)
        .await
        .unwrap();
    let lines: String = rows
        .into_iter()
        .map(|(kind, what, how)| {
            assert_eq!(kind, "object", "{what}");
            if how.is_empty() { format!("{what}\n") } else { format!("{what}: {how}\n") }
        })
        .collect();
    let path = file("src/db/migrate/expected.txt");
    if updating() {
        std::fs::write(&path, &lines).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    for (committed, now) in committed.lines().zip(lines.lines()) {
        assert_eq!(committed, now, "run with UPDATE_SCHEMA=1");
    }
    assert_eq!(committed.len(), lines.len(), "run with UPDATE_SCHEMA=1");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn each_thing_that_is_missing_or_another_is_named(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    assert_eq!(differences(&db).await, []);
    for (change, named, undo) in [
        (
            "alter table users no force row level security",
            "table users is \"row-level security\" and should be \"row-level security, forced\"",
            "alter table users force row level security",
        ),
        (
            "alter table _chancery_migrations disable row level security",
            "table _chancery_migrations is \"\"",
            "alter table _chancery_migrations enable row level security",
        ),
        (
            "drop policy config_read on config",
            "policy config_read on config is missing",
            "create policy config_read on config for select to chancery_app
                 using ((select chancery_current_user_id()) is not null)",
        ),
        (
            "alter policy users_owner on users using (true)",
            "policy users_owner on users is \"permissive for all to chancery_app using true\"",
            "alter policy users_owner on users using (id = (select chancery_current_user_id()))",
        ),
        (
            "alter policy users_service on users to chancery_app",
            "policy users_service on users is",
            "alter policy users_service on users to chancery_service",
        ),
        (
            "revoke update on users from chancery_app",
            "grant update on users to chancery_app is missing",
            "grant update on users to chancery_app",
        ),
        (
            "revoke execute on function delete_document from chancery_app",
            "grant execute on delete_document(uuid) to chancery_app is missing",
            "grant execute on function delete_document to chancery_app",
        ),
        (
            "alter table users disable trigger users_set_updated_at",
            "trigger users_set_updated_at on users is \"disabled\"",
            "alter table users enable trigger users_set_updated_at",
        ),
        (
            "alter table users rename constraint users_email_check to no_check",
            "constraint users_email_check on users is missing",
            "alter table users rename constraint no_check to users_email_check",
        ),
        (
            "alter index users_email_key rename to no_key",
            "unique index users_email_key on users is missing",
            "alter index no_key rename to users_email_key",
        ),
        (
            "alter table users rename profession to job",
            "column users.profession is missing",
            "alter table users rename job to profession",
        ),
        (
            "alter function settle_extraction_job rename to no_function",
            "function settle_extraction_job() is missing",
            "alter function no_function rename to settle_extraction_job",
        ),
        (
            "grant truncate, trigger on users to public",
            "public may trigger, truncate users: revoke trigger, truncate on users from public",
            "revoke truncate, trigger on users from public",
        ),
    ] {
        run(&pool, change).await;
        let found = differences(&db).await;
        assert_eq!(found.len(), 1, "{change}: {found:?}");
        assert!(found[0].to_string().starts_with(named), "{change}: {}", found[0]);
        run(&pool, undo).await;
        assert_eq!(differences(&db).await, [], "{undo}");
    }

    // What is the application's own is its own affair, and so is how its session writes SQL.
    run(
        &pool,
        "create table invoices (id int);
         grant all on invoices to public;
         create index users_name_idx on users (name);
         create policy mine on users for select to public using (false);
         grant select on users to public;
         alter table users add column nickname text",
    )
    .await;
    let options = (*pool.connect_options()).clone().options([
        ("quote_all_identifiers", "on"),
        ("standard_conforming_strings", "off"),
        ("TimeZone", "Asia/Kolkata"),
        ("DateStyle", "German"),
    ]);
    let odd = Database::from_pool(PgPool::connect_lazy_with(options));
    assert_eq!(differences(&odd).await, []);
    odd.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_collation_of_another_version_is_told_when_connecting_and_when_checking(pool: PgPool) {
    let events = Events::capture();
    let connecting = async || {
        let db = connect(config(&pool)).await;
        let told = events.take().into_iter().filter(|(level, _, text)| {
            *level == tracing::Level::WARN && text.contains("database.collation")
        });
        (db, told.count())
    };
    let (db, told) = connecting().await;
    assert_eq!(told, 0);
    db.close().await;

    execute(
        &pool,
        "update pg_database set datcollversion = '0.0' where datname = current_database()",
    )
    .await;
    let (db, told) = connecting().await;
    assert_eq!(told, 1);
    let found = differences(&db).await;
    let [difference @ SchemaDifference::CollationVersion { what, made_with, .. }] = &found[..]
    else {
        panic!("{found:?}")
    };
    let name: String = value(&pool, "select current_database()::text").await;
    assert_eq!((&**what, &**made_with), (&*format!("database {name}"), "0.0"));
    assert!(difference.to_string().contains("refresh collation version"), "{difference}");
    db.close().await;

    // It serves all the same, and says so.
    for startup in [Startup::Check, Startup::Migrate] {
        events.take();
        let db = Database::init(&config(&pool).build().unwrap(), startup).await.unwrap();
        let told = events.take().into_iter().any(|(level, _, text)| {
            level == tracing::Level::WARN && text.contains("database.schema_differs")
        });
        assert!(told);
        db.close().await;
    }
    drop(events);

    // One that a column of ours has.
    execute(
        &pool,
        "update pg_database set datcollversion = null where datname = current_database();
         create collation odd (provider = libc, locale = 'C');
         update pg_collation set collversion = '0.0' where collname = 'odd'",
    )
    .await;
    let db = Database::from_pool(pool.clone());
    assert_eq!(differences(&db).await, [], "it is nobody's");
    execute(&pool, "alter table users alter profession type varchar(100) collate odd").await;
    let found = differences(&db).await;
    assert!(
        matches!(&found[..], [SchemaDifference::CollationVersion { what, .. }] if what == "collation odd"),
        "{found:?}"
    );
}

/// As on hosted PostgreSQL: whatever is made is everybody's.
#[sqlx::test(migrations = false)]
async fn default_privileges_give_strangers_neither_rows_nor_tables(pool: PgPool) {
    let stranger = role_name(&pool, "stranger");
    run(
        &pool,
        &format!(
            "create role \"{stranger}\";
             grant usage on schema public to \"{stranger}\";
             alter default privileges grant all on tables to \"{stranger}\", public;
             alter default privileges grant all on functions to \"{stranger}\";
             alter default privileges grant all on sequences to \"{stranger}\""
        ),
    )
    .await;
    let db = Database::from_pool(pool.clone());
    let applied = db.migrate().await.unwrap().len() as i64;
    assert_eq!(differences(&db).await, []);
    user(&db).await;

    let as_stranger = async |statement: &str| {
        let mut transaction = pool.begin().await.unwrap();
        let text = format!("set local role \"{stranger}\"; {statement}");
        let outcome = sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *transaction).await;
        outcome.map(|done| done.rows_affected()).map_err(Error::from)
    };
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class
          where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    for table in &tables {
        let insight = as_stranger(&format!("select * from {table}")).await;
        assert!(matches!(insight, Ok(0) | Err(Error::PermissionDenied(_))), "{table}: {insight:?}");
        let deleted = as_stranger(&format!("delete from {table}")).await;
        assert!(matches!(deleted, Ok(0) | Err(Error::PermissionDenied(_))), "{table}: {deleted:?}");
        for refused in [
            format!("truncate {table} cascade"),
            format!(
                "create trigger t before insert on {table}
                     for each row execute function set_updated_at()"
            ),
        ] {
            let outcome = as_stranger(&refused).await;
            assert!(matches!(outcome, Err(Error::PermissionDenied(_))), "{refused}: {outcome:?}");
        }
    }
    let created = as_stranger("insert into users (email) values ('eve@example.org')").await;
    assert!(matches!(created, Err(Error::PermissionDenied(_))), "{created:?}");

    // Given it once more, it is told; and the bookkeeping stays.
    run(&pool, &format!("grant all on all tables in schema public to \"{stranger}\"")).await;
    let found = differences(&db).await;
    assert_eq!(found.len(), tables.len(), "{found:?}");
    assert!(found.iter().all(SchemaDifference::is_harmless_today), "{found:?}");
    assert_eq!(as_stranger("delete from _chancery_migrations").await.unwrap(), 0);
    let left: i64 = value(&pool, "select count(*) from _chancery_migrations").await;
    assert_eq!(left, applied);
    run(&pool, &format!("drop owned by \"{stranger}\"; drop role \"{stranger}\"")).await;
}

/// The bookkeeping is under row-level security: the tool and the crate still write it, and the service
/// reads it.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_service_reads_the_bookkeeping_and_can_change_nothing_in_it(pool: PgPool) {
    let tenants = crate::tenants::Tenants::new(&pool, "login").await;
    assert!(tenants.db.migration_status().await.unwrap().is_current());
    tenants.db.users().create(new_user()).await.unwrap();
    let refused = sqlx::query("delete from _chancery_migrations")
        .execute(tenants.db.executor())
        .await
        .map_err(Error::from);
    assert!(matches!(refused, Err(Error::PermissionDenied(_))), "{refused:?}");
    tenants.end().await;
}
