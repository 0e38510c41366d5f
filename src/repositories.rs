//! Every repository by name, on the database (autocommit) and on a unit of work.

use crate::chat::{ConversationRepository, MessageRepository};
use crate::content::TemplateRepository;
use crate::db::{AsUser, Database, Reader, UnitOfWork};
use crate::extraction::{ExtractionJobRepository, ProjectRepository};
use crate::identity::{SessionRepository, UserId, UserPreferencesRepository, UserRepository};
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
            #[track_caller]
            pub fn $name(&self) -> $repository<'_> {
                $repository::new(self.executor())
            })+
        }

        /// The repositories, each of whose statements is a transaction of this user's.
        impl<'d> AsUser<'d> {
            $($(#[$doc])*
            #[track_caller]
            pub fn $name(self) -> $repository<'d> {
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

        /// The repositories, for reading.
        impl<'d> Reader<'d> {
            $($(#[$doc])*
            #[track_caller]
            pub fn $name(self) -> $repository<'d, ReadOnly> {
                $repository::new(self.executor()).read_only()
            })+
        }
    };
}

repositories! {
    /// Accounts.
    users: UserRepository,
    /// What users want of the digest.
    user_preferences: UserPreferencesRepository,
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
    /// Projects.
    projects: ProjectRepository,
    /// Their extraction jobs, and the queue that these are.
    extraction_jobs: ExtractionJobRepository,
}

impl Database {
    /// The database as this user sees it: what belongs to others is not there.
    ///
    /// Without it, a [`Database`] is the service's: it sees everything. That is for signing up and
    /// signing in, for jobs, and for what an administrator does.
    pub fn as_user(&self, user_id: UserId) -> AsUser<'_> {
        AsUser::new(self, user_id.as_uuid())
    }
}

/// What a repository may do: [`ReadWrite`], unless said otherwise, or [`ReadOnly`].
///
/// A read-only repository has the methods that read:
///
/// ```
/// # async fn example(db: chancery::Database) -> chancery::Result<()> {
/// let users = db.users().read_only();
/// users.get_by_email("ada@example.org").await?;
/// # Ok(()) }
/// ```
///
/// and no others; this does not compile:
///
/// ```compile_fail,E0599
/// # async fn example(db: chancery::Database) -> chancery::Result<()> {
/// let users = db.users().read_only();
/// users.create(chancery::NewUser::new("ada@example.org")).await?;
/// # Ok(()) }
/// ```
pub trait Access: sealed::Access {}

/// Reads and writes.
#[derive(Debug, Clone, Copy)]
pub enum ReadWrite {}

/// Only reads: nothing that is called changes a row.
#[derive(Debug, Clone, Copy)]
pub enum ReadOnly {}

impl Access for ReadWrite {}
impl Access for ReadOnly {}

mod sealed {
    pub trait Access {}
    impl Access for super::ReadWrite {}
    impl Access for super::ReadOnly {}
}

/// What a JSON column can be read as: a type of the application's that derives
/// [`Deserialize`](serde::Deserialize), `Box<`[`RawValue`](serde_json::value::RawValue)`>` for the text
/// as it comes, or [`Value`](serde_json::Value), which is what repositories read it as unless said.
///
/// ```
/// # use chancery::{ConversationId, Database};
/// #[derive(serde::Deserialize)]
/// struct Cited {
///     chunk_ids: Vec<chancery::ChunkId>,
/// }
///
/// # async fn example(db: Database, id: ConversationId) -> chancery::Result<()> {
/// for message in db.messages().json_as::<Cited>().get_last_n(id, 20).await? {
///     println!("{} cites {} chunks", message.id, message.metadata.chunk_ids.len());
/// }
/// # Ok(()) }
/// ```
///
/// A row whose document is not such a type is [`Error::Unreadable`](crate::Error::Unreadable) where it is
/// asked for by its key, and an error in its place in a stream. Lists leave it out and tell it in the log;
/// when that leaves none, it is the error.
/// Reading 1,000 chunks, a third of the client's time goes into building `Value`s.
pub trait FromJson: serde::de::DeserializeOwned + Send + Unpin + 'static {}

impl<T: serde::de::DeserializeOwned + Send + Unpin + 'static> FromJson for T {}

/// A JSON column of a statement whose row is a type that the macro makes: such a type knows no `J`.
pub(crate) fn json_column<J: FromJson>(
    column: &str,
    text: &serde_json::value::RawValue,
) -> Result<J, sqlx::Error> {
    serde_json::from_str(text.get()).map_err(|error| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: error.into(),
    })
}

/// Takes a row's JSON out of the wrapper that the driver reads it by.
macro_rules! of_row {
    ($name:ident { $($field:ident),+ $(,)? } $json:ident) => {
        impl<J> $name<J> {
            pub(crate) fn of_row(row: $name<sqlx::types::Json<J>>) -> Self {
                Self { $($field: row.$field,)+ $json: row.$json.0 }
            }
        }
    };
}

/// Declares a repository: a connection source with statements on it.
///
/// The methods that read stand in `impl<A: Access> Repository<'_, A>`, those that write in
/// `impl Repository<'_>`. Those that read say so once more, by running their statement on
/// `self.conn.repeatable()`: when the connection breaks, it is sent again. `Repository<J>` declares one whose
/// table has a JSON column: its methods that read give it as `J`, in
/// `impl<A: Access, J: FromJson> Repository<'_, A, J>`.
macro_rules! repository {
    ($(#[$doc:meta])* $name:ident $(<$json:ident>)?) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<'c, A = $crate::ReadWrite $(, $json = serde_json::Value)?> {
            pub(super) conn: $crate::db::Conn<'c>,
            access: std::marker::PhantomData<fn() -> (A, $($json)?)>,
        }

        impl<'c> $name<'c> {
            /// On a connection source: [`Database::executor`](crate::Database::executor) or
            /// [`UnitOfWork::executor`](crate::UnitOfWork::executor).
            pub fn new(conn: $crate::db::Conn<'c>) -> Self {
                Self { conn, access: std::marker::PhantomData }
            }
        }

        impl<'c $(, $json)?> $name<'c, $crate::ReadWrite $(, $json)?> {
            /// The same, without what writes.
            pub fn read_only(self) -> $name<'c, $crate::ReadOnly $(, $json)?> {
                $name { conn: self.conn, access: std::marker::PhantomData }
            }
        }

        $(
            impl<'c, A, $json> $name<'c, A, $json> {
                /// The same, reading the JSON column as a type of the caller's: see
                /// [`FromJson`](crate::FromJson).
                pub fn json_as<T: $crate::FromJson>(self) -> $name<'c, A, T> {
                    $name { conn: self.conn, access: std::marker::PhantomData }
                }
            }
        )?
    };
}

/// Gives a repository its owner form.
macro_rules! owned_by {
    ($name:ident $(<$json:ident>)?) => {
        impl<'c, A $(, $json)?> $name<'c, A $(, $json)?> {
            /// The same for one user: each statement names the user as the owner of its rows. What is
            /// somebody else's is not found, changed, deleted or counted, and refused as if it did not
            /// exist. A distributed database asks the one machine that has the user's rows.
            ///
            /// Role and round trips stay what they are. What [`Database::as_user`](crate::Database::as_user)
            /// gives is this form already; there the database itself watches as well.
            ///
            /// ```no_run
            /// # use chancery::{ChunkId, ConversationId, Database, UserId};
            /// # async fn example(db: Database, user_id: UserId, id: ConversationId, cited: Vec<ChunkId>) -> chancery::Result<()> {
            /// // None and empty when they are somebody else's.
            /// let conversation = db.conversations().owned_by(user_id).get_by_id(id).await?;
            /// let chunks = db.chunks().owned_by(user_id).get_by_ids(&cited).await?;
            /// # Ok(()) }
            /// ```
            ///
            /// # Errors
            ///
            /// A call that itself names another user is
            /// [`PermissionDenied`](crate::Error::PermissionDenied); the server is not asked.
            pub fn owned_by(mut self, user_id: $crate::UserId) -> Self {
                self.conn = self.conn.owned_by(Some(user_id.as_uuid()));
                self
            }
        }
    };
}

pub(crate) use {of_row, owned_by, repository};
