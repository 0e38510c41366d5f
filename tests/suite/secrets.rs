//! What is secret stays secret: a text that must not be seen is put wherever something private can
//! stand, everything that can go wrong does, and all that is printed and logged is searched for it.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chancery::{
    Conversation, Database, DatabaseConfig, Error, NewChunk, NewMessage, NewTemplate,
    NewTranscript, NewUser, PasswordHash, Patch, SslMode, TemplatePatch, TemplateType, TokenHash,
    Transcript, TranscriptId, TranscriptPatch, User, UserId, UserPatch,
};
use private_postgres::Server;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::types::Json;
use tokio::net::TcpListener;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};

use crate::support::database::{config, connect, url};
use crate::support::{token_hash, unique};

pub const CANARY: &str = "c4n4ry";

/// Collects all that is logged on this thread, at every level; a test's runtime has no other.
pub struct Log {
    text: Arc<Mutex<String>>,
    _guard: DefaultGuard,
}

impl Log {
    pub fn start() -> Self {
        let text = Arc::<Mutex<String>>::default();
        let _guard = crate::support::events::listen(Collector(Arc::clone(&text)));
        Self { text, _guard }
    }

    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }
}

struct Collector(Arc<Mutex<String>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Line(&mut self.0.lock().unwrap()));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Line(&mut self.0.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = self.0.lock().unwrap();
        write!(text, "\n{} {}", event.metadata().level(), event.metadata().target()).unwrap();
        event.record(&mut Line(&mut text));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[track_caller]
pub fn assert_clean(shown: &str) {
    assert!(!shown.contains(CANARY), "{shown}");
}

/// An error in every form in which it could end in a log.
fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?} {:?}", error.constraint());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        write!(text, " {cause} {cause:?} {cause:#?}").unwrap();
        source = cause.source();
    }
    text
}

/// The error, after checking that it shows nothing.
#[track_caller]
pub fn failed<T: fmt::Debug>(result: Result<T, Error>) -> Error {
    let error = result.unwrap_err();
    assert_clean(&shown(&error));
    error
}

fn notes() -> Value {
    json!({ CANARY: [CANARY] })
}

fn private_user() -> NewUser {
    NewUser {
        password_hash: Some(PasswordHash::legacy(CANARY).unwrap()),
        name: Some(CANARY.into()),
        profile_picture: Some(CANARY.into()),
        profession: Some(CANARY.into()),
        timezone: "UTC".into(),
        ..NewUser::new(format!("{CANARY}{}@example.org", unique()))
    }
}

fn private_transcript(user_id: UserId) -> NewTranscript {
    NewTranscript::new(user_id, format!("{CANARY}{}", unique()), CANARY)
        .title(CANARY)
        .channel_name(CANARY)
        .metadata(notes())
}

fn private_template(user_id: UserId) -> NewTemplate {
    NewTemplate::new(Some(user_id), TemplateType::Blog, CANARY, CANARY).variables(json!([CANARY]))
}

fn private_chunk(transcript_id: TranscriptId) -> NewChunk {
    NewChunk::new(transcript_id, 0, CANARY, 1).metadata(notes())
}

fn private_message(conversation: &Conversation) -> NewMessage {
    NewMessage::user(conversation.id, CANARY).metadata(notes())
}

/// A row in each table of accounts, chats, transcripts, templates and settings.
pub async fn private_rows(db: &Database) -> (User, Conversation, Transcript) {
    let user = db.users().create(private_user()).await.unwrap();
    let conversation = db.conversations().create(user.id, Some(CANARY)).await.unwrap();
    let transcript = db.transcripts().create(private_transcript(user.id)).await.unwrap();
    let token = TokenHash::new(CANARY).unwrap();
    db.sessions().create_for(user.id, &token, Duration::from_secs(60)).await.unwrap();
    db.messages().create(private_message(&conversation)).await.unwrap();
    db.chunks().create_many(vec![private_chunk(transcript.id)]).await.unwrap();
    db.templates().create_template(private_template(user.id)).await.unwrap();
    db.config().set_value("key", &json!(CANARY), Some(CANARY)).await.unwrap();
    (user, conversation, transcript)
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_is_stored_and_read_is_neither_logged_nor_shown_by_debug(pool: PgPool) {
    let log = Log::start();
    let db = Database::from_pool(pool);
    let (user, conversation, transcript) = private_rows(&db).await;
    let token = TokenHash::new(CANARY).unwrap();
    let found = json!({ CANARY: [CANARY] });
    let mut text = String::new();
    macro_rules! show {
        ($($value:expr),+ $(,)?) => {$({
            let value = $value;
            write!(text, "{value:?} {value:#?} ").unwrap();
        })+};
    }
    show!(private_user(), private_transcript(user.id), private_template(user.id));
    show!(&token, user.password_hash.clone());
    show!(private_chunk(transcript.id), private_message(&conversation));
    show!(
        UserPatch { name: Patch::Set(Some(CANARY.into())), ..UserPatch::default() },
        TranscriptPatch { metadata: Patch::Set(notes()), ..TranscriptPatch::default() },
        TemplatePatch { template_content: CANARY.to_owned().into(), ..TemplatePatch::default() },
    );
    let page = chancery::PageRequest::first(10);
    show!(
        db.users().get_by_email(&user.email).await.unwrap().unwrap(),
        db.sessions().get_by_token(&token).await.unwrap().unwrap(),
        db.sessions().list_by_user(user.id, 10, 0).await.unwrap(),
        db.conversations().list_by_user(user.id, 10, 0).await.unwrap(),
        db.conversations().page_with_last_message(user.id, page).await.unwrap(),
        db.messages().list_by_conversation(conversation.id, 10, 0).await.unwrap(),
        db.messages().list_by_metadata(user.id, &found, 10).await.unwrap(),
        db.transcripts().get_with_chunk_count(transcript.id).await.unwrap().unwrap(),
        db.transcripts().page_by_user(user.id, page).await.unwrap(),
        db.transcripts().list_by_metadata(user.id, &found, 10).await.unwrap(),
        db.chunks().list_by_transcript(transcript.id, 10, 0).await.unwrap(),
        db.templates().get_template(user.id, TemplateType::Blog).await.unwrap().unwrap(),
        db.config().get("key").await.unwrap().unwrap(),
        user,
        conversation,
        transcript,
    );
    assert_clean(&text);
    let log = log.text();
    assert!(log.contains("insert into users"), "the collector works: {log}");
    assert_clean(&log);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_a_repository_is_refused_shows_no_value(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (user, conversation, transcript) = private_rows(&db).await;
    let log = Log::start();
    let token = TokenHash::new(CANARY).unwrap();
    let minute = Duration::from_secs(60);
    let again = NewTranscript {
        youtube_video_id: transcript.youtube_video_id,
        ..private_transcript(user.id)
    };
    for error in [
        failed(db.users().create(NewUser { email: user.email, ..private_user() }).await),
        failed(db.sessions().create_for(user.id, &token, minute).await),
        failed(db.transcripts().create(again).await),
        failed(db.chunks().create_many(vec![private_chunk(transcript.id)]).await),
        failed(db.templates().create_template(private_template(user.id)).await),
    ] {
        assert!(matches!(error, Error::Conflict(_)), "{error:?}");
    }
    let (nobody, nothing) = (UserId::new(), TranscriptId::new());
    let nowhere = {
        db.conversations().delete(conversation.id).await.unwrap();
        conversation
    };
    for error in [
        failed(db.sessions().create_for(nobody, &token_hash(), minute).await),
        failed(db.conversations().create(nobody, Some(CANARY)).await),
        failed(db.messages().create(private_message(&nowhere)).await),
        failed(db.messages().create_many(vec![private_message(&nowhere)]).await),
        failed(db.transcripts().create(private_transcript(nobody)).await),
        failed(db.chunks().create_many(vec![private_chunk(nothing)]).await),
        failed(db.templates().create_template(private_template(nobody)).await),
    ] {
        assert!(matches!(error, Error::ForeignKey(_)), "{error:?}");
    }
    let nul = format!("{CANARY}\0");
    for error in [
        failed(db.users().create(NewUser::new(CANARY)).await),
        failed(db.users().create(NewUser { name: Some(nul.clone()), ..private_user() }).await),
        failed(db.conversations().create(user.id, Some(&CANARY.repeat(100))).await),
        failed(db.config().set_value(&nul, &json!(1), None).await),
        failed(db.config().set_value("key", &json!(nul), None).await),
        failed(PasswordHash::new(CANARY)),
        failed(TokenHash::new(&nul)),
    ] {
        assert!(matches!(error, Error::InvalidInput(_)), "{error:?}");
    }
    assert!(log.text().contains("insert into"));
    assert_clean(&log.text());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_the_server_reports_of_an_applications_statement_shows_no_value(pool: PgPool) {
    let db = Database::from_pool(pool);
    private_rows(&db).await;
    sqlx::query("create table owned (owner varchar references config (key))")
        .execute(db.executor())
        .await
        .unwrap();
    sqlx::query(
        "create function complain(secret text) returns void language plpgsql as
         $$begin raise exception 'seen: %', secret using detail = secret, hint = secret; end$$",
    )
    .execute(db.executor())
    .await
    .unwrap();
    let log = Log::start();
    for (sqlstate, statement) in [
        ("23505", "insert into users (email, name) select email, $1 from users"),
        (
            "23505",
            "insert into sessions (user_id, token_hash, expires_at)
                   select user_id, $1, now() from sessions",
        ),
        ("23514", "insert into users (email, password_hash) values ($1, $1)"),
        (
            "23514",
            "insert into templates (template_type, template_name, template_content)
                   values ($1, $1, $1)",
        ),
        ("23514", "update messages set role = $1"),
        ("23502", "insert into users (name) values ($1)"),
        ("23502", "insert into templates (template_type, template_name) values ('blog', $1)"),
        ("23502", "update transcripts set title = $1, transcript_text = null"),
        ("23503", "insert into owned (owner) values ($1)"),
        ("22P02", "select $1::text::uuid"),
        ("22P02", "select $1::text::int"),
        ("22P02", "select $1::text::boolean"),
        ("22P02", "select $1::text::jsonb"),
        ("22P02", "select $1::text::numeric"),
        ("22007", "select $1::text::timestamptz"),
        ("22007", "select $1::text::date"),
        ("22023", "select now() at time zone $1"),
        ("22001", "update users set timezone = repeat($1, 20)"),
        ("42P01", "select $1::text::regclass"),
        ("42704", "select $1::text::regtype"),
        ("42704", "select current_setting($1)"),
        ("P0001", "select complain($1)"),
    ] {
        let mut uow = db.begin().await.unwrap();
        let reported =
            sqlx::query(statement).bind(CANARY).execute(uow.executor()).await.unwrap_err();
        let code = reported.as_database_error().and_then(|e| e.code()).unwrap_or_default();
        assert_eq!(code, sqlstate, "{statement}: {reported:?}");
        // What is hidden here is there to be hidden.
        let driver = format!("{reported:?}");
        assert!(driver.contains(CANARY) || sqlstate == "22001", "{driver}");
        let shown = shown(&Error::from(reported));
        assert!(!shown.contains(CANARY), "{statement}: {shown}");
        let aborted = failed(uow.commit().await);
        assert!(matches!(aborted, Error::TransactionAborted), "{aborted:?}");
    }
    assert!(log.text().contains("select complain"));
    assert_clean(&log.text());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_driver_s_error_is_there_for_who_asks_for_it(pool: PgPool) {
    let db = Database::from_pool(pool);
    let refused = sqlx::query("insert into users (name) values ($1)").bind(CANARY);
    let error = Error::from(refused.execute(db.executor()).await.unwrap_err());
    let text = error.to_string();
    assert!(text.contains("23502") && text.contains("users") && text.contains("email"), "{text}");
    let Error::Database(driver) = error else { panic!("{error:?}") };
    assert_eq!(driver.sqlstate().as_deref(), Some("23502"));
    assert!(format!("{:?}", driver.as_sqlx()).contains(CANARY));
    assert!(format!("{:?}", driver.into_sqlx()).contains(CANARY));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_value_that_cannot_be_read_is_not_shown(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (user, conversation, transcript) = private_rows(&db).await;
    let chunk = db.chunks().list_by_transcript(transcript.id, 1, 0).await.unwrap().remove(0);
    let template = db.templates().list_by_user(user.id, 1, 0).await.unwrap().remove(0);
    // Deeper than the reader goes.
    let set = async |statement: &'static str| {
        let deep = format!("{}\"{CANARY}\"{}", "[".repeat(200), "]".repeat(200));
        sqlx::query(statement).bind(deep).execute(db.executor()).await.unwrap();
    };
    for statement in [
        "alter table messages drop constraint messages_metadata_check",
        "alter table transcripts drop constraint transcripts_metadata_check",
        "alter table chunks drop constraint chunks_metadata_check",
        "alter table templates drop constraint templates_variables_check",
        "alter table config drop constraint config_value_check",
    ] {
        sqlx::query(statement).execute(db.executor()).await.unwrap();
    }
    for statement in [
        "update messages set metadata = $1::text::jsonb",
        "update transcripts set metadata = $1::text::jsonb",
        "update chunks set metadata = $1::text::jsonb",
        "update templates set variables = $1::text::jsonb",
        "update config set value = $1::text::jsonb",
    ] {
        set(statement).await;
    }
    let log = Log::start();
    let mut errors = vec![
        failed(db.messages().list_by_conversation(conversation.id, 10, 0).await),
        failed(db.transcripts().get_by_id(transcript.id).await),
        failed(db.transcripts().get_with_chunk_count(transcript.id).await),
        failed(db.chunks().get_by_ids(&[chunk.id]).await),
        failed(db.templates().get_by_id(template.id).await),
        failed(db.config().get_value("key").await),
        failed(db.config().list(10, 0).await),
    ];
    for (statement, value) in [
        ("alter table messages drop constraint messages_role_check", None),
        ("update messages set metadata = '{}', role = $1", Some(CANARY)),
        ("alter table templates drop constraint templates_template_type_check", None),
        ("update templates set variables = '[]', template_type = $1", Some(CANARY)),
    ] {
        let query = sqlx::query(statement);
        let query = if let Some(value) = value { query.bind(value) } else { query };
        query.execute(db.executor()).await.unwrap();
    }
    errors.push(failed(db.messages().get_last_n(conversation.id, 1).await));
    errors.push(failed(db.templates().get_by_id(template.id).await));
    // An application's own statement, whose reader tells what it met.
    let number = sqlx::query_scalar::<_, Json<i32>>("select to_jsonb($1::text)").bind(CANARY);
    let unread = number.fetch_one(db.executor()).await.unwrap_err();
    assert!(unread.to_string().contains(CANARY), "{unread}");
    errors.push(failed(Err::<(), _>(unread.into())));
    for error in errors {
        assert!(matches!(error, Error::Decode(_) | Error::Unreadable { .. }), "{error:?}");
        // Where it stands is told.
        assert!(error.to_string().contains("column"), "{error}");
    }
    assert_clean(&log.text());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_fails_at_commit_shows_no_value(pool: PgPool) {
    let db = Database::from_pool(pool);
    sqlx::query("create table late (secret text unique deferrable initially deferred)")
        .execute(db.executor())
        .await
        .unwrap();
    let log = Log::start();
    let mut uow = db.begin().await.unwrap();
    for _ in 0..2 {
        sqlx::query("insert into late values ($1)")
            .bind(CANARY)
            .execute(uow.executor())
            .await
            .unwrap();
    }
    let error = failed(uow.commit().await);
    assert!(matches!(error, Error::Conflict(chancery::Constraint::Other(_))), "{error:?}");
    assert_clean(&log.text());
}

/// What PostgreSQL or a trigger says beside the answer, the driver logs at INFO or WARN under
/// `sqlx::postgres::notice`, values and all. So the server is told to keep it back; on a pool of the
/// application's own, which has settings of its own, it is the application that tells.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_notice_of_the_application_s_is_kept_back_unless_it_asks_for_it(pool: PgPool) {
    let own = connect(config(&pool).pool_size(1)).await;
    let noisy = url(&pool).as_str().to_owned() + "?options=-c%20client_min_messages=notice";
    let noisy = connect(DatabaseConfig::builder().url(&noisy).pool_size(1)).await;
    let db = Database::from_pool(pool);
    sqlx::query(
        "create function chatter(secret text) returns void language plpgsql as
         $$begin raise notice '%', secret; raise warning '%', secret; end$$",
    )
    .execute(db.executor())
    .await
    .unwrap();
    let chatter = sqlx::query("select chatter($1)").bind(CANARY);
    for (db, said) in [(&own, 0), (&noisy, 2)] {
        let log = Log::start();
        sqlx::query("select chatter($1)").bind(CANARY).execute(db.executor()).await.unwrap();
        let text = log.text();
        assert_eq!(text.matches("sqlx::postgres::notice").count(), said, "{text}");
        assert_eq!(text.matches(CANARY).count(), said, "{text}");
        db.close().await;
    }
    {
        let log = Log::start();
        let mut uow = db.begin().await.unwrap();
        sqlx::query("set local client_min_messages = error").execute(uow.executor()).await.unwrap();
        chatter.execute(uow.executor()).await.unwrap();
        uow.commit().await.unwrap();
        assert_clean(&log.text());
    }
    let log = Log::start();
    sqlx::query("select chatter($1)").bind(CANARY).execute(db.executor()).await.unwrap();
    let text = log.text();
    assert_eq!(text.matches(CANARY).count(), 2, "{text}");
    assert_eq!(text.matches("sqlx::postgres::notice").count(), 2, "{text}");
}

/// Nothing that the crate does makes the server say anything, whatever the server is set to send.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn even_a_server_that_sends_its_whole_log_sends_no_bound_value(pool: PgPool) {
    let db = Database::from_pool(pool);
    let log = Log::start();
    let mut uow = db.begin().await.unwrap();
    sqlx::query(
        "select set_config(name, value, true)
           from (values ('client_min_messages', 'debug1'), ('log_statement', 'all'),
                        ('log_min_duration_statement', '0'),
                        ('log_parameter_max_length_on_error', '-1')) as s (name, value)",
    )
    .execute(uow.executor())
    .await
    .unwrap();
    let user = uow.users().create(private_user()).await.unwrap();
    uow.transcripts().create(private_transcript(user.id)).await.unwrap();
    let again = NewUser { email: user.email, ..private_user() };
    failed(uow.users().create(again).await);
    failed(uow.commit().await);
    let text = log.text();
    assert!(text.contains("sqlx::postgres::notice"), "the server's log is sent: {text}");
    assert_clean(&text);
}

#[tokio::test]
async fn the_connection_s_password_is_never_shown() {
    let log = Log::start();
    let server = Server::builder().password(CANARY).start().unwrap();
    let url = server.url("postgres");
    assert!(url.contains(CANARY));
    let config = |url: &str| {
        let builder = DatabaseConfig::builder().url(url).pool_size(1);
        let builder = builder.connect_timeout(Duration::from_secs(1));
        let builder = builder.pool_timeout(Duration::from_secs(1));
        assert_clean(&format!("{builder:?}"));
        let config = builder.build().unwrap();
        assert_clean(&format!("{config:?} {config:#?}"));
        config
    };
    let db = Database::connect(&config(&url)).await.unwrap();
    db.migrate().await.unwrap();
    let health = db.health().await;
    assert!(health.is_healthy(), "{health:?}");
    let json = serde_json::to_string(&health).unwrap();
    let uow = db.begin().await.unwrap();
    let pool = db.pool();
    assert_clean(&format!("{db:?} {db:#?} {pool:?} {uow:?} {:?} {health:?} {json}", db.users()));
    // The driver's own options do show it, to whoever prints them: the docs of `pool` say so.
    assert!(format!("{:?}", pool.connect_options()).contains(CANARY));
    drop(uow);
    db.close().await;
    assert_clean(&shown(&failed(db.users().get_by_id(UserId::new()).await)));

    // Nobody answers; somebody answers nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf_port = deaf.local_addr().unwrap().port();
    drop(deaf);
    let at = |port: u16| url.replace(&format!(":{}/", server.port()), &format!(":{port}/"));
    let wrong = url.replace(CANARY, &format!("{CANARY}x"));
    let missing = server.url("nowhere");
    let encrypted = DatabaseConfig::builder().url(&url).ssl_mode(SslMode::Require).build().unwrap();
    let unreachable = failed(Database::connect(&config(&at(deaf_port))).await);
    assert!(matches!(unreachable, Error::Unreachable { .. }), "{unreachable:?}");
    let late = failed(Database::connect(&config(&at(silent_port))).await);
    assert!(matches!(late, Error::ConnectTimeout { .. }), "{late:?}");
    let refused = failed(Database::connect(&config(&wrong)).await);
    assert!(matches!(refused, Error::AuthenticationFailed { .. }), "{refused:?}");
    let absent = failed(Database::connect(&config(&missing)).await);
    assert!(matches!(absent, Error::DatabaseMissing { .. }), "{absent:?}");
    let plain = failed(Database::connect(&encrypted).await);
    assert!(matches!(plain, Error::Tls(_)), "{plain:?}");
    // The same, told by the pool.
    let lazy = Database::connect_lazy(&config(&wrong));
    failed(lazy.users().get_by_id(UserId::new()).await);
    let health = lazy.health().await;
    assert!(!health.is_healthy());
    assert_clean(&format!("{health:?} {}", serde_json::to_string(&health).unwrap()));

    let log = log.text();
    assert!(log.contains("database.connection_failed"), "{log}");
    assert_clean(&log);
}

/// A password with a character that ends the authority of a URL would otherwise go on in the
/// database's name or in a parameter's, both of which are shown.
#[test]
fn a_password_that_is_not_encoded_is_not_shown_as_another_part_of_the_url() {
    for url in [
        format!("postgres://ada:1234/{CANARY}@localhost/app"),
        format!("postgres://ada:1234?{CANARY}@localhost/app"),
        format!("postgres://ada:1234?x={CANARY}@localhost/app"),
        format!("postgres://ada:1234?{CANARY}=x@localhost/app"),
        format!("postgres://ada:1234#{CANARY}@localhost/app"),
        format!("postgres://ada:x@1234/{CANARY}@localhost/app"),
        format!("postgres://ada:x@1234?{CANARY}@localhost/app"),
        format!("postgres://ada:12\\{CANARY}@localhost/app"),
        format!("postgres://ada:12 {CANARY}@localhost/app"),
        format!("postgres://ada:{CANARY}@@localhost/app"),
        format!("postgres://ada:{CANARY}:x@localhost:app/app"),
        format!("postgres://ada:{CANARY}[x@localhost/app"),
        format!("postgres://ada:{CANARY}%zz@localhost/app"),
    ] {
        assert_clean(&match DatabaseConfig::from_url(&url) {
            Ok(config) => format!("{config:?}"),
            Err(error) => format!("{error} {error:?}"),
        });
    }
}
