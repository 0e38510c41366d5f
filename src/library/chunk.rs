//! Chunks: the pieces of a transcript that are embedded and retrieved.

use chrono::{DateTime, Utc};
use futures_core::Stream;
use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;

use super::transcript::TranscriptId;
use crate::db::id::{debug_fields, id};
use crate::db::owner::by_owner;
use crate::db::page::limit_offset;
use crate::db::{Result, input, rows};
use crate::identity::UserId;
use crate::repositories::{Access, FromJson, of_row, owned_by, repository};

id!(
    /// Identifies a [`Chunk`]; also what a vector store is given as the point's identifier.
    ChunkId
);

/// A piece of a transcript. Its metadata is a [`Value`] unless it is read as a type of the caller's:
/// [`ChunkRepository::json_as`].
#[derive(Clone, PartialEq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct Chunk<J = Value> {
    /// Its identifier.
    pub id: ChunkId,
    /// What it was cut from.
    pub transcript_id: TranscriptId,
    /// Who loaded that.
    pub user_id: UserId,
    /// What it says.
    pub chunk_text: String,
    /// Its place in the transcript, from 0.
    pub chunk_index: i32,
    /// Its length in the model's tokens.
    pub token_count: i32,
    /// What the application noted about it.
    #[sqlx(json)]
    pub metadata: J,
    /// When it was cut.
    pub created_at: DateTime<Utc>,
}

of_row!(Chunk {
    id,
    transcript_id,
    user_id,
    chunk_text,
    chunk_index,
    token_count,
    created_at
} metadata);

debug_fields!(Chunk<J> { id, transcript_id, user_id, chunk_index, token_count, created_at });

repository!(
    /// Chunks: [`Database::chunks`](crate::Database::chunks).
    ChunkRepository<J>
);

owned_by!(ChunkRepository<J>);

impl<'c, A: Access, J: FromJson> ChunkRepository<'c, A, J> {
    /// The chunk with this identifier.
    pub async fn get_by_id(self, id: ChunkId) -> Result<Option<Chunk<J>>> {
        by_owner!(
            self.conn.owner(),
            query_as!(
                Chunk::<Json<J>>,
                r#"select id, transcript_id, user_id, chunk_text, chunk_index, token_count,
                          metadata as "metadata: Json<J>", created_at
                     from chunks
                    where id = $1"#
                    + owned(" and user_id = $2"),
                id.as_uuid(),
            )
            .map(Chunk::of_row)
                => |statement| rows::one(self.conn.repeatable(), "chunks", statement).await
        )
    }

    /// The chunks with these identifiers, in the order given: a vector store's ranking survives.
    /// Those that are no more are left out.
    pub async fn get_by_ids(self, ids: &[ChunkId]) -> Result<Vec<Chunk<J>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        by_owner!(
            self.conn.owner(),
            query_as!(
                Chunk::<Json<J>>,
                r#"select c.id, c.transcript_id, c.user_id, c.chunk_text, c.chunk_index,
                          c.token_count, c.metadata as "metadata: Json<J>", c.created_at
                     from unnest($1::uuid[]) with ordinality as wanted (id, place)
                     join chunks c on c.id = wanted.id"#
                    + owned(" where c.user_id = $2")
                    + " order by wanted.place",
                &ChunkId::uuids(ids),
            )
            .map(Chunk::of_row)
                => |statement| rows::all(self.conn.repeatable(), "chunks", statement).await
        )
    }

    /// A transcript's chunks, in its order.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list_by_transcript(
        self,
        transcript_id: TranscriptId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Chunk<J>>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        by_owner!(
            self.conn.owner(),
            query_as!(
                Chunk::<Json<J>>,
                r#"select id, transcript_id, user_id, chunk_text, chunk_index, token_count,
                          metadata as "metadata: Json<J>", created_at
                     from chunks
                    where transcript_id = $1"#
                    + owned(" and user_id = $4")
                    + " order by chunk_index limit $2 offset $3",
                transcript_id.as_uuid(),
                limit,
                offset,
            )
            .map(Chunk::of_row)
                => |statement| rows::all(self.conn.repeatable(), "chunks", statement).await
        )
    }

    /// All of a transcript's chunks, in its order, as they come from the server. However many there
    /// are, no more than a few are in memory.
    ///
    /// One that can't be read is [`Error::Unreadable`](crate::Error::Unreadable) in its place; asked for
    /// more, the stream goes on with the next.
    ///
    /// They are what the transcript held when the reading began. It keeps a connection until it ends
    /// or is dropped, and `statement_timeout` counts from its beginning, whoever is slow.
    ///
    /// ```no_run
    /// use futures_util::TryStreamExt;
    ///
    /// # async fn example(db: chancery::Database, id: chancery::TranscriptId) -> chancery::Result<()> {
    /// let mut chunks = std::pin::pin!(db.chunks().stream_by_transcript(id));
    /// while let Some(chunk) = chunks.try_next().await? {
    ///     println!("{}: {}", chunk.chunk_index, chunk.chunk_text);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream_by_transcript(
        self,
        transcript_id: TranscriptId,
    ) -> impl Stream<Item = Result<Chunk<J>>> + Send + use<'c, A, J> {
        by_owner!(
            self.conn.owner(),
            query_as!(
                Chunk::<Json<J>>,
                r#"select id, transcript_id, user_id, chunk_text, chunk_index, token_count,
                          metadata as "metadata: Json<J>", created_at
                     from chunks
                    where transcript_id = $1"#
                    + owned(" and user_id = $2")
                    + " order by chunk_index",
                transcript_id.as_uuid(),
            )
            .map(Chunk::of_row)
                => |statement| rows::stream(self.conn.repeatable(), "chunks", statement)
        )
    }

    /// A user's chunks whose metadata contains `contained`, in the order in which they were cut.
    ///
    /// # Errors
    ///
    /// As [`list_by_transcript`](Self::list_by_transcript).
    pub async fn list_by_metadata(
        self,
        user_id: UserId,
        contained: &Value,
        limit: i64,
    ) -> Result<Vec<Chunk<J>>> {
        self.conn.check_owner(user_id)?;
        let (limit, _) = limit_offset(limit, 0)?;
        input::json("contained", contained)?;
        let statement = || {
            sqlx::query_as!(
                Chunk::<Json<J>>,
                r#"select id, transcript_id, user_id, chunk_text, chunk_index, token_count,
                      metadata as "metadata: Json<J>", created_at
                 from chunks
                where user_id = $1 and metadata @> $2
                order by created_at, id
                limit $3"#,
                user_id.as_uuid(),
                contained,
                limit,
            )
            .map(Chunk::of_row)
        };
        rows::all(self.conn.repeatable(), "chunks", statement).await
    }

    /// How many chunks a user has.
    pub async fn count_by_user(self, user_id: UserId) -> Result<i64> {
        self.conn.check_owner(user_id)?;
        Ok(sqlx::query_scalar!(
            r#"select count(*) as "count!" from chunks where user_id = $1"#,
            user_id.as_uuid(),
        )
        .fetch_one(self.conn.repeatable())
        .await?)
    }
}

impl ChunkRepository<'_> {
    /// Deletes a chunk. Says whether there was one.
    pub async fn delete(self, id: ChunkId) -> Result<bool> {
        let done = by_owner!(
            self.conn.owner(),
            query!("delete from chunks where id = $1" + owned(" and user_id = $2"), id.as_uuid())
                .execute(self.conn)
                .await
        )?;
        Ok(done.rows_affected() > 0)
    }

    /// Deletes a transcript's chunks. Says how many.
    pub async fn delete_by_transcript(self, transcript_id: TranscriptId) -> Result<u64> {
        let done = by_owner!(
            self.conn.owner(),
            query!(
                "delete from chunks where transcript_id = $1" + owned(" and user_id = $2"),
                transcript_id.as_uuid()
            )
            .execute(self.conn)
            .await
        )?;
        Ok(done.rows_affected())
    }
}
