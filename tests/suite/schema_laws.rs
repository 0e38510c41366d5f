//! Rules that every table keeps, read from the catalogue: a new table that breaks one fails here.

use chancery::MIGRATOR;
use sqlx::PgPool;

use crate::support::database::{config, connect, url, value};
use crate::support::new_user;

/// Fails with what the statement finds: it selects the offenders.
async fn none(pool: &PgPool, rule: &str, offenders: &'static str) {
    let found: Vec<String> = sqlx::query_scalar(offenders).fetch_all(pool).await.unwrap();
    assert!(found.is_empty(), "{rule}: {found:?}");
}

/// Temporary views keep the statements short; they live as long as the one connection.
async fn laws(pool: &PgPool) -> PgPool {
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .connect_with((*pool.connect_options()).clone())
        .await
        .unwrap();
    sqlx::raw_sql(
        "create temporary view tables as
             select oid, relname::text as name, relacl
               from pg_class
              where relnamespace = current_schema::regnamespace and relkind in ('r', 'p')
                and relname not like '\\_%\\_migrations';
         create temporary view columns as
             select t.oid as table_oid, t.name as table_name, attname::text as name, attnum,
                    format_type(atttypid, atttypmod) as type, attnotnull as not_null,
                    coalesce(pg_get_expr(adbin, adrelid), '') as default_value, attacl
               from tables t
               join pg_attribute a on attrelid = t.oid and attnum > 0 and not attisdropped
               left join pg_attrdef on adrelid = attrelid and adnum = attnum;
         create temporary view functions as
             select proname::text as name, * from pg_proc
              where pronamespace = (select relnamespace from pg_class where relname = 'users')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let tables: i64 =
        sqlx::query_scalar("select count(*) from tables").fetch_one(&pool).await.unwrap();
    assert!(tables >= 16, "the laws look at {tables} tables");
    pool
}

/// What machines compare is compared by code point: no locale decides, and no new version of its library
/// leaves an index in another order than it was built in.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn only_what_people_read_in_order_is_indexed_by_the_databases_locale(pool: PgPool) {
    let pool = laws(&pool).await;
    let by_locale: Vec<String> = sqlx::query_scalar(
        "select distinct i.relname::text
           from pg_index
           join tables t on t.oid = indrelid
           join pg_class i on i.oid = indexrelid,
                unnest(indcollation) used
          where used not in (0, '\"C\"'::regcollation)
          order by 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(
        by_locale,
        [
            // Searches without regard to case.
            "account_numbers_number_idx",
            "borrowers_name_idx",
            // Lists of lower-case words: each locale has them in the same order.
            "documents_status_created_at_idx",
            "extraction_jobs_status_created_at_idx",
            "templates_template_type_is_default_idx",
            // Listed by name.
            "templates_user_id_template_type_template_name_key",
        ]
    );
    pool.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn foreign_keys_are_indexed_and_constraints_are_named_after_their_table(pool: PgPool) {
    let pool = laws(&pool).await;
    none(
        &pool,
        "a foreign key without an index that begins with its first column",
        "select conname::text
           from pg_constraint
           join tables t on t.oid = conrelid
          where contype = 'f'
            and not exists (select from pg_index
                             where indrelid = conrelid and indkey[0] = conkey[1]
                               and indpred is null and indisvalid)",
    )
    .await;
    none(
        &pool,
        "a foreign key that does not end in _fkey",
        "select conname::text from pg_constraint join tables t on t.oid = conrelid
          where contype = 'f' and conname not like '%\\_fkey'",
    )
    .await;
    none(
        &pool,
        "a constraint that is not named after its table",
        "select conname::text from pg_constraint join tables t on t.oid = conrelid
          where contype <> 'n' and not starts_with(conname, name || '_')",
    )
    .await;
    none(
        &pool,
        "an index that is not named after its table, or is not valid",
        "select i.relname::text
           from pg_index join tables t on t.oid = indrelid join pg_class i on i.oid = indexrelid
          where not starts_with(i.relname, name || '_') or not indisvalid",
    )
    .await;
    none(
        &pool,
        "a constraint or index whose name was cut off",
        "select relname::text from pg_class where length(relname) >= 63
         union all
         select conname from pg_constraint where length(conname) >= 63",
    )
    .await;
    none(
        &pool,
        "a constraint that is not validated",
        "select conname::text from pg_constraint join tables t on t.oid = conrelid
          where not convalidated",
    )
    .await;
    none(
        &pool,
        "a table without a primary key",
        "select name from tables t
          where not exists (select from pg_constraint where conrelid = t.oid and contype = 'p')",
    )
    .await;
    pool.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn times_and_ids_are_the_databases(pool: PgPool) {
    let pool = laws(&pool).await;
    none(
        &pool,
        "a time that is not timestamptz",
        "select table_name || '.' || name from columns
          where type like 'timestamp%' and type <> 'timestamp with time zone'
             or type like 'time %' or name like '%\\_at' and type <> 'timestamp with time zone'",
    )
    .await;
    none(
        &pool,
        "a table without created_at timestamptz not null default now()",
        "select name from tables t
          where name <> 'config'
            and not exists (select from columns c
                             where table_oid = t.oid and c.name = 'created_at' and not_null
                               and default_value = 'now()')",
    )
    .await;
    none(
        &pool,
        "updated_at without not null, default now() and the trigger",
        "select table_name from columns c
          where name = 'updated_at'
            and not (not_null and default_value = 'now()'
                     and exists (select from pg_trigger
                                  where tgrelid = table_oid and tgenabled = 'O'
                                    and tgname = table_name || '_set_updated_at'
                                    and tgfoid = 'set_updated_at'::regproc
                                    -- before, for each row, on update
                                    and tgtype = 1 | 2 | 16
                                    and tgattr = ''
                                    -- for any row, or for any that really changes
                                    and (tgqual is null
                                         or pg_get_triggerdef(pg_trigger.oid)
                                            like '% WHEN ((old.* IS DISTINCT FROM new.*)) %')))",
    )
    .await;
    none(
        &pool,
        "a set_updated_at trigger on a table without the column",
        "select tgname::text from pg_trigger
          where tgfoid = 'set_updated_at'::regproc
            and not exists (select from columns where table_oid = tgrelid and name = 'updated_at')",
    )
    .await;
    none(
        &pool,
        "an id that is not uuid not null default gen_random_uuid()",
        "select table_name from columns
          where name = 'id'
            and not (type = 'uuid' and not_null and default_value = 'gen_random_uuid()')",
    )
    .await;
    none(
        &pool,
        "a table whose primary key is not its id",
        "select name from tables t
          where name <> 'config'
            and not exists (select from pg_constraint p join columns c
                                on c.table_oid = t.oid and conkey = array[c.attnum]
                             where conrelid = t.oid and contype = 'p' and c.name = 'id')",
    )
    .await;
    none(
        &pool,
        "a column of type json, money or char(n), or a varchar without a length",
        "select table_name || '.' || name from columns
          where type in ('json', 'money', 'character varying') or type like 'character(%'",
    )
    .await;
    pool.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn functions_and_grants_give_nobody_more_than_they_have(pool: PgPool) {
    let pool = laws(&pool).await;
    let functions: i64 =
        sqlx::query_scalar("select count(*) from functions").fetch_one(&pool).await.unwrap();
    assert!(functions >= 4, "the laws look at {functions} functions");
    none(
        &pool,
        "a function that does not pin its search_path, nor was parsed when it was made",
        "select name from functions
          where prosqlbody is null
            and not exists (select from unnest(proconfig) s where s like 'search\\_path=%')",
    )
    .await;
    none(
        &pool,
        "a function that runs with its owner's rights",
        "select name from functions where prosecdef",
    )
    .await;
    none(
        &pool,
        "a privilege of PUBLIC's: a function's is to be revoked where it is made",
        "select name from tables, aclexplode(relacl) where grantee = 0
         union all
         select table_name || '.' || columns.name from columns, aclexplode(attacl) where grantee = 0
         union all
         select name from functions, aclexplode(coalesce(proacl, acldefault('f', proowner)))
          where grantee = 0",
    )
    .await;
    none(
        &pool,
        "a privilege of anybody else's than the owner's and the two roles'",
        "select name || ' ' || grantee::regrole from tables, aclexplode(relacl)
          where grantee not in (grantor, 'chancery_app'::regrole, 'chancery_service'::regrole)
         union all
         select name || ' ' || grantee::regrole from functions, aclexplode(proacl)
          where grantee not in (grantor, 'chancery_app'::regrole, 'chancery_service'::regrole)
         union all
         select table_name || '.' || name from columns where attacl is not null
         union all
         select 'default privileges' from pg_default_acl",
    )
    .await;
    pool.close().await;
}

/// They run wherever the role's search_path leads: in a schema of the tenant, for example.
#[sqlx::test(migrations = false)]
async fn no_migration_names_a_schema(pool: PgPool) {
    sqlx::query("create schema tenant").execute(&pool).await.unwrap();
    let mut url = url(&pool);
    url.set_query(Some("options=-csearch_path%3Dtenant"));
    let tenant = connect(config(&pool).url(url.as_str())).await;
    tenant.migrate().await.unwrap();
    tenant.users().create(new_user()).await.unwrap();
    let elsewhere: i64 =
        value(&pool, "select count(*) from pg_class where relnamespace = 'public'::regnamespace")
            .await;
    assert_eq!(elsewhere, 0);
    // The functions look where the tables are; one looks at none.
    let pinned: Vec<String> = sqlx::query_scalar(
        "select distinct setting
           from pg_proc, unnest(coalesce(proconfig, '{none}')) setting
          where pronamespace = 'tenant'::regnamespace
            and setting not like all ('{plan_cache_mode=%,TimeZone=%,enable%}')
            and proname <> 'chancery_current_user_id'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(pinned, ["search_path=tenant"]);
    tenant.close().await;

    // What the catalogue does not show: names in the bodies of functions.
    for migration in MIGRATOR.iter() {
        // The current one, by a function.
        let text = migration.sql.as_str().to_lowercase().replace("on schema %i", "");
        for name in ["public.", "schema ", "search_path to", "search_path ="] {
            let named = text.contains(name);
            assert!(!named, "migration {} says {name:?}", migration.version);
        }
    }
}

#[test]
fn every_migration_has_both_directions_and_bounds_its_waiting() {
    use std::collections::BTreeMap;
    let mut files = BTreeMap::<i64, usize>::new();
    for migration in MIGRATOR.iter() {
        *files.entry(migration.version).or_default() += 1;
        let version = migration.version;
        assert!(version > 20_000_000_000_000, "{version} is not YYYYMMDDHHMMSS");
        let bounded = migration.sql.as_str().contains("set local lock_timeout");
        assert!(bounded || migration.no_tx, "migration {version} waits for locks for ever");
    }
    assert!(files.values().all(|count| *count == 2), "{files:?}");
}
