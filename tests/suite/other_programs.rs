//! Rows of other programs, each of which knows only the columns that its own specification names.

use chancery::{
    Constraint, ConversationId, Database, Error, NewUser, PageRequest, Patch, Role, TemplateType,
    TokenHash, UserId, UserPatch,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use crate::support::{conversation, transcript, user};

/// Runs an insert that returns the new row's id.
macro_rules! insert {
    ($db:expr, $sql:literal $(, $value:expr)*) => {
        sqlx::query_scalar::<_, Uuid>($sql)
            $(.bind($value))*
            .fetch_one($db.executor())
            .await
            .unwrap()
    };
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_account_needs_no_more_than_an_address(pool: PgPool) {
    let db = Database::from_pool(pool);
    // With a hash in no known form, and by a program that has no passwords.
    let with = insert!(
        db,
        "insert into users (email, password_hash) values ('a@example.org', 'plain:x') returning id"
    );
    let without = insert!(
        db,
        "insert into users (email, name, profile_picture, profession, date_of_birth, timezone,
                            is_active)
         values ('b@example.org', 'Bob', 'https://example.org/b.png', 'analyst', '1990-02-28',
                 'Europe/Paris', false)
         returning id"
    );
    let with = db.users().get_by_id(with.into()).await.unwrap().unwrap();
    assert_eq!(with.password_hash.as_ref().map(|hash| hash.expose()), Some("plain:x"));
    assert_eq!((with.timezone.as_str(), with.is_active, &with.name), ("UTC", true, &None));
    assert_eq!(db.users().get_by_email("a@example.org").await.unwrap(), Some(with));
    let without = db.users().get_by_id(without.into()).await.unwrap().unwrap();
    assert_eq!(without.password_hash, None);
    assert_eq!(without.date_of_birth.unwrap().to_string(), "1990-02-28");
    assert_eq!((without.timezone.as_str(), without.is_active), ("Europe/Paris", false));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn sessions_conversations_and_messages_are_readable_and_messages_get_their_owner(
    pool: PgPool,
) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let session = insert!(
        db,
        "insert into sessions (user_id, token_hash, expires_at)
         values ($1, 'hash', now() + interval '1 hour') returning id",
        owner.as_uuid()
    );
    let token = TokenHash::new("hash").unwrap();
    let found = db.sessions().get_by_token(&token).await.unwrap().unwrap();
    assert_eq!((found.id, found.user_id), (session.into(), owner));

    let conversation: ConversationId = insert!(
        db,
        "insert into conversations (user_id, title) values ($1, null) returning id",
        owner.as_uuid()
    )
    .into();
    let before = db.conversations().get_by_id(conversation).await.unwrap().unwrap();
    for role in Role::ALL {
        insert!(
            db,
            "insert into messages (conversation_id, role, content, metadata)
             values ($1, $2, 'text', $3) returning id",
            conversation.as_uuid(),
            role.as_str(),
            json!({"chunks": [1]})
        );
    }
    insert!(
        db,
        "insert into messages (conversation_id, role, content) values ($1, 'user', 'bare')
         returning id",
        conversation.as_uuid()
    );
    let messages = db.messages().list_by_conversation(conversation, 10, 0).await.unwrap();
    let roles: Vec<Role> = messages.iter().map(|m| m.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::System, Role::User]);
    assert!(messages.iter().all(|m| m.user_id == owner));
    assert_eq!(
        (&messages[0].metadata, &messages[3].metadata),
        (&json!({"chunks": [1]}), &json!({}))
    );
    let after = db.conversations().get_by_id(conversation).await.unwrap().unwrap();
    assert!(after.updated_at > before.updated_at);
    assert_eq!(after.updated_at, messages[3].created_at);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn transcripts_and_chunks_are_readable_with_or_without_the_chunks_owner(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let loaded = insert!(
        db,
        "insert into transcripts (user_id, youtube_video_id, transcript_text)
         values ($1, 'video', 'text') returning id",
        owner.as_uuid()
    );
    for index in 0..2 {
        insert!(
            db,
            "insert into chunks (transcript_id, user_id, chunk_text, chunk_index, token_count)
             values ($1, $2, 'text', $3, 1) returning id",
            loaded,
            (index == 0).then_some(owner.as_uuid()),
            index
        );
    }
    insert!(
        db,
        "insert into chunks (transcript_id, chunk_text, chunk_index, token_count, metadata)
         values ($1, 'text', 2, 1, '[]') returning id",
        loaded
    );
    let found = db.transcripts().get_by_video_id(owner, "video").await.unwrap().unwrap();
    assert_eq!((found.id, &found.title, &found.metadata), (loaded.into(), &None, &json!({})));
    let chunks = db.chunks().list_by_transcript(found.id, 10, 0).await.unwrap();
    assert_eq!(chunks.iter().map(|c| c.chunk_index).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(chunks.iter().all(|c| c.user_id == owner));
    assert_eq!((&chunks[0].metadata, &chunks[2].metadata), (&json!({}), &json!([])));
    // Identifiers that the database makes are not ordered by time; pages are nevertheless.
    let page = db.transcripts().page_by_user(owner, PageRequest::first(10)).await.unwrap();
    assert_eq!((page.items[0].id, page.items[0].chunk_count), (found.id, 3));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn templates_and_settings_are_readable(pool: PgPool) {
    let db = Database::from_pool(pool);
    let own = insert!(
        db,
        "insert into templates (user_id, template_type, template_name, template_content)
         values (null, 'linkedin', 'Post', 'Hello {name}') returning id"
    );
    let found = db.templates().get_by_id(own.into()).await.unwrap().unwrap();
    assert_eq!((found.user_id, found.template_type), (None, TemplateType::LinkedIn));
    assert_eq!((found.variables, found.is_default), (json!([]), false));

    for (key, value) in [("object", json!({"a": 1})), ("null", Value::Null)] {
        sqlx::query("insert into config (key, value) values ($1, $2)")
            .bind(key)
            .bind(&value)
            .execute(db.executor())
            .await
            .unwrap();
        let found = db.config().get(key).await.unwrap().unwrap();
        assert_eq!((found.value, found.description), (value, None));
    }
    let before = db.config().get("object").await.unwrap().unwrap();
    sqlx::query("update config set value = '2' where key = 'object'")
        .execute(db.executor())
        .await
        .unwrap();
    let after = db.config().get("object").await.unwrap().unwrap();
    assert!(after.updated_at > before.updated_at);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn documents_borrowers_projects_and_preferences_need_no_owner_and_no_later_columns(
    pool: PgPool,
) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    insert!(db, "insert into user_preferences (user_id) values ($1) returning id", owner.as_uuid());
    let document = insert!(
        db,
        "insert into documents (filename, file_hash, file_type, file_size_bytes)
         values ('loan.pdf', repeat('a', 64), 'pdf', 1024) returning id"
    );
    let borrower = insert!(
        db,
        "insert into borrowers (name, ssn_hash, address, confidence_score)
         values ('A. Borrower', null, null, 0.95) returning id"
    );
    insert!(
        db,
        "insert into income_records (borrower_id, amount, period, year, source_type, employer)
         values ($1, 1234.56, 'monthly', 2024, 'W2', null) returning id",
        borrower
    );
    insert!(
        db,
        "insert into account_numbers (borrower_id, number, account_type)
         values ($1, '0001', 'checking') returning id",
        borrower
    );
    insert!(
        db,
        "insert into source_references (borrower_id, document_id, page_number, snippet)
         values ($1, $2, 1, 'text') returning id",
        borrower,
        document
    );
    let project =
        insert!(db, "insert into projects (name, description) values ('p', null) returning id");
    insert!(
        db,
        "insert into extraction_jobs (project_id, source_url, extraction_type)
         values ($1, 'https://example.org', 'color') returning id",
        project
    );
    let defaults: Value = sqlx::query_scalar(
        "select jsonb_build_array(p.update_frequency, p.summary_length,
                                  p.email_notifications_enabled, d.status, d.user_id, b.user_id,
                                  j.status, j.result_data)
           from user_preferences p, documents d, borrowers b, extraction_jobs j",
    )
    .fetch_one(db.executor())
    .await
    .unwrap();
    let expected = json!(["weekly", "standard", true, "pending", null, null, "pending", null]);
    assert_eq!(defaults, expected);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_owner_that_is_left_out_is_filled_in_and_a_wrong_one_is_refused(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (conversation, transcript) = (conversation(&db).await, transcript(&db).await);
    let stranger = user(&db).await.id;
    let message = async |conversation_id: Uuid, owner: Option<UserId>| {
        let done = sqlx::query(
            "insert into messages (conversation_id, user_id, role, content)
             values ($1, $2, 'user', 'text')",
        )
        .bind(conversation_id)
        .bind(owner.map(|id| id.as_uuid()))
        .execute(db.executor())
        .await;
        done.map(|_| ()).map_err(Error::from)
    };
    let chunk = async |transcript_id: Uuid, owner: Option<UserId>| {
        let done = sqlx::query(
            "insert into chunks (transcript_id, user_id, chunk_text, chunk_index, token_count)
             values ($1, $2, 'text', 0, 1)",
        )
        .bind(transcript_id)
        .bind(owner.map(|id| id.as_uuid()))
        .execute(db.executor())
        .await;
        done.map(|_| ()).map_err(Error::from)
    };
    let (message_key, chunk_key) =
        (Constraint::MessagesConversationIdFkey, Constraint::ChunksTranscriptIdFkey);
    for owner in [None, Some(stranger)] {
        // A parent that is missing is told in the same words, whoever finds out.
        let orphan = message(Uuid::now_v7(), owner).await;
        assert!(matches!(orphan, Err(Error::ForeignKey(c)) if c == message_key), "{orphan:?}");
        let orphan = chunk(Uuid::now_v7(), owner).await;
        assert!(matches!(orphan, Err(Error::ForeignKey(c)) if c == chunk_key), "{orphan:?}");
    }
    let wrong = message(conversation.id.as_uuid(), Some(stranger)).await;
    assert!(matches!(wrong, Err(Error::ForeignKey(c)) if c == message_key), "{wrong:?}");
    let wrong = chunk(transcript.id.as_uuid(), Some(stranger)).await;
    assert!(matches!(wrong, Err(Error::ForeignKey(c)) if c == chunk_key), "{wrong:?}");
    message(conversation.id.as_uuid(), None).await.unwrap();
    chunk(transcript.id.as_uuid(), None).await.unwrap();
    assert_eq!(db.chunks().count_by_user(transcript.user_id).await.unwrap(), 1);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_address_is_looked_up_and_stored_once_as_other_programs_do_it(pool: PgPool) {
    let db = Database::from_pool(pool);
    sqlx::query(
        "insert into users (email) select 'User' || n || '@example.org' from generate_series(1, 5000) n",
    )
    .execute(db.executor())
    .await
    .unwrap();
    sqlx::query("analyze users").execute(db.executor()).await.unwrap();
    for (statement, index) in [
        ("select id from users where email = 'User7@example.org'", "users_email_exact_key"),
        ("select id from users where email in ('a@b.c', 'd@e.f')", "users_email_exact_key"),
        ("select id from users where lower(email) = lower('USER7@example.org')", "users_email_key"),
    ] {
        let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("explain {statement}")))
            .fetch_all(db.executor())
            .await
            .unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{statement}: {plan}");
    }

    let upsert = async |email: &str| {
        let stored = sqlx::query_scalar::<_, String>(
            "insert into users (email, name) values ($1, 'Upserted')
             on conflict (email) do update set name = excluded.name returning email",
        )
        .bind(email)
        .fetch_one(db.executor())
        .await;
        stored.map_err(Error::from)
    };
    assert_eq!(upsert("User7@example.org").await.unwrap(), "User7@example.org");
    assert_eq!(upsert("new@example.org").await.unwrap(), "new@example.org");
    let other_case = upsert("NEW@example.org").await;
    assert!(
        matches!(other_case, Err(Error::Conflict(Constraint::UsersEmailKey))),
        "{other_case:?}"
    );

    // Whichever of the two keys refuses a second account, it is told as one.
    for older in ["users_email_key", "users_email_exact_key"] {
        sqlx::query(AssertSqlSafe(format!("reindex index concurrently {older}")))
            .execute(db.executor())
            .await
            .unwrap();
        let twice = db.users().create(NewUser::new("new@example.org")).await;
        assert!(matches!(twice, Err(Error::Conflict(Constraint::UsersEmailKey))), "{twice:?}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_time_zone_that_the_server_does_not_know_is_refused_from_every_writer(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let set = async |zone: &str| {
        sqlx::query("update users set timezone = $1 where id = $2")
            .bind(zone)
            .bind(ada.id)
            .execute(db.executor())
            .await
    };
    for zone in [
        "Not/AZone",
        "",
        " UTC",
        "PST",
        "FOO3",
        "Not/AZone5",
        "<+03>-3",
        "2",
        "europe/paris",
        "posix/Europe/Paris",
        "Etc/GMT+13",
    ] {
        let refused = [
            set(zone).await,
            sqlx::query("insert into users (email, timezone) values ('b@example.org', $1)")
                .bind(zone)
                .execute(db.executor())
                .await,
        ];
        for refused in refused {
            let error = refused.expect_err(zone);
            let error = error.as_database_error().unwrap();
            assert_eq!(error.code().as_deref(), Some("22023"), "{zone}: {error}");
            let error = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().unwrap();
            assert_eq!((error.table(), error.column()), (Some("users"), Some("timezone")));
        }
    }
    for zone in ["Europe/Paris", "Etc/GMT+12", "EST5EDT", "UTC"] {
        set(zone).await.expect(zone);
    }

    // What was stored before stays, and its account can be used and changed.
    sqlx::raw_sql(
        "alter table users disable trigger user;
         update users set timezone = 'PST';
         alter table users enable trigger user;",
    )
    .execute(db.executor())
    .await
    .unwrap();
    assert!(db.users().touch_last_login(ada.id).await.unwrap().is_some());
    let name = UserPatch { name: Patch::Set(Some("Ada".into())), ..UserPatch::default() };
    assert_eq!(db.users().update(ada.id, name).await.unwrap().timezone, "PST");
}
