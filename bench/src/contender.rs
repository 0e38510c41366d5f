//! What a contender can do, and how it is driven.

use std::future::Future;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use serde_json::Value;
use uuid::Uuid;

use crate::drive::{Load, Sample, drive};
use crate::workload::Workload;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Outcome<T> = Result<T, Failure>;

/// A chunk as an application has it before it is stored.
#[derive(Clone)]
pub struct ChunkInput {
    pub id: Uuid,
    pub transcript_id: Uuid,
    pub user_id: Uuid,
    pub chunk_text: String,
    pub chunk_index: i32,
    pub token_count: i32,
    pub metadata: Value,
}

/// The operations that are measured. Each decodes whole rows into a struct of the contender's own,
/// and returns what shows that it did its work: the row's identifier, or how many rows there were.
pub trait Contender: Send + Sync + 'static {
    /// A user by its key.
    fn get_by_id(&self, id: Uuid) -> impl Future<Output = Outcome<Uuid>> + Send;

    /// A user by its address, without regard to case.
    fn get_by_email(&self, email: &str) -> impl Future<Output = Outcome<Uuid>> + Send;

    /// A message; the row comes back.
    fn insert_message(
        &self,
        conversation_id: Uuid,
        user_id: Uuid,
        content: &str,
    ) -> impl Future<Output = Outcome<Uuid>> + Send;

    /// A conversation with its first two messages, all or nothing; the conversation comes back.
    fn turn(
        &self,
        user_id: Uuid,
        question: &str,
        answer: &str,
    ) -> impl Future<Output = Outcome<Uuid>> + Send;

    /// A page of a user's conversations, the latest first.
    fn conversation_page(
        &self,
        user_id: Uuid,
        size: i64,
    ) -> impl Future<Output = Outcome<usize>> + Send;

    /// A page of a conversation's messages, the oldest first, after a place in it.
    fn message_page(
        &self,
        conversation_id: Uuid,
        after: Option<(DateTime<Utc>, Uuid)>,
        size: i64,
    ) -> impl Future<Output = Outcome<usize>> + Send;

    /// Stores chunks, all or nothing; the rows come back.
    fn create_chunks(&self, chunks: Vec<ChunkInput>)
    -> impl Future<Output = Outcome<usize>> + Send;

    /// Stores chunks whose identifiers are the caller's, all or nothing; nothing comes back.
    fn load_chunks(&self, chunks: Vec<ChunkInput>) -> impl Future<Output = Outcome<usize>> + Send;

    /// A transcript's chunks in order, at most 1,000.
    fn read_chunks(&self, transcript_id: Uuid) -> impl Future<Output = Outcome<usize>> + Send;

    /// The same with the metadata as text, where there is a way.
    fn read_chunks_raw(&self, transcript_id: Uuid) -> impl Future<Output = Outcome<usize>> + Send {
        self.read_chunks(transcript_id)
    }

    /// Chunks by their keys.
    fn chunks_by_ids(&self, ids: &[Uuid]) -> impl Future<Output = Outcome<usize>> + Send;
}

/// A contender of any type, driven as a whole: nothing is boxed in an operation.
pub trait Driven: Send + Sync {
    fn drive(
        self: Arc<Self>,
        workload: Workload,
        load: Load,
    ) -> BoxFuture<'static, Outcome<Sample>>;
}

impl<C: Contender> Driven for C {
    fn drive(
        self: Arc<Self>,
        workload: Workload,
        load: Load,
    ) -> BoxFuture<'static, Outcome<Sample>> {
        Box::pin(drive(self, workload, load))
    }
}
