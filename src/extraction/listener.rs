//! What wakes a worker that waits.

use std::fmt;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::Executor;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::{Instant, timeout, timeout_at};

use crate::db::runtime::{Anywhere, here};
use crate::db::{Database, Error, Result};

/// What the triggers of `extraction_jobs` notify.
const CHANNEL: &str = "chancery_extraction_jobs";
/// A connection that said nothing for so long is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(15);
/// How long it may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits for jobs, on a connection of its own: [`Database::listen_extraction_jobs`].
///
/// It is woken when a job is stored or goes back to waiting, by whatever program. What it says is a
/// hint, never the truth: it also wakes without need, and where a pooler in transaction mode stands in
/// between it needs the [`direct_url`](crate::DatabaseConfigBuilder::direct_url). So whoever waits looks
/// for jobs after each [`wait`](Self::wait), woken or not.
pub struct JobListener {
    db: Database,
    // None while there is no connection.
    listener: Option<Anywhere<PgListener>>,
    heard_at: Instant,
    // Whether it was said that there is nowhere to listen.
    warned: bool,
}

/// How long to wait after a failed attempt to connect.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

impl JobListener {
    /// Without a connection: the first `wait` makes it.
    pub(super) fn lazy(db: &Database) -> Self {
        Self { db: db.clone(), listener: None, heard_at: Instant::now(), warned: false }
    }

    /// Waits until it is woken, and at most `longest`. Says whether it was woken.
    ///
    /// It does not fail, whatever the server answers: a lost connection counts as woken, and so does the
    /// next call, which makes it again, because what was sent in between is lost. While none can be made
    /// (also on a standby, where nothing is notified) it waits for a second at most, so that whoever
    /// looks for jobs looks again. Cancelling it loses nothing.
    pub async fn wait(&mut self, longest: Duration) -> bool {
        // tokio's clock ends before Duration's does.
        let until = Instant::now() + longest.min(Duration::from_secs(24 * 3600));
        let connected = self.listener.is_some();
        match self.wait_connected(until).await {
            Ok(woken) => woken,
            // It will not get better: whoever waits looks for jobs in its own time.
            Err(error @ Error::DirectUrlMissing(_)) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(%error, "looking for extraction jobs instead of listening");
                }
                tokio::time::sleep_until(until).await;
                false
            }
            Err(error) => {
                tracing::warn!(%error, "not listening for extraction jobs; looking for them instead");
                self.disconnect();
                if !connected {
                    tokio::time::sleep_until(until.min(Instant::now() + RECONNECT_PAUSE)).await;
                }
                connected
            }
        }
    }

    async fn wait_connected(&mut self, until: Instant) -> Result<bool> {
        let Some(listener) = &mut self.listener else {
            return match timeout_at(until, self.connect()).await {
                Ok(connected) => connected.map(|()| true),
                Err(_) => Ok(false),
            };
        };
        match timeout_at(until, listener.try_recv()).await {
            Ok(Ok(Some(_))) => {
                // One look finds all that they tell of.
                while let Some(Ok(Some(_))) = listener.try_recv().now_or_never() {}
                self.heard_at = Instant::now();
                Ok(true)
            }
            // It lost its connection. Left to the driver, the next call would make another and wait on:
            // what is sent between the caller's look and that would be missed.
            Ok(Ok(None)) => {
                self.disconnect();
                Ok(true)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) if self.heard_at.elapsed() < SILENCE => Ok(false),
            // Nothing else tells a quiet connection from a dead one.
            Err(_) => match timeout(PING_TIMEOUT, listener.execute("select")).await {
                Ok(answer) => {
                    answer?;
                    self.heard_at = Instant::now();
                    Ok(false)
                }
                Err(_) => {
                    self.disconnect();
                    Ok(false)
                }
            },
        }
    }

    async fn connect(&mut self) -> Result<()> {
        // Not the application's pool: the connection is held for good, and its session listens.
        let (host, options) = self.db.session("listening for jobs").await?;
        let address = host.target.address.clone();
        let runtime = here()?;
        let limit = self.db.timeouts().connect.reach;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(limit)
            .connect_lazy_with(options);
        let listening = async {
            let mut listener = Anywhere::new(PgListener::connect_with(&pool).await?, runtime);
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match timeout(limit * 2, listening).await {
            Ok(Ok(listener)) => {
                self.listener = Some(listener);
                self.heard_at = Instant::now();
                Ok(())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Error::ConnectTimeout { address, timeout: limit * 2 }),
        }
    }

    fn disconnect(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.drop_at_home();
        }
    }
}

impl Drop for JobListener {
    fn drop(&mut self) {
        self.disconnect();
    }
}

impl fmt::Debug for JobListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobListener")
            .field("connected", &self.listener.is_some())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Listens for extraction jobs, on a connection of its own beside the pool.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(db: chancery::Database) -> chancery::Result<()> {
    /// let mut listener = db.listen_extraction_jobs().await?;
    /// loop {
    ///     for claimed in db.extraction_jobs().claim(10, Duration::from_secs(60)).await? {
    ///         // …
    ///     }
    ///     listener.wait(Duration::from_secs(5)).await;
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of connecting; [`Error::DirectUrlMissing`] behind a pooler in transaction mode;
    /// [`Error::ReadOnly`] on a standby, where nothing is notified.
    pub async fn listen_extraction_jobs(&self) -> Result<JobListener> {
        let mut listener = JobListener::lazy(self);
        if let Err(error) = listener.connect().await {
            // The driver's pool hides the cause; a bare connection tells it.
            drop(self.open_session("listening for jobs").await?);
            return Err(error);
        }
        Ok(listener)
    }
}
