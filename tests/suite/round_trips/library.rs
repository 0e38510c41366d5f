//! Transcripts and chunks.

use chancery::{ChunkDraft, NewChunk, PageRequest, TranscriptPatch};
use serde_json::json;

use super::{Meter, count, stream};
use crate::support::{chunks, new_transcript, transcript, unique, user};

pub async fn measure(meter: &mut Meter) {
    let setup = meter.setup.clone();
    let owner = user(&setup).await.id;
    let kept = transcript(&setup).await;
    let read = transcript(&setup).await.id;
    let cut = setup.chunks().create_many(chunks(read, 100)).await.unwrap();
    let ids: Vec<_> = cut.iter().map(|chunk| chunk.id).collect();
    let page = PageRequest::first(10);
    // Other texts each time.
    let cut_anew = || (0..100).map(|_| ChunkDraft::new(unique().to_string(), 1)).collect();

    count!(meter, transcripts().create(new_transcript(owner)));
    count!(meter, transcripts().create_with_chunks(new_transcript(owner), cut_anew()));
    count!(meter, transcripts().get_by_id(kept.id));
    count!(meter, transcripts().get_with_chunk_count(kept.id));
    count!(meter, transcripts().get_by_video_id(kept.user_id, &kept.youtube_video_id));
    count!(meter, transcripts().list_by_user(kept.user_id, 10, 0));
    count!(meter, transcripts().page_by_user(kept.user_id, page));
    count!(meter, transcripts().list_by_video(&kept.youtube_video_id, 10));
    count!(meter, transcripts().list_by_metadata(kept.user_id, &json!({}), 10));
    count!(meter, transcripts().update(kept.id, TranscriptPatch::default()));
    count!(meter, transcripts().delete(transcript(&setup).await.id));

    count!(meter, chunks().create_many(chunks(transcript(&setup).await.id, 1000)));
    count!(meter, chunks().insert_many(chunks(transcript(&setup).await.id, 1000)));
    count!(meter, chunks().replace_all(kept.id, cut_anew()));
    count!(meter, chunks().get_by_id(ids[0]));
    count!(meter, chunks().get_by_ids(&ids));
    count!(meter, chunks().list_by_transcript(kept.id, 10, 0));
    stream!(meter, chunks().stream_by_transcript(read));
    count!(meter, chunks().list_by_metadata(kept.user_id, &json!({}), 10));
    count!(meter, chunks().count_by_user(kept.user_id));
    count!(meter, chunks().delete(ids[0]));
    count!(meter, chunks().delete_by_transcript(kept.id));

    // More than one statement is given: one for every 4 MiB, between BEGIN and COMMIT.
    meter
        .count("chunks().create_many of 12 MiB", async |proxy, db| {
            let id = transcript(&setup).await.id;
            let text = "x".repeat(1024 * 1024);
            let new = (0..12).map(|i| NewChunk::new(id, i, &*text, 1)).collect();
            let before = proxy.round_trips();
            db.chunks().create_many(new).await.unwrap();
            proxy.round_trips() - before
        })
        .await;
}
