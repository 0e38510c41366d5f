//! Health: is the database there, and is its schema ours?

use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use super::database::{Database, PoolStatus};
use super::error::Error;
use super::migrate::MigrationStatus;
use super::read_token::standing;
use super::runtime::finished;

/// Whether requests can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// The database answers, and takes writes.
    Healthy,
    /// It answers, and takes no writes: the URL leads to a standby, or
    /// `default_transaction_read_only` is on.
    ReadOnly,
    /// It does not, or not in time.
    Unhealthy,
}

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerRole {
    /// It takes writes.
    Primary,
    /// It follows a primary, and is read from.
    Standby,
}

/// How the standbys are: the server that reads go to.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ReaderHealth {
    /// Whether it answers.
    pub status: HealthStatus,
    /// What it is; after a promotion it may be the primary.
    pub role: Option<ServerRole>,
    /// Bytes of the primary's log that it has still to replay. None when either does not answer.
    pub lag_bytes: Option<u64>,
    /// How long ago what it has replayed last was committed, if there is more to replay; else zero.
    /// In milliseconds when serialised.
    #[serde(rename = "lag_ms", serialize_with = "maybe_milliseconds")]
    pub lag: Option<Duration>,
    /// What its pool holds.
    pub pool: PoolStatus,
    /// Why it is unhealthy, in a few words; the error itself is logged.
    pub error: Option<String>,
}

/// The answer of [`Database::health`], ready to be serialised by a health endpoint.
///
/// It holds neither the password nor the address.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// Whether requests can be served, and whether those that write can.
    pub status: HealthStatus,
    /// How long the answer took, connection included; in milliseconds when serialised.
    #[serde(rename = "latency_ms", serialize_with = "milliseconds")]
    pub latency: Duration,
    /// What the server is; none when it does not answer.
    pub role: Option<ServerRole>,
    /// The server's version, as it tells it: `17.2`.
    pub server_version: Option<String>,
    /// What the pool holds.
    pub pool: PoolStatus,
    /// Which migrations are applied; none when the database does not answer.
    pub schema: Option<MigrationStatus>,
    /// The standbys, if there are any. What they are does not change `status`.
    pub reader: Option<ReaderHealth>,
    /// Why it is not healthy, in a few words; the error itself is logged.
    pub error: Option<String>,
}

impl Health {
    /// Whether all requests can be served, also those that write.
    ///
    /// While nothing can be written, reads can be served as before. A load balancer that is to send
    /// them asks whether `status` is [`HealthStatus::Unhealthy`].
    pub fn is_healthy(&self) -> bool {
        self.status == HealthStatus::Healthy
    }
}

/// What an endpoint may tell: the error itself names addresses and places in the code.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::PoolTimedOut(timeout) if timeout.in_use > 0 => "all connections are in use",
        Error::PoolTimedOut(_) | Error::Unreachable { .. } | Error::ConnectTimeout { .. } => {
            "the server can't be reached"
        }
        Error::ConnectionLost(_) => "the connection to the server was lost",
        Error::PoolClosed => "the database handle was closed",
        Error::NoRuntime => "there is no runtime to ask on",
        Error::AuthenticationFailed { .. } | Error::PermissionDenied(_) => {
            "the server refuses the user"
        }
        Error::DatabaseMissing { .. } => "the database does not exist",
        Error::Config(_) => "the configuration can't be used",
        Error::TooManyConnections => "the server accepts no more connections",
        _ => "the server answers with an error",
    }
}

fn milliseconds<S: Serializer>(latency: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(latency.as_secs_f64() * 1000.0)
}

fn maybe_milliseconds<S: Serializer>(
    lag: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match lag {
        Some(lag) => milliseconds(lag, serializer),
        None => serializer.serialize_none(),
    }
}

/// Waits for the answers of one server.
async fn asked<T>(
    asking: tokio::task::JoinHandle<Result<T, Error>>,
    limit: Duration,
) -> (Option<T>, Option<String>) {
    match tokio::time::timeout(limit, finished(asking)).await {
        Ok(Ok(Ok(answer))) => (Some(answer), None),
        Ok(Ok(Err(error)) | Err(error)) => {
            tracing::warn!(target: "chancery", event = "database.unhealthy", %error);
            (None, Some(reason(&error).to_owned()))
        }
        Err(_) => (None, Some("no answer in time (health_timeout)".into())),
    }
}

fn status_of(error: Option<&String>) -> HealthStatus {
    if error.is_none() { HealthStatus::Healthy } else { HealthStatus::Unhealthy }
}

fn role(is_standby: bool) -> ServerRole {
    if is_standby { ServerRole::Standby } else { ServerRole::Primary }
}

impl Database {
    /// Asks the database how it is. Never fails, and never takes longer than the configuration's
    /// `health_timeout`.
    ///
    /// Where the URL leads to a standby it says so, and whoever takes writes is looked for among the
    /// URL's hosts: the next answer comes from there.
    ///
    /// A pool whose connections are all busy for that long counts as unhealthy: requests would wait
    /// as well.
    pub async fn health(&self) -> Health {
        let started = Instant::now();
        let limit = self.timeouts().health;
        // In tasks: given up, they hand their connections back clean.
        let database = self.clone();
        let primary = tokio::spawn(async move {
            let server = sqlx::query!(
                r#"select current_setting('server_version') as "version!",
                          current_setting('transaction_read_only') = 'off' as "takes_writes!""#
            )
            .fetch_one(database.executor())
            .await?;
            let schema = database.migration_status().await?;
            // Servers that only speak like PostgreSQL may not tell.
            let standing = standing(database.executor()).await.ok();
            Ok::<_, Error>((server.version, server.takes_writes, schema, standing))
        });
        let database = self.clone();
        let reader = self.reader_leases().is_some().then(|| {
            tokio::spawn(async move {
                let replayed = sqlx::query_scalar!(
                    r#"select extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())
                              ::float8 as "seconds""#
                )
                .fetch_one(database.reader().executor())
                .await?;
                let standing = standing(database.reader().executor()).await?;
                Ok::<_, Error>((standing, replayed))
            })
        });
        let primary = asked(primary, limit);
        let (primary, reader) = match reader {
            None => (primary.await, None),
            Some(reader) => {
                let both = futures_util::future::join(primary, asked(reader, limit)).await;
                (both.0, Some(both.1))
            }
        };
        let (answer, mut error) = primary;
        let mut status = status_of(error.as_ref());
        let (server_version, schema, standing) = match answer {
            Some((version, takes_writes, schema, standing)) => {
                if !takes_writes {
                    status = HealthStatus::ReadOnly;
                    let is_standby = standing.as_ref().is_some_and(|standing| standing.is_standby);
                    let why = if is_standby {
                        "the server takes no writes: it is a standby"
                    } else {
                        "the server takes no writes (default_transaction_read_only)"
                    };
                    tracing::warn!(target: "chancery", event = "database.read_only", "{why}");
                    error = Some(why.into());
                    // An application that is asked nothing but this finds the way by it.
                    self.leases().look_for_primary();
                }
                (Some(version), Some(schema), standing)
            }
            None => (None, None, None),
        };
        let reader = reader.zip(self.reader_leases()).map(|((answer, error), leases)| {
            let (there, replayed) = answer.unzip();
            let lag_bytes = standing
                .as_ref()
                .zip(there.as_ref())
                .map(|(here, there)| here.reached.bytes_since(there.reached));
            let lag = lag_bytes.map(|bytes| match replayed.flatten() {
                Some(seconds) if bytes > 0 => {
                    Duration::try_from_secs_f64(seconds).unwrap_or_default()
                }
                _ => Duration::ZERO,
            });
            ReaderHealth {
                status: status_of(error.as_ref()),
                role: there.map(|there| role(there.is_standby)),
                lag_bytes,
                lag,
                pool: leases.status(),
                error,
            }
        });
        Health {
            status,
            latency: started.elapsed(),
            role: standing.map(|standing| role(standing.is_standby)),
            server_version,
            pool: self.pool_status(),
            schema,
            reader,
            error,
        }
    }
}
