//! Projects, and the queue of their jobs.

use chancery::{ExtractionJobPatch, JobStatus, NewProject, PageRequest, ProjectPatch, RetryPolicy};
use serde_json::json;

use super::HOUR;
use super::methods::{Case, Rule, case};
use crate::support::new_job;

pub fn cases(cases: &mut Vec<Case>) {
    case!(cases, |w| ProjectRepository::create(NewProject::new("Autumn").owner(w.user.id)));
    case!(cases, Service, |w| ProjectRepository::create(NewProject::new("Nobody's")));
    case!(cases, |w| ProjectRepository::get_by_id(w.project.id));
    case!(cases, |w| ProjectRepository::list(10, 0));
    case!(cases, |w| ProjectRepository::list_by_user(w.user.id, 10, 0));
    case!(cases, |w| ProjectRepository::page_by_user(w.user.id, PageRequest::first(10)));
    case!(cases, |w| ProjectRepository::count());
    case!(cases, |w| ProjectRepository::update(w.project.id, ProjectPatch::default()));
    case!(cases, |w| ProjectRepository::delete(w.project.id));

    case!(cases, |w| ExtractionJobRepository::create(new_job(w.project.id)));
    case!(cases, |w| ExtractionJobRepository::create_many(vec![new_job(w.project.id)]));
    case!(cases, |w| ExtractionJobRepository::get_by_id(w.job.id));
    case!(cases, |w| ExtractionJobRepository::list_by_project(w.project.id, 10, 0));
    case!(cases, |w| ExtractionJobRepository::page_by_project(
        w.project.id,
        PageRequest::first(10)
    ));
    case!(cases, |w| ExtractionJobRepository::list_by_status(JobStatus::Pending, 10, 0));
    case!(cases, |w| ExtractionJobRepository::count_by_status(JobStatus::Pending));
    case!(cases, |w| ExtractionJobRepository::counts_by_project(w.project.id));
    case!(cases, |w| ExtractionJobRepository::update(w.job.id, ExtractionJobPatch::default()));
    case!(cases, |w| ExtractionJobRepository::delete(w.job.id));
    case!(cases, |w| ExtractionJobRepository::claim(10, HOUR));
    case!(cases, |w| ExtractionJobRepository::next_due_in());
    case!(cases, |w| ExtractionJobRepository::heartbeat(w.lease, HOUR));
    case!(cases, |w| ExtractionJobRepository::complete(w.lease, json!([])));
    case!(cases, |w| ExtractionJobRepository::fail(w.lease, "unreadable", RetryPolicy::default()));
    case!(cases, |w| ExtractionJobRepository::give_up(w.lease, "unreadable"));
    case!(cases, |w| ExtractionJobRepository::release(&[w.lease]));
    // It returns the leases that are lost.
    cases.push(Case {
        name: "ExtractionJobRepository::heartbeat_many",
        call: |conn, w| {
            Box::pin(async move {
                let held = [w.lease];
                let jobs = chancery::ExtractionJobRepository::new(conn);
                Ok(held.len() - jobs.heartbeat_many(&held, HOUR).await?.len())
            })
        },
        rule: Rule::Owner,
        owned: None,
    });
}
