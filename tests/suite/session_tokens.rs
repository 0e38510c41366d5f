//! Sessions with tokens of the crate's own. Inside of one unit of work the database's clock stands
//! still, so these tests meet the very microsecond, and move time by moving what it is compared with.

use std::collections::HashSet;
use std::time::Duration;

use chancery::{
    Constraint, Database, Error, Session, SessionId, SessionToken, TokenHash, UnitOfWork, User,
    UserId,
};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use sqlx::PgPool;

use crate::support::{invalid_field, user};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

async fn now(uow: &mut UnitOfWork) -> DateTime<Utc> {
    sqlx::query_scalar("select now()").fetch_one(uow.executor()).await.unwrap()
}

/// As if so much time had passed since the session was last touched.
async fn let_pass(uow: &mut UnitOfWork, id: SessionId, time: TimeDelta) {
    sqlx::query(
        "update sessions
            set expires_at = expires_at - make_interval(secs => $2),
                absolute_expires_at = absolute_expires_at - make_interval(secs => $2)
          where id = $1",
    )
    .bind(id)
    .bind(time.as_seconds_f64())
    .execute(uow.executor())
    .await
    .unwrap();
}

/// A session of a day with an idle timeout of an hour, in a unit of work whose clock stands still.
async fn idle_session(db: &Database) -> (UnitOfWork, SessionToken, Session, User) {
    let user = user(db).await;
    let mut uow = db.begin().await.unwrap();
    let (token, session) =
        uow.sessions().create_with_token(user.id, DAY, Some(HOUR)).await.unwrap();
    (uow, token, session, user)
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_token_opens_its_session_and_only_its_hash_is_stored(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let ada = user(&db).await;
    let (token, session) = db.sessions().create_with_token(ada.id, DAY, None).await.unwrap();
    assert_eq!((session.user_id, &session.token_hash), (ada.id, &token.hash()));
    let found = db.sessions().authenticate(token.expose()).await.unwrap();
    assert_eq!(found.as_ref(), Some(&session));
    // The plain way, for what only reads.
    let hash = TokenHash::of_token(token.expose()).unwrap();
    assert_eq!(db.sessions().read_only().get_by_token(&hash).await.unwrap(), found);

    let row: String = sqlx::query_scalar("select row(sessions)::text from sessions")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(row.contains(token.hash().expose()), "{row}");
    assert!(!row.contains(token.expose()), "{row}");
    let sha_256: bool = sqlx::query_scalar(
        "select token_hash = encode(sha256(convert_to($1, 'UTF8')), 'hex') from sessions",
    )
    .bind(token.expose())
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(sha_256);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_opens_no_session_finds_none_and_malformed_texts_do_not_reach_the_server(
    pool: PgPool,
) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let (token, _) = db.sessions().create_with_token(ada.id, DAY, Some(HOUR)).await.unwrap();
    let other = SessionToken::generate().unwrap();
    assert_eq!(db.sessions().authenticate(other.expose()).await.unwrap(), None);
    assert!(db.sessions().rotate(other.expose()).await.unwrap().is_none());
    assert!(!db.sessions().revoke(other.expose()).await.unwrap());
    // The hash is not the token: who reads the table can't sign in.
    let hash = token.hash();
    db.close().await;
    for malformed in
        ["", "\0", "token", &token.expose()[1..], &format!("{} ", token.expose()), hash.expose()]
    {
        assert_eq!(db.sessions().authenticate(malformed).await.unwrap(), None);
        assert!(db.sessions().rotate(malformed).await.unwrap().is_none());
        assert!(!db.sessions().revoke(malformed).await.unwrap());
    }
    let asked = db.sessions().authenticate(token.expose()).await;
    assert!(matches!(asked, Err(Error::PoolClosed)), "{asked:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_session_ends_when_it_is_not_used_and_at_the_latest_at_its_absolute_end(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (mut uow, token, session, _) = idle_session(&db).await;
    let now = now(&mut uow).await;
    let id = session.id;
    assert_eq!(session.expires_at, now + HOUR);

    // Used before it is idle for an hour, it goes on for an hour.
    let_pass(&mut uow, id, TimeDelta::minutes(59)).await;
    let used = uow.sessions().authenticate(token.expose()).await.unwrap().unwrap();
    assert_eq!((used.id, used.expires_at), (id, now + HOUR));
    assert_eq!(uow.sessions().get_by_id(id).await.unwrap(), Some(used), "it is stored");

    // Twenty minutes before the day is over, no use makes it longer.
    let_pass(&mut uow, id, TimeDelta::minutes(50)).await;
    sqlx::query("update sessions set absolute_expires_at = now() + interval '20 min'")
        .execute(uow.executor())
        .await
        .unwrap();
    let used = uow.sessions().authenticate(token.expose()).await.unwrap().unwrap();
    assert_eq!(used.expires_at, now + TimeDelta::minutes(20));
    let extended = uow.sessions().extend(&token.hash(), DAY).await.unwrap().unwrap();
    assert_eq!(extended.expires_at, now + TimeDelta::minutes(20), "nor does extending");
    let_pass(&mut uow, id, TimeDelta::minutes(20)).await;
    assert_eq!(uow.sessions().authenticate(token.expose()).await.unwrap(), None);
    assert_eq!(uow.sessions().extend(&token.hash(), DAY).await.unwrap(), None);
    assert!(uow.sessions().rotate(token.expose()).await.unwrap().is_none());
    assert!(!uow.sessions().revoke(token.expose()).await.unwrap());
    assert_eq!(uow.sessions().delete_expired().await.unwrap(), 1);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_session_that_was_idle_for_too_long_is_void_to_the_microsecond(pool: PgPool) {
    let db = Database::from_pool(pool);
    for (idle, open) in [(HOUR - Duration::from_micros(1), true), (HOUR, false)] {
        let (mut uow, token, session, _) = idle_session(&db).await;
        let_pass(&mut uow, session.id, TimeDelta::from_std(idle).unwrap()).await;
        let found = uow.sessions().authenticate(token.expose()).await.unwrap();
        assert_eq!(found.is_some(), open, "{idle:?}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn being_used_is_written_once_in_a_tenth_of_the_idle_timeout(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (mut uow, token, session, _) = idle_session(&db).await;
    let version = async |uow: &mut UnitOfWork| -> String {
        let version = sqlx::query_scalar("select ctid::text from sessions where id = $1");
        version.bind(session.id).fetch_one(uow.executor()).await.unwrap()
    };
    for (minutes, written) in [(1, false), (4, false), (1, false), (1, true), (6, false)] {
        let_pass(&mut uow, session.id, TimeDelta::minutes(minutes)).await;
        let before = version(&mut uow).await;
        uow.sessions().authenticate(token.expose()).await.unwrap().unwrap();
        assert_eq!(version(&mut uow).await != before, written, "after {minutes} minutes");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn without_an_idle_timeout_only_the_absolute_end_counts(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let mut uow = db.begin().await.unwrap();
    let now = now(&mut uow).await;
    let (token, session) = uow.sessions().create_with_token(ada.id, DAY, None).await.unwrap();
    assert_eq!(session.expires_at, now + DAY);
    let_pass(&mut uow, session.id, TimeDelta::hours(23)).await;
    let used = uow.sessions().authenticate(token.expose()).await.unwrap().unwrap();
    assert_eq!(used.expires_at, now + HOUR);
    let (_, rotated) = uow.sessions().rotate(token.expose()).await.unwrap().unwrap();
    assert_eq!(rotated.expires_at, now + HOUR);
}

/// Those that other programs and older versions of this one open.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_session_that_knows_no_limits_can_be_used_rotated_and_extended(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let token = SessionToken::generate().unwrap();
    let session = db.sessions().create_for(ada.id, &token.hash(), HOUR).await.unwrap();
    let found = db.sessions().authenticate(token.expose()).await.unwrap();
    assert_eq!(found, Some(session.clone()));
    let (new, rotated) = db.sessions().rotate(token.expose()).await.unwrap().unwrap();
    assert_eq!((rotated.id, rotated.expires_at), (session.id, session.expires_at));
    let extended = db.sessions().extend(&new.hash(), DAY).await.unwrap().unwrap();
    assert!(extended.expires_at > session.expires_at);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_rotated_token_opens_nothing_and_the_new_one_the_same_session(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (mut uow, old, session, _) = idle_session(&db).await;
    let now = now(&mut uow).await;
    let_pass(&mut uow, session.id, TimeDelta::minutes(3)).await;
    let (new, rotated) = uow.sessions().rotate(old.expose()).await.unwrap().unwrap();
    assert_ne!(new.expose(), old.expose());
    assert_eq!((rotated.id, rotated.user_id), (session.id, session.user_id));
    assert_eq!((rotated.token_hash, rotated.expires_at), (new.hash(), now + HOUR));
    assert_eq!(uow.sessions().authenticate(old.expose()).await.unwrap(), None);
    assert!(uow.sessions().rotate(old.expose()).await.unwrap().is_none());
    assert!(!uow.sessions().revoke(old.expose()).await.unwrap());
    let found = uow.sessions().authenticate(new.expose()).await.unwrap().unwrap();
    assert_eq!(found.id, session.id);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn of_rotations_at_once_exactly_one_wins(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    for _ in 0..10 {
        let (old, session) =
            db.sessions().create_with_token(ada.id, DAY, Some(HOUR)).await.unwrap();
        let rotated = join_all((0..4).map(|_| {
            let (db, old) = (db.clone(), old.expose().to_owned());
            tokio::spawn(async move { db.sessions().rotate(&old).await.unwrap() })
        }))
        .await;
        let mut won: Vec<_> = rotated.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(won.len(), 1);
        let (new, _) = won.remove(0);
        let found = db.sessions().authenticate(new.expose()).await.unwrap().unwrap();
        assert_eq!(found.id, session.id);
        assert_eq!(db.sessions().authenticate(old.expose()).await.unwrap(), None);
    }
}

/// The second waits for the first, which has not committed yet.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_token_that_is_being_rotated_can_be_rotated_by_nobody_else(pool: PgPool) {
    let db = Database::from_pool(pool.clone());
    let ada = user(&db).await;
    let (old, _) = db.sessions().create_with_token(ada.id, DAY, None).await.unwrap();
    let mut uow = db.begin().await.unwrap();
    let (new, _) = uow.sessions().rotate(old.expose()).await.unwrap().unwrap();
    let (rotating, text) = (db.clone(), old.expose().to_owned());
    let second = tokio::spawn(async move { rotating.sessions().rotate(&text).await });
    crate::support::database::until_one_waits(&pool).await;
    uow.commit().await.unwrap();
    assert!(second.await.unwrap().unwrap().is_none());
    assert!(db.sessions().authenticate(new.expose()).await.unwrap().is_some());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn one_session_or_all_of_a_user_are_revoked(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await, user(&db).await);
    let mut tokens = Vec::new();
    for id in [ada.id, ada.id, ada.id, bob.id] {
        tokens.push(db.sessions().create_with_token(id, DAY, Some(HOUR)).await.unwrap().0);
    }
    let texts: HashSet<&str> = tokens.iter().map(SessionToken::expose).collect();
    assert_eq!(texts.len(), 4);
    assert!(db.sessions().revoke(tokens[0].expose()).await.unwrap());
    assert!(!db.sessions().revoke(tokens[0].expose()).await.unwrap());
    assert_eq!(db.sessions().authenticate(tokens[0].expose()).await.unwrap(), None);
    assert_eq!(db.sessions().delete_by_user(ada.id).await.unwrap(), 2);
    for token in &tokens[..3] {
        assert_eq!(db.sessions().authenticate(token.expose()).await.unwrap(), None);
    }
    assert!(db.sessions().authenticate(tokens[3].expose()).await.unwrap().is_some());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn times_that_make_no_session_are_refused(pool: PgPool) {
    let db = Database::from_pool(pool);
    let ada = user(&db).await;
    let too_long = Duration::from_secs(200 * 366 * 24 * 3600);
    for (lifetime, idle, field) in [
        (too_long, None, "lifetime"),
        (DAY, Some(too_long), "idle_timeout"),
        (DAY, Some(Duration::ZERO), "idle_timeout"),
        (DAY, Some(Duration::from_nanos(1)), "idle_timeout"),
    ] {
        let refused = db.sessions().create_with_token(ada.id, lifetime, idle).await;
        assert_eq!(invalid_field(refused), field);
    }
    let nobody = db.sessions().create_with_token(UserId::new(), DAY, None).await.unwrap_err();
    assert!(matches!(nobody, Error::ForeignKey(Constraint::SessionsUserIdFkey)), "{nobody:?}");
    let (token, _) =
        db.sessions().create_with_token(ada.id, DAY, Some(Duration::from_micros(1))).await.unwrap();
    assert_eq!(db.sessions().authenticate(token.expose()).await.unwrap(), None, "it is past");
    let (token, _) = db.sessions().create_with_token(ada.id, Duration::ZERO, None).await.unwrap();
    assert_eq!(db.sessions().authenticate(token.expose()).await.unwrap(), None);
}
