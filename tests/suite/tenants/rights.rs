//! What the migrating role may not do: told before the first migration, with what helps.

use chancery::{Database, DatabaseConfig, Error, MigrationError, MissingRight, RevertTo};

use super::execute;
use super::owners::{Cluster, one_role_is_enough};

/// What the role lacks; nothing was changed.
async fn lacks(db: &Database) -> Vec<MissingRight> {
    let before = db.migration_status().await.ok().map(|status| status.applied);
    let lacks = match db.migrate().await {
        Err(Error::Migration(error)) => {
            let text = error.to_string();
            let MigrationError::NotAllowed { missing: lacks, .. } = error else {
                panic!("{error:?}")
            };
            for lack in &lacks {
                assert!(text.contains(&lack.what) && text.contains(&lack.remedy), "{text}");
            }
            lacks
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(db.migration_status().await.ok().map(|status| status.applied), before);
    lacks
}

fn whats(lacks: &[MissingRight]) -> Vec<&str> {
    lacks.iter().map(|lack| &*lack.what).collect()
}

/// An administrator runs what the error says.
async fn remedy(cluster: &Cluster, database: &str, lacks: &[MissingRight]) {
    let admin = cluster.pool(database).await;
    for lack in lacks {
        execute(&admin, &lack.remedy).await;
    }
    admin.close().await;
}

#[tokio::test]
async fn all_that_the_role_lacks_is_told_at_once_and_the_named_statements_are_enough() {
    let cluster = Cluster::start().await;
    execute(&cluster.admin, "create role \"App-1\" login; create role other login noinherit").await;
    // Databases of the administrator's: the roles are no owners, not even of a schema.
    for database in ["d1", "d2", "d3"] {
        execute(&cluster.admin, &format!("create database {database}")).await;
    }

    let app = cluster.connect("App-1", "d1").await;
    let found = lacks(&app).await;
    assert_eq!(
        whats(&found),
        [
            "create anything in schema public",
            "create role chancery_app",
            "create role chancery_service"
        ]
    );
    remedy(&cluster, "d1", &found).await;
    assert!(!app.migrate().await.unwrap().is_empty());
    app.check_schema().await.unwrap();
    one_role_is_enough(&app).await;

    // The roles are there now, and this one is no member, and would not inherit.
    let other = cluster.connect("other", "d2").await;
    let found = lacks(&other).await;
    assert_eq!(
        whats(&found),
        [
            "create anything in schema public",
            "become a member of chancery_app",
            "become a member of chancery_service",
            "inherit the rights of chancery_app",
            "inherit the rights of chancery_service",
        ]
    );
    remedy(&cluster, "d2", &found).await;
    assert!(!other.migrate().await.unwrap().is_empty());
    other.check_schema().await.unwrap();

    // A schema in which the role may create, and to which it can let nobody.
    let admin = cluster.pool("d3").await;
    execute(&admin, "create schema mine; grant usage, create on schema mine to \"App-1\"").await;
    execute(&admin, "alter role \"App-1\" in database d3 set search_path = mine").await;
    admin.close().await;
    let app_of_d3 = cluster.connect("App-1", "d3").await;
    let found = lacks(&app_of_d3).await;
    assert_eq!(whats(&found), ["let chancery_app and chancery_service use schema mine"]);
    remedy(&cluster, "d3", &found).await;
    assert!(!app_of_d3.migrate().await.unwrap().is_empty());
    app_of_d3.check_schema().await.unwrap();
    one_role_is_enough(&app_of_d3).await;
    for db in [app, other, app_of_d3] {
        db.close().await;
    }
    cluster.admin.close().await;
}

#[tokio::test]
async fn a_role_that_may_only_use_the_tables_finds_nothing_to_do_and_is_told_who_migrates() {
    let cluster = Cluster::start().await;
    execute(
        &cluster.admin,
        "create role owner login createrole; create role app login; create role nobody login",
    )
    .await;
    execute(&cluster.admin, "create database d owner owner").await;
    let owner = cluster.connect("owner", "d").await;
    let all = owner.migrate().await.unwrap();
    execute(&cluster.admin, "grant chancery_app, chancery_service to app").await;
    let app = cluster.connect("app", "d").await;
    assert_eq!(app.migrate().await.unwrap(), [0_i64; 0]);
    app.check_schema().await.unwrap();

    // It may not even look.
    let nobody = cluster.connect("nobody", "d").await;
    let found = lacks(&nobody).await;
    assert_eq!(whats(&found), ["read _chancery_migrations"]);
    remedy(&cluster, "d", &found).await;
    assert_eq!(nobody.migrate().await.unwrap(), [0_i64; 0]);

    // As for a later version of the crate.
    owner.revert(RevertTo::Steps(1)).await.unwrap();
    let found = lacks(&app).await;
    assert_eq!(whats(&found), ["create anything in schema public", "change the tables of owner"]);
    remedy(&cluster, "d", &found).await;
    assert_eq!(app.migrate().await.unwrap(), all[all.len() - 1..]);
    for db in [owner, app, nobody] {
        db.close().await;
    }
    cluster.admin.close().await;
}

/// `pg_dump --no-owner | psql` in a cluster without the two roles leaves this: who is no superuser sees
/// empty lists.
#[tokio::test]
async fn a_database_restored_without_the_roles_is_told_of_each_that_is_missing() {
    let cluster = Cluster::start().await;
    execute(&cluster.admin, "create role owner login createrole").await;
    execute(&cluster.admin, "create database d owner owner").await;
    let owner = cluster.connect("owner", "d").await;
    owner.migrate().await.unwrap();
    owner.check_schema().await.unwrap();
    let admin = cluster.pool("d").await;
    let policies: i64 =
        sqlx::query_scalar("select count(*) from pg_policy").fetch_one(&admin).await.unwrap();
    execute(
        &admin,
        "drop owned by chancery_app, chancery_service; drop role chancery_app, chancery_service",
    )
    .await;
    admin.close().await;

    let differs = owner.check_schema().await.unwrap_err();
    let text = differs.to_string();
    for what in [
        "role chancery_app",
        "role chancery_service",
        "policy users_owner on users",
        "policy config_read on config",
    ] {
        assert!(text.contains(&format!("{what} is missing")), "{text}");
    }
    assert_eq!(text.matches("policy ").count(), policies as usize, "{text}");
    // Nor does a service start, although nothing is left to migrate.
    for startup in [chancery::Startup::Migrate, chancery::Startup::Check] {
        let config = DatabaseConfig::from_url(&cluster.url("owner", "d")).unwrap();
        let refused = Database::init(&config, startup).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.to_string(), text);
    }
    owner.close().await;
    cluster.admin.close().await;
}
