//! Factories for documents and borrowers.

use std::time::Duration;

use chancery::{
    AccountNumber, Database, Document, DocumentId, FileHash, NewAccount, NewBorrower, NewDocument,
    NewIncomeRecord, NewSourceReference,
};
use rust_decimal::Decimal;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::unique;

/// A database with room for so many callers at once.
pub async fn wide(pool: PgPoolOptions, options: PgConnectOptions, connections: u32) -> Database {
    let pool = pool.max_connections(connections).acquire_timeout(Duration::from_secs(30));
    Database::from_pool(pool.connect_with(options).await.unwrap())
}

/// Waits until so many of the database's sessions wait for a lock.
pub async fn until_blocked(db: &Database, sessions: i64) {
    let blocked = async {
        while sqlx::query_scalar::<_, i64>(
            "select count(*) from pg_stat_activity
              where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(db.executor())
        .await
        .unwrap()
            < sessions
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), blocked).await.expect("they do not block");
}

pub fn file_hash() -> FileHash {
    format!("{:064x}", unique()).parse().unwrap()
}

pub fn new_document() -> NewDocument {
    NewDocument::new("w2.pdf", file_hash(), "pdf", 1024)
}

pub async fn document(db: &Database) -> Document {
    db.documents().create(new_document()).await.unwrap()
}

/// So many, oldest first.
pub async fn documents(db: &Database, count: usize) -> Vec<Document> {
    let mut documents = Vec::with_capacity(count);
    for _ in 0..count {
        documents.push(document(db).await);
    }
    documents
}

/// `cents` of 2025.
pub fn income(cents: i64) -> NewIncomeRecord {
    income_of(2025, cents)
}

pub fn income_of(year: i32, cents: i64) -> NewIncomeRecord {
    NewIncomeRecord::new(Decimal::new(cents, 2), "annual", year, "employment")
}

pub fn account(number: &str) -> NewAccount {
    NewAccount::new(AccountNumber::new(number).unwrap(), "checking")
}

/// A borrower that these documents tell of.
pub fn borrower_of(documents: &[DocumentId]) -> NewBorrower {
    let new = NewBorrower::new(format!("Borrower {}", unique()));
    documents.iter().fold(new, |new, id| new.source(NewSourceReference::new(*id, 1, "Name:")))
}
