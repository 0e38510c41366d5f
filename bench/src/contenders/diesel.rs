//! diesel-async behind deadpool, in diesel's own query language.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::prelude::*;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contender::{ChunkInput, Contender, Failure, Outcome};

diesel::table! {
    users (id) {
        id -> Uuid,
        email -> Text,
        password_hash -> Nullable<Text>,
        name -> Nullable<Text>,
        profile_picture -> Nullable<Text>,
        profession -> Nullable<Text>,
        date_of_birth -> Nullable<Date>,
        timezone -> Text,
        is_active -> Bool,
        last_login -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    conversations (id) {
        id -> Uuid,
        user_id -> Uuid,
        title -> Nullable<Text>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    messages (id) {
        id -> Uuid,
        conversation_id -> Uuid,
        user_id -> Uuid,
        role -> Text,
        content -> Text,
        metadata -> Jsonb,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    chunks (id) {
        id -> Uuid,
        transcript_id -> Uuid,
        user_id -> Uuid,
        chunk_text -> Text,
        chunk_index -> Integer,
        token_count -> Integer,
        metadata -> Jsonb,
        created_at -> Timestamptz,
    }
}

#[diesel::declare_sql_function]
extern "SQL" {
    fn lower(text: diesel::sql_types::Text) -> diesel::sql_types::Text;
}

#[allow(dead_code)]
#[derive(Queryable, Selectable)]
#[diesel(table_name = users, check_for_backend(diesel::pg::Pg))]
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

#[allow(dead_code)]
#[derive(Queryable, Selectable)]
#[diesel(table_name = conversations, check_for_backend(diesel::pg::Pg))]
struct Conversation {
    id: Uuid,
    user_id: Uuid,
    title: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Insertable)]
#[diesel(table_name = conversations)]
struct NewConversation<'a> {
    id: Uuid,
    user_id: Uuid,
    title: &'a str,
}

#[allow(dead_code)]
#[derive(Queryable, Selectable)]
#[diesel(table_name = messages, check_for_backend(diesel::pg::Pg))]
struct Message {
    id: Uuid,
    conversation_id: Uuid,
    user_id: Uuid,
    role: String,
    content: String,
    metadata: Value,
    created_at: DateTime<Utc>,
}

#[derive(Insertable)]
#[diesel(table_name = messages)]
struct NewMessage<'a> {
    id: Uuid,
    conversation_id: Uuid,
    user_id: Uuid,
    role: &'a str,
    content: &'a str,
    metadata: Value,
}

impl<'a> NewMessage<'a> {
    fn new(conversation_id: Uuid, user_id: Uuid, role: &'a str, content: &'a str) -> Self {
        Self { id: Uuid::now_v7(), conversation_id, user_id, role, content, metadata: json!({}) }
    }
}

#[allow(dead_code)]
#[derive(Queryable, Selectable)]
#[diesel(table_name = chunks, check_for_backend(diesel::pg::Pg))]
struct Chunk {
    id: Uuid,
    transcript_id: Uuid,
    user_id: Uuid,
    chunk_text: String,
    chunk_index: i32,
    token_count: i32,
    metadata: Value,
    created_at: DateTime<Utc>,
}

#[derive(Insertable)]
#[diesel(table_name = chunks)]
struct NewChunk {
    id: Uuid,
    transcript_id: Uuid,
    user_id: Uuid,
    chunk_text: String,
    chunk_index: i32,
    token_count: i32,
    metadata: Value,
}

impl From<ChunkInput> for NewChunk {
    fn from(chunk: ChunkInput) -> Self {
        Self {
            id: chunk.id,
            transcript_id: chunk.transcript_id,
            user_id: chunk.user_id,
            chunk_text: chunk.chunk_text,
            chunk_index: chunk.chunk_index,
            token_count: chunk.token_count,
            metadata: chunk.metadata,
        }
    }
}

/// How many rows of seven values fit into one statement.
const ROWS_PER_STATEMENT: usize = 65_535 / 7;

pub struct Diesel {
    pool: Pool<AsyncPgConnection>,
}

pub async fn pool(url: &str, connections: u32) -> Outcome<Diesel> {
    let mut config = ManagerConfig::default();
    // As deadpool-postgres does it: the default asks the server before each use.
    config.recycling_method = RecyclingMethod::Fast;
    let manager = AsyncDieselConnectionManager::new_with_config(url, config);
    let pool = Pool::builder(manager).max_size(connections as usize).build()?;
    drop(pool.get().await?);
    Ok(Diesel { pool })
}

impl Diesel {
    async fn get(&self) -> Outcome<Object<AsyncPgConnection>> {
        Ok(self.pool.get().await?)
    }
}

impl Contender for Diesel {
    async fn get_by_id(&self, id: Uuid) -> Outcome<Uuid> {
        let mut connection = self.get().await?;
        let user = users::table.find(id).select(User::as_select()).first(&mut connection).await?;
        Ok(user.id)
    }

    async fn get_by_email(&self, email: &str) -> Outcome<Uuid> {
        let mut connection = self.get().await?;
        let user = users::table
            .filter(lower(users::email).eq(lower(email)))
            .select(User::as_select())
            .first(&mut connection)
            .await?;
        Ok(user.id)
    }

    async fn insert_message(
        &self,
        conversation_id: Uuid,
        user_id: Uuid,
        content: &str,
    ) -> Outcome<Uuid> {
        let mut connection = self.get().await?;
        let message = diesel::insert_into(messages::table)
            .values(NewMessage::new(conversation_id, user_id, "user", content))
            .returning(Message::as_returning())
            .get_result(&mut connection)
            .await?;
        Ok(message.id)
    }

    async fn turn(&self, user_id: Uuid, question: &str, answer: &str) -> Outcome<Uuid> {
        let mut connection = self.get().await?;
        let conversation = connection
            .transaction(async |connection| {
                let new = NewConversation { id: Uuid::now_v7(), user_id, title: "A turn" };
                let conversation = diesel::insert_into(conversations::table)
                    .values(new)
                    .returning(Conversation::as_returning())
                    .get_result(connection)
                    .await?;
                let new = [
                    NewMessage::new(conversation.id, user_id, "user", question),
                    NewMessage::new(conversation.id, user_id, "assistant", answer),
                ];
                for new in new {
                    let message = diesel::insert_into(messages::table)
                        .values(new)
                        .returning(Message::as_returning())
                        .get_result(connection)
                        .await?;
                    std::hint::black_box(message);
                }
                Ok::<_, diesel::result::Error>(conversation)
            })
            .await?;
        Ok(conversation.id)
    }

    async fn conversation_page(&self, user_id: Uuid, size: i64) -> Outcome<usize> {
        let mut connection = self.get().await?;
        let rows: Vec<Conversation> = conversations::table
            .filter(conversations::user_id.eq(user_id))
            .order((conversations::updated_at.desc(), conversations::id.desc()))
            .limit(size)
            .select(Conversation::as_select())
            .load(&mut connection)
            .await?;
        Ok(rows.len())
    }

    async fn message_page(
        &self,
        conversation_id: Uuid,
        after: Option<(DateTime<Utc>, Uuid)>,
        size: i64,
    ) -> Outcome<usize> {
        let mut connection = self.get().await?;
        let page = messages::table
            .filter(messages::conversation_id.eq(conversation_id))
            .order((messages::created_at, messages::id))
            .limit(size)
            .select(Message::as_select());
        let rows = match after {
            None => page.load(&mut connection).await?,
            // diesel has no row comparison; this form is one that the index serves.
            Some((time, id)) => {
                page.filter(messages::created_at.ge(time))
                    .filter(messages::created_at.gt(time).or(messages::id.gt(id)))
                    .load(&mut connection)
                    .await?
            }
        };
        Ok(rows.len())
    }

    async fn create_chunks(&self, chunks: Vec<ChunkInput>) -> Outcome<usize> {
        let mut connection = self.get().await?;
        let new: Vec<_> = chunks.into_iter().map(NewChunk::from).collect();
        let rows = diesel::insert_into(chunks::table)
            .values(new)
            .returning(Chunk::as_returning())
            .get_results(&mut connection)
            .await?;
        Ok(rows.len())
    }

    async fn load_chunks(&self, chunks: Vec<ChunkInput>) -> Outcome<usize> {
        let mut connection = self.get().await?;
        let new: Vec<_> = chunks.into_iter().map(NewChunk::from).collect();
        let stored = connection
            .transaction(async |connection| {
                let mut stored = 0;
                for new in new.chunks(ROWS_PER_STATEMENT) {
                    stored +=
                        diesel::insert_into(chunks::table).values(new).execute(connection).await?;
                }
                Ok::<_, diesel::result::Error>(stored)
            })
            .await?;
        Ok(stored)
    }

    async fn read_chunks(&self, transcript_id: Uuid) -> Outcome<usize> {
        let mut connection = self.get().await?;
        let rows: Vec<Chunk> = chunks::table
            .filter(chunks::transcript_id.eq(transcript_id))
            .order(chunks::chunk_index)
            .limit(1_000)
            .select(Chunk::as_select())
            .load(&mut connection)
            .await?;
        Ok(rows.len())
    }

    async fn chunks_by_ids(&self, ids: &[Uuid]) -> Outcome<usize> {
        let mut connection = self.get().await?;
        let rows: Vec<Chunk> = chunks::table
            .filter(chunks::id.eq_any(ids))
            .select(Chunk::as_select())
            .load(&mut connection)
            .await?;
        Ok::<_, Failure>(rows.len())
    }
}
