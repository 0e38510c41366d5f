//! The chat of the example's service: what is streamed, and what is stored whatever happens meanwhile.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use chancery::{ConversationId, Database, Error, Message, MessageId, NewMessage, Role};
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::router::{self, App, Model};
use super::{Log, Server, all_connections_are_free, database, eventually, serve};
use crate::support::{PATIENCE, conversation, user};

/// A model that does what the test says.
pub struct Scripted<F>(pub F);

impl<F> Model for Scripted<F>
where
    F: Fn(Vec<Message>, String) -> BoxStream<'static, Result<String, BoxError>>,
    F: Send + Sync + 'static,
{
    fn answer(
        &self,
        history: Vec<Message>,
        question: &str,
    ) -> BoxStream<'static, Result<String, BoxError>> {
        (self.0)(history, question.to_owned())
    }
}

/// A model that begins to answer, and ends when it is given a permit.
fn gated(go_on: &Arc<Semaphore>) -> impl Model {
    let go_on = go_on.clone();
    Scripted(move |_, question| {
        let go_on = go_on.clone();
        let rest = stream::once(async move {
            go_on.acquire().await?.forget();
            Ok(question)
        });
        stream::iter([Ok("You ask: ".to_owned())]).chain(rest).boxed()
    })
}

/// What [`gated`] makes of a question.
fn turn(question: &str) -> [(Role, String); 2] {
    [(Role::User, question.to_owned()), (Role::Assistant, format!("You ask: {question}"))]
}

fn app(db: &Database, model: impl Model) -> App {
    let answers = TaskTracker::new();
    App { db: db.clone(), model: Arc::new(model), answers, environment: "test".into() }
}

pub async fn service_with(db: &Database, model: impl Model) -> Server {
    serve(router::router(app(db, model))).await
}

/// The service as `main` runs it: it can be told to stop.
struct Service {
    server: Server,
    answers: TaskTracker,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

impl Service {
    async fn start(db: &Database, model: impl Model, patience: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server(listener.local_addr().unwrap());
        let app = app(db, model);
        let answers = app.answers.clone();
        let (stop, told) = oneshot::channel();
        let told = async { told.await.unwrap() };
        let served = tokio::spawn(router::serve(listener, app, told, patience));
        Self { server, answers, stop, served }
    }
}

/// A streamed answer, read as it comes.
struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    async fn open(server: Server, id: ConversationId, question: &str) -> Self {
        Self::ask(server, id, &json!({"content": question})).await
    }

    async fn ask(server: Server, id: ConversationId, question: &Value) -> Self {
        let path = format!("/conversations/{id}/chat");
        let response = server.open("POST", &path, question.to_string()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next event's name and data; none at the end.
    async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name| event.lines().find_map(|line| line.strip_prefix(name));
                let event = field("event: ").map(str::to_owned).zip(field("data: "));
                let event = event.map(|(name, data)| (name, data.to_owned()));
                self.text = rest.to_owned();
                match event {
                    Some(event) => return Some(event),
                    None => continue, // a comment that keeps the connection alive
                }
            }
            let frame = self.body.frame().await?.unwrap();
            self.text.push_str(str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }

    async fn rest(mut self) -> Vec<(String, String)> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

async fn said(db: &Database, id: ConversationId) -> Vec<(Role, String)> {
    let messages = db.messages().list_by_conversation(id, 100, 0).await.unwrap();
    messages.into_iter().map(|message| (message.role, message.content)).collect()
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_answer_is_streamed_and_stored_before_it_is_done(pool: PgPool) {
    let db = Database::from_pool(pool);
    let model = |history: Vec<Message>, question| {
        let before = format!("{} before,\n", history.len());
        stream::iter([Ok(before), Ok("you ask: ".into()), Ok(question)]).boxed()
    };
    let server = service_with(&db, Scripted(model)).await;
    let conversation = conversation(&db).await;
    db.messages().create(NewMessage::system(conversation.id, "Be brief.")).await.unwrap();

    let events = Events::open(server, conversation.id, "Why?").await.rest().await;
    let (done, tokens) = events.split_last().unwrap();
    let tokens: String = tokens
        .iter()
        .map(|(name, data)| {
            assert_eq!(name, "token");
            serde_json::from_str::<String>(data).unwrap()
        })
        .collect();
    assert_eq!(tokens, "1 before,\nyou ask: Why?");
    assert_eq!(done.0, "done");
    let id: MessageId = done.1.parse().unwrap();
    assert_eq!(db.messages().get_by_id(id).await.unwrap().unwrap().content, tokens);
    let expected = [
        (Role::System, "Be brief.".to_owned()),
        (Role::User, "Why?".into()),
        (Role::Assistant, tokens),
    ];
    assert_eq!(said(&db, conversation.id).await, expected);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_can_not_be_answered_is_refused_before_the_model_is_asked(pool: PgPool) {
    let db = Database::from_pool(pool);
    let server = service_with(&db, Scripted(|_, _| panic!("the model was asked"))).await;
    let conversation = conversation(&db).await;
    let path = |id| format!("/conversations/{id}/chat");
    let unknown = server.post(&path(ConversationId::new()), json!({"content": "Why?"})).await;
    assert_eq!((unknown.status.as_u16(), &*unknown.code()), (404, "not_found"));
    let nul = server.post(&path(conversation.id), json!({"content": "\0"})).await;
    assert_eq!((nul.status.as_u16(), &*nul.code()), (422, "invalid_input"));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_answer_that_is_not_stored_ends_with_an_error_and_leaves_the_question(pool: PgPool) {
    let db = Database::from_pool(pool);
    let fails = |_, _| stream::iter([Ok("It is ".to_owned()), Err("canary".into())]).boxed();
    let can_not_be_stored = |_, _| stream::iter([Ok("It is \0".to_owned())]).boxed();
    for server in [
        service_with(&db, Scripted(fails)).await,
        service_with(&db, Scripted(can_not_be_stored)).await,
    ] {
        let conversation = conversation(&db).await;
        let events = Events::open(server, conversation.id, "Why?").await.rest().await;
        let error = ("error".to_owned(), "the answer was not stored".to_owned());
        assert_eq!(events.last(), Some(&error));
        assert_eq!(said(&db, conversation.id).await, [(Role::User, "Why?".to_owned())]);
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_question_that_was_not_answered_is_sent_again_and_stored_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    let fails = |_, _| stream::iter([Err("the model is gone".into())]).boxed();
    let answers = |history: Vec<Message>, question| {
        assert!(history.is_empty(), "the question is not its own history");
        stream::iter([Ok("You ask: ".to_owned()), Ok(question)]).boxed()
    };
    let conversation = conversation(&db).await;
    let question = json!({"id": MessageId::new(), "content": "Why?"});
    for (server, end) in [
        (service_with(&db, Scripted(fails)).await, "error"),
        (service_with(&db, Scripted(answers)).await, "done"),
    ] {
        let events = Events::ask(server, conversation.id, &question).await.rest().await;
        assert_eq!(events.last().unwrap().0, end);
    }
    assert_eq!(said(&db, conversation.id).await, turn("Why?"));

    let server = service_with(&db, Scripted(|_, _| panic!("the model was asked"))).await;
    let path = format!("/conversations/{}/chat", conversation.id);
    let answer = db.messages().get_last_n(conversation.id, 1).await.unwrap().remove(0);
    for taken in [question, json!({"id": answer.id, "content": "Why?"})] {
        let again = server.post(&path, taken).await;
        assert_eq!((again.status.as_u16(), &*again.code()), (409, "conflict"));
    }
    assert_eq!(said(&db, conversation.id).await, turn("Why?"));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_answer_is_stored_also_when_the_client_goes_away(pool: PgPool) {
    let db = Database::from_pool(pool);
    let go_on = Arc::new(Semaphore::new(0));
    let server = service_with(&db, gated(&go_on)).await;
    let conversation = conversation(&db).await;
    let mut events = Events::open(server, conversation.id, "Why?").await;
    assert_eq!(events.next().await.unwrap().0, "token");
    drop(events);
    go_on.add_permits(1);
    eventually("it is stored", async || said(&db, conversation.id).await == turn("Why?")).await;
}

/// More than the buffers of both ends hold.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_client_that_does_not_read_holds_no_answer_up(pool: PgPool) {
    let db = Database::from_pool(pool);
    let piece = "word ".repeat(50_000);
    let model = Scripted(move |_, _| {
        let pieces = stream::iter(vec![piece.clone(); 128]).map(Ok);
        pieces.chain(stream::iter([Err("it ends".into())])).boxed()
    });
    let service = Service::start(&db, model, PATIENCE).await;
    let conversation = conversation(&db).await;
    let unread = Events::open(service.server, conversation.id, "Why?").await;
    eventually("all was taken from the model", async || service.answers.is_empty()).await;
    drop(unread);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_shutdown_waits_for_the_answer_of_a_client_that_listens(pool: PgPool) {
    let (db, go_on) = (database(&pool, 2).await, Arc::new(Semaphore::new(0)));
    let conversation = conversation(&db).await;
    let service = Service::start(&db, gated(&go_on), PATIENCE).await;
    let mut events = Events::open(service.server, conversation.id, "Why?").await;
    assert_eq!(events.next().await.unwrap().0, "token");

    service.stop.send(()).unwrap();
    let address = service.server.0;
    eventually("nobody else is let in", async || TcpStream::connect(address).await.is_err()).await;
    assert!(!service.answers.is_closed() && !service.served.is_finished());
    go_on.add_permits(1);
    assert_eq!(events.rest().await.last().unwrap().0, "done");
    service.served.await.unwrap().unwrap();
    let closed = db.conversations().get_by_id(conversation.id).await;
    assert!(matches!(closed, Err(Error::PoolClosed)), "{closed:?}");
    assert_eq!(said(&Database::from_pool(pool), conversation.id).await, turn("Why?"));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_shutdown_waits_for_the_answer_of_a_client_that_is_gone(pool: PgPool) {
    let (db, go_on) = (database(&pool, 2).await, Arc::new(Semaphore::new(0)));
    let conversation = conversation(&db).await;
    let service = Service::start(&db, gated(&go_on), PATIENCE).await;
    let mut events = Events::open(service.server, conversation.id, "Why?").await;
    assert_eq!(events.next().await.unwrap().0, "token");
    drop(events);

    service.stop.send(()).unwrap();
    eventually("the last connection ends", async || service.answers.is_closed()).await;
    assert_eq!(service.answers.len(), 1);
    assert_eq!(said(&db, conversation.id).await, turn("Why?")[..1], "the database is open");
    go_on.add_permits(1);
    service.served.await.unwrap().unwrap();
    assert_eq!(said(&Database::from_pool(pool), conversation.id).await, turn("Why?"));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_shutdown_does_not_wait_for_ever(pool: PgPool) {
    let log = Log::start();
    let (db, never) = (database(&pool, 2).await, Arc::new(Semaphore::new(0)));
    let service = Service::start(&db, gated(&never), Duration::ZERO).await;
    let (listens, gone) = (conversation(&db).await, conversation(&db).await);
    let mut listening = Events::open(service.server, listens.id, "Why?").await;
    assert_eq!(listening.next().await.unwrap().0, "token");
    drop(Events::open(service.server, gone.id, "Why?").await);

    service.stop.send(()).unwrap();
    service.served.await.unwrap().unwrap();
    let log = log.text();
    assert!(log.contains("stopped before everything was answered"), "{log}");
    let db = Database::from_pool(pool);
    for conversation in [listens, gone] {
        assert_eq!(said(&db, conversation.id).await, turn("Why?")[..1]);
    }
}

/// As many answers at once as 40 such pools have connections: none of them holds one.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn two_hundred_answers_stream_at_once_over_five_connections(pool: PgPool) {
    const CHATS: usize = 200;
    let db = database(&pool, 5).await;
    let go_on = Arc::new(Semaphore::new(0));
    let server = service_with(&db, gated(&go_on)).await;
    let ada = user(&db).await;
    let conversations =
        try_join_all((0..CHATS).map(|_| db.conversations().create(ada.id, None))).await.unwrap();

    let streams = join_all(conversations.iter().map(async |conversation| {
        let mut events = Events::open(server, conversation.id, &conversation.id.to_string()).await;
        assert_eq!(events.next().await.unwrap().0, "token");
        events
    }))
    .await;
    // Every one has begun and none can end.
    assert_eq!(streams.len(), CHATS);
    all_connections_are_free(&db).await;
    eventually("all are given back", async || db.pool_status().in_use == 0).await;
    assert_eq!(db.pool_status().max, 5);

    go_on.add_permits(CHATS);
    let ends = join_all(streams.into_iter().map(Events::rest)).await;
    assert!(ends.iter().all(|events| events.last().unwrap().0 == "done"));
    for conversation in &conversations {
        assert_eq!(said(&db, conversation.id).await, turn(&conversation.id.to_string()));
    }
    db.close().await;
}
