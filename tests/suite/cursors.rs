//! Cursors: each is a place in one list.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chancery::{
    Cursor, Database, DocumentStatus, FileHash, NewDocument, NewProject, PageRequest, ProjectId,
    Result, UserId,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::PgPool;

use crate::support::{conversation_of, invalid, messages, new_job, new_transcript, unique, user};

/// A list, and what its page gives as the next cursor.
type List<'d> =
    (String, Box<dyn Fn(PageRequest) -> BoxFuture<'d, Result<Option<Cursor>>> + Send + Sync + 'd>);

macro_rules! list {
    ($name:expr, $db:ident.$repository:ident().$method:ident($($argument:expr),*)) => {
        (
            $name,
            Box::new(move |page| {
                async move {
                    Ok($db.$repository().$method($($argument,)* page).await?.next)
                }
                .boxed()
            }),
        )
    };
}

/// Every list that is paged, with rows of its own for two users.
async fn lists(db: &Database) -> Vec<List<'_>> {
    let mut lists: Vec<List<'_>> = Vec::new();
    for who in ["ada", "bob"] {
        let owner = user(db).await.id;
        let (project, a, b) = rows(db, owner).await;
        lists.push(list!(format!("conversations {who}"), db.conversations().page_by_user(owner)));
        for conversation in [a, b] {
            lists.push(list!(
                format!("messages {who}"),
                db.messages().page_by_conversation(conversation)
            ));
            lists.push(list!(
                format!("messages back {who}"),
                db.messages().page_back_by_conversation(conversation)
            ));
        }
        lists.push(list!(format!("transcripts {who}"), db.transcripts().page_by_user(owner)));
        lists.push(list!(format!("documents {who}"), db.documents().page_by_user(owner)));
        lists.push(list!(format!("projects {who}"), db.projects().page_by_user(owner)));
        lists.push(list!(format!("jobs {who}"), db.extraction_jobs().page_by_project(project)));
    }
    lists.push(list!("documents".to_owned(), db.documents().page_documents(None)));
    for status in [DocumentStatus::Pending, DocumentStatus::Failed] {
        lists.push(list!(
            format!("documents {status}"),
            db.documents().page_documents(Some(status))
        ));
    }
    lists
}

async fn rows(
    db: &Database,
    owner: UserId,
) -> (ProjectId, chancery::ConversationId, chancery::ConversationId) {
    let (a, b) = (conversation_of(db, owner).await, conversation_of(db, owner).await);
    let mut projects = Vec::new();
    for n in 0..2_u8 {
        db.messages().create_many(messages(if n == 0 { &a } else { &b }, 2)).await.unwrap();
        db.transcripts().create(new_transcript(owner)).await.unwrap();
        let mut new = NewProject::new("Spring catalogue");
        new.user_id = Some(owner);
        projects.push(db.projects().create(new).await.unwrap().id);
        db.extraction_jobs().create(new_job(projects[0])).await.unwrap();
    }
    for status in [DocumentStatus::Pending, DocumentStatus::Failed] {
        for _ in 0..2 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&unique().to_be_bytes());
            let mut new = NewDocument::new("a.pdf", FileHash::from(hash), "pdf", 1);
            new.user_id = Some(owner);
            let id = db.documents().create(new).await.unwrap().id;
            db.documents().update_status(id, status, None, None).await.unwrap();
        }
    }
    (projects[0], a.id, b.id)
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_cursor_of_one_list_is_refused_by_every_other(pool: PgPool) {
    let db = Database::from_pool(pool);
    let lists = lists(&db).await;
    let mut cursors = Vec::new();
    for (name, page) in &lists {
        let next = page(PageRequest::first(1)).await.unwrap();
        cursors.push(next.unwrap_or_else(|| panic!("{name} has one page")));
    }
    for (n, (name, page)) in lists.iter().enumerate() {
        for (m, cursor) in cursors.iter().enumerate() {
            let cursor = cursor.to_string().parse().unwrap();
            let answer = page(PageRequest::after(1, cursor)).await;
            if n == m {
                answer.unwrap();
                continue;
            }
            let refused = invalid(answer);
            let told = format!("{name} takes a cursor of {}", lists[m].0);
            assert_eq!(refused.to_string(), "after is not a cursor of this list", "{told}");
        }
    }
}

/// The forms of one list differ in what they show of a row: a client may change over.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_forms_of_one_list_take_each_others_cursors(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    conversation_of(&db, owner).await;
    let first = conversation_of(&db, owner).await;
    let page = db.conversations().page_by_user(owner, PageRequest::first(1)).await.unwrap();
    assert_eq!(page.items[0].id, first.id);
    let after = PageRequest::after(1, page.next.unwrap());
    let shown = db.conversations().page_by_user(owner, after).await.unwrap().items;
    let with_last = db.conversations().page_with_last_message(owner, after).await.unwrap().items;
    let counted = db.conversations().page_with_message_count(owner, after).await.unwrap().items;
    assert_eq!(with_last[0].conversation, shown[0]);
    assert_eq!(counted[0].summary.conversation, shown[0]);
    // And as the user, whose own list it is.
    let own = db.as_user(owner).conversations().page_by_user(owner, after).await.unwrap();
    assert_eq!(own.items, shown);
}

#[test]
fn a_cursor_of_an_earlier_release_is_refused_as_no_cursor() {
    // Version 1: a time, an identifier, a checksum.
    let mut bytes = vec![1];
    bytes.extend(1_800_000_000_123_456_i64.to_be_bytes());
    bytes.extend([7; 16]);
    let checksum = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&bytes);
    bytes.extend(checksum.to_be_bytes());
    let old = URL_SAFE_NO_PAD.encode(bytes).parse::<Cursor>().unwrap_err();
    assert_eq!(old.to_string(), "after is not a cursor");
}
