//! Inputs of many rows, of which one is refused: it is told which.

use chancery::{
    ChunkDraft, ConversationId, Database, DocumentId, Error, InvalidInput, MessageDraft,
    NewAccount, NewBorrower, NewChunk, NewExtractionJob, NewIncomeRecord, NewMessage, NewRecords,
    NewSourceReference, NewTranscript, ProjectId, Reason, TranscriptId, UserId,
};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::support::invalid;

/// A list of which only the element at 371 can't be stored.
fn only_371<T: Clone>(good: T, bad: T) -> Vec<T> {
    let mut list = vec![good; 500];
    list[371] = bad;
    list
}

fn deep() -> Value {
    (0..65).fold(json!(1), |inner, _| json!([inner]))
}

#[track_caller]
fn assert_told<T: std::fmt::Debug>(outcome: chancery::Result<T>, text: &str) {
    let refused: InvalidInput = invalid(outcome);
    assert_eq!(refused.to_string(), text);
    assert_eq!(refused.index(), Some(371));
}

/// The server is not asked: there is none.
#[tokio::test]
async fn what_is_refused_in_a_batch_is_told_with_its_place() {
    let nowhere = PgPoolOptions::new().connect_lazy("postgres://u@127.0.0.1:1/none").unwrap();
    let db = Database::from_pool(nowhere);

    let id = TranscriptId::new();
    let chunk = |text: &str| NewChunk::new(id, 0, text, 1);
    let nul = || only_371(chunk("fine"), chunk("a\0b"));
    let text = "chunks[371].chunk_text contains a NUL character";
    assert_told(db.chunks().create_many(nul()).await, text);
    assert_told(db.chunks().insert_many(nul()).await, text);
    let negative = only_371(chunk("a"), NewChunk::new(id, -1, "b", 1));
    let told = "chunks[371].chunk_index must be between 0 and 2147483647";
    assert_told(db.chunks().create_many(negative).await, told);
    let nested = only_371(chunk("a"), chunk("b").metadata(deep()));
    let told = "chunks[371].metadata is nested deeper than 64 levels";
    assert_told(db.chunks().create_many(nested).await, told);

    let draft = |text: &str| ChunkDraft::new(text, 1);
    let drafts = || only_371(draft("fine"), draft("a\0b"));
    assert_told(db.chunks().replace_all(id, drafts()).await, text);
    let new = NewTranscript::new(UserId::new(), "video", "text");
    assert_told(db.transcripts().create_with_chunks(new, drafts()).await, text);

    let conversation = ConversationId::new();
    let message = |text: &str| NewMessage::user(conversation, text);
    let text = "messages[371].content contains a NUL character";
    assert_told(db.messages().create_many(only_371(message("a"), message("\0"))).await, text);
    let drafts = only_371(MessageDraft::user("a"), MessageDraft::user("\0"));
    let begun = db.conversations().create_with_messages(UserId::new(), None, drafts).await;
    assert_told(begun, text);

    let job = |url: &str| NewExtractionJob::new(ProjectId::new(), url, "color");
    let jobs = only_371(job("https://example.org"), job(""));
    let text = "jobs[371].source_url must not be empty";
    assert_told(db.extraction_jobs().create_many(jobs).await, text);
    let late = std::time::Duration::from_secs(u64::MAX);
    let jobs = only_371(job("a"), job("b").due(chancery::Due::In(late)));
    let refused = invalid(db.extraction_jobs().create_many(jobs).await);
    assert_eq!((refused.field, refused.index()), ("due", Some(371)));

    let borrowers = only_371(NewBorrower::new("Ann"), NewBorrower::new(""));
    let text = "borrowers[371].name must not be empty";
    assert_told(db.borrowers().create_many(borrowers).await, text);
}

#[tokio::test]
async fn what_is_refused_in_a_list_within_a_batch_is_told_with_both_places() {
    let nowhere = PgPoolOptions::new().connect_lazy("postgres://u@127.0.0.1:1/none").unwrap();
    let db = Database::from_pool(nowhere);
    let income = |period: &str| NewIncomeRecord::new(Decimal::ONE, period, 2025, "employment");
    let ann = NewBorrower::new("Ann").income(income("annual")).income(income(""));

    // Of one borrower, the list is its own.
    let refused = invalid(db.borrowers().create(ann.clone()).await);
    assert_eq!(refused.to_string(), "incomes[1].period must not be empty");
    assert_eq!((refused.index(), &refused.place[..]), (Some(1), &[("incomes", 1)][..]));

    let refused = invalid(db.borrowers().create_many(vec![NewBorrower::new("Bo"), ann]).await);
    assert_eq!(refused.to_string(), "borrowers[1].incomes[1].period must not be empty");
    assert_eq!((refused.index(), refused.place.len()), (Some(1), 2));

    let number = chancery::AccountNumber::new("12345678").unwrap();
    let source = |page| NewSourceReference::new(DocumentId::new(), page, "Wages");
    for (records, told) in [
        (
            NewRecords { accounts: vec![NewAccount::new(number, "")], ..Default::default() },
            "accounts[0].account_type must not be empty",
        ),
        (
            NewRecords { sources: vec![source(1), source(0)], ..Default::default() },
            "sources[1].page_number must be between 1 and 2147483647",
        ),
    ] {
        let refused = db.borrowers().add_records(chancery::BorrowerId::new(), records).await;
        assert_eq!(invalid(refused).to_string(), told);
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_is_no_list_is_told_without_a_place(pool: PgPool) {
    let db = Database::from_pool(pool);
    let refused = db.messages().create(NewMessage::user(ConversationId::new(), "\0")).await;
    let Err(Error::InvalidInput(refused)) = refused else { panic!("{refused:?}") };
    assert_eq!((refused.index(), refused.place.len()), (None, 0));
    assert_eq!(refused, InvalidInput::new("content", Reason::ContainsNul));
    assert_eq!(refused.to_string(), "content contains a NUL character");
}
