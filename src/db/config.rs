//! Where the database is, and how the pool behaves.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tracing::log::LevelFilter;
use url::Url;

use super::error::ConnectTarget;

/// Whether connections are encrypted, and what of the server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// No encryption.
    Disable,
    /// Encrypted if the server can; nothing is checked. The default for this machine.
    Prefer,
    /// Encrypted; nothing is checked.
    Require,
    /// Encrypted, and the certificate is signed by a trusted authority.
    VerifyCa,
    /// Encrypted, signed, and made out to this host. The default for every other machine.
    VerifyFull,
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
/// `postgres://` and `postgresql://`, also with a Python driver's name (`postgresql+asyncpg://`),
/// which is ignored. Parameters: `sslmode` (or asyncpg's `ssl`), `sslrootcert`, `sslcert`, `sslkey`,
/// `application_name`, `options`, `host`, `port`, `user`, `password`, `dbname`, `connect_timeout`
/// (seconds). `channel_binding` is accepted and ignored. Any other is refused by name.
///
/// Special characters are percent-encoded: `/`, `?`, `#` and `@` in a password, `@` after the host.
///
/// Without `sslmode`, `verify-full` holds for every host that is not a loopback address or a socket.
///
/// [`Database::connect`]: crate::Database::connect
#[derive(Clone)]
pub struct DatabaseConfig {
    host: String,
    port: u16,
    user: String,
    password: Option<SecretString>,
    database: String,
    ssl_mode: SslMode,
    ssl_root_cert: Option<PathBuf>,
    ssl_cert: Option<PathBuf>,
    ssl_key: Option<PathBuf>,
    application_name: String,
    options: Option<String>,
    pub(crate) pool_size: u32,
    pub(crate) max_overflow: u32,
    pub(crate) pool_timeout: Duration,
    pub(crate) pool_recycle: Duration,
    pub(crate) pool_pre_ping: bool,
    pub(crate) idle_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) health_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) hold_warning: Duration,
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
    #[error("the database URL has an unknown parameter {0:?}")]
    UnknownParameter(String),
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
    /// From `DATABASE_URL` and these optional variables, and no others:
    ///
    /// | variable | meaning | default |
    /// |---|---|---|
    /// | `DATABASE_POOL_SIZE` | connections that are kept | 5 |
    /// | `DATABASE_MAX_OVERFLOW` | more of them under load | 10 |
    /// | `DATABASE_POOL_TIMEOUT` | seconds to wait for a connection | 5 |
    /// | `DATABASE_POOL_RECYCLE` | seconds after which a connection is replaced | 1800 |
    /// | `DATABASE_POOL_PRE_PING` | `true`: test connections that were idle for over a second | `true` |
    /// | `DATABASE_IDLE_TIMEOUT` | seconds after which an idle overflow connection is closed | 600 |
    /// | `DATABASE_CONNECT_TIMEOUT` | seconds to connect | 3 |
    /// | `DATABASE_STATEMENT_TIMEOUT` | seconds a statement may run; 0: for ever | 30 |
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

    /// The driver's options for one connection.
    pub(crate) fn connect_options(&self) -> PgConnectOptions {
        for name in ["PGOPTIONS", "PGSSLCERT", "PGSSLKEY"] {
            if std::env::var_os(name).is_some() {
                tracing::warn!(name, "the driver takes this variable from the environment");
            }
        }
        // Every field is set: the driver's constructor starts from libpq's variables.
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .password(self.password.as_ref().map_or("", ExposeSecret::expose_secret))
            .database(&self.database)
            .ssl_mode(self.ssl_mode.into())
            .application_name(&self.application_name);
        options = match &self.ssl_root_cert {
            Some(path) => options.ssl_root_cert(path),
            None if std::env::var_os("PGSSLROOTCERT").is_some() => {
                options.ssl_root_cert_from_pem(Vec::new())
            }
            None => options,
        };
        if let Some(path) = &self.ssl_cert {
            options = options.ssl_client_cert(path);
        }
        if let Some(path) = &self.ssl_key {
            options = options.ssl_client_key(path);
        }
        let timeout = |t: Option<Duration>| t.map(|t| t.as_millis().to_string());
        let settings = [
            ("statement_timeout", timeout(self.statement_timeout)),
            ("idle_in_transaction_session_timeout", timeout(self.idle_in_transaction_timeout)),
            ("lock_timeout", timeout(self.lock_timeout)),
            ("client_connection_check_interval", timeout(self.client_check_interval)),
        ];
        options = options.options(settings.iter().filter_map(|(k, v)| Some((k, v.as_ref()?))));
        if let Some(extra) = &self.options {
            options = options.options(parse_options(extra));
        }
        if self.echo {
            options.log_statements(LevelFilter::Info)
        } else {
            options.log_statements(LevelFilter::Debug)
        }
        .log_slow_statements(LevelFilter::Warn, Duration::from_secs(1))
    }

    /// What is connected to, for messages.
    pub(crate) fn target(&self) -> ConnectTarget {
        let address = if self.host.starts_with('/') {
            format!("{}/.s.PGSQL.{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        ConnectTarget { address, user: self.user.clone(), database: self.database.clone() }
    }
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

/// `-c name=value` pairs, as libpq's `options` parameter has them.
fn parse_options(text: &str) -> Vec<(String, String)> {
    text.split_whitespace()
        .map(|word| word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).unwrap_or(word))
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("ssl_mode", &self.ssl_mode)
            .field("pool_size", &self.pool_size)
            .field("max_overflow", &self.max_overflow)
            .finish_non_exhaustive()
    }
}

/// Builds a [`DatabaseConfig`].
#[derive(Clone)]
pub struct DatabaseConfigBuilder {
    url: Option<SecretString>,
    password: Option<SecretString>,
    ssl_mode: Option<SslMode>,
    application_name: Option<String>,
    pool_size: u32,
    max_overflow: u32,
    pool_timeout: Duration,
    pool_recycle: Duration,
    pool_pre_ping: bool,
    idle_timeout: Duration,
    connect_timeout: Option<Duration>,
    health_timeout: Duration,
    close_timeout: Duration,
    statement_timeout: Option<Duration>,
    idle_in_transaction_timeout: Duration,
    lock_timeout: Duration,
    client_check_interval: Duration,
    hold_warning: Duration,
    echo: bool,
}

impl Default for DatabaseConfigBuilder {
    fn default() -> Self {
        Self {
            url: None,
            password: None,
            ssl_mode: None,
            application_name: None,
            pool_size: 5,
            max_overflow: 10,
            pool_timeout: Duration::from_secs(5),
            pool_recycle: Duration::from_secs(1800),
            pool_pre_ping: true,
            idle_timeout: Duration::from_secs(600),
            connect_timeout: None,
            health_timeout: Duration::from_secs(2),
            close_timeout: Duration::from_secs(10),
            statement_timeout: None,
            idle_in_transaction_timeout: Duration::from_secs(60),
            lock_timeout: Duration::from_secs(10),
            client_check_interval: Duration::from_millis(500),
            hold_warning: Duration::from_secs(10),
            echo: false,
        }
    }
}

impl DatabaseConfigBuilder {
    /// Where the database is. Required.
    pub fn url(mut self, url: &str) -> Self {
        self.url = Some(url.to_owned().into());
        self
    }

    /// The password, when it does not stand in the URL.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned().into());
        self
    }

    /// Encryption, instead of the URL's.
    pub fn ssl_mode(mut self, mode: SslMode) -> Self {
        self.ssl_mode = Some(mode);
        self
    }

    /// The name that the server shows for these connections. Default: the URL's, or `chancery`.
    pub fn application_name(mut self, name: &str) -> Self {
        self.application_name = Some(name.to_owned());
        self
    }

    /// Connections that are kept open: 1 to 1000. Default 5.
    pub fn pool_size(mut self, connections: u32) -> Self {
        self.pool_size = connections;
        self
    }

    /// Connections that are opened beyond `pool_size` under load: 0 to 1000. Default 10.
    pub fn max_overflow(mut self, connections: u32) -> Self {
        self.max_overflow = connections;
        self
    }

    /// How long a caller waits for a connection. Default 5 s.
    pub fn pool_timeout(mut self, timeout: Duration) -> Self {
        self.pool_timeout = timeout;
        self
    }

    /// The age at which a connection is replaced, give or take a tenth, so that connections that
    /// were opened together are not all replaced together. Default 30 min.
    pub fn pool_recycle(mut self, age: Duration) -> Self {
        self.pool_recycle = age;
        self
    }

    /// Whether a connection that was idle for over a second is tested before it is handed out.
    /// Default: yes.
    pub fn pool_pre_ping(mut self, on: bool) -> Self {
        self.pool_pre_ping = on;
        self
    }

    /// How long connections beyond `pool_size` may be idle. Default 10 min.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How long connecting may take. Default 3 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// How long [`Database::health`](crate::Database::health) may take. Default 2 s.
    pub fn health_timeout(mut self, timeout: Duration) -> Self {
        self.health_timeout = timeout;
        self
    }

    /// How long [`Database::close`](crate::Database::close) waits for connections in use. Default 10 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// How long a statement may run before the server cancels it; zero: for ever. Default 30 s.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = Some(timeout);
        self
    }

    /// How long a transaction may wait for its next statement before the server ends it; zero: for
    /// ever. Default 60 s.
    pub fn idle_in_transaction_timeout(mut self, timeout: Duration) -> Self {
        self.idle_in_transaction_timeout = timeout;
        self
    }

    /// How long a statement may wait for a lock; zero: for ever. Default 10 s.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// How often the server looks whether the client of a running statement is still there, so that it
    /// ends what nobody waits for; zero: never. Default 500 ms. A server on Windows can't, and refuses
    /// connections that ask for it.
    pub fn client_connection_check_interval(mut self, interval: Duration) -> Self {
        self.client_check_interval = interval;
        self
    }

    /// How long a connection may be held before a warning is logged, with the place in the code that
    /// asked for it. Default 10 s.
    pub fn hold_warning(mut self, after: Duration) -> Self {
        self.hold_warning = after;
        self
    }

    /// Whether every statement is logged at INFO, without its values. Default: no (DEBUG).
    pub fn echo(mut self, on: bool) -> Self {
        self.echo = on;
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the setting.
    pub fn build(self) -> Result<DatabaseConfig, ConfigError> {
        let url = self.url.ok_or(ConfigError::MissingVariable("url"))?;
        let mut config = parse_url(url.expose_secret())?;
        let range = |setting, inside: bool, expected| {
            inside.then_some(()).ok_or(ConfigError::OutOfRange { setting, expected })
        };
        range("pool_size", (1..=1000).contains(&self.pool_size), "between 1 and 1000")?;
        range("max_overflow", self.max_overflow <= 1000, "between 0 and 1000")?;
        config.pool_size = self.pool_size;
        config.max_overflow = self.max_overflow;
        config.pool_pre_ping = self.pool_pre_ping;
        config.echo = self.echo;
        config.connect_timeout = self.connect_timeout.unwrap_or(config.connect_timeout);
        config.pool_timeout = self.pool_timeout;
        config.pool_recycle = self.pool_recycle;
        config.idle_timeout = self.idle_timeout;
        config.health_timeout = self.health_timeout;
        config.close_timeout = self.close_timeout;
        // tokio's clock takes far more, the server's settings end at 2^31 ms.
        let bounded = |t: Duration| t > Duration::ZERO && t <= MAX_TIMEOUT;
        for (setting, timeout) in [
            ("connect_timeout", config.connect_timeout),
            ("pool_timeout", config.pool_timeout),
            ("pool_recycle", config.pool_recycle),
            ("idle_timeout", config.idle_timeout),
            ("health_timeout", config.health_timeout),
            ("close_timeout", config.close_timeout),
        ] {
            range(setting, bounded(timeout), "more than zero and at most 24 days")?;
        }
        let statement_timeout = self.statement_timeout.unwrap_or(Duration::from_secs(30));
        for (setting, timeout) in [
            ("statement_timeout", statement_timeout),
            ("idle_in_transaction_timeout", self.idle_in_transaction_timeout),
            ("lock_timeout", self.lock_timeout),
            ("client_connection_check_interval", self.client_check_interval),
        ] {
            range(setting, timeout <= MAX_TIMEOUT, "at most 24 days")?;
        }
        let set = |t: Duration| Some(t).filter(|t| !t.is_zero());
        config.statement_timeout = set(statement_timeout);
        config.idle_in_transaction_timeout = set(self.idle_in_transaction_timeout);
        config.lock_timeout = set(self.lock_timeout);
        config.client_check_interval = set(self.client_check_interval);
        config.hold_warning = self.hold_warning;
        config.password = self.password.or(config.password);
        config.ssl_mode = self.ssl_mode.unwrap_or(config.ssl_mode);
        config.application_name = self.application_name.unwrap_or(config.application_name);
        Ok(config)
    }
}

impl fmt::Debug for DatabaseConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfigBuilder").finish_non_exhaustive()
    }
}

const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 24 * 3600);

fn invalid(what: impl Into<String>) -> ConfigError {
    ConfigError::InvalidUrl(what.into())
}

/// Reads the URL. Messages name parts of it, never their content.
fn parse_url(text: &str) -> Result<DatabaseConfig, ConfigError> {
    let text = text.trim();
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| invalid("it must begin with postgres:// or postgresql://"))?;
    // SQLAlchemy's postgresql+asyncpg and the like name a driver that is not used here.
    match scheme.split_once('+').map_or(scheme, |(scheme, _)| scheme) {
        "postgres" | "postgresql" => {}
        _ => return Err(invalid("it must begin with postgres:// or postgresql://")),
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
    if authority.rsplit('@').next().is_some_and(|hosts| hosts.contains(',')) {
        return Err(invalid("it names several hosts, and one is supported"));
    }
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
    let mut user = decode(url.username(), "user")?;
    let mut password = url.password().map(|p| decode(p, "password")).transpose()?;
    let mut database = decode(url.path().trim_start_matches('/'), "database")?;
    let mut config = DatabaseConfig {
        host: String::new(),
        port: url.port().unwrap_or(5432),
        user: String::new(),
        password: None,
        database: String::new(),
        ssl_mode: SslMode::Prefer,
        ssl_root_cert: None,
        ssl_cert: None,
        ssl_key: None,
        application_name: "chancery".into(),
        options: None,
        pool_size: 0,
        max_overflow: 0,
        pool_timeout: Duration::ZERO,
        pool_recycle: Duration::ZERO,
        pool_pre_ping: true,
        idle_timeout: Duration::ZERO,
        connect_timeout: Duration::from_secs(3),
        health_timeout: Duration::ZERO,
        close_timeout: Duration::ZERO,
        hold_warning: Duration::ZERO,
        statement_timeout: None,
        lock_timeout: None,
        idle_in_transaction_timeout: None,
        client_check_interval: None,
        echo: false,
    };
    let mut ssl_mode = None;
    for (key, value) in url.query_pairs() {
        let value = value.into_owned();
        match &*key {
            "sslmode" | "ssl" => ssl_mode = Some(parse_ssl_mode(&value)?),
            "sslrootcert" => config.ssl_root_cert = Some(value.into()),
            "sslcert" => config.ssl_cert = Some(value.into()),
            "sslkey" => config.ssl_key = Some(value.into()),
            "application_name" => config.application_name = value,
            "options" => config.options = Some(value),
            "host" | "hostaddr" => host = value,
            "port" => config.port = port(&value)?,
            "user" => user = value,
            "password" => password = Some(value),
            "dbname" => database = value,
            "connect_timeout" => {
                let seconds = value.parse().map_err(|_| invalid("connect_timeout is no number"))?;
                config.connect_timeout = Duration::from_secs(seconds);
            }
            // The driver can't bind the channel; TLS with verify-full protects the same exchange.
            "channel_binding" => {}
            _ => return Err(ConfigError::UnknownParameter(key.into_owned())),
        }
    }
    if config.port == 0 {
        return Err(invalid("its port is not a number between 1 and 65535"));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    config.host = if host.is_empty() { "localhost".into() } else { host };
    config.user = if user.is_empty() { "postgres".into() } else { user };
    config.database = if database.is_empty() { config.user.clone() } else { database };
    config.password = password.map(Into::into);
    config.ssl_mode = ssl_mode.unwrap_or(if is_local(&config.host) {
        SslMode::Prefer
    } else {
        SslMode::VerifyFull
    });
    for (what, text) in
        [("host", &config.host), ("user", &config.user), ("database", &config.database)]
    {
        if text.contains('\0') {
            return Err(invalid(format!("its {what} contains a NUL character")));
        }
    }
    Ok(config)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> DatabaseConfig {
        DatabaseConfig::from_url(text).unwrap()
    }

    #[test]
    fn what_the_specifications_users_paste_is_understood() {
        let neon = url(
            "postgresql+asyncpg://me:pw@ep-x-pooler.c-2.us-east-2.aws.neon.tech/neondb?ssl=require&channel_binding=require",
        );
        assert_eq!(neon.ssl_mode, SslMode::Require);
        assert_eq!(neon.database, "neondb");
        for scheme in ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+asyncpg"] {
            let config = url(&format!("{scheme}://postgres:p%40ss@localhost:5433/llm_pipeline"));
            assert_eq!(config.port, 5433);
            assert_eq!(config.password.unwrap().expose_secret(), "p@ss");
        }
        assert_eq!(url("postgres:///app?host=/var/run/postgresql").host, "/var/run/postgresql");
        let socket = url("postgresql://me:pw@/app?host=/cloudsql/project");
        assert_eq!(
            (&*socket.host, &*socket.user, &*socket.database),
            ("/cloudsql/project", "me", "app")
        );
        assert_eq!(url("postgres://%2Fvar%2Frun/app").host, "/var/run");
        assert_eq!(url("postgres://u@[::1]:5432/app").host, "::1");
        assert_eq!(url("postgres://ada@localhost").database, "ada");
    }

    #[test]
    fn certificates_are_checked_unless_the_host_is_this_machine() {
        for local in ["localhost", "127.0.0.1", "[::1]", "%2Ftmp"] {
            assert_eq!(url(&format!("postgres://u@{local}/d")).ssl_mode, SslMode::Prefer);
        }
        assert_eq!(url("postgres://u@db.example.org/d").ssl_mode, SslMode::VerifyFull);
        assert_eq!(url("postgres://u@db/d?sslmode=disable").ssl_mode, SslMode::Disable);
    }

    #[test]
    fn a_wrong_url_is_refused_without_showing_it() {
        for wrong in [
            "",
            "s3cret",
            "mysql://u:s3cret@h/d",
            "postgres://u:s3cret@h:port/d",
            "postgres://u:s3cret@h:0/d",
            "postgres://u:s3cret@h:70000/d",
            "postgres://u:s3cret@a,b/d",
            "postgres://u:s3cret#x@h/d",
            "postgres://u:s3cret@h/d?sslmode=s3cret",
            "postgres://u:s3cret@h/d?connect_timeout=s3cret",
            "postgres://u:s3cret@h/d?unknown=s3cret",
            "postgres://u:s3cret@h/d%00",
        ] {
            let error = DatabaseConfig::from_url(wrong).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_environment_is_read_by_name_and_checked() {
        let from = |pairs: &'static [(&'static str, &'static str)]| {
            DatabaseConfig::from_variables(move |name| {
                pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
            })
        };
        assert_eq!(from(&[]).unwrap_err(), ConfigError::MissingVariable("DATABASE_URL"));
        assert_eq!(
            from(&[("DATABASE_URL", "")]).unwrap_err(),
            ConfigError::MissingVariable("DATABASE_URL")
        );
        let config = from(&[
            ("DATABASE_URL", "postgres://localhost/d"),
            ("DATABASE_POOL_SIZE", "20"),
            ("DATABASE_MAX_OVERFLOW", "0"),
            ("DATABASE_POOL_TIMEOUT", "0.5"),
            ("DATABASE_POOL_RECYCLE", "3600"),
            ("DATABASE_ECHO", "True"),
        ])
        .unwrap();
        assert_eq!((config.pool_size, config.max_overflow, config.echo), (20, 0, true));
        assert_eq!(config.pool_timeout, Duration::from_millis(500));
        for (name, value) in [
            ("DATABASE_POOL_SIZE", "many"),
            ("DATABASE_POOL_SIZE", "-1"),
            ("DATABASE_POOL_TIMEOUT", "-1"),
            ("DATABASE_POOL_TIMEOUT", "NaN"),
            ("DATABASE_ECHO", "maybe"),
        ] {
            let error = DatabaseConfig::from_variables(|n| match n {
                "DATABASE_URL" => Some("postgres://localhost/d".into()),
                n if n == name => Some(value.into()),
                _ => None,
            })
            .unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let base = || DatabaseConfig::builder().url("postgres://localhost/d");
        for (name, builder) in [
            ("pool_size", base().pool_size(0)),
            ("pool_size", base().pool_size(1001)),
            ("max_overflow", base().max_overflow(u32::MAX)),
            ("pool_timeout", base().pool_timeout(Duration::ZERO)),
            ("connect_timeout", base().connect_timeout(Duration::MAX)),
            ("statement_timeout", base().statement_timeout(Duration::MAX)),
        ] {
            let error = builder.build().unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
        assert_eq!(
            DatabaseConfig::builder().build().unwrap_err(),
            ConfigError::MissingVariable("url")
        );
    }

    #[test]
    fn neither_debug_nor_the_drivers_options_debug_is_printed_with_a_password() {
        let config = url("postgres://u:s3cret@localhost/d");
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(!format!("{:?}", DatabaseConfig::builder().password("s3cret")).contains("s3cret"));
    }
}
