//! The inside of a worker that runs.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{self, Either};
use serde_json::Value;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::extraction_job::ExtractionJobId;
use super::listener::JobListener;
use super::queue::{ClaimedJob, JobLease};
use super::worker::{JobError, WorkerOptions};
use crate::db::{Database, Error, ErrorKind, Result};

/// The most characters of an error that are stored.
const MAX_ERROR_CHARS: usize = 4000;

/// The leases that this worker holds, with the task of those that were begun.
#[derive(Default)]
struct Held(Mutex<HashMap<ExtractionJobId, (JobLease, Option<AbortHandle>)>>);

impl Held {
    fn with<T>(
        &self,
        f: impl FnOnce(&mut HashMap<ExtractionJobId, (JobLease, Option<AbortHandle>)>) -> T,
    ) -> T {
        // Nothing in here panics half-way.
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, lease: JobLease) {
        self.with(|held| held.insert(lease.job_id(), (lease, None)));
    }

    fn begin(&self, lease: JobLease, task: AbortHandle) {
        self.with(|held| {
            // Not there any more: it has ended already, or its lease was lost.
            if let Some((_, slot)) = held.get_mut(&lease.job_id()).filter(|(l, _)| *l == lease) {
                *slot = Some(task);
            }
        });
    }

    fn has(&self, lease: JobLease) -> bool {
        self.with(|held| held.get(&lease.job_id()).is_some_and(|(l, _)| *l == lease))
    }

    /// Forgets a lease; a job that was lost and taken again by this worker has another one.
    fn forget(&self, lease: JobLease) -> Option<AbortHandle> {
        self.with(|held| {
            let is_it = held.get(&lease.job_id()).is_some_and(|(l, _)| *l == lease);
            is_it.then(|| held.remove(&lease.job_id())).flatten().and_then(|(_, task)| task)
        })
    }

    fn leases(&self) -> Vec<JobLease> {
        self.with(|held| held.values().map(|(lease, _)| *lease).collect())
    }
}

/// Ends a task when it goes.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) struct Run<H> {
    db: Database,
    options: WorkerOptions,
    handler: Arc<H>,
    held: Arc<Held>,
    waiting: VecDeque<ClaimedJob>,
    running: JoinSet<()>,
    failures: u32,
    // Whether a claim has succeeded.
    has_worked: bool,
}

impl<H, F, E> Run<H>
where
    H: Fn(ClaimedJob) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Value, E>> + Send + 'static,
    E: Into<JobError> + 'static,
{
    pub(super) fn new(db: Database, options: WorkerOptions, handler: Arc<H>) -> Self {
        Self {
            db,
            options,
            handler,
            held: Arc::default(),
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            failures: 0,
            has_worked: false,
        }
    }

    pub(super) async fn until(mut self, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let heartbeats = tokio::spawn(heartbeats(self.db.clone(), self.options, self.held.clone()));
        let _heartbeats = AbortOnDrop(heartbeats.abort_handle());
        let mut shutdown = pin!(shutdown.fuse());
        let outcome = self.work(shutdown.as_mut()).await;
        self.wind_down().await;
        outcome
    }

    async fn work<S>(&mut self, mut shutdown: Pin<&mut future::Fuse<S>>) -> Result<()>
    where
        S: Future<Output = ()> + Send,
    {
        let mut listener = self.options.listen.then(|| JobListener::lazy(&self.db));
        loop {
            if shutdown.as_mut().now_or_never().is_some() {
                return Ok(());
            }
            while self.running.try_join_next().is_some() {}
            self.begin_waiting();
            let free = self.options.concurrency as usize - self.running.len();
            let pause = if free > 0 {
                // Not raced with anything: dropped half-way, it could leave jobs taken by nobody.
                match self.claim(free).await? {
                    None => continue,
                    Some(pause) => pause,
                }
            } else {
                Duration::MAX
            };
            let awake = async {
                match &mut listener {
                    Some(listener) if free > 0 => drop(listener.wait(pause).await),
                    _ => sleep(pause).await,
                }
            };
            let ended = async {
                if self.running.join_next().await.is_none() {
                    future::pending::<()>().await;
                }
            };
            let closed = async {
                // With no room for a claim, which would tell, there is nothing to do about it yet.
                if free == 0 {
                    future::pending::<()>().await;
                }
                self.db.pool().close_event().await;
            };
            let (awake, ended, closed) = (pin!(awake), pin!(ended), pin!(closed));
            let something = future::select(awake, future::select(ended, closed));
            if let Either::Left(_) = future::select(shutdown.as_mut(), something).await {
                return Ok(());
            }
        }
    }

    /// Begins as many of the jobs that were taken as there is room for.
    fn begin_waiting(&mut self) {
        while self.running.len() < self.options.concurrency as usize {
            let Some(claimed) = self.waiting.pop_front() else { return };
            let lease = claimed.lease;
            // Lost while it waited here.
            if !self.held.has(lease) {
                continue;
            }
            let work = work_on(
                self.db.clone(),
                self.options,
                self.handler.clone(),
                self.held.clone(),
                claimed,
            );
            let task = self.running.spawn(work);
            self.held.begin(lease, task);
        }
    }

    /// Whether a claim that failed so ends the worker.
    ///
    /// What the application did itself does. A wrong setup and missing privileges do at the start, as
    /// mistakes that somebody should be told of; later they are a deploy's that is under way, and pass. So
    /// does everything else: a server that is down, full or read-only.
    fn is_ended_by(&self, error: &Error) -> bool {
        match error.kind() {
            ErrorKind::InvalidInput => true,
            ErrorKind::Setup | ErrorKind::PermissionDenied => !self.has_worked,
            _ => matches!(error, Error::PoolClosed | Error::NoRuntime),
        }
    }

    /// Takes jobs. Returns how long to wait when there were none; fails when waiting can't help.
    async fn claim(&mut self, free: usize) -> Result<Option<Duration>> {
        let n = free as i64 + i64::from(self.options.prefetch);
        let claimed = match self.db.extraction_jobs().claim(n, self.options.lease).await {
            Ok(claimed) => claimed,
            Err(error) if self.is_ended_by(&error) => return Err(error),
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let pause = backoff(self.failures);
                tracing::warn!(%error, ?pause, "claiming extraction jobs failed");
                return Ok(Some(pause));
            }
        };
        self.failures = 0;
        self.has_worked = true;
        if !claimed.is_empty() {
            claimed.iter().for_each(|claimed| self.held.take(claimed.lease));
            self.waiting.extend(claimed);
            return Ok(None);
        }
        let longest = self.options.poll_interval;
        let due = match self.db.extraction_jobs().next_due_in().await {
            Ok(due) => due.unwrap_or(longest),
            // The next claim tells it, if it lasts.
            Err(_) => backoff(1),
        };
        // Another worker may be taking what is due: no busy loop beside it.
        Ok(Some(due.clamp(Duration::from_millis(5), longest.max(Duration::from_millis(5)))))
    }

    /// Gives back what was not begun and lets the rest end.
    async fn wind_down(&mut self) {
        let not_begun: Vec<JobLease> = self.waiting.drain(..).map(|c| c.lease).collect();
        self.release(&not_begun).await;
        let ending = async { while self.running.join_next().await.is_some() {} };
        if timeout(self.options.grace, ending).await.is_err() {
            tracing::warn!(
                jobs = self.running.len(),
                "extraction jobs did not end in time; stopped and given back"
            );
            self.running.shutdown().await;
            self.release(&self.held.leases()).await;
        }
    }

    async fn release(&self, leases: &[JobLease]) {
        for &lease in leases {
            self.held.forget(lease);
        }
        if let Err(error) = self.db.extraction_jobs().release(leases).await {
            tracing::warn!(%error, "extraction jobs were not given back; they are taken when their leases end");
        }
    }
}

/// Extends all leases, and stops the jobs whose lease was lost.
async fn heartbeats(db: Database, options: WorkerOptions, held: Arc<Held>) {
    let every = options.lease / 3;
    let mut next = Instant::now() + every;
    loop {
        tokio::time::sleep_until(next).await;
        next = Instant::now() + every;
        let leases = held.leases();
        // Bounded: one that hangs must not be the last.
        let extending = db.extraction_jobs().heartbeat_many(&leases, options.lease);
        match timeout(every, extending).await {
            Ok(Ok(lost)) => {
                for lease in lost {
                    if let Some(task) = held.forget(lease) {
                        tracing::warn!(job.id = %lease.job_id(), "lease lost: stopped working");
                        task.abort();
                    }
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "heartbeat failed");
                next = Instant::now() + (every / 4);
            }
            Err(_) => tracing::warn!("heartbeat took too long"),
        }
    }
}

/// Has one job done and stores what came of it.
async fn work_on<H, F, E>(
    db: Database,
    options: WorkerOptions,
    handler: Arc<H>,
    held: Arc<Held>,
    claimed: ClaimedJob,
) where
    H: Fn(ClaimedJob) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Value, E>> + Send + 'static,
    E: Into<JobError> + 'static,
{
    let lease = claimed.lease;
    // The handler's own call may panic as well.
    let outcome = match AssertUnwindSafe(async { handler(claimed).await.map_err(Into::into) })
        .catch_unwind()
        .await
    {
        Ok(outcome) => outcome,
        Err(panic) => Err(JobError::retry(panic_message(&*panic))),
    };
    store(&db, &options, lease, outcome).await;
    held.forget(lease);
}

/// Stores an outcome, trying again until it is stored or another worker has the job.
///
/// No time ends that. While nothing can be written nobody can take the job over, though its lease is
/// past; and when it can be, the heartbeats tell that the lease was lost and end this task. Done anew,
/// the job would cost what it cost.
async fn store(
    db: &Database,
    options: &WorkerOptions,
    lease: JobLease,
    mut outcome: Result<Value, JobError>,
) {
    let mut failures = 0;
    loop {
        let jobs = db.extraction_jobs();
        let stored = match &outcome {
            Ok(result) => jobs.complete(lease, result.clone()).await,
            Err(error) if error.permanent => jobs.give_up(lease, &storable(&error.message)).await,
            Err(error) => jobs.fail(lease, &storable(&error.message), options.retry).await,
        };
        match stored {
            Ok(_) => return,
            Err(Error::LeaseLost) => {
                tracing::warn!(job.id = %lease.job_id(), "lease lost: the outcome is not stored");
                return;
            }
            Err(error) if refuses_outcome(&error) && outcome.is_ok() => {
                outcome = Err(JobError::retry(format!("the result can't be stored: {error}")));
            }
            // Waiting can't help; or it is stored, and the row that came back can't be read.
            Err(error)
                if refuses_outcome(&error)
                    || matches!(error, Error::PoolClosed | Error::NoRuntime | Error::Decode(_)) =>
            {
                tracing::error!(job.id = %lease.job_id(), %error, "the outcome could not be stored");
                return;
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(job.id = %lease.job_id(), %error, "storing an outcome failed; trying again");
                sleep(backoff(failures)).await;
            }
        }
    }
}

/// Whether it is this outcome that can't be stored, now or later: input, constraints, data and limits.
fn refuses_outcome(error: &Error) -> bool {
    match error {
        Error::ForeignKey(_) => true,
        Error::Database(source) => source
            .sqlstate()
            .is_some_and(|state| ["22", "23", "54"].iter().any(|class| state.starts_with(class))),
        _ => matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Conflict),
    }
}

/// 50 ms, doubled each time, at most about 3 s; of that a random part between a half and the whole.
fn backoff(failures: u32) -> Duration {
    let ceiling = Duration::from_millis(50) * (1 << failures.clamp(1, 7).saturating_sub(1));
    ceiling.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}

/// An error message as the column takes it.
fn storable(message: &str) -> String {
    message.chars().filter(|&c| c != '\0').take(MAX_ERROR_CHARS).collect()
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("no message"))
}
