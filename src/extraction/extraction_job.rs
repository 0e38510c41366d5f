//! Extraction jobs: what is to be extracted, how far it is, and what came of it. How workers take
//! them is in `queue.rs`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::job_input::{ExtractionJobPatch, NewExtractionJob};
use super::project::ProjectId;
use crate::db::id::{debug_fields, id, text_enum};
use crate::db::page::{List, limit_offset};
use crate::db::{Error, Page, PageRequest, Result, rows};
use crate::repositories::{Access, repository};

id!(
    /// Identifies an [`ExtractionJob`].
    ExtractionJobId
);

text_enum!(
    /// How far a job is.
    JobStatus {
        /// It waits: for a worker, or for its time.
        Pending = "pending",
        /// Somebody works on it.
        Processing = "processing",
        /// It is done.
        Completed = "completed",
        /// It failed for good.
        Failed = "failed",
    }
);

/// A job.
#[derive(Clone, PartialEq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct ExtractionJob {
    /// Its identifier.
    pub id: ExtractionJobId,
    /// What it is for.
    pub project_id: ProjectId,
    /// What to extract from.
    pub source_url: String,
    /// What to extract: a word of the application's, such as `color`.
    pub extraction_type: String,
    /// How far it is.
    pub status: JobStatus,
    /// What was extracted, once it is completed.
    pub result_data: Option<Value>,
    /// Why it failed, for good or the last time.
    pub error_message: Option<String>,
    /// How often a worker took it.
    pub attempts: i32,
    /// How often one may, before it fails for good.
    pub max_attempts: i32,
    /// When it was, or will be, due.
    pub run_at: DateTime<Utc>,
    /// Until when a worker holds it. None unless it is being processed; none also when the status was
    /// set by hand.
    pub lease_expires_at: Option<DateTime<Utc>>,
    /// When it ended: completed, or failed for good.
    pub completed_at: Option<DateTime<Utc>>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

debug_fields!(ExtractionJob {
    id,
    project_id,
    extraction_type,
    status,
    attempts,
    max_attempts,
    run_at,
    lease_expires_at,
    completed_at,
    created_at,
    updated_at,
});

/// A job as a list shows it: without what was extracted.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExtractionJobSummary {
    /// Its identifier.
    pub id: ExtractionJobId,
    /// What it is for.
    pub project_id: ProjectId,
    /// What to extract from.
    pub source_url: String,
    /// What to extract.
    pub extraction_type: String,
    /// How far it is.
    pub status: JobStatus,
    /// Why it failed, for good or the last time.
    pub error_message: Option<String>,
    /// How often a worker took it.
    pub attempts: i32,
    /// How often one may, before it fails for good.
    pub max_attempts: i32,
    /// When it was, or will be, due.
    pub run_at: DateTime<Utc>,
    /// Until when a worker holds it; see [`ExtractionJob::lease_expires_at`].
    pub lease_expires_at: Option<DateTime<Utc>>,
    /// When it ended: completed, or failed for good.
    pub completed_at: Option<DateTime<Utc>>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

debug_fields!(ExtractionJobSummary {
    id,
    project_id,
    extraction_type,
    status,
    attempts,
    max_attempts,
    run_at,
    lease_expires_at,
    completed_at,
    created_at,
    updated_at,
});

/// How many of a project's jobs are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct JobCounts {
    /// Those that wait.
    pub pending: i64,
    /// Those that somebody works on.
    pub processing: i64,
    /// Those that are done.
    pub completed: i64,
    /// Those that failed for good.
    pub failed: i64,
}

repository!(
    /// Extraction jobs: [`Database::extraction_jobs`](crate::Database::extraction_jobs).
    ExtractionJobRepository
);

impl ExtractionJobRepository<'_> {
    /// Stores a job; the workers that wait are woken when it is committed.
    ///
    /// # Errors
    ///
    /// [`ForeignKey`](Error::ForeignKey) when there is no such project;
    /// [`InvalidInput`](Error::InvalidInput).
    pub async fn create(self, new: NewExtractionJob) -> Result<ExtractionJob> {
        new.check()?;
        let (due_at, due_in) = new.due.check()?;
        Ok(sqlx::query_as!(
            ExtractionJob,
            "insert into extraction_jobs (id, project_id, source_url, extraction_type, max_attempts,
                                          run_at)
             values ($1, $2, $3, $4, $5, coalesce($6, now() + make_interval(secs => $7)))
             returning id, project_id, source_url, extraction_type, status, result_data,
                       error_message, attempts, max_attempts, run_at, lease_expires_at,
                       completed_at, created_at, updated_at",
            ExtractionJobId::new().as_uuid(),
            new.project_id.as_uuid(),
            new.source_url,
            new.extraction_type,
            new.max_attempts,
            due_at,
            due_in,
        )
        .fetch_one(self.conn)
        .await?)
    }

    /// Stores any number of jobs in one statement: all of them or none. They are due, and come back,
    /// in the order given; an empty list asks nothing of the server.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub async fn create_many(self, new: Vec<NewExtractionJob>) -> Result<Vec<ExtractionJob>> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let mut ids = Vec::with_capacity(new.len());
        let mut project_ids = Vec::with_capacity(new.len());
        let mut urls = Vec::with_capacity(new.len());
        let mut types = Vec::with_capacity(new.len());
        let mut attempts = Vec::with_capacity(new.len());
        let mut due_at = Vec::with_capacity(new.len());
        let mut due_in = Vec::with_capacity(new.len());
        for (index, job) in new.into_iter().enumerate() {
            let (at, seconds) = job
                .check()
                .and_then(|()| job.due.check())
                .map_err(|error| error.within("jobs", index))?;
            ids.push(ExtractionJobId::new().as_uuid());
            project_ids.push(job.project_id.as_uuid());
            urls.push(job.source_url);
            types.push(job.extraction_type);
            attempts.push(job.max_attempts);
            due_at.push(at);
            due_in.push(seconds);
        }
        let mut rows = sqlx::query_as!(
            ExtractionJob,
            "insert into extraction_jobs (id, project_id, source_url, extraction_type, max_attempts,
                                          run_at)
             select n.id, n.project_id, n.source_url, n.extraction_type, n.max_attempts,
                    coalesce(n.due_at, now() + make_interval(secs => n.due_in))
               from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::int[],
                           $6::timestamptz[], $7::float8[])
                    as n (id, project_id, source_url, extraction_type, max_attempts, due_at, due_in)
             returning id, project_id, source_url, extraction_type, status, result_data,
                       error_message, attempts, max_attempts, run_at, lease_expires_at,
                       completed_at, created_at, updated_at",
            &ids,
            &project_ids,
            &urls,
            &types,
            &attempts,
            &due_at as &[Option<DateTime<Utc>>],
            &due_in,
        )
        .fetch_all(self.conn)
        .await?;
        rows.sort_unstable_by_key(|job| job.id);
        Ok(rows)
    }
}

impl<A: Access> ExtractionJobRepository<'_, A> {
    /// The job with this identifier.
    pub async fn get_by_id(self, id: ExtractionJobId) -> Result<Option<ExtractionJob>> {
        rows::one(self.conn.repeatable(), "extraction_jobs", || {
            sqlx::query_as!(
            ExtractionJob,
            "select id, project_id, source_url, extraction_type, status, result_data, error_message,
                    attempts, max_attempts, run_at, lease_expires_at, completed_at, created_at,
                    updated_at
               from extraction_jobs
              where id = $1",
            id.as_uuid(),
        )
        })
        .await
    }

    /// A project's jobs, newest first, without their results. For long lists use
    /// [`page_by_project`](Self::page_by_project): an offset reads what it skips.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list_by_project(
        self,
        project_id: ProjectId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<ExtractionJobSummary>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        rows::all(self.conn.repeatable(), "extraction_jobs", || {
            sqlx::query_as!(
            ExtractionJobSummary,
            "select id, project_id, source_url, extraction_type, status, error_message, attempts,
                    max_attempts, run_at, lease_expires_at, completed_at, created_at, updated_at
               from extraction_jobs
              where project_id = $1
              order by created_at desc, id desc
              limit $2 offset $3",
            project_id.as_uuid(),
            limit,
            offset,
        )
        })
        .await
    }

    /// A page of a project's jobs, newest first.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a size outside of 1 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE).
    pub async fn page_by_project(
        self,
        project_id: ProjectId,
        page: PageRequest,
    ) -> Result<Page<ExtractionJobSummary>> {
        let list = List::by("extraction_jobs of a project", project_id.as_uuid());
        let rows = page.rows_to_fetch()?;
        let (before, before_id) = page.place(list)?;
        let items =
            rows::listed(self.conn.repeatable(), "extraction_jobs", Some("created_at"), || {
                sqlx::query_as!(
            ExtractionJobSummary,
            "select id, project_id, source_url, extraction_type, status, error_message, attempts,
                    max_attempts, run_at, lease_expires_at, completed_at, created_at, updated_at
               from extraction_jobs
              where project_id = $1
                and (created_at, id) < (coalesce($2::timestamptz, 'infinity'),
                                        coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
              order by created_at desc, id desc
              limit $4",
            project_id.as_uuid(),
            before,
            before_id,
            rows,
        )
            })
            .await?;
        Ok(Page::new(&page, list, items, |job| (job.created_at, job.id.as_uuid())))
    }

    /// All jobs in one state, newest first: for an operator's page.
    ///
    /// # Errors
    ///
    /// As [`list_by_project`](Self::list_by_project).
    pub async fn list_by_status(
        self,
        status: JobStatus,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<ExtractionJobSummary>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        rows::all(self.conn.repeatable(), "extraction_jobs", || {
            sqlx::query_as!(
            ExtractionJobSummary,
            "select id, project_id, source_url, extraction_type, status, error_message, attempts,
                    max_attempts, run_at, lease_expires_at, completed_at, created_at, updated_at
               from extraction_jobs
              where status = $1
              order by created_at desc, id desc
              limit $2 offset $3",
            status.as_str(),
            limit,
            offset,
        )
        })
        .await
    }

    /// How many jobs are in one state. Reads an index of them all.
    pub async fn count_by_status(self, status: JobStatus) -> Result<i64> {
        Ok(sqlx::query_scalar!(
            r#"select count(*) as "count!" from extraction_jobs where status = $1"#,
            status.as_str(),
        )
        .fetch_one(self.conn.repeatable())
        .await?)
    }

    /// How many of a project's jobs are in which state: how far the project is.
    pub async fn counts_by_project(self, project_id: ProjectId) -> Result<JobCounts> {
        Ok(sqlx::query_as!(
            JobCounts,
            r#"select count(*) filter (where status = 'pending') as "pending!",
                      count(*) filter (where status = 'processing') as "processing!",
                      count(*) filter (where status = 'completed') as "completed!",
                      count(*) filter (where status = 'failed') as "failed!"
                 from extraction_jobs
                where project_id = $1"#,
            project_id.as_uuid(),
        )
        .fetch_one(self.conn.repeatable())
        .await?)
    }
}

impl ExtractionJobRepository<'_> {
    /// Changes by hand what the patch names.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound); [`InvalidInput`](Error::InvalidInput).
    pub async fn update(
        self,
        id: ExtractionJobId,
        patch: ExtractionJobPatch,
    ) -> Result<ExtractionJob> {
        patch.check()?;
        let (due_at, due_in) =
            patch.due.as_ref().map(|due| due.check()).transpose()?.unwrap_or_default();
        sqlx::query_as!(
            ExtractionJob,
            "update extraction_jobs
                set source_url = coalesce($2, source_url),
                    extraction_type = coalesce($3, extraction_type),
                    status = coalesce($4, status),
                    result_data = case when $5 then $6 else result_data end,
                    error_message = case when $7 then $8 else error_message end,
                    max_attempts = coalesce($9, max_attempts),
                    run_at = case when $10 then coalesce($11, now() + make_interval(secs => $12))
                                  else run_at end
              where id = $1
             returning id, project_id, source_url, extraction_type, status, result_data,
                       error_message, attempts, max_attempts, run_at, lease_expires_at,
                       completed_at, created_at, updated_at",
            id.as_uuid(),
            patch.source_url.as_ref(),
            patch.extraction_type.as_ref(),
            patch.status.as_ref().map(|status| status.as_str()),
            patch.result_data.is_set(),
            patch.result_data.as_ref().and_then(|value| value.as_ref()),
            patch.error_message.is_set(),
            patch.error_message.set_text(),
            patch.max_attempts.as_ref().copied(),
            patch.due.is_set(),
            due_at,
            due_in,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(Error::NotFound("extraction job"))
    }

    /// Deletes a job; a worker that is at it finds its lease lost. Says whether there was one.
    pub async fn delete(self, id: ExtractionJobId) -> Result<bool> {
        let done = sqlx::query!("delete from extraction_jobs where id = $1", id.as_uuid())
            .execute(self.conn)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
