//! The jobs as a queue: taken on a lease, which ends by the database's clock; and the lease's token
//! is what lets its holder, and nobody else, store the outcome.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::extraction_job::{ExtractionJob, ExtractionJobId, ExtractionJobRepository, JobStatus};
use super::project::ProjectId;
use crate::db::rows::Lost;
use crate::db::{Error, MAX_PAGE_SIZE, Reason, Result, input, rows};
use crate::repositories::Access;

/// The right to work on a job, for as long as nobody else has it.
///
/// When a lease has ended, any worker may take the job; from then on every call with the old lease
/// fails with [`LeaseLost`](Error::LeaseLost). Until then it still holds: work that is late is not
/// thrown away without need.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobLease {
    pub(super) job_id: ExtractionJobId,
    token: Uuid,
}

impl JobLease {
    /// The job that it is for.
    pub fn job_id(&self) -> ExtractionJobId {
        self.job_id
    }
}

impl std::fmt::Debug for JobLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobLease").field("job_id", &self.job_id).finish_non_exhaustive()
    }
}

/// A job that was taken, with the lease on it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ClaimedJob {
    /// The job; `attempts` counts this one.
    pub job: ExtractionJob,
    /// What its outcome is stored with.
    pub lease: JobLease,
}

/// How long a job that failed waits before it is due again.
///
/// After attempt *k* the wait is `base · 2^(k-1)`, at most `cap`, of which a random part between a half
/// and the whole is taken: jobs that failed together do not come back together.
///
/// ```
/// use std::time::Duration;
/// use chancery::RetryPolicy;
///
/// assert_eq!(RetryPolicy::default().base, Duration::from_secs(5));
/// assert_eq!(RetryPolicy::default().cap, Duration::from_secs(3600));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The longest wait after the first attempt. Default 5 s.
    pub base: Duration,
    /// The longest wait of all. Default 1 h, at most 100 years.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { base: Duration::from_secs(5), cap: Duration::from_secs(3600) }
    }
}

/// The length of a lease, in seconds.
pub(super) fn lease_seconds(lease: Duration) -> Result<f64> {
    if lease < Duration::from_millis(1) {
        return Err(Error::invalid("lease", Reason::Malformed("at least a millisecond")));
    }
    input::seconds("lease", lease)
}

fn columns(leases: &[JobLease]) -> (Vec<Uuid>, Vec<Uuid>) {
    leases.iter().map(|lease| (lease.job_id.as_uuid(), lease.token)).unzip()
}

impl ExtractionJobRepository<'_> {
    /// Takes up to `n` jobs that are due, for as long as `lease`: waiting ones whose time has come,
    /// and those whose worker's lease has ended, the longest due first. Jobs that another transaction
    /// is taking at this moment are passed over, not waited for.
    ///
    /// A job that can't be read fails for good, with that as its error; the others are worked on.
    ///
    /// Each time a job is taken counts as an attempt, so a job whose workers crash ends too: one that
    /// has none left fails for good here. When the answer is lost with the connection, the jobs come
    /// back after the lease. In a unit of work the lease counts from the unit's beginning.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use chancery::{Database, RetryPolicy};
    /// # async fn extract(_url: &str) -> Result<serde_json::Value, std::io::Error> { Ok(0.into()) }
    /// # async fn example(db: Database) -> chancery::Result<()> {
    /// for claimed in db.extraction_jobs().claim(10, Duration::from_secs(60)).await? {
    ///     match extract(&claimed.job.source_url).await {
    ///         Ok(tokens) => {
    ///             db.extraction_jobs().complete(claimed.lease, tokens).await?;
    ///         }
    ///         Err(e) => {
    ///             let retry = RetryPolicy::default();
    ///             db.extraction_jobs().fail(claimed.lease, &e.to_string(), retry).await?;
    ///         }
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for an `n` outside of 1 to [`MAX_PAGE_SIZE`], or a lease
    /// under a millisecond or over 100 years.
    pub async fn claim(mut self, n: i64, lease: Duration) -> Result<Vec<ClaimedJob>> {
        input::range("n", n, 1, MAX_PAGE_SIZE)?;
        let seconds = lease_seconds(lease)?;
        let mut claimed: Vec<ClaimedJob> = Vec::new();
        loop {
            let missing = n - i64::try_from(claimed.len()).unwrap_or(n);
            let token = Uuid::now_v7();
            // unnest(array(…)) is taken once and planned for ten rows, whatever `n` is: as a join the
            // generic plan would expect a tenth of the table and read all of it.
            let statement = || {
                sqlx::query_as!(
                    ExtractionJob,
                    r#"with taken as (
                       update extraction_jobs j
                          set status = case when j.attempts < j.max_attempts
                                            then 'processing' else 'failed' end,
                              attempts = least(j.attempts + 1, greatest(j.attempts, j.max_attempts)),
                              error_message = case when j.attempts < j.max_attempts
                                                   then j.error_message
                                                   else format('given up after %s attempts: the last '
                                                               'one ended without an outcome',
                                                               j.attempts) end,
                              lease_token = $2,
                              lease_expires_at = now() + make_interval(secs => $3)
                         from unnest(array(
                                  select id
                                    from extraction_jobs
                                   where (status = 'pending' or lease_expires_at is not null)
                                     and coalesce(lease_expires_at, run_at) <= now()
                                   order by coalesce(lease_expires_at, run_at), id
                                   limit $1
                                     for update skip locked
                              )) with ordinality as due (id, place)
                        where j.id = due.id
                       returning j.id, j.project_id, j.source_url, j.extraction_type, j.status,
                                 j.result_data, j.error_message, j.attempts, j.max_attempts,
                                 j.run_at, j.lease_expires_at, j.completed_at, j.created_at,
                                 j.updated_at, due.place
                   )
                   select id as "id!: ExtractionJobId", project_id as "project_id!: ProjectId",
                          source_url as "source_url!", extraction_type as "extraction_type!",
                          status as "status!: JobStatus", result_data, error_message,
                          attempts as "attempts!", max_attempts as "max_attempts!",
                          run_at as "run_at!", lease_expires_at, completed_at,
                          created_at as "created_at!", updated_at as "updated_at!"
                     from taken
                    order by place"#,
                    missing,
                    token,
                    seconds,
                )
            };
            let taken =
                rows::listed(self.conn.reborrow(), "extraction_jobs", None, statement).await?;
            let mut given_up = !taken.lost.is_empty();
            if given_up {
                self.fail_unreadable(&taken.lost, token).await;
            }
            for job in taken.items {
                if job.status == JobStatus::Failed {
                    given_up = true;
                    tracing::warn!(%job.id, job.attempts, "gave up a job whose workers ended without an outcome");
                } else {
                    claimed.push(ClaimedJob { lease: JobLease { job_id: job.id, token }, job });
                }
            }
            // Those took the places of jobs that can be worked on.
            if !given_up {
                return Ok(claimed);
            }
        }
    }

    /// Fails jobs that were taken and can't be read. Where that fails too, the others are worked on all
    /// the same: those jobs come back when their leases end.
    async fn fail_unreadable(&mut self, lost: &[Lost], token: Uuid) {
        let ids: Vec<Uuid> = lost.iter().filter_map(|lost| lost.id).collect();
        let columns: Vec<String> = lost
            .iter()
            .filter(|lost| lost.id.is_some())
            .map(|lost| format!("the job can't be read: its column {}", lost.row.column))
            .collect();
        let failed = sqlx::query!(
            "update extraction_jobs j
                set status = 'failed', error_message = u.error
               from unnest($1::uuid[], $2::text[]) as u (id, error)
              where j.id = u.id and j.lease_token = $3 and j.status = 'processing'",
            &ids,
            &columns,
            token,
        )
        .execute(self.conn.reborrow())
        .await;
        if let Err(error) = failed {
            let error = Error::from(error);
            tracing::warn!(%error, "extraction jobs that can't be read were not failed");
        }
    }
}

impl<A: Access> ExtractionJobRepository<'_, A> {
    /// How long until the next job can be taken: zero when one is due, none when none waits and no
    /// lease runs. A worker need not look earlier, unless it is woken.
    pub async fn next_due_in(self) -> Result<Option<Duration>> {
        let seconds = sqlx::query_scalar!(
            r#"select greatest(0, extract(epoch from coalesce(lease_expires_at, run_at) - now()))::float8
                          as "seconds!"
                 from extraction_jobs
                where status = 'pending' or lease_expires_at is not null
                order by coalesce(lease_expires_at, run_at), id
                limit 1"#,
        )
        .fetch_optional(self.conn.repeatable())
        .await?;
        Ok(seconds.map(|s| Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX)))
    }
}

impl ExtractionJobRepository<'_> {
    /// Has a lease end `lease` from now, unless it ends later anyway.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](Error::LeaseLost): stop working; [`InvalidInput`](Error::InvalidInput) as
    /// [`claim`](Self::claim).
    pub async fn heartbeat(self, held: JobLease, lease: Duration) -> Result<()> {
        let done = sqlx::query!(
            "update extraction_jobs
                set lease_expires_at = greatest(lease_expires_at, now() + make_interval(secs => $3))
              where id = $1 and lease_token = $2 and status = 'processing'",
            held.job_id.as_uuid(),
            held.token,
            lease_seconds(lease)?,
        )
        .execute(self.conn)
        .await?;
        if done.rows_affected() == 0 { Err(Error::LeaseLost) } else { Ok(()) }
    }

    /// [`heartbeat`](Self::heartbeat) for many leases in one statement. Returns those that are lost;
    /// one whose job is completed is not.
    ///
    /// A job that another transaction has locked is not waited for, and not extended: its holder is
    /// just storing an outcome, and nobody else can take it meanwhile.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) as [`claim`](Self::claim).
    pub async fn heartbeat_many(self, held: &[JobLease], lease: Duration) -> Result<Vec<JobLease>> {
        let seconds = lease_seconds(lease)?;
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let (ids, tokens) = columns(held);
        let lost = sqlx::query!(
            r#"with extended as (
                   update extraction_jobs
                      set lease_expires_at = greatest(lease_expires_at,
                                                      now() + make_interval(secs => $3))
                    where id = any(array(
                              select j.id
                                from unnest($1::uuid[], $2::uuid[]) as h (id, token)
                                join extraction_jobs j on j.id = h.id and j.lease_token = h.token
                               where j.status = 'processing'
                                 for update of j skip locked))
               )
               select h.id as "id!: ExtractionJobId", h.token as "token!"
                 from unnest($1::uuid[], $2::uuid[]) as h (id, token)
                where not exists (select
                                    from extraction_jobs j
                                   where j.id = h.id
                                     and j.lease_token = h.token
                                     and j.status in ('processing', 'completed'))"#,
            &ids,
            &tokens,
            seconds,
        )
        .fetch_all(self.conn)
        .await?;
        Ok(lost.into_iter().map(|row| JobLease { job_id: row.id, token: row.token }).collect())
    }

    /// Stores what was extracted: the job is completed.
    ///
    /// In a unit of work it commits together with whatever else the work stores. With the same lease
    /// a second time it changes nothing and succeeds, so a caller whose answer was lost can ask again.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](Error::LeaseLost); [`InvalidInput`](Error::InvalidInput) for a result that can't
    /// be stored.
    pub async fn complete(self, held: JobLease, result: Value) -> Result<ExtractionJob> {
        input::json("result", &result)?;
        sqlx::query_as!(
            ExtractionJob,
            "update extraction_jobs
                set status = 'completed',
                    result_data = case when status = 'processing' then $3 else result_data end,
                    error_message = null
              where id = $1 and lease_token = $2 and status in ('processing', 'completed')
             returning id, project_id, source_url, extraction_type, status, result_data,
                       error_message, attempts, max_attempts, run_at, lease_expires_at,
                       completed_at, created_at, updated_at",
            held.job_id.as_uuid(),
            held.token,
            result,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(Error::LeaseLost)
    }

    /// Notes that an attempt failed: the job is due again after a wait, or, when it has no attempts
    /// left, failed for good. The message is readable to all who may read the job.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](Error::LeaseLost); [`InvalidInput`](Error::InvalidInput).
    pub async fn fail(
        self,
        held: JobLease,
        error: &str,
        retry: RetryPolicy,
    ) -> Result<ExtractionJob> {
        input::long_text("error", error)?;
        sqlx::query_as!(
            ExtractionJob,
            "update extraction_jobs
                set status = case when attempts < max_attempts then 'pending' else 'failed' end,
                    error_message = $3,
                    run_at = case when attempts < max_attempts
                                  then now() + make_interval(secs =>
                                           least($5::float8,
                                                 $4::float8 * power(2, least(greatest(attempts, 1), 64) - 1))
                                           * (1 + random()) / 2)
                                  else run_at end
              where id = $1 and lease_token = $2 and status = 'processing'
             returning id, project_id, source_url, extraction_type, status, result_data,
                       error_message, attempts, max_attempts, run_at, lease_expires_at,
                       completed_at, created_at, updated_at",
            held.job_id.as_uuid(),
            held.token,
            error,
            input::seconds("base", retry.base)?,
            input::seconds("cap", retry.cap)?,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(Error::LeaseLost)
    }

    /// Fails a job for good, however many attempts it has left: trying again can't help.
    ///
    /// # Errors
    ///
    /// As [`fail`](Self::fail).
    pub async fn give_up(self, held: JobLease, error: &str) -> Result<ExtractionJob> {
        input::long_text("error", error)?;
        sqlx::query_as!(
            ExtractionJob,
            "update extraction_jobs
                set status = 'failed', error_message = $3
              where id = $1 and lease_token = $2 and status = 'processing'
             returning id, project_id, source_url, extraction_type, status, result_data,
                       error_message, attempts, max_attempts, run_at, lease_expires_at,
                       completed_at, created_at, updated_at",
            held.job_id.as_uuid(),
            held.token,
            error,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(Error::LeaseLost)
    }

    /// Gives jobs back that were not worked on: the attempt does not count, and they keep their place.
    /// Leases that are lost are passed over. Says how many were given back.
    pub async fn release(self, held: &[JobLease]) -> Result<u64> {
        if held.is_empty() {
            return Ok(0);
        }
        let (ids, tokens) = columns(held);
        let done = sqlx::query!(
            "update extraction_jobs j
                set status = 'pending', attempts = greatest(j.attempts - 1, 0)
               from unnest($1::uuid[], $2::uuid[]) as h (id, token)
              where j.id = h.id and j.lease_token = h.token and j.status = 'processing'",
            &ids,
            &tokens,
        )
        .execute(self.conn)
        .await?;
        Ok(done.rows_affected())
    }
}
