//! An application with a table of its own beside Chancery's: both are migrated, both are written in
//! one transaction, and its own statements are checked against its own DATABASE_URL.

use chancery::{Database, DatabaseConfig, NewUser, UserId};
use sqlx::migrate::Migrator;
use uuid::Uuid;

/// Kept in `_sqlx_migrations`, as ever; Chancery's bookkeeping is elsewhere.
static OWN_MIGRATIONS: Migrator = sqlx::migrate!();

#[derive(Debug, PartialEq)]
struct Invoice {
    id: Uuid,
    user_id: Uuid,
    cents: i32,
}

async fn invoices_of(db: &Database, user_id: UserId) -> chancery::Result<Vec<Invoice>> {
    Ok(sqlx::query_as!(
        Invoice,
        "select id, user_id, cents from invoices where user_id = $1",
        user_id.as_uuid()
    )
    .fetch_all(db.executor())
    .await?)
}

async fn sign_up(db: &Database, email: &str, cents: i32) -> chancery::Result<(UserId, Uuid)> {
    db.transaction(async |uow| {
        let user = uow.users().create(NewUser::new(email)).await?;
        let invoice = sqlx::query_scalar!(
            "insert into invoices (user_id, cents) values ($1, $2) returning id",
            user.id.as_uuid(),
            cents
        )
        .fetch_one(uow.executor())
        .await?;
        Ok((user.id, invoice))
    })
    .await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let db = Database::connect(&DatabaseConfig::from_env()?).await?;
    let applied = db.migrate().await?;
    OWN_MIGRATIONS.run(db.pool()).await?;
    assert_eq!(applied.len(), db.migration_status().await?.migrations.len());
    db.check_schema().await?;

    let (user_id, id) = sign_up(&db, "ada@example.org", 1250).await?;
    assert_eq!(
        invoices_of(&db, user_id).await?,
        [Invoice { id, user_id: user_id.as_uuid(), cents: 1250 }]
    );
    assert!(db.users().get_by_email("ada@example.org").await?.is_some());

    // The invoice is refused, so there is no such user either.
    sign_up(&db, "grace@example.org", -1).await.expect_err("a negative invoice");
    assert!(db.users().get_by_email("grace@example.org").await?.is_none());

    #[cfg(feature = "right-column")]
    sqlx::query!("select email from users").fetch_all(db.pool()).await?;
    #[cfg(feature = "wrong-column")]
    sqlx::query!("select e_mail from users").fetch_all(db.pool()).await?;

    db.close().await;
    println!("consumer: both schemas migrated, both written in one transaction and read back");
    Ok(())
}
