//! What is said of an extraction job to store or to change one.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::extraction_job::JobStatus;
use super::project::ProjectId;
use crate::db::id::debug_fields;
use crate::db::{Patch, Result, input};

/// When a job is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Due {
    /// At once.
    #[default]
    Now,
    /// At a time, by the database's clock.
    At(DateTime<Utc>),
    /// So long from now, as the database reckons it; at most 100 years.
    In(Duration),
}

impl Due {
    /// The time if it is fixed, and the seconds from now if it is not.
    pub(super) fn check(self) -> Result<(Option<DateTime<Utc>>, f64)> {
        Ok(match self {
            Self::Now => (None, 0.0),
            Self::At(time) => {
                input::time("due", time)?;
                (Some(time), 0.0)
            }
            Self::In(delay) => (None, input::seconds("due", delay)?),
        })
    }
}

/// A job to be stored.
///
/// ```
/// use std::time::Duration;
/// use chancery::{Due, NewExtractionJob, ProjectId};
///
/// # let project_id = ProjectId::new();
/// let at_once = NewExtractionJob::new(project_id, "https://example.org/a.png", "color");
/// let in_an_hour = at_once.clone().due(Due::In(Duration::from_secs(3600))).max_attempts(1);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct NewExtractionJob {
    /// What it is for.
    pub project_id: ProjectId,
    /// 1 to 512 characters.
    pub source_url: String,
    /// 1 to 50 characters.
    pub extraction_type: String,
    /// 1 and up; 5 unless said.
    pub max_attempts: i32,
    /// At once unless said.
    pub due: Due,
}

debug_fields!(NewExtractionJob { project_id, extraction_type, max_attempts, due });

impl NewExtractionJob {
    /// Due at once, with five attempts.
    pub fn new(
        project_id: ProjectId,
        source_url: impl Into<String>,
        extraction_type: impl Into<String>,
    ) -> Self {
        Self {
            project_id,
            source_url: source_url.into(),
            extraction_type: extraction_type.into(),
            max_attempts: 5,
            due: Due::Now,
        }
    }

    /// With another number of attempts.
    pub fn max_attempts(mut self, attempts: i32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Due at another time.
    pub fn due(mut self, due: Due) -> Self {
        self.due = due;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        input::name("source_url", &self.source_url, 512)?;
        input::name("extraction_type", &self.extraction_type, 50)?;
        input::range("max_attempts", self.max_attempts.into(), 1, i32::MAX.into())
    }
}

/// What to change of a job by hand; see [`Patch`]. Workers do not use it.
///
/// What belongs to a state is kept by the database: a job that is set to another state is taken from
/// its worker, one that is set back after its end begins anew (no attempts, no result, due at once),
/// and one that ends gets the time of it.
#[derive(Clone, Default)]
pub struct ExtractionJobPatch {
    /// 1 to 512 characters.
    pub source_url: Patch<String>,
    /// 1 to 50 characters.
    pub extraction_type: Patch<String>,
    /// Set to `Processing` by hand, no worker takes it.
    pub status: Patch<JobStatus>,
    /// At most [`MAX_JSON_DEPTH`](crate::MAX_JSON_DEPTH) levels.
    pub result_data: Patch<Option<Value>>,
    /// At most [`MAX_TEXT_BYTES`](crate::MAX_TEXT_BYTES).
    pub error_message: Patch<Option<String>>,
    /// 1 and up.
    pub max_attempts: Patch<i32>,
    /// When a waiting job is due.
    pub due: Patch<Due>,
}

debug_fields!(ExtractionJobPatch { extraction_type, status, max_attempts, due });

impl ExtractionJobPatch {
    pub(super) fn check(&self) -> Result<()> {
        self.source_url.as_ref().map_or(Ok(()), |v| input::name("source_url", v, 512))?;
        self.extraction_type.as_ref().map_or(Ok(()), |v| input::name("extraction_type", v, 50))?;
        if let Patch::Set(Some(value)) = &self.result_data {
            input::json("result_data", value)?;
        }
        self.error_message.set_text().map_or(Ok(()), |v| input::long_text("error_message", v))?;
        self.max_attempts
            .as_ref()
            .map_or(Ok(()), |&v| input::range("max_attempts", v.into(), 1, i32::MAX.into()))
    }
}
