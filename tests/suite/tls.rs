//! Encryption: certificates are made here, the server is real, and every host is this machine.
//!
//! `LOCALHOST` is a name that leads here and that the crate does not know to: what holds for it holds
//! for every other machine. (Names of hosts are compared without regard to case, by certificates too.)

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chancery::{ConfigError, Database, DatabaseConfig, DatabaseConfigBuilder, Error, SslMode};
use private_postgres::Server;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

use crate::support::psql::psql;
use crate::support::unique;

/// Signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key, both in PEM form.
struct Certificate {
    pem: String,
    key: String,
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, params: &CertificateParams) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certificate {
            pem: pem("CERTIFICATE", certificate.der()),
            key: pem("PRIVATE KEY", &key.serialize_der()),
        }
    }

    fn server(&self, host: &str) -> Certificate {
        self.sign(&CertificateParams::new([host.to_owned()]).unwrap())
    }

    fn client(&self, user: &str) -> Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        self.sign(&params)
    }
}

/// A folder that goes away again.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("chancery-tls-{}-{}", std::process::id(), unique());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn serving(certificate: &Certificate) -> private_postgres::Builder {
    Server::builder()
        .setting("ssl", "on")
        .file("server.crt", &certificate.pem)
        .file("server.key", &certificate.key)
}

/// From now on with this certificate.
fn serve(server: &Server, certificate: &Certificate) {
    fs::write(server.data_dir().join("server.crt"), &certificate.pem).unwrap();
    fs::write(server.data_dir().join("server.key"), &certificate.key).unwrap();
    server.restart().unwrap();
}

fn at(server: &Server, host: &str) -> DatabaseConfigBuilder {
    let url = format!("postgres://postgres@{host}:{}/postgres", server.port());
    DatabaseConfig::builder().url(&url).pool_size(1).connect_timeout(Duration::from_secs(5))
}

/// Whether the connection is encrypted.
async fn encrypted(config: DatabaseConfigBuilder) -> Result<bool, Error> {
    let db = Database::connect(&config.build()?).await?;
    let ssl = sqlx::query_scalar("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        .fetch_one(db.executor())
        .await?;
    db.close().await;
    Ok(ssl)
}

#[track_caller]
fn refused(outcome: Result<bool, Error>, why: &str) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Tls(_)), "{error:?}");
    let shown = error.to_string();
    assert!(shown.contains(why) && shown.contains("sslrootcert"), "{shown:?} does not say {why:?}");
}

#[tokio::test]
async fn another_machine_must_show_a_certificate_that_is_right() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = serving(&ours.server("localhost")).start().unwrap();
    let far = || at(&server, "LOCALHOST");
    let trusting = || far().ssl_root_cert_pem(ours.pem.clone());

    assert!(encrypted(trusting()).await.unwrap(), "the right authority");
    refused(encrypted(far()).await, "UnknownIssuer");
    refused(encrypted(far().ssl_root_cert_pem(theirs.pem.clone())).await, "UnknownIssuer");
    let impostor = Authority::new("ours");
    refused(encrypted(far().ssl_root_cert_pem(impostor.pem)).await, "BadSignature");
    refused(encrypted(far().ssl_mode(SslMode::VerifyCa)).await, "UnknownIssuer");
    assert!(encrypted(far().ssl_mode(SslMode::Require)).await.unwrap(), "told otherwise by name");

    // The authority, from a file: named by the builder and by the URL.
    let folder = Folder::new();
    let (right, wrong) =
        (folder.file("right.pem", &ours.pem), folder.file("wrong.pem", &theirs.pem));
    assert!(encrypted(far().ssl_root_cert(&right)).await.unwrap());
    refused(encrypted(far().ssl_root_cert(&wrong)).await, "UnknownIssuer");
    let url = |path: &PathBuf| {
        let port = server.port();
        format!("postgres://postgres@LOCALHOST:{port}/postgres?sslrootcert={}", path.display())
    };
    assert!(encrypted(DatabaseConfig::builder().url(&url(&right))).await.unwrap());
    refused(encrypted(DatabaseConfig::builder().url(&url(&wrong))).await, "UnknownIssuer");

    // This machine is trusted, and encrypted where it can be.
    for host in ["localhost", "127.0.0.1"] {
        assert!(encrypted(at(&server, host)).await.unwrap(), "{host}");
    }

    serve(&server, &ours.server("elsewhere.example"));
    refused(encrypted(trusting()).await, "not valid for name");
    assert!(encrypted(trusting().ssl_mode(SslMode::VerifyCa)).await.unwrap());

    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2020, 1, 1);
    serve(&server, &ours.sign(&params));
    refused(encrypted(trusting()).await, "expired");
    refused(encrypted(trusting().ssl_mode(SslMode::VerifyCa)).await, "expired");
    params.not_before = date_time_ymd(4000, 1, 1);
    params.not_after = date_time_ymd(4001, 1, 1);
    serve(&server, &ours.sign(&params));
    refused(encrypted(trusting()).await, "not valid yet");

    // A server without TLS, or somebody who says so in its place.
    fs::write(server.data_dir().join("postgresql.auto.conf"), "ssl = off\n").unwrap();
    server.restart().unwrap();
    refused(encrypted(trusting()).await, "does not support TLS");
    refused(encrypted(far().ssl_mode(SslMode::Require)).await, "does not support TLS");
    for mode in [SslMode::Prefer, SslMode::Disable] {
        assert!(!encrypted(far().ssl_mode(mode)).await.unwrap(), "told otherwise by name");
    }
    assert!(!encrypted(at(&server, "localhost")).await.unwrap());
}

/// The driver can't bind the channel, so the certificate must protect it.
#[tokio::test]
async fn with_channel_binding_a_wrong_certificate_does_not_connect() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = serving(&ours.server("localhost")).start().unwrap();
    let binding = |host: &str, mode: &str| {
        let parameters = format!("?channel_binding=require{mode}");
        let port = server.port();
        at(&server, host).url(&format!("postgres://postgres@{host}:{port}/postgres{parameters}"))
    };
    let modes = ["", "&sslmode=prefer", "&sslmode=require", "&ssl=true", "&sslmode=verify-ca"];
    for (host, mode) in modes.map(|mode| [("localhost", mode), ("LOCALHOST", mode)]).concat() {
        refused(encrypted(binding(host, mode)).await, "UnknownIssuer");
        let wrong = binding(host, mode).ssl_root_cert_pem(theirs.pem.clone());
        refused(encrypted(wrong).await, "UnknownIssuer");
        let right = binding(host, mode).ssl_root_cert_pem(ours.pem.clone());
        assert!(encrypted(right).await.unwrap(), "{host} {mode}");
    }
    for mode in [SslMode::Prefer, SslMode::Require, SslMode::VerifyCa] {
        refused(encrypted(binding("localhost", "").ssl_mode(mode)).await, "UnknownIssuer");
    }
    serve(&server, &ours.server("elsewhere.example"));
    for mode in modes {
        let right = binding("localhost", mode).ssl_root_cert_pem(ours.pem.clone());
        refused(encrypted(right).await, "not valid for name");
    }
}

#[tokio::test]
async fn a_root_certificate_is_used_as_psql_does() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = serving(&ours.server("localhost")).start().unwrap();
    let folder = Folder::new();
    let right = folder.file("right.pem", &ours.pem);
    let wrong = folder.file("wrong.pem", &theirs.pem);
    let check = async |mode: &str, root: &PathBuf, connects: bool| {
        let (port, root) = (server.port(), root.display());
        let url = format!(
            "postgres://postgres@localhost:{port}/postgres?sslmode={mode}&sslrootcert={root}"
        );
        let outcome = encrypted(DatabaseConfig::builder().url(&url)).await;
        assert_eq!(outcome.is_ok(), connects, "{url}: {outcome:?}");
        if let Some(theirs) = psql(&url, "select 1") {
            assert_eq!(theirs.is_ok(), connects, "{url}: psql: {theirs:?}");
        }
    };
    for mode in ["require", "verify-ca", "verify-full"] {
        check(mode, &right, true).await;
        check(mode, &wrong, false).await;
    }
    serve(&server, &ours.server("elsewhere.example"));
    check("require", &right, true).await;
    check("verify-ca", &right, true).await;
    check("verify-full", &right, false).await;

    // The same by the builder, and the authorities that are trusted everywhere: ours is not one.
    let require = at(&server, "localhost").ssl_mode(SslMode::Require);
    refused(
        encrypted(require.clone().ssl_root_cert_pem(theirs.pem.clone())).await,
        "UnknownIssuer",
    );
    assert!(encrypted(require.ssl_root_cert_pem(ours.pem.clone())).await.unwrap());
    let port = server.port();
    let system = format!("postgres://postgres@localhost:{port}/postgres?sslrootcert=system");
    refused(encrypted(DatabaseConfig::builder().url(&system)).await, "UnknownIssuer");
}

#[tokio::test]
async fn a_root_certificate_that_is_gone_is_told_by_its_path_and_not_waited_for() {
    let ours = Authority::new("ours");
    let server = serving(&ours.server("localhost")).start().unwrap();
    let folder = Folder::new();
    let root = folder.file("root.pem", &ours.pem);
    // Who waits for a server to come back does so for this long.
    let config = at(&server, "LOCALHOST").ssl_root_cert(&root).max_overflow(0);
    let config = config.pool_timeout(Duration::from_secs(600)).build().unwrap();
    let db = Database::connect(&config).await.unwrap();
    let told = |error: Error| {
        let expected =
            matches!(&error, Error::Config(ConfigError::File { path, .. }) if *path == root);
        assert!(expected, "{error:?}");
    };
    fs::remove_file(&root).unwrap();
    told(Database::connect(&config).await.unwrap_err());
    told(sqlx::query("select 1").execute(db.executor()).await.unwrap_err().into());
    folder.file("root.pem", "no longer a certificate");
    told(sqlx::query("select 1").execute(db.executor()).await.unwrap_err().into());
    folder.file("root.pem", &ours.pem);
    sqlx::query("select 1").execute(db.executor()).await.unwrap();
    db.close().await;
}

/// The lost connection's successor is held to the same.
#[tokio::test]
async fn a_server_that_comes_back_with_another_certificate_is_not_spoken_to() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = serving(&ours.server("localhost")).start().unwrap();
    let config = at(&server, "LOCALHOST").ssl_root_cert_pem(ours.pem.clone()).max_overflow(0);
    let config = config.pool_timeout(Duration::from_secs(2)).build().unwrap();
    let db = Database::connect(&config).await.unwrap();
    sqlx::query("select 1").execute(db.executor()).await.unwrap();
    serve(&server, &theirs.server("localhost"));
    // The first may find the old connection broken, the second has none.
    let _ = sqlx::query("select 1").execute(db.executor()).await;
    let error = Error::from(sqlx::query("select 1").execute(db.executor()).await.unwrap_err());
    assert!(matches!(error, Error::Tls(_)), "{error:?}");
    serve(&server, &ours.server("localhost"));
    sqlx::query("select 1").execute(db.executor()).await.unwrap();
    db.close().await;
}

#[tokio::test]
async fn a_server_that_asks_for_a_client_s_certificate_gets_it() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = serving(&ours.server("localhost"))
        .setting("ssl_ca_file", "root.crt")
        .file("root.crt", &ours.pem)
        .file("pg_hba.conf", "hostssl all all 127.0.0.1/32 cert\n")
        .start()
        .unwrap();
    let folder = Folder::new();
    let files = |certificate: &Certificate, name: &str| {
        (
            folder.file(&format!("{name}.crt"), &certificate.pem),
            folder.file(&format!("{name}.key"), &certificate.key),
        )
    };
    let (cert, key) = files(&ours.client("postgres"), "right");
    let trusting = || at(&server, "LOCALHOST").ssl_root_cert_pem(ours.pem.clone());
    assert!(encrypted(trusting().ssl_client_cert(&cert, &key)).await.unwrap());
    let url = format!(
        "postgres://postgres@localhost:{}/postgres?sslmode=verify-full&sslcert={}&sslkey={}",
        server.port(),
        cert.display(),
        key.display()
    );
    let by_url = DatabaseConfig::builder().url(&url).ssl_root_cert_pem(ours.pem.clone());
    assert!(encrypted(by_url).await.unwrap());

    let (cert, key) = files(&theirs.client("postgres"), "wrong");
    let (other_cert, other_key) = files(&ours.client("somebody"), "somebody");
    for config in [
        trusting(),
        trusting().ssl_client_cert(cert, key),
        trusting().ssl_client_cert(other_cert, other_key),
    ] {
        let error = encrypted(config).await.unwrap_err();
        let expected = matches!(
            error,
            Error::AuthenticationFailed { .. } | Error::Tls(_) | Error::Unreachable { .. }
        );
        assert!(expected, "{error:?}");
    }
}
