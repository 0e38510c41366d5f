//! Every method of every repository, by a user who names what is somebody else's.

use std::collections::BTreeSet;

use chancery::{Conn, Error, Result, UserId};
use futures_util::future::BoxFuture;
use sqlx::{AssertSqlSafe, PgPool};

use super::{Tenants, World, intake, people, talk, work};
use crate::round_trips::source;
use crate::support::new_user;

/// One call of a method, with what belongs to the world's user. Says how much it found or did.
pub struct Case {
    pub name: &'static str,
    pub call: for<'a> fn(Conn<'a>, &'a World) -> BoxFuture<'a, Result<usize>>,
    pub rule: Rule,
    /// The same call on the repository's owner form, where it has one.
    pub owned: Option<OwnedCall>,
}

pub type OwnedCall = for<'a> fn(Conn<'a>, UserId, &'a World) -> BoxFuture<'a, Result<usize>>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The owner can; nobody else.
    Owner,
    /// Only the service can.
    Service,
    /// Every user can: it is nobody's.
    Everybody,
}

/// How much was found or done.
pub trait Found {
    fn found(&self) -> usize;
}

impl<T> Found for Option<T> {
    fn found(&self) -> usize {
        usize::from(self.is_some())
    }
}

impl<T> Found for Vec<T> {
    fn found(&self) -> usize {
        self.len()
    }
}

impl<T> Found for chancery::Page<T> {
    fn found(&self) -> usize {
        self.items.len()
    }
}

impl Found for bool {
    fn found(&self) -> usize {
        usize::from(*self)
    }
}

impl Found for i64 {
    fn found(&self) -> usize {
        usize::try_from(*self).unwrap()
    }
}

impl Found for u64 {
    fn found(&self) -> usize {
        usize::try_from(*self).unwrap()
    }
}

impl Found for chancery::JobCounts {
    fn found(&self) -> usize {
        (self.pending + self.processing + self.completed + self.failed).found()
    }
}

/// A row that a method returns or refuses.
macro_rules! one_row {
    ($($row:ty),+ $(,)?) => {
        $(impl Found for $row {
            fn found(&self) -> usize {
                1
            }
        })+
    };
}
one_row!(
    (),
    (chancery::User, chancery::UserPreferences),
    (chancery::SessionToken, chancery::Session),
    chancery::User,
    chancery::UserPreferences,
    chancery::Session,
    chancery::Conversation,
    chancery::ConversationWithMessages,
    chancery::Message,
    chancery::Transcript,
    chancery::TranscriptWithChunks,
    chancery::ReplacedChunks,
    chancery::Template,
    chancery::ConfigEntry,
    chancery::Document,
    chancery::StoredDocument,
    chancery::BorrowerWithRecords,
    chancery::Project,
    chancery::ExtractionJob,
);

/// A [`Case`]: `case!(cases, |w| ConversationRepository::get_by_id(w.conversation.id))`.
macro_rules! case {
    ($cases:ident, |$w:ident| $repository:ident::$method:ident($($argument:expr),* $(,)?)) => {
        case!($cases, Owner, |$w| $repository::$method($($argument),*))
    };
    ($cases:ident, $rule:ident, |$w:ident| $repository:ident::$method:ident($($argument:expr),* $(,)?)) => {
        $cases.push($crate::tenants::methods::Case {
            name: concat!(stringify!($repository), "::", stringify!($method)),
            call: |conn, $w| Box::pin(async move {
                let _ = $w;
                let found = chancery::$repository::new(conn).$method($($argument),*).await?;
                Ok($crate::tenants::methods::Found::found(&found))
            }),
            rule: $crate::tenants::methods::Rule::$rule,
            owned: None,
        })
    };
}
pub(super) use case;

/// A [`Case`] of a repository that has an owner form. A stream is read to its end:
/// `owned_case!(cases, |w| stream ChunkRepository::stream_by_transcript(w.transcript.id))`.
macro_rules! owned_case {
    ($cases:ident, |$w:ident| $repository:ident::$method:ident($($argument:expr),* $(,)?)) => {
        owned_case!($cases, $repository, $method, |$w, r| r.$method($($argument),*).await?)
    };
    ($cases:ident, |$w:ident| stream $repository:ident::$method:ident($($argument:expr),* $(,)?)) => {
        owned_case!($cases, $repository, $method, |$w, r| {
            futures_util::TryStreamExt::try_collect::<Vec<_>>(r.$method($($argument),*)).await?
        })
    };
    ($cases:ident, $repository:ident, $method:ident, |$w:ident, $r:ident| $call:expr) => {
        $cases.push($crate::tenants::methods::Case {
            name: concat!(stringify!($repository), "::", stringify!($method)),
            call: |conn, $w| Box::pin(async move {
                let $r = chancery::$repository::new(conn);
                let _ = $w;
                Ok($crate::tenants::methods::Found::found(&$call))
            }),
            rule: $crate::tenants::methods::Rule::Owner,
            owned: Some(|conn, user_id, $w| Box::pin(async move {
                let $r = chancery::$repository::new(conn).owned_by(user_id);
                let _ = $w;
                Ok($crate::tenants::methods::Found::found(&$call))
            })),
        })
    };
}
pub(super) use owned_case;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    people::cases(&mut cases);
    talk::cases(&mut cases);
    intake::cases(&mut cases);
    work::cases(&mut cases);
    cases
}

/// All rows of all tables, as text.
pub struct Everything(String);

impl Everything {
    pub async fn of(admin: &PgPool) -> Self {
        let tables: Vec<String> = sqlx::query_scalar(
            "select format('select json_agg(t order by t::text)::text from %I t', relname)
               from pg_class
              where relnamespace = current_schema::regnamespace and relkind = 'r'",
        )
        .fetch_all(admin)
        .await
        .unwrap();
        assert!(tables.len() > 16);
        Self(format!("select string_agg(t, '') from ({}) all_of (t)", tables.join(" union all ")))
    }

    pub async fn now(&self, admin: &PgPool) -> String {
        sqlx::query_scalar(AssertSqlSafe(self.0.clone())).fetch_one(admin).await.unwrap()
    }
}

/// Nothing was found or done, and if it was refused, then as if nothing were there.
#[track_caller]
pub fn nothing(name: &str, outcome: Result<usize>) {
    match outcome {
        Ok(0)
        | Err(
            Error::NotFound(_)
            | Error::PermissionDenied(_)
            | Error::ForeignKey(_)
            | Error::LeaseLost
            | Error::TransactionAborted,
        ) => {}
        other => panic!("{name}: {other:?}"),
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn nobody_finds_changes_deletes_or_counts_what_is_somebody_elses(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let world = World::new(db).await;
    let owner = world.user.id;
    let stranger = db.users().create(new_user()).await.unwrap().id;
    let everything = Everything::of(&pool).await;
    let before = everything.now(&pool).await;
    for Case { name, call, rule, .. } in cases() {
        // The two connections of the pool go from one user to another and to the service.
        let outcome = call(db.as_user(stranger).executor(), &world).await;
        match rule {
            Rule::Everybody => assert!(outcome.unwrap() > 0, "{name}"),
            Rule::Owner | Rule::Service => nothing(name, outcome),
        }
        assert_eq!(db.users().get_by_id(owner).await.unwrap().unwrap().id, owner);

        let mut uow = db.as_user(stranger).begin().await.unwrap();
        let outcome = call(uow.executor(), &world).await;
        match rule {
            Rule::Everybody => assert!(outcome.unwrap() > 0, "{name}"),
            Rule::Owner | Rule::Service => nothing(name, outcome),
        }
        // Refused when a statement of it was.
        let _ = uow.commit().await;
        assert_eq!(everything.now(&pool).await, before, "{name} changed something");

        // The same call by the owner: the one above found nothing for the right reason.
        let mut uow = db.as_user(owner).begin().await.unwrap();
        let outcome = call(uow.executor(), &world).await;
        match rule {
            Rule::Owner | Rule::Everybody => {
                assert!(outcome.as_ref().is_ok_and(|found| *found > 0), "{name}: {outcome:?}");
            }
            Rule::Service => nothing(name, outcome),
        }
        uow.rollback().await.unwrap();
        assert!(db.as_user(stranger).users().get_by_id(owner).await.unwrap().is_none(), "{name}");
    }
    assert_eq!(everything.now(&pool).await, before);
    tenants.end().await;
}

/// By itself, each statement of the owner's is committed: what the service can, except for a few.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_the_owner_does_by_single_statements_is_stored(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    for Case { name, call, rule, .. } in cases() {
        // What is there is deleted by some.
        let world = World::new(db).await;
        let outcome = call(db.as_user(world.user.id).executor(), &world).await;
        match rule {
            Rule::Owner | Rule::Everybody => {
                assert!(outcome.as_ref().is_ok_and(|found| *found > 0), "{name}: {outcome:?}");
            }
            Rule::Service => nothing(name, outcome),
        }
        db.users().delete(world.user.id).await.unwrap();
        let left: i64 = sqlx::query_scalar("select count(*) from extraction_jobs")
            .fetch_one(db.executor())
            .await
            .unwrap();
        assert_eq!(left, 0, "an account goes with all that it has");
    }
    tenants.end().await;
}

/// Without a user, the role sees nothing and does nothing: not even what is everybody's.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_unnamed_user_sees_nothing(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let world = World::new(db).await;
    let everything = Everything::of(&pool).await;
    let before = everything.now(&pool).await;
    for unnamed in ["", "; set local chancery.user_id = ''"] {
        for Case { name, call, .. } in cases() {
            let mut uow = db.begin().await.unwrap();
            let role = format!("set local role chancery_app{unnamed}");
            sqlx::raw_sql(AssertSqlSafe(role)).execute(uow.executor()).await.unwrap();
            nothing(name, call(uow.executor(), &world).await);
            let _ = uow.commit().await;
        }
    }
    assert_eq!(everything.now(&pool).await, before);
    tenants.end().await;
}

#[test]
fn every_public_method_of_a_repository_is_in_the_table() {
    let calls = source::repositories();
    let tried: BTreeSet<String> = cases()
        .iter()
        .map(|case| {
            let (repository, method) = case.name.split_once("::").unwrap();
            format!("{}().{method}", calls[repository])
        })
        .collect();
    let methods = source::methods();
    // The four repositories that have it.
    let owners = ["conversations().", "messages().", "transcripts().", "chunks()."];
    let in_owner_form = cases().iter().filter(|case| case.owned.is_some()).count();
    let of_theirs = methods.iter().filter(|m| owners.iter().any(|owner| m.starts_with(owner)));
    assert_eq!(in_owner_form, of_theirs.count(), "not tried in the owner form");
    let untried: Vec<_> = methods.difference(&tried).collect();
    assert!(untried.is_empty(), "not tried as a stranger (tests/suite/tenants): {untried:?}");
    let gone: Vec<_> = tried.difference(&methods).collect();
    assert!(gone.is_empty(), "there is no such method: {gone:?}");
}

/// The method that only a unit of work has.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_conversation_of_somebody_elses_is_not_to_be_locked(pool: PgPool) {
    let tenants = Tenants::new(&pool, "login").await;
    let db = &tenants.db;
    let world = World::new(db).await;
    let lock = async |user: UserId| {
        db.as_user(user)
            .transaction(async |uow| uow.lock_conversation(world.conversation.id).await)
            .await
            .unwrap()
    };
    let stranger = db.users().create(new_user()).await.unwrap().id;
    assert!(lock(stranger).await.is_none());
    assert!(lock(world.user.id).await.is_some());
    tenants.end().await;
}
