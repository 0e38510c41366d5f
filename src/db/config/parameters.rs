//! The parameters of the database URL: which are taken, which are kept by what the driver does anyway,
//! which have no effect, and which are refused.

use std::path::PathBuf;
use std::time::Duration;

use super::url::{RootCert, invalid, parsed_port};
use super::{ConfigError, SslMode};

/// `target_session_attrs`: which of several hosts is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Any,
    Primary,
    Standby,
}

/// What the parameters say. The last of two that say the same holds; without a value none does.
#[derive(Default)]
pub(super) struct Parameters {
    pub hosts: Option<Vec<String>>,
    /// `hostaddr`.
    pub addresses: Option<Vec<String>>,
    pub ports: Option<Vec<u16>>,
    pub wanted: Option<Wanted>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub database: Option<String>,
    pub ssl_mode: Option<SslMode>,
    pub binds_channel: bool,
    pub direct_tls: bool,
    pub ssl_root_cert: Option<RootCert>,
    pub ssl_cert: Option<PathBuf>,
    pub ssl_key: Option<PathBuf>,
    pub application_name: Option<String>,
    pub fallback_application_name: Option<String>,
    pub options: Vec<(String, String)>,
    /// `search_path`, when `schema` asks for one.
    pub schema: Option<(String, String)>,
    pub connect_timeout: Option<Duration>,
    pub ignored: Vec<&'static str>,
}

/// Values that say what holds anyway.
const KEPT: [(&str, &[&str]); 12] = [
    ("client_encoding", &["utf8", "utf-8", "unicode", "auto"]),
    ("encoding", &["utf8", "utf-8", "unicode"]),
    ("gssencmode", &["disable", "prefer"]),
    ("load_balance_hosts", &["disable"]),
    ("max_protocol_version", &["3.0", "3.2", "latest"]),
    ("min_protocol_version", &["3.0"]),
    ("replication", &["false", "off", "no", "0"]),
    ("sslcertmode", &["allow"]),
    ("ssl_max_protocol_version", &["tlsv1.3"]),
    ("ssl_min_protocol_version", &["tlsv1", "tlsv1.1", "tlsv1.2"]),
    ("sslcompression", &["0"]),
    ("sslsni", &["1"]),
];

/// Parameters whose effect nobody misses here: the pools' and caches' of other libraries, and libpq's for
/// the network and for Kerberos.
const HARMLESS: [&str; 61] = [
    "advisory_locks",
    "async_fallback",
    "binary_parameters",
    "checkout_timeout",
    "command_timeout",
    "conn_health_checks",
    "conn_max_age",
    "connection_limit",
    "default_query_exec_mode",
    "description_cache_capacity",
    "gssdelegation",
    "gsslib",
    "idle_timeout",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "loginTimeout",
    "max",
    "max_connection_lifetime",
    "max_idle_connection_lifetime",
    "max_lifetime",
    "max_overflow",
    "pgbouncer",
    "pool",
    "pool_health_check_period",
    "pool_max_conn_idle_time",
    "pool_max_conn_lifetime",
    "pool_max_conn_lifetime_jitter",
    "pool_max_conns",
    "pool_min_conns",
    "pool_pre_ping",
    "pool_recycle",
    "pool_size",
    "pool_timeout",
    "prepare",
    "prepare_threshold",
    "prepareThreshold",
    "prepared_statement_cache_size",
    "prepared_statements",
    "reWriteBatchedInserts",
    "reaping_frequency",
    "single_use_connections",
    "socketTimeout",
    "socket_timeout",
    "ssl_max_protocol_version",
    "sslcompression",
    "sslkeylogfile",
    "sslsni",
    "statement-cache-capacity",
    "statement_cache_capacity",
    "statement_cache_size",
    "statement_limit",
    "supa",
    "tcpKeepAlive",
    "tcp_user_timeout",
    "timeout",
    "uselibpqcompat",
    "workaround",
];

/// What Neon takes in `options` from clients that don't tell it the host's name. The driver does.
const NAMED_BY_THE_HOST: [&str; 2] = ["endpoint=", "project="];

/// Parameters that ask for what can't be had and would be missed, and what to write instead.
const REFUSED: [(&str, &str); 24] = [
    ("client_encoding", "text travels as UTF8: leave it out"),
    ("encoding", "text travels as UTF8: leave it out"),
    (
        "gssencmode",
        "the driver can't encrypt by Kerberos: leave it out and write sslmode=verify-full",
    ),
    ("min_protocol_version", "the driver speaks version 3.0: leave it out"),
    (
        "passfile",
        "no file of passwords is read: write the password into the URL, or give it to the builder",
    ),
    ("replication", "no replication connection can be made: leave it out"),
    (
        "require_auth",
        "the driver does what the server asks for: leave it out and write sslmode=verify-full",
    ),
    ("requirepeer", "the driver doesn't look who owns the socket: leave it out"),
    ("requiressl", "write sslmode=require, or better sslmode=verify-full"),
    ("scram_client_key", "the driver needs the password itself: write that"),
    ("scram_server_key", "the driver needs the password itself: write that"),
    ("schema_search_path", "write schema=…"),
    ("search_path", "write schema=…, or options=-c%20search_path%3D…"),
    ("currentSchema", "write schema=…"),
    ("service", "no file of services is read: write host, user and database into the URL"),
    ("servicefile", "no file of services is read: write host, user and database into the URL"),
    ("sslaccept", "write sslmode=verify-full for strict, sslmode=require for accept_invalid_certs"),
    ("sslcertmode", "leave it out; a certificate of this client is named by sslcert and sslkey"),
    ("sslcrl", "the driver reads no lists of revoked certificates: leave it out"),
    ("sslcrldir", "the driver reads no lists of revoked certificates: leave it out"),
    ("sslidentity", "write sslcert and sslkey, files in PEM form"),
    ("sslpassword", "the driver can't decrypt a key: write one that is not encrypted as sslkey"),
    (
        "ssl_min_protocol_version",
        "TLS 1.2 and 1.3 are spoken: leave it out, and have the server ask for more",
    ),
    ("unix_sock", "write host=…, the socket's folder"),
];

impl Parameters {
    /// One more, decoded.
    pub fn take(&mut self, name: &str, value: String) -> Result<(), ConfigError> {
        let value = Some(value).filter(|value| !value.is_empty());
        let list = |value: String| value.split(',').map(str::to_owned).collect();
        match name {
            "host" => self.hosts = value.map(list),
            "hostaddr" => self.addresses = value.map(list),
            "port" => {
                let ports = value.map(|ports| ports.split(',').map(parsed_port).collect());
                self.ports = ports.transpose()?;
            }
            "target_session_attrs" => self.wanted = value.as_deref().map(wanted).transpose()?,
            "user" => self.user = value,
            "password" => self.password = value,
            "dbname" => self.database = value,
            "sslmode" | "ssl-mode" | "ssl" => {
                self.ssl_mode = value.as_deref().map(ssl_mode).transpose()?;
            }
            "channel_binding" => {
                self.binds_channel = match value.as_deref() {
                    Some("require") => true,
                    None | Some("prefer" | "disable") => false,
                    Some(_) => {
                        return Err(invalid("channel_binding must be disable, prefer or require"));
                    }
                };
            }
            "sslnegotiation" => {
                self.direct_tls = match value.as_deref() {
                    Some("direct") => true,
                    None | Some("postgres") => false,
                    Some(_) => return Err(invalid("sslnegotiation must be postgres or direct")),
                };
                if self.direct_tls {
                    self.ignored.push("sslnegotiation");
                }
            }
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => {
                self.ssl_root_cert = value.map(|value| match &*value {
                    "system" => RootCert::System,
                    _ => RootCert::File(value.into()),
                });
            }
            "sslcert" | "ssl-cert" => self.ssl_cert = value.map(Into::into),
            "sslkey" | "ssl-key" => self.ssl_key = value.map(Into::into),
            "application_name" => self.application_name = value,
            "fallback_application_name" => self.fallback_application_name = value,
            "options" => {
                let mut words = words(value.as_deref().unwrap_or_default());
                let all = words.len();
                words.retain(|word| !NAMED_BY_THE_HOST.iter().any(|name| word.starts_with(name)));
                if words.len() < all {
                    self.ignored.push("options (endpoint)");
                }
                self.options = settings(words)?;
            }
            "schema" => match value.as_deref() {
                // Where tables are looked for and made anyway; through a pooler it could not be set.
                None | Some("public") => {
                    self.schema = None;
                    self.ignored.push("schema");
                }
                Some(schema) => self.schema = Some(search_path(schema)?),
            },
            "connect_timeout" => {
                self.connect_timeout = value.as_deref().map(connect_timeout).transpose()?;
            }
            _ => return self.take_other(name, value.as_deref()),
        }
        Ok(())
    }

    fn take_other(&mut self, name: &str, value: Option<&str>) -> Result<(), ConfigError> {
        let value = value.unwrap_or_default().to_ascii_lowercase();
        let mut kept = KEPT.iter().filter(|(kept, _)| *kept == name);
        if kept.any(|(_, values)| value.is_empty() || values.contains(&&*value)) {
            return Ok(());
        }
        if let Some(name) = HARMLESS.iter().find(|harmless| **harmless == name) {
            self.ignored.push(name);
            return Ok(());
        }
        if let Some((name, instead)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(invalid(format!("its parameter {name} can't be kept: {instead}")));
        }
        // It may be the rest of the password, which is not to be shown.
        if self.password.is_some() {
            return Err(invalid(
                "it has an unknown parameter after its password; write & in a password as %26",
            ));
        }
        Err(ConfigError::UnknownParameter(name.to_owned()))
    }
}

fn ssl_mode(text: &str) -> Result<SslMode, ConfigError> {
    Ok(match text {
        "disable" | "false" | "0" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        "require" | "true" | "1" | "no-verify" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            return Err(invalid(
                "sslmode must be disable, prefer, require, verify-ca or verify-full",
            ));
        }
    })
}

fn wanted(text: &str) -> Result<Wanted, ConfigError> {
    Ok(match text {
        "any" => Wanted::Any,
        "read-write" | "primary" => Wanted::Primary,
        "read-only" | "standby" | "prefer-standby" => Wanted::Standby,
        _ => return Err(invalid("target_session_attrs is none of libpq's values")),
    })
}

fn connect_timeout(text: &str) -> Result<Duration, ConfigError> {
    match text.trim().parse::<i32>() {
        Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds.unsigned_abs().into())),
        // libpq waits for ever then, which nothing here does.
        Ok(_) => Err(invalid(
            "connect_timeout must be above 0, which would be for ever: write how many seconds, or leave \
             it out",
        )),
        Err(_) => Err(invalid("connect_timeout must be a whole number of seconds")),
    }
}

/// What separates the server's options, in its own eyes.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// The words of libpq's `options`, read as the server does: between blanks, where a backslash takes from
/// the next character what it else would mean.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    while characters.peek().is_some() {
        let mut word = String::new();
        while let Some(c) = characters.next_if(|c| !is_blank(*c)) {
            word.extend(if c == '\\' { characters.next() } else { Some(c) });
        }
        words.extend(Some(word).filter(|word| !word.is_empty()));
        characters.next();
    }
    words
}

/// The settings that they are: each `-c name=value` or `--name=value`.
fn settings(words: Vec<String>) -> Result<Vec<(String, String)>, ConfigError> {
    let mut words = words.into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match &*word {
            "-c" => words.next(),
            word => word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).map(str::to_owned),
        };
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.$".contains(c))
        };
        let pair = setting.as_deref().and_then(|setting| setting.split_once('='));
        let (name, value) = pair.filter(|(name, _)| is_name(name)).ok_or_else(|| {
            invalid(
                "its options hold something else than -c name=value or --name=value (write a blank as \
                 %20, not as +, and one inside a value as %5C%20)",
            )
        })?;
        settings.push((name.to_owned(), single_line(value)?));
    }
    Ok(settings)
}

/// `search_path`, so that this schema is the only one.
fn search_path(schema: &str) -> Result<(String, String), ConfigError> {
    let quoted = format!("\"{}\"", schema.replace('"', "\"\""));
    Ok(("search_path".to_owned(), single_line(&quoted)?))
}

/// The driver protects blanks and backslashes on the way to the server, and nothing else.
fn single_line(value: &str) -> Result<String, ConfigError> {
    if value.contains(|c| is_blank(c) && c != ' ') {
        return Err(invalid("a setting of its session contains a tab or a line break"));
    }
    Ok(value.to_owned())
}
