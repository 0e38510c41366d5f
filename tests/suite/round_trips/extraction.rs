//! Projects and their jobs.

use std::time::Duration;

use chancery::{ExtractionJobPatch, JobStatus, NewProject, PageRequest, ProjectPatch, RetryPolicy};
use serde_json::json;

use super::{Meter, count};
use crate::support::{job, new_job, project, user};

const MINUTE: Duration = Duration::from_secs(60);

pub async fn measure(meter: &mut Meter) {
    let setup = meter.setup.clone();
    let owner = user(&setup).await.id;
    let kept = project(&setup).await.id;
    let page = PageRequest::first(10);
    let retry = RetryPolicy::default();
    let held = async || {
        job(&setup).await;
        let claimed = setup.extraction_jobs().claim(1000, MINUTE).await.unwrap();
        claimed.into_iter().last().unwrap().lease
    };

    count!(meter, projects().create(NewProject::new("Spring catalogue")));
    count!(meter, projects().get_by_id(kept));
    count!(meter, projects().list(10, 0));
    count!(meter, projects().list_by_user(owner, 10, 0));
    count!(meter, projects().page_by_user(owner, page));
    count!(meter, projects().count());
    count!(meter, projects().update(kept, ProjectPatch::default()));
    count!(meter, projects().delete(project(&setup).await.id));

    count!(meter, extraction_jobs().create(new_job(kept)));
    count!(meter, extraction_jobs().create_many(vec![new_job(kept), new_job(kept)]));
    count!(meter, extraction_jobs().get_by_id(job(&setup).await.id));
    count!(meter, extraction_jobs().list_by_project(kept, 10, 0));
    count!(meter, extraction_jobs().page_by_project(kept, page));
    count!(meter, extraction_jobs().list_by_status(JobStatus::Pending, 10, 0));
    count!(meter, extraction_jobs().count_by_status(JobStatus::Pending));
    count!(meter, extraction_jobs().counts_by_project(kept));
    count!(meter, extraction_jobs().update(job(&setup).await.id, ExtractionJobPatch::default()));
    count!(meter, extraction_jobs().delete(job(&setup).await.id));

    count!(meter, extraction_jobs().claim(10, MINUTE));
    count!(meter, extraction_jobs().next_due_in());
    count!(meter, extraction_jobs().heartbeat(held().await, MINUTE));
    count!(meter, extraction_jobs().heartbeat_many(&[held().await], MINUTE));
    count!(meter, extraction_jobs().complete(held().await, json!([])));
    count!(meter, extraction_jobs().fail(held().await, "unreadable", retry));
    count!(meter, extraction_jobs().give_up(held().await, "unreadable"));
    count!(meter, extraction_jobs().release(&[held().await]));
}
