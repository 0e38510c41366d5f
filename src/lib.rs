#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

// The statements' types are named by this path (sqlx.toml), here as in tests and examples.
extern crate self as chancery;

pub mod db;

pub mod chat;
pub mod content;
pub mod extraction;
pub mod identity;
pub mod intake;
pub mod library;
pub mod settings;
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub mod web;

mod repositories;

pub use chat::{
    Conversation, ConversationId, ConversationOverview, ConversationRepository,
    ConversationSummary, ConversationWithMessages, LastMessage, Message, MessageDraft, MessageId,
    MessageRepository, NewMessage, Role,
};
pub use content::{
    NewTemplate, Template, TemplateId, TemplatePatch, TemplateRepository, TemplateSummary,
    TemplateType,
};
pub use db::{
    AsUser, ConfigError, Conn, Constraint, ConstraintName, Cursor, Database, DatabaseConfig,
    DatabaseConfigBuilder, Denied, DriverError, Error, ErrorKind, Health, HealthStatus,
    InvalidInput, IsolationLevel, MAX_JSON_DEPTH, MAX_PAGE_SIZE, MAX_STATEMENT_BYTES,
    MAX_TEXT_BYTES, MIGRATOR, MigrationError, MigrationState, MigrationStatus, MissingRight,
    Numbered, Page, PageRequest, PaginationParams, Patch, PoolOrder, PoolStatus, PoolTimeout,
    PoolerFault, PoolerMode, ReadToken, Reader, ReaderHealth, Reason, Result, RevertTo, RoleCheck,
    RoleRisk, Savepoint, SchemaDifference, ServerRole, SslMode, Startup, TransactionId,
    TransactionOptions, TransactionOutcome, UnitOfWork, UnreadableRow,
};
pub use extraction::{
    ClaimedJob, Due, ExtractionJob, ExtractionJobId, ExtractionJobPatch, ExtractionJobRepository,
    ExtractionJobSummary, JobCounts, JobError, JobLease, JobListener, JobStatus, NewExtractionJob,
    NewProject, Project, ProjectId, ProjectPatch, ProjectRepository, RetryPolicy, Worker,
    WorkerOptions,
};
pub use identity::{
    NewUser, NewUserPreferences, PasswordHash, Session, SessionId, SessionRepository, SessionToken,
    SummaryLength, TokenHash, UpdateFrequency, User, UserId, UserPatch, UserPreferences,
    UserPreferencesId, UserPreferencesPatch, UserPreferencesRepository, UserRepository,
};
pub use intake::{
    Account, AccountId, AccountNumber, Borrower, BorrowerId, BorrowerRepository,
    BorrowerWithRecords, ClaimedDocument, Document, DocumentClaim, DocumentId, DocumentRepository,
    DocumentStatus, FileHash, IncomeByYear, IncomeRecord, IncomeRecordId, IncomeRecordRepository,
    NewAccount, NewBorrower, NewDocument, NewIncomeRecord, NewRecords, NewSourceReference,
    SourceReference, SourceReferenceId, SourceReferenceRepository, SsnHash, StoredDocument,
};
pub use library::{
    Chunk, ChunkDraft, ChunkId, ChunkRepository, NewChunk, NewTranscript, ReplacedChunks,
    Transcript, TranscriptId, TranscriptPatch, TranscriptRepository, TranscriptSummary,
    TranscriptWithChunkCount, TranscriptWithChunks,
};
pub use repositories::{Access, FromJson, ReadOnly, ReadWrite};
pub use settings::{ConfigEntry, ConfigRepository};
