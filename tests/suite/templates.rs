//! Templates: a user's own, and the system's to fall back to.

use chancery::{
    Constraint, Database, Error, NewTemplate, Patch, TemplateId, TemplatePatch, TemplateType,
    UserId,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{BAD_WINDOWS, invalid_field, new_template, user};

const OWN_KEY: Constraint = Constraint::TemplatesUserIdTemplateTypeTemplateNameKey;

fn named(owner: impl Into<Option<UserId>>, kind: TemplateType, name: &str) -> NewTemplate {
    NewTemplate::new(owner.into(), kind, name, "Hello {name}")
}

async fn make(db: &Database, new: NewTemplate) -> TemplateId {
    db.templates().create_template(new).await.unwrap().id
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_new_template_can_be_read_back(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    for kind in TemplateType::ALL {
        let new = NewTemplate::new(Some(owner), *kind, "Grüße", "Hello {name} 👋")
            .variables(json!(["name", {"k": [null, 1.5]}]))
            .default_for_type();
        let created = db.templates().create_template(new).await.unwrap();
        assert_eq!((created.user_id, created.template_type), (Some(owner), *kind));
        assert_eq!(created.template_name, "Grüße");
        assert_eq!(created.template_content, "Hello {name} 👋");
        assert_eq!(created.variables, json!(["name", {"k": [null, 1.5]}]));
        assert!(created.is_default);
        assert_eq!(created.created_at, created.updated_at);
        assert_eq!(db.templates().get_by_id(created.id).await.unwrap(), Some(created));
    }
    let bare = db.templates().create_template(new_template(None)).await.unwrap();
    assert_eq!((bare.user_id, bare.is_default, bare.variables), (None, false, json!([])));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_template_that_is_not_there_is_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    let missing = TemplateId::new();
    assert_eq!(db.templates().get_by_id(missing).await.unwrap(), None);
    assert_eq!(db.templates().list_by_user(UserId::new(), 10, 0).await.unwrap(), []);
    assert!(!db.templates().delete(missing).await.unwrap());
    let updated = db.templates().update(missing, TemplatePatch::default()).await;
    assert!(matches!(updated, Err(Error::NotFound("template"))), "{updated:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_name_is_unique_for_its_owner_and_type_the_system_included(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await.id, user(&db).await.id);
    for owner in [Some(ada), Some(bob), None] {
        for kind in [TemplateType::Blog, TemplateType::Email] {
            make(&db, named(owner, kind, "Weekly")).await;
        }
        let again =
            db.templates().create_template(named(owner, TemplateType::Blog, "Weekly")).await;
        assert!(matches!(again, Err(Error::Conflict(c)) if c == OWN_KEY), "{again:?}");
    }
    // Also when an update makes it so.
    let other = make(&db, named(None, TemplateType::Blog, "Monthly")).await;
    let rename = TemplatePatch { template_name: "Weekly".to_owned().into(), ..Default::default() };
    let renamed = db.templates().update(other, rename).await;
    assert!(matches!(renamed, Err(Error::Conflict(c)) if c == OWN_KEY), "{renamed:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_template_needs_its_user_and_goes_with_it(pool: PgPool) {
    let db = Database::from_pool(pool);
    let orphan = db.templates().create_template(new_template(Some(UserId::new()))).await;
    let key = Constraint::TemplatesUserIdFkey;
    assert!(matches!(orphan, Err(Error::ForeignKey(c)) if c == key), "{orphan:?}");

    let owner = user(&db).await.id;
    let own = make(&db, new_template(Some(owner))).await;
    let system = make(&db, new_template(None)).await;
    db.users().delete(owner).await.unwrap();
    assert_eq!(db.templates().get_by_id(own).await.unwrap(), None);
    assert!(db.templates().get_by_id(system).await.unwrap().is_some());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_template_to_use_is_ones_own_default_then_the_own_one_changed_last_then_the_systems(
    pool: PgPool,
) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await.id, user(&db).await.id);
    let chosen =
        async || db.templates().get_template(ada, TemplateType::Blog).await.unwrap().map(|t| t.id);
    let blog = |owner: Option<UserId>| new_template(owner);

    // Nothing of hers and no default of the system's: not another user's, not another type's, not
    // a template of the system's that is no default.
    make(&db, blog(Some(bob)).default_for_type()).await;
    make(&db, named(ada, TemplateType::Email, "E-mail").default_for_type()).await;
    make(&db, named(None, TemplateType::Email, "E-mail").default_for_type()).await;
    make(&db, blog(None)).await;
    assert_eq!(chosen().await, None);

    // The system's default, the newest of several.
    make(&db, blog(None).default_for_type()).await;
    let system = make(&db, blog(None).default_for_type()).await;
    assert_eq!(chosen().await, Some(system));

    // Her own, though it is no default.
    let first = make(&db, blog(Some(ada))).await;
    assert_eq!(chosen().await, Some(first));
    let second = make(&db, blog(Some(ada))).await;
    assert_eq!(chosen().await, Some(second));
    let content = "changed".to_owned().into();
    let patch = TemplatePatch { template_content: content, ..Default::default() };
    db.templates().update(first, patch).await.unwrap();
    assert_eq!(chosen().await, Some(first));

    // Her own default, though others are newer.
    let default = make(&db, blog(Some(ada)).default_for_type()).await;
    make(&db, blog(Some(ada))).await;
    assert_eq!(chosen().await, Some(default));

    // Step by step back, to the system's.
    for own in db.templates().list_by_user(ada, 100, 0).await.unwrap() {
        db.templates().delete(own.id).await.unwrap();
    }
    assert_eq!(chosen().await, Some(system));
    // Somebody who does not exist gets the system's as well.
    let nobodys = db.templates().get_template(UserId::new(), TemplateType::Blog).await.unwrap();
    assert_eq!(nobodys.map(|t| t.id), Some(system));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_template_to_use_comes_whole(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    for of in [None, Some(owner)] {
        let new = new_template(of).variables(json!(["name"])).default_for_type();
        let made = db.templates().create_template(new).await.unwrap();
        let chosen = db.templates().get_template(owner, TemplateType::Blog).await.unwrap();
        assert_eq!(chosen, Some(made));
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn of_templates_changed_in_one_transaction_the_last_made_is_used(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let mut uow = db.begin().await.unwrap();
    let mut last = None;
    for _ in 0..5 {
        let new = new_template(Some(owner));
        last = Some(uow.templates().create_template(new).await.unwrap().id);
    }
    uow.commit().await.unwrap();
    let chosen = db.templates().get_template(owner, TemplateType::Blog).await.unwrap();
    assert_eq!(chosen.map(|t| t.id), last);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_users_list_is_by_type_and_name_and_takes_any_limit_and_offset_in_range(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    use TemplateType::{Blog, Email, LinkedIn, Twitter};
    let expected = [(Blog, "a"), (Blog, "b"), (Email, "a"), (LinkedIn, "z"), (Twitter, "a")];
    for i in [3, 1, 4, 0, 2] {
        let (kind, name) = expected[i];
        make(&db, named(owner, kind, name)).await;
    }
    make(&db, new_template(None)).await;
    make(&db, new_template(Some(user(&db).await.id))).await;
    let list = async |limit, offset| {
        let list = db.templates().list_by_user(owner, limit, offset).await.unwrap();
        list.into_iter().map(|t| (t.template_type, t.template_name)).collect::<Vec<_>>()
    };
    let expected = expected.map(|(kind, name)| (kind, name.to_owned()));
    assert_eq!(list(1000, 0).await, expected);
    assert_eq!(list(0, 0).await, []);
    assert_eq!(list(1, 0).await, expected[..1]);
    assert_eq!(list(2, 4).await, expected[4..]);
    assert_eq!(list(10, 5).await, []);
    assert_eq!(list(10, i64::MAX).await, []);
    let walked = [list(2, 0).await, list(2, 2).await, list(2, 4).await].concat();
    assert_eq!(walked, expected);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn all_defaults_of_a_type_are_listed_the_systems_first(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let own = make(&db, new_template(Some(owner)).default_for_type()).await;
    let system = make(&db, new_template(None).default_for_type()).await;
    let second = make(&db, new_template(None).default_for_type()).await;
    make(&db, new_template(None)).await;
    make(&db, named(None, TemplateType::Email, "E-mail").default_for_type()).await;
    let list = async |limit| {
        let list = db.templates().list_defaults(TemplateType::Blog, limit).await.unwrap();
        list.iter().map(|t| t.id).collect::<Vec<_>>()
    };
    assert_eq!(list(1000).await, [system, second, own]);
    assert_eq!(list(1).await, [system]);
    assert_eq!(list(0).await, []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_patch_leaves_what_it_does_not_name(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let new = new_template(Some(owner)).variables(json!(["name"])).default_for_type();
    let before = db.templates().create_template(new).await.unwrap();
    let update = |patch| db.templates().update(before.id, patch);

    let kept = update(TemplatePatch::default()).await.unwrap();
    assert_eq!(
        (kept.template_name, kept.variables),
        (before.template_name.clone(), json!(["name"]))
    );
    assert!(kept.is_default);

    let patch = TemplatePatch {
        template_name: Patch::Set("New name".into()),
        is_default: Patch::Set(false),
        ..TemplatePatch::default()
    };
    let after = update(patch).await.unwrap();
    assert_eq!((after.template_name.as_str(), after.is_default), ("New name", false));
    assert_eq!(after.template_content, before.template_content);
    assert_eq!((after.user_id, after.template_type), (before.user_id, before.template_type));
    assert_eq!(after.created_at, before.created_at);
    assert!(after.updated_at > before.updated_at);

    let patch = TemplatePatch {
        template_content: Patch::Set(String::new()),
        variables: Patch::Set(json!([])),
        ..TemplatePatch::default()
    };
    let after = update(patch).await.unwrap();
    assert_eq!((after.template_content.as_str(), &after.variables), ("", &json!([])));
    assert_eq!(after.template_name, "New name");
    assert_eq!(db.templates().get_by_id(before.id).await.unwrap(), Some(after));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_template_is_deleted_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (gone, kept) = (make(&db, new_template(None)).await, make(&db, new_template(None)).await);
    assert!(db.templates().delete(gone).await.unwrap());
    assert!(!db.templates().delete(gone).await.unwrap());
    assert_eq!(db.templates().get_by_id(gone).await.unwrap(), None);
    assert!(db.templates().get_by_id(kept).await.unwrap().is_some());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn bad_input_is_refused_by_name_and_the_transaction_goes_on(pool: PgPool) {
    let db = Database::from_pool(pool);
    let owner = user(&db).await.id;
    let content = |text: &str| NewTemplate::new(None, TemplateType::Blog, "name", text);
    let too_deep = (0..64).fold(json!(1), |inner, _| json!([inner]));
    let mut uow = db.begin().await.unwrap();
    for (field, new) in [
        ("template_name", named(None, TemplateType::Blog, "")),
        ("template_name", named(None, TemplateType::Blog, &"x".repeat(256))),
        ("template_name", named(None, TemplateType::Blog, "\0")),
        ("template_content", content("\0")),
        ("variables", content("x").variables(json!({"name": 1}))),
        ("variables", content("x").variables(Value::Null)),
        ("variables", content("x").variables(json!(["\0"]))),
        ("variables", content("x").variables(json!([too_deep]))),
    ] {
        assert_eq!(invalid_field(uow.templates().create_template(new).await), field);
    }
    let longest = named(owner, TemplateType::Blog, &"ä".repeat(255));
    let kept = uow.templates().create_template(longest).await.unwrap();
    let default = TemplatePatch::default;
    for (field, patch) in [
        ("template_name", TemplatePatch { template_name: String::new().into(), ..default() }),
        (
            "template_content",
            TemplatePatch { template_content: "\0".to_owned().into(), ..default() },
        ),
        ("variables", TemplatePatch { variables: json!("name").into(), ..default() }),
    ] {
        assert_eq!(invalid_field(uow.templates().update(kept.id, patch).await), field);
    }
    for (limit, offset, field) in BAD_WINDOWS {
        assert_eq!(invalid_field(uow.templates().list_by_user(owner, limit, offset).await), field);
    }
    for limit in [-1, 1001] {
        let list = uow.templates().list_defaults(TemplateType::Blog, limit).await;
        assert_eq!(invalid_field(list), "limit");
    }
    uow.commit().await.unwrap();
    assert_eq!(db.templates().get_by_id(kept.id).await.unwrap(), Some(kept));
}
