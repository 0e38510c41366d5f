//! Source references: where in a document something about a borrower stands.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::borrower::BorrowerId;
use super::document::DocumentId;
use crate::db::id::{debug_fields, id};
use crate::db::page::limit_offset;
use crate::db::{Result, input};
use crate::repositories::{Access, repository};

id!(
    /// Identifies a [`SourceReference`].
    SourceReferenceId
);

/// Where in a document something about a borrower stands.
#[derive(Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct SourceReference {
    /// Its identifier.
    pub id: SourceReferenceId,
    /// Whom it is about.
    pub borrower_id: BorrowerId,
    /// Where it stands.
    pub document_id: DocumentId,
    /// On which page, from 1.
    pub page_number: i32,
    /// In which part of the document.
    pub section: Option<String>,
    /// What it says.
    pub snippet: String,
    /// Where the snippet begins.
    pub char_start: Option<i32>,
    /// Where it ends.
    pub char_end: Option<i32>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

debug_fields!(SourceReference { id, borrower_id, document_id, page_number, created_at });

/// The reference without its borrower, as an array of records holds it.
pub(super) type SourceRow = (
    SourceReferenceId,
    DocumentId,
    i32,
    Option<String>,
    String,
    Option<i32>,
    Option<i32>,
    DateTime<Utc>,
);

impl SourceReference {
    pub(super) fn from_row(borrower_id: BorrowerId, row: SourceRow) -> Self {
        let (id, document_id, page_number, section, snippet, char_start, char_end, created_at) =
            row;
        Self {
            id,
            borrower_id,
            document_id,
            page_number,
            section,
            snippet,
            char_start,
            char_end,
            created_at,
        }
    }
}

/// A reference to be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct NewSourceReference {
    /// Where it stands.
    pub document_id: DocumentId,
    /// From 1.
    pub page_number: i32,
    /// At most 100 characters.
    pub section: Option<String>,
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub snippet: String,
    /// Not negative, and not after `char_end`.
    pub char_start: Option<i32>,
    /// Not negative.
    pub char_end: Option<i32>,
}

debug_fields!(NewSourceReference { document_id, page_number, char_start, char_end });

impl NewSourceReference {
    /// With what every reference has.
    pub fn new(document_id: DocumentId, page_number: i32, snippet: impl Into<String>) -> Self {
        Self {
            document_id,
            page_number,
            section: None,
            snippet: snippet.into(),
            char_start: None,
            char_end: None,
        }
    }

    /// With the part of the document.
    pub fn section(mut self, section: impl Into<String>) -> Self {
        self.section = Some(section.into());
        self
    }

    /// With the place of the snippet.
    pub fn chars(mut self, start: i32, end: i32) -> Self {
        self.char_start = Some(start);
        self.char_end = Some(end);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let most = i64::from(i32::MAX);
        input::range("page_number", self.page_number.into(), 1, most)?;
        input::optional_text("section", self.section.as_deref(), 100)?;
        input::long_text("snippet", &self.snippet)?;
        let end = self.char_end.map_or(most, i64::from);
        input::range("char_end", end, 0, most)?;
        self.char_start.map_or(Ok(()), |start| input::range("char_start", start.into(), 0, end))
    }
}

/// References by column, as `unnest` takes them.
#[derive(Default)]
pub(super) struct SourceColumns {
    pub ids: Vec<Uuid>,
    pub borrower_ids: Vec<Uuid>,
    pub document_ids: Vec<Uuid>,
    pub page_numbers: Vec<i32>,
    pub sections: Vec<Option<String>>,
    pub snippets: Vec<String>,
    pub char_starts: Vec<Option<i32>>,
    pub char_ends: Vec<Option<i32>>,
}

impl SourceColumns {
    pub fn push(&mut self, borrower_id: BorrowerId, new: NewSourceReference) {
        self.ids.push(SourceReferenceId::new().as_uuid());
        self.borrower_ids.push(borrower_id.as_uuid());
        self.document_ids.push(new.document_id.as_uuid());
        self.page_numbers.push(new.page_number);
        self.sections.push(new.section);
        self.snippets.push(new.snippet);
        self.char_starts.push(new.char_start);
        self.char_ends.push(new.char_end);
    }
}

repository!(
    /// Source references: [`Database::source_references`](crate::Database::source_references). They
    /// are stored with their borrower:
    /// [`BorrowerRepository::create`](crate::BorrowerRepository::create).
    SourceReferenceRepository
);

impl<A: Access> SourceReferenceRepository<'_, A> {
    /// What was read out of a document, by page.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list_by_document(
        self,
        document_id: DocumentId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<SourceReference>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        Ok(sqlx::query_as!(
            SourceReference,
            "select id, borrower_id, document_id, page_number, section, snippet, char_start,
                    char_end, created_at
               from source_references
              where document_id = $1
              order by page_number, created_at, id
              limit $2 offset $3",
            document_id.as_uuid(),
            limit,
            offset,
        )
        .fetch_all(self.conn.repeatable())
        .await?)
    }
}
