//! What users have loaded: transcripts of videos, and the chunks that they are cut into.

mod chunk;
mod chunk_writes;
mod new_chunk;
mod transcript;

pub use chunk::{Chunk, ChunkId, ChunkRepository};
pub use chunk_writes::ReplacedChunks;
pub use new_chunk::{ChunkDraft, NewChunk};
pub use transcript::{
    NewTranscript, Transcript, TranscriptId, TranscriptPatch, TranscriptRepository,
    TranscriptSummary, TranscriptWithChunkCount, TranscriptWithChunks,
};
