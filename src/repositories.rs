//! Every repository by name, on the database (autocommit) and on a unit of work.

use crate::chat::{ConversationRepository, MessageRepository};
use crate::content::TemplateRepository;
use crate::db::{Database, UnitOfWork};
use crate::identity::{SessionRepository, UserRepository};
use crate::intake::{
    BorrowerRepository, DocumentRepository, IncomeRecordRepository, SourceReferenceRepository,
};
use crate::library::{ChunkRepository, TranscriptRepository};
use crate::settings::ConfigRepository;

macro_rules! repositories {
    ($($(#[$doc:meta])* $name:ident: $repository:ident,)+) => {
        /// The repositories, each of whose statements commits by itself.
        impl Database {
            $($(#[$doc])*
            pub fn $name(&self) -> $repository<'_> {
                $repository::new(self.executor())
            })+
        }

        /// The repositories, whose statements commit together.
        impl UnitOfWork {
            $($(#[$doc])*
            pub fn $name(&mut self) -> $repository<'_> {
                $repository::new(self.executor())
            })+
        }
    };
}

repositories! {
    /// Accounts.
    users: UserRepository,
    /// Signed-in sessions.
    sessions: SessionRepository,
    /// Conversations.
    conversations: ConversationRepository,
    /// Their messages.
    messages: MessageRepository,
    /// Transcripts of videos.
    transcripts: TranscriptRepository,
    /// The pieces that they are cut into.
    chunks: ChunkRepository,
    /// Texts to fill in.
    templates: TemplateRepository,
    /// The application's settings.
    config: ConfigRepository,
    /// Loan documents.
    documents: DocumentRepository,
    /// Whom they are about.
    borrowers: BorrowerRepository,
    /// What those earned.
    income_records: IncomeRecordRepository,
    /// Where all of that stands.
    source_references: SourceReferenceRepository,
}

/// Declares a repository: a connection source with statements on it.
macro_rules! repository {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<'c> {
            conn: $crate::db::Conn<'c>,
        }

        impl<'c> $name<'c> {
            /// On a connection source: [`Database::executor`](crate::Database::executor) or
            /// [`UnitOfWork::executor`](crate::UnitOfWork::executor).
            pub fn new(conn: $crate::db::Conn<'c>) -> Self {
                Self { conn }
            }
        }
    };
}

pub(crate) use repository;
