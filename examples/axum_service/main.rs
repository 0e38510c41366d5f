//! A chat service: axum in front of the repositories.
//!
//! ```sh
//! cargo run --example axum_service
//! ```
//!
//! It starts a private PostgreSQL that ends with it, or uses the server that DATABASE_URL names, and
//! listens on ADDRESS (127.0.0.1:3000 unless set). `router.rs` is the part to copy.

mod router;

use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use chancery::{Database, DatabaseConfig, Message};
use futures_util::stream::{self, BoxStream, StreamExt};
use router::{App, Model, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

/// How long a shutdown waits for the last answers. What sends SIGTERM must wait longer before it sends
/// SIGKILL: Kubernetes waits 30 seconds and Docker 10 unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().init();

    let url = private_postgres::database_url()?;
    let config = DatabaseConfig::from_variables(|name| match name {
        "DATABASE_URL" => Some(url.clone()),
        other => std::env::var(other).ok(),
    })?;
    let db = Database::connect(&config).await?;
    db.migrate().await?;

    let environment = std::env::var("ENVIRONMENT").unwrap_or_else(|_| "development".into());
    let app = App { db, model: Arc::new(Parrot), answers: TaskTracker::new(), environment };

    let address = std::env::var("ADDRESS").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}", listener.local_addr()?);

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    serve(listener, app, stop, PATIENCE).await?;
    Ok(())
}

/// Stands in for a model: it repeats the question, a word at a time.
struct Parrot;

impl Model for Parrot {
    fn answer(
        &self,
        _: Vec<Message>,
        question: &str,
    ) -> BoxStream<'static, Result<String, BoxError>> {
        let words: Vec<_> = question.split_inclusive(' ').map(str::to_owned).collect();
        stream::iter(words)
            .then(|word| async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(word)
            })
            .boxed()
    }
}
