//! Work shared by several workers: each document to one of them, until its lease ends.

use std::time::Duration;

use uuid::Uuid;

use super::{Document, DocumentId, DocumentRepository, check_page_count};
use crate::db::id::debug_fields;
use crate::db::page::limit_offset;
use crate::db::{Error, Reason, Result, input};

/// A worker's hold on a document, from [`claim_pending`](DocumentRepository::claim_pending).
///
/// It is good until another worker takes the document over, which happens only after the lease has
/// ended: what comes late but was not taken over is still accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DocumentClaim {
    document_id: DocumentId,
    token: Uuid,
}

debug_fields!(DocumentClaim { document_id });

impl DocumentClaim {
    /// What is claimed.
    pub fn document_id(&self) -> DocumentId {
        self.document_id
    }
}

/// A document, and the hold on it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimedDocument {
    /// What to work on.
    pub document: Document,
    /// What to end the work with.
    pub claim: DocumentClaim,
}

impl DocumentRepository<'_> {
    /// Takes up to `limit` documents to work on, oldest first: those that wait, and those whose
    /// worker let its lease end. Each goes to one caller only, and none waits for another.
    ///
    /// They become processing. The lease ends `lease` from now, by the database's clock;
    /// [`extend`](Self::extend) it when the work takes longer. A worker that is done calls
    /// [`complete`](Self::complete), [`fail`](Self::fail) or [`release`](Self::release).
    /// In a unit of work, "now" is when that began; claim outside of one that does the work.
    ///
    /// [`Document::attempts`] counts the claims: fail a document that has ended the lives of too many
    /// workers. One that is processing without a claim (by
    /// [`update_status`](Self::update_status)) is never taken.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE), or a lease outside of 1 second to 1 day.
    pub async fn claim_pending(self, limit: i64, lease: Duration) -> Result<Vec<ClaimedDocument>> {
        let (limit, _) = limit_offset(limit, 0)?;
        let seconds = lease_seconds(lease)?;
        let token = Uuid::now_v7();
        let mut documents = sqlx::query_as!(
            Document,
            "with claimable as (
                 select id
                   from documents
                  where status = 'pending' or (status = 'processing' and lease_expires_at <= now())
                  order by created_at, id
                  limit $1
                    for update skip locked
             )
             update documents d
                set status = 'processing',
                    error_message = null,
                    processed_at = null,
                    attempts = attempts + 1,
                    lease_token = $2,
                    lease_expires_at = now() + make_interval(secs => $3)
               from claimable
              where d.id = claimable.id
             returning d.id, user_id, filename, file_hash, file_type, file_size_bytes,
                       storage_uri, status, error_message, page_count, processed_at, attempts,
                       lease_expires_at, created_at, updated_at",
            limit,
            token,
            seconds,
        )
        .fetch_all(self.conn)
        .await?;
        documents.sort_unstable_by_key(|document| (document.created_at, document.id));
        let claimed = documents.into_iter().map(|document| ClaimedDocument {
            claim: DocumentClaim { document_id: document.id, token },
            document,
        });
        Ok(claimed.collect())
    }

    /// Has the lease end `lease` from now, by the database's clock.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound) when the claim is lost; [`InvalidInput`](Error::InvalidInput) for
    /// a lease outside of 1 second to 1 day.
    pub async fn extend(self, claim: &DocumentClaim, lease: Duration) -> Result<Document> {
        let seconds = lease_seconds(lease)?;
        sqlx::query_as!(
            Document,
            "update documents
                set lease_expires_at = now() + make_interval(secs => $3)
              where id = $1 and lease_token = $2 and status = 'processing'
             returning id, user_id, filename, file_hash, file_type, file_size_bytes, storage_uri,
                       status, error_message, page_count, processed_at, attempts,
                       lease_expires_at, created_at, updated_at",
            claim.document_id.as_uuid(),
            claim.token,
            seconds,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(LOST)
    }

    /// Ends the work on a document: it is completed.
    ///
    /// In a unit of work with what was read out of the document, this makes both happen or neither.
    /// Call it first: it locks the document, so that nobody takes it over before the commit.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound) when the claim is lost: another worker took the document over, its
    /// status was set by hand, or it was deleted. [`InvalidInput`](Error::InvalidInput) for a negative
    /// page count.
    pub async fn complete(
        self,
        claim: &DocumentClaim,
        page_count: Option<i32>,
    ) -> Result<Document> {
        check_page_count(page_count)?;
        sqlx::query_as!(
            Document,
            "update documents
                set status = 'completed',
                    page_count = coalesce($3, page_count),
                    processed_at = now(),
                    lease_token = null,
                    lease_expires_at = null
              where id = $1 and lease_token = $2 and status = 'processing'
             returning id, user_id, filename, file_hash, file_type, file_size_bytes, storage_uri,
                       status, error_message, page_count, processed_at, attempts,
                       lease_expires_at, created_at, updated_at",
            claim.document_id.as_uuid(),
            claim.token,
            page_count,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(LOST)
    }

    /// Ends the work on a document: it can't be done, and nobody tries again.
    ///
    /// # Errors
    ///
    /// As [`complete`](Self::complete).
    pub async fn fail(self, claim: &DocumentClaim, error_message: &str) -> Result<Document> {
        input::long_text("error_message", error_message)?;
        sqlx::query_as!(
            Document,
            "update documents
                set status = 'failed',
                    error_message = $3,
                    processed_at = now(),
                    lease_token = null,
                    lease_expires_at = null
              where id = $1 and lease_token = $2 and status = 'processing'
             returning id, user_id, filename, file_hash, file_type, file_size_bytes, storage_uri,
                       status, error_message, page_count, processed_at, attempts,
                       lease_expires_at, created_at, updated_at",
            claim.document_id.as_uuid(),
            claim.token,
            error_message,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(LOST)
    }

    /// Gives a document back undone, for another worker to take at once: it waits again.
    ///
    /// # Errors
    ///
    /// As [`complete`](Self::complete).
    pub async fn release(self, claim: &DocumentClaim) -> Result<Document> {
        sqlx::query_as!(
            Document,
            "update documents
                set status = 'pending', lease_token = null, lease_expires_at = null
              where id = $1 and lease_token = $2 and status = 'processing'
             returning id, user_id, filename, file_hash, file_type, file_size_bytes, storage_uri,
                       status, error_message, page_count, processed_at, attempts,
                       lease_expires_at, created_at, updated_at",
            claim.document_id.as_uuid(),
            claim.token,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(LOST)
    }
}

const LOST: Error = Error::NotFound("claim on the document");

fn lease_seconds(lease: Duration) -> Result<f64> {
    const DAY: i64 = 24 * 3600;
    if lease < Duration::from_secs(1) || lease > Duration::from_secs(DAY.unsigned_abs()) {
        return Err(Error::invalid("lease", Reason::OutOfRange { min: 1, max: DAY }));
    }
    Ok(lease.as_secs_f64())
}
