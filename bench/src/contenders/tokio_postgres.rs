//! tokio-postgres behind deadpool: statements are prepared once a connection, what can be sent
//! together is sent together (the turn), and a bulk of which nothing comes back is a binary COPY.

use chrono::{DateTime, NaiveDate, Utc};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::future::join5;
use futures_util::pin_mut;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{NoTls, Row};
use uuid::Uuid;

use crate::contender::{ChunkInput, Contender, Outcome};

pub struct TokioPostgres {
    pool: Pool,
}

pub async fn pool(url: &str, connections: u32) -> Outcome<TokioPostgres> {
    let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(url.parse()?, NoTls, config);
    let pool =
        Pool::builder(manager).max_size(connections as usize).runtime(Runtime::Tokio1).build()?;
    drop(pool.get().await?);
    Ok(TokioPostgres { pool })
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

impl From<Row> for User {
    fn from(row: Row) -> Self {
        Self {
            id: row.get(0),
            email: row.get(1),
            password_hash: row.get(2),
            name: row.get(3),
            profile_picture: row.get(4),
            profession: row.get(5),
            date_of_birth: row.get(6),
            timezone: row.get(7),
            is_active: row.get(8),
            last_login: row.get(9),
            created_at: row.get(10),
            updated_at: row.get(11),
        }
    }
}

#[allow(dead_code)]
struct Conversation {
    id: Uuid,
    user_id: Uuid,
    title: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for Conversation {
    fn from(row: Row) -> Self {
        Self {
            id: row.get(0),
            user_id: row.get(1),
            title: row.get(2),
            created_at: row.get(3),
            updated_at: row.get(4),
        }
    }
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

impl From<Row> for Message {
    fn from(row: Row) -> Self {
        Self {
            id: row.get(0),
            conversation_id: row.get(1),
            user_id: row.get(2),
            role: row.get(3),
            content: row.get(4),
            metadata: row.get(5),
            created_at: row.get(6),
        }
    }
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

impl<M: for<'r> tokio_postgres::types::FromSql<'r>> From<Row> for Chunk<M> {
    fn from(row: Row) -> Self {
        Self {
            id: row.get(0),
            transcript_id: row.get(1),
            user_id: row.get(2),
            chunk_text: row.get(3),
            chunk_index: row.get(4),
            token_count: row.get(5),
            metadata: row.get(6),
            created_at: row.get(7),
        }
    }
}

/// Decodes all rows.
fn all<T: From<Row>>(rows: Vec<Row>) -> Vec<T> {
    rows.into_iter().map(T::from).collect()
}

const INSERT_MESSAGE: &str =
    "insert into messages (id, conversation_id, user_id, role, content, metadata)
     values ($1, $2, $3, $4, $5, '{}')
     returning id, conversation_id, user_id, role, content, metadata, created_at";

const READ_CHUNKS: &str =
    "select id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata, created_at
       from chunks where transcript_id = $1 order by chunk_index limit $2";

impl Contender for TokioPostgres {
    async fn get_by_id(&self, id: Uuid) -> Outcome<Uuid> {
        let client = self.pool.get().await?;
        let statement = client
            .prepare_cached(
                "select id, email, password_hash, name, profile_picture, profession, date_of_birth,
                        timezone, is_active, last_login, created_at, updated_at
                   from users where id = $1",
            )
            .await?;
        Ok(User::from(client.query_one(&statement, &[&id]).await?).id)
    }

    async fn get_by_email(&self, email: &str) -> Outcome<Uuid> {
        let client = self.pool.get().await?;
        let statement = client
            .prepare_cached(
                "select id, email, password_hash, name, profile_picture, profession, date_of_birth,
                        timezone, is_active, last_login, created_at, updated_at
                   from users where lower(email) = lower($1)",
            )
            .await?;
        Ok(User::from(client.query_one(&statement, &[&email]).await?).id)
    }

    async fn insert_message(
        &self,
        conversation_id: Uuid,
        user_id: Uuid,
        content: &str,
    ) -> Outcome<Uuid> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(INSERT_MESSAGE).await?;
        let row = client
            .query_one(
                &statement,
                &[&Uuid::now_v7(), &conversation_id, &user_id, &"user", &content],
            )
            .await?;
        Ok(Message::from(row).id)
    }

    async fn turn(&self, user_id: Uuid, question: &str, answer: &str) -> Outcome<Uuid> {
        let client = self.pool.get().await?;
        let insert_conversation = client
            .prepare_cached(
                "insert into conversations (id, user_id, title) values ($1, $2, $3)
                 returning id, user_id, title, created_at, updated_at",
            )
            .await?;
        let insert_message = client.prepare_cached(INSERT_MESSAGE).await?;
        // The identifiers are the client's, so nothing has to be waited for: all five statements are
        // on their way before the first is answered. What fails makes COMMIT a ROLLBACK.
        let (id, first, second) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let (begun, conversation, first, second, committed) = join5(
            client.batch_execute("begin"),
            client.query_one(&insert_conversation, &[&id, &user_id, &"A turn"]),
            client.query_one(&insert_message, &[&first, &id, &user_id, &"user", &question]),
            client.query_one(&insert_message, &[&second, &id, &user_id, &"assistant", &answer]),
            client.batch_execute("commit"),
        )
        .await;
        begun?;
        let conversation = Conversation::from(conversation?);
        for message in [first?, second?] {
            std::hint::black_box(Message::from(message));
        }
        committed?;
        Ok(conversation.id)
    }

    async fn conversation_page(&self, user_id: Uuid, size: i64) -> Outcome<usize> {
        let client = self.pool.get().await?;
        let statement = client
            .prepare_cached(
                "select id, user_id, title, created_at, updated_at from conversations
                  where user_id = $1 order by updated_at desc, id desc limit $2",
            )
            .await?;
        let rows = all::<Conversation>(client.query(&statement, &[&user_id, &size]).await?);
        Ok(rows.len())
    }

    async fn message_page(
        &self,
        conversation_id: Uuid,
        after: Option<(DateTime<Utc>, Uuid)>,
        size: i64,
    ) -> Outcome<usize> {
        let client = self.pool.get().await?;
        let rows = match after {
            None => {
                let statement = client
                    .prepare_cached(
                        "select id, conversation_id, user_id, role, content, metadata, created_at
                           from messages where conversation_id = $1
                          order by created_at, id limit $2",
                    )
                    .await?;
                client.query(&statement, &[&conversation_id, &size]).await?
            }
            Some((time, id)) => {
                let statement = client
                    .prepare_cached(
                        "select id, conversation_id, user_id, role, content, metadata, created_at
                           from messages where conversation_id = $1 and (created_at, id) > ($3, $4)
                          order by created_at, id limit $2",
                    )
                    .await?;
                client.query(&statement, &[&conversation_id, &size, &time, &id]).await?
            }
        };
        Ok(all::<Message>(rows).len())
    }

    async fn create_chunks(&self, chunks: Vec<ChunkInput>) -> Outcome<usize> {
        let client = self.pool.get().await?;
        let statement = client
            .prepare_cached(
                "insert into chunks (id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata)
                 select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::int[], $6::int[], $7::jsonb[])
                 returning id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata, created_at",
            )
            .await?;
        let ids: Vec<_> = chunks.iter().map(|c| c.id).collect();
        let transcript_ids: Vec<_> = chunks.iter().map(|c| c.transcript_id).collect();
        let user_ids: Vec<_> = chunks.iter().map(|c| c.user_id).collect();
        let texts: Vec<_> = chunks.iter().map(|c| c.chunk_text.as_str()).collect();
        let indexes: Vec<_> = chunks.iter().map(|c| c.chunk_index).collect();
        let token_counts: Vec<_> = chunks.iter().map(|c| c.token_count).collect();
        let metadata: Vec<_> = chunks.iter().map(|c| Json(&c.metadata)).collect();
        let rows = client
            .query(
                &statement,
                &[&ids, &transcript_ids, &user_ids, &texts, &indexes, &token_counts, &metadata],
            )
            .await?;
        Ok(all::<Chunk<Value>>(rows).len())
    }

    async fn load_chunks(&self, chunks: Vec<ChunkInput>) -> Outcome<usize> {
        let client = self.pool.get().await?;
        let sink = client
            .copy_in(
                "copy chunks (id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata)
                 from stdin (format binary)",
            )
            .await?;
        let types =
            [Type::UUID, Type::UUID, Type::UUID, Type::TEXT, Type::INT4, Type::INT4, Type::JSONB];
        let writer = BinaryCopyInWriter::new(sink, &types);
        pin_mut!(writer);
        for chunk in &chunks {
            writer
                .as_mut()
                .write(&[
                    &chunk.id,
                    &chunk.transcript_id,
                    &chunk.user_id,
                    &chunk.chunk_text,
                    &chunk.chunk_index,
                    &chunk.token_count,
                    &chunk.metadata,
                ])
                .await?;
        }
        Ok(writer.finish().await? as usize)
    }

    async fn read_chunks(&self, transcript_id: Uuid) -> Outcome<usize> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(READ_CHUNKS).await?;
        let rows = client.query(&statement, &[&transcript_id, &1_000_i64]).await?;
        Ok(all::<Chunk<Value>>(rows).len())
    }

    async fn read_chunks_raw(&self, transcript_id: Uuid) -> Outcome<usize> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(READ_CHUNKS).await?;
        let rows = client.query(&statement, &[&transcript_id, &1_000_i64]).await?;
        Ok(all::<Chunk<Json<Box<RawValue>>>>(rows).len())
    }

    async fn chunks_by_ids(&self, ids: &[Uuid]) -> Outcome<usize> {
        let client = self.pool.get().await?;
        let statement = client
            .prepare_cached(
                "select id, transcript_id, user_id, chunk_text, chunk_index, token_count, metadata, created_at
                   from chunks where id = any($1)",
            )
            .await?;
        Ok(all::<Chunk<Value>>(client.query(&statement, &[&ids]).await?).len())
    }
}
