//! Where the database is, and how the pool behaves.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tracing::log::LevelFilter;

use super::attempt::ConnectLimits;
use super::error::ConnectTarget;
use super::hosts::{Host, Hosts};
use super::pooler::PoolerMode;
use super::role_check::RoleCheck;

mod builder;
mod files;
mod parameters;
#[cfg(test)]
mod tests;
mod url;

pub use builder::DatabaseConfigBuilder;
pub(crate) use files::PemFile;

/// Whether connections are encrypted, and what of the server's certificate is checked. On a socket of this
/// machine none is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// No encryption.
    Disable,
    /// Encrypted if the server can; nothing is checked. The default for this machine, unless a root
    /// certificate is named.
    Prefer,
    /// Encrypted; nothing is checked, unless a root certificate is named: then it is
    /// [`VerifyCa`](Self::VerifyCa), as with libpq.
    Require,
    /// Encrypted, and the certificate is signed by a trusted authority, for whatever host. Those that are
    /// trusted everywhere stay trusted beside the one that is named, so that whoever has a certificate of
    /// theirs passes: [`VerifyFull`](Self::VerifyFull) is what protects from them.
    VerifyCa,
    /// Encrypted, signed, and made out to this host. The default for every other machine.
    VerifyFull,
}

/// Which of the idle connections the next caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PoolOrder {
    /// The one that has been idle for longest. While others hold connections too, each for less than a
    /// millisecond, a caller gives way to the tasks that are ready before it takes one, so that callers
    /// share the time evenly.
    #[default]
    Fifo,
    /// The one that was used last: under little load the others stay idle, and the overflow is trimmed
    /// sooner. Nobody gives way: more calls a second where many are made one after another, for some of
    /// them a wait several times as long (`bench/RESULTS.md` has both).
    Lifo,
}

impl From<SslMode> for PgSslMode {
    fn from(mode: SslMode) -> Self {
        match mode {
            SslMode::Disable => Self::Disable,
            SslMode::Prefer => Self::Prefer,
            SslMode::Require => Self::Require,
            SslMode::VerifyCa => Self::VerifyCa,
            SslMode::VerifyFull => Self::VerifyFull,
        }
    }
}

/// Where the database is and how the pool behaves: what [`Database::connect`] needs.
///
/// It is made [from the environment](Self::from_env), [from a URL](Self::from_url) or [by
/// builder](Self::builder); all three end in the same checks. `Debug` never shows the password.
///
/// ```
/// use std::time::Duration;
/// use chancery::DatabaseConfig;
///
/// let config = DatabaseConfig::builder()
///     .url("postgresql+asyncpg://app:secret@localhost:5435/youtube_talker")
///     .pool_size(20)
///     .max_overflow(10)
///     .pool_recycle(Duration::from_secs(3600))
///     .build()?;
/// assert!(!format!("{config:?}").contains("secret"));
/// # Ok::<(), chancery::ConfigError>(())
/// ```
///
/// # The URL
///
/// `postgres://` and `postgresql://`, read as libpq reads them. A Python driver's name
/// (`postgresql+asyncpg://`) is passed over, and so are quotation marks around the whole, which `docker
/// --env-file` leaves there. JDBC's URLs and lists of `host=… dbname=…` are refused.
///
/// | parameter | what becomes of it |
/// |---|---|
/// | `host`, `port`, `user`, `password`, `dbname` | hold in place of the URL's own part; `hostaddr` does where there is no host. A host that begins with `/` is the folder of a socket, without `/.s.PGSQL.5432` |
/// | `sslmode`, or asyncpg's `ssl` | is the [`SslMode`]; `allow` counts as `prefer`, node's `no-verify` as `require` |
/// | `sslrootcert` | names a file in PEM form with the authority that signs the server's certificate. `require` then is `verify-ca`, and without `sslmode` it is `verify-full`. `system`: the authorities that are trusted everywhere, which are a list of the driver's and not this machine's |
/// | `sslcert`, `sslkey` | name this client's certificate and its key, files in PEM form |
/// | `channel_binding=require` | makes it `verify-full`, whatever `sslmode` says: the driver can't bind the channel |
/// | `application_name`, `fallback_application_name` | is the name that the server shows |
/// | `options` | holds settings of the session, `-c name=value` or `--name=value`; a backslash before a blank makes it part of the value |
/// | `schema`, Prisma's | sets `search_path`; `public` has no effect |
/// | `connect_timeout` | is a number of seconds, above 0 |
/// | `target_session_attrs` | see below |
/// | other libraries' pools and caches (`pgbouncer`, `connection_limit`, `pool_timeout`, `prepared_statements`, …), `keepalives` and its kin, `tcp_user_timeout`, `sslnegotiation=direct`, `sslsni` | have no effect. When connecting, one warning for each URL names them |
/// | `gssencmode`, `client_encoding`, `replication`, `load_balance_hosts` and others | are taken where they ask for what holds anyway |
/// | what would be missed (`require_auth`, `sslcrl`, `gssencmode=require`, `service`, …) and every other | is refused, with what to write instead |
///
/// Other libraries' limits of a pool are not taken over: they are made for pools that work differently, and
/// `connection_limit=1`, which some providers print, would let every caller wait for every other. Poolers
/// are found out without `pgbouncer=true` ([`PoolerMode`]).
///
/// Special characters are percent-encoded: `%` everywhere, `/`, `?`, `#` and `@` in a password, `@` after
/// the host, `&` in a parameter, tabs and line breaks everywhere. A `+` is a plus. A password that a server
/// asks for by scram-sha-256 can't hold emoji and other characters that are newer than RFC 4013.
///
/// Without `sslmode`, `verify-full` holds for every host that is not `localhost`, a loopback address or a
/// socket. Where a provider has an authority of its own (Amazon RDS), `sslrootcert` names it; where its
/// certificates are signed by nobody (Heroku), `sslmode=require` encrypts and checks nothing; in a private
/// network without TLS, it is `sslmode=disable`. Sockets are not encrypted, whatever `sslmode` says.
///
/// Notices and warnings that the server would send beside its answers are kept back
/// (`client_min_messages=error`): triggers can put values into them, and the driver logs them. Who wants
/// them says `options=-c%20client_min_messages=notice`. Behind a pooler in transaction mode that holds in
/// units of work, as the timeouts do; `alter role … set` does it for every statement.
///
/// Several hosts stand as libpq has them, `postgres://app@db1:5432,db2:5432/app`: the one that takes
/// writes is looked for when connecting, and again when it is lost or turns out to be a standby.
/// [`reader_url`](DatabaseConfigBuilder::reader_url)'s hosts are tried in their order, and belong to
/// those that may take over. `target_session_attrs` may say the same, and nothing else.
///
/// [`Database::connect`]: crate::Database::connect
#[derive(Clone)]
pub struct DatabaseConfig {
    server: url::Server,
    direct: Option<url::Server>,
    reader: Option<url::Server>,
    pub(crate) pooler: PoolerMode,
    pub(crate) pool_size: u32,
    pub(crate) max_overflow: u32,
    pub(crate) pool_timeout: Duration,
    pub(crate) pool_recycle: Duration,
    pub(crate) pool_pre_ping: bool,
    pub(crate) pool_order: PoolOrder,
    pub(crate) idle_timeout: Duration,
    pub(crate) health_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) hold_warning: Duration,
    pub(crate) role_check: RoleCheck,
    pub(crate) statement_timeout: Option<Duration>,
    lock_timeout: Option<Duration>,
    idle_in_transaction_timeout: Option<Duration>,
    client_check_interval: Option<Duration>,
    echo: bool,
}

/// A configuration that can't be used. It never holds the URL or the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A variable that must be there is not.
    #[error(
        "{0} is not set: expected something like postgres://user:password@localhost:5432/database"
    )]
    MissingVariable(&'static str),
    /// A variable holds something else than it should.
    #[error("{variable} must be {expected}")]
    InvalidVariable {
        /// Its name.
        variable: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// The URL can't be understood.
    #[error("the database URL can't be used: {0}")]
    InvalidUrl(String),
    /// The URL has a parameter that this crate does not know.
    #[error(
        "the database URL has an unknown parameter {0:?}: leave it out; a setting of the server is written options=-c%20name%3Dvalue"
    )]
    UnknownParameter(String),
    /// A file that the configuration names can't be used. It is looked at when the configuration is made,
    /// and again when connecting failed.
    #[error("{setting}: the file {path:?} {problem}")]
    File {
        /// The URL's parameter that names it, or whose place the builder's method takes.
        setting: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting is out of its range.
    #[error("{setting} must be {expected}")]
    OutOfRange {
        /// The builder's method.
        setting: &'static str,
        /// The range.
        expected: &'static str,
    },
}

impl DatabaseConfig {
    /// From `DATABASE_URL` ([what it may hold](Self#the-url)) and these optional variables, and no others:
    ///
    /// | variable | meaning | default |
    /// |---|---|---|
    /// | `DATABASE_DIRECT_URL` | the server itself, when `DATABASE_URL` leads to a pooler: for migrations and LISTEN | none |
    /// | `DATABASE_READER_URL` | standbys, for [`Database::reader`](crate::Database::reader) | none |
    /// | `DATABASE_POOLER` | `detect`, `direct` or `transaction`: [`PoolerMode`] | `detect` |
    /// | `DATABASE_POOL_SIZE` | connections that are kept | 5 |
    /// | `DATABASE_MAX_OVERFLOW` | more of them under load | 10 |
    /// | `DATABASE_POOL_TIMEOUT` | seconds to wait for a connection | 5 |
    /// | `DATABASE_POOL_RECYCLE` | seconds after which a connection is replaced | 1800 |
    /// | `DATABASE_POOL_PRE_PING` | `true`: test connections that were idle for over a second | `true` |
    /// | `DATABASE_POOL_USE_LIFO` | `true`: the connection that was used last is used first | `false` |
    /// | `DATABASE_IDLE_TIMEOUT` | seconds after which an idle overflow connection is closed | 600 |
    /// | `DATABASE_CONNECT_TIMEOUT` | seconds to connect | 3 |
    /// | `DATABASE_STATEMENT_TIMEOUT` | seconds a statement may run; 0: for ever | 30 |
    /// | `DATABASE_ROLE_CHECK` | `off`, `warn` or `refuse`: what to do about a login role that may do more than it need | `warn` |
    /// | `DATABASE_ECHO` | `true`: log every statement (not its values) at INFO | `false` |
    ///
    /// Seconds may have decimals. An empty variable counts as unset. No file is read; load a `.env`
    /// before, if there is one. libpq's variables (`PGHOST`, `PGPASSWORD`, …) have no effect, but for
    /// two that the driver takes by itself and that can't be switched off: `PGOPTIONS`, and
    /// `PGSSLCERT` with `PGSSLKEY`. A warning is logged when one of them is set.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`from_env`](Self::from_env), from any source of variables.
    pub fn from_variables(
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let url = variable("DATABASE_URL").ok_or(ConfigError::MissingVariable("DATABASE_URL"))?;
        let mut builder = Self::builder().url(&url);
        builder.direct_url = variable("DATABASE_DIRECT_URL").map(Into::into);
        builder.reader_url = variable("DATABASE_READER_URL").map(Into::into);
        let mode = variable("DATABASE_POOLER");
        let mode = parse("DATABASE_POOLER", mode, "detect, direct or transaction")?;
        builder.pooler = mode.unwrap_or_default();
        let number = |name, set: &mut dyn FnMut(u32)| {
            parse(name, variable(name), "a whole number").map(|n| n.into_iter().for_each(set))
        };
        let seconds = |name, set: &mut dyn FnMut(Duration)| {
            parse(name, variable(name), "a number of seconds")?
                .map(|s: f64| {
                    Duration::try_from_secs_f64(s).map_err(|_| ConfigError::InvalidVariable {
                        variable: name,
                        expected: "a number of seconds",
                    })
                })
                .transpose()
                .map(|s| s.into_iter().for_each(set))
        };
        let switch = |name, set: &mut dyn FnMut(bool)| {
            let expected = "true or false";
            match variable(name).map(|v| v.to_ascii_lowercase()).as_deref() {
                None => {}
                Some("true" | "1" | "yes" | "on") => set(true),
                Some("false" | "0" | "no" | "off") => set(false),
                Some(_) => return Err(ConfigError::InvalidVariable { variable: name, expected }),
            }
            Ok(())
        };
        number("DATABASE_POOL_SIZE", &mut |n| builder.pool_size = n)?;
        number("DATABASE_MAX_OVERFLOW", &mut |n| builder.max_overflow = n)?;
        seconds("DATABASE_POOL_TIMEOUT", &mut |t| builder.pool_timeout = t)?;
        seconds("DATABASE_POOL_RECYCLE", &mut |t| builder.pool_recycle = t)?;
        seconds("DATABASE_IDLE_TIMEOUT", &mut |t| builder.idle_timeout = t)?;
        seconds("DATABASE_CONNECT_TIMEOUT", &mut |t| builder.connect_timeout = Some(t))?;
        seconds("DATABASE_STATEMENT_TIMEOUT", &mut |t| builder.statement_timeout = Some(t))?;
        switch("DATABASE_POOL_PRE_PING", &mut |on| builder.pool_pre_ping = on)?;
        switch("DATABASE_POOL_USE_LIFO", &mut |on| {
            builder.pool_order = if on { PoolOrder::Lifo } else { PoolOrder::Fifo };
        })?;
        let role_check = variable("DATABASE_ROLE_CHECK").map(|check| check.trim().parse());
        if let Some(check) = role_check {
            builder.role_check = check.map_err(|()| ConfigError::InvalidVariable {
                variable: "DATABASE_ROLE_CHECK",
                expected: "off, warn or refuse",
            })?;
        }
        switch("DATABASE_ECHO", &mut |on| builder.echo = on)?;
        builder.build()
    }

    /// From a URL, with the defaults for everything else.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], without the URL in it.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        Self::builder().url(url).build()
    }

    /// Setting by setting.
    pub fn builder() -> DatabaseConfigBuilder {
        DatabaseConfigBuilder::default()
    }

    /// How long connecting may take.
    pub(crate) fn connect_limits(&self) -> ConnectLimits {
        let reach = self.server.connect_timeout;
        ConnectLimits { reach, answer: reach.max(self.pool_timeout) }
    }

    /// Tells of what was said and has no effect.
    pub(crate) fn warn_of_the_ignored(&self) {
        for name in ["PGOPTIONS", "PGSSLCERT", "PGSSLKEY"] {
            if std::env::var_os(name).is_some() {
                tracing::warn!(name, "the driver takes this variable from the environment");
            }
        }
        for (url, server) in [
            ("url", Some(&self.server)),
            ("direct_url", self.direct.as_ref()),
            ("reader_url", self.reader.as_ref()),
        ] {
            let Some(server) = server.filter(|server| !server.ignored.is_empty()) else { continue };
            tracing::warn!(
                target: "chancery",
                event = "database.parameters_ignored",
                url,
                parameters = server.ignored.join(", "),
                "parameters of the database URL have no effect; the pool's settings are variables of the \
                 environment and methods of the builder"
            );
        }
    }

    /// The hosts that the pool may connect to: behind a pooler, those of the URL alone.
    pub(crate) fn writers(&self) -> Hosts {
        let mut hosts = self.hosts(&self.server);
        let own = hosts.len();
        if let Some(reader) = &self.reader {
            hosts.extend(self.hosts(reader));
        }
        Hosts::of_a_primary(hosts, own, self.server.connect_timeout)
    }

    /// The hosts of the server itself, if another URL leads there.
    pub(crate) fn direct(&self) -> Option<Hosts> {
        let hosts = self.hosts(self.direct.as_ref()?);
        let own = hosts.len();
        Some(Hosts::of_a_primary(hosts, own, self.server.connect_timeout))
    }

    /// The hosts to read from.
    pub(crate) fn readers(&self) -> Option<Hosts> {
        let hosts = self.hosts(self.reader.as_ref()?);
        Some(Hosts::in_their_order(hosts, self.server.connect_timeout))
    }

    fn hosts(&self, server: &url::Server) -> Vec<Host> {
        server
            .hosts()
            .map(|(host, port)| {
                let bare = self.connect_options(server, host, port);
                let mut options = bare.clone().options(self.session_settings());
                if !server.options.is_empty() {
                    options =
                        options.options(server.options.iter().map(|(name, value)| (name, value)));
                }
                Host {
                    options,
                    bare,
                    has_options_of_its_own: !server.options.is_empty(),
                    target: target(server, host, port),
                }
            })
            .collect()
    }

    /// What each session begins with.
    pub(crate) fn session_settings(&self) -> impl Iterator<Item = (&'static str, String)> {
        let timeouts = [
            ("statement_timeout", self.statement_timeout),
            ("lock_timeout", self.lock_timeout),
            ("idle_in_transaction_session_timeout", self.idle_in_transaction_timeout),
            ("client_connection_check_interval", self.client_check_interval),
        ];
        let timeouts = timeouts.into_iter();
        let timeouts = timeouts.filter_map(|(k, v)| Some((k, v?.as_millis().to_string())));
        // The driver logs what the server and its triggers remark, values and all.
        timeouts.chain([("client_min_messages", "error".to_owned())])
    }

    /// The driver's options for one connection, without settings of the session.
    fn connect_options(&self, server: &url::Server, host: &str, port: u16) -> PgConnectOptions {
        // The server speaks no TLS on a socket, where nobody listens in; libpq asks for none either.
        let ssl_mode = if url::is_socket(host) { SslMode::Disable } else { server.ssl_mode() };
        // Every field is set: the driver's constructor starts from libpq's variables.
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(port)
            .username(&server.user)
            .password(server.password.as_ref().map_or("", ExposeSecret::expose_secret))
            .database(&server.database)
            .ssl_mode(ssl_mode.into())
            .application_name(&server.application_name)
            // It is about text, and values travel in binary; poolers refuse it.
            .extra_float_digits(None);
        options = match &server.ssl_root_cert {
            Some(url::RootCert::File(path)) => options.ssl_root_cert(path),
            Some(url::RootCert::Pem(pem)) => options.ssl_root_cert_from_pem(pem.clone()),
            None | Some(url::RootCert::System) => match std::env::var_os("PGSSLROOTCERT") {
                Some(_) => options.ssl_root_cert_from_pem(Vec::new()),
                None => options,
            },
        };
        if let Some(path) = &server.ssl_cert {
            options = options.ssl_client_cert(path);
        }
        if let Some(path) = &server.ssl_key {
            options = options.ssl_client_key(path);
        }
        if self.echo {
            options.log_statements(LevelFilter::Info)
        } else {
            options.log_statements(LevelFilter::Debug)
        }
        .log_slow_statements(LevelFilter::Warn, Duration::from_secs(1))
    }
}

/// What is connected to, for messages.
fn target(server: &url::Server, host: &str, port: u16) -> ConnectTarget {
    let address = if host.starts_with('/') {
        format!("{host}/.s.PGSQL.{port}")
    } else {
        format!("{host}:{port}")
    };
    let files = if url::is_socket(host) { Vec::new() } else { server.files() };
    ConnectTarget { address, user: server.user.clone(), database: server.database.clone(), files }
}

fn parse<T: FromStr>(
    variable: &'static str,
    value: Option<String>,
    expected: &'static str,
) -> Result<Option<T>, ConfigError> {
    value
        .map(|value| value.trim().parse())
        .transpose()
        .map_err(|_| ConfigError::InvalidVariable { variable, expected })
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("host", &self.server.host)
            .field("port", &self.server.port)
            .field("user", &self.server.user)
            .field("database", &self.server.database)
            .field("ssl_mode", &self.server.ssl_mode())
            .field("pool_size", &self.pool_size)
            .field("max_overflow", &self.max_overflow)
            .finish_non_exhaustive()
    }
}
