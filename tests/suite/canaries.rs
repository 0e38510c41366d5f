//! A text that must not be seen stands in every column of every table that can hold one; then each
//! constraint of the schema is broken, and each value that has a form of its own is made unreadable.

use std::fmt::Write as _;

use chancery::{
    AccountNumber, Constraint, Database, Error, ExtractionJobPatch, NewAccount, NewBorrower,
    NewExtractionJob, NewIncomeRecord, NewProject, NewSourceReference, NewUserPreferences, Patch,
    ProjectPatch, SsnHash,
};
use rust_decimal::Decimal;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, PgPool};

use crate::secrets::{CANARY, Log, assert_clean, failed, private_rows};
use crate::support::intake::new_document;

/// Two rows in every table, each with the text wherever one can stand.
async fn fill(db: &Database) -> String {
    let mut shown = String::new();
    for _ in 0..2 {
        let (user, ..) = private_rows(db).await;
        let preferences = NewUserPreferences::default();
        db.user_preferences().create(user.id, preferences).await.unwrap();
        let new = NewProject::new(CANARY).description(CANARY).owner(user.id);
        let project = db.projects().create(new.clone()).await.unwrap();
        let new_job = NewExtractionJob::new(project.id, CANARY, "color");
        let job = db.extraction_jobs().create(new_job.clone()).await.unwrap();
        let patch = ExtractionJobPatch {
            result_data: Patch::Set(Some(json!([CANARY]))),
            error_message: Patch::Set(Some(CANARY.into())),
            ..ExtractionJobPatch::default()
        };
        let patched = db.extraction_jobs().update(job.id, patch.clone()).await.unwrap();
        let rename = ProjectPatch { name: CANARY.to_owned().into(), ..ProjectPatch::default() };
        write!(shown, "{new:?} {project:?} {new_job:?} {job:?} {patch:?} {patched:?} {rename:?} ")
            .unwrap();

        let mut new = new_document().user_id(user.id).storage_uri(CANARY);
        new.filename = CANARY.into();
        let document = db.documents().create(new.clone()).await.unwrap();
        let hash = SsnHash::new(CANARY.repeat(6)).unwrap();
        let account = NewAccount::new(AccountNumber::new(CANARY).unwrap(), "checking");
        let income = NewIncomeRecord::new(Decimal::ONE, "annual", 2025, "wages").employer(CANARY);
        let source = NewSourceReference::new(document.id, 1, CANARY).section(CANARY);
        write!(shown, "{new:?} {document:?} {hash:?} {account:?} {income:?} {source:?} ").unwrap();
        let mut new = NewBorrower::new(CANARY).source(source).income(income).account(account);
        new.user_id = Some(user.id);
        new.ssn_hash = Some(hash);
        new.address = Some(json!({ CANARY: CANARY }));
        let stored = db.borrowers().create(new.clone()).await.unwrap();
        write!(shown, "{new:?} {stored:?} {stored:#?} ").unwrap();
        // What the types would not let through.
        for statement in [
            "update sessions set token_hash = $1 || id",
            "update config set key = $1 || md5(random()::text) where key = 'key'",
            "update documents set file_hash = $1 || left(id::text, 8) || right(id::text, 8),
                                 error_message = $1",
        ] {
            sqlx::query(statement).bind(CANARY).execute(db.executor()).await.unwrap();
        }
    }
    shown
}

const TABLES: [&str; 16] = [
    "users",
    "user_preferences",
    "sessions",
    "conversations",
    "messages",
    "transcripts",
    "chunks",
    "templates",
    "config",
    "documents",
    "borrowers",
    "income_records",
    "account_numbers",
    "source_references",
    "projects",
    "extraction_jobs",
];

/// Columns of words that sort rows and tell nothing about anybody.
const WORDS: [&str; 12] = [
    "account_type",
    "extraction_type",
    "file_type",
    "period",
    "role",
    "source_type",
    "status",
    "summary_length",
    "template_type",
    "timezone",
    "update_frequency",
    "content_hash",
];

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn every_column_that_can_hold_a_secret_holds_one_and_none_is_shown(pool: PgPool) {
    let log = Log::start();
    let db = Database::from_pool(pool.clone());
    let shown = fill(&db).await;
    assert!(shown.contains("NewBorrower"), "{shown}");
    assert_clean(&shown);
    assert!(log.text().contains("insert into"));
    assert_clean(&log.text());

    let columns: Vec<(String, String)> = sqlx::query_as(
        "select table_name, column_name from information_schema.columns
          where table_schema = current_schema() and table_name <> '_chancery_migrations'
            and data_type in ('character varying', 'text', 'jsonb', 'json', 'bytea')
          order by 1, 2",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(columns.len() > 30, "{columns:?}");
    for (table, column) in columns {
        assert!(TABLES.contains(&&*table), "{table}");
        let without =
            format!("select count(*) from {table} where {column}::text not like '%c4n4ry%'");
        let without: i64 =
            sqlx::query_scalar(AssertSqlSafe(without)).fetch_one(&pool).await.unwrap();
        assert!(without == 0 || WORDS.contains(&&*column), "{table}.{column}");
    }
}

/// How each constraint is broken: what has to go before, and a statement, which may be given the text.
fn offences() -> Vec<(Constraint, String, String)> {
    use Constraint as C;
    let constraint = |name: &str| {
        *C::ALL.iter().find(|c| c.name() == name).unwrap_or_else(|| panic!("no constraint {name}"))
    };
    let mut offences = Vec::new();
    let mut add = |constraint: C, setup: &str, statement: String| {
        offences.push((constraint, setup.to_owned(), statement));
    };
    for table in TABLES {
        let again = format!("insert into {table} select * from {table} limit 1");
        let time = if table == "config" { "updated_at" } else { "created_at" };
        add(constraint(&format!("{table}_pkey")), "", again);
        add(
            constraint(&format!("{table}_times_check")),
            // It would set the time right.
            if table == "config" { "alter table config disable trigger user" } else { "" },
            format!("update {table} set {time} = 'infinity'"),
        );
    }
    for (table, column) in [
        ("user_preferences", "user_id"),
        ("sessions", "user_id"),
        ("conversations", "user_id"),
        ("messages", "conversation_id"),
        ("transcripts", "user_id"),
        ("chunks", "transcript_id"),
        ("templates", "user_id"),
        ("documents", "user_id"),
        ("borrowers", "user_id"),
        ("income_records", "borrower_id"),
        ("account_numbers", "borrower_id"),
        ("source_references", "borrower_id"),
        ("source_references", "document_id"),
        ("projects", "user_id"),
        ("extraction_jobs", "project_id"),
    ] {
        let nobody = format!("update {table} set {column} = gen_random_uuid()");
        add(constraint(&format!("{table}_{column}_fkey")), "", nobody);
    }
    for (constraint, setup, statement) in [
        (C::UsersEmailKey, "", "update users set email = (select max(email) from users)"),
        (C::UsersEmailCheck, "", "update users set email = $1"),
        (C::UsersDateOfBirthCheck, "", "update users set date_of_birth = 'infinity'"),
        (
            C::UserPreferencesUserIdKey,
            "",
            "update user_preferences set user_id = (select user_id from user_preferences limit 1)",
        ),
        (
            C::UserPreferencesUpdateFrequencyCheck,
            "",
            "update user_preferences set update_frequency = $1",
        ),
        (
            C::UserPreferencesSummaryLengthCheck,
            "",
            "update user_preferences set summary_length = $1",
        ),
        (C::SessionsTokenHashKey, "", "update sessions set token_hash = $1"),
        (
            C::SessionsAbsoluteExpiresAtCheck,
            "",
            "update sessions set absolute_expires_at = 'infinity'",
        ),
        (C::SessionsIdleTimeoutCheck, "", "update sessions set idle_timeout = '0'"),
        (
            C::ConversationsIdUserIdKey,
            "alter table conversations drop constraint conversations_pkey",
            "insert into conversations select * from conversations limit 1",
        ),
        (C::MessagesRoleCheck, "", "update messages set role = $1"),
        (C::MessagesMetadataCheck, "", "update messages set metadata = '1e400'"),
        (C::TranscriptsMetadataCheck, "", "update transcripts set metadata = '1e400'"),
        (C::ChunksMetadataCheck, "", "update chunks set metadata = '1e400'"),
        (C::TemplatesVariablesCheck, "", "update templates set variables = '1e400'"),
        (C::ConfigValueCheck, "", "update config set value = '1e400'"),
        (C::BorrowersAddressCheck, "", "update borrowers set address = '1e400'"),
        (C::ExtractionJobsResultDataCheck, "", "update extraction_jobs set result_data = '1e400'"),
        (
            C::TranscriptsIdUserIdKey,
            "alter table transcripts drop constraint transcripts_pkey",
            "insert into transcripts select * from transcripts limit 1",
        ),
        (
            C::TranscriptsUserIdYoutubeVideoIdKey,
            "",
            "update transcripts set youtube_video_id = $1, user_id = (select id from users limit 1)",
        ),
        (C::TranscriptsDurationCheck, "", "update transcripts set duration = -1"),
        (
            C::ChunksTranscriptIdChunkIndexKey,
            "",
            "update chunks set (transcript_id, user_id) = (select id, user_id from transcripts limit 1)",
        ),
        (C::ChunksChunkIndexCheck, "", "update chunks set chunk_index = -1"),
        (C::ChunksTokenCountCheck, "", "update chunks set token_count = -1"),
        (
            C::TemplatesUserIdTemplateTypeTemplateNameKey,
            "",
            "update templates set user_id = null, template_name = $1",
        ),
        (C::TemplatesTemplateTypeCheck, "", "update templates set template_type = $1"),
        (C::DocumentsFileHashUserIdKey, "", "update documents set user_id = null, file_hash = $1"),
        (C::DocumentsStatusCheck, "", "update documents set status = $1"),
        (C::DocumentsFileSizeBytesCheck, "", "update documents set file_size_bytes = -1"),
        (C::DocumentsPageCountCheck, "", "update documents set page_count = -1"),
        (C::DocumentsAttemptsCheck, "", "update documents set attempts = -1"),
        (C::DocumentsLeaseCheck, "", "update documents set lease_token = gen_random_uuid()"),
        (C::BorrowersConfidenceScoreCheck, "", "update borrowers set confidence_score = -1"),
        (C::IncomeRecordsAmountCheck, "", "update income_records set amount = 'NaN'"),
        (C::SourceReferencesPageNumberCheck, "", "update source_references set page_number = 0"),
        (
            C::SourceReferencesCharRangeCheck,
            "",
            "update source_references set char_start = 2, char_end = 1",
        ),
        (C::ExtractionJobsStatusCheck, "", "update extraction_jobs set status = $1"),
        (C::ExtractionJobsAttemptsCheck, "", "update extraction_jobs set attempts = -1"),
        (C::ExtractionJobsLeaseCheck, "", "update extraction_jobs set lease_expires_at = now()"),
    ] {
        add(constraint, setup, statement.to_owned());
    }
    offences
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn whatever_constraint_is_broken_no_value_is_shown(pool: PgPool) {
    let db = Database::from_pool(pool);
    fill(&db).await;
    let log = Log::start();
    let offences = offences();
    let mut quoting = 0;
    for (constraint, setup, statement) in &offences {
        let mut uow = db.begin().await.unwrap();
        let setup = sqlx::raw_sql(AssertSqlSafe(setup.clone()));
        uow.executor().execute(setup).await.unwrap();
        let mut query = sqlx::query(AssertSqlSafe(statement.clone()));
        if statement.contains("$1") {
            query = query.bind(CANARY);
        }
        let refused = query.execute(uow.executor()).await.expect_err(statement);
        quoting += usize::from(format!("{refused:?}").contains(CANARY));
        let error = failed(Err::<(), _>(Error::from(refused)));
        assert_eq!(error.constraint(), Some(*constraint), "{statement}: {error:?}");
        let aborted = failed(uow.commit().await);
        assert!(matches!(aborted, Error::TransactionAborted), "{aborted:?}");
    }
    for constraint in Constraint::ALL {
        assert!(offences.iter().any(|(c, ..)| c == constraint), "nothing breaks {constraint}");
    }
    // The checks show the failing row, keys of text the value: what is hidden was there to be hidden.
    assert!(quoting > 30, "{quoting}");
    assert!(log.text().contains("update users set"));
    assert_clean(&log.text());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn whatever_can_not_be_read_is_not_shown(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    fill(&db).await;
    let one = async |statement: &'static str| -> uuid::Uuid {
        sqlx::query_scalar(statement).fetch_one(&pool).await.unwrap()
    };
    let user = one("select user_id from user_preferences").await.into();
    let job = one("select id from extraction_jobs").await.into();
    let document = one("select id from documents").await.into();
    let borrower = one("select id from borrowers").await.into();
    let log = Log::start();
    let deep = format!("{}\"{CANARY}\"{}", "[".repeat(200), "]".repeat(200));
    for (column, value) in [
        ("user_preferences.update_frequency", CANARY),
        ("user_preferences.summary_length", CANARY),
        ("extraction_jobs.status", CANARY),
        ("extraction_jobs.result_data", &*deep),
        ("documents.status", CANARY),
        ("borrowers.address", &*deep),
        ("income_records.amount", "NaN"),
    ] {
        let (table, name) = column.split_once('.').unwrap();
        let mut uow = db.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!(
            "alter table {table} disable trigger user;
             alter table {table} drop constraint if exists {table}_{name}_check"
        )))
        .execute(uow.executor())
        .await
        .unwrap();
        let cast = match name {
            "result_data" | "address" => "::jsonb",
            "amount" => "::numeric",
            _ => "",
        };
        sqlx::query(AssertSqlSafe(format!("update {table} set {name} = $1::text{cast}")))
            .bind(value)
            .execute(uow.executor())
            .await
            .unwrap();
        let errors = match table {
            "user_preferences" => vec![failed(uow.user_preferences().get_by_user(user).await)],
            "extraction_jobs" => vec![failed(uow.extraction_jobs().get_by_id(job).await)],
            "documents" => vec![failed(uow.documents().get_by_id(document).await)],
            "borrowers" => vec![
                failed(uow.borrowers().get_by_id(borrower).await),
                failed(uow.borrowers().get_with_records(borrower).await),
            ],
            _ => vec![
                failed(uow.income_records().list_by_borrower(borrower, 10, 0).await),
                failed(uow.borrowers().get_with_records(borrower).await),
            ],
        };
        for error in errors {
            assert!(
                matches!(error, Error::Decode(_) | Error::Unreadable { .. }),
                "{column}: {error:?}"
            );
        }
        uow.rollback().await.unwrap();
    }
    assert_clean(&log.text());
}

/// Says at compile time whether a type implements a trait: the inherent constant is there only then,
/// and comes before the trait's.
macro_rules! implements {
    ($type:ty: $trait:path) => {{
        #[allow(dead_code)]
        struct Probe<T: ?Sized>(std::marker::PhantomData<T>);
        #[allow(dead_code)]
        trait Otherwise {
            const YES: bool = false;
        }
        impl<T: ?Sized> Otherwise for Probe<T> {}
        #[allow(dead_code)]
        impl<T: ?Sized + $trait> Probe<T> {
            const YES: bool = true;
        }
        <Probe<$type>>::YES
    }};
}

#[test]
fn secrets_print_no_way_but_by_name() {
    assert!(implements!(String: std::fmt::Display) && implements!(String: serde::Serialize));
    macro_rules! check {
        ($($secret:ident = $value:expr),+ $(,)?) => {$(
            assert!(!implements!(chancery::$secret: std::fmt::Display), stringify!($secret));
            assert!(!implements!(chancery::$secret: serde::Serialize), stringify!($secret));
            let secret: chancery::$secret = $value;
            assert_eq!(format!("{secret:?} {secret:#?}"), concat!(stringify!($secret), "(…) ", stringify!($secret), "(…)"));
            assert!(!secret.expose().is_empty());
        )+};
    }
    check!(
        PasswordHash = chancery::PasswordHash::legacy(CANARY).unwrap(),
        TokenHash = chancery::TokenHash::new(CANARY).unwrap(),
        SessionToken = chancery::SessionToken::generate().unwrap(),
        AccountNumber = AccountNumber::new(CANARY).unwrap(),
        SsnHash = SsnHash::new(CANARY.repeat(6)).unwrap(),
    );
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn models_that_hold_a_secret_leave_it_out_when_they_are_serialised(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (user, ..) = private_rows(&db).await;
    let sessions = db.sessions().list_by_user(user.id, 1, 0).await.unwrap();
    let hash = SsnHash::new(CANARY.repeat(6)).unwrap();
    let account = NewAccount::new(AccountNumber::new(CANARY).unwrap(), "checking");
    let mut new = NewBorrower::new("Ada").account(account);
    new.ssn_hash = Some(hash);
    let borrower = db.borrowers().create(new).await.unwrap();
    let value = serde_json::to_value((&user, &sessions, &borrower)).unwrap();
    assert!(!value[0].as_object().unwrap().contains_key("password_hash"), "{value}");
    assert_clean(&serde_json::to_string(&(&sessions, &borrower)).unwrap());
}
