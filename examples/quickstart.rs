//! The main job, on real input: a chat about a speech.
//!
//! Migrates the database, signs a user up, opens a session, stores a transcript and its chunks, holds
//! a conversation whose answers cite the chunks they come from, and reads everything back as an
//! application would.
//!
//! ```sh
//! cargo run --example quickstart
//! ```
//!
//! It starts a private PostgreSQL that ends with it, or uses the server that DATABASE_URL names;
//! there it can be run again and again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use chancery::{
    Chunk, Constraint, Database, DatabaseConfig, Error, NewChunk, NewMessage, NewTemplate,
    NewTranscript, NewUser, PageRequest, Result, TemplateType, TokenHash, Transcript, User, UserId,
};
use serde_json::json;
use sha2::{Digest, Sha256};

const SPEECH: &str = include_str!("data/four-freedoms-1941.txt");
const VIDEO: &str = "four-freedoms-1941";
const QUESTIONS: [&str; 3] = [
    "Which freedoms does the speech name for the world?",
    "What should factories and shipyards and munitions do?",
    "Who should pay taxes and make sacrifice?",
];

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("quickstart: {error}");
        std::process::exit(1);
    }
}

async fn run() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let url = private_postgres::database_url()?;
    let started = Instant::now();
    let db = Database::connect(&DatabaseConfig::from_url(&url)?).await?;

    let migrated = timed("migrate", db.migrate()).await?;
    let status = db.migration_status().await?;
    println!("  {} migrations applied now, {} in all", migrated.len(), status.applied);

    seed_system_rows(&db).await?;
    let user = timed("sign up", sign_up(&db)).await?;
    let token = new_token();
    timed("open a session", open_session(&db, user.id, &token)).await?;

    let transcript = timed("store the transcript", store_transcript(&db, user.id)).await?;
    let chunks = timed("cut it into chunks", cut_into_chunks(&db, &transcript)).await?;
    let words = SPEECH.split_whitespace().count();
    println!("  {words} words in {} chunks, stored by one statement", chunks.len());

    timed("hold a conversation", hold_conversation(&db, user.id, &chunks)).await?;

    println!("\nRead back\n");
    read_back(&db, &token).await?;

    let health = db.health().await;
    println!(
        "\nPostgreSQL {}, {} of {} connections idle; everything took {:.0?}.",
        health.server_version.unwrap_or_default(),
        health.pool.idle,
        health.pool.size,
        started.elapsed()
    );
    db.close().await;
    Ok(())
}

/// What an operator sets up once: a default template and a setting. Both calls can be repeated.
async fn seed_system_rows(db: &Database) -> Result<()> {
    let template = NewTemplate::new(
        None,
        TemplateType::Blog,
        "Summary",
        "# {title}\n\nWhat {user} asked, and what the speech answers.",
    )
    .variables(json!(["title", "user"]))
    .default_for_type();
    match db.templates().create_template(template).await {
        Ok(_) | Err(Error::Conflict(Constraint::TemplatesUserIdTemplateTypeTemplateNameKey)) => {}
        Err(error) => return Err(error),
    }
    db.config().set_value("rag.top_k", &json!(2), Some("Chunks that an answer may cite")).await?;
    Ok(())
}

/// A duplicate e-mail is a match arm: whoever is there signs in.
async fn sign_up(db: &Database) -> Result<User> {
    let new = NewUser::new("reader@example.org").name("A reader");
    match db.users().create(new).await {
        Err(Error::Conflict(Constraint::UsersEmailKey)) => {
            db.users().get_by_email("reader@example.org").await?.ok_or(Error::NotFound("user"))
        }
        other => other,
    }
}

/// The client keeps the token; the database keeps its hash.
fn new_token() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

fn hash(token: &str) -> Result<TokenHash> {
    TokenHash::new(Sha256::digest(token).iter().map(|b| format!("{b:02x}")).collect::<String>())
}

async fn open_session(db: &Database, user_id: UserId, token: &str) -> Result<()> {
    db.sessions().delete_expired().await?;
    db.sessions().create_for(user_id, &hash(token)?, Duration::from_secs(3600)).await?;
    Ok(())
}

async fn store_transcript(db: &Database, user_id: UserId) -> Result<Transcript> {
    let new = NewTranscript::new(user_id, VIDEO, SPEECH)
        .title("Annual Message to Congress, 6 January 1941")
        .channel_name("Franklin D. Roosevelt")
        .metadata(json!({"language": "en"}));
    match db.transcripts().create(new).await {
        Err(Error::Conflict(Constraint::TranscriptsUserIdYoutubeVideoIdKey)) => db
            .transcripts()
            .get_by_video_id(user_id, VIDEO)
            .await?
            .ok_or(Error::NotFound("transcript")),
        other => other,
    }
}

/// Readers see the old chunks or the new ones, never a mix: both statements are one transaction.
async fn cut_into_chunks(db: &Database, transcript: &Transcript) -> Result<Vec<Chunk>> {
    let mut texts = vec![String::new()];
    for paragraph in transcript.transcript_text.split("\n\n") {
        let last = texts.last_mut().expect("there is always a last one");
        if last.split_whitespace().count() + paragraph.split_whitespace().count() > 120 {
            texts.push(paragraph.to_owned());
        } else {
            last.push_str("\n\n");
            last.push_str(paragraph);
        }
    }
    let new: Vec<NewChunk> = (0..)
        .zip(texts.iter().map(|text| text.trim()))
        .map(|(index, text)| {
            let words = text.split_whitespace().count();
            // About four tokens to three words of English.
            NewChunk::new(
                transcript.id,
                index,
                text,
                i32::try_from(words * 4 / 3).unwrap_or(i32::MAX),
            )
            .metadata(json!({"words": words}))
        })
        .collect();
    let id = transcript.id;
    db.transaction(async |uow| {
        uow.chunks().delete_by_transcript(id).await?;
        uow.chunks().create_many(new).await
    })
    .await
}

/// Each turn, question and answer, is stored together or not at all.
async fn hold_conversation(db: &Database, user_id: UserId, chunks: &[Chunk]) -> Result<()> {
    let top_k = db.config().get_value("rag.top_k").await?;
    let top_k = top_k.and_then(|v| v.as_u64()).and_then(|n| usize::try_from(n).ok()).unwrap_or(3);
    let conversation = db.conversations().create(user_id, Some("The Four Freedoms")).await?;
    for question in QUESTIONS {
        let cited = retrieve(chunks, question, top_k);
        let answer = cited.first().map_or_else(String::new, |chunk| best_sentence(chunk, question));
        let cited: Vec<_> = cited.iter().map(|chunk| chunk.id).collect();
        let turn = vec![
            NewMessage::user(conversation.id, question),
            NewMessage::assistant(conversation.id, answer).metadata(json!({"chunk_ids": cited})),
        ];
        db.messages().create_many(turn).await?;
    }
    Ok(())
}

fn words(text: &str) -> HashSet<String> {
    text.split(|c: char| !c.is_alphabetic())
        .filter(|word| word.len() > 3)
        .map(|word| word.to_lowercase().trim_end_matches('s').to_owned())
        .collect()
}

/// Stands in for a vector store: the chunks that share the most words with the question.
fn retrieve<'a>(chunks: &'a [Chunk], question: &str, top_k: usize) -> Vec<&'a Chunk> {
    let asked = words(question);
    let mut ranked: Vec<_> = chunks.iter().collect();
    ranked.sort_by_cached_key(|chunk| {
        std::cmp::Reverse(words(&chunk.chunk_text).intersection(&asked).count())
    });
    ranked.truncate(top_k);
    ranked
}

/// Stands in for a model: the sentence that answers best.
fn best_sentence(chunk: &Chunk, question: &str) -> String {
    let asked = words(question);
    chunk
        .chunk_text
        .split_inclusive(['.', '?', '!'])
        .max_by_key(|sentence| words(sentence).intersection(&asked).count())
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// What an application does with a request: who is it, what do they have, what was said.
async fn read_back(db: &Database, token: &str) -> Result<()> {
    let session = timed("session by token hash", db.sessions().get_by_token(&hash(token)?)).await?;
    let session = session.ok_or(Error::NotFound("session"))?;
    let user = db.users().get_by_id(session.user_id).await?.ok_or(Error::NotFound("user"))?;
    println!("  {} is signed in until {}", user.email, session.expires_at.format("%H:%M"));

    let list = timed(
        "conversations with last message",
        db.conversations().page_with_last_message(user.id, PageRequest::first(20)),
    )
    .await?;
    for summary in &list.items {
        let last = summary.last_message.as_ref().map_or("", |m| m.content.as_str());
        println!("  {:?}: {}", summary.conversation.title.as_deref().unwrap_or(""), short(last));
    }
    let newest = &list.items.first().ok_or(Error::NotFound("conversation"))?.conversation;

    let last = timed("last 4 messages", db.messages().get_last_n(newest.id, 4)).await?;
    for message in &last {
        println!("  {:>9}: {}", message.role.as_str(), short(&message.content));
    }
    let cited: Vec<chancery::ChunkId> = last
        .last()
        .map(|m| serde_json::from_value(m.metadata["chunk_ids"].clone()).unwrap_or_default())
        .unwrap_or_default();
    for chunk in timed("chunks that the last answer cites", db.chunks().get_by_ids(&cited)).await? {
        println!("  chunk {:>2}: {}", chunk.chunk_index, short(&chunk.chunk_text));
    }

    let transcript = db.transcripts().get_by_video_id(user.id, VIDEO).await?;
    let id = transcript.ok_or(Error::NotFound("transcript"))?.id;
    let found = timed("transcript with chunk count", db.transcripts().get_with_chunk_count(id));
    let found = found.await?.ok_or(Error::NotFound("transcript"))?;
    println!(
        "  {:?}: {} characters, {} chunks",
        found.transcript.title.unwrap_or_default(),
        found.transcript.transcript_text.len(),
        found.chunk_count
    );

    let template = db.templates().get_template(user.id, TemplateType::Blog);
    let template = timed("template, with fallback", template).await?;
    let template = template.ok_or(Error::NotFound("template"))?;
    let owner = if template.user_id.is_some() { "their own" } else { "the system's" };
    println!("  {:?}, {owner}", template.template_name);

    let top_k = timed("config value", db.config().get_value("rag.top_k")).await?;
    println!("  rag.top_k = {}", top_k.unwrap_or_default());
    Ok(())
}

fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(76) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Runs a step and says how long it took.
async fn timed<T, E>(
    what: &str,
    step: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<T, E> {
    let started = Instant::now();
    let outcome = step.await;
    println!("{:>9.2?}  {what}", started.elapsed());
    outcome
}
