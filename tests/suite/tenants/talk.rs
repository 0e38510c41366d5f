//! Conversations and messages; transcripts and chunks.

use chancery::{ChunkDraft, MessageDraft, NewMessage, PageRequest, TranscriptPatch};
use serde_json::json;

use super::methods::{Case, owned_case};
use crate::support::{chunks, messages, new_transcript};

pub fn cases(cases: &mut Vec<Case>) {
    owned_case!(cases, |w| ConversationRepository::create(w.user.id, Some("Rice speech")));
    owned_case!(cases, |w| ConversationRepository::create_with_messages(
        w.user.id,
        None,
        vec![MessageDraft::user("Why the Moon?")]
    ));
    owned_case!(cases, |w| ConversationRepository::get_by_id(w.conversation.id));
    owned_case!(cases, |w| ConversationRepository::list_by_user(w.user.id, 10, 0));
    owned_case!(cases, |w| ConversationRepository::page_by_user(w.user.id, PageRequest::first(10)));
    owned_case!(cases, |w| ConversationRepository::page_with_last_message(
        w.user.id,
        PageRequest::first(10)
    ));
    owned_case!(cases, |w| ConversationRepository::page_with_message_count(
        w.user.id,
        PageRequest::first(10)
    ));
    owned_case!(cases, |w| ConversationRepository::list_recent(10, 0));
    owned_case!(cases, |w| ConversationRepository::update_title(w.conversation.id, Some("Moon")));
    owned_case!(cases, |w| ConversationRepository::delete(w.conversation.id));

    owned_case!(cases, |w| MessageRepository::create(NewMessage::user(w.conversation.id, "Why?")));
    owned_case!(cases, |w| MessageRepository::create_many(messages(&w.conversation, 2)));
    owned_case!(cases, |w| MessageRepository::get_by_id(w.message.id));
    owned_case!(cases, |w| MessageRepository::list_by_conversation(w.conversation.id, 10, 0));
    owned_case!(cases, |w| MessageRepository::get_last_n(w.conversation.id, 10));
    owned_case!(cases, |w| stream MessageRepository::stream_by_conversation(w.conversation.id));
    owned_case!(cases, |w| MessageRepository::page_by_conversation(
        w.conversation.id,
        PageRequest::first(10)
    ));
    owned_case!(cases, |w| MessageRepository::page_back_by_conversation(
        w.conversation.id,
        PageRequest::first(10)
    ));
    owned_case!(cases, |w| MessageRepository::list_by_metadata(w.user.id, &json!({}), 10));
    owned_case!(cases, |w| MessageRepository::count_since(w.began));
    owned_case!(cases, |w| MessageRepository::update(w.message.id, "Because.", &json!({})));
    owned_case!(cases, |w| MessageRepository::delete(w.message.id));

    owned_case!(cases, |w| TranscriptRepository::create(new_transcript(w.user.id)));
    owned_case!(cases, |w| TranscriptRepository::create_with_chunks(
        new_transcript(w.user.id),
        vec![ChunkDraft::new("We choose", 2)],
    ));
    owned_case!(cases, |w| TranscriptRepository::get_by_id(w.transcript.id));
    owned_case!(cases, |w| TranscriptRepository::get_with_chunk_count(w.transcript.id));
    owned_case!(cases, |w| TranscriptRepository::get_by_video_id(
        w.user.id,
        &w.transcript.youtube_video_id
    ));
    owned_case!(cases, |w| TranscriptRepository::list_by_user(w.user.id, 10, 0));
    owned_case!(cases, |w| TranscriptRepository::page_by_user(w.user.id, PageRequest::first(10)));
    owned_case!(cases, |w| TranscriptRepository::list_by_video(&w.transcript.youtube_video_id, 10));
    owned_case!(cases, |w| TranscriptRepository::list_by_metadata(w.user.id, &json!({}), 10));
    owned_case!(cases, |w| TranscriptRepository::update(
        w.transcript.id,
        TranscriptPatch::default()
    ));
    owned_case!(cases, |w| TranscriptRepository::delete(w.transcript.id));

    owned_case!(cases, |w| ChunkRepository::create_many(chunks(w.transcript.id, 3).split_off(1)));
    owned_case!(cases, |w| ChunkRepository::insert_many(chunks(w.transcript.id, 3).split_off(1)));
    owned_case!(cases, |w| ChunkRepository::replace_all(
        w.transcript.id,
        vec![ChunkDraft::new("We choose", 2)],
    ));
    owned_case!(cases, |w| ChunkRepository::get_by_id(w.chunk.id));
    owned_case!(cases, |w| ChunkRepository::get_by_ids(&[w.chunk.id]));
    owned_case!(cases, |w| stream ChunkRepository::stream_by_transcript(w.transcript.id));
    owned_case!(cases, |w| ChunkRepository::list_by_transcript(w.transcript.id, 10, 0));
    owned_case!(cases, |w| ChunkRepository::list_by_metadata(w.user.id, &json!({}), 10));
    owned_case!(cases, |w| ChunkRepository::count_by_user(w.user.id));
    owned_case!(cases, |w| ChunkRepository::delete(w.chunk.id));
    owned_case!(cases, |w| ChunkRepository::delete_by_transcript(w.transcript.id));
}
