//! sqlx, as one writes it by hand: on its pool as it comes, on its pool without the ping before each
//! use, and on connections that are kept and handed on.
//!
//! Columns are read by their position and without a check of their types, as `query_as!` does it.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::DerefMut;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::types::Json;
use sqlx::{Connection, PgConnection, PgPool, Postgres, Row};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use crate::contender::{ChunkInput, Contender, Outcome};

/// Where connections come from.
pub trait Source: Send + Sync + 'static {
    type Connection<'s>: DerefMut<Target = PgConnection> + Send;

    fn get(&self) -> impl Future<Output = sqlx::Result<Self::Connection<'_>>> + Send;
}

impl Source for PgPool {
    type Connection<'s> = sqlx::pool::PoolConnection<Postgres>;

    async fn get(&self) -> sqlx::Result<Self::Connection<'_>> {
        self.acquire().await
    }
}

/// Connections that go from one caller to the next, the one that waited longest first.
pub struct Kept {
    turns: Semaphore,
    idle: Mutex<VecDeque<PgConnection>>,
}

pub struct KeptConnection<'k> {
    connection: Option<PgConnection>,
    // After the connection is back: who waits for the turn finds it.
    _turn: SemaphorePermit<'k>,
    kept: &'k Kept,
}

impl Source for Kept {
    type Connection<'s> = KeptConnection<'s>;

    async fn get(&self) -> sqlx::Result<KeptConnection<'_>> {
        let turn = self.turns.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        Ok(KeptConnection { connection, _turn: turn, kept: self })
    }
}

impl std::ops::Deref for KeptConnection<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("a turn for each connection")
    }
}

impl DerefMut for KeptConnection<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("a turn for each connection")
    }
}

impl Drop for KeptConnection<'_> {
    fn drop(&mut self) {
        let mut idle = self.kept.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.connection.take());
    }
}

pub struct Sqlx<S> {
    source: S,
    /// Whether a bulk is a statement for each row: what a loop costs.
    row_by_row: bool,
}

pub async fn default_pool(url: &str, connections: u32) -> Outcome<Sqlx<PgPool>> {
    let options = PgPoolOptions::new().max_connections(connections);
    Ok(Sqlx { source: options.connect(url).await?, row_by_row: false })
}

pub async fn tuned_pool(url: &str, connections: u32) -> Outcome<Sqlx<PgPool>> {
    let options = PgPoolOptions::new().max_connections(connections).test_before_acquire(false);
    Ok(Sqlx { source: options.connect(url).await?, row_by_row: false })
}

pub async fn kept(url: &str, connections: u32, row_by_row: bool) -> Outcome<Sqlx<Kept>> {
    let options: PgConnectOptions = url.parse()?;
    let mut idle = VecDeque::new();
    for _ in 0..connections {
        idle.push_back(PgConnection::connect_with(&options).await?);
    }
    let turns = Semaphore::new(connections as usize);
    Ok(Sqlx { source: Kept { turns, idle: Mutex::new(idle) }, row_by_row })
}

#[allow(dead_code)]
struct User {
    id: Uuid,
    email: String,
    password_hash: Option<String>,
    name: Option<String>,
    profile_picture: Option<String>,
    profession: Option<String>,
    date_of_birth: Option<NaiveDate>,
    timezone: String,
    is_active: bool,
    last_login: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

fn user(row: PgRow) -> sqlx::Result<User> {
    Ok(User {
        id: row.try_get_unchecked(0)?,
        email: row.try_get_unchecked(1)?,
        password_hash: row.try_get_unchecked(2)?,
        name: row.try_get_unchecked(3)?,
        profile_picture: row.try_get_unchecked(4)?,
        profession: row.try_get_unchecked(5)?,
        date_of_birth: row.try_get_unchecked(6)?,
        timezone: row.try_get_unchecked(7)?,
        is_active: row.try_get_unchecked(8)?,
        last_login: row.try_get_unchecked(9)?,
        created_at: row.try_get_unchecked(10)?,
        updated_at: row.try_get_unchecked(11)?,
    })
}

#[allow(dead_code)]
struct Conversation {
    id: Uuid,
    user_id: Uuid,
    title: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

fn conversation(row: PgRow) -> sqlx::Result<Conversation> {
    Ok(Conversation {
        id: row.try_get_unchecked(0)?,
        user_id: row.try_get_unchecked(1)?,
        title: row.try_get_unchecked(2)?,
        created_at: row.try_get_unchecked(3)?,
        updated_at: row.try_get_unchecked(4)?,
    })
}

#[allow(dead_code)]
struct Message {
    id: Uuid,
    conversation_id: Uuid,
    user_id: Uuid,
    role: String,
    content: String,
    metadata: Value,
    created_at: DateTime<Utc>,
}

fn message(row: PgRow) -> sqlx::Result<Message> {
    Ok(Message {
        id: row.try_get_unchecked(0)?,
        conversation_id: row.try_get_unchecked(1)?,
        user_id: row.try_get_unchecked(2)?,
        role: row.try_get_unchecked(3)?,
        content: row.try_get_unchecked(4)?,
        metadata: row.try_get_unchecked(5)?,
        created_at: row.try_get_unchecked(6)?,
    })
}

#[allow(dead_code)]
struct Chunk<M> {
    id: Uuid,
    transcript_id: Uuid,
    user_id: Uuid,
    chunk_text: String,
    chunk_index: i32,
    token_count: i32,
    metadata: M,
    created_at: DateTime<Utc>,
}

fn chunk<M>(row: PgRow) -> sqlx::Result<Chunk<M>>
where
    M: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    Ok(Chunk {
        id: row.try_get_unchecked(0)?,
        transcript_id: row.try_get_unchecked(1)?,
        user_id: row.try_get_unchecked(2)?,
        chunk_text: row.try_get_unchecked(3)?,
        chunk_index: row.try_get_unchecked(4)?,
        token_count: row.try_get_unchecked(5)?,
        metadata: row.try_get_unchecked(6)?,
        created_at: row.try_get_unchecked(7)?,
    })
}

const READ_CHUNKS: &str =
    "select id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata, created_at
       from chunks where transcript_id = $1 order by chunk_index limit $2";

/// The columns of many chunks.
struct ChunkColumns {
    ids: Vec<Uuid>,
    transcript_ids: Vec<Uuid>,
    user_ids: Vec<Uuid>,
    texts: Vec<String>,
    indexes: Vec<i32>,
    token_counts: Vec<i32>,
    metadata: Vec<Value>,
}

impl ChunkColumns {
    fn new(chunks: Vec<ChunkInput>) -> Self {
        let mut columns = Self {
            ids: Vec::with_capacity(chunks.len()),
            transcript_ids: Vec::with_capacity(chunks.len()),
            user_ids: Vec::with_capacity(chunks.len()),
            texts: Vec::with_capacity(chunks.len()),
            indexes: Vec::with_capacity(chunks.len()),
            token_counts: Vec::with_capacity(chunks.len()),
            metadata: Vec::with_capacity(chunks.len()),
        };
        for chunk in chunks {
            columns.ids.push(chunk.id);
            columns.transcript_ids.push(chunk.transcript_id);
            columns.user_ids.push(chunk.user_id);
            columns.texts.push(chunk.chunk_text);
            columns.indexes.push(chunk.chunk_index);
            columns.token_counts.push(chunk.token_count);
            columns.metadata.push(chunk.metadata);
        }
        columns
    }
}

impl<S: Source> Contender for Sqlx<S> {
    async fn get_by_id(&self, id: Uuid) -> Outcome<Uuid> {
        let user = sqlx::query(
            "select id, email, password_hash, name, profile_picture, profession, date_of_birth,
                    timezone, is_active, last_login, created_at, updated_at
               from users where id = $1",
        )
        .bind(id)
        .try_map(user)
        .fetch_optional(&mut *self.source.get().await?)
        .await?;
        Ok(user.ok_or(sqlx::Error::RowNotFound)?.id)
    }

    async fn get_by_email(&self, email: &str) -> Outcome<Uuid> {
        let user = sqlx::query(
            "select id, email, password_hash, name, profile_picture, profession, date_of_birth,
                    timezone, is_active, last_login, created_at, updated_at
               from users where lower(email) = lower($1)",
        )
        .bind(email)
        .try_map(user)
        .fetch_optional(&mut *self.source.get().await?)
        .await?;
        Ok(user.ok_or(sqlx::Error::RowNotFound)?.id)
    }

    async fn insert_message(
        &self,
        conversation_id: Uuid,
        user_id: Uuid,
        content: &str,
    ) -> Outcome<Uuid> {
        let message = sqlx::query(
            "insert into messages (id, conversation_id, user_id, role, content, metadata)
             values ($1, $2, $3, 'user', $4, '{}')
             returning id, conversation_id, user_id, role, content, metadata, created_at",
        )
        .bind(Uuid::now_v7())
        .bind(conversation_id)
        .bind(user_id)
        .bind(content)
        .try_map(message)
        .fetch_one(&mut *self.source.get().await?)
        .await?;
        Ok(message.id)
    }

    async fn turn(&self, user_id: Uuid, question: &str, answer: &str) -> Outcome<Uuid> {
        let mut connection = self.source.get().await?;
        let mut transaction = connection.begin().await?;
        let conversation = sqlx::query(
            "insert into conversations (id, user_id, title) values ($1, $2, $3)
             returning id, user_id, title, created_at, updated_at",
        )
        .bind(Uuid::now_v7())
        .bind(user_id)
        .bind("A turn")
        .try_map(conversation)
        .fetch_one(&mut *transaction)
        .await?;
        for (role, content) in [("user", question), ("assistant", answer)] {
            sqlx::query(
                "insert into messages (id, conversation_id, user_id, role, content, metadata)
                 values ($1, $2, $3, $4, $5, '{}')
                 returning id, conversation_id, user_id, role, content, metadata, created_at",
            )
            .bind(Uuid::now_v7())
            .bind(conversation.id)
            .bind(user_id)
            .bind(role)
            .bind(content)
            .try_map(message)
            .fetch_one(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(conversation.id)
    }

    async fn conversation_page(&self, user_id: Uuid, size: i64) -> Outcome<usize> {
        let rows = sqlx::query(
            "select id, user_id, title, created_at, updated_at from conversations
              where user_id = $1 order by updated_at desc, id desc limit $2",
        )
        .bind(user_id)
        .bind(size)
        .try_map(conversation)
        .fetch_all(&mut *self.source.get().await?)
        .await?;
        Ok(rows.len())
    }

    async fn message_page(
        &self,
        conversation_id: Uuid,
        after: Option<(DateTime<Utc>, Uuid)>,
        size: i64,
    ) -> Outcome<usize> {
        let mut connection = self.source.get().await?;
        let rows = match after {
            None => sqlx::query(
                "select id, conversation_id, user_id, role, content, metadata, created_at
                   from messages where conversation_id = $1 order by created_at, id limit $2",
            )
            .bind(conversation_id)
            .bind(size),
            Some((time, id)) => sqlx::query(
                "select id, conversation_id, user_id, role, content, metadata, created_at
                   from messages where conversation_id = $1 and (created_at, id) > ($3, $4)
                  order by created_at, id limit $2",
            )
            .bind(conversation_id)
            .bind(size)
            .bind(time)
            .bind(id),
        };
        Ok(rows.try_map(message).fetch_all(&mut *connection).await?.len())
    }

    async fn create_chunks(&self, chunks: Vec<ChunkInput>) -> Outcome<usize> {
        let columns = ChunkColumns::new(chunks);
        let rows = sqlx::query(
            "insert into chunks (id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata)
             select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::int[], $6::int[], $7::jsonb[])
             returning id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata, created_at",
        )
        .bind(columns.ids)
        .bind(columns.transcript_ids)
        .bind(columns.user_ids)
        .bind(columns.texts)
        .bind(columns.indexes)
        .bind(columns.token_counts)
        .bind(columns.metadata)
        .try_map(chunk::<Value>)
        .fetch_all(&mut *self.source.get().await?)
        .await?;
        Ok(rows.len())
    }

    async fn load_chunks(&self, chunks: Vec<ChunkInput>) -> Outcome<usize> {
        if self.row_by_row {
            return self.load_row_by_row(chunks).await;
        }
        let columns = ChunkColumns::new(chunks);
        let done = sqlx::query(
            "insert into chunks (id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata)
             select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::int[], $6::int[], $7::jsonb[])",
        )
        .bind(columns.ids)
        .bind(columns.transcript_ids)
        .bind(columns.user_ids)
        .bind(columns.texts)
        .bind(columns.indexes)
        .bind(columns.token_counts)
        .bind(columns.metadata)
        .execute(&mut *self.source.get().await?)
        .await?;
        Ok(done.rows_affected() as usize)
    }

    async fn read_chunks(&self, transcript_id: Uuid) -> Outcome<usize> {
        let rows = sqlx::query(READ_CHUNKS)
            .bind(transcript_id)
            .bind(1_000_i64)
            .try_map(chunk::<Value>)
            .fetch_all(&mut *self.source.get().await?)
            .await?;
        Ok(rows.len())
    }

    async fn read_chunks_raw(&self, transcript_id: Uuid) -> Outcome<usize> {
        let rows = sqlx::query(READ_CHUNKS)
            .bind(transcript_id)
            .bind(1_000_i64)
            .try_map(chunk::<Json<Box<RawValue>>>)
            .fetch_all(&mut *self.source.get().await?)
            .await?;
        Ok(rows.len())
    }

    async fn chunks_by_ids(&self, ids: &[Uuid]) -> Outcome<usize> {
        let rows = sqlx::query(
            "select id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata, created_at
               from chunks where id = any($1)",
        )
        .bind(ids)
        .try_map(chunk::<Value>)
        .fetch_all(&mut *self.source.get().await?)
        .await?;
        Ok(rows.len())
    }
}

impl<S: Source> Sqlx<S> {
    async fn load_row_by_row(&self, chunks: Vec<ChunkInput>) -> Outcome<usize> {
        let mut connection = self.source.get().await?;
        let mut transaction = connection.begin().await?;
        let mut stored = 0;
        for chunk in chunks {
            let done = sqlx::query(
                "insert into chunks (id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata)
                 values ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(chunk.id)
            .bind(chunk.transcript_id)
            .bind(chunk.user_id)
            .bind(chunk.chunk_text)
            .bind(chunk.chunk_index)
            .bind(chunk.token_count)
            .bind(chunk.metadata)
            .execute(&mut *transaction)
            .await?;
            stored += done.rows_affected() as usize;
        }
        transaction.commit().await?;
        Ok(stored)
    }
}
