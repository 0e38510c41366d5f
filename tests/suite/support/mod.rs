//! The server, and factories: set the field that matters, the rest has defaults.

pub mod database;
pub mod events;
pub mod intake;
mod paging;
pub mod pooler;
pub mod proxy;
pub mod psql;
pub mod schema;
pub mod statements;
mod waiting;

use std::sync::atomic::{AtomicU64, Ordering};

use chancery::{
    Conversation, Database, Error, ExtractionJob, InvalidInput, NewChunk, NewExtractionJob,
    NewMessage, NewProject, NewTemplate, NewTranscript, NewUser, Project, ProjectId, Result,
    TemplateType, TokenHash, Transcript, TranscriptId, User, UserId,
};

pub use database::{PATIENCE, eventually};
pub use paging::{BAD_LIMITS, all_pages};
pub use waiting::{backend, until_blocked};

/// `#[sqlx::test]` reads DATABASE_URL, and the environment may only be changed while there is one
/// thread: before `main`.
#[ctor::ctor(unsafe)]
fn start_server() {
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    match private_postgres::database_url() {
        // SAFETY: no other thread exists yet.
        Ok(url) => unsafe { std::env::set_var("DATABASE_URL", pooler::between(&url)) },
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

/// A number that no other call in this process gets.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub fn new_user() -> NewUser {
    NewUser::new(format!("user{}@example.org", unique()))
}

pub async fn user(db: &Database) -> User {
    db.users().create(new_user()).await.unwrap()
}

pub fn token_hash() -> TokenHash {
    TokenHash::new(format!("{:064x}", unique())).unwrap()
}

pub async fn conversation(db: &Database) -> Conversation {
    let user = user(db).await;
    conversation_of(db, user.id).await
}

pub async fn conversation_of(db: &Database, user_id: UserId) -> Conversation {
    db.conversations().create(user_id, None).await.unwrap()
}

/// So many messages of the user, "message 0" and on.
pub fn messages(conversation: &Conversation, count: usize) -> Vec<NewMessage> {
    (0..count).map(|i| NewMessage::user(conversation.id, format!("message {i}"))).collect()
}

pub fn new_transcript(user_id: UserId) -> NewTranscript {
    NewTranscript::new(user_id, format!("video{}", unique()), "We choose to go to the Moon.")
}

pub async fn transcript(db: &Database) -> Transcript {
    let user = user(db).await;
    db.transcripts().create(new_transcript(user.id)).await.unwrap()
}

/// So many chunks, "chunk 0" and on.
pub fn chunks(transcript_id: TranscriptId, count: i32) -> Vec<NewChunk> {
    (0..count).map(|i| NewChunk::new(transcript_id, i, format!("chunk {i}"), 2)).collect()
}

pub fn new_template(user_id: Option<UserId>) -> NewTemplate {
    NewTemplate::new(user_id, TemplateType::Blog, format!("template {}", unique()), "Hello {name}")
}

/// What an input was refused for.
#[track_caller]
pub fn invalid<T: std::fmt::Debug>(result: Result<T>) -> InvalidInput {
    match result {
        Err(Error::InvalidInput(refusal)) => refusal,
        other => panic!("not refused as invalid input: {other:?}"),
    }
}

/// The name of the field that was refused.
#[track_caller]
pub fn invalid_field<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    invalid(result).field
}

/// Limits with offsets that no list takes, and which of the two is named.
pub const BAD_WINDOWS: [(i64, i64, &str); 5] = [
    (-1, 0, "limit"),
    (1001, 0, "limit"),
    (i64::MIN, 0, "limit"),
    (10, -1, "offset"),
    (10, i64::MIN, "offset"),
];

pub async fn project(db: &Database) -> Project {
    db.projects().create(NewProject::new("Spring catalogue")).await.unwrap()
}

pub fn new_job(project_id: ProjectId) -> NewExtractionJob {
    let url = format!("https://example.org/{}.png", unique());
    NewExtractionJob::new(project_id, url, "color")
}

/// A job of a project of its own.
pub async fn job(db: &Database) -> ExtractionJob {
    let project = project(db).await;
    db.extraction_jobs().create(new_job(project.id)).await.unwrap()
}

/// So many jobs of one project, in the order in which they are due.
pub async fn jobs(db: &Database, count: usize) -> Vec<ExtractionJob> {
    let project = project(db).await;
    let new = (0..count).map(|_| new_job(project.id)).collect();
    db.extraction_jobs().create_many(new).await.unwrap()
}
