//! Lists with any limit, offset, page and cursor.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chancery::{
    Cursor, Database, DocumentStatus, JobStatus, MAX_PAGE_SIZE, PageRequest, PaginationParams,
    SsnHash, TemplateType,
};
use proptest::option::of as option;
use proptest::prelude::*;
use proptest::sample::select;
use sqlx::PgPool;

use super::law;
use super::values::{json, text, time, wide_integer};
use crate::support::{conversation, messages};

/// Whether a list was given; anything but a refusal by name fails.
macro_rules! given {
    ($uow:expr, $($call:tt)+) => {{
        let listed = $uow.$($call)+.await;
        super::taken($uow, listed).await.is_some()
    }};
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn every_list_takes_the_limits_and_offsets_in_range_and_refuses_the_others(pool: PgPool) {
    let db = Database::from_pool(pool);
    let c = conversation(&db).await;
    db.messages().create_many(messages(&c, 3)).await.unwrap();
    let ssn = SsnHash::new("0".repeat(64)).unwrap();
    let offset = prop_oneof![1 => Just(0), 2 => wide_integer()];
    law(&db, (wide_integer(), offset, 0_usize..23), async |uow, (n, offset, list)| {
        let (user, none) = (c.user_id, uuid::Uuid::nil());
        let mut without_offset = false;
        let mut limited = |taken| {
            without_offset = true;
            taken
        };
        let taken = match list {
            0 => given!(uow, sessions().list_by_user(user, n, offset)),
            1 => given!(uow, conversations().list_by_user(user, n, offset)),
            2 => given!(uow, conversations().list_recent(n, offset)),
            3 => given!(uow, messages().list_by_conversation(c.id, n, offset)),
            4 => limited(given!(uow, messages().get_last_n(c.id, n))),
            5 => given!(uow, config().list(n, offset)),
            6 => given!(uow, templates().list_by_user(user, n, offset)),
            7 => limited(given!(uow, templates().list_defaults(TemplateType::Blog, n))),
            8 => given!(uow, transcripts().list_by_user(user, n, offset)),
            9 => limited(given!(uow, transcripts().list_by_video("v", n))),
            10 => given!(uow, chunks().list_by_transcript(none.into(), n, offset)),
            11 => given!(uow, documents().list_documents(None, n, offset)),
            12 => given!(uow, documents().list_documents(Some(DocumentStatus::Failed), n, offset)),
            13 => given!(uow, documents().list_by_user(user, n, offset)),
            14 => limited(given!(uow, documents().list_pending(n))),
            15 => given!(uow, borrowers().list_by_user(user, n, offset)),
            16 => given!(uow, borrowers().list_by_document(none.into(), n, offset)),
            17 => limited(given!(uow, borrowers().list_by_ssn_hash(&ssn, n))),
            18 => given!(uow, income_records().list_by_borrower(none.into(), n, offset)),
            19 => given!(uow, source_references().list_by_document(none.into(), n, offset)),
            20 => given!(uow, projects().list(n, offset)),
            21 => given!(uow, extraction_jobs().list_by_project(none.into(), n, offset)),
            _ => given!(uow, extraction_jobs().list_by_status(JobStatus::Failed, n, offset)),
        };
        let in_range = (0..=MAX_PAGE_SIZE).contains(&n) && (offset >= 0 || without_offset);
        assert_eq!(taken, in_range);
        taken
    })
    .await;
}

/// The text of a cursor with a right checksum, whatever it says.
fn cursor(list: u32, micros: i64, id: [u8; 16]) -> String {
    let mut bytes = vec![2];
    bytes.extend(list.to_be_bytes());
    bytes.extend(micros.to_be_bytes());
    bytes.extend(id);
    bytes.extend(checksum(&bytes).to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn checksum(bytes: &[u8]) -> u32 {
    crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(bytes)
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn every_page_is_given_or_refused_whatever_its_size_and_cursor(pool: PgPool) {
    let db = Database::from_pool(pool);
    let c = conversation(&db).await;
    db.messages().create_many(messages(&c, 3)).await.unwrap();
    let micros = prop_oneof![
        1 => any::<i64>(),
        3 => time().prop_map(|time| time.timestamp_micros()),
        2 => select(vec![
            0, i64::MAX, i64::MIN, -62_135_596_800_000_000, -62_135_596_800_000_001,
            253_402_300_799_999_999, 253_402_300_800_000_000,
        ]),
    ];
    let (user, none) = (c.user_id, uuid::Uuid::nil());
    // What each list puts into its cursors.
    let of = |name: &str, key: uuid::Uuid| checksum(&[name.as_bytes(), key.as_bytes()].concat());
    let lists = [
        of("conversations of a user", user.as_uuid()),
        of("conversations of a user", user.as_uuid()),
        of("messages, oldest first", c.id.as_uuid()),
        of("messages, newest first", c.id.as_uuid()),
        of("transcripts of a user", user.as_uuid()),
        checksum(b"documents"),
        of("documents of a user", user.as_uuid()),
        of("projects of a user", user.as_uuid()),
        of("conversations of a user", user.as_uuid()),
        of("extraction_jobs of a project", none),
    ];
    let texts = prop_oneof![
        6 => (prop_oneof![9 => Just(None), 1 => any::<u32>().prop_map(Some)], micros, any::<[u8; 16]>())
            .prop_map(Ok),
        1 => text(44).prop_map(Err),
        1 => "[A-Za-z0-9_-]{44}".prop_map(Err),
    ];
    let sizes = prop_oneof![2 => Just(2), 1 => wide_integer()];
    law(&db, (sizes, option(texts), 0_usize..10), async |uow, (size, after, list)| {
        let mut of_this_list = true;
        let after = after.map(|after| match after {
            Err(text) => text,
            Ok((other, micros, id)) => {
                of_this_list = other.is_none_or(|other| other == lists[list]);
                cursor(other.unwrap_or(lists[list]), micros, id)
            }
        });
        let Ok(after) = after.map(|text| text.parse::<Cursor>()).transpose() else { return false };
        let page = PageRequest { size, after };
        let taken = match list {
            0 => given!(uow, conversations().page_by_user(user, page)),
            1 => given!(uow, conversations().page_with_last_message(user, page)),
            2 => given!(uow, messages().page_by_conversation(c.id, page)),
            3 => given!(uow, messages().page_back_by_conversation(c.id, page)),
            4 => given!(uow, transcripts().page_by_user(user, page)),
            5 => given!(uow, documents().page_documents(None, page)),
            6 => given!(uow, documents().page_by_user(user, page)),
            7 => given!(uow, projects().page_by_user(user, page)),
            8 => given!(uow, conversations().page_with_message_count(user, page)),
            _ => given!(uow, extraction_jobs().page_by_project(none.into(), page)),
        };
        assert_eq!(taken, (1..=MAX_PAGE_SIZE).contains(&size) && of_this_list);
        taken
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn every_numbered_page_that_there_is_can_be_asked_for(pool: PgPool) {
    let db = Database::from_pool(pool);
    law(&db, (wide_integer(), wide_integer(), any::<i64>()), async |uow, (page, size, total)| {
        let Ok(params) = PaginationParams::new(page, size) else { return false };
        let (limit, offset) = (params.limit(), params.offset());
        assert!(given!(uow, projects().list(limit, offset)));
        assert!(params.envelope(vec![0; 0], total).pages >= 0);
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn times_and_json_to_look_for_are_refused_or_looked_for(pool: PgPool) {
    let db = Database::from_pool(pool);
    let c = conversation(&db).await;
    db.messages().create_many(messages(&c, 3)).await.unwrap();
    law(&db, (time(), json()), async |uow, (since, contained)| {
        let counted = given!(uow, messages().count_since(since));
        let found = given!(uow, messages().list_by_metadata(c.user_id, &contained, 10));
        let listed = given!(uow, transcripts().list_by_metadata(c.user_id, &contained, 10));
        let cut = given!(uow, chunks().list_by_metadata(c.user_id, &contained, 10));
        assert_eq!((found, found), (listed, cut));
        counted && found
    })
    .await;
}
