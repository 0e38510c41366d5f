//! What the plans may do all the same, and the indexes that no statement needs.

/// Method, what its plan does, and why that is accepted.
pub const ACCEPTED: &[(&str, &str, &str)] = &[
    (
        "BorrowerRepository::get_with_records",
        "sorts by created_at, id",
        "one borrower's records, all of which are returned",
    ),
    ("BorrowerRepository::list_by_document", "sorts by name, id", "the borrowers of one document"),
    (
        "BorrowerRepository::list_by_ssn_hash",
        "sorts by created_at, id",
        "one person, as often as documents told of them",
    ),
    (
        "BorrowerRepository::search_by_account_number",
        "sorts by name, id",
        "what was found, by name as the specification lists it",
    ),
    (
        "BorrowerRepository::search_by_name",
        "sorts by name, id",
        "what was found, by name as the specification lists it",
    ),
    (
        "ChunkRepository::list_by_metadata",
        "sorts by created_at, id",
        "one user's chunks that match",
    ),
    (
        "DocumentRepository::claim_pending",
        "reads all of documents_claimable_idx",
        "it holds only documents that wait or are at work, and the limit ends it",
    ),
    ("DocumentRepository::count", "reads all of documents", "it counts all documents"),
    (
        "DocumentRepository::list_pending",
        "reads all of documents_claimable_idx",
        "it holds only documents that wait or are at work, and the limit ends it",
    ),
    (
        "IncomeRecordRepository::list_by_borrower",
        "sorts by year DESC, created_at, id",
        "one borrower's incomes",
    ),
    (
        "MessageRepository::list_by_metadata",
        "sorts by created_at DESC, id DESC",
        "the messages that match",
    ),
    ("ProjectRepository::count", "reads all of projects", "it counts all projects"),
    ("SessionRepository::list_by_user", "sorts by created_at DESC, id DESC", "one user's sessions"),
    (
        "SourceReferenceRepository::list_by_document",
        "sorts by page_number, created_at, id",
        "the references to one document",
    ),
    (
        "TemplateRepository::get_template",
        "sorts by is_default DESC, updated_at DESC, id DESC",
        "one user's templates of one type",
    ),
    (
        "TemplateRepository::get_template",
        "sorts by updated_at DESC, id DESC",
        "the application's own templates of one type",
    ),
    (
        "TemplateRepository::list_defaults",
        "sorts by user_id NULLS FIRST, id",
        "the defaults of one type, of which a user has few",
    ),
    (
        "TranscriptRepository::list_by_video",
        "sorts by created_at, id",
        "one video, as often as users loaded it",
    ),
];

/// Index, and why it exists although no statement needs it.
pub const KEPT: &[(&str, &str)] = &[
    ("account_numbers_pkey", KEY),
    ("income_records_pkey", KEY),
    ("source_references_pkey", KEY),
    ("user_preferences_pkey", KEY),
    (
        "users_email_exact_key",
        "the specification's unique address: other programs' `where email = $1` and `on conflict (email)`",
    ),
    ("conversations_pkey", "the primary key; conversations_id_user_id_key could serve its reads"),
    ("conversations_id_user_id_key", "messages_conversation_id_fkey refers to it"),
    ("transcripts_pkey", "the primary key; transcripts_id_user_id_key could serve its reads"),
    ("transcripts_id_user_id_key", "chunks_transcript_id_fkey refers to it"),
    (
        "transcripts_user_id_youtube_video_id_key",
        "one row for a user's video; transcripts_youtube_video_id_idx could serve its reads",
    ),
    (
        "chunks_metadata_idx",
        "the specification names it; the index by user could serve list_by_metadata",
    ),
    (
        "messages_metadata_idx",
        "the specification names it; the index by user could serve list_by_metadata",
    ),
    (
        "transcripts_metadata_idx",
        "the specification names it; transcripts_user_id_created_at_idx could serve list_by_metadata",
    ),
];

const KEY: &str = "the primary key: replication and other programs tell rows by it";
