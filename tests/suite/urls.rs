//! What people paste, tried at a server: with `psql` beside, where there is one.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use chancery::{ConfigError, Database, DatabaseConfig, Error};
use private_postgres::Server;
use sqlx::{Connection, Executor, PgConnection};

use crate::support::events::Events;
use crate::support::psql::psql;
use crate::support::unique;

/// What tells whether two clients understood the same.
const WHAT_IS_SEEN: &str = "select concat_ws('|', current_user, current_database(), \
     current_setting('search_path'), current_setting('work_mem'), \
     nullif(nullif(current_setting('application_name'), 'psql'), 'chancery'))";

/// Who takes a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Both, and see the same; or neither.
    Both,
    Neither,
    Chancery,
    Psql,
}

async fn seen(url: &str) -> Result<String, Error> {
    let db = Database::connect(&DatabaseConfig::from_url(url)?).await?;
    let seen = sqlx::query_scalar(WHAT_IS_SEEN).fetch_one(db.executor()).await?;
    db.close().await;
    Ok(seen)
}

/// A folder for a socket, as Cloud SQL names it.
struct SocketFolder(PathBuf);

impl SocketFolder {
    fn new() -> Self {
        let name = format!("chancery:{}:{}", std::process::id(), unique());
        let path = PathBuf::from("/tmp").join(name);
        fs::create_dir(&path).unwrap();
        // The server may run as another user.
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        Self(path)
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

const EMOJI: &str = "p\u{1F600}w";

/// In clear text, for speed, but for one who is asked as servers do by default.
const HBA: &str = "\
local all all password
host all smiling 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 password
host all all ::1/128 password
";

/// Asks for passwords, also on its socket.
async fn server(socket: &SocketFolder) -> Server {
    let server = Server::builder()
        .password("the superuser's")
        .setting("unix_socket_directories", socket.0.display().to_string())
        .setting("listen_addresses", "127.0.0.1,::1")
        .file("pg_hba.conf", HBA)
        .start()
        .unwrap();
    let mut connection = PgConnection::connect(&server.url("postgres")).await.unwrap();
    for statement in [
        r#"create database "app db""#.to_owned(),
        r#"create role "postgres.projectref" login password 'pw'"#.to_owned(),
        r#"create role "me@server" login password 'pw'"#.to_owned(),
        "create role plus login password 'a+b'".to_owned(),
        format!("create role smiling login password '{EMOJI}'"),
        format!("create role grinning login password '{EMOJI}'"),
    ] {
        connection.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
    connection.close().await.unwrap();
    server
}

#[tokio::test]
async fn a_url_connects_as_it_does_for_psql() {
    let socket = SocketFolder::new();
    let server = server(&socket).await;
    let port = server.port().to_string();
    let folder = socket.0.display().to_string();
    let encoded = folder.replace('/', "%2F").replace(':', "%3A");
    let mut cases: Vec<(String, By)> = [
        ("postgres://plus:a+b@HOST/postgres", By::Both),
        ("postgres://HOST/postgres?user=plus&password=a+b", By::Both),
        ("postgres://HOST/postgres?user=plus&password=a%2Bb", By::Both),
        ("postgres://plus:a%20b@HOST/postgres", By::Neither),
        ("postgres://plus:a%zz@HOST/postgres", By::Neither),
        ("postgres://postgres.projectref:pw@HOST/postgres", By::Both),
        ("postgresql://me%40server:pw@HOST/app%20db", By::Both),
        ("postgres://me@server:pw@HOST/postgres", By::Chancery),
        ("postgres://plus:a+b@HOST,127.0.0.1:1/postgres", By::Both),
        ("postgres://plus:a+b@127.0.0.1:1,HOST/postgres", By::Both),
        ("postgres://grinning:EMOJI@HOST/postgres", By::Both),
        ("postgres://grinning:p%F0%9F%98%80w@HOST/postgres", By::Both),
        // The driver insists on RFC 4013.
        ("postgres://smiling:EMOJI@HOST/postgres", By::Psql),
        // Sockets.
        ("postgres://plus:a+b@/postgres?host=FOLDER&port=PORT", By::Both),
        ("postgres://plus:a+b@/postgres?host=FOLDER&port=PORT&sslmode=require", By::Both),
        (
            "postgres://plus:a+b@/postgres?host=FOLDER&port=PORT&channel_binding=require",
            By::Neither,
        ),
        ("postgres://plus:a+b@ENCODED:PORT/postgres", By::Both),
        ("postgres://plus:a+b@localhost:PORT/postgres?host=FOLDER", By::Both),
        ("postgres://plus:a+b@:PORT/postgres?hostaddr=127.0.0.1", By::Both),
        ("postgres://plus:a+b@HOST/postgres?hostaddr=127.0.0.1", By::Psql),
        // No URLs, or not quite.
        ("\"postgres://plus:a+b@HOST/postgres\"", By::Chancery),
        ("jdbc:postgresql://HOST/postgres?user=plus&password=a+b", By::Neither),
        ("host=127.0.0.1 port=PORT user=plus password=a+b dbname=postgres", By::Psql),
        ("postgresql+psycopg2://plus:a+b@HOST/postgres", By::Chancery),
    ]
    .map(|(url, by)| (url.to_owned(), by))
    .into();
    for (parameters, by) in [
        ("options=-c%20search_path%3Da,%5C%20b%20-cwork_mem%3D3MB", By::Both),
        ("options=--work-mem%3D3MB", By::Both),
        ("options=-c%20work_mem=3MB", By::Chancery),
        ("options=-c+work_mem%3D3MB", By::Neither),
        ("options=-c%20work_mem", By::Neither),
        ("application_name=x%20y%2Bz", By::Both),
        ("application_name=x+y", By::Both),
        ("sslmode=disable", By::Both),
        ("sslmode=prefer", By::Both),
        ("sslmode=require", By::Neither),
        ("ssl=true", By::Neither),
        ("sslmode=nonsense", By::Neither),
        ("sslmode=verify-full&sslrootcert=/no/such/file", By::Neither),
        ("sslmode=prefer&sslrootcert=/no/such/file", By::Both),
        ("channel_binding=require", By::Neither),
        ("channel_binding=require&sslmode=disable", By::Neither),
        ("channel_binding=nonsense", By::Neither),
        ("keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3", By::Both),
        ("tcp_user_timeout=5000", By::Both),
        ("gssencmode=disable", By::Both),
        ("gssencmode=require", By::Neither),
        ("client_encoding=UTF8", By::Both),
        ("target_session_attrs=read-write", By::Both),
        ("connect_timeout=10", By::Both),
        ("connect_timeout=0", By::Psql),
        ("connect_timeout=2.5", By::Neither),
        ("password=", By::Chancery),
        ("unheard_of=1", By::Neither),
        ("pgbouncer=true&connection_limit=5&pool_timeout=2&schema=public", By::Chancery),
        ("prepared_statements=false", By::Chancery),
        ("schema=app", By::Chancery),
    ] {
        cases.push((format!("postgres://plus:a+b@HOST/postgres?{parameters}"), by));
    }
    // Where the machine has no IPv6, neither of them connects.
    let sixth = format!("postgres://plus:a+b@[::1]:{port}/postgres");
    cases.push((sixth.clone(), if seen(&sixth).await.is_ok() { By::Both } else { By::Neither }));

    for (url, expected) in cases {
        let url = url
            .replace("HOST", "127.0.0.1:PORT")
            .replace("PORT", &port)
            .replace("FOLDER", &folder)
            .replace("ENCODED", &encoded)
            .replace("EMOJI", EMOJI);
        let ours = seen(&url).await;
        let we_do = matches!(expected, By::Both | By::Chancery);
        assert_eq!(ours.is_ok(), we_do, "{url}: {ours:?}");
        let Some(theirs) = psql(&url, WHAT_IS_SEEN) else { continue };
        let psql_does = matches!(expected, By::Both | By::Psql);
        assert_eq!(theirs.is_ok(), psql_does, "{url}: psql: {theirs:?}");
        if expected == By::Both {
            assert_eq!(ours.unwrap(), theirs.unwrap(), "{url}");
        }
    }
    let schema =
        seen(&format!("postgres://plus:a+b@127.0.0.1:{port}/postgres?schema=my%20app")).await;
    assert!(schema.unwrap().contains(r#"|"my app"|"#));
}

#[tokio::test]
async fn a_password_that_the_driver_can_t_send_is_told_without_showing_it() {
    let server = Server::builder().password(EMOJI).start().unwrap();
    let url = format!("postgres://postgres:{EMOJI}@127.0.0.1:{}/postgres", server.port());
    let error = Database::connect(&DatabaseConfig::from_url(&url).unwrap()).await.unwrap_err();
    let of_the_password =
        matches!(error, Error::Config(ConfigError::OutOfRange { setting: "password", .. }));
    assert!(of_the_password, "{error:?}");
    let told = format!("{error} {error:?}");
    assert!(told.contains("scram-sha-256") && !told.contains('\u{1F600}'), "{told}");
}

#[tokio::test]
async fn parameters_without_effect_are_told_once_for_each_url_and_without_their_values() {
    let events = Events::capture();
    let config = DatabaseConfig::builder()
        .url("postgres://u@localhost/d?pgbouncer=canary&schema=public&keepalives=canary")
        .reader_url("postgres://u@localhost/d?pool_timeout=canary")
        .direct_url("postgres://u@localhost/d?sslmode=disable")
        .build()
        .unwrap();
    let db = Database::connect_lazy(&config);
    let told = events.take();
    let warnings: Vec<_> = told
        .iter()
        .map(|(_, _, text)| text)
        .filter(|text| text.contains("database.parameters_ignored"))
        .collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains(r#"url="url""#), "{warnings:?}");
    assert!(warnings[0].contains("pgbouncer, schema, keepalives"), "{warnings:?}");
    assert!(warnings[1].contains(r#"url="reader_url" parameters="pool_timeout""#), "{warnings:?}");
    assert!(!format!("{told:?}").contains("canary"));
    db.close().await;
}
