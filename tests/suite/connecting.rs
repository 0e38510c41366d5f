//! What is wrong with a connection is told apart, at once, and without the password.

use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use chancery::{ConfigError, Database, DatabaseConfig, Error};
use private_postgres::Server;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::timeout;

use crate::support::database::{PATIENCE, config, connect, url};

const PASSWORD: &str = "canary-password";

async fn refused(url: &str) -> Error {
    let config = DatabaseConfig::from_url(url).unwrap();
    let started = Instant::now();
    let error = Database::connect(&config).await.unwrap_err();
    assert!(started.elapsed() < PATIENCE, "took {:?}", started.elapsed());
    for shown in [format!("{error}"), format!("{error:?}")] {
        assert!(!shown.contains(PASSWORD), "{shown}");
    }
    error
}

/// Shows the error in the words that tell what to do.
fn says(error: &Error, words: &[&str]) {
    let shown = error.to_string();
    for word in words {
        assert!(shown.contains(word), "{shown:?} does not say {word:?}");
    }
}

/// `url`, with a password and another database.
fn changed(pool: &PgPool, change: impl FnOnce(&mut url::Url)) -> String {
    let mut url = url(pool);
    url.set_password(Some(PASSWORD)).unwrap();
    change(&mut url);
    url.into()
}

#[tokio::test]
async fn a_wrong_url_or_a_missing_variable_is_told_before_anything_is_tried() {
    let wrong = DatabaseConfig::from_url(&format!("mysql://ada:{PASSWORD}@localhost/app"));
    let error = Error::from(wrong.unwrap_err());
    assert!(matches!(error, Error::Config(ConfigError::InvalidUrl(_))), "{error:?}");
    says(&error, &["postgres://"]);
    assert!(!format!("{error}{error:?}").contains(PASSWORD));

    let missing = Error::from(DatabaseConfig::from_variables(|_| None).unwrap_err());
    says(&missing, &["DATABASE_URL is not set", "postgres://user:password@localhost:5432/"]);
}

#[tokio::test]
async fn a_closed_port_and_an_unknown_host_are_unreachable() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = refused(&format!("postgres://ada:{PASSWORD}@{free}/app")).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    says(&error, &[&free.to_string(), "is it running"]);

    let error = refused(&format!("postgres://ada:{PASSWORD}@no-such-host.invalid/app")).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    says(&error, &["no-such-host.invalid:5432", "host and port"]);

    let error = refused(&format!("postgres://ada:{PASSWORD}@/app?host=/no/such/folder")).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    says(&error, &["/no/such/folder/.s.PGSQL.5432"]);
}

#[tokio::test]
async fn a_listener_that_accepts_and_stays_silent_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let config = DatabaseConfig::builder()
        .url(&format!("postgres://ada:{PASSWORD}@{address}/app"))
        .connect_timeout(Duration::from_millis(100))
        .pool_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let error = timeout(PATIENCE, Database::connect(&config)).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::ConnectTimeout { .. }), "{error:?}");
    says(&error, &[&address.to_string(), "200ms", "DATABASE_POOL_TIMEOUT"]);
    assert!(!format!("{error}{error:?}").contains(PASSWORD));
}

/// As a server that goes down may do.
#[tokio::test]
async fn a_listener_that_hangs_up_when_it_is_asked_for_tls_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut request = [0; 8];
            _ = client.unwrap().read_exact(&mut request);
        }
    });
    let error = refused(&format!("postgres://ada:{PASSWORD}@{address}/app")).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    says(&error, &[&address.to_string()]);
}

#[tokio::test]
async fn a_wrong_password_is_told_with_the_user() {
    let server = Server::builder().password("the right one").start().unwrap();
    Database::connect(&DatabaseConfig::from_url(&server.url("postgres")).unwrap()).await.unwrap();
    let port = server.port();
    let error = refused(&format!("postgres://postgres:{PASSWORD}@127.0.0.1:{port}/postgres")).await;
    assert!(matches!(error, Error::AuthenticationFailed { .. }), "{error:?}");
    says(&error, &["\"postgres\"", "password"]);
    let error = refused(&format!("postgres://postgres@127.0.0.1:{port}/postgres")).await;
    assert!(matches!(error, Error::AuthenticationFailed { .. }), "{error:?}");
}

#[sqlx::test(migrations = false)]
async fn an_absent_database_is_told_by_name(pool: PgPool) {
    let error = refused(&changed(&pool, |url| url.set_path("no_such_database"))).await;
    assert!(matches!(error, Error::DatabaseMissing { .. }), "{error:?}");
    says(&error, &["\"no_such_database\"", "createdb"]);
}

#[sqlx::test(migrations = false)]
async fn a_server_without_tls_is_refused_when_tls_is_required(pool: PgPool) {
    let url = |mode| changed(&pool, |url| url.set_query(Some(mode)));
    let encrypted: String = sqlx::query_scalar("show ssl").fetch_one(&pool).await.unwrap();
    assert_eq!(encrypted, "off", "this test needs a server without TLS");
    for mode in ["sslmode=require", "ssl=verify-ca", "sslmode=verify-full"] {
        let error = refused(&url(mode)).await;
        assert!(matches!(error, Error::Tls(_)), "{error:?}");
        says(&error, &["TLS", "sslmode"]);
    }
    for mode in ["sslmode=prefer", "sslmode=disable"] {
        connect(DatabaseConfig::builder().url(&url(mode))).await.close().await;
    }
}

#[tokio::test]
async fn a_full_server_is_told_as_such() {
    let server = Server::builder()
        .setting("max_connections", "2")
        .setting("superuser_reserved_connections", "0")
        .setting("max_wal_senders", "0")
        .start()
        .unwrap();
    let url = server.url("postgres");
    let mut held = Vec::new();
    while let Ok(connection) = PgConnection::connect(&url).await {
        held.push(connection);
    }
    assert_eq!(held.len(), 2);
    let error = refused(&url).await;
    assert!(matches!(error, Error::TooManyConnections), "{error:?}");
    says(&error, &["max_connections"]);
}

#[sqlx::test(migrations = false)]
async fn settings_of_the_url_and_the_builder_reach_the_server(pool: PgPool) {
    let mut url = url(&pool);
    url.set_query(Some("application_name=from%20url&options=-c%20work_mem%3D1234kB"));
    let db = connect(
        config(&pool)
            .url(url.as_str())
            .statement_timeout(Duration::from_millis(1500))
            .idle_in_transaction_timeout(Duration::ZERO),
    )
    .await;
    for (setting, value) in [
        ("application_name", "from url"),
        ("work_mem", "1234kB"),
        ("statement_timeout", "1500ms"),
        ("idle_in_transaction_session_timeout", "0"),
        ("TimeZone", "UTC"),
    ] {
        let shown: String = sqlx::query_scalar("select current_setting($1)")
            .bind(setting)
            .fetch_one(db.executor())
            .await
            .unwrap();
        assert_eq!(shown, value, "{setting}");
    }
    db.close().await;
}

/// The environment can't be changed in a process with threads: this test runs itself as a child.
#[tokio::test]
async fn libpq_variables_have_no_effect() {
    const CHILD: &str = "CHANCERY_TEST_LIBPQ_VARIABLES";
    if std::env::var_os(CHILD).is_none() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "connecting::libpq_variables_have_no_effect", "--nocapture"]);
        child.env(CHILD, "1");
        for (name, nonsense) in [
            ("PGHOST", "no-such-host.invalid"),
            ("PGHOSTADDR", "192.0.2.1"),
            ("PGPORT", "1"),
            ("PGUSER", "nobody"),
            ("PGPASSWORD", PASSWORD),
            ("PGPASSFILE", "/no/such/file"),
            ("PGDATABASE", "no_such_database"),
            ("PGAPPNAME", "nonsense"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/no/such/file"),
            ("PGCONNECT_TIMEOUT", "0"),
        ] {
            child.env(name, nonsense);
        }
        let output = child.output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(shown.contains("the child connected"), "{shown}");
        return;
    }
    let url = std::env::var("DATABASE_URL").unwrap();
    let db = Database::connect(&DatabaseConfig::from_url(&url).unwrap()).await.unwrap();
    let (database, application): (String, String) =
        sqlx::query_as("select current_database(), current_setting('application_name')")
            .fetch_one(db.executor())
            .await
            .unwrap();
    assert!(url::Url::parse(&url).unwrap().path().ends_with(&database));
    assert_eq!(application, "chancery");

    // Where the URL leaves something out, this crate's defaults hold, not libpq's variables.
    let bare = DatabaseConfig::from_url("postgres://").unwrap();
    let shown = format!("{bare:?}");
    for expected in [r#"host: "localhost""#, "port: 5432", r#"user: "postgres""#, "Prefer"] {
        assert!(shown.contains(expected), "{shown}");
    }
    println!("the child connected");
}
