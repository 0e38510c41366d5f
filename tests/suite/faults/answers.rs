//! Answers that are lost on the way: every method of every repository, at each of its answers.

use std::time::Duration;

use chancery::{Conn, Database, Error};
use sqlx::{AssertSqlSafe, PgPool};

use super::{open_all, through_proxy};
use crate::round_trips::source;
use crate::support::proxy::Proxy;
use crate::tenants::World;
use crate::tenants::methods::{Case, Everything, Rule, cases};

/// Where a method is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Service,
    Owned,
    User,
}

impl Form {
    const ALL: [Self; 3] = [Self::Service, Self::Owned, Self::User];

    fn has(self, case: &Case) -> bool {
        match self {
            Self::Service => true,
            Self::Owned => case.owned.is_some(),
            Self::User => case.rule != Rule::Service,
        }
    }

    async fn call(self, case: &Case, db: &Database, world: &World) -> chancery::Result<usize> {
        let user = world.user.id;
        let conn: Conn<'_> = match self {
            Self::Service | Self::Owned => db.executor(),
            Self::User => db.as_user(user).executor(),
        };
        match case.owned {
            Some(owned) if self == Self::Owned => owned(conn, user, world).await,
            _ => (case.call)(conn, world).await,
        }
    }
}

/// Which of the cases read, as their place in the source says.
fn split() -> (Vec<Case>, Vec<Case>) {
    let (calls, reading) = (source::repositories(), source::reading_methods());
    let (reads, writes): (Vec<_>, Vec<_>) = cases().into_iter().partition(|case| {
        let (repository, method) = case.name.split_once("::").unwrap();
        reading.contains(&format!("{}().{method}", calls[repository]))
    });
    assert!(reads.len() > 40 && writes.len() > 40, "{} read, {} write", reads.len(), writes.len());
    (reads, writes)
}

/// Calls a method with its n-th answer lost, and counts what was asked. None if it has fewer answers.
async fn losing(
    nth: usize,
    (proxy, db): (&Proxy, &Database),
    (form, case, world): (Form, &Case, &World),
) -> Option<(chancery::Result<usize>, usize)> {
    open_all(db).await;
    let asked = proxy.round_trips();
    proxy.lose_answer(nth);
    let outcome = form.call(case, db, world).await;
    proxy.has_lost().then(|| (outcome, proxy.round_trips() - asked))
}

/// Where each row of each table stands, and which transaction put it there: another one after every
/// write, also one that changes no value.
async fn versions(pool: &PgPool) -> String {
    let each: Vec<String> = sqlx::query_scalar(
        "select format('select string_agg(concat(tableoid, xmin, ctid), '' '' order by ctid) from %I', relname)
           from pg_class
          where relnamespace = current_schema::regnamespace and relkind = 'r'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let all = format!("select string_agg(t, ' ') from ({}) as of (t)", each.join(" union all "));
    sqlx::query_scalar(AssertSqlSafe(all)).fetch_one(pool).await.unwrap()
}

/// What the world lacks for a method to write something.
async fn arranged(pool: &PgPool, case: &Case) {
    let statement = match case.name {
        // A user has them once.
        "UserPreferencesRepository::create" => "delete from user_preferences",
        // It notes the use of a session now and then.
        "SessionRepository::authenticate" => {
            "update sessions set expires_at = now() + interval '1 minute' where expires_at > now()"
        }
        _ => return,
    };
    sqlx::query(statement).execute(pool).await.unwrap();
}

/// Until it is stored, the call is made again with a later answer lost. That one was the last thing the
/// server did, and the caller is told that it may have happened.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_write_whose_answer_is_lost_is_told_as_unknown_and_happens_once(pool: PgPool) {
    let (proxy, db) = through_proxy(&pool, Duration::ZERO, 1).await;
    let setup = Database::from_pool(pool.clone());
    let (mut cut, mut wrong) = (0, Vec::new());
    for case in split().1 {
        for form in Form::ALL.into_iter().filter(|form| form.has(&case)) {
            let world = World::new(&setup).await;
            arranged(&pool, &case).await;
            let before = versions(&pool).await;
            // Before anything was sent of it, BEGIN is repeated.
            let first = if form == Form::User { 2 } else { 1 };
            for nth in first.. {
                let lost = losing(nth, (&proxy, &db), (form, &case, &world)).await;
                let stored = versions(&pool).await != before;
                cut += 1;
                // Told as unknown, and nothing was sent after it.
                let right = matches!(
                    lost,
                    Some((Err(Error::ConnectionLost(_) | Error::CommitUnknown { .. }), asked))
                        if asked == nth
                );
                if !right {
                    let name = case.name;
                    wrong.push(format!("{name} ({form:?}), {nth}: {lost:?}, stored: {stored}"));
                }
                if stored || !right {
                    break;
                }
            }
            setup.users().delete(world.user.id).await.unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    eprintln!("fault: answers to writes cut: {cut}, all told as unknown, each happened once");
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_read_whose_answer_is_lost_is_repeated(pool: PgPool) {
    let (proxy, db) = through_proxy(&pool, Duration::ZERO, 1).await;
    let setup = Database::from_pool(pool.clone());
    let world = World::new(&setup).await;
    let everything = Everything::of(&pool).await;
    let before = everything.now(&pool).await;
    let mut cut = 0;
    for case in split().0 {
        for form in Form::ALL.into_iter().filter(|form| form.has(&case)) {
            let found = form.call(&case, &setup, &world).await.unwrap();
            let mut nth = 1;
            while let Some((outcome, _)) = losing(nth, (&proxy, &db), (form, &case, &world)).await {
                let repeated = outcome.unwrap_or_else(|error| panic!("{}: {error}", case.name));
                assert_eq!(repeated, found, "{} ({form:?}), answer {nth}", case.name);
                nth += 1;
            }
            cut += nth - 1;
        }
    }
    assert_eq!(everything.now(&pool).await, before);
    eprintln!("fault: answers to reads cut: {cut}, all repeated");
    db.close().await;
}

/// What the application runs itself is not repeated, whatever it begins with.
#[sqlx::test(migrations = false)]
async fn a_statement_of_the_applications_is_not_repeated(pool: PgPool) {
    sqlx::raw_sql(
        "create table visits (at timestamptz);
         create function visit() returns bigint language sql as
         'insert into visits values (now()) returning 1::bigint'",
    )
    .execute(&pool)
    .await
    .unwrap();
    let (proxy, db) = through_proxy(&pool, Duration::ZERO, 1).await;
    let visits = async || {
        let count = sqlx::query_scalar::<_, i64>("select count(*) from visits");
        count.fetch_one(&pool).await.unwrap()
    };
    let mut nth = 0;
    while visits().await == 0 {
        nth += 1;
        open_all(&db).await;
        proxy.lose_answer(nth);
        let outcome = sqlx::query("select visit()").fetch_one(db.executor()).await;
        let error = Error::from(outcome.unwrap_err());
        assert!(proxy.has_lost() && matches!(error, Error::ConnectionLost(_)), "{error:?}");
    }
    assert_eq!(visits().await, 1);
    db.close().await;
}
