//! What the catalogue says of the roles, the policies and the privileges; and what the server refuses.

use chancery::{Database, Error};
use sqlx::{AssertSqlSafe, PgPool};

use super::{Tenants, execute, role_name};
use crate::support::new_user;

/// Fails with what the statement finds: it selects the offenders.
async fn none(pool: &PgPool, rule: &str, offenders: &'static str) {
    let found: Vec<String> = sqlx::query_scalar(offenders).fetch_all(pool).await.unwrap();
    assert!(found.is_empty(), "{rule}: {found:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn every_table_is_under_row_level_security_with_a_policy_for_each_role(pool: PgPool) {
    execute(
        &pool,
        "create view laws_tables as
             select * from pg_class
              where relnamespace = current_schema::regnamespace and relkind in ('r', 'p')
                and relname not like '\\_%\\_migrations'",
    )
    .await;
    let tables: i64 =
        sqlx::query_scalar("select count(*) from laws_tables").fetch_one(&pool).await.unwrap();
    assert!(tables >= 16);
    none(
        &pool,
        "a table without forced row-level security",
        "select relname::text from laws_tables where not (relrowsecurity and relforcerowsecurity)",
    )
    .await;
    none(
        &pool,
        "a table that the service does not see wholly",
        "select relname::text from laws_tables t
          where not exists (
              select from pg_policy
               where polrelid = t.oid and polcmd = '*' and polpermissive
                 and polname = relname || '_service'
                 and polroles = array['chancery_service'::regrole::oid]
                 and pg_get_expr(polqual, polrelid) = 'true')",
    )
    .await;
    none(
        &pool,
        "a table without a policy for users",
        "select relname::text from laws_tables t
          where not exists (select from pg_policy
                             where polrelid = t.oid
                               and polroles = array['chancery_app'::regrole::oid])",
    )
    .await;
    none(
        &pool,
        "a policy for others than one of the two roles, or a restrictive one",
        "select polname::text from pg_policy
          where polroles not in (array['chancery_app'::regrole::oid],
                                 array['chancery_service'::regrole::oid])
             or not polpermissive",
    )
    .await;
    none(
        &pool,
        "a policy for users that does not ask who it is; rows that are let in are looked at by a trigger",
        "select polname::text from pg_policy
          where polroles = array['chancery_app'::regrole::oid]
            and concat(pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
                not like '%chancery_current_user_id()%'
            and not (polcmd = 'a'
                     and exists (select from pg_trigger
                                  where tgrelid = polrelid and tgenabled = 'O'
                                    and tgfoid = 'refuse_records_of_unseen_borrowers'::regproc))",
    )
    .await;
    none(
        &pool,
        "a user that is not asked for once a statement, by a sub-select",
        "select polname::text from pg_policy,
                regexp_matches(pg_get_expr(polqual, polrelid),
                               '(SELECT )?chancery_current_user_id\\(\\)', 'g') found
          where found[1] is null",
    )
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_roles_are_nobodys_login_and_hold_no_more_than_they_need(pool: PgPool) {
    none(
        &pool,
        "a role that may more than be granted",
        "select rolname::text from pg_roles
          where rolname in ('chancery_app', 'chancery_service')
            and (rolcanlogin or rolsuper or rolbypassrls or rolcreatedb or rolcreaterole
                 or rolreplication)",
    )
    .await;
    none(
        &pool,
        "a role that is a member of another",
        "select roleid::regrole::text from pg_auth_members
          where member in ('chancery_app'::regrole, 'chancery_service'::regrole)",
    )
    .await;
    none(
        &pool,
        "a role that owns something",
        "select classid::regclass::text || ' ' || objid from pg_shdepend
          where deptype = 'o'
            and refobjid in ('chancery_app'::regrole, 'chancery_service'::regrole)",
    )
    .await;
    none(
        &pool,
        "a role that may create something, or look at the bookkeeping",
        "select role || ' ' || what
           from (values ('chancery_app'), ('chancery_service')) roles (role),
                lateral (values
                    ('create in the schema', has_schema_privilege(role, current_schema, 'create')),
                    ('create a schema', has_database_privilege(role, current_database(), 'create')),
                    ('write the bookkeeping', has_table_privilege(role, '_chancery_migrations', 'insert, update, delete')),
                    ('read the bookkeeping', role = 'chancery_app' and has_table_privilege(role, '_chancery_migrations', 'select'))
                ) privileges (what, held)
          where held",
    )
    .await;
    none(
        &pool,
        "a privilege beyond reading and writing rows",
        "select relname || ' ' || privilege_type || ' ' || grantee::regrole
           from pg_class, aclexplode(relacl)
          where relnamespace = current_schema::regnamespace and grantee <> relowner
            and privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE')",
    )
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_user_can_change_no_table_no_policy_and_no_function(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let user = db.users().create(new_user()).await.unwrap().id;
    for statement in [
        "create table t (id int)",
        "create function f() returns int language sql return 1",
        "alter table users disable row level security",
        "alter table users no force row level security",
        "drop policy users_owner on users",
        "alter policy users_owner on users using (true)",
        "create policy mine on users using (true)",
        "drop table messages",
        "truncate messages",
        "alter table users disable trigger all",
        "create or replace function chancery_current_user_id() returns uuid language sql
             return gen_random_uuid()",
        "drop function chancery_current_user_id()",
        "grant chancery_service to chancery_app",
        "alter role chancery_app bypassrls",
        "select * from _chancery_migrations",
        "insert into users (email) values ('eve@example.org')",
        "insert into config (key, value) values ('theme', '1')",
        "update account_numbers set number = '1'",
        "set session_replication_role = 'replica'",
    ] {
        let refused = sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(db.as_user(user).executor())
            .await
            .map_err(Error::from);
        assert!(matches!(refused, Err(Error::PermissionDenied(_))), "{statement}: {refused:?}");
    }
    // `row_security = off` does not switch it off: it makes an error of what would be left out.
    let mut uow = db.as_user(user).begin().await.unwrap();
    sqlx::query("set local row_security = off").execute(uow.executor()).await.unwrap();
    let refused =
        sqlx::query("select id from users").execute(uow.executor()).await.map_err(Error::from);
    assert!(matches!(refused, Err(Error::PermissionDenied(_))), "{refused:?}");
    drop(uow);
    tenants.end().await;
}

/// FORCE: who owns a table is not above its policies.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_owner_alone_sees_rows_only_as_a_member_of_the_service(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    db.users().create(new_user()).await.unwrap();
    let owner = role_name(&pool, "owner");
    execute(&pool, &format!("create role \"{owner}\"; alter table users owner to \"{owner}\""))
        .await;
    let count = async || -> i64 {
        let mut transaction = pool.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("set local role \"{owner}\"")))
            .execute(&mut *transaction)
            .await
            .unwrap();
        // Not prepared: a plan that is kept does not notice that its role became a member.
        sqlx::query_scalar("select count(*) from users")
            .persistent(false)
            .fetch_one(&mut *transaction)
            .await
            .unwrap()
    };
    assert_eq!(count().await, 0);
    execute(&pool, &format!("grant chancery_service to \"{owner}\"")).await;
    assert_eq!(count().await, 1);
    execute(
        &pool,
        &format!("alter table users owner to current_user; drop owned by \"{owner}\"; drop role \"{owner}\""),
    )
    .await;
}
