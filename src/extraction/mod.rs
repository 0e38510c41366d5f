//! What is extracted: projects, and the jobs that read design tokens out of a source for them.
//!
//! The jobs are a queue. Whoever stores one wakes the workers; a worker takes it on a lease, so that
//! one that crashes loses nothing, and only the lease's holder can store the outcome:
//!
//! ```no_run
//! use chancery::{ClaimedJob, Database, JobError, NewExtractionJob, ProjectId, Worker};
//!
//! # async fn color_tokens(_url: &str) -> Result<serde_json::Value, std::io::Error> { Ok(0.into()) }
//! # async fn example(db: Database, project_id: ProjectId) -> chancery::Result<()> {
//! let url = "https://example.org/palette.png";
//! db.extraction_jobs().create(NewExtractionJob::new(project_id, url, "color")).await?;
//!
//! let stop = async { tokio::time::sleep(std::time::Duration::from_secs(3600)).await };
//! Worker::new(&db)
//!     .run(
//!         async |claimed: ClaimedJob| Ok::<_, JobError>(color_tokens(&claimed.job.source_url).await?),
//!         stop,
//!     )
//!     .await?;
//! # Ok(()) }
//! ```

mod extraction_job;
mod job_input;
mod listener;
mod project;
mod queue;
mod worker;
mod worker_run;

pub use extraction_job::{
    ExtractionJob, ExtractionJobId, ExtractionJobRepository, ExtractionJobSummary, JobCounts,
    JobStatus,
};
pub use job_input::{Due, ExtractionJobPatch, NewExtractionJob};
pub use listener::JobListener;
pub use project::{NewProject, Project, ProjectId, ProjectPatch, ProjectRepository};
pub use queue::{ClaimedJob, JobLease, RetryPolicy};
pub use worker::{JobError, Worker, WorkerOptions};
