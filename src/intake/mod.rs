//! Loan documents: uploaded, worked through by several workers, and what was read out of them.

mod account_number;
mod borrower;
mod document;
mod file_hash;
mod income_record;
mod source_reference;

pub use account_number::{Account, AccountId, AccountNumber, NewAccount};
pub use borrower::{
    Borrower, BorrowerId, BorrowerRepository, BorrowerWithRecords, NewBorrower, NewRecords, SsnHash,
};
pub use document::{
    ClaimedDocument, Document, DocumentClaim, DocumentId, DocumentRepository, DocumentStatus,
    NewDocument, StoredDocument,
};
pub use file_hash::FileHash;
pub use income_record::{
    IncomeByYear, IncomeRecord, IncomeRecordId, IncomeRecordRepository, NewIncomeRecord,
};
pub use source_reference::{
    NewSourceReference, SourceReference, SourceReferenceId, SourceReferenceRepository,
};
