//! Chunks: the pieces that transcripts are cut into.

use chancery::{
    Chunk, ChunkId, Constraint, Database, Error, NewChunk, NewTranscript, TranscriptId, UserId,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{BAD_WINDOWS, chunks, invalid_field, new_transcript, transcript, user};

fn indexes(list: &[Chunk]) -> Vec<i32> {
    list.iter().map(|c| c.chunk_index).collect()
}

async fn all_chunks(db: &Database) -> i64 {
    sqlx::query_scalar("select count(*) from chunks").fetch_one(db.executor()).await.unwrap()
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_new_chunk_can_be_read_back_and_belongs_to_its_transcripts_owner(pool: PgPool) {
    let db = Database::from_pool(pool);
    let source = transcript(&db).await;
    let notes = json!({"start": 12.5, "speakers": ["Ada", null], "nested": {"ä": true}});
    let new = NewChunk::new(source.id, 7, "We choose 🌕", 3).metadata(notes.clone());
    let created = db.chunks().create_many(vec![new]).await.unwrap();
    let [chunk] = &created[..] else { panic!("{created:?}") };
    assert_eq!((chunk.transcript_id, chunk.user_id), (source.id, source.user_id));
    assert_eq!((chunk.chunk_index, chunk.token_count), (7, 3));
    assert_eq!((chunk.chunk_text.as_str(), &chunk.metadata), ("We choose 🌕", &notes));
    assert_eq!(db.chunks().get_by_id(chunk.id).await.unwrap().as_ref(), Some(chunk));
    assert_eq!(db.chunks().get_by_ids(&[chunk.id]).await.unwrap(), created);
    assert_eq!(db.chunks().list_by_transcript(source.id, 10, 0).await.unwrap(), created);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_chunk_that_is_not_there_is_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    assert_eq!(db.chunks().get_by_id(ChunkId::new()).await.unwrap(), None);
    assert_eq!(db.chunks().get_by_ids(&[ChunkId::new(), ChunkId::new()]).await.unwrap(), []);
    assert_eq!(db.chunks().list_by_transcript(TranscriptId::new(), 10, 0).await.unwrap(), []);
    assert_eq!(db.chunks().count_by_user(UserId::new()).await.unwrap(), 0);
    assert!(!db.chunks().delete(ChunkId::new()).await.unwrap());
    assert_eq!(db.chunks().delete_by_transcript(TranscriptId::new()).await.unwrap(), 0);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn no_chunks_ask_nothing_of_the_server(pool: PgPool) {
    let db = Database::from_pool(pool);
    db.close().await;
    assert_eq!(db.chunks().create_many(Vec::new()).await.unwrap(), []);
    assert_eq!(db.chunks().get_by_ids(&[]).await.unwrap(), []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn ten_thousand_chunks_come_back_from_one_statement_in_the_order_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let source = transcript(&db).await;
    // How often an INSERT on chunks ran, counted by the server.
    for statement in [
        "create sequence statements",
        "create function count_statement() returns trigger language plpgsql as
         $$begin perform nextval('statements'); return null; end$$",
        "create trigger counts after insert on chunks
         for each statement execute function count_statement()",
    ] {
        sqlx::query(statement).execute(db.executor()).await.unwrap();
    }
    // Backwards, so that the order given is not the order of the index.
    let mut new = chunks(source.id, 10_000);
    new.reverse();
    let created = db.chunks().create_many(new).await.unwrap();
    assert_eq!(indexes(&created), (0..10_000).rev().collect::<Vec<_>>());
    assert!(created.iter().all(|c| c.chunk_text == format!("chunk {}", c.chunk_index)));
    assert!(created.iter().all(|c| c.created_at == created[0].created_at));
    assert!(created.is_sorted_by_key(|c| c.id));
    let statements: i64 = sqlx::query_scalar("select last_value from statements")
        .fetch_one(db.executor())
        .await
        .unwrap();
    assert_eq!(statements, 1);
    assert_eq!(db.chunks().count_by_user(source.user_id).await.unwrap(), 10_000);

    // And any number can be asked for by identifier.
    let mut wanted: Vec<ChunkId> = created.iter().map(|c| c.id).collect();
    wanted.reverse();
    let found = db.chunks().get_by_ids(&wanted).await.unwrap();
    assert!(found.iter().map(|c| c.id).eq(wanted));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn chunks_of_several_transcripts_are_stored_together(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (a, b) = (transcript(&db).await, transcript(&db).await);
    let new = vec![
        NewChunk::new(b.id, 0, "b0", 1),
        NewChunk::new(a.id, 1, "a1", 1),
        NewChunk::new(a.id, 0, "a0", 1),
    ];
    let created = db.chunks().create_many(new).await.unwrap();
    let texts: Vec<&str> = created.iter().map(|c| c.chunk_text.as_str()).collect();
    assert_eq!(texts, ["b0", "a1", "a0"]);
    let owners: Vec<UserId> = created.iter().map(|c| c.user_id).collect();
    assert_eq!(owners, [b.user_id, a.user_id, a.user_id]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn with_an_index_that_is_taken_nothing_is_stored(pool: PgPool) {
    let db = Database::from_pool(pool);
    let source = transcript(&db).await;
    let key = Constraint::ChunksTranscriptIdChunkIndexKey;
    // Twice in the list.
    let mut twice = chunks(source.id, 3);
    twice.push(NewChunk::new(source.id, 1, "again", 1));
    let refused = db.chunks().create_many(twice).await;
    assert!(matches!(refused, Err(Error::Conflict(c)) if c == key), "{refused:?}");
    assert_eq!(all_chunks(&db).await, 0);
    // Once in the list, once in the table.
    db.chunks().create_many(vec![NewChunk::new(source.id, 2, "first", 1)]).await.unwrap();
    let refused = db.chunks().create_many(chunks(source.id, 3)).await;
    assert!(matches!(refused, Err(Error::Conflict(c)) if c == key), "{refused:?}");
    assert_eq!(all_chunks(&db).await, 1);
    // Another transcript's indexes are its own.
    let other = transcript(&db).await;
    assert_eq!(db.chunks().create_many(chunks(other.id, 3)).await.unwrap().len(), 3);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn with_a_transcript_that_is_missing_nothing_is_stored(pool: PgPool) {
    let db = Database::from_pool(pool);
    let source = transcript(&db).await;
    let mut new = chunks(source.id, 3);
    new.push(NewChunk::new(TranscriptId::new(), 0, "orphan", 1));
    let refused = db.chunks().create_many(new).await;
    let key = Constraint::ChunksTranscriptIdFkey;
    assert!(matches!(refused, Err(Error::ForeignKey(c)) if c == key), "{refused:?}");
    assert_eq!(all_chunks(&db).await, 0);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn chunks_found_by_id_keep_the_order_given_with_repeats_and_without_the_missing(
    pool: PgPool,
) {
    let db = Database::from_pool(pool);
    let source = transcript(&db).await;
    let made = db.chunks().create_many(chunks(source.id, 4)).await.unwrap();
    let wanted = [
        made[3].id,
        made[0].id,
        ChunkId::new(),
        made[3].id,
        made[1].id,
        made[0].id,
        ChunkId::new(),
    ];
    let found = db.chunks().get_by_ids(&wanted).await.unwrap();
    assert_eq!(indexes(&found), [3, 0, 3, 1, 0]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_transcripts_chunks_come_in_its_order_by_any_limit_and_offset_in_range(pool: PgPool) {
    let db = Database::from_pool(pool);
    let source = transcript(&db).await;
    let mut new = chunks(source.id, 5);
    new.reverse();
    db.chunks().create_many(new).await.unwrap();
    let other = transcript(&db).await;
    db.chunks().create_many(chunks(other.id, 2)).await.unwrap();
    for (limit, offset, expected) in [
        (1000, 0, vec![0, 1, 2, 3, 4]),
        (0, 0, vec![]),
        (1, 0, vec![0]),
        (2, 3, vec![3, 4]),
        (2, 4, vec![4]),
        (10, 5, vec![]),
        (10, i64::MAX, vec![]),
    ] {
        let list = db.chunks().list_by_transcript(source.id, limit, offset).await.unwrap();
        assert_eq!(indexes(&list), expected, "limit {limit} offset {offset}");
    }
    let mut walked = Vec::new();
    for offset in 0..3 {
        let page = db.chunks().list_by_transcript(source.id, 2, offset * 2).await.unwrap();
        walked.extend(indexes(&page));
    }
    assert_eq!(walked, [0, 1, 2, 3, 4]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn metadata_is_searched_by_containment_among_ones_own(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (a, b) = (transcript(&db).await, transcript(&db).await);
    let noted = |id, i, notes: Value| NewChunk::new(id, i, "text", 1).metadata(notes);
    db.chunks()
        .create_many(vec![
            noted(a.id, 2, json!({"topic": "moon", "scores": [1, 2]})),
            noted(a.id, 1, json!({"topic": "moon"})),
            noted(a.id, 0, json!({"topic": "sun"})),
            noted(b.id, 0, json!({"topic": "moon"})),
        ])
        .await
        .unwrap();
    let find = async |contained: Value, limit| {
        indexes(&db.chunks().list_by_metadata(a.user_id, &contained, limit).await.unwrap())
    };
    // In the order in which they were cut, which is not that of the index.
    assert_eq!(find(json!({"topic": "moon"}), 10).await, [2, 1]);
    assert_eq!(find(json!({"topic": "moon"}), 1).await, [2]);
    assert!(find(json!({"topic": "moon"}), 0).await.is_empty());
    assert_eq!(find(json!({"scores": [2]}), 10).await, [2]);
    assert_eq!(find(json!({}), 1000).await, [2, 1, 0]);
    assert!(find(json!({"topic": "mars"}), 10).await.is_empty());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn bad_input_is_refused_by_name_and_the_transaction_goes_on(pool: PgPool) {
    let db = Database::from_pool(pool);
    let source = transcript(&db).await;
    let too_deep = (0..65).fold(json!(1), |inner, _| json!({"k": inner}));
    let mut uow = db.begin().await.unwrap();
    for (field, bad) in [
        ("chunk_text", NewChunk::new(source.id, 9, "\0", 1)),
        ("chunk_index", NewChunk::new(source.id, -1, "x", 1)),
        ("token_count", NewChunk::new(source.id, 9, "x", -1)),
        ("metadata", NewChunk::new(source.id, 9, "x", 1).metadata(too_deep)),
        ("metadata", NewChunk::new(source.id, 9, "x", 1).metadata(json!({"\0": 1}))),
    ] {
        // The last of several: none of them is sent.
        let mut new = chunks(source.id, 2);
        new.push(bad);
        assert_eq!(invalid_field(uow.chunks().create_many(new).await), field);
    }
    for (limit, offset, field) in BAD_WINDOWS {
        let list = uow.chunks().list_by_transcript(source.id, limit, offset).await;
        assert_eq!(invalid_field(list), field);
    }
    let owner = source.user_id;
    for (limit, contained, field) in
        [(-1, json!({}), "limit"), (1001, json!({}), "limit"), (1, json!("\0"), "contained")]
    {
        let list = uow.chunks().list_by_metadata(owner, &contained, limit).await;
        assert_eq!(invalid_field(list), field);
    }
    let edge = NewChunk::new(source.id, i32::MAX, "", i32::MAX);
    uow.chunks().create_many(vec![edge]).await.unwrap();
    uow.commit().await.unwrap();
    assert_eq!(all_chunks(&db).await, 1);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn chunks_are_deleted_one_by_one_or_by_transcript(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (a, b) = (transcript(&db).await, transcript(&db).await);
    let made = db.chunks().create_many(chunks(a.id, 4)).await.unwrap();
    db.chunks().create_many(chunks(b.id, 2)).await.unwrap();
    assert!(db.chunks().delete(made[1].id).await.unwrap());
    assert!(!db.chunks().delete(made[1].id).await.unwrap());
    assert_eq!(db.chunks().delete_by_transcript(a.id).await.unwrap(), 3);
    assert_eq!(db.chunks().delete_by_transcript(a.id).await.unwrap(), 0);
    assert_eq!(db.chunks().count_by_user(a.user_id).await.unwrap(), 0);
    assert_eq!(db.chunks().count_by_user(b.user_id).await.unwrap(), 2);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn chunks_are_counted_over_all_of_a_users_transcripts(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    for count in [2, 3] {
        let new: NewTranscript = new_transcript(owner);
        let source = db.transcripts().create(new).await.unwrap();
        db.chunks().create_many(chunks(source.id, count)).await.unwrap();
    }
    assert_eq!(db.chunks().count_by_user(owner).await.unwrap(), 5);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn chunks_follow_a_transcript_that_changes_hands(pool: PgPool) {
    let db = Database::from_pool(pool);
    let source = transcript(&db).await;
    let heir = user(&db).await.id;
    db.chunks().create_many(chunks(source.id, 2)).await.unwrap();
    sqlx::query("update transcripts set user_id = $1 where id = $2")
        .bind(heir.as_uuid())
        .bind(source.id.as_uuid())
        .execute(db.executor())
        .await
        .unwrap();
    assert_eq!(db.chunks().count_by_user(source.user_id).await.unwrap(), 0);
    assert_eq!(db.chunks().count_by_user(heir).await.unwrap(), 2);
}
