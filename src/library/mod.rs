//! What users have loaded: transcripts of videos, and the chunks that they are cut into.

mod chunk;
mod transcript;

pub use chunk::{Chunk, ChunkId, ChunkRepository, NewChunk};
pub use transcript::{
    NewTranscript, Transcript, TranscriptId, TranscriptPatch, TranscriptRepository,
    TranscriptSummary, TranscriptWithChunkCount,
};
