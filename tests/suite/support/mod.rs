//! The server, and factories: set the field that matters, the rest has defaults.

pub mod intake;

use std::sync::atomic::{AtomicU64, Ordering};

use chancery::{
    Conversation, Database, NewChunk, NewMessage, NewTemplate, NewTranscript, NewUser,
    TemplateType, TokenHash, Transcript, TranscriptId, User, UserId,
};

/// `#[sqlx::test]` reads DATABASE_URL, and the environment may only be changed while there is one
/// thread: before `main`.
#[ctor::ctor(unsafe)]
fn start_server() {
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    match private_postgres::database_url() {
        // SAFETY: no other thread exists yet.
        Ok(url) => unsafe { std::env::set_var("DATABASE_URL", url) },
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
