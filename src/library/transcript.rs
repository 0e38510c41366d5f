//! Transcripts of videos: one for each user and video.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::types::Json;

use super::chunk::Chunk;
use crate::db::id::{debug_fields, id};
use crate::db::owner::by_owner;
use crate::db::page::{List, limit_offset};
use crate::db::{Page, PageRequest, Result, input, rows};
use crate::identity::UserId;
use crate::repositories::{Access, FromJson, json_column, of_row, owned_by, repository};

id!(
    /// Identifies a [`Transcript`].
    TranscriptId
);

/// A transcript, with its text. Its metadata is a [`Value`] unless it is read as a type of the
/// caller's: [`TranscriptRepository::json_as`].
#[derive(Clone, PartialEq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct Transcript<J = Value> {
    /// Its identifier.
    pub id: TranscriptId,
    /// Who loaded it.
    pub user_id: UserId,
    /// The video's identifier at YouTube.
    pub youtube_video_id: String,
    /// The video's title.
    pub title: Option<String>,
    /// The channel's name.
    pub channel_name: Option<String>,
    /// The video's length, in seconds.
    pub duration: Option<i32>,
    /// All that is said.
    pub transcript_text: String,
    /// What the application noted about it.
    #[sqlx(json)]
    pub metadata: J,
    /// When it was loaded.
    pub created_at: DateTime<Utc>,
}

of_row!(Transcript {
    id,
    user_id,
    youtube_video_id,
    title,
    channel_name,
    duration,
    transcript_text,
    created_at
} metadata);

debug_fields!(Transcript<J> { id, user_id, duration, created_at });

/// A transcript as a list shows it: without text and metadata.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TranscriptSummary {
    /// Its identifier.
    pub id: TranscriptId,
    /// Who loaded it.
    pub user_id: UserId,
    /// The video's identifier at YouTube.
    pub youtube_video_id: String,
    /// The video's title.
    pub title: Option<String>,
    /// The channel's name.
    pub channel_name: Option<String>,
    /// The video's length, in seconds.
    pub duration: Option<i32>,
    /// When it was loaded.
    pub created_at: DateTime<Utc>,
    /// Into how many chunks it is cut.
    pub chunk_count: i64,
}

debug_fields!(TranscriptSummary { id, user_id, duration, created_at, chunk_count });

/// A transcript and how many chunks it has.
#[derive(Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TranscriptWithChunkCount<J = Value> {
    /// The transcript.
    #[serde(flatten)]
    pub transcript: Transcript<J>,
    /// Into how many chunks it is cut.
    pub chunk_count: i64,
}

debug_fields!(TranscriptWithChunkCount<J> { transcript, chunk_count });

/// A transcript with its chunks, as it was stored.
#[derive(Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TranscriptWithChunks {
    /// The transcript.
    #[serde(flatten)]
    pub transcript: Transcript,
    /// Its chunks, in its order.
    pub chunks: Vec<Chunk>,
}

debug_fields!(TranscriptWithChunks { transcript, chunks });

repository!(
    /// Transcripts: [`Database::transcripts`](crate::Database::transcripts).
    TranscriptRepository<J>
);

owned_by!(TranscriptRepository<J>);

impl<A: Access, J: FromJson> TranscriptRepository<'_, A, J> {
    /// The transcript with this identifier.
    pub async fn get_by_id(self, id: TranscriptId) -> Result<Option<Transcript<J>>> {
        by_owner!(
            self.conn.owner(),
            query_as!(
                Transcript::<Json<J>>,
                r#"select id, user_id, youtube_video_id, title, channel_name, duration,
                          transcript_text, metadata as "metadata: Json<J>", created_at
                     from transcripts
                    where id = $1"#
                    + owned(" and user_id = $2"),
                id.as_uuid(),
            )
            .map(Transcript::of_row)
                => |statement| rows::one(self.conn.repeatable(), "transcripts", statement).await
        )
    }

    /// The transcript and how many chunks it has, in one statement.
    pub async fn get_with_chunk_count(
        self,
        id: TranscriptId,
    ) -> Result<Option<TranscriptWithChunkCount<J>>> {
        by_owner!(
            self.conn.owner(),
            query!(
                r#"select id, user_id, youtube_video_id, title, channel_name, duration,
                          transcript_text, metadata as "metadata: Json<Box<RawValue>>",
                          created_at,
                          (select count(*) from chunks c
                            where c.transcript_id = t.id) as "chunk_count!"
                     from transcripts t
                    where id = $1"#
                    | owned(
                        r#"select id, user_id, youtube_video_id, title, channel_name, duration,
                                  transcript_text, metadata as "metadata: Json<Box<RawValue>>",
                                  created_at,
                                  (select count(*) from chunks c
                                    where c.user_id = $2
                                      and c.transcript_id = t.id) as "chunk_count!"
                             from transcripts t
                            where id = $1 and user_id = $2"#
                    ),
                id.as_uuid(),
            )
            .try_map(|row| {
                Ok(TranscriptWithChunkCount {
                    transcript: Transcript {
                        id: row.id,
                        user_id: row.user_id,
                        youtube_video_id: row.youtube_video_id,
                        title: row.title,
                        channel_name: row.channel_name,
                        duration: row.duration,
                        transcript_text: row.transcript_text,
                        metadata: json_column("metadata", &row.metadata)?,
                        created_at: row.created_at,
                    },
                    chunk_count: row.chunk_count,
                })
            }) => |statement| rows::one(self.conn.repeatable(), "transcripts", statement).await
        )
    }

    /// What a user has loaded of this video.
    pub async fn get_by_video_id(
        self,
        user_id: UserId,
        youtube_video_id: &str,
    ) -> Result<Option<Transcript<J>>> {
        self.conn.check_owner(user_id)?;
        if !input::could_be_stored(youtube_video_id, 50) {
            return Ok(None);
        }
        rows::one(self.conn.repeatable(), "transcripts", || {
            sqlx::query_as!(
            Transcript::<Json<J>>,
            r#"select id, user_id, youtube_video_id, title, channel_name, duration, transcript_text,
                      metadata as "metadata: Json<J>", created_at
                 from transcripts
                where user_id = $1 and youtube_video_id = $2"#,
            user_id.as_uuid(),
            youtube_video_id,
        )
        .map(Transcript::of_row)
        })
        .await
    }

    /// A user's transcripts, newest first. For long lists use [`page_by_user`](Self::page_by_user):
    /// an offset reads what it skips.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list_by_user(
        self,
        user_id: UserId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<TranscriptSummary>> {
        self.conn.check_owner(user_id)?;
        let (limit, offset) = limit_offset(limit, offset)?;
        Ok(sqlx::query_as!(
            TranscriptSummary,
            r#"select id, user_id, youtube_video_id, title, channel_name, duration, created_at,
                      (select count(*) from chunks c
                        where c.user_id = $1 and c.transcript_id = t.id) as "chunk_count!"
                 from transcripts t
                where user_id = $1
                order by created_at desc, id desc
                limit $2 offset $3"#,
            user_id.as_uuid(),
            limit,
            offset,
        )
        .fetch_all(self.conn.repeatable())
        .await?)
    }

    /// A page of a user's transcripts, newest first.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a size outside of 1 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE).
    pub async fn page_by_user(
        self,
        user_id: UserId,
        page: PageRequest,
    ) -> Result<Page<TranscriptSummary>> {
        self.conn.check_owner(user_id)?;
        let list = List::by("transcripts of a user", user_id.as_uuid());
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place(list)?;
        let items = sqlx::query_as!(
            TranscriptSummary,
            r#"select id, user_id, youtube_video_id, title, channel_name, duration, created_at,
                      (select count(*) from chunks c
                        where c.user_id = $1 and c.transcript_id = t.id) as "chunk_count!"
                 from transcripts t
                where user_id = $1
                  and (created_at, id) < (coalesce($2::timestamptz, 'infinity'),
                                          coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
                order by created_at desc, id desc
                limit $4"#,
            user_id.as_uuid(),
            before,
            before_id,
            rows,
        )
        .fetch_all(self.conn.repeatable())
        .await?;
        Ok(Page::new(&page, list, items, |t| (t.created_at, t.id.as_uuid())))
    }

    /// Everybody's transcripts of a video, oldest first: for the service, which may take over what
    /// somebody else has loaded.
    ///
    /// # Errors
    ///
    /// As [`list_by_user`](Self::list_by_user).
    pub async fn list_by_video(
        self,
        youtube_video_id: &str,
        limit: i64,
    ) -> Result<Vec<TranscriptSummary>> {
        let (limit, _) = limit_offset(limit, 0)?;
        if !input::could_be_stored(youtube_video_id, 50) {
            return Ok(Vec::new());
        }
        Ok(by_owner!(
            self.conn.owner(),
            query_as!(
                TranscriptSummary,
                r#"select id, user_id, youtube_video_id, title, channel_name, duration,
                          created_at,
                          (select count(*) from chunks c
                            where c.transcript_id = t.id) as "chunk_count!"
                     from transcripts t
                    where youtube_video_id = $1
                    order by created_at, id
                    limit $2"#
                    | owned(
                        r#"select id, user_id, youtube_video_id, title, channel_name, duration,
                                  created_at,
                                  (select count(*) from chunks c
                                    where c.user_id = $3
                                      and c.transcript_id = t.id) as "chunk_count!"
                             from transcripts t
                            where user_id = $3 and youtube_video_id = $1
                            order by created_at, id
                            limit $2"#
                    ),
                youtube_video_id,
                limit,
            )
            .fetch_all(self.conn.repeatable())
            .await
        )?)
    }

    /// A user's transcripts whose metadata contains `contained`, newest first:
    /// `json!({"language": "en"})`.
    ///
    /// # Errors
    ///
    /// As [`list_by_user`](Self::list_by_user).
    pub async fn list_by_metadata(
        self,
        user_id: UserId,
        contained: &Value,
        limit: i64,
    ) -> Result<Vec<TranscriptSummary>> {
        self.conn.check_owner(user_id)?;
        let (limit, _) = limit_offset(limit, 0)?;
        input::json("contained", contained)?;
        Ok(sqlx::query_as!(
            TranscriptSummary,
            r#"select id, user_id, youtube_video_id, title, channel_name, duration, created_at,
                      (select count(*) from chunks c
                        where c.user_id = $1 and c.transcript_id = t.id) as "chunk_count!"
                 from transcripts t
                where user_id = $1 and metadata @> $2
                order by created_at desc, id desc
                limit $3"#,
            user_id.as_uuid(),
            contained,
            limit,
        )
        .fetch_all(self.conn.repeatable())
        .await?)
    }
}
