//! How chunks are stored: any number of them, or a transcript's cut anew.

use futures_util::FutureExt;
use serde::Serialize;

use super::chunk::{Chunk, ChunkId, ChunkRepository};
use super::new_chunk::{ChunkColumns, ChunkDraft, NewChunk};
use super::transcript::TranscriptId;
use crate::db::bulk::in_batches;
use crate::db::owner::by_owner;
use crate::db::{Conn, Result, input};

/// What [`ChunkRepository::replace_all`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReplacedChunks {
    /// How many stayed as they were.
    pub unchanged: u64,
    /// How many kept their text and identifier and got another place, token count or metadata.
    pub updated: u64,
    /// Those that are new, in the transcript's order: to be embedded.
    pub inserted: Vec<ChunkId>,
    /// Those that are gone, in the order that they had: to be taken out of the vector store.
    pub deleted: Vec<ChunkId>,
}

impl ChunkRepository<'_> {
    /// Stores any number of chunks, all of them or none. They come back in the order given; an empty
    /// list asks nothing of the server.
    ///
    /// Up to 4 MiB of text and metadata go as one statement. More go as several in one transaction, so
    /// that neither side holds all of it a second time.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::Error::Conflict) when a transcript has a chunk with that index
    /// ([`ChunksTranscriptIdChunkIndexKey`](crate::Constraint::ChunksTranscriptIdChunkIndexKey));
    /// [`ForeignKey`](crate::Error::ForeignKey) when there is no such transcript;
    /// [`InvalidInput`](crate::Error::InvalidInput).
    pub async fn create_many(self, new: Vec<NewChunk>) -> Result<Vec<Chunk>> {
        let created = in_batches(self.conn, "chunks", new, NewChunk::check, |conn, batch| {
            ChunkRepository::create_batch(conn, batch).boxed()
        })
        .await?;
        Ok(created.into_iter().flatten().collect())
    }

    /// [`create_many`](Self::create_many) for those who don't need the rows back, which saves a tenth to a
    /// fifth of the time. Says how many were stored.
    ///
    /// # Errors
    ///
    /// As [`create_many`](Self::create_many).
    pub async fn insert_many(self, new: Vec<NewChunk>) -> Result<u64> {
        let inserted = in_batches(self.conn, "chunks", new, NewChunk::check, |conn, batch| {
            ChunkRepository::insert_batch(conn, batch).boxed()
        })
        .await?;
        Ok(inserted.into_iter().sum())
    }

    /// Cuts a transcript anew: these are its chunks from now on, in this order. One statement; others
    /// read the old ones or the new, never some of each.
    ///
    /// A chunk whose text was there before keeps its identifier, wherever it stands now, and with it
    /// what hangs on that: its vector, other tables' rows, messages that cite it. The rest are deleted or
    /// stored, and named. Two at once of one transcript happen one after the other, and the second
    /// replaces what the first has stored. (A chunk that another program has put at place 10⁹ or beyond
    /// is stored anew.)
    ///
    /// ```no_run
    /// # use chancery::{ChunkDraft, ChunkId, Database, TranscriptId};
    /// # async fn embed(_: &[ChunkId]) {}
    /// # async fn forget(_: &[ChunkId]) {}
    /// # async fn example(db: Database, id: TranscriptId, cut: Vec<ChunkDraft>) -> chancery::Result<()> {
    /// let replaced = db.chunks().replace_all(id, cut).await?;
    /// embed(&replaced.inserted).await;
    /// forget(&replaced.deleted).await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ForeignKey`](crate::Error::ForeignKey) when there is no such transcript;
    /// [`InvalidInput`](crate::Error::InvalidInput), also for more than
    /// [`MAX_STATEMENT_BYTES`](crate::MAX_STATEMENT_BYTES).
    pub async fn replace_all(
        self,
        transcript_id: TranscriptId,
        chunks: Vec<ChunkDraft>,
    ) -> Result<ReplacedChunks> {
        let new = ChunkColumns::new(chunks)?;
        let replaced = by_owner!(
            self.conn.owner(),
            query!(
                r#"select unchanged as "unchanged!", updated as "updated!",
                          inserted as "inserted!: Vec<ChunkId>",
                          deleted as "deleted!: Vec<ChunkId>"
                     from replace_chunks($1, $2, $3, $4, $5)"#
                    | owned(
                        r#"select unchanged as "unchanged!", updated as "updated!",
                                  inserted as "inserted!: Vec<ChunkId>",
                                  deleted as "deleted!: Vec<ChunkId>"
                             from replace_chunks(
                                      (select id from transcripts where id = $1 and user_id = $6),
                                      $2, $3, $4, $5)"#
                    ),
                transcript_id.as_uuid(),
                &new.ids,
                &new.texts,
                &new.token_counts,
                &new.metadata,
            )
            .map(|row| ReplacedChunks {
                unchanged: row.unchanged.unsigned_abs(),
                updated: row.updated.unsigned_abs(),
                inserted: row.inserted,
                deleted: row.deleted,
            })
            .fetch_one(self.conn)
            .await
        )?;
        Ok(replaced)
    }

    async fn create_batch(conn: Conn<'_>, new: Vec<NewChunk>) -> Result<Vec<Chunk>> {
        let Columns { transcript_ids, indexes, chunks } = new.into();
        // Texts come back as they were sent, so they need not; jsonb writes numbers in its own way.
        let mut rows = by_owner!(
            conn.owner(),
            query!(
                "insert into chunks (id, transcript_id, user_id, chunk_text, chunk_index,
                                     token_count, metadata)
                 select n.id, n.transcript_id, t.user_id, n.chunk_text, n.chunk_index,
                        n.token_count, n.metadata
                   from unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[], $5::int[],
                               $6::jsonb[])
                        as n (id, transcript_id, chunk_text, chunk_index, token_count, metadata)
                   left join transcripts t on t.id = n.transcript_id
                 returning id, user_id, metadata, created_at"
                    | owned(
                        "insert into chunks (id, transcript_id, user_id, chunk_text, chunk_index,
                                             token_count, metadata)
                         select n.id, n.transcript_id, $7::uuid, n.chunk_text, n.chunk_index,
                                n.token_count, n.metadata
                           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[], $5::int[],
                                       $6::jsonb[])
                                as n (id, transcript_id, chunk_text, chunk_index, token_count,
                                      metadata)
                         returning id, user_id, metadata, created_at"
                    ),
                &chunks.ids,
                &TranscriptId::uuids(&transcript_ids),
                &chunks.texts,
                &indexes,
                &chunks.token_counts,
                &chunks.metadata,
            )
            .map(|row| (row.id, row.user_id, row.metadata, row.created_at))
            .fetch_all(conn)
            .await
        )?;
        input::sort_as(&chunks.ids, &mut rows, |(id, ..)| id.as_uuid());
        let places = transcript_ids.into_iter().zip(indexes);
        let sent = places.zip(chunks.texts.into_iter().zip(chunks.token_counts));
        let created = sent.zip(rows).map(
            |(((transcript_id, chunk_index), (chunk_text, token_count)), stored)| {
                let (id, user_id, metadata, created_at) = stored;
                Chunk {
                    id,
                    transcript_id,
                    user_id,
                    chunk_text,
                    chunk_index,
                    token_count,
                    metadata,
                    created_at,
                }
            },
        );
        Ok(created.collect())
    }

    async fn insert_batch(conn: Conn<'_>, new: Vec<NewChunk>) -> Result<u64> {
        let Columns { transcript_ids, indexes, chunks } = new.into();
        let done = by_owner!(
            conn.owner(),
            query!(
                "insert into chunks (id, transcript_id, user_id, chunk_text, chunk_index,
                                     token_count, metadata)
                 select n.id, n.transcript_id, t.user_id, n.chunk_text, n.chunk_index,
                        n.token_count, n.metadata
                   from unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[], $5::int[],
                               $6::jsonb[])
                        as n (id, transcript_id, chunk_text, chunk_index, token_count, metadata)
                   left join transcripts t on t.id = n.transcript_id"
                    | owned(
                        "insert into chunks (id, transcript_id, user_id, chunk_text, chunk_index,
                                             token_count, metadata)
                         select n.id, n.transcript_id, $7::uuid, n.chunk_text, n.chunk_index,
                                n.token_count, n.metadata
                           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[], $5::int[],
                                       $6::jsonb[])
                                as n (id, transcript_id, chunk_text, chunk_index, token_count,
                                      metadata)"
                    ),
                &chunks.ids,
                &TranscriptId::uuids(&transcript_ids),
                &chunks.texts,
                &indexes,
                &chunks.token_counts,
                &chunks.metadata,
            )
            .execute(conn)
            .await
        )?;
        Ok(done.rows_affected())
    }
}

/// Chunks of any transcripts, column by column.
#[derive(Default)]
struct Columns {
    transcript_ids: Vec<TranscriptId>,
    indexes: Vec<i32>,
    chunks: ChunkColumns,
}

impl From<Vec<NewChunk>> for Columns {
    fn from(new: Vec<NewChunk>) -> Self {
        let mut columns = Self::default();
        for chunk in new {
            columns.transcript_ids.push(chunk.transcript_id);
            columns.indexes.push(chunk.chunk_index);
            columns.chunks.ids.push(ChunkId::new().as_uuid());
            columns.chunks.texts.push(chunk.chunk_text);
            columns.chunks.token_counts.push(chunk.token_count);
            columns.chunks.metadata.push(chunk.metadata);
        }
        columns
    }
}
