//! A worker: what takes jobs from the queue, does them and stores the outcome.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::queue::{ClaimedJob, RetryPolicy, lease_seconds};
use super::worker_run::Run;
use crate::db::{Database, Error, MAX_PAGE_SIZE, Reason, Result, input};

/// How a [`Worker`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerOptions {
    /// Jobs at a time: 1 to 500. Default 4.
    pub concurrency: u32,
    /// Jobs that are taken ahead of that, so that short ones cost fewer round trips: 0 to 500.
    /// Default 0.
    pub prefetch: u32,
    /// How long a job stays taken when its worker dies: at least 1 s. While the worker lives the lease
    /// is extended, every third of it, however long the job takes. Default 60 s.
    pub lease: Duration,
    /// How long to wait at most before looking for jobs again: what holds when no notification comes.
    /// At least 1 ms. Default 5 s.
    pub poll_interval: Duration,
    /// Whether to listen for notifications, on one connection more. Where a pooler in transaction mode
    /// stands in between none come, so that polling alone is as good. Default true.
    pub listen: bool,
    /// How long jobs may go on after the shutdown began; then they are stopped and given back.
    /// Default 30 s.
    pub grace: Duration,
    /// How long failed jobs wait.
    pub retry: RetryPolicy,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            concurrency: 4,
            prefetch: 0,
            lease: Duration::from_secs(60),
            poll_interval: Duration::from_secs(5),
            listen: true,
            grace: Duration::from_secs(30),
            retry: RetryPolicy::default(),
        }
    }
}

impl WorkerOptions {
    fn check(&self) -> Result<()> {
        input::range("concurrency", self.concurrency.into(), 1, MAX_PAGE_SIZE / 2)?;
        input::range("prefetch", self.prefetch.into(), 0, MAX_PAGE_SIZE / 2)?;
        lease_seconds(self.lease)?;
        if self.lease < Duration::from_secs(1) {
            return Err(Error::invalid("lease", Reason::Malformed("at least a second")));
        }
        if self.poll_interval < Duration::from_millis(1) {
            return Err(Error::invalid(
                "poll_interval",
                Reason::Malformed("at least a millisecond"),
            ));
        }
        input::seconds("grace", self.grace)?;
        input::seconds("base", self.retry.base)?;
        input::seconds("cap", self.retry.cap).map(drop)
    }
}

/// Why a job failed. Every error turns into one with `?`; it is tried again unless it is made by
/// [`permanent`](Self::permanent).
///
/// ```
/// use chancery::JobError;
///
/// fn read(text: &str) -> Result<i64, JobError> {
///     if text.is_empty() {
///         return Err(JobError::permanent("there is nothing to read"));
///     }
///     Ok(text.parse()?)
/// }
/// # assert!(read("").is_err() && read("x").is_err() && read("1").is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobError {
    pub(super) message: String,
    pub(super) permanent: bool,
}

impl JobError {
    /// One after which the job is tried again, while it has attempts left.
    pub fn retry(message: impl Into<String>) -> Self {
        Self { message: message.into(), permanent: false }
    }

    /// One after which trying again can't help.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), permanent: true }
    }
}

impl<E: std::error::Error> From<E> for JobError {
    fn from(error: E) -> Self {
        Self::retry(error.to_string())
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Takes jobs, has them done, and stores what came of them.
///
/// The handler runs in a task of its own for each job, and no transaction is open and no connection
/// held meanwhile. What it returns becomes the job's result, its error or panic the error message.
/// A job may run more than once: when a worker dies, or loses its connection for longer than the
/// lease, another one begins the job anew. A completed job never runs again.
///
/// What a job stores can be made to commit together with its completion: the handler does both in one
/// unit of work.
///
/// ```no_run
/// use chancery::{ClaimedJob, Database, JobError, ProjectPatch, Worker};
///
/// # async fn example(db: Database, stop: tokio::sync::oneshot::Receiver<()>) -> chancery::Result<()> {
/// let database = db.clone();
/// let handler = move |claimed: ClaimedJob| {
///     let db = database.clone();
///     async move {
///         let tokens = serde_json::json!({ "primary": "#1d4ed8" }); // the slow part
///         db.transaction(async |uow| {
///             let patch = ProjectPatch { name: "Blue".to_owned().into(), ..Default::default() };
///             uow.projects().update(claimed.job.project_id, patch).await?;
///             uow.extraction_jobs().complete(claimed.lease, tokens.clone()).await
///         })
///         .await?;
///         Ok::<_, JobError>(tokens)
///     }
/// };
/// Worker::new(&db).run(handler, async { stop.await.unwrap_or_default() }).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Worker {
    db: Database,
    options: WorkerOptions,
}

impl Worker {
    /// With the default options.
    pub fn new(db: &Database) -> Self {
        Self::with_options(db, WorkerOptions::default())
    }

    /// With options.
    pub fn with_options(db: &Database, options: WorkerOptions) -> Self {
        Self { db: db.clone(), options }
    }

    /// Works until `shutdown` completes; then gives back what was not begun, waits for what was, and
    /// returns.
    ///
    /// A database that does not do what it is asked ends nothing: the worker tries again, with pauses
    /// of up to 3 s, and goes on when it can. That holds for lost connections and servers that are
    /// down, full, busy or locked, for read-only times and standbys that are to be promoted, for
    /// passwords, privileges and schemas that are being changed. An outcome is tried until it is stored
    /// or another worker has the job; one that the database refuses for what it holds becomes a failed
    /// attempt. A lease is lost when heartbeats fail for longer than it, and then somebody else claims
    /// the job. Each failure is logged as a warning.
    ///
    /// Dropped, it stops its jobs where they are; others take them when the leases end.
    ///
    /// The pool needs connections for the worker (one for claims, one for heartbeats, one for each job
    /// that ends) besides those that the handlers use: a handler that waits for the pool for longer
    /// than the lease loses its job.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for options out of range;
    /// [`PoolClosed`](Error::PoolClosed) when the database handle was closed. At the start, before it
    /// has looked for jobs once, also those of [`ErrorKind::Setup`](crate::ErrorKind::Setup) and
    /// [`PermissionDenied`](Error::PermissionDenied): the password is wrong, the database is not migrated,
    /// or the role may not.
    pub async fn run<H, F, E>(
        self,
        handler: H,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<()>
    where
        H: Fn(ClaimedJob) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, E>> + Send + 'static,
        E: Into<JobError> + 'static,
    {
        self.options.check()?;
        Run::new(self.db, self.options, Arc::new(handler)).until(shutdown).await
    }
}
