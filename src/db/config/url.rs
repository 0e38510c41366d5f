//! The database URL: what of it is understood, and what is refused.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use super::files::{Holds, PemFile};
use super::parameters::{Parameters, Wanted};
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
    /// What is asked for by name; what holds is [`ssl_mode`](Self::ssl_mode).
    pub asked_ssl_mode: Option<SslMode>,
    /// `channel_binding=require`.
    pub binds_channel: bool,
    /// `sslnegotiation=direct`.
    pub direct_tls: bool,
    pub ssl_root_cert: Option<RootCert>,
    pub ssl_cert: Option<PathBuf>,
    pub ssl_key: Option<PathBuf>,
    pub application_name: String,
    /// Names and values of the session's settings.
    pub options: Vec<(String, String)>,
    pub connect_timeout: Duration,
    /// The parameters that have no effect.
    pub ignored: Vec<&'static str>,
}

/// The certificate of the authority that signs the server's.
#[derive(Clone)]
pub(super) enum RootCert {
    File(PathBuf),
    Pem(Vec<u8>),
    /// `sslrootcert=system`: those that are trusted everywhere, and no others.
    System,
}

pub(super) fn invalid(what: impl Into<String>) -> ConfigError {
    ConfigError::InvalidUrl(what.into())
}

const WRONG_PORT: &str =
    "its port is not a number between 1 and 65535 (an IPv6 address is written in [ ])";

/// Reads the URL, as libpq does where it says nothing else. Messages name parts of it, never their content.
pub(super) fn parse(text: &str) -> Result<Server, ConfigError> {
    let rest = after_scheme(unquoted(text.trim()))?;
    // Others leave them out, which makes another password of one.
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
    if path.contains('#') {
        return Err(invalid("it contains a #; write it as %23"));
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    if password == "[YOUR-PASSWORD]" {
        return Err(invalid("its password is a placeholder still"));
    }
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = host_and_port(host)?;
        names.push(decoded(name, "host")?);
        ports.push(port);
    }
    let mut parameters = Parameters::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        // It may be the rest of a password.
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            invalid("one of its parameters has no =; write & in a value as %26, and name=value")
        })?;
        parameters.take(&decoded(name, "parameters")?, decoded(value, "parameters")?)?;
    }

    let mut hosts = parameters.hosts.unwrap_or(names);
    if let Some(addresses) = parameters.addresses {
        if hosts.iter().any(|host| !host.is_empty()) {
            return Err(invalid("hostaddr stands beside a host: write the address in its place"));
        }
        hosts = addresses;
    }
    if hosts.len() > 1 && hosts.iter().any(String::is_empty) {
        return Err(invalid("one of its hosts is empty"));
    }
    let mut ports = parameters.ports.unwrap_or(ports);
    // As libpq has it: one port for all hosts, or one for each.
    if let [port] = ports[..] {
        ports = vec![port; hosts.len()];
    }
    if ports.len() != hosts.len() {
        return Err(invalid("it has another number of ports than of hosts"));
    }
    let hosts = hosts.iter().map(|host| host_name(host)).collect::<Result<Vec<_>, _>>()?;
    let mut hosts = hosts.into_iter().zip(ports);
    let (host, port) = hosts.next().ok_or_else(|| invalid("it has no host"))?;

    let or = |parameter: Option<String>, part: String| parameter.unwrap_or(part);
    let user = or(parameters.user, decoded(user, "user")?);
    let user = if user.is_empty() { "postgres".into() } else { user };
    let path = path.strip_prefix('/').unwrap_or(path);
    let database = or(parameters.database, decoded(path, "database")?);
    let password = or(parameters.password, decoded(password, "password")?);
    Ok(Server {
        host,
        port,
        others: hosts.collect(),
        wanted: parameters.wanted,
        database: if database.is_empty() { user.clone() } else { database },
        user,
        password: Some(password).filter(|password| !password.is_empty()).map(Into::into),
        asked_ssl_mode: parameters.ssl_mode,
        binds_channel: parameters.binds_channel,
        direct_tls: parameters.direct_tls,
        ssl_root_cert: parameters.ssl_root_cert,
        ssl_cert: parameters.ssl_cert,
        ssl_key: parameters.ssl_key,
        application_name: parameters
            .application_name
            .or(parameters.fallback_application_name)
            .unwrap_or_else(|| "chancery".into()),
        options: parameters.options.into_iter().chain(parameters.schema).collect(),
        connect_timeout: parameters.connect_timeout.unwrap_or(Duration::from_secs(3)),
        ignored: parameters.ignored,
    })
}

impl Server {
    /// All hosts with their ports, in the URL's order.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, u16)> {
        let others = self.others.iter().map(|(host, port)| (&**host, *port));
        std::iter::once((&*self.host, self.port)).chain(others)
    }

    /// What holds for its hosts that are no sockets.
    pub fn ssl_mode(&self) -> SslMode {
        let local = || self.hosts().all(|(host, _)| is_local(host));
        match self.asked_ssl_mode {
            // The driver can't bind the channel; a certificate that is checked protects the same exchange.
            _ if self.binds_channel => SslMode::VerifyFull,
            None if self.ssl_root_cert.is_none() && local() => SslMode::Prefer,
            None => SslMode::VerifyFull,
            Some(SslMode::Require) if self.ssl_root_cert.is_some() => SslMode::VerifyCa,
            Some(mode) => mode,
        }
    }

    /// Refuses what asks for more than it can have, or for two things at once.
    pub fn check_ssl(&mut self) -> Result<(), ConfigError> {
        let (asked, mode) = (self.asked_ssl_mode, self.ssl_mode());
        let socket = self.hosts().any(|(host, _)| is_socket(host));
        if self.binds_channel && (socket || asked == Some(SslMode::Disable)) {
            return Err(invalid(
                "channel_binding=require needs TLS, and its sslmode or a socket as host forbids that: \
                 leave channel_binding out, or write sslmode=verify-full",
            ));
        }
        if matches!(self.ssl_root_cert, Some(RootCert::System)) && mode != SslMode::VerifyFull {
            return Err(invalid(
                "sslrootcert=system needs the host's name to be checked: write sslmode=verify-full, or \
                 leave sslrootcert out",
            ));
        }
        let weak = matches!(mode, SslMode::Disable | SslMode::Prefer);
        if self.direct_tls && weak {
            return Err(invalid(
                "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full",
            ));
        }
        if weak && self.ssl_root_cert.is_some() {
            self.ignored.push("sslrootcert");
        }
        match (&self.ssl_cert, &self.ssl_key) {
            (Some(_), None) => Err(invalid(
                "sslcert is this client's certificate and needs sslkey (the authority's is sslrootcert)",
            )),
            (None, Some(_)) => {
                Err(invalid("sslkey needs sslcert, the certificate that it belongs to"))
            }
            _ => self.files().iter().try_for_each(PemFile::check),
        }
    }

    /// The files that the driver reads for each connection.
    pub fn files(&self) -> Vec<PemFile> {
        let mode = self.ssl_mode();
        if mode == SslMode::Disable || self.hosts().all(|(host, _)| is_socket(host)) {
            return Vec::new();
        }
        let file = |setting, path: &PathBuf, holds| PemFile { setting, path: path.clone(), holds };
        let verifies = matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull);
        let root = match &self.ssl_root_cert {
            Some(RootCert::File(path)) if verifies => Some(path),
            _ => None,
        };
        let root = root.map(|path| file("sslrootcert", path, Holds::Certificate));
        let cert = self.ssl_cert.as_ref().map(|path| file("sslcert", path, Holds::Certificate));
        let key = self.ssl_key.as_ref().map(|path| file("sslkey", path, Holds::Key));
        [root, cert, key].into_iter().flatten().collect()
    }
}

/// Without the quotation marks that some programs leave around a variable.
fn unquoted(text: &str) -> &str {
    let inside = |mark| text.strip_prefix(mark)?.strip_suffix(mark);
    inside('"').or_else(|| inside('\'')).unwrap_or(text)
}

/// What follows `postgres://`, or what to write instead.
fn after_scheme(text: &str) -> Result<&str, ConfigError> {
    if let Some((scheme, rest)) = text.split_once("://") {
        // SQLAlchemy's postgresql+asyncpg and the like name a driver that is not used here.
        if matches!(scheme.split('+').next(), Some("postgres" | "postgresql")) {
            return Ok(rest);
        }
    }
    let text = text.to_ascii_lowercase();
    let names = |names: &[&str]| names.iter().any(|name| text.contains(name));
    Err(invalid(if text.starts_with("prisma") {
        "it leads to a service of Prisma's: write the database's own URL, which begins with postgres://"
    } else if names(&["jdbc:", "r2dbc:"]) {
        "it is a JDBC URL: leave out what stands before postgresql:// (currentSchema is schema here, and \
         a + in a parameter stays one)"
    } else if names(&["postgres://", "postgresql://"]) {
        "leave out what stands before postgres://"
    } else if names(&["host=", "server=", "data source=", "dbname=", "user="]) {
        "names with values (host=… dbname=…, or Host=…;Database=…) are no URL: write \
         postgres://user:password@host:port/database"
    } else {
        "it must begin with postgres:// or postgresql://"
    }))
}

/// Percent-decodes a part. A plus stays one.
fn decoded(part: &str, what: &str) -> Result<String, ConfigError> {
    let encodes = |at: usize| {
        let digits = part.as_bytes().get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if part.match_indices('%').any(|(at, _)| !encodes(at)) {
        return Err(invalid(format!("a % in its {what} is followed by no code; write % as %25")));
    }
    let text = percent_decode_str(part)
        .decode_utf8()
        .map_err(|_| invalid(format!("its {what} is not UTF-8")))?;
    if text.contains('\0') {
        return Err(invalid(format!("its {what} contains a NUL character")));
    }
    Ok(text.into_owned())
}

fn host_and_port(text: &str) -> Result<(&str, u16), ConfigError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(text) => {
            let closed = text.split_once(']').filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok());
            let (host, port) =
                closed.ok_or_else(|| invalid("what stands in [ ] is no IPv6 address"))?;
            (host, if port.is_empty() { "" } else { port.strip_prefix(':').unwrap_or("?") })
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    Ok((host, parsed_port(port)?))
}

pub(super) fn parsed_port(text: &str) -> Result<u16, ConfigError> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ if text.is_empty() => Ok(5432),
        _ => Err(invalid(WRONG_PORT)),
    }
}

fn host_name(host: &str) -> Result<String, ConfigError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if is_socket(host) && host.contains("/.s.PGSQL.") {
        return Err(invalid(
            "a socket is named by its folder: leave out /.s.PGSQL. and what follows, and write the \
             number as port",
        ));
    }
    let never = |c: char| c.is_whitespace() || c.is_control() || "<>[]{}\\^|\"'`".contains(c);
    if !is_socket(host) && host.contains(never) {
        return Err(invalid(
            "its host contains what no host's name has; are special characters before the @ \
             percent-encoded?",
        ));
    }
    Ok(if host.is_empty() { "localhost".into() } else { host.to_owned() })
}

/// Whether the host is the folder of a socket.
pub(super) fn is_socket(host: &str) -> bool {
    host.starts_with('/')
}

/// Whether the host is this machine: a socket's folder, or a loopback address or name.
fn is_local(host: &str) -> bool {
    is_socket(host) || host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}
