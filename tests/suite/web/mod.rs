//! The feature `axum`, over real sockets.

mod chat;
mod errors;
#[path = "../../../examples/axum_service/router.rs"]
mod router;
mod service;
mod unit_of_work;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Request, StatusCode};
use chancery::{Database, DatabaseConfig, DatabaseConfigBuilder};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sqlx::PgPool;
use tokio::net::{TcpListener, TcpStream};

/// The test's database through a pool of a given size, as an application has it.
pub async fn database(pool: &PgPool, size: u32) -> Database {
    Database::connect(&config(pool, size).build().unwrap()).await.unwrap()
}

pub fn config(pool: &PgPool, size: u32) -> DatabaseConfigBuilder {
    let name = pool.connect_options().get_database().unwrap().to_owned();
    let mut url = url::Url::parse(&std::env::var("DATABASE_URL").unwrap()).unwrap();
    url.set_path(&name);
    DatabaseConfig::builder().url(url.as_str()).pool_size(size).max_overflow(0)
}

/// A server that ends with the test's runtime.
#[derive(Clone, Copy)]
pub struct Server(SocketAddr);

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub async fn serve(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Server(address)
}

impl Server {
    pub async fn socket(self) -> TcpStream {
        TcpStream::connect(self.0).await.unwrap()
    }

    /// The response with its body still to come. It fails when the server closes the connection.
    pub async fn open(
        self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> hyper::Result<hyper::Response<Incoming>> {
        let socket = TokioIo::new(self.socket().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body.into()))
            .unwrap();
        sender.send_request(request).await
    }

    pub async fn send(self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let (parts, body) = self.open(method, path, body).await.unwrap().into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub async fn get(self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }

    pub async fn post(self, path: &str, body: Value) -> Answer {
        self.send("POST", path, body.to_string()).await
    }
}

/// What is logged on this thread, and so by the whole test: its runtime has one.
pub struct Log(Arc<Mutex<Vec<u8>>>, #[allow(dead_code)] tracing::subscriber::DefaultGuard);

struct Writer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub fn start() -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || Writer(writer.clone())).finish();
        Self(lines, crate::support::events::listen(subscriber))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Waits for something that happens by itself and that nothing tells of.
pub async fn eventually(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !happened().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, waiting).await.expect(what);
}

/// Shows that no connection of this pool is held: takes all of them.
pub async fn all_connections_are_free(db: &Database) {
    let mut taken = Vec::new();
    for _ in 0..db.pool_status().max {
        taken.push(db.begin().await.unwrap());
    }
}
