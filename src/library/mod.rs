//! What users have loaded: transcripts of videos, and the chunks that they are cut into.

mod chunk;
mod chunk_writes;
mod new_chunk;
mod new_transcript;
mod transcript;
mod transcript_writes;

pub use chunk::{Chunk, ChunkId, ChunkRepository};
pub use chunk_writes::ReplacedChunks;
pub use new_chunk::{ChunkDraft, NewChunk};
pub use new_transcript::{NewTranscript, TranscriptPatch};
pub use transcript::{
    Transcript, TranscriptId, TranscriptRepository, TranscriptSummary, TranscriptWithChunkCount,
    TranscriptWithChunks,
};
