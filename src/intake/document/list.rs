//! Documents in lists.

use super::{Document, DocumentRepository, DocumentStatus};
use crate::db::page::{List, limit_offset};
use crate::db::{Page, PageRequest, Result, rows};
use crate::identity::UserId;
use crate::repositories::Access;

impl<A: Access> DocumentRepository<'_, A> {
    /// All documents, or those of one status, newest first. For long lists use
    /// [`page_documents`](Self::page_documents): an offset reads what it skips.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list_documents(
        self,
        status: Option<DocumentStatus>,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Document>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        Ok(match status {
            None => {
                rows::all(self.conn.repeatable(), "documents", || {
                    sqlx::query_as!(
                        Document,
                        "select id, user_id, filename, file_hash, file_type, file_size_bytes,
                            storage_uri, status, error_message, page_count, processed_at,
                            attempts, lease_expires_at, created_at, updated_at
                       from documents
                      order by created_at desc, id desc
                      limit $1 offset $2",
                        limit,
                        offset,
                    )
                })
                .await?
            }
            Some(status) => {
                rows::all(self.conn.repeatable(), "documents", || {
                    sqlx::query_as!(
                        Document,
                        "select id, user_id, filename, file_hash, file_type, file_size_bytes,
                            storage_uri, status, error_message, page_count, processed_at,
                            attempts, lease_expires_at, created_at, updated_at
                       from documents
                      where status = $1
                      order by created_at desc, id desc
                      limit $2 offset $3",
                        status.as_str(),
                        limit,
                        offset,
                    )
                })
                .await?
            }
        })
    }

    /// A page of all documents, or of those of one status, newest first.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a size outside of 1 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE).
    pub async fn page_documents(
        self,
        status: Option<DocumentStatus>,
        page: PageRequest,
    ) -> Result<Page<Document>> {
        let list = match status {
            None => List::new("documents"),
            Some(status) => List::by("documents of a status", status.as_str()),
        };
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place(list)?;
        let items = match status {
            None => {
                rows::listed(self.conn.repeatable(), "documents", Some("created_at"), || {
                    sqlx::query_as!(
                        Document,
                        "select id, user_id, filename, file_hash, file_type, file_size_bytes,
                            storage_uri, status, error_message, page_count, processed_at,
                            attempts, lease_expires_at, created_at, updated_at
                       from documents
                      where (created_at, id) <
                            (coalesce($1::timestamptz, 'infinity'),
                             coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
                      order by created_at desc, id desc
                      limit $3",
                        before,
                        before_id,
                        rows,
                    )
                })
                .await?
            }
            Some(status) => {
                rows::listed(self.conn.repeatable(), "documents", Some("created_at"), || {
                    sqlx::query_as!(
                        Document,
                        "select id, user_id, filename, file_hash, file_type, file_size_bytes,
                            storage_uri, status, error_message, page_count, processed_at,
                            attempts, lease_expires_at, created_at, updated_at
                       from documents
                      where status = $1
                        and (created_at, id) <
                            (coalesce($2::timestamptz, 'infinity'),
                             coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
                      order by created_at desc, id desc
                      limit $4",
                        status.as_str(),
                        before,
                        before_id,
                        rows,
                    )
                })
                .await?
            }
        };
        Ok(Page::new(&page, list, items, |d| (d.created_at, d.id.as_uuid())))
    }

    /// A user's documents, newest first.
    ///
    /// # Errors
    ///
    /// As [`list_documents`](Self::list_documents).
    pub async fn list_by_user(
        self,
        user_id: UserId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Document>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        rows::all(self.conn.repeatable(), "documents", || {
            sqlx::query_as!(
                Document,
                "select id, user_id, filename, file_hash, file_type, file_size_bytes, storage_uri,
                    status, error_message, page_count, processed_at, attempts, lease_expires_at,
                    created_at, updated_at
               from documents
              where user_id = $1
              order by created_at desc, id desc
              limit $2 offset $3",
                user_id.as_uuid(),
                limit,
                offset,
            )
        })
        .await
    }

    /// A page of a user's documents, newest first.
    ///
    /// # Errors
    ///
    /// As [`page_documents`](Self::page_documents).
    pub async fn page_by_user(self, user_id: UserId, page: PageRequest) -> Result<Page<Document>> {
        let list = List::by("documents of a user", user_id.as_uuid());
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place(list)?;
        let items = rows::listed(self.conn.repeatable(), "documents", Some("created_at"), || {
            sqlx::query_as!(
                Document,
                "select id, user_id, filename, file_hash, file_type, file_size_bytes, storage_uri,
                    status, error_message, page_count, processed_at, attempts, lease_expires_at,
                    created_at, updated_at
               from documents
              where user_id = $1
                and (created_at, id) < (coalesce($2::timestamptz, 'infinity'),
                                        coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
              order by created_at desc, id desc
              limit $4",
                user_id.as_uuid(),
                before,
                before_id,
                rows,
            )
        })
        .await?;
        Ok(Page::new(&page, list, items, |d| (d.created_at, d.id.as_uuid())))
    }

    /// The documents that wait, oldest first. To work on them, claim them:
    /// [`claim_pending`](Self::claim_pending).
    ///
    /// # Errors
    ///
    /// As [`list_documents`](Self::list_documents).
    pub async fn list_pending(self, limit: i64) -> Result<Vec<Document>> {
        let (limit, _) = limit_offset(limit, 0)?;
        rows::all(self.conn.repeatable(), "documents", || {
            sqlx::query_as!(
                Document,
                "select id, user_id, filename, file_hash, file_type, file_size_bytes, storage_uri,
                    status, error_message, page_count, processed_at, attempts, lease_expires_at,
                    created_at, updated_at
               from documents
              where status = 'pending'
              order by created_at, id
              limit $1",
                limit,
            )
        })
        .await
    }
}
