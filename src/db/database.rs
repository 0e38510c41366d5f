//! The handle of a database: a pool of connections and what is done with it as a whole.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

use super::attempt::ConnectLimits;
use super::boundary::is_inside;
use super::config::{DatabaseConfig, PoolOrder};
use super::conn::Conn;
use super::error::{ConnectTarget, Error, Result};
use super::hosts::{Host, Hosts};
use super::lease::{Anchored, LeaseOptions, Leases, Lifetime, PING, Runtimes, Trim, is_past};
use super::pooler::PoolerMode;
use super::role_check::check_role;
use super::runtime::{detached, here};

/// What the answer to a statement may take beyond the server's own limit, before the network counts
/// as silent.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// A database: a pool of connections, the repositories, units of work, migrations and health.
///
/// Cheap to clone; all clones share the pool. Repositories come from it by name and run each
/// statement by itself; [`transaction`](Self::transaction) and [`begin`](Self::begin) give those
/// that commit together.
///
/// ```no_run
/// use chancery::{Database, DatabaseConfig};
///
/// # async fn example() -> chancery::Result<()> {
/// let db = Database::connect(&DatabaseConfig::from_env()?).await?;
/// db.migrate().await?;
/// let user = db.users().get_by_email("ada@example.org").await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    leases: Arc<Leases>,
    // The server itself, where a URL of its own leads there.
    direct: Option<Hosts>,
    // The standbys, where a URL leads there.
    reader: Option<Arc<Leases>>,
    timeouts: Timeouts,
}

/// How long things may take that no caller's timeout bounds.
#[derive(Clone, Copy)]
pub(crate) struct Timeouts {
    pub connect: ConnectLimits,
    pub health: Duration,
    pub close: Duration,
}

impl Database {
    /// Connects: makes one connection at once, so that what is wrong is told here and now, and opens
    /// the others as they are needed.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], [`Error::ConnectTimeout`], [`Error::AuthenticationFailed`],
    /// [`Error::DatabaseMissing`], [`Error::Tls`] or [`Error::TooManyConnections`]: within the
    /// configuration's `connect_timeout` where nothing takes the connection, within its `pool_timeout`
    /// where something does and then is silent, as a serverless database is until it is awake;
    /// [`Error::UnsafePooler`] when prepared statements would get
    /// lost on the way ([`PoolerMode`](crate::PoolerMode)); [`Error::RoleRefused`] when the
    /// configuration does not take the login role; [`Error::Config`] when a file with a certificate has
    /// gone, or the driver can't send this password.
    pub async fn connect(config: &DatabaseConfig) -> Result<Self> {
        let database = Self::connect_lazy(config);
        let look = async {
            database.leases().survey().await?;
            let options = (*database.leases().pool.connect_options()).clone();
            let host = database.leases().hosts.current();
            let mut connection = database.open_connection(host, options).await?;
            let checked = check_role(&mut connection, config.role_check).await;
            let server_version = connection.server_version_num();
            connection.close().await.ok();
            checked.map(|()| server_version)
        };
        match look.await {
            Ok(server_version) => {
                tracing::info!(
                    target: "chancery",
                    event = "database.connection_initialized",
                    address = %database.leases().target().address,
                    database = %database.leases().target().database,
                    server_version,
                    pooler = database.leases().shares_sessions(),
                    pool_size = config.pool_size,
                    max_overflow = config.max_overflow,
                    "connected"
                );
                Ok(database)
            }
            Err(error) => {
                tracing::error!(
                    target: "chancery",
                    event = "database.connection_failed",
                    address = %database.leases().target().address,
                    database = %database.leases().target().database,
                    %error,
                    "connecting failed"
                );
                Err(error)
            }
        }
    }

    /// As [`connect`](Self::connect), without trying: the first use connects. It may be called outside of
    /// a tokio runtime, in the initializer of a static for example.
    ///
    /// Connections belong to the runtime that opened them. When another runtime uses the same `Database`,
    /// at the same time or after the first one has ended, it opens its own, of the same pool.
    pub fn connect_lazy(config: &DatabaseConfig) -> Self {
        config.warn_of_the_ignored();
        let hosts = Arc::new(config.writers());
        let leases = Self::pool_of(config, hosts);
        let timeouts = Timeouts {
            connect: config.connect_limits(),
            health: config.health_timeout,
            close: config.close_timeout,
        };
        let reader = config.readers().map(|hosts| Self::pool_of(config, Arc::new(hosts)));
        Self { inner: Arc::new(Inner { leases, direct: config.direct(), reader, timeouts }) }
    }

    fn pool_of(config: &DatabaseConfig, hosts: Arc<Hosts>) -> Arc<Leases> {
        let recycle = config.pool_recycle;
        let pre_ping = config.pool_pre_ping;
        let host = hosts.current();
        let connect_options = match config.pooler {
            PoolerMode::Transaction => host.bare.clone(),
            PoolerMode::Detect | PoolerMode::Direct => host.options.clone(),
        };
        let moving = Arc::clone(&hosts);
        let runtimes = Arc::new(Runtimes::default());
        let used_by = Arc::clone(&runtimes);
        let limits = config.connect_limits();
        let acquire_timeout = if hosts.has_choice(config.pooler == PoolerMode::Transaction) {
            // Another host is looked for meanwhile.
            limits.reach.mul_f64(0.8)
        } else {
            limits.answer
        };
        let pool = PgPoolOptions::new()
            .max_connections(config.pool_size + config.max_overflow)
            // Leases wait their turn before; what is left is connecting, tried again while the server
            // starts, with pauses of up to a fifth of this.
            .acquire_timeout(acquire_timeout)
            // Not the pool's: it closes all that are idle, and opens others in their place.
            .idle_timeout(None)
            // Not the pool's: it has no jitter.
            .max_lifetime(None)
            // Not the pool's: it costs a round trip each time, and waits for ever.
            .test_before_acquire(false)
            // What lies in the pool was idle for longer than a lease is kept, so it always is pinged.
            .before_acquire(move |connection, meta| {
                let usable = !used_by.are_several() && moving.is_current(Instant::now() - meta.age);
                Box::pin(async move {
                    if !usable || is_past(recycle, meta.age) {
                        return Ok(false);
                    }
                    if !pre_ping {
                        return Ok(true);
                    }
                    match tokio::time::timeout(PING, connection.ping()).await {
                        Ok(answer) => answer.map(|()| true),
                        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
                    }
                })
            })
            .after_connect(|_, _| {
                tracing::debug!(
                    target: "chancery",
                    event = "database.session_created",
                    "the pool opened a connection"
                );
                Box::pin(async { Ok(()) })
            })
            // Whoever takes connections from the pool itself may leave a transaction open. This is in
            // nobody's way: what a lease gives back was idle before.
            .after_release(|connection, _| {
                Box::pin(async move { Ok(!is_inside(connection).await?) })
            })
            .connect_lazy_with(connect_options);
        let options = LeaseOptions {
            connect: limits,
            pooler: config.pooler,
            settings: config.session_settings().collect(),
            acquire: config.pool_timeout,
            answer: config.statement_timeout.map(|server| server + ANSWER_GRACE),
            lifetime: Lifetime::Recycle(recycle),
            order: config.pool_order,
            trim: Some(Trim { keep: config.pool_size, after: config.idle_timeout }),
            pre_ping,
            held: config.hold_warning,
        };
        Leases::new(pool, hosts, runtimes, options)
    }

    /// Wraps a pool that is there already: the application's, or that of a `#[sqlx::test]`. The
    /// pool's own settings hold, and no pooler is looked for: behind one that does not keep track of
    /// prepared statements answers get mixed up. It may be called outside of a tokio runtime.
    ///
    /// Each connection that the pool hands over is asked first whether somebody left it inside of a
    /// transaction: one round trip. Then it is kept for as long as it is used, a minute at most.
    pub fn from_pool(pool: PgPool) -> Self {
        let options = pool.connect_options();
        let target = ConnectTarget {
            address: match options.get_socket() {
                Some(socket) => socket.display().to_string(),
                None => format!("{}:{}", options.get_host(), options.get_port()),
            },
            user: options.get_username().to_owned(),
            database: options.get_database().unwrap_or_default().to_owned(),
            files: Vec::new(),
        };
        let timeouts = Timeouts {
            connect: ConnectLimits {
                reach: Duration::from_secs(3),
                answer: Duration::from_secs(3).max(pool.options().get_acquire_timeout()),
            },
            health: Duration::from_secs(2),
            close: Duration::from_secs(10),
        };
        // Often enough for the pool's own rules to hold.
        let lend = pool.options().get_max_lifetime().map_or(Duration::from_secs(60), |l| l / 10);
        let lease_options = LeaseOptions {
            connect: timeouts.connect,
            pooler: PoolerMode::Direct,
            settings: Vec::new(),
            acquire: pool.options().get_acquire_timeout(),
            answer: None,
            lifetime: Lifetime::Lend(lend),
            order: PoolOrder::default(),
            trim: None,
            pre_ping: true,
            held: Duration::from_secs(10),
        };
        let host = Host {
            options: (*options).clone(),
            bare: (*options).clone(),
            has_options_of_its_own: false,
            target,
        };
        let hosts = Hosts::of_a_primary(vec![host], 1, timeouts.connect.reach);
        let leases = Leases::new(pool, Arc::new(hosts), Arc::default(), lease_options);
        Self { inner: Arc::new(Inner { leases, direct: None, reader: None, timeouts }) }
    }

    pub(crate) fn leases(&self) -> &Arc<Leases> {
        &self.inner.leases
    }

    /// The pool of the standbys, if there is one.
    pub(crate) fn reader_leases(&self) -> Option<&Arc<Leases>> {
        self.inner.reader.as_ref()
    }

    /// The pool, for what this crate does not do. Its `connect_options()` are the driver's, whose `Debug`
    /// shows the password: do not print them.
    ///
    /// A connection that was just used stays out of it for about a second, for the next caller here:
    /// whoever takes connections from the pool itself, all of them at once, may have to wait for that.
    /// One that comes back inside of a transaction is closed.
    pub fn pool(&self) -> &PgPool {
        &self.leases().pool
    }

    /// The pool as an executor, for the application's own statements; each commits by itself.
    ///
    /// SQL that begins a transaction and leaves it open is refused with
    /// [`Error::TransactionControl`](crate::Error::TransactionControl), and what it did is rolled back:
    /// the next caller's work would be swallowed by it. [`begin`](Self::begin) is there for that. To
    /// find it out, the server is asked after a statement without arguments in whose text one of the
    /// words `begin`, `start` and `execute` stands, which is a round trip more; after others it is not.
    /// What else SQL leaves behind in the session (`set`, `set role`, temporary tables, `listen`) the
    /// next caller finds there.
    #[track_caller]
    pub fn executor(&self) -> Conn<'_> {
        Conn::pool(self.leases(), Location::caller())
    }

    /// What the pool holds right now.
    pub fn pool_status(&self) -> PoolStatus {
        self.leases().status()
    }

    /// Closes all connections: idle ones at once, those in use as they come back. Later calls on any
    /// clone fail with [`Error::PoolClosed`].
    ///
    /// It ends: what is still in use after the configuration's `close_timeout` is left to end by
    /// itself, and `false` is returned.
    pub async fn close(&self) -> bool {
        let limit = self.inner.timeouts.close;
        let clean = match &self.inner.reader {
            None => close(self.leases(), limit).await,
            Some(reader) => {
                let both = (close(self.leases(), limit), close(reader, limit));
                let (primary, standby) = futures_util::future::join(both.0, both.1).await;
                primary && standby
            }
        };
        let pool = self.pool_status();
        tracing::info!(
            target: "chancery",
            event = "database.closed",
            clean,
            left_in_use = pool.in_use,
            "closed"
        );
        clean
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.inner.timeouts
    }

    /// How to connect for a session of one's own, which a pooler in transaction mode does not give.
    pub(crate) async fn session(&self, purpose: &'static str) -> Result<(&Host, PgConnectOptions)> {
        if let Some(direct) = &self.inner.direct {
            if direct.has_choice(false) {
                direct.search(false).await;
            }
            let host = direct.current();
            return Ok((host, host.options.clone()));
        }
        self.leases().survey().await?;
        if self.leases().shares_sessions() {
            return Err(Error::DirectUrlMissing(purpose));
        }
        if self.leases().hosts.has_choice(false) {
            self.leases().search().await;
        }
        let options = (*self.leases().pool.connect_options()).clone();
        Ok((self.leases().hosts.current(), options))
    }

    /// A connection with a session of its own, outside of the pool.
    pub(crate) async fn open_session(&self, purpose: &'static str) -> Result<PgConnection> {
        if self.leases().pool.is_closed() {
            return Err(Error::PoolClosed);
        }
        let (host, options) = self.session(purpose).await?;
        self.open_connection(host, options).await
    }

    async fn open_connection(
        &self,
        host: &Host,
        options: PgConnectOptions,
    ) -> Result<PgConnection> {
        let (limits, host) = (self.inner.timeouts.connect, host.clone());
        // In a task: a dropped caller must not leave a half-open handshake to the pool's server.
        detached(async move { limits.connect(&options, &host).await }).await?
    }
}

/// Closes one pool. Whether all of it was closed within the limit.
async fn close(leases: &Leases, limit: Duration) -> bool {
    let pool = leases.pool.clone();
    let runtime = here();
    // The pool closes idle connections only when it has all of them back: taken out, they go now.
    let idle: Vec<_> = runtime
        .iter()
        .flat_map(|runtime| {
            std::iter::from_fn(|| pool.try_acquire()).map(|idle| Anchored::new(idle, runtime))
        })
        .collect();
    // Marks the pool as closed, before anything is waited for.
    drop(pool.close());
    leases.release_warm();
    // In a task: it goes on with those that come back after the timeout.
    let closing = detached(async move {
        for connection in idle {
            connection.closed().await;
        }
        pool.close().await;
    });
    matches!(tokio::time::timeout(limit, closing).await, Ok(Ok(())))
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("address", &self.leases().target().address)
            .field("database", &self.leases().target().database)
            .field("pool", &self.pool_status())
            .finish()
    }
}

/// What a pool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// Open connections.
    pub size: u32,
    /// Those that nobody uses.
    pub idle: u32,
    /// Those that somebody uses.
    pub in_use: u32,
    /// The most there can be: pool size and overflow.
    pub max: u32,
}
