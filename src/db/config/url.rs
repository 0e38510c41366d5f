//! The database URL: what of it is understood, and what is refused.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use super::{ConfigError, SslMode};

/// What a URL says.
#[derive(Clone)]
pub(super) struct Server {
    pub host: String,
    pub port: u16,
    /// The hosts and ports after the first.
    pub others: Vec<(String, u16)>,
    pub wanted: Option<Wanted>,
    pub user: String,
    pub password: Option<SecretString>,
    pub database: String,
    pub ssl_mode: SslMode,
    pub ssl_root_cert: Option<RootCert>,
    pub ssl_cert: Option<PathBuf>,
    pub ssl_key: Option<PathBuf>,
    pub application_name: String,
    pub options: Option<String>,
    pub connect_timeout: Duration,
}

/// The certificate of the authority that signs the server's.
#[derive(Clone)]
pub(super) enum RootCert {
    File(PathBuf),
    Pem(Vec<u8>),
}

/// `target_session_attrs`: which of several hosts is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Any,
    Primary,
    Standby,
}

fn invalid(what: impl Into<String>) -> ConfigError {
    ConfigError::InvalidUrl(what.into())
}

/// Reads the URL. Messages name parts of it, never their content.
pub(super) fn parse(text: &str) -> Result<Server, ConfigError> {
    let text = text.trim();
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| invalid("it must begin with postgres:// or postgresql://"))?;
    // SQLAlchemy's postgresql+asyncpg and the like name a driver that is not used here.
    match scheme.split_once('+').map_or(scheme, |(scheme, _)| scheme) {
        "postgres" | "postgresql" => {}
        _ => return Err(invalid("it must begin with postgres:// or postgresql://")),
    }
    // The URL standard has them left out, which would make another password of one.
    if rest.contains(['\t', '\r', '\n']) {
        return Err(invalid("it contains a tab or a line break; write them as %09, %0D and %0A"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A / or ? of a password has ended the authority: the rest of it must not become the name of
    // the database or of a parameter, which are shown.
    if path.contains('@') {
        return Err(invalid(
            "there is an @ after its host: in a password write / as %2F, ? as %3F, # as %23, \
             elsewhere @ as %40",
        ));
    }
    let (authority, others) = first_host(authority);
    // libpq takes a user without a host, which then stands in the parameters.
    let host = if authority.ends_with('@') { "localhost" } else { "" };
    let url = Url::parse(&format!("postgres://{authority}{host}{path}")).map_err(|e| {
        invalid(format!("{e}; are special characters in the password percent-encoded?"))
    })?;
    if url.fragment().is_some() {
        return Err(invalid("it contains a #; write it as %23"));
    }
    let decode = |part: &str, what: &str| {
        percent_decode_str(part)
            .decode_utf8()
            .map(|text| text.into_owned())
            .map_err(|_| invalid(format!("its {what} is not UTF-8")))
    };
    let port = |text: &str| match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(invalid("its port is not a number between 1 and 65535")),
    };

    let mut host = decode(url.host_str().unwrap_or_default(), "host")?;
    let mut hosts = Vec::new();
    for other in others {
        let other = Url::parse(&format!("postgres://{other}"))
            .map_err(|_| invalid("one of its hosts can't be understood"))?;
        let plain = other.path().is_empty() && other.username().is_empty();
        if !plain || other.password().is_some() || !other.has_host() {
            return Err(invalid("one of its hosts can't be understood"));
        }
        let name = decode(other.host_str().unwrap_or_default(), "host")?;
        hosts.push((name, other.port().unwrap_or(5432)));
    }
    let mut ports = None;
    let mut user = decode(url.username(), "user")?;
    let mut password = url.password().map(|p| decode(p, "password")).transpose()?;
    let mut database = decode(url.path().trim_start_matches('/'), "database")?;
    let mut server = Server {
        host: String::new(),
        port: url.port().unwrap_or(5432),
        others: Vec::new(),
        wanted: None,
        user: String::new(),
        password: None,
        database: String::new(),
        ssl_mode: SslMode::Prefer,
        ssl_root_cert: None,
        ssl_cert: None,
        ssl_key: None,
        application_name: "chancery".into(),
        options: None,
        connect_timeout: Duration::from_secs(3),
    };
    let mut ssl_mode = None;
    for (key, value) in url.query_pairs() {
        let value = value.into_owned();
        match &*key {
            "sslmode" | "ssl" => ssl_mode = Some(parse_ssl_mode(&value)?),
            "sslrootcert" => server.ssl_root_cert = Some(RootCert::File(value.into())),
            "sslcert" => server.ssl_cert = Some(value.into()),
            "sslkey" => server.ssl_key = Some(value.into()),
            "application_name" => server.application_name = value,
            "options" => server.options = Some(value),
            "host" | "hostaddr" => {
                let mut names = value.split(',').map(str::to_owned);
                host = names.next().unwrap_or_default();
                hosts = names.map(|name| (name, 5432)).collect();
            }
            "port" => ports = Some(value.split(',').map(port).collect::<Result<Vec<_>, _>>()?),
            "target_session_attrs" => {
                server.wanted = Some(match &*value {
                    "any" => Wanted::Any,
                    "read-write" | "primary" => Wanted::Primary,
                    "read-only" | "standby" | "prefer-standby" => Wanted::Standby,
                    _ => return Err(invalid("target_session_attrs is none of libpq's values")),
                });
            }
            "user" => user = value,
            "password" => password = Some(value),
            "dbname" => database = value,
            "connect_timeout" => {
                let seconds = value.parse().map_err(|_| invalid("connect_timeout is no number"))?;
                server.connect_timeout = Duration::from_secs(seconds);
            }
            // The driver can't bind the channel; TLS with verify-full protects the same exchange.
            "channel_binding" => {}
            // It may be the rest of the password, which is not to be shown.
            _ if password.is_some() && url.password().is_none() => {
                return Err(invalid(
                    "it has an unknown parameter after its password; write & in a password as %26",
                ));
            }
            _ => return Err(ConfigError::UnknownParameter(key.into_owned())),
        }
    }
    if server.port == 0 {
        return Err(invalid("its port is not a number between 1 and 65535"));
    }
    // As libpq has it: one port for all hosts, or one for each.
    match ports.as_deref() {
        None => {}
        Some([port]) => {
            server.port = *port;
            hosts.iter_mut().for_each(|(_, p)| *p = *port);
        }
        Some([first, rest @ ..]) if rest.len() == hosts.len() => {
            server.port = *first;
            hosts.iter_mut().zip(rest).for_each(|((_, p), port)| *p = *port);
        }
        Some(_) => return Err(invalid("it has another number of ports than of hosts")),
    }
    server.host = host_name(&host);
    server.others = hosts.iter().map(|(host, port)| (host_name(host), *port)).collect();
    server.user = if user.is_empty() { "postgres".into() } else { user };
    server.database = if database.is_empty() { server.user.clone() } else { database };
    server.password = password.map(Into::into);
    let local = server.hosts().all(|(host, _)| is_local(host));
    server.ssl_mode = ssl_mode.unwrap_or(if local { SslMode::Prefer } else { SslMode::VerifyFull });
    let hosts = server.hosts().map(|(host, _)| ("host", host));
    let texts = hosts.chain([("user", &*server.user), ("database", &*server.database)]);
    for (what, text) in texts {
        if text.contains('\0') {
            return Err(invalid(format!("its {what} contains a NUL character")));
        }
    }
    Ok(server)
}

impl Server {
    /// All hosts with their ports, in the URL's order.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, u16)> {
        let others = self.others.iter().map(|(host, port)| (&**host, *port));
        std::iter::once((&*self.host, self.port)).chain(others)
    }
}

/// The authority up to the end of its first host, and the other hosts with their ports.
fn first_host(authority: &str) -> (&str, impl Iterator<Item = &str>) {
    let hosts = authority.rfind('@').map_or(0, |at| at + 1);
    let end = authority[hosts..].find(',').map_or(authority.len(), |comma| hosts + comma);
    let others = authority.get(end + 1..).map(|rest| rest.split(','));
    (&authority[..end], others.into_iter().flatten())
}

fn host_name(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { "localhost".into() } else { host.to_owned() }
}

fn parse_ssl_mode(text: &str) -> Result<SslMode, ConfigError> {
    Ok(match text {
        "disable" | "false" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        "require" | "true" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            return Err(invalid(
                "sslmode must be disable, prefer, require, verify-ca or verify-full",
            ));
        }
    })
}

/// Whether the host is this machine: a socket's folder, or a loopback address or name.
fn is_local(host: &str) -> bool {
    host.starts_with('/')
        || host == "localhost"
        || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}
