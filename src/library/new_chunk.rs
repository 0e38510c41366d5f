//! What is said of a chunk to store one.

use serde_json::{Value, json};
use uuid::Uuid;

use super::chunk::ChunkId;
use super::transcript::TranscriptId;
use crate::db::id::debug_fields;
use crate::db::{Result, input};

/// A piece to be stored.
#[derive(Clone, PartialEq)]
pub struct NewChunk {
    /// What it was cut from.
    pub transcript_id: TranscriptId,
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub chunk_text: String,
    /// From 0; unique in the transcript.
    pub chunk_index: i32,
    /// Not negative.
    pub token_count: i32,
    /// At most [`MAX_JSON_DEPTH`](crate::MAX_JSON_DEPTH) levels; `{}` unless said.
    pub metadata: Value,
}

debug_fields!(NewChunk { transcript_id, chunk_index, token_count });

impl NewChunk {
    /// With what every chunk has.
    pub fn new(
        transcript_id: TranscriptId,
        chunk_index: i32,
        chunk_text: impl Into<String>,
        token_count: i32,
    ) -> Self {
        Self {
            transcript_id,
            chunk_text: chunk_text.into(),
            chunk_index,
            token_count,
            metadata: json!({}),
        }
    }

    /// With notes.
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = metadata;
        self
    }

    /// Its size in bytes, if it can be stored.
    pub(super) fn check(&self) -> Result<usize> {
        input::range("chunk_index", self.chunk_index.into(), 0, i32::MAX.into())?;
        check(&self.chunk_text, self.token_count, &self.metadata)
    }
}

fn check(text: &str, token_count: i32, metadata: &Value) -> Result<usize> {
    input::long_text("chunk_text", text)?;
    input::range("token_count", token_count.into(), 0, i32::MAX.into())?;
    Ok(text.len() + input::json_size("metadata", metadata)?)
}

/// A piece of a transcript that is stored or cut anew as a whole: its place in the transcript is its
/// place in the list. See
/// [`create_with_chunks`](super::TranscriptRepository::create_with_chunks) and
/// [`replace_all`](super::ChunkRepository::replace_all).
#[derive(Clone, PartialEq)]
pub struct ChunkDraft {
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub chunk_text: String,
    /// Not negative.
    pub token_count: i32,
    /// At most [`MAX_JSON_DEPTH`](crate::MAX_JSON_DEPTH) levels; `{}` unless said.
    pub metadata: Value,
}

debug_fields!(ChunkDraft { token_count });

impl ChunkDraft {
    /// With what every chunk has.
    pub fn new(chunk_text: impl Into<String>, token_count: i32) -> Self {
        Self { chunk_text: chunk_text.into(), token_count, metadata: json!({}) }
    }

    /// With notes.
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = metadata;
        self
    }
}

/// A transcript's chunks as a statement is given them.
#[derive(Default)]
pub(super) struct ChunkColumns {
    pub ids: Vec<Uuid>,
    pub texts: Vec<String>,
    pub token_counts: Vec<i32>,
    pub metadata: Vec<Value>,
}

impl ChunkColumns {
    /// Checks them all.
    pub fn new(drafts: Vec<ChunkDraft>) -> Result<Self> {
        let mut bytes = 0;
        input::each("chunks", &drafts, |draft| {
            bytes += check(&draft.chunk_text, draft.token_count, &draft.metadata)?;
            Ok(())
        })?;
        input::statement_size("chunks", bytes)?;
        let mut columns = Self::default();
        for draft in drafts {
            columns.ids.push(ChunkId::new().as_uuid());
            columns.texts.push(draft.chunk_text);
            columns.token_counts.push(draft.token_count);
            columns.metadata.push(draft.metadata);
        }
        Ok(columns)
    }
}
