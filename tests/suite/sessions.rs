//! Signed-in sessions. Whether one has expired is decided by the database's clock: inside of one
//! unit of work that clock stands still, so these tests meet the very microsecond.

use std::collections::HashSet;
use std::time::Duration;

use chancery::{
    Constraint, Database, Error, MAX_PAGE_SIZE, Reason, Session, SessionId, TokenHash, UnitOfWork,
    UserId,
};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use sqlx::PgPool;

use crate::support::{BAD_LIMITS, invalid, token_hash, user};

const HOUR: Duration = Duration::from_secs(3600);

/// The time of the database, which is that of the unit of work's beginning.
async fn now(uow: &mut UnitOfWork) -> DateTime<Utc> {
    sqlx::query_scalar("select now()").fetch_one(uow.executor()).await.unwrap()
}

/// A session that ends so many microseconds from the database's now.
async fn ending_in(uow: &mut UnitOfWork, user_id: UserId, microseconds: i32) -> Session {
    let session = uow.sessions().create_for(user_id, &token_hash(), HOUR).await.unwrap();
    sqlx::query("update sessions set expires_at = now() + $2 * interval '1 us' where id = $1")
        .bind(session.id)
        .bind(microseconds)
        .execute(uow.executor())
        .await
        .unwrap();
    uow.sessions().get_by_id(session.id).await.unwrap().unwrap()
}

fn ids(sessions: &[Session]) -> Vec<SessionId> {
    sessions.iter().map(|session| session.id).collect()
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_new_session_can_be_read_back_by_id_and_by_token(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let (token, ends) = (token_hash(), Utc::now() + HOUR);
    let session = db.sessions().create(ada.id, &token, ends).await.unwrap();
    assert_eq!(session.user_id, ada.id);
    assert_eq!(session.token_hash, token);
    // PostgreSQL keeps microseconds.
    assert_eq!(session.expires_at, ends.trunc_subsecs(6));
    assert_eq!(db.sessions().get_by_id(session.id).await.unwrap().as_ref(), Some(&session));
    assert_eq!(db.sessions().get_by_token(&token).await.unwrap(), Some(session));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_session_that_is_not_there_is_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    assert_eq!(db.sessions().get_by_id(SessionId::new()).await.unwrap(), None);
    assert_eq!(db.sessions().get_by_token(&token_hash()).await.unwrap(), None);
    assert_eq!(db.sessions().extend(&token_hash(), HOUR).await.unwrap(), None);
    assert_eq!(db.sessions().list_by_user(UserId::new(), 10, 0).await.unwrap(), []);
    assert!(!db.sessions().delete(SessionId::new()).await.unwrap());
    assert_eq!(db.sessions().delete_by_user(UserId::new()).await.unwrap(), 0);
    assert_eq!(db.sessions().delete_expired().await.unwrap(), 0);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_token_opens_one_session(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await, user(&db).await);
    let token = token_hash();
    let session = db.sessions().create_for(ada.id, &token, HOUR).await.unwrap();
    for user_id in [ada.id, bob.id] {
        let by_lifetime = db.sessions().create_for(user_id, &token, HOUR).await;
        let by_time = db.sessions().create(user_id, &token, Utc::now()).await;
        for second in [by_lifetime, by_time] {
            let expected = matches!(second, Err(Error::Conflict(Constraint::SessionsTokenHashKey)));
            assert!(expected, "{second:?}");
        }
    }
    assert_eq!(db.sessions().get_by_token(&token).await.unwrap(), Some(session));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn tokens_are_told_apart_by_every_character(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let longest = "ä".repeat(255);
    for text in ["a", "A", " a", "a ", "a%", longest.as_str()] {
        let token = TokenHash::new(text).unwrap();
        let session = db.sessions().create_for(ada.id, &token, HOUR).await.unwrap();
        assert_eq!(db.sessions().get_by_token(&token).await.unwrap(), Some(session), "{text:?}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_session_of_nobody_is_refused_by_the_key(pool: PgPool) {
    let db = Database::from_pool(pool);
    let nobody = UserId::new();
    let by_lifetime = db.sessions().create_for(nobody, &token_hash(), HOUR).await;
    let by_time = db.sessions().create(nobody, &token_hash(), Utc::now()).await;
    for refused in [by_lifetime, by_time] {
        let expected = matches!(refused, Err(Error::ForeignKey(Constraint::SessionsUserIdFkey)));
        assert!(expected, "{refused:?}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_lifetime_is_reckoned_by_the_databases_clock(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let mut uow = db.begin().await.unwrap();
    let now = now(&mut uow).await;
    let century = Duration::from_secs(100 * 366 * 24 * 3600);
    for lifetime in
        [Duration::ZERO, Duration::from_micros(1), Duration::from_millis(90_500), century]
    {
        let session = uow.sessions().create_for(ada.id, &token_hash(), lifetime).await.unwrap();
        assert_eq!(session.created_at, now);
        assert_eq!(session.expires_at, now + lifetime);
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_session_is_void_from_the_very_moment_that_it_ends(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let mut uow = db.begin().await.unwrap();
    for (microseconds, alive) in [(-3_600_000, false), (-1, false), (0, false), (1, true)] {
        let session = ending_in(&mut uow, ada.id, microseconds).await;
        let token = &session.token_hash;
        let expected = alive.then_some(&session);
        let found = uow.sessions().get_by_token(token).await.unwrap();
        assert_eq!(found.as_ref(), expected, "{microseconds} µs");
        let listed = uow.sessions().list_by_user(ada.id, 10, 0).await.unwrap();
        assert_eq!(listed.first(), expected, "{microseconds} µs");
        // By its identifier it can be looked at for as long as it is stored.
        let found = uow.sessions().get_by_id(session.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&session), "{microseconds} µs");
        let extended = uow.sessions().extend(token, HOUR).await.unwrap();
        assert_eq!(extended.is_some(), alive, "{microseconds} µs");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_session_that_was_opened_with_a_time_in_the_past_is_expired(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let token = token_hash();
    let session = db.sessions().create(ada.id, &token, DateTime::UNIX_EPOCH).await.unwrap();
    assert_eq!(db.sessions().get_by_token(&token).await.unwrap(), None);
    assert_eq!(db.sessions().delete_expired().await.unwrap(), 1);
    assert_eq!(db.sessions().get_by_id(session.id).await.unwrap(), None);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn extending_slides_the_end_and_never_shortens(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let mut uow = db.begin().await.unwrap();
    let now = now(&mut uow).await;
    let other = uow.sessions().create_for(ada.id, &token_hash(), HOUR).await.unwrap();
    let session = uow.sessions().create_for(ada.id, &token_hash(), HOUR).await.unwrap();
    for (lifetime, ends) in [
        (2 * HOUR, now + 2 * HOUR),
        (HOUR, now + 2 * HOUR),
        (Duration::ZERO, now + 2 * HOUR),
        (3 * HOUR, now + 3 * HOUR),
    ] {
        let extended = uow.sessions().extend(&session.token_hash, lifetime).await.unwrap();
        let expected = {
            let mut expected = session.clone();
            expected.expires_at = ends;
            expected
        };
        assert_eq!(extended.as_ref(), Some(&expected), "{lifetime:?}");
        assert_eq!(uow.sessions().get_by_id(session.id).await.unwrap(), Some(expected));
    }
    assert_eq!(uow.sessions().get_by_id(other.id).await.unwrap(), Some(other));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_expired_session_is_not_revived(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let mut uow = db.begin().await.unwrap();
    let session = ending_in(&mut uow, ada.id, 0).await;
    assert_eq!(uow.sessions().extend(&session.token_hash, HOUR).await.unwrap(), None);
    assert_eq!(uow.sessions().get_by_id(session.id).await.unwrap(), Some(session));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn only_expired_sessions_are_removed_and_they_are_counted(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await, user(&db).await);
    let mut uow = db.begin().await.unwrap();
    let mut expected = Vec::new();
    for (user_id, microseconds) in
        [(ada.id, -1), (ada.id, 0), (ada.id, 1), (bob.id, -5_000_000), (bob.id, 5_000_000)]
    {
        let session = ending_in(&mut uow, user_id, microseconds).await;
        if microseconds > 0 {
            expected.push(session.id);
        }
    }
    assert_eq!(uow.sessions().delete_expired().await.unwrap(), 3);
    let left: Vec<SessionId> = sqlx::query_scalar("select id from sessions order by id")
        .fetch_all(uow.executor())
        .await
        .unwrap();
    assert_eq!(left, expected);
    assert_eq!(uow.sessions().delete_expired().await.unwrap(), 0);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_users_sessions_are_listed_newest_first_even_when_they_share_a_time(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await, user(&db).await);
    let mut expected = Vec::new();
    for _ in 0..2 {
        let mut uow = db.begin().await.unwrap();
        for _ in 0..3 {
            let session = uow.sessions().create_for(ada.id, &token_hash(), HOUR).await.unwrap();
            expected.insert(0, session);
        }
        uow.sessions().create_for(bob.id, &token_hash(), HOUR).await.unwrap();
        uow.commit().await.unwrap();
    }
    assert_eq!(db.sessions().list_by_user(ada.id, 10, 0).await.unwrap(), expected);
    let mut by_offset = Vec::new();
    for offset in 0..6 {
        by_offset.extend(db.sessions().list_by_user(ada.id, 1, offset).await.unwrap());
    }
    assert_eq!(by_offset, expected);
    assert_eq!(ids(&db.sessions().list_by_user(ada.id, 2, 3).await.unwrap()), ids(&expected[3..5]));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_list_of_sessions_is_bounded(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    sqlx::query(
        "insert into sessions (user_id, token_hash, expires_at)
         select $1, 'token ' || n, now() + interval '1 hour' from generate_series(1, 1001) n",
    )
    .bind(ada.id)
    .execute(db.executor())
    .await
    .unwrap();
    for (limit, offset, count) in [
        (0, 0, 0),
        (1, 0, 1),
        (MAX_PAGE_SIZE, 0, 1000),
        (MAX_PAGE_SIZE, 1000, 1),
        (10, 1001, 0),
        (10, i64::MAX, 0),
    ] {
        let listed = db.sessions().list_by_user(ada.id, limit, offset).await.unwrap();
        assert_eq!(listed.len(), count, "limit {limit} offset {offset}");
    }
    let mut all = db.sessions().list_by_user(ada.id, MAX_PAGE_SIZE, 0).await.unwrap();
    all.extend(db.sessions().list_by_user(ada.id, MAX_PAGE_SIZE, MAX_PAGE_SIZE).await.unwrap());
    assert_eq!(ids(&all).into_iter().collect::<HashSet<_>>().len(), 1001);
    for limit in BAD_LIMITS {
        assert_eq!(invalid(db.sessions().list_by_user(ada.id, limit, 0).await).field, "limit");
    }
    for offset in [-1, i64::MIN] {
        assert_eq!(invalid(db.sessions().list_by_user(ada.id, 1, offset).await).field, "offset");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_session_can_be_ended_alone_or_with_all_of_its_user(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await, user(&db).await);
    let mut of_ada = Vec::new();
    for _ in 0..3 {
        of_ada.push(db.sessions().create_for(ada.id, &token_hash(), HOUR).await.unwrap());
    }
    db.sessions().create(ada.id, &token_hash(), DateTime::UNIX_EPOCH).await.unwrap();
    let of_bob = db.sessions().create_for(bob.id, &token_hash(), HOUR).await.unwrap();

    assert!(db.sessions().delete(of_ada[0].id).await.unwrap());
    assert!(!db.sessions().delete(of_ada[0].id).await.unwrap());
    assert_eq!(db.sessions().get_by_token(&of_ada[0].token_hash).await.unwrap(), None);
    let left = db.sessions().list_by_user(ada.id, 10, 0).await.unwrap();
    assert_eq!(ids(&left), [of_ada[2].id, of_ada[1].id]);

    // The expired one counts: it was there.
    assert_eq!(db.sessions().delete_by_user(ada.id).await.unwrap(), 3);
    assert_eq!(db.sessions().list_by_user(ada.id, 10, 0).await.unwrap(), []);
    assert_eq!(db.sessions().list_by_user(bob.id, 10, 0).await.unwrap(), [of_bob]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn sessions_go_with_their_user(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await, user(&db).await);
    let of_ada = db.sessions().create_for(ada.id, &token_hash(), HOUR).await.unwrap();
    let of_bob = db.sessions().create_for(bob.id, &token_hash(), HOUR).await.unwrap();
    assert!(db.users().delete(ada.id).await.unwrap());
    assert_eq!(db.sessions().get_by_id(of_ada.id).await.unwrap(), None);
    assert_eq!(db.sessions().get_by_token(&of_ada.token_hash).await.unwrap(), None);
    assert_eq!(db.sessions().get_by_id(of_bob.id).await.unwrap(), Some(of_bob));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_cannot_be_a_session_is_refused_and_the_unit_of_work_goes_on(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let token = token_hash();
    let mut uow = db.begin().await.unwrap();

    let too_long = Duration::from_secs(100 * 366 * 24 * 3600) + Duration::from_nanos(1);
    for lifetime in [too_long, Duration::MAX] {
        for refused in [
            uow.sessions().create_for(ada.id, &token, lifetime).await.map(Some),
            uow.sessions().extend(&token, lifetime).await,
        ] {
            let refused = invalid(refused);
            assert_eq!(refused.field, "lifetime");
            assert!(matches!(refused.reason, Reason::OutOfRange { min: 0, .. }), "{refused}");
        }
    }
    for time in [
        DateTime::<Utc>::MIN_UTC,
        DateTime::<Utc>::MAX_UTC,
        "0001-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() - TimeDelta::nanoseconds(1),
        "9999-12-31T23:59:59.999999Z".parse::<DateTime<Utc>>().unwrap()
            + TimeDelta::microseconds(1),
    ] {
        let refused = invalid(uow.sessions().create(ada.id, &token, time).await);
        assert_eq!((refused.field, refused.reason), ("expires_at", Reason::TimeOutOfRange));
    }
    for token in ["", "\0", "a\0b", &"x".repeat(256)] {
        assert_eq!(invalid(TokenHash::new(token)).field, "token_hash");
    }

    let session = uow.sessions().create_for(ada.id, &token, HOUR).await.unwrap();
    uow.commit().await.unwrap();
    assert_eq!(db.sessions().get_by_token(&token).await.unwrap(), Some(session));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn every_end_that_is_accepted_can_be_read_back(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    for text in ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2024-02-29T23:59:60Z"] {
        let ends = text.parse().unwrap();
        let session = db.sessions().create(ada.id, &token_hash(), ends).await.unwrap();
        let read = db.sessions().get_by_id(session.id).await.unwrap().unwrap();
        assert_eq!(read.expires_at, session.expires_at);
        assert!((read.expires_at - ends).abs() <= TimeDelta::seconds(1), "{text}: {read:?}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn neither_debug_nor_json_of_a_session_shows_the_token(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let token = TokenHash::new("canary").unwrap();
    let session = db.sessions().create_for(ada.id, &token, HOUR).await.unwrap();
    let taken = db.sessions().create_for(ada.id, &token, HOUR).await.unwrap_err();
    let json = serde_json::to_string(&session).unwrap();
    for shown in [format!("{session:?}"), json, format!("{taken:?} {taken}")] {
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn two_sign_ins_with_one_token_end_in_one_session(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    for _ in 0..20 {
        let token = token_hash();
        let (first, second) = tokio::join!(
            db.sessions().create_for(ada.id, &token, HOUR),
            db.sessions().create_for(ada.id, &token, HOUR),
        );
        let (winner, loser) = if first.is_ok() { (first, second) } else { (second, first) };
        assert!(matches!(loser, Err(Error::Conflict(Constraint::SessionsTokenHashKey))));
        assert_eq!(db.sessions().get_by_token(&token).await.unwrap(), Some(winner.unwrap()));
    }
}
