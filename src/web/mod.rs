//! For axum 0.8 (feature `axum`): the unit of work of a request, errors as responses, pages from
//! the query string.
//!
//! ```no_run
//! use axum::extract::{Path, State};
//! use axum::{Json, Router, middleware, routing};
//! use chancery::web::{self, TxAfter};
//! use chancery::{
//!     ConversationId, ConversationSummary, Database, Error, Message, NewMessage, Page, PageRequest,
//!     UserId,
//! };
//!
//! # fn app(db: Database) -> Router {
//! Router::new()
//!     .route("/users/{id}/conversations", routing::get(list))
//!     .route("/conversations/{id}/messages", routing::post(ask))
//!     .layer(middleware::from_fn_with_state(db.clone(), web::unit_of_work))
//!     .with_state(db)
//! # }
//!
//! // One statement: no unit of work is needed. `?size=20&after=…` is the page.
//! async fn list(
//!     State(db): State<Database>,
//!     Path(user_id): Path<UserId>,
//!     page: PageRequest,
//! ) -> chancery::Result<Json<Page<ConversationSummary>>> {
//!     Ok(Json(db.conversations().page_with_last_message(user_id, page).await?))
//! }
//!
//! // Several that belong together: stored when this returns Ok, undone when it returns Err.
//! async fn ask(
//!     Path(id): Path<ConversationId>,
//!     TxAfter(Json(text), mut tx): TxAfter<Json<String>>,
//! ) -> chancery::Result<Json<Message>> {
//!     tx.conversations().get_by_id(id).await?.ok_or(Error::NotFound("conversation"))?;
//!     Ok(Json(tx.messages().create(NewMessage::user(id, text)).await?))
//! }
//! ```
//!
//! # Which one a handler takes
//!
//! | the handler | takes |
//! |---|---|
//! | runs one statement, or several that need not commit together | `State<Database>` |
//! | runs several that must, and has no body | [`Tx`] |
//! | the same, with a body | [`TxAfter`]`<Json<…>>` |
//! | must be repeated when it collides with another | `State<Database>` and [`Database::transaction`] |
//! | waits for something else: a model, another service | `State<Database>`, as below |
//!
//! `State<Database>` works where the router's state is the [`Database`] (it is cheap to clone), or a
//! struct of the application's with `impl FromRef<App> for Database`.
//!
//! # How a request's unit of work ends
//!
//! | what happens | effect |
//! |---|---|
//! | the response is below 400 | commit, before the response leaves |
//! | the commit fails | the response is replaced by the error's |
//! | the response is 400 or above | rollback |
//! | a panic, or the client goes away before the handler is done | rollback |
//! | the client goes away during the commit | the commit runs to its end |
//! | the [`Tx`] outlives the handler (in the body's stream, in a task) | rollback, 500, an error in the log |
//!
//! So a client that reads a success knows that it is stored. A middleware between [`unit_of_work`]
//! and the handler that turns an error into a success also turns the rollback into a commit; put
//! such things outside of it.
//!
//! # How a chat handler must be written
//!
//! A model takes seconds to minutes to answer, and a pool has a few connections. A handler that holds
//! one while the model streams lets as many people chat as there are connections; the next one waits
//! for `pool_timeout` and gets a 503. PostgreSQL pays too: a transaction that is open that long holds
//! its locks and keeps vacuum from cleaning up, and `idle_in_transaction_timeout` ends it in the middle
//! of a long answer. And the process may be told to stop meanwhile. So: **read, store the question,
//! stream in a task that a shutdown waits for, then store the answer.**
//!
//! ```
//! use chancery::{ConversationId, Database, NewMessage};
//! use tokio_util::task::TaskTracker;
//!
//! async fn chat(
//!     db: Database,
//!     answers: TaskTracker,
//!     id: ConversationId,
//!     question: String,
//! ) -> chancery::Result<()> {
//!     // Read, then store the question. Each statement hands its connection back when it ends.
//!     let history = db.messages().get_last_n(id, 20).await?;
//!     let question = db.messages().create(NewMessage::user(id, question)).await?;
//!
//!     answers.spawn(async move {
//!         // Stream. No connection is in use here, however long it takes.
//!         let answer = model(history, &question.content).await;
//!
//!         // Store the answer: one statement.
//!         if let Err(error) = db.messages().create(NewMessage::assistant(id, answer)).await {
//!             tracing::error!(%error, "an answer was not stored");
//!         }
//!     });
//!     Ok(())
//! }
//!
//! /// After the server has ended, or there may be new ones.
//! async fn shut_down(db: Database, answers: TaskTracker) {
//!     answers.close();
//!     answers.wait().await;
//!     db.close().await;
//! }
//! # async fn model(_: Vec<chancery::Message>, _: &str) -> String { String::new() }
//! ```
//!
//! * Not with [`Tx`]: it ends when the handler returns, which for a streamed answer is before the
//!   first token. One that is moved into the stream is never committed; the layer answers 500
//!   instead of beginning a stream whose work would be lost.
//! * Status and headers are gone when the answer has to be stored. Tell the client in the stream's
//!   last event whether it was.
//! * Let a task of its own drive the model and store the answer. The handler's future and the body end
//!   when the client goes away, and an answer that was paid for would be lost with them. For the same
//!   reason the task does not wait for a client that reads slowly.
//! * Wait for these tasks before [`Database::close`], and not for ever: axum's graceful shutdown waits
//!   for the clients that are connected, and for nobody else's answer. Neither has a bound of its own.
//! * A question may have no answer: the model failed, or the process was killed. It stays in the
//!   history. A client that gives its question an identifier ([`NewMessage::id`]) can ask once more
//!   without storing it twice; while the first answer is still being given, that is a second answer.
//! * A conversation that does not exist refuses the question
//!   ([`Error::ForeignKey`](crate::Error::ForeignKey), a 404), and one that was deleted meanwhile the
//!   answer.
//!
//! `examples/axum_service` is a whole service written this way; a test has 200 answers streaming at
//! once over five connections.
//!
//! [`Database`]: crate::Database
//! [`Database::close`]: crate::Database::close
//! [`Database::transaction`]: crate::Database::transaction
//! [`NewMessage::id`]: crate::NewMessage::id

mod error;
mod page;
mod unit_of_work;

pub use error::status;
pub use unit_of_work::{Tx, TxAfter, TxRejection, unit_of_work};
