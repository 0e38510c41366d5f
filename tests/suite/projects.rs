//! Projects.

use chancery::{
    Constraint, Database, Error, NewProject, PageRequest, Patch, ProjectId, ProjectPatch, UserId,
};
use sqlx::PgPool;

use crate::support::{new_job, project, user};

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_project_with_and_one_without_an_owner_can_be_read_back(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let new = NewProject::new("Spring").owner(ada.id).description("Colours");
    let hers = db.projects().create(new).await.unwrap();
    assert_eq!((hers.user_id, hers.name.as_str()), (Some(ada.id), "Spring"));
    assert_eq!(hers.description.as_deref(), Some("Colours"));
    assert_eq!(hers.created_at, hers.updated_at);
    let nobodys = project(&db).await;
    assert_eq!((nobodys.user_id, &nobodys.description), (None, &None));
    for project in [hers, nobodys] {
        assert_eq!(db.projects().get_by_id(project.id).await.unwrap(), Some(project));
    }
    assert_eq!(db.projects().get_by_id(ProjectId::new()).await.unwrap(), None);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn lists_run_from_new_to_old_and_an_owner_sees_only_their_own(pool: PgPool) {
    let db = Database::from_pool(pool);
    assert_eq!(db.projects().count().await.unwrap(), 0);
    let (ada, bob) = (user(&db).await, user(&db).await);
    let mut hers = Vec::new();
    // One transaction: all share created_at, and the id keeps the order.
    let mut uow = db.begin().await.unwrap();
    for i in 0..5 {
        let new = NewProject::new(format!("project {i}"));
        hers.insert(0, uow.projects().create(new.clone().owner(ada.id)).await.unwrap());
        uow.projects().create(new.owner(bob.id)).await.unwrap();
    }
    uow.commit().await.unwrap();
    let newest = project(&db).await;

    assert_eq!(db.projects().count().await.unwrap(), 11);
    let all = db.projects().list(100, 0).await.unwrap();
    assert_eq!((all.len(), &all[0]), (11, &newest));
    assert_eq!(db.projects().list(3, 2).await.unwrap(), all[2..5]);
    assert_eq!(db.projects().list_by_user(ada.id, 100, 0).await.unwrap(), hers);
    assert_eq!(db.projects().list_by_user(ada.id, 2, 1).await.unwrap(), hers[1..3]);
    assert_eq!(db.projects().list_by_user(UserId::new(), 100, 0).await.unwrap(), []);

    let mut paged = Vec::new();
    let mut request = PageRequest::first(2);
    loop {
        let page = db.projects().page_by_user(ada.id, request).await.unwrap();
        paged.extend(page.items);
        let Some(next) = page.next else { break };
        request = PageRequest::after(2, next);
    }
    assert_eq!(paged, hers);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_patch_changes_what_it_names(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let new = NewProject::new("Spring").owner(ada.id).description("Colours");
    let before = db.projects().create(new).await.unwrap();
    let patch = ProjectPatch { name: "Summer".to_owned().into(), ..Default::default() };
    let renamed = db.projects().update(before.id, patch).await.unwrap();
    assert_eq!((renamed.name.as_str(), renamed.user_id), ("Summer", Some(ada.id)));
    assert_eq!(renamed.description, before.description);
    assert!(renamed.updated_at > before.updated_at);

    let patch = ProjectPatch {
        user_id: Patch::Set(None),
        description: Patch::Set(None),
        ..Default::default()
    };
    let given_up = db.projects().update(before.id, patch).await.unwrap();
    assert_eq!((given_up.name.as_str(), given_up.user_id), ("Summer", None));
    assert_eq!(given_up.description, None);

    let missing = db.projects().update(ProjectId::new(), ProjectPatch::default()).await;
    assert!(matches!(missing, Err(Error::NotFound("project"))), "{missing:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_project_takes_its_jobs_with_it_and_goes_with_its_owner(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let hers = db.projects().create(NewProject::new("hers").owner(ada.id)).await.unwrap();
    let (other, kept) = (project(&db).await, project(&db).await);
    let mut jobs = Vec::new();
    for id in [hers.id, other.id, kept.id] {
        jobs.push(db.extraction_jobs().create(new_job(id)).await.unwrap().id);
    }
    assert!(db.projects().delete(other.id).await.unwrap());
    assert!(!db.projects().delete(other.id).await.unwrap());
    assert!(db.users().delete(ada.id).await.unwrap());
    assert_eq!(db.projects().list(10, 0).await.unwrap(), [kept]);
    for (id, there) in jobs.into_iter().zip([false, false, true]) {
        assert_eq!(db.extraction_jobs().get_by_id(id).await.unwrap().is_some(), there);
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_cannot_be_stored_is_refused(pool: PgPool) {
    let db = Database::from_pool(pool);
    let nobody = db.projects().create(NewProject::new("x").owner(UserId::new())).await;
    assert!(matches!(nobody, Err(Error::ForeignKey(Constraint::ProjectsUserIdFkey))), "{nobody:?}");
    let id = project(&db).await.id;
    for (field, name, description) in [
        ("name", String::new(), ""),
        ("name", "x".repeat(256), ""),
        ("description", "x".into(), "\0"),
    ] {
        let new = NewProject::new(name.clone()).description(description);
        let patch = ProjectPatch {
            name: name.into(),
            description: Some(description.to_owned()).into(),
            ..Default::default()
        };
        for result in [db.projects().create(new).await, db.projects().update(id, patch).await] {
            assert!(
                matches!(&result, Err(Error::InvalidInput(e)) if e.field == field),
                "{result:?}"
            );
        }
    }
    assert!(matches!(db.projects().list(1001, 0).await, Err(Error::InvalidInput(_))));
    assert!(matches!(db.projects().list(1, -1).await, Err(Error::InvalidInput(_))));
    let page = db.projects().page_by_user(UserId::new(), PageRequest::first(0)).await;
    assert!(matches!(page, Err(Error::InvalidInput(_))));
}
