//! Who migrates: an owner that is no superuser, in a cluster that has the two roles or not.

use chancery::{
    Database, DatabaseConfig, Error, MigrationError, NewMessage, RevertTo, RoleCheck, RoleRisk,
};
use futures_util::future::join_all;
use private_postgres::Server;
use sqlx::PgPool;

use super::{Tenants, World, execute, role_name};
use crate::support::database::{config, connect, url};
use crate::support::events::Events;
use crate::support::{conversation_of, new_user};

/// A cluster of its own, which has never seen the two roles.
pub struct Cluster {
    server: Server,
    pub admin: PgPool,
}

impl Cluster {
    pub async fn start() -> Self {
        let server = Server::start().unwrap();
        let admin = PgPool::connect(&server.url("postgres")).await.unwrap();
        Self { server, admin }
    }

    /// The administrator's, of another database.
    pub async fn pool(&self, database: &str) -> PgPool {
        PgPool::connect(&self.server.url(database)).await.unwrap()
    }

    pub fn url(&self, role: &str, database: &str) -> String {
        let mut url = url::Url::parse(&self.server.url(database)).unwrap();
        url.set_username(role).unwrap();
        url.into()
    }

    pub async fn connect(&self, role: &str, database: &str) -> Database {
        connect(DatabaseConfig::builder().url(&self.url(role, database)).pool_size(2)).await
    }
}

/// `migrations/roles.sql`, as psql reads it.
fn roles_script(owner: &str, login: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/roles.sql");
    let script = std::fs::read_to_string(path).unwrap();
    script.replace(":\"owner\"", owner).replace(":\"login\"", login)
}

/// The tables' owner is no superuser: keys are checked and rows cascade under forced policies, and the
/// service form works with that one role.
pub async fn one_role_is_enough(db: &Database) {
    let world = World::new(db).await;
    let user = world.user.id;
    let stranger = db.users().create(new_user()).await.unwrap().id;
    let of_the_stranger = conversation_of(db, stranger).await;
    assert_eq!(db.conversations().list_recent(10, 0).await.unwrap().len(), 2);
    assert_eq!(
        db.as_user(stranger).conversations().list_recent(10, 0).await.unwrap(),
        [of_the_stranger]
    );
    let reply = NewMessage::assistant(world.conversation.id, "Because.");
    db.as_user(user).messages().create(reply).await.unwrap();
    // A key's columns follow its parent's.
    sqlx::query("update conversations set user_id = $1 where id = $2")
        .bind(stranger.as_uuid())
        .bind(world.conversation.id.as_uuid())
        .execute(db.executor())
        .await
        .unwrap();
    let moved = db.as_user(stranger).messages().get_last_n(world.conversation.id, 9).await.unwrap();
    assert_eq!(moved.len(), 2);
    assert!(moved.iter().all(|message| message.user_id == stranger));
    for user in [user, stranger] {
        assert!(db.as_user(user).users().delete(user).await.unwrap());
    }
    for table in ["users", "messages", "chunks", "source_references", "extraction_jobs"] {
        let text = format!("select count(*) from {table}");
        let left: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(db.executor()).await.unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

#[tokio::test]
async fn an_owner_that_may_create_roles_needs_nothing_and_eight_databases_migrate_at_once() {
    let cluster = Cluster::start().await;
    execute(&cluster.admin, "create role owner login createrole").await;
    for i in 0..8 {
        execute(&cluster.admin, &format!("create database d{i} owner owner")).await;
    }
    // None of them finds the roles.
    let databases = join_all((0..8).map(async |i| {
        let name = format!("d{i}");
        cluster.connect("owner", &name).await
    }))
    .await;
    let migrating =
        databases.iter().cloned().map(|db| tokio::spawn(async move { db.migrate().await }));
    for migrated in join_all(migrating).await {
        migrated.unwrap().unwrap();
    }
    one_role_is_enough(&databases[0]).await;

    // Down and up again: the roles stay, for the others.
    databases[1].revert(RevertTo::Nothing).await.unwrap();
    let roles: i64 = sqlx::query_scalar(
        "select count(*) from pg_roles where rolname in ('chancery_app', 'chancery_service')",
    )
    .fetch_one(&cluster.admin)
    .await
    .unwrap();
    assert_eq!(roles, 2);
    databases[1].migrate().await.unwrap();
    one_role_is_enough(&databases[1]).await;
    for db in databases {
        db.close().await;
    }
    cluster.admin.close().await;
}

#[tokio::test]
async fn an_owner_that_may_not_create_roles_is_told_of_the_script_and_works_after_it() {
    let cluster = Cluster::start().await;
    execute(&cluster.admin, "create role owner login; create role app login").await;
    execute(&cluster.admin, "create database d owner owner").await;
    let owner = cluster.connect("owner", "d").await;
    let refused = owner.migrate().await.unwrap_err();
    assert!(matches!(refused, Error::Migration(MigrationError::NotAllowed { .. })), "{refused:?}");
    assert!(refused.to_string().contains("migrations/roles.sql"), "{refused}");
    assert_eq!(owner.migration_status().await.unwrap().applied, 0);

    // A second time, it finds everything done.
    for _ in 0..2 {
        execute(&cluster.admin, &roles_script("owner", "app")).await;
    }
    assert!(!owner.migrate().await.unwrap().is_empty());
    one_role_is_enough(&owner).await;
    let app = cluster.connect("app", "d").await;
    app.check_schema().await.unwrap();
    one_role_is_enough(&app).await;
    assert!(app.health().await.is_healthy());
    app.close().await;
    owner.close().await;
    cluster.admin.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_role_that_may_more_than_it_needs_is_warned_of_or_refused(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let login = tenants.login.clone();
    let refusing = async |role: Option<&str>| {
        let mut url = url(&pool);
        if let Some(role) = role {
            url.set_username(role).unwrap();
            url.set_password(Some("x")).unwrap();
        }
        let config = config(&pool).url(url.as_str()).role_check(RoleCheck::Refuse);
        match Database::connect(&config.build().unwrap()).await {
            Ok(db) => {
                db.close().await;
                None
            }
            Err(Error::RoleRefused { risk, .. }) => Some(risk),
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(refusing(None).await, Some(RoleRisk::Superuser));
    assert_eq!(refusing(Some(&login)).await, None);
    execute(&pool, &format!("alter role \"{login}\" bypassrls")).await;
    assert_eq!(refusing(Some(&login)).await, Some(RoleRisk::BypassesRowSecurity));
    execute(&pool, &format!("alter role \"{login}\" nobypassrls")).await;
    let migrator = role_name(&pool, "migrator");
    execute(
        &pool,
        &format!(
            "create role \"{migrator}\"; alter table _chancery_migrations owner to \"{migrator}\""
        ),
    )
    .await;
    assert_eq!(refusing(Some(&login)).await, None);
    execute(&pool, &format!("grant \"{migrator}\" to \"{login}\"")).await;
    assert_eq!(refusing(Some(&login)).await, Some(RoleRisk::OwnsTables));
    execute(
        &pool,
        &format!(
            "alter table _chancery_migrations owner to current_user; drop role \"{migrator}\""
        ),
    )
    .await;

    let events = Events::capture();
    let warned = |check: RoleCheck| {
        let config = config(&pool).role_check(check);
        async {
            connect(config).await.close().await;
            let seen = events.take();
            seen.iter().any(|(level, _, text)| {
                *level == tracing::Level::WARN && text.contains("is a superuser")
            })
        }
    };
    assert!(warned(RoleCheck::Warn).await);
    assert!(!warned(RoleCheck::Off).await);
    drop(events);
    tenants.end().await;
}

#[test]
fn the_check_is_read_from_the_environment() {
    let with = |check: Option<&'static str>| {
        DatabaseConfig::from_variables(move |name| match name {
            "DATABASE_URL" => Some("postgres://ada@localhost/app".to_owned()),
            "DATABASE_ROLE_CHECK" => check.map(str::to_owned),
            _ => None,
        })
    };
    for check in [None, Some("off"), Some("WARN"), Some("refuse")] {
        assert!(with(check).is_ok(), "{check:?}");
    }
    let wrong = with(Some("maybe")).unwrap_err().to_string();
    assert!(
        wrong.contains("DATABASE_ROLE_CHECK") && wrong.contains("off, warn or refuse"),
        "{wrong}"
    );
}
