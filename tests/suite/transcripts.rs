//! Transcripts: one for each user and video.

use chancery::{
    Constraint, Database, Error, NewTranscript, PageRequest, Patch, TranscriptId, TranscriptPatch,
    TranscriptSummary, UserId,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{
    BAD_WINDOWS, chunks, invalid, invalid_field, new_transcript, transcript, user,
};

/// So many transcripts of a new user, in one transaction: they share their `created_at`.
async fn loaded_together(db: &Database, count: usize) -> (UserId, Vec<TranscriptId>) {
    let owner = user(db).await.id;
    let mut uow = db.begin().await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(uow.transcripts().create(new_transcript(owner)).await.unwrap().id);
    }
    uow.commit().await.unwrap();
    (owner, ids)
}

fn ids(list: &[TranscriptSummary]) -> Vec<TranscriptId> {
    list.iter().map(|t| t.id).collect()
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_new_transcript_can_be_read_back_by_id_and_by_video(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await;
    let notes =
        json!({"language": "en", "tags": ["space", {"π": 2.5}], "n": null, "deep": {"a": []}});
    let new = NewTranscript::new(owner.id, "WZyRbnpGyzQ", "We choose to go to the Moon.")
        .title("Rice speech 🌕")
        .channel_name("NASA")
        .duration(1060)
        .metadata(notes.clone());
    let created = db.transcripts().create(new).await.unwrap();
    assert_eq!(created.user_id, owner.id);
    assert_eq!(created.youtube_video_id, "WZyRbnpGyzQ");
    assert_eq!(created.title.as_deref(), Some("Rice speech 🌕"));
    assert_eq!(created.channel_name.as_deref(), Some("NASA"));
    assert_eq!(created.duration, Some(1060));
    assert_eq!(created.transcript_text, "We choose to go to the Moon.");
    assert_eq!(created.metadata, notes);

    let transcripts = || db.transcripts();
    assert_eq!(transcripts().get_by_id(created.id).await.unwrap().as_ref(), Some(&created));
    let by_video = transcripts().get_by_video_id(owner.id, "WZyRbnpGyzQ").await.unwrap();
    assert_eq!(by_video.as_ref(), Some(&created));
    let counted = transcripts().get_with_chunk_count(created.id).await.unwrap().unwrap();
    assert_eq!((counted.transcript, counted.chunk_count), (created, 0));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_a_transcript_leaves_out_is_null_or_empty(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await;
    let created = db.transcripts().create(NewTranscript::new(owner.id, "v", "")).await.unwrap();
    assert_eq!((&created.title, &created.channel_name, created.duration), (&None, &None, None));
    assert_eq!(created.metadata, json!({}));
    assert_eq!(created.transcript_text, "");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_transcript_that_is_not_there_is_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (owner, nobody) = (user(&db).await.id, UserId::new());
    let (mine, missing) = (new_transcript(owner), TranscriptId::new());
    let video = mine.youtube_video_id.clone();
    db.transcripts().create(mine).await.unwrap();
    assert_eq!(db.transcripts().get_by_id(missing).await.unwrap(), None);
    assert_eq!(db.transcripts().get_with_chunk_count(missing).await.unwrap(), None);
    assert_eq!(db.transcripts().get_by_video_id(owner, "other").await.unwrap(), None);
    // Somebody else's is not mine.
    assert_eq!(db.transcripts().get_by_video_id(nobody, &video).await.unwrap(), None);
    // What can't be stored is not asked for.
    for impossible in ["nul\0".to_owned(), "x".repeat(51)] {
        assert_eq!(db.transcripts().get_by_video_id(owner, &impossible).await.unwrap(), None);
        assert_eq!(db.transcripts().list_by_video(&impossible, 10).await.unwrap(), []);
    }
    assert_eq!(db.transcripts().list_by_user(nobody, 10, 0).await.unwrap(), []);
    assert!(!db.transcripts().delete(missing).await.unwrap());
    let updated = db.transcripts().update(missing, TranscriptPatch::default()).await;
    assert!(matches!(updated, Err(Error::NotFound("transcript"))), "{updated:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_user_loads_a_video_once_and_a_second_user_may_load_the_same(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await.id, user(&db).await.id);
    let load = |who| db.transcripts().create(NewTranscript::new(who, "video", "text"));
    let (adas, bobs) = (load(ada).await.unwrap(), load(bob).await.unwrap());
    let again = load(ada).await;
    let key = Constraint::TranscriptsUserIdYoutubeVideoIdKey;
    assert!(matches!(again, Err(Error::Conflict(c)) if c == key), "{again:?}");
    for (who, id) in [(ada, adas.id), (bob, bobs.id)] {
        assert_eq!(db.transcripts().list_by_user(who, 10, 0).await.unwrap()[0].id, id);
        let found = db.transcripts().get_by_video_id(who, "video").await.unwrap();
        assert_eq!(found.unwrap().id, id);
    }
    let everybodys = db.transcripts().list_by_video("video", 10).await.unwrap();
    assert_eq!(ids(&everybodys), [adas.id, bobs.id]);
    assert_eq!(ids(&db.transcripts().list_by_video("video", 1).await.unwrap()), [adas.id]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_transcript_needs_its_user(pool: PgPool) {
    let db = Database::from_pool(pool);
    let orphan = db.transcripts().create(new_transcript(UserId::new())).await;
    let key = Constraint::TranscriptsUserIdFkey;
    assert!(matches!(orphan, Err(Error::ForeignKey(c)) if c == key), "{orphan:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_is_stored_fits_its_column_to_the_last_character(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await;
    let longest = NewTranscript::new(owner.id, "ä".repeat(50), "x")
        .title("ä".repeat(500))
        .channel_name("ä".repeat(255))
        .duration(i32::MAX);
    let created = db.transcripts().create(longest).await.unwrap();
    assert_eq!(created.title.unwrap().chars().count(), 500);
    assert_eq!(created.duration, Some(i32::MAX));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn bad_input_is_refused_by_name_and_the_transaction_goes_on(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let base = || new_transcript(owner);
    let too_deep = (0..65).fold(json!(1), |inner, _| json!([inner]));
    let mut uow = db.begin().await.unwrap();
    for (field, new) in [
        ("youtube_video_id", NewTranscript::new(owner, "", "x")),
        ("youtube_video_id", NewTranscript::new(owner, "x".repeat(51), "x")),
        ("youtube_video_id", NewTranscript::new(owner, "\0", "x")),
        ("title", base().title("x".repeat(501))),
        ("channel_name", base().channel_name("x".repeat(256))),
        ("duration", base().duration(-1)),
        ("transcript_text", NewTranscript::new(owner, "v", "\0")),
        ("metadata", base().metadata(too_deep.clone())),
        ("metadata", base().metadata(json!({"k": "\0"}))),
    ] {
        assert_eq!(invalid_field(uow.transcripts().create(new).await), field);
    }
    let kept = uow.transcripts().create(base()).await.unwrap();
    let default = TranscriptPatch::default;
    for (field, patch) in [
        ("title", TranscriptPatch { title: Some("x".repeat(501)).into(), ..default() }),
        ("channel_name", TranscriptPatch { channel_name: Some("\0".into()).into(), ..default() }),
        ("duration", TranscriptPatch { duration: Some(-1).into(), ..default() }),
        ("metadata", TranscriptPatch { metadata: too_deep.into(), ..default() }),
    ] {
        assert_eq!(invalid_field(uow.transcripts().update(kept.id, patch).await), field);
    }
    for (limit, offset, field) in BAD_WINDOWS {
        assert_eq!(
            invalid_field(uow.transcripts().list_by_user(owner, limit, offset).await),
            field
        );
    }
    for limit in [-1, 1001] {
        assert_eq!(invalid_field(uow.transcripts().list_by_video("v", limit).await), "limit");
        let by_metadata = uow.transcripts().list_by_metadata(owner, &json!({}), limit).await;
        assert_eq!(invalid_field(by_metadata), "limit");
    }
    for size in [-1, 0, 1001] {
        let page = uow.transcripts().page_by_user(owner, PageRequest::first(size)).await;
        assert_eq!(invalid_field(page), "size");
    }
    let nul = json!({"k": "\0"});
    assert_eq!(
        invalid_field(uow.transcripts().list_by_metadata(owner, &nul, 10).await),
        "contained"
    );
    uow.commit().await.unwrap();
    assert_eq!(db.transcripts().get_by_id(kept.id).await.unwrap(), Some(kept));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_list_is_newest_first_and_takes_any_limit_and_offset_in_range(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (owner, mut expected) = loaded_together(&db, 5).await;
    // A later transaction, so a later time.
    expected.push(db.transcripts().create(new_transcript(owner)).await.unwrap().id);
    expected.reverse();
    transcript(&db).await; // somebody else's
    let list = |limit, offset| db.transcripts().list_by_user(owner, limit, offset);
    assert_eq!(ids(&list(1000, 0).await.unwrap()), expected);
    assert_eq!(ids(&list(0, 0).await.unwrap()), []);
    assert_eq!(ids(&list(1, 0).await.unwrap()), expected[..1]);
    assert_eq!(ids(&list(2, 3).await.unwrap()), expected[3..5]);
    assert_eq!(ids(&list(10, 5).await.unwrap()), expected[5..]);
    assert_eq!(ids(&list(10, 6).await.unwrap()), []);
    assert_eq!(ids(&list(10, i64::MAX).await.unwrap()), []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn all_pages_together_are_the_list(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (owner, mut expected) = loaded_together(&db, 5).await;
    expected.push(db.transcripts().create(new_transcript(owner)).await.unwrap().id);
    expected.reverse();
    for size in [1, 2, 3, 5, 6, 7, 1000] {
        let (mut request, mut walked) = (PageRequest::first(size), Vec::new());
        loop {
            let page = db.transcripts().page_by_user(owner, request).await.unwrap();
            assert!(page.items.len() as i64 <= size);
            walked.extend(ids(&page.items));
            match page.next {
                // Through its text, as a client hands it back.
                Some(cursor) => {
                    assert_eq!(page.items.len() as i64, size);
                    request = PageRequest::after(size, cursor.to_string().parse().unwrap());
                }
                None => break,
            }
        }
        assert_eq!(walked, expected, "size {size}");
    }
    let nobodys =
        db.transcripts().page_by_user(UserId::new(), PageRequest::first(5)).await.unwrap();
    assert_eq!((nobodys.items.len(), nobodys.next), (0, None));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_page_does_not_shift_when_a_newer_one_arrives(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (owner, mut expected) = loaded_together(&db, 4).await;
    expected.reverse();
    let first = db.transcripts().page_by_user(owner, PageRequest::first(2)).await.unwrap();
    db.transcripts().create(new_transcript(owner)).await.unwrap();
    db.transcripts().delete(expected[1]).await.unwrap(); // the row that the cursor names
    let after = PageRequest::after(2, first.next.unwrap());
    let second = db.transcripts().page_by_user(owner, after).await.unwrap();
    assert_eq!(ids(&second.items), expected[2..]);
    assert_eq!(second.next, None);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_cursor_leads_only_through_the_list_that_is_asked_for(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ((ada, _), (bob, _)) = (loaded_together(&db, 2).await, loaded_together(&db, 2).await);
    let page = db.transcripts().page_by_user(bob, PageRequest::first(1)).await.unwrap();
    let with_bobs_cursor = PageRequest::after(10, page.next.unwrap());
    let refused = invalid(db.transcripts().page_by_user(ada, with_bobs_cursor).await);
    assert_eq!(refused.to_string(), "after is not a cursor of this list");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn lists_count_chunks_and_never_hold_the_text(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let new =
        NewTranscript::new(owner, "video", "canary-text").metadata(json!({"k": "canary-note"}));
    let loaded = db.transcripts().create(new.title("Title")).await.unwrap();
    let bare = db.transcripts().create(new_transcript(owner)).await.unwrap();
    db.chunks().create_many(chunks(loaded.id, 3)).await.unwrap();

    let transcripts = || db.transcripts();
    let page = transcripts().page_by_user(owner, PageRequest::first(10)).await.unwrap();
    let lists = [
        transcripts().list_by_user(owner, 10, 0).await.unwrap(),
        page.items,
        transcripts().list_by_video("video", 10).await.unwrap(),
        transcripts().list_by_metadata(owner, &json!({"k": "canary-note"}), 10).await.unwrap(),
    ];
    for list in lists {
        let shown = list.iter().find(|t| t.id == loaded.id).unwrap();
        assert_eq!((shown.chunk_count, shown.title.as_deref()), (3, Some("Title")));
        assert_eq!(shown.created_at, loaded.created_at);
        assert!(list.iter().all(|t| t.id == loaded.id || t.chunk_count == 0));
        let json = serde_json::to_string(&list).unwrap();
        assert!(!json.contains("canary"), "{json}");
    }
    let counted = transcripts().get_with_chunk_count(loaded.id).await.unwrap().unwrap();
    assert_eq!((counted.chunk_count, counted.transcript), (3, loaded));
    assert_eq!(transcripts().get_with_chunk_count(bare.id).await.unwrap().unwrap().chunk_count, 0);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn metadata_is_searched_by_containment_among_ones_own(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await.id, user(&db).await.id);
    let load = async |who: UserId, notes: Value| {
        db.transcripts().create(new_transcript(who).metadata(notes)).await.unwrap().id
    };
    let english = load(ada, json!({"language": "en", "tags": ["space", "moon"]})).await;
    let german = load(ada, json!({"language": "de", "tags": ["moon"]})).await;
    let empty = load(ada, json!({})).await;
    load(bob, json!({"language": "en", "tags": ["moon"]})).await;
    let find = async |contained: Value, limit| {
        ids(&db.transcripts().list_by_metadata(ada, &contained, limit).await.unwrap())
    };
    assert_eq!(find(json!({"language": "en"}), 10).await, [english]);
    assert_eq!(find(json!({"tags": ["moon"]}), 10).await, [german, english]);
    assert_eq!(find(json!({"tags": ["moon"]}), 1).await, [german]);
    assert_eq!(find(json!({"tags": ["moon"]}), 0).await, []);
    assert_eq!(find(json!({}), 10).await, [empty, german, english]);
    assert_eq!(find(json!({"language": "fr"}), 10).await, []);
    assert_eq!(find(json!({"language": null}), 10).await, []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_patch_leaves_what_it_does_not_name_and_can_set_null(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let full = new_transcript(owner)
        .title("Title")
        .channel_name("Channel")
        .duration(60)
        .metadata(json!({"a": 1}));
    let before = db.transcripts().create(full).await.unwrap();
    let update = |patch| db.transcripts().update(before.id, patch);
    assert_eq!(update(TranscriptPatch::default()).await.unwrap(), before);

    let set = TranscriptPatch {
        title: Patch::Set(Some("New".into())),
        metadata: Patch::Set(json!({"b": [2]})),
        ..TranscriptPatch::default()
    };
    let after = update(set).await.unwrap();
    assert_eq!(after.title.as_deref(), Some("New"));
    assert_eq!(after.metadata, json!({"b": [2]}));
    assert_eq!((&after.channel_name, after.duration), (&before.channel_name, before.duration));
    assert_eq!(after.transcript_text, before.transcript_text);

    let forget = TranscriptPatch {
        title: Patch::Set(None),
        channel_name: Patch::Set(None),
        duration: Patch::Set(None),
        metadata: Patch::Keep,
    };
    let after = update(forget).await.unwrap();
    assert_eq!((&after.title, &after.channel_name, after.duration), (&None, &None, None));
    assert_eq!(after.metadata, json!({"b": [2]}));
    assert_eq!(db.transcripts().get_by_id(before.id).await.unwrap(), Some(after));

    // JSON's null is a value, not an absence.
    let null = TranscriptPatch { metadata: Patch::Set(Value::Null), ..TranscriptPatch::default() };
    assert_eq!(update(null).await.unwrap().metadata, Value::Null);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_deleted_transcript_takes_its_chunks_along_and_no_others(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (gone, kept) = (transcript(&db).await, transcript(&db).await);
    for id in [gone.id, kept.id] {
        db.chunks().create_many(chunks(id, 3)).await.unwrap();
    }
    assert!(db.transcripts().delete(gone.id).await.unwrap());
    assert!(!db.transcripts().delete(gone.id).await.unwrap());
    assert_eq!(db.transcripts().get_by_id(gone.id).await.unwrap(), None);
    assert_eq!(db.chunks().list_by_transcript(gone.id, 10, 0).await.unwrap(), []);
    assert_eq!(db.chunks().list_by_transcript(kept.id, 10, 0).await.unwrap().len(), 3);

    db.users().delete(kept.user_id).await.unwrap();
    assert_eq!(db.transcripts().get_by_id(kept.id).await.unwrap(), None);
    assert_eq!(db.chunks().count_by_user(kept.user_id).await.unwrap(), 0);
}
