//! Documents: known by their content, from upload to the end of the work on them.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::file_hash::FileHash;
use crate::db::id::{debug_fields, id, text_enum};
use crate::db::{Error, Result, input, rows};
use crate::identity::UserId;
use crate::repositories::{Access, repository};

mod claim;
mod list;

pub use claim::{ClaimedDocument, DocumentClaim};

id!(
    /// Identifies a [`Document`].
    DocumentId
);

text_enum!(
    /// How far the work on a document has come.
    DocumentStatus {
        /// It waits.
        Pending = "pending",
        /// Somebody works on it.
        Processing = "processing",
        /// It is done.
        Completed = "completed",
        /// It can't be done; see [`Document::error_message`].
        Failed = "failed",
    }
);

/// An uploaded document. The file itself is elsewhere.
#[derive(Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct Document {
    /// Its identifier.
    pub id: DocumentId,
    /// Whose it is; none: nobody's.
    pub user_id: Option<UserId>,
    /// What the file was called.
    pub filename: String,
    /// What tells its content; an owner has it once, and so has nobody.
    pub file_hash: FileHash,
    /// What kind of file it is: `pdf`, `docx`, …
    pub file_type: String,
    /// Its size, in bytes.
    pub file_size_bytes: i64,
    /// Where the file is.
    pub storage_uri: Option<String>,
    /// How far the work on it has come.
    pub status: DocumentStatus,
    /// Why it failed.
    pub error_message: Option<String>,
    /// How many pages it has, once known.
    pub page_count: Option<i32>,
    /// When it was completed or failed.
    pub processed_at: Option<DateTime<Utc>>,
    /// How often a worker has claimed it.
    pub attempts: i32,
    /// Until when a worker's claim holds; none when nobody's does.
    pub lease_expires_at: Option<DateTime<Utc>>,
    /// When it was uploaded.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

debug_fields!(Document {
    id,
    user_id,
    file_size_bytes,
    status,
    page_count,
    processed_at,
    attempts,
    lease_expires_at,
    created_at,
    updated_at
});

/// What [`DocumentRepository::create_or_get`] found or made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoredDocument {
    /// The owner's document with this content.
    pub document: Document,
    /// Whether this call made it.
    pub created: bool,
}

/// A document to be made: it is [`Pending`](DocumentStatus::Pending).
#[derive(Clone, PartialEq, Eq)]
pub struct NewDocument {
    /// None, unless said: nobody's.
    pub user_id: Option<UserId>,
    /// 1 to 255 characters.
    pub filename: String,
    /// What tells its content.
    pub file_hash: FileHash,
    /// 1 to 10 characters.
    pub file_type: String,
    /// Not negative.
    pub file_size_bytes: i64,
    /// At most 500 characters.
    pub storage_uri: Option<String>,
}

debug_fields!(NewDocument { user_id, file_size_bytes });

impl NewDocument {
    /// With what every document has.
    pub fn new(
        filename: impl Into<String>,
        file_hash: FileHash,
        file_type: impl Into<String>,
        file_size_bytes: i64,
    ) -> Self {
        Self {
            user_id: None,
            filename: filename.into(),
            file_hash,
            file_type: file_type.into(),
            file_size_bytes,
            storage_uri: None,
        }
    }

    /// With an owner.
    pub fn user_id(mut self, owner: UserId) -> Self {
        self.user_id = Some(owner);
        self
    }

    /// With the place where the file is.
    pub fn storage_uri(mut self, uri: impl Into<String>) -> Self {
        self.storage_uri = Some(uri.into());
        self
    }

    fn check(&self) -> Result<()> {
        input::name("filename", &self.filename, 255)?;
        input::name("file_type", &self.file_type, 10)?;
        input::range("file_size_bytes", self.file_size_bytes, 0, i64::MAX)?;
        input::optional_text("storage_uri", self.storage_uri.as_deref(), 500)
    }
}

fn check_page_count(pages: Option<i32>) -> Result<()> {
    pages.map_or(Ok(()), |n| input::range("page_count", n.into(), 0, i32::MAX.into()))
}

repository!(
    /// Documents: [`Database::documents`](crate::Database::documents).
    ///
    /// Upload a file once, and let any number of workers share the work:
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use chancery::{Database, Document, FileHash, NewBorrower, NewDocument};
    ///
    /// # async fn read_out(document: &Document) -> Vec<NewBorrower> { vec![] }
    /// # async fn example(db: Database, digest: [u8; 32]) -> chancery::Result<()> {
    /// let new = NewDocument::new("w2.pdf", FileHash::from(digest), "pdf", 48_213);
    /// let upload = db.documents().create_or_get(new).await?;
    /// if !upload.created {
    ///     println!("known since {}", upload.document.created_at);
    /// }
    ///
    /// // In each worker:
    /// for claimed in db.documents().claim_pending(10, Duration::from_secs(300)).await? {
    ///     let borrowers = read_out(&claimed.document).await;
    ///     // Stored together, and only if no other worker has taken the document over.
    ///     let claim = claimed.claim;
    ///     db.transaction(async move |uow| {
    ///         uow.documents().complete(&claim, Some(3)).await?;
    ///         uow.borrowers().create_many(borrowers).await
    ///     })
    ///     .await?;
    /// }
    /// # Ok(()) }
    /// ```
    DocumentRepository
);

impl DocumentRepository<'_> {
    /// Makes a document.
    ///
    /// # Errors
    ///
    /// [`Conflict`](Error::Conflict) with
    /// [`DocumentsFileHashUserIdKey`](crate::Constraint::DocumentsFileHashUserIdKey) when its owner, or
    /// nobody, has one with this content; [`ForeignKey`](Error::ForeignKey) when there is no such user;
    /// [`InvalidInput`](Error::InvalidInput).
    pub async fn create(self, new: NewDocument) -> Result<Document> {
        new.check()?;
        Ok(sqlx::query_as!(
            Document,
            "insert into documents (id, user_id, filename, file_hash, file_type, file_size_bytes,
                                    storage_uri)
             values ($1, $2, $3, $4, $5, $6, $7)
             returning id, user_id, filename, file_hash, file_type, file_size_bytes, storage_uri,
                       status, error_message, page_count, processed_at, attempts,
                       lease_expires_at, created_at, updated_at",
            DocumentId::new().as_uuid(),
            new.user_id.map(|id| id.as_uuid()),
            new.filename,
            new.file_hash.as_str(),
            new.file_type,
            new.file_size_bytes,
            new.storage_uri,
        )
        .fetch_one(self.conn)
        .await?)
    }

    /// Returns the owner's document with this content, or nobody's if it has no owner; makes it if there is
    /// none: the first one, also when several are made at once. One statement; it changes nothing of a
    /// document that is there. What others have of this content plays no part.
    ///
    /// # Errors
    ///
    /// [`ForeignKey`](Error::ForeignKey) when it is to be made and there is no such user;
    /// [`InvalidInput`](Error::InvalidInput). In a transaction of a higher isolation level than the
    /// default, [`SerializationFailure`](Error::SerializationFailure) when another made it meanwhile.
    pub async fn create_or_get(self, new: NewDocument) -> Result<StoredDocument> {
        new.check()?;
        let id = DocumentId::new();
        // Two look-ups, of which one is empty: each is one entry of the key, however many share the content.
        // A known document is only read. `do nothing` would return no row for one that was committed
        // after this statement's snapshot; `do update` returns it, at the cost of a lock and a row
        // version, but only when two create it at once. updated_at stays: the trigger passes over an
        // update that changes nothing.
        let document = sqlx::query_as!(
            Document,
            r#"with known as (
                   select id, user_id, filename, file_hash, file_type, file_size_bytes,
                          storage_uri, status, error_message, page_count, processed_at, attempts,
                          lease_expires_at, created_at, updated_at
                     from documents
                    where id = (
                        select id from documents where file_hash = $4 and user_id = $2
                        union all
                        select id from documents
                         where file_hash = $4 and user_id is null and $2::uuid is null)
               ), stored as (
                   insert into documents as d (id, user_id, filename, file_hash, file_type,
                                               file_size_bytes, storage_uri)
                   select $1, $2, $3, $4, $5, $6, $7
                    where not exists (select from known)
                   on conflict (file_hash, user_id) do update set file_hash = d.file_hash
                   returning id, user_id, filename, file_hash, file_type, file_size_bytes,
                             storage_uri, status, error_message, page_count, processed_at,
                             attempts, lease_expires_at, created_at, updated_at
               )
               select id as "id!: DocumentId", user_id as "user_id: UserId",
                      filename as "filename!", file_hash as "file_hash!: FileHash",
                      file_type as "file_type!", file_size_bytes as "file_size_bytes!",
                      storage_uri, status as "status!: DocumentStatus", error_message, page_count,
                      processed_at, attempts as "attempts!", lease_expires_at,
                      created_at as "created_at!", updated_at as "updated_at!"
                 from (table known union all table stored) document"#,
            id.as_uuid(),
            new.user_id.map(|id| id.as_uuid()),
            new.filename,
            new.file_hash.as_str(),
            new.file_type,
            new.file_size_bytes,
            new.storage_uri,
        )
        .fetch_one(self.conn)
        .await?;
        Ok(StoredDocument { created: document.id == id, document })
    }
}

impl<A: Access> DocumentRepository<'_, A> {
    /// The document with this identifier.
    pub async fn get_by_id(self, id: DocumentId) -> Result<Option<Document>> {
        rows::one(self.conn.repeatable(), "documents", || {
            sqlx::query_as!(
                Document,
                "select id, user_id, filename, file_hash, file_type, file_size_bytes, storage_uri,
                    status, error_message, page_count, processed_at, attempts, lease_expires_at,
                    created_at, updated_at
               from documents
              where id = $1",
                id.as_uuid(),
            )
        })
        .await
    }

    /// Returns the document with this content: nobody's if there is one, and else that of one of its owners;
    /// through [`as_user`](crate::Database::as_user) the user's. For a service without users there is one.
    ///
    /// [`get_by_user_and_hash`](Self::get_by_user_and_hash) asks for one owner's.
    pub async fn get_by_hash(self, file_hash: &FileHash) -> Result<Option<Document>> {
        rows::one(self.conn.repeatable(), "documents", || {
            sqlx::query_as!(
                Document,
                "select id, user_id, filename, file_hash, file_type, file_size_bytes, storage_uri,
                    status, error_message, page_count, processed_at, attempts, lease_expires_at,
                    created_at, updated_at
               from documents
              where file_hash = $1
              order by user_id desc nulls first
              limit 1",
                file_hash.as_str(),
            )
        })
        .await
    }

    /// Returns a user's document with this content, or nobody's.
    pub async fn get_by_user_and_hash(
        self,
        user_id: Option<UserId>,
        file_hash: &FileHash,
    ) -> Result<Option<Document>> {
        rows::one(self.conn.repeatable(), "documents", || {
            sqlx::query_as!(
                Document,
                "select id, user_id, filename, file_hash, file_type, file_size_bytes, storage_uri,
                    status, error_message, page_count, processed_at, attempts, lease_expires_at,
                    created_at, updated_at
               from documents
              where id = (
                  select id from documents where file_hash = $2 and user_id = $1
                  union all
                  select id from documents
                   where file_hash = $2 and user_id is null and $1::uuid is null)",
                user_id.map(|id| id.as_uuid()),
                file_hash.as_str(),
            )
        })
        .await
    }
}

impl DocumentRepository<'_> {
    /// Sets the status, whatever it was, and ends a worker's claim: it can't complete the document
    /// any more. A worker that has a claim calls [`complete`](Self::complete) or
    /// [`fail`](Self::fail) instead.
    ///
    /// * `error_message` replaces what was there; none removes it.
    /// * `page_count`: none keeps what was there.
    /// * `processed_at` becomes now, by the database's clock, when the document becomes completed or
    ///   failed; it stays when the document was so already, and is removed otherwise.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound); [`InvalidInput`](Error::InvalidInput).
    pub async fn update_status(
        self,
        id: DocumentId,
        status: DocumentStatus,
        error_message: Option<&str>,
        page_count: Option<i32>,
    ) -> Result<Document> {
        error_message.map_or(Ok(()), |text| input::long_text("error_message", text))?;
        check_page_count(page_count)?;
        sqlx::query_as!(
            Document,
            "update documents
                set status = $2::text,
                    error_message = $3,
                    page_count = coalesce($4, page_count),
                    processed_at = case
                        when $2::text not in ('completed', 'failed') then null
                        when status = $2::text then coalesce(processed_at, now())
                        else now()
                    end,
                    lease_token = null,
                    lease_expires_at = null
              where id = $1
             returning id, user_id, filename, file_hash, file_type, file_size_bytes, storage_uri,
                       status, error_message, page_count, processed_at, attempts,
                       lease_expires_at, created_at, updated_at",
            id.as_uuid(),
            status.as_str(),
            error_message,
            page_count,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(Error::NotFound("document"))
    }
}

impl<A: Access> DocumentRepository<'_, A> {
    /// How many documents there are, or how many of one status.
    pub async fn count(self, status: Option<DocumentStatus>) -> Result<i64> {
        Ok(match status {
            None => {
                sqlx::query_scalar!(r#"select count(*) as "count!" from documents"#)
                    .fetch_one(self.conn.repeatable())
                    .await?
            }
            Some(status) => {
                sqlx::query_scalar!(
                    r#"select count(*) as "count!" from documents where status = $1"#,
                    status.as_str(),
                )
                .fetch_one(self.conn.repeatable())
                .await?
            }
        })
    }
}

impl DocumentRepository<'_> {
    /// Deletes a document, with its source references and the borrowers that are known only from it.
    /// Says whether there was one.
    ///
    /// Those that another document knows stay, also one that is stored at the same time. Deleted in
    /// another way (with its owner, or by another program), a document leaves its borrowers.
    pub async fn delete(self, id: DocumentId) -> Result<bool> {
        Ok(sqlx::query_scalar!(r#"select delete_document($1) as "deleted!""#, id.as_uuid())
            .fetch_one(self.conn)
            .await?)
    }
}
