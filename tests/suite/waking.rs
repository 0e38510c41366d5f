//! Servers that take a connection long before they answer, as a serverless database does when it wakes.

use std::time::Duration;

use chancery::{Database, DatabaseConfig, DatabaseConfigBuilder, Error};
use sqlx::PgPool;

use crate::support::database::{eventually, url};
use crate::support::proxy::Proxy;

/// By way of a proxy that holds back everything, and with far less time to connect than to wait.
async fn asleep(pool: &PgPool) -> (Proxy, DatabaseConfig) {
    let proxy = Proxy::start(&url(pool), Duration::ZERO).await;
    proxy.go_silent();
    let config = DatabaseConfig::builder().url(proxy.url(&url(pool)).as_str());
    (proxy, impatient(config).build().unwrap())
}

fn impatient(config: DatabaseConfigBuilder) -> DatabaseConfigBuilder {
    config.connect_timeout(Duration::from_millis(50)).pool_timeout(Duration::from_secs(60))
}

/// Waits until the connect timeout has passed, which shows in that others were tried as well.
async fn overslept(proxy: &Proxy, before: usize) {
    eventually("another connection is tried", async || proxy.opened() >= before + 3).await;
}

async fn call(db: &Database) -> i32 {
    sqlx::query_scalar("select 1").fetch_one(db.executor()).await.unwrap()
}

#[sqlx::test(migrations = false)]
async fn a_server_that_wakes_after_the_connect_timeout_is_connected_to(pool: PgPool) {
    let (proxy, config) = asleep(&pool).await;
    let connecting = tokio::spawn(async move { Database::connect(&config).await });
    overslept(&proxy, 0).await;
    proxy.resume();
    let db = connecting.await.unwrap().unwrap();
    assert_eq!(call(&db).await, 1);
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn a_call_gets_through_to_a_server_that_wakes_within_the_pool_timeout(pool: PgPool) {
    let (proxy, config) = asleep(&pool).await;
    let db = Database::connect_lazy(&config);
    let calling = tokio::spawn({
        let db = db.clone();
        async move { call(&db).await }
    });
    overslept(&proxy, 0).await;
    proxy.resume();
    assert_eq!(calling.await.unwrap(), 1);

    // And when it has fallen asleep again.
    db.close().await;
    let db = Database::connect(&config).await.unwrap();
    proxy.go_silent();
    let before = proxy.opened();
    let calling = tokio::spawn({
        let db = db.clone();
        async move { call(&db).await }
    });
    eventually("another connection is tried", async || proxy.opened() >= before + 2).await;
    proxy.resume();
    assert_eq!(calling.await.unwrap(), 1);
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn an_attempt_that_was_lost_is_made_again(pool: PgPool) {
    let (proxy, config) = asleep(&pool).await;
    let connecting = tokio::spawn(async move { Database::connect(&config).await });
    eventually("it is tried", async || proxy.opened() >= 1).await;
    proxy.resume_for_new_ones();
    let db = connecting.await.unwrap().unwrap();

    // The same for a connection of the pool's.
    proxy.go_silent();
    let before = proxy.opened();
    let calling = tokio::spawn({
        let db = db.clone();
        async move { call(&db).await }
    });
    eventually("it is tried", async || proxy.opened() > before).await;
    proxy.resume_for_new_ones();
    assert_eq!(calling.await.unwrap(), 1);
    db.close().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_host_that_takes_no_connection_is_given_up_at_the_connect_timeout() {
    // Nobody accepts, and the queue is full: what comes next is not answered at all.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(taken) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))
    {
        queue.push(taken);
        assert!(queue.len() < 100, "the queue is never full");
    }
    let config = DatabaseConfig::builder().url(&format!("postgres://ada@{address}/app"));
    let error = Database::connect(&impatient(config).build().unwrap()).await.unwrap_err();
    let told = matches!(error, Error::ConnectTimeout { timeout, .. } if timeout.as_millis() == 50);
    assert!(told, "{error:?}");
}
