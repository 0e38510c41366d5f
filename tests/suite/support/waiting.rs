//! Order between real transactions, made by locks and seen in the server's own lock table.

use chancery::{Database, UnitOfWork};

use super::database::PATIENCE;

/// The server process that runs this unit of work.
pub async fn backend(uow: &mut UnitOfWork) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(uow.executor()).await.unwrap()
}

/// Returns once that process waits for a lock that somebody else holds.
pub async fn until_blocked(db: &Database, backend: i32) {
    let blocked = async {
        loop {
            let waits: bool = sqlx::query_scalar("select cardinality(pg_blocking_pids($1)) > 0")
                .bind(backend)
                .fetch_one(db.executor())
                .await
                .unwrap();
            if waits {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, blocked).await.expect("nobody made it wait");
}
