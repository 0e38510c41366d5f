//! The schema's constraints by name, so that callers match on a value and not on text.

use std::fmt;

macro_rules! constraints {
    ($($variant:ident = $name:literal,)+) => {
        /// A named constraint or unique index of the schema.
        ///
        /// The list is compared with the database's catalogue, both ways, by a test.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Constraint {
            $(#[doc = concat!("`", $name, "`")] $variant,)+
            /// A constraint of the application's own, by its name; empty where the server names none.
            Other(ConstraintName),
        }

        impl Constraint {
            /// All that the schema has.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the constraint's name in the database.
            ///
            /// ```
            /// use chancery::{Constraint, Error};
            ///
            /// fn is_known_invoice(error: &Error) -> bool {
            ///     error.constraint().is_some_and(|c| c.name() == "invoices_number_key")
            /// }
            /// # assert!(!is_known_invoice(&Error::Conflict(Constraint::UsersEmailKey)));
            /// ```
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)+
                    Self::Other(name) => name.as_str(),
                }
            }

            fn known(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    // Which of the two keys of an address refuses it first is the server's to choose.
                    "users_email_exact_key" => Some(Self::UsersEmailKey),
                    _ => None,
                }
            }
        }
    };
}

impl Constraint {
    pub(crate) fn from_name(name: &str) -> Self {
        Self::known(name)
            .or_else(|| Self::known(&of_a_partition(name)?))
            .unwrap_or_else(|| Self::Other(ConstraintName::new(name)))
    }

    /// Whether the constraint is one of this crate's schema.
    pub(crate) fn is_of_this_schema(&self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

/// The longest name that PostgreSQL keeps, in bytes.
const MAX_NAME: usize = 63;

/// The name of a constraint that this crate does not know. It is held in place, so that
/// [`Constraint`] stays a plain value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConstraintName {
    // Padded with zeros, which no name contains.
    bytes: [u8; MAX_NAME],
    len: u8,
}

impl ConstraintName {
    fn new(name: &str) -> Self {
        let len = name.floor_char_boundary(MAX_NAME);
        let mut bytes = [0; MAX_NAME];
        bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
        Self { bytes, len: len as u8 }
    }

    /// Returns the name; empty where the server named none.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Debug for ConstraintName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// The key of the whole table, of a partition's that was broken: `messages_p7_pkey` is of `messages`.
fn of_a_partition(name: &str) -> Option<String> {
    let (table, rest) = name.split_once("_p")?;
    let key = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    (key.len() < rest.len() && key.starts_with('_')).then(|| format!("{table}{key}"))
}

constraints! {
    UsersPkey = "users_pkey",
    UsersEmailKey = "users_email_key",
    UsersEmailCheck = "users_email_check",
    UsersTimesCheck = "users_times_check",
    UsersDateOfBirthCheck = "users_date_of_birth_check",
    UserPreferencesPkey = "user_preferences_pkey",
    UserPreferencesUserIdKey = "user_preferences_user_id_key",
    UserPreferencesUserIdFkey = "user_preferences_user_id_fkey",
    UserPreferencesUpdateFrequencyCheck = "user_preferences_update_frequency_check",
    UserPreferencesSummaryLengthCheck = "user_preferences_summary_length_check",
    UserPreferencesTimesCheck = "user_preferences_times_check",
    SessionsPkey = "sessions_pkey",
    SessionsTokenHashKey = "sessions_token_hash_key",
    SessionsUserIdFkey = "sessions_user_id_fkey",
    SessionsAbsoluteExpiresAtCheck = "sessions_absolute_expires_at_check",
    SessionsIdleTimeoutCheck = "sessions_idle_timeout_check",
    SessionsTimesCheck = "sessions_times_check",
    ConversationsPkey = "conversations_pkey",
    ConversationsIdUserIdKey = "conversations_id_user_id_key",
    ConversationsUserIdFkey = "conversations_user_id_fkey",
    ConversationsTimesCheck = "conversations_times_check",
    MessagesPkey = "messages_pkey",
    MessagesConversationIdFkey = "messages_conversation_id_fkey",
    MessagesRoleCheck = "messages_role_check",
    MessagesTimesCheck = "messages_times_check",
    MessagesMetadataCheck = "messages_metadata_check",
    TranscriptsPkey = "transcripts_pkey",
    TranscriptsIdUserIdKey = "transcripts_id_user_id_key",
    TranscriptsUserIdYoutubeVideoIdKey = "transcripts_user_id_youtube_video_id_key",
    TranscriptsUserIdFkey = "transcripts_user_id_fkey",
    TranscriptsDurationCheck = "transcripts_duration_check",
    TranscriptsTimesCheck = "transcripts_times_check",
    TranscriptsMetadataCheck = "transcripts_metadata_check",
    ChunksPkey = "chunks_pkey",
    ChunksTranscriptIdChunkIndexKey = "chunks_transcript_id_chunk_index_key",
    ChunksTranscriptIdFkey = "chunks_transcript_id_fkey",
    ChunksChunkIndexCheck = "chunks_chunk_index_check",
    ChunksTokenCountCheck = "chunks_token_count_check",
    ChunksTimesCheck = "chunks_times_check",
    ChunksMetadataCheck = "chunks_metadata_check",
    TemplatesPkey = "templates_pkey",
    TemplatesUserIdTemplateTypeTemplateNameKey = "templates_user_id_template_type_template_name_key",
    TemplatesUserIdFkey = "templates_user_id_fkey",
    TemplatesTemplateTypeCheck = "templates_template_type_check",
    TemplatesTimesCheck = "templates_times_check",
    TemplatesVariablesCheck = "templates_variables_check",
    ConfigPkey = "config_pkey",
    ConfigTimesCheck = "config_times_check",
    ConfigValueCheck = "config_value_check",
    DocumentsPkey = "documents_pkey",
    DocumentsFileHashUserIdKey = "documents_file_hash_user_id_key",
    DocumentsUserIdFkey = "documents_user_id_fkey",
    DocumentsStatusCheck = "documents_status_check",
    DocumentsFileSizeBytesCheck = "documents_file_size_bytes_check",
    DocumentsPageCountCheck = "documents_page_count_check",
    DocumentsAttemptsCheck = "documents_attempts_check",
    DocumentsLeaseCheck = "documents_lease_check",
    DocumentsTimesCheck = "documents_times_check",
    BorrowersPkey = "borrowers_pkey",
    BorrowersUserIdFkey = "borrowers_user_id_fkey",
    BorrowersConfidenceScoreCheck = "borrowers_confidence_score_check",
    BorrowersTimesCheck = "borrowers_times_check",
    BorrowersAddressCheck = "borrowers_address_check",
    IncomeRecordsPkey = "income_records_pkey",
    IncomeRecordsBorrowerIdFkey = "income_records_borrower_id_fkey",
    IncomeRecordsAmountCheck = "income_records_amount_check",
    IncomeRecordsTimesCheck = "income_records_times_check",
    AccountNumbersPkey = "account_numbers_pkey",
    AccountNumbersBorrowerIdFkey = "account_numbers_borrower_id_fkey",
    AccountNumbersTimesCheck = "account_numbers_times_check",
    SourceReferencesPkey = "source_references_pkey",
    SourceReferencesBorrowerIdFkey = "source_references_borrower_id_fkey",
    SourceReferencesDocumentIdFkey = "source_references_document_id_fkey",
    SourceReferencesPageNumberCheck = "source_references_page_number_check",
    SourceReferencesCharRangeCheck = "source_references_char_range_check",
    SourceReferencesTimesCheck = "source_references_times_check",
    ProjectsPkey = "projects_pkey",
    ProjectsUserIdFkey = "projects_user_id_fkey",
    ProjectsTimesCheck = "projects_times_check",
    ExtractionJobsPkey = "extraction_jobs_pkey",
    ExtractionJobsProjectIdFkey = "extraction_jobs_project_id_fkey",
    ExtractionJobsStatusCheck = "extraction_jobs_status_check",
    ExtractionJobsAttemptsCheck = "extraction_jobs_attempts_check",
    ExtractionJobsLeaseCheck = "extraction_jobs_lease_check",
    ExtractionJobsTimesCheck = "extraction_jobs_times_check",
    ExtractionJobsResultDataCheck = "extraction_jobs_result_data_check",
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.name() {
            "" => "(unnamed)",
            name => name,
        })
    }
}
