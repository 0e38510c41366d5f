//! What providers and other libraries print, and what people make of it.

use super::*;

/// What is understood: user, password, hosts with ports, database, encryption, the session's settings, and
/// what has no effect.
fn understood(config: &DatabaseConfig) -> String {
    let server = &config.server;
    let hosts: Vec<_> = server.hosts().map(|(host, port)| format!("{host}:{port}")).collect();
    let password = server.password.as_ref().map_or("", |password| password.expose_secret());
    let mut text = format!(
        "{}:{password}@{}/{} {:?}",
        server.user,
        hosts.join(","),
        server.database,
        server.ssl_mode()
    );
    for (name, value) in &server.options {
        text += &format!(" {name}={value}");
    }
    if !server.ignored.is_empty() {
        text += &format!(" (not {})", server.ignored.join(", "));
    }
    text
}

#[test]
fn what_providers_and_other_libraries_print_is_understood() {
    for (url, expected) in [
        // Neon, with its pooler, as its own docs and Vercel's have it.
        (
            "postgresql://me:npg_x@ep-x-pooler.us-east-2.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
            "me:npg_x@ep-x-pooler.us-east-2.aws.neon.tech:5432/neondb VerifyFull",
        ),
        (
            "postgresql+asyncpg://me:pw@ep-x.neon.tech/neondb?ssl=require",
            "me:pw@ep-x.neon.tech:5432/neondb Require",
        ),
        (
            "postgres://me:pw@ep-x.neon.tech/neondb?sslmode=require&options=endpoint%3Dep-x&connect_timeout=15",
            "me:pw@ep-x.neon.tech:5432/neondb Require (not options (endpoint))",
        ),
        (
            "postgres://u:p@ep-x-pooler.neon.tech/verceldb?sslmode=require&pgbouncer=true&supa=base-pooler.x",
            "u:p@ep-x-pooler.neon.tech:5432/verceldb Require (not pgbouncer, supa)",
        ),
        // Supabase, its poolers.
        (
            "postgresql://postgres.abcdefgh:pw@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1",
            "postgres.abcdefgh:pw@aws-0-eu-central-1.pooler.supabase.com:6543/postgres VerifyFull (not pgbouncer, connection_limit)",
        ),
        // Heroku, Railway, Render, Fly, DigitalOcean.
        (
            "postgres://u0:p0@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d0",
            "u0:p0@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d0 VerifyFull",
        ),
        (
            "postgresql://postgres:pw@postgres.railway.internal:5432/railway",
            "postgres:pw@postgres.railway.internal:5432/railway VerifyFull",
        ),
        ("postgresql://u:pw@dpg-x-a/app", "u:pw@dpg-x-a:5432/app VerifyFull"),
        ("postgres://u:pw@x.flycast:5432/u?sslmode=disable", "u:pw@x.flycast:5432/u Disable"),
        (
            "postgresql://doadmin:pw@db-do-user-1-0.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
            "doadmin:pw@db-do-user-1-0.b.db.ondigitalocean.com:25060/defaultdb Require",
        ),
        // Google Cloud SQL: a socket, in the parameters and before the path.
        (
            "postgresql://u:pw@/app?host=/cloudsql/project:region:instance",
            "u:pw@/cloudsql/project:region:instance:5432/app Prefer",
        ),
        (
            "postgresql+psycopg2://u:pw@/app?host=/cloudsql/p:r:i&sslmode=require",
            "u:pw@/cloudsql/p:r:i:5432/app Require",
        ),
        ("postgres://u:pw@%2Fcloudsql%2Fp%3Ar%3Ai/app", "u:pw@/cloudsql/p:r:i:5432/app Prefer"),
        (
            "postgres://u:pw@localhost/app?host=/cloudsql/p:r:i",
            "u:pw@/cloudsql/p:r:i:5432/app Prefer",
        ),
        // Azure: the user's name holds an @.
        (
            "postgres://me%40server:pw@server.postgres.database.azure.com/postgres?sslmode=require",
            "me@server:pw@server.postgres.database.azure.com:5432/postgres Require",
        ),
        (
            "postgres://me@server:pw@server.postgres.database.azure.com/postgres?sslmode=require",
            "me@server:pw@server.postgres.database.azure.com:5432/postgres Require",
        ),
        // CockroachDB.
        (
            "postgresql://u:pw@free-tier.cockroachlabs.cloud:26257/defaultdb?sslmode=verify-full&options=--cluster%3Dname-123",
            "u:pw@free-tier.cockroachlabs.cloud:26257/defaultdb VerifyFull cluster=name-123",
        ),
        // Prisma.
        (
            "postgresql://u:pw@localhost:5432/app?schema=public&connection_limit=5&pool_timeout=2&socket_timeout=3&statement_cache_size=0",
            "u:pw@localhost:5432/app Prefer (not schema, connection_limit, pool_timeout, socket_timeout, statement_cache_size)",
        ),
        (
            "postgresql://u:pw@localhost/app?schema=my%20\"app\"",
            "u:pw@localhost:5432/app Prefer search_path=\"my \"\"app\"\"\"",
        ),
        // SQLAlchemy, Django, Rails, node, pgx.
        ("postgresql+psycopg://u:pw@localhost/app", "u:pw@localhost:5432/app Prefer"),
        (
            "postgresql+asyncpg://u:pw@db.example/app?ssl=true&prepared_statement_cache_size=0",
            "u:pw@db.example:5432/app Require (not prepared_statement_cache_size)",
        ),
        (
            "postgres://u:pw@db.example/app?pool=5&prepared_statements=false&encoding=unicode",
            "u:pw@db.example:5432/app VerifyFull (not pool, prepared_statements)",
        ),
        ("postgres://u:pw@db.example/app?sslmode=no-verify", "u:pw@db.example:5432/app Require"),
        (
            "postgres://u:pw@db.example/app?sslmode=require&uselibpqcompat=true",
            "u:pw@db.example:5432/app Require (not uselibpqcompat)",
        ),
        (
            "postgres://u:pw@localhost/app?pool_max_conns=10&pool_max_conn_lifetime=1h",
            "u:pw@localhost:5432/app Prefer (not pool_max_conns, pool_max_conn_lifetime)",
        ),
        // libpq's own, with what the driver does anyway and what nobody misses.
        (
            "postgres://u@localhost/app?keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3&tcp_user_timeout=5000",
            "u:@localhost:5432/app Prefer (not keepalives, keepalives_idle, keepalives_interval, keepalives_count, tcp_user_timeout)",
        ),
        (
            "postgres://u@localhost/app?gssencmode=disable&sslsni=1&client_encoding=UTF8&channel_binding=prefer&sslnegotiation=postgres",
            "u:@localhost:5432/app Prefer",
        ),
        (
            "postgres://u@db.example/app?sslmode=require&sslnegotiation=direct&sslsni=0",
            "u:@db.example:5432/app Require (not sslnegotiation, sslsni)",
        ),
        ("postgres://u@db.example/app?sslrootcert=system", "u:@db.example:5432/app VerifyFull"),
        ("postgres://u@localhost/app?sslrootcert=system", "u:@localhost:5432/app VerifyFull"),
        ("postgres://u@localhost/app?channel_binding=require", "u:@localhost:5432/app VerifyFull"),
        (
            "postgres://u@localhost/app?sslmode=prefer&sslrootcert=/no/such/file",
            "u:@localhost:5432/app Prefer (not sslrootcert)",
        ),
        ("postgres://u@/app?hostaddr=127.0.0.1", "u:@127.0.0.1:5432/app Prefer"),
        (
            "postgres://u@localhost:5433/app?host=&sslmode=&connect_timeout=",
            "u:@localhost:5433/app Prefer",
        ),
        ("postgres://u@db:5433/app?host=a,b&sslmode=disable", "u:@a:5433,b:5433/app Disable"),
        ("postgres://u@[::1]:5433/app", "u:@::1:5433/app Prefer"),
        ("postgres://%2Fvar%2Frun/app", "postgres:@/var/run:5432/app Prefer"),
        ("postgres://ada@localhost", "ada:@localhost:5432/ada Prefer"),
        ("postgres://", "postgres:@localhost:5432/postgres Prefer"),
        ("postgres://:5433/", "postgres:@localhost:5433/postgres Prefer"),
        // Each character is itself, or percent-encoded.
        ("postgres://u:a+b@localhost/d", "u:a+b@localhost:5432/d Prefer"),
        ("postgres:///d?user=u&password=a+b", "u:a+b@localhost:5432/d Prefer"),
        ("postgres:///d?user=u&password=a%2Bb=%26", "u:a+b=&@localhost:5432/d Prefer"),
        ("postgres://u:p\u{1F600}w@localhost/d", "u:p\u{1F600}w@localhost:5432/d Prefer"),
        ("postgres://u:p%F0%9F%98%80w@localhost/d", "u:p\u{1F600}w@localhost:5432/d Prefer"),
        ("postgres://u:p[w]^|\"@localhost/a/../b", "u:p[w]^|\"@localhost:5432/a/../b Prefer"),
        // The quotation marks that `docker --env-file` leaves.
        ("\"postgres://u:pw@localhost/d\"", "u:pw@localhost:5432/d Prefer"),
        (" 'postgres://u:pw@localhost/d'\n", "u:pw@localhost:5432/d Prefer"),
        // The server's options, as it reads them itself.
        (
            "postgres://u@localhost/d?options=-c%20search_path%3Da,%5C%20b%20-cgeqo=off%20--work-mem=1MB",
            "u:@localhost:5432/d Prefer search_path=a, b geqo=off work-mem=1MB",
        ),
        (
            "postgres://u@localhost/d?options=-c%09a.b=%5C%5Cx%5C-%20%20&schema=s",
            "u:@localhost:5432/d Prefer a.b=\\x- search_path=\"s\"",
        ),
    ] {
        let config = DatabaseConfig::from_url(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(understood(&config), expected, "{url}");
    }
}

#[test]
fn what_can_t_be_kept_is_refused_with_what_to_write_instead() {
    let parameter = |pair: &str| format!("postgres://u:s3cret@db.example/d?{pair}");
    let mut cases: Vec<(String, &str)> = [
        // Something else than a URL.
        ("jdbc:postgresql://h/d?user=u&password=s3cret", "before postgresql://"),
        ("r2dbc:postgresql://u:s3cret@h/d", "before postgresql://"),
        ("psql 'postgresql://u:s3cret@h/d'", "leave out what stands before postgres://"),
        ("DATABASE_URL=postgres://u:s3cret@h/d", "leave out what stands before postgres://"),
        ("\"postgres://u:s3cret@h/d", "leave out what stands before postgres://"),
        ("host=h dbname=d user=u password=s3cret", "postgres://user:password@host:port/database"),
        ("Host=h;Username=u;Password=s3cret", "postgres://user:password@host:port/database"),
        ("prisma+postgres://accelerate.example/?api_key=s3cret", "Prisma"),
        ("mysql://u:s3cret@h/d", "must begin with postgres://"),
        ("postgresql://postgres.ref:[YOUR-PASSWORD]@h:6543/postgres", "placeholder"),
        // Parts of one that can't be understood.
        ("postgres://u:s3cret%zz@h/d", "write % as %25"),
        ("postgres://u:s3cret/@h/d", "write / as %2F"),
        ("postgres://u:s3cret@::1/d", "[ ]"),
        ("postgres://u:s3cret@[h]/d", "IPv6"),
        ("postgres://u:s3cret@[::1]5432/d", "port"),
        ("postgres://u:s3cret@h /d", "host"),
        ("postgres://u:s3cret@/d?host=/cloudsql/p:r:i/.s.PGSQL.5432", "its folder"),
        ("postgres://u@h/d?password=s3&cret", "write & in a value as %26"),
        ("postgres://u@h/d?password=s3&cret=1", "write & in a password as %26"),
        ("postgres://u:s3cret@h/d?hostaddr=127.0.0.1", "in its place"),
        ("postgres://u:s3cret@h,i:5433/d?host=a,b,c", "another number of ports"),
        // TLS that can't be kept.
        ("postgres://u:s3cret@h/d?channel_binding=require&sslmode=disable", "sslmode=verify-full"),
        ("postgres://u:s3cret@/d?channel_binding=require&host=/tmp", "leave channel_binding out"),
        ("postgres://u:s3cret@h/d?sslrootcert=system&sslmode=require", "write sslmode=verify-full"),
        ("postgres://u:s3cret@h/d?sslnegotiation=direct&sslmode=prefer", "needs sslmode=require"),
        ("postgres://u:s3cret@h/d?sslcert=/s3cret.pem", "needs sslkey"),
        ("postgres://u:s3cret@h/d?sslkey=/s3cret.pem", "needs sslcert"),
        ("postgres://u:s3cret@h/d?sslrootcert=/no/such/root.pem", "/no/such/root.pem"),
        ("postgres://u:s3cret@h/d?sslmode=require&sslrootcert=/no/such/root.pem", "root.pem"),
    ]
    .map(|(url, instead)| (url.to_owned(), instead))
    .into();
    for (pair, instead) in [
        ("connect_timeout=0", "leave it out"),
        ("connect_timeout=-1", "leave it out"),
        ("connect_timeout=2.5", "whole number"),
        ("channel_binding=s3cret", "disable, prefer or require"),
        ("sslnegotiation=s3cret", "postgres or direct"),
        ("sslmode=s3cret", "verify-full"),
        ("gssencmode=require", "sslmode=verify-full"),
        ("require_auth=scram-sha-256", "sslmode=verify-full"),
        ("sslaccept=strict", "sslmode=verify-full"),
        ("sslpassword=s3cret", "not encrypted"),
        ("sslcrl=/s3cret", "leave it out"),
        ("ssl_min_protocol_version=TLSv1.3", "have the server"),
        ("client_encoding=LATIN1", "leave it out"),
        ("replication=database", "leave it out"),
        ("service=s3cret", "host, user and database"),
        ("passfile=/s3cret", "the builder"),
        ("scram_client_key=s3cret", "the password itself"),
        ("search_path=s3cret", "schema="),
        ("currentSchema=s3cret", "schema="),
        ("unix_sock=/cloudsql/s3cret", "host="),
        ("statement_timeout=s3cret", "options=-c%20name%3Dvalue"),
        ("unheard_of=s3cret", "\"unheard_of\""),
        ("options=-c", "-c name=value"),
        ("options=-c%20geqo", "-c name=value"),
        ("options=-c+work_mem=1MB", "write a blank as %20"),
        ("options=-c%20search_path=a,%20b", "%5C%20"),
        ("options=reference=s3cret", "-c name=value"),
        ("options=-c%20a=b%5C%0Ac", "line break"),
        ("schema=a%0Ab", "line break"),
    ] {
        cases.push((parameter(pair), instead));
    }
    for (url, instead) in cases {
        let error = match DatabaseConfig::from_url(&url) {
            Ok(config) => panic!("{url}: taken as {}", understood(&config)),
            Err(error) => error,
        };
        let told = error.to_string();
        assert!(told.contains(instead), "{url}: {told:?} does not say {instead:?}");
        assert!(!format!("{told}{error:?}").replace("/s3cret.pem", "").contains("s3cret"), "{url}");
    }
}

#[test]
fn what_the_builder_says_is_held_to_the_same() {
    let url = "postgres://h/d?channel_binding=require";
    let weakened = DatabaseConfig::builder().url(url).ssl_mode(SslMode::Require).build().unwrap();
    assert_eq!(weakened.server.ssl_mode(), SslMode::VerifyFull);
    assert!(DatabaseConfig::builder().url(url).ssl_mode(SslMode::Disable).build().is_err());

    let no_certificate = DatabaseConfig::builder().url("postgres://h/d").ssl_root_cert_pem("pem");
    assert!(no_certificate.build().unwrap_err().to_string().starts_with("ssl_root_cert_pem"));
    let missing = DatabaseConfig::builder().url("postgres://h/d").ssl_root_cert("/no/such/file");
    assert!(matches!(missing.build().unwrap_err(), ConfigError::File { .. }));
}

#[test]
fn a_file_without_what_it_must_hold_is_told_by_its_path() {
    let folder = std::env::temp_dir().join(format!("chancery-config-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let block = |label: &str, body: &str| {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    let refused = |parameter: &str, content: &[u8]| {
        let path = folder.join("file.pem");
        std::fs::write(&path, content).unwrap();
        let path = path.display();
        let other = if parameter == "sslcert" { "sslkey" } else { "sslcert" };
        let other =
            if parameter == "sslrootcert" { String::new() } else { format!("&{other}={path}") };
        let url = format!("postgres://u@h/d?{parameter}={path}{other}");
        let told = DatabaseConfig::from_url(&url).unwrap_err().to_string();
        assert!(told.contains("file.pem"), "{told}");
        told
    };
    let certificate = block("CERTIFICATE", "MAAA");
    assert!(refused("sslrootcert", b"").contains("no certificate in PEM form"));
    assert!(refused("sslrootcert", b"0\x82\x01\xff").contains("no certificate in PEM form"));
    assert!(
        refused("sslrootcert", block("PRIVATE KEY", "MAAA").as_bytes()).contains("no certificate")
    );
    let damaged = certificate.clone() + &block("CERTIFICATE", "M?AA");
    assert!(refused("sslrootcert", damaged.as_bytes()).contains("not base64"));
    assert!(refused("sslkey", certificate.as_bytes()).contains("sslkey"));
    let locked = certificate.clone() + &block("ENCRYPTED PRIVATE KEY", "MAAA");
    assert!(refused("sslkey", locked.as_bytes()).contains("is encrypted"));
    let locked = certificate + &block("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\n\nMAAA");
    assert!(refused("sslkey", locked.as_bytes()).contains("is encrypted"));
    let folder_itself = format!("postgres://u@h/d?sslrootcert={}", folder.display());
    let told = DatabaseConfig::from_url(&folder_itself).unwrap_err().to_string();
    assert!(told.contains("can't be read"), "{told}");
    std::fs::remove_dir_all(&folder).unwrap();
}
