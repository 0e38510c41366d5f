//! chancery, through its public interface.

use chancery::{
    ChunkId, ConversationId, Cursor, Database, DatabaseConfig, MessageDraft, NewChunk, NewMessage,
    PageRequest, PoolOrder, TranscriptId, UserId,
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::contender::{ChunkInput, Contender, Failure, Outcome};

pub struct Chancery {
    db: Database,
    // A cursor is opaque: a page gives it.
    deep: OnceCell<Cursor>,
}

pub async fn pool(url: &str, connections: u32, order: PoolOrder) -> Outcome<Chancery> {
    let config = DatabaseConfig::builder()
        .url(url)
        .pool_size(connections)
        .max_overflow(0)
        .pool_timeout(Duration::from_secs(30))
        .pool_order(order)
        .build()?;
    Ok(Chancery { db: Database::connect(&config).await?, deep: OnceCell::new() })
}

impl Chancery {
    /// The cursor after a message, found by paging to it.
    async fn cursor(&self, conversation_id: ConversationId, last: Uuid) -> Outcome<Cursor> {
        let mut page = PageRequest::first(1_000);
        loop {
            let messages = self.db.messages().page_by_conversation(conversation_id, page).await?;
            let next = messages.next.ok_or_else(missing)?;
            if messages.items.last().is_some_and(|message| message.id.as_uuid() == last) {
                return Ok(next);
            }
            page = PageRequest::after(1_000, next);
        }
    }
}

fn missing() -> Failure {
    "no such row".into()
}

fn new_chunk(chunk: ChunkInput) -> NewChunk {
    let new = NewChunk::new(
        TranscriptId::from(chunk.transcript_id),
        chunk.chunk_index,
        chunk.chunk_text,
        chunk.token_count,
    );
    new.metadata(chunk.metadata)
}

impl Contender for Chancery {
    async fn get_by_id(&self, id: Uuid) -> Outcome<Uuid> {
        let user = self.db.users().get_by_id(UserId::from(id)).await?;
        Ok(user.ok_or_else(missing)?.id.as_uuid())
    }

    async fn get_by_email(&self, email: &str) -> Outcome<Uuid> {
        let user = self.db.users().get_by_email(email).await?;
        Ok(user.ok_or_else(missing)?.id.as_uuid())
    }

    async fn insert_message(
        &self,
        conversation_id: Uuid,
        _user_id: Uuid,
        content: &str,
    ) -> Outcome<Uuid> {
        let new = NewMessage::user(ConversationId::from(conversation_id), content);
        Ok(self.db.messages().create(new).await?.id.as_uuid())
    }

    async fn turn(&self, user_id: Uuid, question: &str, answer: &str) -> Outcome<Uuid> {
        let messages = vec![MessageDraft::user(question), MessageDraft::assistant(answer)];
        let begun = self
            .db
            .conversations()
            .create_with_messages(UserId::from(user_id), Some("A turn"), messages)
            .await?;
        Ok(begun.conversation.id.as_uuid())
    }

    async fn conversation_page(&self, user_id: Uuid, size: i64) -> Outcome<usize> {
        let page = PageRequest::first(size);
        Ok(self.db.conversations().page_by_user(UserId::from(user_id), page).await?.items.len())
    }

    async fn message_page(
        &self,
        conversation_id: Uuid,
        after: Option<(DateTime<Utc>, Uuid)>,
        size: i64,
    ) -> Outcome<usize> {
        let conversation_id = ConversationId::from(conversation_id);
        let page = PageRequest::first(size);
        let page = match after {
            None => page,
            Some((_, id)) => {
                let cursor = self.deep.get_or_try_init(|| self.cursor(conversation_id, id)).await?;
                PageRequest::after(size, *cursor)
            }
        };
        Ok(self.db.messages().page_by_conversation(conversation_id, page).await?.items.len())
    }

    async fn create_chunks(&self, chunks: Vec<ChunkInput>) -> Outcome<usize> {
        let new = chunks.into_iter().map(new_chunk).collect();
        Ok(self.db.chunks().create_many(new).await?.len())
    }

    async fn load_chunks(&self, chunks: Vec<ChunkInput>) -> Outcome<usize> {
        let new = chunks.into_iter().map(new_chunk).collect();
        Ok(usize::try_from(self.db.chunks().insert_many(new).await?)?)
    }

    async fn read_chunks(&self, transcript_id: Uuid) -> Outcome<usize> {
        let id = TranscriptId::from(transcript_id);
        Ok(self.db.chunks().list_by_transcript(id, 1_000, 0).await?.len())
    }

    async fn read_chunks_raw(&self, transcript_id: Uuid) -> Outcome<usize> {
        let id = TranscriptId::from(transcript_id);
        let chunks = self.db.chunks().json_as::<Box<RawValue>>();
        Ok(chunks.list_by_transcript(id, 1_000, 0).await?.len())
    }

    async fn chunks_by_ids(&self, ids: &[Uuid]) -> Outcome<usize> {
        let ids: Vec<_> = ids.iter().copied().map(ChunkId::from).collect();
        Ok(self.db.chunks().get_by_ids(&ids).await?.len())
    }
}
