//! Transcripts and chunks.

use chancery::{PageRequest, TranscriptPatch};
use serde_json::json;

use super::{Meter, count, stream};
use crate::support::{chunks, new_transcript, transcript, user};

pub async fn measure(meter: &mut Meter) {
    let setup = meter.setup.clone();
    let owner = user(&setup).await.id;
    let kept = transcript(&setup).await;
    let cut = setup.chunks().create_many(chunks(kept.id, 100)).await.unwrap();
    let ids: Vec<_> = cut.iter().map(|chunk| chunk.id).collect();
    let page = PageRequest::first(10);

    count!(meter, transcripts().create(new_transcript(owner)));
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
    count!(meter, chunks().get_by_id(ids[0]));
    count!(meter, chunks().get_by_ids(&ids));
    count!(meter, chunks().list_by_transcript(kept.id, 10, 0));
    stream!(meter, chunks().stream_by_transcript(kept.id));
    count!(meter, chunks().list_by_metadata(kept.user_id, &json!({}), 10));
    count!(meter, chunks().count_by_user(kept.user_id));
    count!(meter, chunks().delete(ids[0]));
    count!(meter, chunks().delete_by_transcript(kept.id));
}
