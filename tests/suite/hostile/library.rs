//! Transcripts, chunks, templates and settings.

use chancery::{
    ChunkDraft, Database, Error, NewChunk, NewTemplate, NewTranscript, Patch, TemplatePatch,
    TemplateType, TranscriptPatch,
};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use sqlx::PgPool;

use super::values::{integer, json, long_text, text};
use super::{assert_same_json, law, taken};
use crate::support::{new_template, transcript, user};

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_transcript_is_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let user_id = user(&db).await.id;
    let values = (text(50), of(text(500)), of(text(255)), of(integer()), long_text(), json());
    law(&db, values, async |uow, (video, title, channel, duration, said, metadata)| {
        let new = NewTranscript {
            title,
            channel_name: channel,
            duration,
            metadata,
            ..NewTranscript::new(user_id, video, said)
        };
        let created = uow.transcripts().create(new.clone()).await;
        let Some(created) = taken(uow, created).await else { return false };
        let read = uow.transcripts().get_by_id(created.id).await.unwrap().unwrap();
        assert_eq!(read, created);
        let found = uow.transcripts().get_by_video_id(user_id, &new.youtube_video_id).await;
        assert_eq!(found.unwrap().unwrap(), read);
        let listed = uow.transcripts().list_by_metadata(user_id, &new.metadata, 10).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_same_json(&new.metadata, &read.metadata);
        assert_eq!(
            (read.youtube_video_id, read.title, read.channel_name, read.duration),
            (new.youtube_video_id, new.title, new.channel_name, new.duration)
        );
        assert_eq!(read.transcript_text, new.transcript_text);
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_change_of_a_transcript_is_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let before = transcript(&db).await;
    let values = (of(text(500)), of(text(255)), of(integer()), json());
    law(&db, values, async |uow, (title, channel, duration, metadata)| {
        let change = TranscriptPatch {
            title: Patch::Set(title.clone()),
            channel_name: Patch::Set(channel.clone()),
            duration: Patch::Set(duration),
            metadata: Patch::Set(metadata.clone()),
        };
        let changed = uow.transcripts().update(before.id, change).await;
        let changed = taken(uow, changed).await;
        let read = uow.transcripts().get_by_id(before.id).await.unwrap().unwrap();
        let Some(changed) = changed else {
            assert_eq!(read, before);
            return false;
        };
        assert_eq!(read, changed);
        assert_same_json(&metadata, &read.metadata);
        assert_eq!((read.title, read.channel_name, read.duration), (title, channel, duration));
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn chunks_are_refused_together_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let transcript = transcript(&db).await;
    let chunk = (integer(), long_text(), integer(), json());
    let values = proptest::collection::vec(chunk, 1..4);
    law(&db, values, async |uow, mut given| {
        given.dedup_by_key(|chunk| chunk.0);
        let new = given
            .iter()
            .map(|(index, text, tokens, metadata)| {
                NewChunk::new(transcript.id, *index, &**text, *tokens).metadata(metadata.clone())
            })
            .collect();
        let created = match uow.transaction(async |uow| uow.chunks().create_many(new).await).await {
            Err(Error::Conflict(_)) => return false,
            other => other,
        };
        let Ok(created) = created else {
            // A savepoint writes nothing by itself.
            return taken(uow, created).await.is_some();
        };
        assert_eq!(created.len(), given.len());
        for (created, (index, text, tokens, metadata)) in created.iter().zip(&given) {
            let read = uow.chunks().get_by_id(created.id).await.unwrap().unwrap();
            assert_eq!(&read, created);
            assert_eq!(
                (&read.chunk_text, read.chunk_index, read.token_count),
                (text, *index, *tokens)
            );
            assert_same_json(metadata, &read.metadata);
            let found = uow.chunks().list_by_metadata(transcript.user_id, metadata, 10).await;
            assert!(found.unwrap().contains(&read), "not found by its metadata");
        }
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_template_and_its_change_are_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let user_id = user(&db).await.id;
    let before = db.templates().create_template(new_template(Some(user_id))).await.unwrap();
    let lists = || {
        prop_oneof![
            8 => proptest::collection::vec(json(), 0..3).prop_map(serde_json::Value::Array),
            1 => json(),
        ]
    };
    let values = (
        select(TemplateType::ALL.to_vec()),
        any::<bool>(),
        text(255),
        long_text(),
        lists(),
        any::<bool>(),
    );
    law(&db, values, async |uow, (kind, owned, name, content, variables, default)| {
        let new = NewTemplate {
            is_default: default,
            variables: variables.clone(),
            ..NewTemplate::new(owned.then_some(user_id), kind, &*name, &*content)
        };
        let change = TemplatePatch {
            template_name: Patch::Set(name.clone()),
            template_content: Patch::Set(content.clone()),
            variables: Patch::Set(variables.clone()),
            is_default: Patch::Set(default),
        };
        let changed = uow.templates().update(before.id, change.clone()).await;
        let Some(changed) = taken(uow, changed).await else {
            let created = uow.templates().create_template(new).await;
            assert!(taken(uow, created).await.is_none(), "refused as a change, taken as new");
            return false;
        };
        // Out of the way of the next one's name.
        uow.templates().delete(before.id).await.unwrap();
        let created = uow.templates().create_template(new).await.unwrap();
        let read = uow.templates().get_by_id(created.id).await.unwrap().unwrap();
        assert_eq!(read, created);
        for stored in [changed, read] {
            assert_eq!((&stored.template_name, &stored.template_content), (&name, &content));
            assert_eq!(stored.is_default, default);
            assert_same_json(&variables, &stored.variables);
        }
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_setting_is_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    law(&db, (text(100), json(), of(long_text())), async |uow, (key, value, description)| {
        let set = uow.config().set_value(&key, &value, description.as_deref()).await;
        let Some(set) = taken(uow, set).await else { return false };
        let read = uow.config().get(&key).await.unwrap().unwrap();
        assert_eq!(read, set);
        assert_eq!((&read.key, &read.description), (&key, &description));
        assert_same_json(&value, &read.value);
        assert_eq!(uow.config().get_value(&key).await.unwrap().unwrap(), read.value);
        // What was read can be stored, and is the same again.
        let again = uow.config().set_value(&key, &read.value, None).await.unwrap();
        assert_same_json(&value, &again.value);
        assert!(uow.config().list(1000, 0).await.unwrap().contains(&again));
        assert!(uow.config().delete(&key).await.unwrap());
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_transcripts_chunks_are_refused_or_stored_as_given_however_they_come(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (before, user_id) = (transcript(&db).await.id, user(&db).await.id);
    let chunk = (long_text(), integer(), json());
    let values = proptest::collection::vec(chunk, 0..4);
    law(&db, values, async |uow, given| {
        let drafts = || {
            let drafts = given.iter().map(|(text, tokens, metadata)| {
                ChunkDraft::new(&**text, *tokens).metadata(metadata.clone())
            });
            drafts.collect::<Vec<_>>()
        };
        let new = given.iter().zip(0..).map(|((text, tokens, metadata), index)| {
            NewChunk::new(before, index, &**text, *tokens).metadata(metadata.clone())
        });
        let inserted = uow.chunks().insert_many(new.collect()).await;
        let Some(inserted) = taken(uow, inserted).await else {
            let replaced = uow.chunks().replace_all(before, drafts()).await;
            assert!(taken(uow, replaced).await.is_none());
            let with = NewTranscript::new(user_id, "v", "said");
            let stored = uow.transcripts().create_with_chunks(with, drafts()).await;
            assert!(taken(uow, stored).await.is_none());
            return false;
        };
        assert_eq!(inserted, given.len() as u64);
        let read = uow.chunks().list_by_transcript(before, 10, 0).await.unwrap();
        let replaced = uow.chunks().replace_all(before, drafts()).await.unwrap();
        assert_eq!(replaced.unchanged, inserted, "the same again is another");
        let with = NewTranscript::new(user_id, "v", "said");
        let stored = uow.transcripts().create_with_chunks(with, drafts()).await.unwrap();
        let id = stored.transcript.id;
        assert_eq!(uow.chunks().list_by_transcript(id, 10, 0).await.unwrap(), stored.chunks);
        for chunks in [read, stored.chunks] {
            assert_eq!(chunks.len(), given.len());
            for (chunk, (text, tokens, metadata)) in chunks.iter().zip(&given) {
                assert_eq!((&chunk.chunk_text, chunk.token_count), (text, *tokens));
                assert_same_json(metadata, &chunk.metadata);
            }
        }
        true
    })
    .await;
}
