//! How transcripts are stored, changed and deleted.

use uuid::Uuid;

use super::chunk::Chunk;
use super::new_chunk::{ChunkColumns, ChunkDraft};
use super::new_transcript::{NewTranscript, TranscriptPatch};
use super::transcript::{Transcript, TranscriptId, TranscriptRepository, TranscriptWithChunks};
use crate::db::owner::by_owner;
use crate::db::{Error, Result, input};

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
        self.conn.check_owner(new.user_id)?;
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
        self.conn.check_owner(new.user_id)?;
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

    /// Changes what the patch names.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound); [`InvalidInput`](Error::InvalidInput).
    pub async fn update(self, id: TranscriptId, patch: TranscriptPatch) -> Result<Transcript> {
        patch.check()?;
        by_owner!(
            self.conn.owner(),
            query_as!(
                Transcript,
                "update transcripts
                    set title = case when $2 then $3 else title end,
                        channel_name = case when $4 then $5 else channel_name end,
                        duration = case when $6 then $7 else duration end,
                        metadata = coalesce($8, metadata)
                  where id = $1"
                    + owned(" and user_id = $9")
                    + " returning id, user_id, youtube_video_id, title, channel_name, duration,
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
            .await
        )?
        .ok_or(Error::NotFound("transcript"))
    }

    /// Deletes a transcript with its chunks. Says whether there was one.
    pub async fn delete(self, id: TranscriptId) -> Result<bool> {
        let done = by_owner!(
            self.conn.owner(),
            query!(
                "delete from transcripts where id = $1" + owned(" and user_id = $2"),
                id.as_uuid()
            )
            .execute(self.conn)
            .await
        )?;
        Ok(done.rows_affected() > 0)
    }
}
