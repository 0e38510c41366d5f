//! Reads that carry no more than is asked for: JSON without a tree, and rows one by one.

use std::time::Duration;

use chancery::{
    Chunk, Database, Error, ExtractionJobPatch, JobStatus, Message, NewChunk, NewMessage,
    PageRequest, ReadOnly, TemplateType,
};
use futures_util::TryStreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, Row};
use uuid::Uuid;

use crate::support::database::{config, connect, url, value};
use crate::support::proxy::Proxy;
use crate::support::statements;
use crate::support::{
    chunks, conversation, conversation_of, eventually, job, messages, new_template, new_transcript,
    transcript,
};

#[derive(Debug, PartialEq, Deserialize)]
struct Cited {
    model: String,
    #[serde(default)]
    chunks: Vec<u32>,
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn metadata_comes_as_text_or_as_a_type_of_the_callers(pool: PgPool) {
    let db = Database::from_pool(pool);
    let c = conversation(&db).await;
    let notes = json!({"model": "m-1", "chunks": [3, 7]});
    let new = NewMessage::assistant(c.id, "Because.").metadata(notes.clone());
    let written = db.messages().create(new).await.unwrap();
    let cited = Cited { model: "m-1".into(), chunks: vec![3, 7] };

    let typed = || db.messages().json_as::<Cited>();
    let one = typed().get_by_id(written.id).await.unwrap().unwrap();
    assert_eq!((one.id, &one.content, &one.metadata), (written.id, &written.content, &cited));
    assert_eq!(typed().get_last_n(c.id, 5).await.unwrap()[0].metadata, cited);
    assert_eq!(typed().list_by_metadata(c.user_id, &notes, 5).await.unwrap()[0].metadata, cited);

    // The text as PostgreSQL writes it, which is the same document.
    let raw: Vec<Message<Box<RawValue>>> =
        db.messages().json_as().list_by_conversation(c.id, 5, 0).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(raw[0].metadata.get()).unwrap(), notes);
    // It goes on to a client as it came.
    let answer = serde_json::to_value(&raw).unwrap();
    assert_eq!(answer, serde_json::to_value(vec![written]).unwrap());

    let source = transcript(&db).await;
    let chunk = NewChunk::new(source.id, 0, "We choose", 2).metadata(notes);
    let [chunk] = &db.chunks().create_many(vec![chunk]).await.unwrap()[..] else { panic!() };
    let found: Vec<Chunk<Cited>> =
        db.chunks().read_only().json_as().get_by_ids(&[chunk.id]).await.unwrap();
    assert_eq!(found[0].metadata, cited);
    let whole = db.transcripts().json_as::<Box<RawValue>>();
    let whole = whole.get_with_chunk_count(source.id).await.unwrap().unwrap();
    assert_eq!((whole.transcript.metadata.get(), whole.chunk_count), ("{}", 1));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn metadata_that_is_not_of_the_callers_type_is_an_error_that_does_not_quote_it(pool: PgPool) {
    let db = Database::from_pool(pool);
    let c = conversation(&db).await;
    let notes = json!({"model": ["hush"]});
    db.messages().create(NewMessage::user(c.id, "Why?").metadata(notes)).await.unwrap();
    let error = db.messages().json_as::<Cited>().get_last_n(c.id, 1).await.unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    let source = transcript(&db).await.id;
    let error = db.transcripts().json_as::<Cited>().get_with_chunk_count(source).await.unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
    // The connection is as good as before.
    assert_eq!(db.messages().get_last_n(c.id, 1).await.unwrap().len(), 1);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_stream_gives_every_row_in_order(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (c, other) = (conversation(&db).await, conversation(&db).await);
    let written = db.messages().create_many(messages(&c, 3000)).await.unwrap();
    db.messages().create_many(messages(&other, 3)).await.unwrap();
    let read: Vec<Message> =
        db.messages().stream_by_conversation(c.id).try_collect().await.unwrap();
    assert_eq!(read, written);

    let source = transcript(&db).await.id;
    let mut new = chunks(source, 3000);
    new.reverse();
    db.chunks().create_many(new).await.unwrap();
    let read_only: chancery::ChunkRepository<'_, ReadOnly> = db.chunks().read_only();
    let read: Vec<Chunk> = read_only.stream_by_transcript(source).try_collect().await.unwrap();
    assert!(read.iter().map(|chunk| chunk.chunk_index).eq(0..3000));
    // In a unit of work, it reads what that has written.
    let mut uow = db.begin().await.unwrap();
    uow.chunks().delete_by_transcript(source).await.unwrap();
    let left: Vec<Chunk> = uow.chunks().stream_by_transcript(source).try_collect().await.unwrap();
    assert!(left.is_empty());
    uow.rollback().await.unwrap();
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_stream_that_is_dropped_midway_leaves_a_clean_connection(pool: PgPool) {
    let db = connect(config(&pool).pool_size(1).max_overflow(0)).await;
    let c = conversation(&db).await;
    let long = "x".repeat(10_000);
    let new = (0..2000).map(|_| NewMessage::user(c.id, &*long)).collect();
    db.messages().create_many(new).await.unwrap();
    for read in [0, 1, 50] {
        let mut stream = Box::pin(db.messages().stream_by_conversation(c.id));
        for _ in 0..read {
            stream.try_next().await.unwrap().unwrap();
        }
        drop(stream);
        // The only connection, or another in its place, serves the next caller at once.
        assert_eq!(db.messages().get_last_n(c.id, 1).await.unwrap().len(), 1, "after {read}");
    }
    // So does the one of a unit of work, which knows nothing failed.
    let mut uow = db.begin().await.unwrap();
    uow.conversations().update_title(c.id, Some("kept")).await.unwrap();
    let mut stream = Box::pin(uow.messages().stream_by_conversation(c.id));
    stream.try_next().await.unwrap().unwrap();
    drop(stream);
    assert_eq!(uow.messages().get_last_n(c.id, 1).await.unwrap().len(), 1);
    uow.commit().await.unwrap();
    let kept = db.conversations().get_by_id(c.id).await.unwrap().unwrap();
    assert_eq!(kept.title.as_deref(), Some("kept"));
    // And nothing goes on at the server.
    eventually("no statement runs on", async || {
        value::<i64>(
            &pool,
            "select count(*) from pg_stat_activity
              where datname = current_database() and state = 'active' and pid <> pg_backend_pid()",
        )
        .await
            == 0
    })
    .await;
    db.close().await;
}

/// Each list, of rows whose texts and JSON are a megabyte.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn lists_carry_no_bodies(pool: PgPool) {
    let proxy = Proxy::start(&url(&pool), Duration::ZERO).await;
    let db = connect(config(&pool).url(proxy.url(&url(&pool)).as_str())).await;
    let body = || "x".repeat(1_000_000);
    let c = conversation(&db).await;
    let owner = c.user_id;
    let new = NewMessage::user(c.id, "Why?").metadata(json!(body()));
    db.messages().create(new).await.unwrap();
    let mut new = new_transcript(owner).metadata(json!({"note": body()}));
    new.transcript_text = body();
    let source = db.transcripts().create(new).await.unwrap();
    db.chunks().create_many(vec![NewChunk::new(source.id, 0, body(), 1)]).await.unwrap();
    let mut new = new_template(Some(owner)).default_for_type().variables(json!([body()]));
    new.template_content = body();
    db.templates().create_template(new).await.unwrap();
    let job = job(&db).await;
    let patch =
        ExtractionJobPatch { result_data: Some(json!(body())).into(), ..Default::default() };
    db.extraction_jobs().update(job.id, patch).await.unwrap();

    let page = PageRequest::first(10);
    macro_rules! light {
        ($($repository:ident().$method:ident($($argument:expr),*);)+) => {$(
            let before = proxy.answered();
            let list = db.$repository().$method($($argument),*).await.unwrap();
            let bytes = proxy.answered() - before;
            assert!(format!("{list:?}").contains("id: "), "nothing listed");
            let name = concat!(stringify!($repository), "().", stringify!($method));
            assert!(bytes < 10_000, "{name} carries {bytes} bytes");
        )+};
    }
    light! {
        conversations().list_by_user(owner, 10, 0);
        conversations().page_by_user(owner, page);
        conversations().page_with_last_message(owner, page);
        conversations().page_with_message_count(owner, page);
        conversations().list_recent(10, 0);
        transcripts().list_by_user(owner, 10, 0);
        transcripts().page_by_user(owner, page);
        transcripts().list_by_video(&source.youtube_video_id, 10);
        transcripts().list_by_metadata(owner, &json!({}), 10);
        templates().list_by_user(owner, 10, 0);
        templates().list_defaults(TemplateType::Blog, 10);
        extraction_jobs().list_by_project(job.project_id, 10, 0);
        extraction_jobs().page_by_project(job.project_id, page);
        extraction_jobs().list_by_status(JobStatus::Pending, 10, 0);
    }
    db.close().await;
}

/// A conversation of 20,000 messages of one moment among 200 small ones. Blocks are counted, not
/// time.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn page_two_thousand_costs_what_the_first_one_does(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let c = conversation(&db).await;
    for _ in 0..200 {
        let small = conversation_of(&db, c.user_id).await;
        db.messages().create_many(messages(&small, 5)).await.unwrap();
    }
    sqlx::query(
        "insert into messages (conversation_id, role, content)
         select $1, 'user', 'message ' || i from generate_series(1, 20000) i",
    )
    .bind(c.id)
    .execute(&pool)
    .await
    .unwrap();
    sqlx::raw_sql("analyze messages").execute(&pool).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    let statements = statements::of_the_crate();
    for (method, order) in [("page_by_conversation", "asc"), ("page_back_by_conversation", "desc")]
    {
        let name = format!("MessageRepository::{method}");
        let statement = &statements.iter().find(|s| s.name == name).unwrap().text;
        // Where the pages begin.
        let ends = format!(
            "select created_at::text, id from (
                 select created_at, id, row_number() over (order by created_at {order}, id {order}) n
                   from messages where conversation_id = $1) m
              where n % 10 = 0 order by n"
        );
        let ends: Vec<(String, Uuid)> =
            sqlx::query_as(AssertSqlSafe(ends)).bind(c.id).fetch_all(&pool).await.unwrap();
        assert_eq!(ends.len(), 2000);
        let mut run = async |sql: String| {
            sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(&mut *connection).await.unwrap()
        };
        run(format!("prepare page as {statement}")).await;
        let after = |page: usize| match page.checked_sub(2) {
            None => format!("('{}', null, null, 11)", c.id),
            Some(end) => format!("('{}', '{}', '{}', 11)", c.id, ends[end].0, ends[end].1),
        };
        for page in 1..=6 {
            run(format!("execute page{}", after(page))).await;
        }
        // By the plan that the server has chosen by now, and by the one that fits every page.
        for mode in ["auto", "force_generic_plan"] {
            run(format!("set plan_cache_mode = {mode}")).await;
            let mut cost = Vec::new();
            for page in [1, 2, 3, 10, 100, 500, 1000, 1500, 1999, 2000] {
                let explain = "explain (analyze, buffers, format json, timing off)";
                let row = run(format!("{explain} execute page{}", after(page))).await.unwrap();
                let plan = &row.get::<Value, _>(0)[0]["Plan"];
                assert!(plan["Actual Rows"].as_f64().unwrap() >= 10.0, "page {page}: {plan}");
                let blocks = |what: &str| plan[what].as_i64().unwrap();
                cost.push(blocks("Shared Hit Blocks") + blocks("Shared Read Blocks"));
            }
            // A page's eleven rows may lie in as many blocks, and an index leaf may end within it.
            let (least, most) = (cost.iter().min().unwrap(), cost.iter().max().unwrap());
            assert!(
                most - least <= 12 && *most < 40,
                "{method} ({mode}) reads so many blocks a page: {cost:?}"
            );
        }
        let generic = "select generic_plans from pg_prepared_statements where name = 'page'";
        let generic: i64 = run(generic.into()).await.unwrap().get(0);
        assert!(generic >= 10, "{method} was planned generically {generic} times");
        run("deallocate page".into()).await;
    }
}
