//! The rows that are there before anything is measured.

use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use chancery::{Database, DatabaseConfig};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::contender::{ChunkInput, Outcome};
use crate::workload::{CREATED, LOADED};

const USERS: i64 = 10_000;
const CONVERSATIONS: i64 = 1_000;
const LONG_CONVERSATION: i64 = 200_000;
const DEPTH: i64 = 100_000;
const TRANSCRIPTS: i64 = 10;

pub struct Data {
    pub users: Vec<Uuid>,
    pub emails: Vec<String>,
    /// Whose conversations and transcripts they are.
    pub owner: Uuid,
    pub conversations: Vec<Uuid>,
    pub long_conversation: Uuid,
    /// After the 100,000th message of the long conversation.
    pub deep_place: (DateTime<Utc>, Uuid),
    /// Each has 1,000 chunks.
    pub transcripts: Vec<Uuid>,
    pub chunks: Vec<Uuid>,
    /// Where chunks are stored.
    filled: Uuid,
    next_index: AtomicI32,
    texts: Vec<(String, Value)>,
}

impl Data {
    pub fn conversation(&self, random: &mut fastrand::Rng) -> Uuid {
        self.conversations[random.usize(..self.conversations.len())]
    }

    /// Chunks that nobody has stored yet.
    pub fn new_chunks(&self, count: usize) -> Vec<ChunkInput> {
        let first = self.next_index.fetch_add(count as i32, Relaxed);
        (first..)
            .zip(self.texts.iter().take(count))
            .map(|(chunk_index, (text, metadata))| ChunkInput {
                id: Uuid::now_v7(),
                transcript_id: self.filled,
                user_id: self.owner,
                chunk_text: text.clone(),
                chunk_index,
                token_count: 160,
                metadata: metadata.clone(),
            })
            .collect()
    }

    /// Some of it, for a contender in another process.
    pub fn as_json(&self) -> Value {
        let some = |ids: &[Uuid]| ids.iter().take(1_000).map(Uuid::to_string).collect::<Vec<_>>();
        json!({
            "users": some(&self.users),
            "emails": self.emails.iter().take(1_000).collect::<Vec<_>>(),
            "owner": self.owner,
            "conversations": some(&self.conversations),
            "long_conversation": self.long_conversation,
            "deep_time": self.deep_place.0.to_rfc3339(),
            "deep_id": self.deep_place.1,
            "transcripts": some(&self.transcripts),
            "chunks": some(&self.chunks),
            "filled": self.filled,
        })
    }

    /// Removes what was stored, and what it left in the table and its indexes.
    pub async fn clear(&self, url: &str) -> Outcome<()> {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::query("delete from chunks where transcript_id = $1")
            .bind(self.filled)
            .execute(&mut connection)
            .await?;
        sqlx::query("vacuum chunks").execute(&mut connection).await?;
        self.next_index.store(0, Relaxed);
        Ok(connection.close().await?)
    }
}

/// Migrates an empty database and fills it.
pub async fn seed(url: &str) -> Outcome<Data> {
    let db = Database::connect(&DatabaseConfig::from_url(url)?).await?;
    db.migrate().await?;
    db.close().await;

    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(
        "insert into users (id, email, name, profession, timezone)
         select ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
                'person' || n || '@example.org', 'Person ' || n, 'engineer', 'Europe/Paris'
           from generate_series(1, $1) n",
    )
    .bind(USERS)
    .execute(&mut connection)
    .await?;
    let users: Vec<Uuid> =
        sqlx::query_scalar("select id from users order by id").fetch_all(&mut connection).await?;
    let emails = sqlx::query_scalar("select email from users order by id")
        .fetch_all(&mut connection)
        .await?;
    let owner = users[0];
    let conversations: Vec<Uuid> = sqlx::query_scalar(
        "insert into conversations (user_id, title, created_at, updated_at)
         select $1, 'Conversation ' || n, now() - n * interval '1 minute', now() - n * interval '1 minute'
           from generate_series(1, $2) n
         returning id",
    )
    .bind(owner)
    .bind(CONVERSATIONS)
    .fetch_all(&mut connection)
    .await?;
    let long_conversation: Uuid = sqlx::query_scalar(
        "insert into conversations (user_id, title) values ($1, 'The long one') returning id",
    )
    .bind(users[1])
    .fetch_one(&mut connection)
    .await?;
    // A thousand share each moment, as rows of one transaction do.
    sqlx::query(
        "insert into messages (conversation_id, user_id, role, content, metadata, created_at)
         select $1, $2, case when n % 2 = 0 then 'assistant' else 'user' end,
                'Message ' || n || repeat(' and so on', 20), '{\"model\": \"m-1\", \"tokens\": 40}',
                now() - interval '1 day' + n / 1000 * interval '1 second'
           from generate_series(1, $3) n",
    )
    .bind(long_conversation)
    .bind(users[1])
    .bind(LONG_CONVERSATION)
    .execute(&mut connection)
    .await?;
    let deep_place = sqlx::query_as(
        "select created_at, id from messages where conversation_id = $1
          order by created_at, id offset $2 limit 1",
    )
    .bind(long_conversation)
    .bind(DEPTH - 1)
    .fetch_one(&mut connection)
    .await?;
    let transcripts: Vec<Uuid> = sqlx::query_scalar(
        "insert into transcripts (user_id, youtube_video_id, title, transcript_text)
         select $1, 'video-' || n, 'Video ' || n, repeat('words ', 1000)
           from generate_series(1, $2) n
         returning id",
    )
    .bind(owner)
    .bind(TRANSCRIPTS + 1)
    .fetch_all(&mut connection)
    .await?;
    let (filled, transcripts) = transcripts.split_first().ok_or("no transcripts")?;
    let chunks = sqlx::query_scalar(
        "insert into chunks (transcript_id, user_id, chunk_text, chunk_index, token_count, metadata)
         select t.id, $1, 'Chunk ' || n || repeat(' of a long speech', 40), n, 160,
                jsonb_build_object('start', n * 12.5, 'end', n * 12.5 + 12.5, 'speaker', 'S' || n % 4,
                                   'words', jsonb_build_array('moon', 'decade', 'goal'))
           from unnest($2::uuid[]) t (id), generate_series(0, $3) n
         returning id",
    )
    .bind(owner)
    .bind(transcripts)
    .bind(CREATED as i64 - 1)
    .fetch_all(&mut connection)
    .await?;
    sqlx::query("vacuum analyze").execute(&mut connection).await?;
    connection.close().await?;

    let texts = (0..LOADED)
        .map(|n| {
            let metadata = json!({
                "start": n as f64 * 12.5, "end": n as f64 * 12.5 + 12.5,
                "speaker": format!("S{}", n % 4), "words": ["moon", "decade", "goal"],
            });
            (format!("Chunk {n}{}", " of a long speech".repeat(40)), metadata)
        })
        .collect();
    Ok(Data {
        users,
        emails,
        owner,
        conversations,
        long_conversation,
        deep_place,
        transcripts: transcripts.to_vec(),
        chunks,
        filled: *filled,
        next_index: AtomicI32::new(0),
        texts,
    })
}
