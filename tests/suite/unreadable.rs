//! Rows that are stored and can't be read: they cost themselves, and no other row.

use std::time::Duration;

use chancery::{
    Constraint, Database, DocumentStatus, Error, FileHash, JobStatus, NewBorrower, NewDocument,
    NewMessage, PageRequest, Result, TemplateType, UnreadableRow, Worker,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::job_worker::OPTIONS;
use crate::support::events::Events;
use crate::support::{
    chunks, conversation, conversation_of, jobs, messages, new_template, new_transcript, project,
    transcript, user,
};

/// JSON that jsonb holds and a reader does not.
const UNREADABLE: [&str; 4] = [
    "'{\"n\": 1e400}'",
    "'[[-1e309]]'",
    "repeat('[', 128) || repeat(']', 128)",
    "repeat('{\"a\":', 200) || '1' || repeat('}', 200)",
];

async fn execute(db: &Database, statement: String) -> Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(db.executor()).await?;
    Ok(())
}

/// A schema that takes what this one refuses, as one may that is newer.
async fn database_without_checks(pool: PgPool) -> Database {
    let db = Database::from_pool(pool);
    for (table, column) in [
        ("messages", "metadata"),
        ("messages", "role"),
        ("chunks", "metadata"),
        ("transcripts", "metadata"),
        ("templates", "variables"),
        ("templates", "template_type"),
        ("config", "value"),
        ("borrowers", "address"),
        ("documents", "status"),
        ("extraction_jobs", "result_data"),
        ("extraction_jobs", "status"),
    ] {
        let drop = format!("alter table {table} drop constraint {table}_{column}_check");
        execute(&db, drop).await.unwrap();
    }
    db
}

async fn set(db: &Database, table: &str, id: impl Into<Uuid>, column: &str, value: &str) {
    let id = id.into();
    let statement = format!("update {table} set {column} = {value} where id = '{id}'");
    execute(db, statement).await.unwrap();
}

/// What the log has told of rows that were left out since it was asked last.
fn told(events: &Events) -> Vec<String> {
    let unreadable = events.take().into_iter().filter_map(|(level, target, text)| {
        let is_it = text.contains("event=\"database.row_unreadable\"");
        assert!(!is_it || (level == tracing::Level::ERROR && target == "chancery"));
        is_it.then_some(text)
    });
    unreadable.collect()
}

#[track_caller]
fn assert_unreadable<T: std::fmt::Debug>(result: Result<T>, table: &str, id: &str, column: &str) {
    match result {
        Err(Error::Unreadable { row, .. }) => {
            assert_eq!((row.table, &*row.id, &*row.column), (table, id, column));
        }
        other => panic!("{other:?}"),
    }
}

/// Asks for a list, of which one row is left out and told with its identifier.
macro_rules! all_but {
    ($events:expr, $id:expr, $list:expr) => {{
        told($events);
        let listed = $list.await.unwrap();
        let told = told($events);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(&$id.to_string()), "{told:?}");
        listed
    }};
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_message_that_can_not_be_read_costs_no_other_message_of_any_list(pool: PgPool) {
    let db = database_without_checks(pool).await;
    let c = conversation(&db).await;
    let new = messages(&c, 3).into_iter().map(|m| m.metadata(json!({"k": 1})));
    let written = db.messages().create_many(new.collect()).await.unwrap();
    let bad = written[1].id;
    let left = [written[0].clone(), written[2].clone()];
    let events = Events::capture();
    let ways = UNREADABLE.map(|json| ("metadata", format!("({json})::jsonb")));
    for (column, value) in ways.into_iter().chain([("role", "'tool'".into())]) {
        set(&db, "messages", bad, column, &value).await;
        let messages = || db.messages();
        let listed = all_but!(&events, bad, messages().list_by_conversation(c.id, 10, 0));
        assert_eq!(listed, left);
        assert_eq!(all_but!(&events, bad, messages().get_last_n(c.id, 10)), left);
        let page = PageRequest::first(10);
        let page = all_but!(&events, bad, messages().page_by_conversation(c.id, page));
        assert_eq!(page.items, left);
        let [UnreadableRow { table: "messages", id, column: told, .. }] = &page.unreadable[..]
        else {
            panic!("{:?}", page.unreadable)
        };
        assert_eq!((&**id, &**told), (&*bad.to_string(), column));
        assert_unreadable(messages().get_by_id(bad).await, "messages", id, column);

        // In the owner's form and in a unit of work, which goes on.
        let mut uow = db.begin().await.unwrap();
        let owned = uow.messages().owned_by(c.user_id);
        assert_eq!(owned.list_by_conversation(c.id, 10, 0).await.unwrap(), left);
        let one = uow.messages().get_by_id(bad).await;
        assert_unreadable(one, "messages", id, column);
        uow.commit().await.unwrap();

        // A stream gives an error in its place, and the rest.
        let streamed: Vec<_> = messages().stream_by_conversation(c.id).collect().await;
        let [Ok(first), Err(Error::Unreadable { row, .. }), Ok(last)] = &streamed[..] else {
            panic!("{streamed:?}")
        };
        assert_eq!((first, &row.id, last), (&left[0], id, &left[1]));
        set(&db, "messages", bad, "metadata", "'{\"k\": 1}'").await;
    }
    let notes = json!({"k": 1});
    let listed = db.messages().list_by_metadata(c.user_id, &notes, 10);
    assert_eq!(all_but!(&events, bad, listed).len(), 2);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn pages_go_on_past_messages_that_can_not_be_read(pool: PgPool) {
    let db = database_without_checks(pool).await;
    let c = conversation(&db).await;
    let written = db.messages().create_many(messages(&c, 7)).await.unwrap();
    for bad in [0, 2, 3, 6] {
        set(&db, "messages", written[bad].id, "role", "'tool'").await;
    }
    for size in 1..=8 {
        for back in [false, true] {
            let (mut request, mut read, mut lost) = (PageRequest::first(size), Vec::new(), 0);
            loop {
                let page = match back {
                    false => db.messages().page_by_conversation(c.id, request).await.unwrap(),
                    true => db.messages().page_back_by_conversation(c.id, request).await.unwrap(),
                };
                read.extend(page.items.into_iter().map(|m| m.content));
                lost += page.unreadable.len();
                let Some(next) = page.next else { break };
                request = PageRequest::after(size, next);
            }
            if back {
                read.reverse();
            }
            assert_eq!((&*read.join(","), lost), ("message 1,message 4,message 5", 4), "{size}");
        }
    }
    let page = db.messages().page_by_conversation(c.id, PageRequest::first(2)).await.unwrap();
    let told = serde_json::to_value(&page).unwrap()["unreadable"].clone();
    let first = written[0].id;
    assert_eq!(told, json!([{"table": "messages", "id": first, "column": "role"}]));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_conversation_stays_in_its_lists_when_its_last_message_can_not_be_read(pool: PgPool) {
    let db = database_without_checks(pool).await;
    let c = conversation(&db).await;
    let other = conversation_of(&db, c.user_id).await;
    let new = vec![NewMessage::user(other.id, "fine"), NewMessage::user(c.id, "newer")];
    let bad = db.messages().create_many(new).await.unwrap()[1].id;
    set(&db, "messages", bad, "role", "'tool'").await;
    let events = Events::capture();
    let page = PageRequest::first(10);
    let summaries =
        all_but!(&events, bad, db.conversations().page_with_last_message(c.user_id, page)).items;
    let counted =
        all_but!(&events, bad, db.conversations().page_with_message_count(c.user_id, page)).items;
    assert!(counted.iter().map(|o| &o.summary).eq(&summaries));
    let last = |id| {
        let found = summaries.iter().find(|s| s.conversation.id == id).unwrap();
        found.last_message.as_ref().map(|m| &*m.content)
    };
    assert_eq!((last(c.id), last(other.id)), (None, Some("fine")));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn one_row_that_can_not_be_read_costs_no_other_row_of_the_other_tables(pool: PgPool) {
    let db = database_without_checks(pool).await;
    let events = Events::capture();
    let owner = user(&db).await.id;
    let page = PageRequest::first(10);
    let huge = "'1e400'::jsonb";

    let source = transcript(&db).await;
    let cut = db.chunks().create_many(chunks(source.id, 3)).await.unwrap();
    let bad = cut[1].id;
    set(&db, "chunks", bad, "metadata", "'{\"n\": 1e400}'").await;
    let ids: Vec<_> = cut.iter().rev().map(|chunk| chunk.id).collect();
    let found = all_but!(&events, bad, db.chunks().get_by_ids(&ids));
    assert_eq!(found, [cut[2].clone(), cut[0].clone()]);
    let listed = all_but!(&events, bad, db.chunks().list_by_transcript(source.id, 10, 0));
    assert_eq!(listed, [cut[0].clone(), cut[2].clone()]);
    let any = json!({});
    let by_metadata = db.chunks().list_by_metadata(source.user_id, &any, 10);
    assert_eq!(all_but!(&events, bad, by_metadata), listed);
    assert_unreadable(db.chunks().get_by_id(bad).await, "chunks", &bad.to_string(), "metadata");
    let streamed = db.chunks().stream_by_transcript(source.id);
    let read: Vec<_> = streamed.map(|chunk| chunk.is_ok()).collect().await;
    assert_eq!(read, [true, false, true]);

    set(&db, "transcripts", source.id, "metadata", huge).await;
    let id = source.id.to_string();
    assert_unreadable(db.transcripts().get_by_id(source.id).await, "transcripts", &id, "metadata");
    let counted = db.transcripts().get_with_chunk_count(source.id).await;
    assert_unreadable(counted, "transcripts", &id, "metadata");
    let video = &source.youtube_video_id;
    let by_video = db.transcripts().get_by_video_id(source.user_id, video).await;
    assert_unreadable(by_video, "transcripts", &id, "metadata");
    // Their lists don't read it.
    assert_eq!(db.transcripts().page_by_user(source.user_id, page).await.unwrap().items.len(), 1);

    let mut templates = Vec::new();
    for _ in 0..3 {
        let new = new_template(Some(owner)).default_for_type();
        templates.push(db.templates().create_template(new).await.unwrap().id);
    }
    let bad = templates[1];
    set(&db, "templates", bad, "variables", "'[1e400]'").await;
    let one = db.templates().get_by_id(bad).await;
    assert_unreadable(one, "templates", &bad.to_string(), "variables");
    set(&db, "templates", bad, "template_type", "'fax'").await;
    assert_eq!(all_but!(&events, bad, db.templates().list_by_user(owner, 10, 0)).len(), 2);
    let defaults = db.templates().list_defaults(TemplateType::Blog, 10).await.unwrap();
    assert_eq!(defaults.len(), 2);

    for key in ["a", "broken", "c"] {
        db.config().set_value(key, &json!(1), None).await.unwrap();
    }
    execute(&db, format!("update config set value = {huge} where key = 'broken'")).await.unwrap();
    assert_eq!(all_but!(&events, "broken", db.config().list(10, 0)).len(), 2);
    assert_unreadable(db.config().get("broken").await, "config", "broken", "value");

    let new = ["Ann", "Bo", "Cy"].map(|name| NewBorrower::new(format!("{name} Li")).user_id(owner));
    let borrowers = db.borrowers().create_many(new.into()).await.unwrap();
    let bad = borrowers[1].borrower.id;
    set(&db, "borrowers", bad, "address", huge).await;
    assert_eq!(all_but!(&events, bad, db.borrowers().list_by_user(owner, 10, 0)).len(), 2);
    for of in [None, Some(owner)] {
        assert_eq!(all_but!(&events, bad, db.borrowers().search_by_name(of, " Li", 9, 0)).len(), 2);
    }
    let id = bad.to_string();
    assert_unreadable(db.borrowers().get_by_id(bad).await, "borrowers", &id, "address");
    assert_unreadable(db.borrowers().get_with_records(bad).await, "borrowers", &id, "address");

    let mut documents = Vec::new();
    for n in 0..3 {
        let mut new = NewDocument::new("a.pdf", FileHash::from([n; 32]), "pdf", 1);
        new.user_id = Some(owner);
        documents.push(db.documents().create(new).await.unwrap().id);
    }
    let bad = documents[1];
    set(&db, "documents", bad, "status", "'archived'").await;
    assert_eq!(all_but!(&events, bad, db.documents().list_documents(None, 10, 0)).len(), 2);
    assert_eq!(all_but!(&events, bad, db.documents().list_by_user(owner, 10, 0)).len(), 2);
    let listed = all_but!(&events, bad, db.documents().page_documents(None, page));
    assert_eq!((listed.items.len(), &*listed.unreadable[0].id), (2, &*bad.to_string()));
    let listed = all_but!(&events, bad, db.documents().page_by_user(owner, page));
    assert_eq!((listed.items.len(), listed.unreadable.len()), (2, 1));
    let pending = db.documents().list_documents(Some(DocumentStatus::Pending), 10, 0);
    assert_eq!(pending.await.unwrap().len(), 2);
    let one = db.documents().get_by_id(bad).await;
    assert_unreadable(one, "documents", &bad.to_string(), "status");

    let stored = jobs(&db, 3).await;
    let (bad, project_id) = (stored[1].id, stored[1].project_id);
    set(&db, "extraction_jobs", bad, "status", "'paused'").await;
    let listed = db.extraction_jobs().list_by_project(project_id, 10, 0);
    assert_eq!(all_but!(&events, bad, listed).len(), 2);
    let listed = all_but!(&events, bad, db.extraction_jobs().page_by_project(project_id, page));
    assert_eq!((listed.items.len(), listed.unreadable.len()), (2, 1));
    let one = db.extraction_jobs().get_by_id(bad).await;
    assert_unreadable(one, "extraction_jobs", &bad.to_string(), "status");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_row_that_is_not_of_the_callers_type_costs_only_itself(pool: PgPool) {
    let db = Database::from_pool(pool);
    let c = conversation(&db).await;
    let notes = [json!({"n": 1}), json!({"n": "hush"}), json!({"n": 3})];
    let new = notes.into_iter().map(|json| NewMessage::user(c.id, "x").metadata(json)).collect();
    let written = db.messages().create_many(new).await.unwrap();
    #[derive(Debug, serde::Deserialize)]
    struct Numbered {
        n: u32,
    }
    let events = Events::capture();
    let typed = || db.messages().json_as::<Numbered>();
    let listed = all_but!(&events, written[1].id, typed().get_last_n(c.id, 10));
    assert_eq!(listed.iter().map(|m| m.metadata.n).collect::<Vec<_>>(), [1, 3]);
    // Nothing that can be read is not the same as nothing.
    let none = typed().list_by_conversation(c.id, 1, 1).await;
    assert!(!format!("{none:?}").contains("hush"));
    assert_unreadable(none, "messages", &written[1].id.to_string(), "metadata");
}

/// Claims read a job's result; another program may have put one there before it is due.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_job_that_can_not_be_read_is_failed_and_its_neighbours_are_taken(pool: PgPool) {
    let db = database_without_checks(pool).await;
    let stored = jobs(&db, 5).await;
    for bad in [0, 2] {
        set(&db, "extraction_jobs", stored[bad].id, "result_data", "'1e400'").await;
    }
    // The places of those that failed are filled.
    let claimed = db.extraction_jobs().claim(3, Duration::from_secs(60)).await.unwrap();
    assert!(claimed.iter().map(|c| c.job.id).eq([1, 3, 4].map(|n: usize| stored[n].id)));
    assert!(claimed.iter().all(|c| c.job.attempts == 1));
    for bad in [0, 2] {
        let failed = db.extraction_jobs().list_by_status(JobStatus::Failed, 10, 0).await.unwrap();
        let job = failed.iter().find(|job| job.id == stored[bad].id).unwrap();
        let error = job.error_message.as_deref();
        assert_eq!(error, Some("the job can't be read: its column result_data"));
    }

    // In a unit of work too.
    set(&db, "extraction_jobs", stored[1].id, "result_data", "'1e400'").await;
    db.extraction_jobs().release(&[claimed[0].lease, claimed[1].lease]).await.unwrap();
    let mut uow = db.begin().await.unwrap();
    let again = uow.extraction_jobs().claim(2, Duration::from_secs(60)).await.unwrap();
    assert!(again.iter().map(|c| c.job.id).eq([stored[3].id]));
    uow.commit().await.unwrap();
    assert_eq!(db.extraction_jobs().count_by_status(JobStatus::Failed).await.unwrap(), 3);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_worker_does_the_jobs_beside_one_that_can_not_be_read(pool: PgPool) {
    let db = database_without_checks(pool).await;
    let stored = jobs(&db, 4).await;
    set(&db, "extraction_jobs", stored[2].id, "result_data", "'1e400'").await;
    let (done, mut all_done) = mpsc::channel(8);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = Worker::with_options(&db, OPTIONS).run(
        move |claimed| {
            let done = done.clone();
            async move {
                done.send(claimed.job.id).await.unwrap();
                Ok::<Value, std::io::Error>(json!(true))
            }
        },
        async { drop(stopped.await) },
    );
    let watch = async {
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(all_done.recv().await.unwrap());
        }
        stop.send(()).unwrap();
        seen
    };
    let (ran, mut seen) = tokio::join!(worker, watch);
    ran.unwrap();
    seen.sort_unstable();
    assert_eq!(seen, [stored[0].id, stored[1].id, stored[3].id]);
    let counts = db.extraction_jobs().counts_by_project(stored[0].project_id).await.unwrap();
    assert_eq!((counts.completed, counts.failed), (3, 1));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn every_table_refuses_json_that_can_not_be_read_from_every_writer(pool: PgPool) {
    let db = Database::from_pool(pool);
    let c = conversation(&db).await;
    let message = db.messages().create_many(messages(&c, 1)).await.unwrap()[0].id;
    let source = db.transcripts().create(new_transcript(c.user_id)).await.unwrap().id;
    let chunk = db.chunks().create_many(chunks(source, 1)).await.unwrap()[0].id;
    let template = db.templates().create_template(new_template(None)).await.unwrap().id;
    let borrower = db.borrowers().create(NewBorrower::new("Ann")).await.unwrap().borrower.id;
    let project = project(&db).await;
    let job = db.extraction_jobs().create(crate::support::new_job(project.id)).await.unwrap().id;
    db.config().set_value("k", &json!(1), None).await.unwrap();
    for (table, column, key, constraint) in [
        ("messages", "metadata", message.to_string(), Constraint::MessagesMetadataCheck),
        ("transcripts", "metadata", source.to_string(), Constraint::TranscriptsMetadataCheck),
        ("chunks", "metadata", chunk.to_string(), Constraint::ChunksMetadataCheck),
        ("templates", "variables", template.to_string(), Constraint::TemplatesVariablesCheck),
        ("borrowers", "address", borrower.to_string(), Constraint::BorrowersAddressCheck),
        (
            "extraction_jobs",
            "result_data",
            job.to_string(),
            Constraint::ExtractionJobsResultDataCheck,
        ),
        ("config", "value", "k".to_owned(), Constraint::ConfigValueCheck),
    ] {
        let id = if table == "config" { "key" } else { "id" };
        let set = |json: &str| {
            let json = json.to_owned();
            format!("update {table} set {column} = ({json})::jsonb where {id} = '{key}'")
        };
        let too_much = ["'1.7976931348623159e308'", "'{\"a\": [1, {\"b\": -1e309}]}'"];
        for json in UNREADABLE.into_iter().chain(too_much) {
            let refused = execute(&db, set(json)).await.unwrap_err();
            assert_eq!(refused.constraint(), Some(constraint), "{table} {json}: {refused:?}");
        }
        let shallow = "repeat('[', 126) || '1.7976931348623157e308' || repeat(']', 126)";
        for json in [shallow, "'[-1.7976931348623157e308, 1e-400, \"1e400\", null, true]'"] {
            execute(&db, set(json)).await.unwrap();
            let read = match table {
                "messages" => db.messages().get_by_id(message).await.map(drop),
                "transcripts" => db.transcripts().get_by_id(source).await.map(drop),
                "chunks" => db.chunks().get_by_id(chunk).await.map(drop),
                "templates" => db.templates().get_by_id(template).await.map(drop),
                "borrowers" => db.borrowers().get_by_id(borrower).await.map(drop),
                "extraction_jobs" => db.extraction_jobs().get_by_id(job).await.map(drop),
                _ => db.config().get("k").await.map(drop),
            };
            read.unwrap();
        }
    }
}
