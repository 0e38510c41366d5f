//! A configuration, setting by setting.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::files::Holds;
use super::parameters::Wanted;
use super::url::{self, RootCert};
use super::{ConfigError, DatabaseConfig, PoolOrder, SslMode};
use crate::db::pooler::PoolerMode;
use crate::db::role_check::RoleCheck;

/// Builds a [`DatabaseConfig`].
#[derive(Clone)]
pub struct DatabaseConfigBuilder {
    pub(super) url: Option<SecretString>,
    pub(super) direct_url: Option<SecretString>,
    pub(super) reader_url: Option<SecretString>,
    pub(super) pooler: PoolerMode,
    pub(super) password: Option<SecretString>,
    pub(super) ssl_mode: Option<SslMode>,
    pub(super) ssl_root_cert: Option<RootCert>,
    pub(super) ssl_client_cert: Option<(PathBuf, PathBuf)>,
    pub(super) application_name: Option<String>,
    pub(super) pool_size: u32,
    pub(super) max_overflow: u32,
    pub(super) pool_timeout: Duration,
    pub(super) pool_recycle: Duration,
    pub(super) pool_pre_ping: bool,
    pub(super) pool_order: PoolOrder,
    pub(super) idle_timeout: Duration,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) health_timeout: Duration,
    pub(super) close_timeout: Duration,
    pub(super) statement_timeout: Option<Duration>,
    pub(super) idle_in_transaction_timeout: Duration,
    pub(super) lock_timeout: Duration,
    pub(super) client_check_interval: Duration,
    pub(super) hold_warning: Duration,
    pub(super) role_check: RoleCheck,
    pub(super) echo: bool,
}

impl Default for DatabaseConfigBuilder {
    fn default() -> Self {
        Self {
            url: None,
            direct_url: None,
            reader_url: None,
            pooler: PoolerMode::default(),
            password: None,
            ssl_mode: None,
            ssl_root_cert: None,
            ssl_client_cert: None,
            application_name: None,
            pool_size: 5,
            max_overflow: 10,
            pool_timeout: Duration::from_secs(5),
            pool_recycle: Duration::from_secs(1800),
            pool_pre_ping: true,
            pool_order: PoolOrder::default(),
            idle_timeout: Duration::from_secs(600),
            connect_timeout: None,
            health_timeout: Duration::from_secs(2),
            close_timeout: Duration::from_secs(10),
            statement_timeout: None,
            idle_in_transaction_timeout: Duration::from_secs(60),
            lock_timeout: Duration::from_secs(10),
            client_check_interval: Duration::from_millis(500),
            hold_warning: Duration::from_secs(10),
            role_check: RoleCheck::default(),
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

    /// The server itself, when [`url`](Self::url) leads to a pooler: for migrations and for listening,
    /// which need a session of their own.
    pub fn direct_url(mut self, url: &str) -> Self {
        self.direct_url = Some(url.to_owned().into());
        self
    }

    /// A standby, or several, for [`Database::reader`](crate::Database::reader).
    pub fn reader_url(mut self, url: &str) -> Self {
        self.reader_url = Some(url.to_owned().into());
        self
    }

    /// What stands between and the server. Default: found out when connecting.
    pub fn pooler(mut self, mode: PoolerMode) -> Self {
        self.pooler = mode;
        self
    }

    /// The password, when it does not stand in the URL.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned().into());
        self
    }

    /// Encryption, instead of the URL's `sslmode`. What `channel_binding=require` and a root certificate ask
    /// for beyond it still holds.
    pub fn ssl_mode(mut self, mode: SslMode) -> Self {
        self.ssl_mode = Some(mode);
        self
    }

    /// The file with the certificate of the authority that signs the server's, in PEM form, instead of the
    /// URL's `sslrootcert`. Authorities that are trusted everywhere stay trusted.
    pub fn ssl_root_cert(mut self, path: impl Into<PathBuf>) -> Self {
        self.ssl_root_cert = Some(RootCert::File(path.into()));
        self
    }

    /// As [`ssl_root_cert`](Self::ssl_root_cert), with the content of such a file.
    pub fn ssl_root_cert_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ssl_root_cert = Some(RootCert::Pem(pem.into()));
        self
    }

    /// The files with this client's certificate and its key, in PEM form, instead of the URL's `sslcert`
    /// and `sslkey`.
    pub fn ssl_client_cert(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.ssl_client_cert = Some((cert.into(), key.into()));
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

    /// Which of the idle connections is used next. Default: [`PoolOrder::Fifo`].
    pub fn pool_order(mut self, order: PoolOrder) -> Self {
        self.pool_order = order;
        self
    }

    /// How long connections beyond `pool_size` may be idle. Default 10 min.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How long it may take until the server takes a connection. Default 3 s.
    ///
    /// Whatever takes it is waited for until [`pool_timeout`](Self::pool_timeout), if that is longer: a
    /// serverless database is silent until it is awake.
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

    /// What to do about a login role that may do more than it need. Default: warn.
    pub fn role_check(mut self, check: RoleCheck) -> Self {
        self.role_check = check;
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
        let parse = |text: &SecretString| {
            let mut server = url::parse(text.expose_secret())?;
            server.connect_timeout = self.connect_timeout.unwrap_or(server.connect_timeout);
            server.password = self.password.clone().or(server.password);
            server.asked_ssl_mode = self.ssl_mode.or(server.asked_ssl_mode);
            server.ssl_root_cert = self.ssl_root_cert.clone().or(server.ssl_root_cert);
            if let Some((cert, key)) = &self.ssl_client_cert {
                (server.ssl_cert, server.ssl_key) = (Some(cert.clone()), Some(key.clone()));
            }
            if let Some(name) = &self.application_name {
                server.application_name.clone_from(name);
            }
            server.check_ssl()?;
            Ok(server)
        };
        let server = parse(&url)?;
        let named = |setting: &'static str, text: &Option<SecretString>| {
            text.as_ref().map(parse).transpose().map_err(|error| match error {
                ConfigError::InvalidUrl(what) => {
                    ConfigError::InvalidUrl(format!("{setting}: {what}"))
                }
                ConfigError::UnknownParameter(name) => ConfigError::InvalidUrl(format!(
                    "{setting}: it has an unknown parameter {name:?}"
                )),
                other => other,
            })
        };
        let direct = named("direct_url", &self.direct_url)?;
        let reader = named("reader_url", &self.reader_url)?;
        for (setting, server, wanted) in [
            ("url", Some(&server), Wanted::Standby),
            ("direct_url", direct.as_ref(), Wanted::Standby),
            ("reader_url", reader.as_ref(), Wanted::Primary),
        ] {
            if server.is_some_and(|server| server.wanted == Some(wanted)) {
                let expected = match wanted {
                    Wanted::Primary => {
                        "without target_session_attrs=read-write: it is for standbys"
                    }
                    _ => "of a primary: its target_session_attrs asks for a standby",
                };
                return Err(ConfigError::OutOfRange { setting, expected });
            }
        }
        let statement_timeout = self.statement_timeout.unwrap_or(Duration::from_secs(30));

        let range = |setting, inside: bool, expected| {
            inside.then_some(()).ok_or(ConfigError::OutOfRange { setting, expected })
        };
        range("pool_size", (1..=1000).contains(&self.pool_size), "between 1 and 1000")?;
        if let Some(RootCert::Pem(pem)) = &self.ssl_root_cert {
            let whole = Holds::Certificate.problem(pem).is_none();
            range("ssl_root_cert_pem", whole, "certificates in PEM form")?;
        }
        range("max_overflow", self.max_overflow <= 1000, "between 0 and 1000")?;
        for (setting, timeout) in [
            ("connect_timeout", server.connect_timeout),
            ("pool_timeout", self.pool_timeout),
            ("pool_recycle", self.pool_recycle),
            ("idle_timeout", self.idle_timeout),
            ("health_timeout", self.health_timeout),
            ("close_timeout", self.close_timeout),
        ] {
            let bounded = timeout > Duration::ZERO && timeout <= MAX_TIMEOUT;
            range(setting, bounded, "more than zero and at most 24 days")?;
        }
        for (setting, timeout) in [
            ("statement_timeout", statement_timeout),
            ("idle_in_transaction_timeout", self.idle_in_transaction_timeout),
            ("lock_timeout", self.lock_timeout),
            ("client_connection_check_interval", self.client_check_interval),
        ] {
            range(setting, timeout <= MAX_TIMEOUT, "at most 24 days")?;
        }
        // The protocol ends each of them with a NUL: what follows would be a setting of its own.
        for server in [Some(&server), direct.as_ref(), reader.as_ref()].into_iter().flatten() {
            let password = server.password.as_ref().map(ExposeSecret::expose_secret);
            for (setting, text) in
                [("application_name", Some(&*server.application_name)), ("password", password)]
            {
                let whole = !text.is_some_and(|text| text.contains('\0'));
                range(setting, whole, "without NUL characters")?;
            }
        }
        let unless_zero = |t: Duration| Some(t).filter(|t| !t.is_zero());
        Ok(DatabaseConfig {
            server,
            direct,
            reader,
            pooler: self.pooler,
            pool_size: self.pool_size,
            max_overflow: self.max_overflow,
            pool_timeout: self.pool_timeout,
            pool_recycle: self.pool_recycle,
            pool_pre_ping: self.pool_pre_ping,
            pool_order: self.pool_order,
            idle_timeout: self.idle_timeout,
            health_timeout: self.health_timeout,
            close_timeout: self.close_timeout,
            hold_warning: self.hold_warning,
            role_check: self.role_check,
            statement_timeout: unless_zero(statement_timeout),
            lock_timeout: unless_zero(self.lock_timeout),
            idle_in_transaction_timeout: unless_zero(self.idle_in_transaction_timeout),
            client_check_interval: unless_zero(self.client_check_interval),
            echo: self.echo,
        })
    }
}

impl fmt::Debug for DatabaseConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfigBuilder").finish_non_exhaustive()
    }
}

/// The server's settings end at 2^31 ms.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 24 * 3600);
