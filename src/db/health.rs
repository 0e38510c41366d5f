//! Health: is the database there, and is its schema ours?

use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use super::database::{Database, PoolStatus};
use super::error::Error;
use super::migrate::MigrationStatus;
use super::unit_of_work::finished;

/// Whether requests can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// The database answers.
    Healthy,
    /// It does not, or not in time.
    Unhealthy,
}

/// The answer of [`Database::health`], ready to be serialised by a health endpoint.
///
/// It holds neither the password nor the address.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// Whether requests can be served.
    pub status: HealthStatus,
    /// How long the answer took, connection included; in milliseconds when serialised.
    #[serde(rename = "latency_ms", serialize_with = "milliseconds")]
    pub latency: Duration,
    /// The server's version, as it tells it: `17.2`.
    pub server_version: Option<String>,
    /// What the pool holds.
    pub pool: PoolStatus,
    /// Which migrations are applied; none when the database does not answer.
    pub schema: Option<MigrationStatus>,
    /// Why it is unhealthy, in a few words; the error itself is logged.
    pub error: Option<String>,
}

impl Health {
    /// Whether requests can be served.
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
        Error::AuthenticationFailed { .. } | Error::PermissionDenied => {
            "the server refuses the user"
        }
        Error::DatabaseMissing { .. } => "the database does not exist",
        Error::TooManyConnections => "the server accepts no more connections",
        _ => "the server answers with an error",
    }
}

fn milliseconds<S: Serializer>(latency: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(latency.as_secs_f64() * 1000.0)
}

impl Database {
    /// Asks the database how it is. Never fails, and never takes longer than the configuration's
    /// `health_timeout`.
    ///
    /// A pool whose connections are all busy for that long counts as unhealthy: requests would wait
    /// as well.
    pub async fn health(&self) -> Health {
        let started = Instant::now();
        let database = self.clone();
        // In a task: given up, it hands its connection back clean.
        let asking = tokio::spawn(async move {
            let version =
                sqlx::query_scalar!(r#"select current_setting('server_version') as "v!""#)
                    .fetch_one(database.executor())
                    .await?;
            let schema = database.migration_status().await?;
            Ok::<_, Error>((version, schema))
        });
        let answer = tokio::time::timeout(self.timeouts().health, finished(asking)).await;
        let (answer, error) = match answer {
            Ok(Ok(Ok(answer))) => (Some(answer), None),
            Ok(Ok(Err(error)) | Err(error)) => {
                tracing::warn!(target: "chancery", event = "database.unhealthy", %error);
                (None, Some(reason(&error).to_owned()))
            }
            Err(_) => (None, Some("no answer in time (health_timeout)".into())),
        };
        let (server_version, schema) = answer.unzip();
        Health {
            status: if error.is_none() { HealthStatus::Healthy } else { HealthStatus::Unhealthy },
            latency: started.elapsed(),
            server_version,
            pool: self.pool_status(),
            schema,
            error,
        }
    }
}
