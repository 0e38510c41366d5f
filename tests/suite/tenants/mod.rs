//! Nobody reads what is not theirs: the policies, the roles, and working for one user.

mod catalogue;
mod identity;
mod intake;
pub mod methods;
mod owned;
pub mod owners;
mod people;
mod plans;
mod price;
mod rights;
mod talk;
mod work;

use std::time::Duration;

use chancery::{
    BorrowerWithRecords, Chunk, Conversation, Database, Document, DocumentClaim, ExtractionJob,
    JobLease, Message, NewMessage, NewProject, NewUserPreferences, Project, Session, SessionToken,
    SsnHash, Template, TemplateType, Transcript, User,
};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::database::{config, connect, url};
use crate::support::intake::{account, borrower_of, income, new_document};
use crate::support::{
    chunks, conversation_of, new_job, new_template, new_transcript, new_user, token_hash,
};

pub const HOUR: Duration = Duration::from_secs(3600);

/// A database as a deployment has it: the login role is no superuser, owns nothing, and is a member of
/// both roles. Two connections, so that each of them sees users change.
pub struct Tenants {
    pub db: Database,
    pub login: String,
    admin: PgPool,
}

impl Tenants {
    pub async fn new(pool: &PgPool, login: &str) -> Self {
        let login = role_name(pool, login);
        execute(
            pool,
            &format!(
                "create role \"{login}\" login password 'x' in role chancery_app, chancery_service"
            ),
        )
        .await;
        let mut url = url(pool);
        url.set_username(&login).unwrap();
        url.set_password(Some("x")).unwrap();
        let db = connect(config(pool).url(url.as_str()).pool_size(2).max_overflow(0)).await;
        Self { db, login, admin: pool.clone() }
    }

    pub async fn end(self) {
        self.db.close().await;
        execute(&self.admin, &format!("drop role \"{}\"", self.login)).await;
    }
}

/// Roles are the cluster's: this one is named after its database, in 63 bytes at most.
pub fn role_name(pool: &PgPool, what: &str) -> String {
    let options = pool.connect_options();
    let mut name = format!("{what}{}", options.get_database().unwrap());
    name.truncate(63);
    name
}

pub async fn execute(pool: &PgPool, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(pool).await.unwrap();
}

/// One user with something in every table.
pub struct World {
    pub user: User,
    pub session: Session,
    pub token: SessionToken,
    pub conversation: Conversation,
    pub message: Message,
    pub transcript: Transcript,
    pub chunk: Chunk,
    pub template: Template,
    pub document: Document,
    pub claim: DocumentClaim,
    pub borrower: BorrowerWithRecords,
    pub ssn_hash: SsnHash,
    pub project: Project,
    pub job: ExtractionJob,
    pub lease: JobLease,
    pub began: DateTime<Utc>,
}

impl World {
    /// Made by the service.
    pub async fn new(db: &Database) -> Self {
        let began = Utc::now() - HOUR;
        let (user, _) = db
            .users()
            .create_with_preferences(new_user(), NewUserPreferences::default())
            .await
            .unwrap();
        let id = user.id;
        db.sessions().create(id, &token_hash(), began).await.unwrap();
        let session = db.sessions().create_for(id, &token_hash(), HOUR).await.unwrap();
        let (token, _) = db.sessions().create_with_token(id, HOUR, Some(HOUR)).await.unwrap();
        let conversation = conversation_of(db, id).await;
        let message =
            db.messages().create(NewMessage::user(conversation.id, "Why the Moon?")).await.unwrap();
        let transcript = db.transcripts().create(new_transcript(id)).await.unwrap();
        let chunk = db.chunks().create_many(chunks(transcript.id, 1)).await.unwrap().remove(0);
        let template = new_template(Some(id)).default_for_type();
        let template = db.templates().create_template(template).await.unwrap();
        db.documents().create(new_document().user_id(id)).await.unwrap();
        let claimed = db.documents().claim_pending(1, HOUR).await.unwrap().remove(0);
        let document = db.documents().create(new_document().user_id(id)).await.unwrap();
        let ssn_hash = SsnHash::new(format!("{:064x}", crate::support::unique())).unwrap();
        let borrower = borrower_of(&[document.id])
            .user_id(id)
            .ssn_hash(ssn_hash.clone())
            .income(income(100))
            .account(account("123-456"));
        let borrower = db.borrowers().create(borrower).await.unwrap();
        let project = db.projects().create(NewProject::new("Spring").owner(id)).await.unwrap();
        db.extraction_jobs().create(new_job(project.id)).await.unwrap();
        let lease = db.extraction_jobs().claim(1, HOUR).await.unwrap().remove(0).lease;
        let job = db.extraction_jobs().create(new_job(project.id)).await.unwrap();
        db.config().set_value("theme", &json!("dark"), None).await.unwrap();
        Self {
            user,
            session,
            token,
            conversation,
            message,
            transcript,
            chunk,
            template,
            document,
            claim: claimed.claim,
            borrower,
            ssn_hash,
            project,
            job,
            lease,
            began,
        }
    }

    pub fn template_type(&self) -> TemplateType {
        self.template.template_type
    }
}
