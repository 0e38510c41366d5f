//! Transcripts of videos: one for each user and video.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::types::Json;
use uuid::Uuid;

use super::chunk::Chunk;
use super::new_chunk::{ChunkColumns, ChunkDraft};

use crate::db::id::{debug_fields, id};
use crate::db::page::limit_offset;
use crate::db::{Error, Page, PageRequest, Patch, Result, input};
use crate::identity::UserId;
use crate::repositories::{Access, FromJson, json_column, of_row, repository};

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

/// A transcript to be stored.
#[derive(Clone, PartialEq)]
pub struct NewTranscript {
    /// Who loads it.
    pub user_id: UserId,
    /// 1 to 50 characters.
    pub youtube_video_id: String,
    /// At most 500 characters.
    pub title: Option<String>,
    /// At most 255 characters.
    pub channel_name: Option<String>,
    /// Seconds, not negative.
    pub duration: Option<i32>,
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub transcript_text: String,
    /// At most [`MAX_JSON_DEPTH`](crate::MAX_JSON_DEPTH) levels; `{}` unless said.
    pub metadata: Value,
}

debug_fields!(NewTranscript { user_id, duration });

impl NewTranscript {
    /// With what every transcript has.
    pub fn new(
        user_id: UserId,
        youtube_video_id: impl Into<String>,
        transcript_text: impl Into<String>,
    ) -> Self {
        Self {
            user_id,
            youtube_video_id: youtube_video_id.into(),
            title: None,
            channel_name: None,
            duration: None,
            transcript_text: transcript_text.into(),
            metadata: json!({}),
        }
    }

    /// With a title.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// With the channel's name.
    pub fn channel_name(mut self, name: impl Into<String>) -> Self {
        self.channel_name = Some(name.into());
        self
    }

    /// With a length, in seconds.
    pub fn duration(mut self, seconds: i32) -> Self {
        self.duration = Some(seconds);
        self
    }

    /// With notes.
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = metadata;
        self
    }

    fn check(&self) -> Result<()> {
        input::name("youtube_video_id", &self.youtube_video_id, 50)?;
        input::optional_text("title", self.title.as_deref(), 500)?;
        input::optional_text("channel_name", self.channel_name.as_deref(), 255)?;
        check_duration(self.duration)?;
        input::long_text("transcript_text", &self.transcript_text)?;
        input::json("metadata", &self.metadata)
    }
}

fn check_duration(seconds: Option<i32>) -> Result<()> {
    seconds.map_or(Ok(()), |s| input::range("duration", s.into(), 0, i32::MAX.into()))
}

/// What to change of a transcript; see [`Patch`]. The text stays: chunks were cut from it.
#[derive(Clone, Default)]
pub struct TranscriptPatch {
    /// At most 500 characters.
    pub title: Patch<Option<String>>,
    /// At most 255 characters.
    pub channel_name: Patch<Option<String>>,
    /// Seconds, not negative.
    pub duration: Patch<Option<i32>>,
    /// At most [`MAX_JSON_DEPTH`](crate::MAX_JSON_DEPTH) levels.
    pub metadata: Patch<Value>,
}

debug_fields!(TranscriptPatch { duration });

impl TranscriptPatch {
    fn check(&self) -> Result<()> {
        input::optional_text("title", self.title.set_text(), 500)?;
        input::optional_text("channel_name", self.channel_name.set_text(), 255)?;
        check_duration(self.duration.as_ref().copied().flatten())?;
        self.metadata.as_ref().map_or(Ok(()), |v| input::json("metadata", v))
    }
}

repository!(
    /// Transcripts: [`Database::transcripts`](crate::Database::transcripts).
    TranscriptRepository<J>
);

impl TranscriptRepository<'_> {
    /// Stores a transcript.
    ///
    /// # Errors
    ///
    /// [`Conflict`](Error::Conflict) when the user has loaded this video before
    /// ([`TranscriptsUserIdYoutubeVideoIdKey`](crate::Constraint::TranscriptsUserIdYoutubeVideoIdKey));
    /// [`ForeignKey`](Error::ForeignKey) when there is no such user;
    /// [`InvalidInput`](Error::InvalidInput).
    pub async fn create(self, new: NewTranscript) -> Result<Transcript> {
        new.check()?;
        Ok(sqlx::query_as!(
            Transcript,
            "insert into transcripts (id, user_id, youtube_video_id, title, channel_name, duration,
                                      transcript_text, metadata)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             returning id, user_id, youtube_video_id, title, channel_name, duration,
                       transcript_text, metadata, created_at",
            TranscriptId::new().as_uuid(),
            new.user_id.as_uuid(),
            new.youtube_video_id,
            new.title,
            new.channel_name,
            new.duration,
            new.transcript_text,
            new.metadata,
        )
        .fetch_one(self.conn)
        .await?)
    }
    /// Stores a transcript with all its chunks, in one statement: all of it or nothing. The chunks'
    /// places are those in the list.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`InvalidInput`](Error::InvalidInput) also for chunks of more than
    /// [`MAX_STATEMENT_BYTES`](crate::MAX_STATEMENT_BYTES).
    pub async fn create_with_chunks(
        self,
        new: NewTranscript,
        chunks: Vec<ChunkDraft>,
    ) -> Result<TranscriptWithChunks> {
        new.check()?;
        let cut = ChunkColumns::new(chunks)?;
        let id = TranscriptId::new();
        // Texts come back as they were sent, so they need not; jsonb writes numbers in its own way.
        let mut rows = sqlx::query!(
            r#"with t as (
                   insert into transcripts (id, user_id, youtube_video_id, title, channel_name,
                                            duration, transcript_text, metadata)
                   values ($1, $2, $3, $4, $5, $6, $7, $8)
                   returning id, metadata, created_at
               ), c as (
                   insert into chunks (id, transcript_id, user_id, chunk_text, chunk_index,
                                       token_count, metadata)
                   select n.id, $1, $2, n.chunk_text, n.place - 1, n.token_count, n.metadata
                     from unnest($9::uuid[], $10::text[], $11::int[], $12::jsonb[]) with ordinality
                          as n (id, chunk_text, token_count, metadata, place)
                   returning id, metadata, created_at
               )
               select id as "id!: Uuid", metadata as "metadata!", created_at as "created_at!"
                 from (table t union all table c) stored"#,
            id.as_uuid(),
            new.user_id.as_uuid(),
            new.youtube_video_id,
            new.title,
            new.channel_name,
            new.duration,
            new.transcript_text,
            new.metadata,
            &cut.ids,
            &cut.texts,
            &cut.token_counts,
            &cut.metadata,
        )
        .fetch_all(self.conn)
        .await?;
        let place = rows.iter().position(|row| row.id == id.as_uuid());
        let stored = rows.swap_remove(place.ok_or(Error::NotFound("transcript"))?);
        input::sort_as(&cut.ids, &mut rows, |row| row.id);
        let transcript = Transcript {
            id,
            user_id: new.user_id,
            youtube_video_id: new.youtube_video_id,
            title: new.title,
            channel_name: new.channel_name,
            duration: new.duration,
            transcript_text: new.transcript_text,
            metadata: stored.metadata,
            created_at: stored.created_at,
        };
        let sent = cut.texts.into_iter().zip(cut.token_counts).zip(0..);
        let chunks = sent.zip(rows).map(|(((chunk_text, token_count), chunk_index), row)| Chunk {
            id: row.id.into(),
            transcript_id: id,
            user_id: new.user_id,
            chunk_text,
            chunk_index,
            token_count,
            metadata: row.metadata,
            created_at: row.created_at,
        });
        Ok(TranscriptWithChunks { transcript, chunks: chunks.collect() })
    }
}

impl<A: Access, J: FromJson> TranscriptRepository<'_, A, J> {
    /// The transcript with this identifier.
    pub async fn get_by_id(self, id: TranscriptId) -> Result<Option<Transcript<J>>> {
        Ok(sqlx::query_as!(
            Transcript::<Json<J>>,
            r#"select id, user_id, youtube_video_id, title, channel_name, duration, transcript_text,
                      metadata as "metadata: Json<J>", created_at
                 from transcripts
                where id = $1"#,
            id.as_uuid(),
        )
        .map(Transcript::of_row)
        .fetch_optional(self.conn)
        .await?)
    }

    /// The transcript and how many chunks it has, in one statement.
    pub async fn get_with_chunk_count(
        self,
        id: TranscriptId,
    ) -> Result<Option<TranscriptWithChunkCount<J>>> {
        let row = sqlx::query!(
            r#"select id, user_id, youtube_video_id, title, channel_name, duration,
                      transcript_text, metadata as "metadata: Json<Box<RawValue>>", created_at,
                      (select count(*) from chunks c where c.transcript_id = t.id) as "chunk_count!"
                 from transcripts t
                where id = $1"#,
            id.as_uuid(),
        )
        .fetch_optional(self.conn)
        .await?;
        row.map(|row| {
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
        })
        .transpose()
    }

    /// What a user has loaded of this video.
    pub async fn get_by_video_id(
        self,
        user_id: UserId,
        youtube_video_id: &str,
    ) -> Result<Option<Transcript<J>>> {
        if !input::could_be_stored(youtube_video_id, 50) {
            return Ok(None);
        }
        Ok(sqlx::query_as!(
            Transcript::<Json<J>>,
            r#"select id, user_id, youtube_video_id, title, channel_name, duration, transcript_text,
                      metadata as "metadata: Json<J>", created_at
                 from transcripts
                where user_id = $1 and youtube_video_id = $2"#,
            user_id.as_uuid(),
            youtube_video_id,
        )
        .map(Transcript::of_row)
        .fetch_optional(self.conn)
        .await?)
    }

    /// A user's transcripts, newest first. For long lists use [`page_by_user`](Self::page_by_user):
    /// an offset reads what it skips.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list_by_user(
        self,
        user_id: UserId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<TranscriptSummary>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        Ok(sqlx::query_as!(
            TranscriptSummary,
            r#"select id, user_id, youtube_video_id, title, channel_name, duration, created_at,
                      (select count(*) from chunks c where c.transcript_id = t.id) as "chunk_count!"
                 from transcripts t
                where user_id = $1
                order by created_at desc, id desc
                limit $2 offset $3"#,
            user_id.as_uuid(),
            limit,
            offset,
        )
        .fetch_all(self.conn)
        .await?)
    }

    /// A page of a user's transcripts, newest first.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a size outside of 1 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE).
    pub async fn page_by_user(
        self,
        user_id: UserId,
        page: PageRequest,
    ) -> Result<Page<TranscriptSummary>> {
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place()?;
        let items = sqlx::query_as!(
            TranscriptSummary,
            r#"select id, user_id, youtube_video_id, title, channel_name, duration, created_at,
                      (select count(*) from chunks c where c.transcript_id = t.id) as "chunk_count!"
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
        .fetch_all(self.conn)
        .await?;
        Ok(Page::new(&page, items, |t| (t.created_at, t.id.as_uuid())))
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
        Ok(sqlx::query_as!(
            TranscriptSummary,
            r#"select id, user_id, youtube_video_id, title, channel_name, duration, created_at,
                      (select count(*) from chunks c where c.transcript_id = t.id) as "chunk_count!"
                 from transcripts t
                where youtube_video_id = $1
                order by created_at, id
                limit $2"#,
            youtube_video_id,
            limit,
        )
        .fetch_all(self.conn)
        .await?)
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
        let (limit, _) = limit_offset(limit, 0)?;
        input::json("contained", contained)?;
        Ok(sqlx::query_as!(
            TranscriptSummary,
            r#"select id, user_id, youtube_video_id, title, channel_name, duration, created_at,
                      (select count(*) from chunks c where c.transcript_id = t.id) as "chunk_count!"
                 from transcripts t
                where user_id = $1 and metadata @> $2
                order by created_at desc, id desc
                limit $3"#,
            user_id.as_uuid(),
            contained,
            limit,
        )
        .fetch_all(self.conn)
        .await?)
    }
}

impl TranscriptRepository<'_> {
    /// Changes what the patch names.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound); [`InvalidInput`](Error::InvalidInput).
    pub async fn update(self, id: TranscriptId, patch: TranscriptPatch) -> Result<Transcript> {
        patch.check()?;
        sqlx::query_as!(
            Transcript,
            "update transcripts
                set title = case when $2 then $3 else title end,
                    channel_name = case when $4 then $5 else channel_name end,
                    duration = case when $6 then $7 else duration end,
                    metadata = coalesce($8, metadata)
              where id = $1
             returning id, user_id, youtube_video_id, title, channel_name, duration,
                       transcript_text, metadata, created_at",
            id.as_uuid(),
            patch.title.is_set(),
            patch.title.set_text(),
            patch.channel_name.is_set(),
            patch.channel_name.set_text(),
            patch.duration.is_set(),
            patch.duration.as_ref().copied().flatten(),
            patch.metadata.as_ref(),
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(Error::NotFound("transcript"))
    }

    /// Deletes a transcript with its chunks. Says whether there was one.
    pub async fn delete(self, id: TranscriptId) -> Result<bool> {
        let done = sqlx::query!("delete from transcripts where id = $1", id.as_uuid())
            .execute(self.conn)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
