//! The routes of the service: what to copy. Whose data it is stands in the path, because signing in
//! is the application's business; put your own check in front.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRef, Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::{BoxError, Json, Router, middleware, routing};
use chancery::web::{self, TxAfter};
use chancery::{
    Conversation, ConversationId, ConversationSummary, Database, Document, Error, FileHash,
    HealthStatus, Message, MessageId, NewDocument, NewMessage, NewUser, Page, PageRequest, Patch,
    Result, Role, User, UserId, UserPatch,
};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What answers questions.
pub trait Model: Send + Sync + 'static {
    /// The answer, piece by piece.
    fn answer(
        &self,
        history: Vec<Message>,
        question: &str,
    ) -> BoxStream<'static, Result<String, BoxError>>;
}

#[derive(Clone)]
pub struct App {
    pub db: Database,
    pub model: Arc<dyn Model>,
    /// The tasks that answer: a client that goes away leaves its own running.
    pub answers: TaskTracker,
    pub environment: String,
}

// Lets handlers take State<Database> and the layer find its database.
impl FromRef<App> for Database {
    fn from_ref(app: &App) -> Self {
        app.db.clone()
    }
}

pub fn router(app: App) -> Router {
    Router::new()
        .route("/health", routing::get(health))
        .route("/api/v1/db-test", routing::get(db_test))
        .route("/users", routing::post(create_user))
        .route("/users/{id}", routing::get(get_user).patch(patch_user))
        .route(
            "/users/{id}/conversations",
            routing::post(create_conversation).get(list_conversations),
        )
        .route("/users/{id}/documents", routing::post(add_document).get(list_documents))
        .route("/conversations/{id}/messages", routing::post(append_turn).get(list_messages))
        .route("/conversations/{id}/chat", routing::post(chat))
        .layer(middleware::from_fn_with_state(app.clone(), web::unit_of_work))
        .with_state(app)
}

/// Serves until `stop`, then takes no more requests, waits until what was asked is answered and stored,
/// and closes the database. All of that ends `patience` after `stop`: an answer may never come, and a
/// client may never read.
pub async fn serve(
    listener: TcpListener,
    app: App,
    stop: impl Future<Output = ()> + Send + 'static,
    patience: Duration,
) -> io::Result<()> {
    let App { db, answers, .. } = app.clone();
    let stopping = CancellationToken::new();
    let stopped = stopping.clone();
    let server = axum::serve(listener, router(app)).with_graceful_shutdown(async move {
        stop.await;
        stopping.cancel();
    });
    let all_is_answered = async {
        // Ends with the last connection: who listens has the whole answer.
        server.await?;
        // Nobody is left to ask. These are the answers whose client went away.
        answers.close();
        answers.wait().await;
        io::Result::Ok(())
    };
    let patience_ends = async {
        stopped.cancelled().await;
        tokio::time::sleep(patience).await;
    };
    tokio::select! {
        served = all_is_answered => served?,
        () = patience_ends => {
            tracing::warn!(lost = answers.len(), "stopped before everything was answered");
        }
    }
    // What is in use was given back.
    db.close().await;
    Ok(())
}

/// For load balancers: 503 takes this instance out of service.
async fn health(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let (code, status, database) = match app.db.health().await.status {
        HealthStatus::Healthy => (StatusCode::OK, "healthy", "connected"),
        // It answers reads, and 503 to what writes.
        HealthStatus::ReadOnly => (StatusCode::OK, "read_only", "connected"),
        HealthStatus::Unhealthy => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy", "disconnected"),
    };
    let answer = json!({
        "status": status,
        "app_name": "axum_service",
        "environment": app.environment,
        "version": env!("CARGO_PKG_VERSION"),
        "database": database,
    });
    (code, Json(answer))
}

async fn db_test(State(db): State<Database>) -> Result<Json<Value>> {
    let projects = db.projects().count().await?;
    Ok(Json(json!({
        "database": "connected",
        "provider": "PostgreSQL",
        "projects_count": projects,
        "message": "Database connection successful!",
    })))
}

#[derive(Deserialize)]
struct SignUp {
    email: String,
    name: Option<String>,
}

// One statement commits by itself: no unit of work.
async fn create_user(
    State(db): State<Database>,
    Json(new): Json<SignUp>,
) -> Result<(StatusCode, Json<User>)> {
    let user = db.users().create(NewUser { name: new.name, ..NewUser::new(new.email) }).await?;
    Ok((StatusCode::CREATED, Json(user)))
}

async fn get_user(State(db): State<Database>, Path(id): Path<UserId>) -> Result<Json<User>> {
    Ok(Json(db.users().get_by_id(id).await?.ok_or(Error::NotFound("user"))?))
}

/// What users may change of themselves. A field that is left out stays, null forgets it.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProfilePatch {
    name: Patch<Option<String>>,
    profession: Patch<Option<String>>,
    timezone: Patch<String>,
}

async fn patch_user(
    State(db): State<Database>,
    Path(id): Path<UserId>,
    Json(patch): Json<ProfilePatch>,
) -> Result<Json<User>> {
    let patch = UserPatch {
        name: patch.name,
        profession: patch.profession,
        timezone: patch.timezone,
        ..UserPatch::default()
    };
    Ok(Json(db.users().update(id, patch).await?))
}

#[derive(Deserialize)]
struct NewConversation {
    title: Option<String>,
}

async fn create_conversation(
    State(db): State<Database>,
    Path(user_id): Path<UserId>,
    Json(new): Json<NewConversation>,
) -> Result<(StatusCode, Json<Conversation>)> {
    let created = db.conversations().create(user_id, new.title.as_deref()).await;
    Ok((StatusCode::CREATED, Json(created.map_err(no_such_user)?)))
}

/// The user stands in the path: a row that refers to none is a path that leads nowhere.
fn no_such_user(error: Error) -> Error {
    match error {
        Error::ForeignKey(_) => Error::NotFound("user"),
        other => other,
    }
}

async fn list_conversations(
    State(db): State<Database>,
    Path(user_id): Path<UserId>,
    page: PageRequest,
) -> Result<Json<Page<ConversationSummary>>> {
    Ok(Json(db.conversations().page_with_last_message(user_id, page).await?))
}

#[derive(Deserialize)]
struct Upload {
    filename: String,
    file_hash: FileHash,
    file_type: String,
    file_size_bytes: i64,
}

/// 201 for a new document, 200 for one that this user has uploaded before.
async fn add_document(
    State(db): State<Database>,
    Path(user_id): Path<UserId>,
    Json(new): Json<Upload>,
) -> Result<(StatusCode, Json<Document>)> {
    let new = NewDocument::new(new.filename, new.file_hash, new.file_type, new.file_size_bytes);
    let stored = db.documents().create_or_get(new.user_id(user_id)).await.map_err(no_such_user)?;
    let status = if stored.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(stored.document)))
}

async fn list_documents(
    State(db): State<Database>,
    Path(user_id): Path<UserId>,
    page: PageRequest,
) -> Result<Json<Page<Document>>> {
    Ok(Json(db.documents().page_by_user(user_id, page).await?))
}

#[derive(Deserialize)]
struct Said {
    role: Role,
    content: String,
}

// Several statements that belong together: a unit of work, committed before the 201 leaves.
async fn append_turn(
    Path(id): Path<ConversationId>,
    TxAfter(Json(turn), mut tx): TxAfter<Json<Vec<Said>>>,
) -> Result<(StatusCode, Json<Vec<Message>>)> {
    let conversation = tx.lock_conversation(id).await?.ok_or(Error::NotFound("conversation"))?;
    if let (None, Some(first)) = (conversation.title, turn.first()) {
        let title: String = first.content.chars().take(60).collect();
        tx.conversations().update_title(id, Some(&title)).await?;
    }
    let turn = turn.into_iter().map(|said| NewMessage::new(id, said.role, said.content)).collect();
    Ok((StatusCode::CREATED, Json(tx.messages().create_many(turn).await?)))
}

async fn list_messages(
    State(db): State<Database>,
    Path(id): Path<ConversationId>,
    page: PageRequest,
) -> Result<Json<Page<Message>>> {
    let page = db.messages().page_by_conversation(id, page).await?;
    if page.items.is_empty() {
        // A conversation without messages, or none.
        db.conversations().get_by_id(id).await?.ok_or(Error::NotFound("conversation"))?;
    }
    Ok(Json(page))
}

#[derive(Deserialize)]
struct Question {
    /// Made by the client, so that it can ask once more: see [`chat`].
    id: Option<MessageId>,
    content: String,
}

/// Answers as server-sent events: `token` (a JSON string) for each piece, then `done` once the answer
/// is stored, or `error`. An answer that ends with neither was not stored.
///
/// Read, store the question, stream, then store the answer: no connection is in use while the model
/// answers. The question stays also when the answer fails. Sent once more with the same id, it is
/// answered, not stored twice; if anything was said since, it is a conflict. Without an id it is a new
/// question.
async fn chat(
    State(App { db, model, answers, .. }): State<App>,
    Path(id): Path<ConversationId>,
    Json(asked): Json<Question>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let mut history = db.messages().get_last_n(id, 20).await?;
    let is_stored = |last: &mut Message| last.role == Role::User && Some(last.id) == asked.id;
    let question = match history.pop_if(is_stored) {
        Some(question) => question,
        None => {
            let question = NewMessage { id: asked.id, ..NewMessage::user(id, asked.content) };
            db.messages().create(question).await? // 404 when there is no such conversation
        }
    };

    // Unbounded: a client that reads slowly does not hold up what is to be stored.
    let (events, mut received) = mpsc::unbounded_channel();
    // A task of its own: the answer is finished and stored also when the client goes away.
    answers.spawn(async move {
        let last = match answer(&db, &*model, history, question, &events).await {
            Ok(message) => Event::default().event("done").data(message.id.to_string()),
            Err(error) => {
                tracing::error!(%error, conversation = %id, "an answer was not stored");
                Event::default().event("error").data("the answer was not stored")
            }
        };
        _ = events.send(last);
    });
    let stream = stream::poll_fn(move |context| received.poll_recv(context)).map(Ok);
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

async fn answer(
    db: &Database,
    model: &dyn Model,
    history: Vec<Message>,
    question: Message,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<Message, BoxError> {
    let mut pieces = model.answer(history, &question.content);
    let mut text = String::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        text.push_str(&piece);
        // An error means that nobody listens any more.
        _ = events.send(Event::default().event("token").json_data(piece)?);
    }
    let answer = NewMessage::assistant(question.conversation_id, text);
    Ok(db.messages().create(answer).await?)
}
