//! A primary and a standby, both real: reads that are not stale, and a promotion.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use chancery::{DatabaseConfig, DatabaseConfigBuilder, Error, HealthStatus, ReadToken, ServerRole};
use private_postgres::{Server, StopMode};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use crate::support::database::{connect, eventually};
use crate::support::{new_user, user};

/// A migrated primary and a standby that has come as far. None where no standby can be made.
pub async fn pair() -> Option<(Server, Server)> {
    let both = tokio::task::spawn_blocking(|| {
        // Without it a commit leaves for the standby when the log is next written: 200 ms later.
        let primary = Server::builder().setting("synchronous_commit", "on").start().unwrap();
        let standby = primary
            .can_be_copied()
            .then(|| Server::builder().standby_of(&primary).start().unwrap());
        (primary, standby)
    });
    let (primary, Some(standby)) = both.await.unwrap() else {
        eprintln!("SKIPPED: there is no pg_basebackup to make a standby with");
        return None;
    };
    let db = connect(DatabaseConfig::builder().url(&primary.url("postgres"))).await;
    db.migrate().await.unwrap();
    let token = db.read_token().await.unwrap();
    caught_up(&standby, token).await;
    db.close().await;
    Some((primary, standby))
}

fn config(primary: &Server, standby: &Server) -> DatabaseConfigBuilder {
    DatabaseConfig::builder()
        .url(&primary.url("postgres"))
        .reader_url(&standby.url("postgres"))
        .pool_size(2)
}

/// Runs statements on a server, past the crate.
pub async fn on(server: &Server, statements: &[&'static str]) {
    let mut connection = PgConnection::connect(&server.url("postgres")).await.unwrap();
    for statement in statements {
        sqlx::query(*statement).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
}

pub async fn caught_up(standby: &Server, token: ReadToken) {
    let lsn = token.to_string();
    let lsn = lsn.split_once('-').unwrap().1;
    let pool = sqlx::PgPool::connect(&standby.url("postgres")).await.unwrap();
    eventually("the standby catches up", async || {
        let replayed: String =
            sqlx::query_scalar("select to_hex((pg_last_wal_replay_lsn() - '0/0')::bigint)")
                .fetch_one(&pool)
                .await
                .unwrap();
        u64::from_str_radix(&replayed, 16).unwrap() >= u64::from_str_radix(lsn, 16).unwrap()
    })
    .await;
    pool.close().await;
}

#[tokio::test]
async fn a_read_after_a_token_is_never_stale_and_without_one_it_is() {
    let Some((primary, standby)) = pair().await else { return };
    // What waits for a standby that is gone shall not wait for long.
    let config = config(&primary, &standby).pool_timeout(Duration::from_secs(3));
    let db = connect(config.health_timeout(Duration::from_secs(3))).await;
    let (mut stale, mut slow) = (0, Vec::new());
    for _ in 0..1_000 {
        let mut uow = db.begin().await.unwrap();
        let user = uow.users().create(new_user()).await.unwrap();
        let token = uow.commit_with_token().await.unwrap();
        // As a cookie would bring it.
        let token: ReadToken = token.to_string().parse().unwrap();
        let started = Instant::now();
        let read = db.reader().after(token).users().get_by_id(user.id).await.unwrap();
        slow.push(started.elapsed());
        stale += usize::from(read.is_none());
    }
    slow.sort();
    eprintln!(
        "fault: standby: {stale} of 1000 reads after a token stale; median {:.1?}, 99 of 100 within {:.1?}",
        slow[500], slow[990]
    );
    assert_eq!(stale, 0);

    // A standby that replays nothing more.
    on(&standby, &["select pg_wal_replay_pause()"]).await;
    let paused = sqlx::PgPool::connect(&standby.url("postgres")).await.unwrap();
    eventually("it pauses, and not only means to", async || {
        let state = "select pg_get_wal_replay_pause_state() = 'paused'";
        sqlx::query_scalar(state).fetch_one(&paused).await.unwrap()
    })
    .await;
    paused.close().await;
    let (mut without, mut with) = (0, 0);
    for _ in 0..100 {
        let user = user(&db).await;
        let token = db.read_token().await.unwrap();
        without += usize::from(db.reader().users().get_by_id(user.id).await.unwrap().is_none());
        let reader = db.reader().after(token).within(Duration::from_millis(5));
        with += usize::from(reader.users().get_by_id(user.id).await.unwrap().is_none());
    }
    eprintln!("fault: standby paused: {without} of 100 reads stale, {with} after a token");
    assert_eq!((without, with), (100, 0));
    let health = db.health().await.reader.unwrap();
    assert_eq!((health.status, health.role), (HealthStatus::Healthy, Some(ServerRole::Standby)));
    assert!(health.lag_bytes.unwrap() > 0 && health.lag.unwrap() > Duration::ZERO, "{health:?}");

    // It waits for one that goes on in time.
    let user = user(&db).await;
    let token = db.read_token().await.unwrap();
    let waiting = tokio::spawn({
        let db = db.clone();
        async move {
            let reader = db.reader().after(token).within(Duration::from_secs(20));
            let found = reader.users().get_by_id(user.id).await.unwrap().is_some();
            let recovering: bool = sqlx::query_scalar("select pg_is_in_recovery()")
                .fetch_one(reader.executor())
                .await
                .unwrap();
            (found, recovering)
        }
    });
    on(&standby, &["select pg_wal_replay_resume()"]).await;
    assert_eq!(waiting.await.unwrap(), (true, true));
    caught_up(&standby, token).await;
    let health = db.health().await;
    assert_eq!(health.role, Some(ServerRole::Primary));
    let reader = serde_json::to_value(health.reader.unwrap()).unwrap();
    assert_eq!((&reader["role"], &reader["error"]), (&json!("standby"), &json!(null)));

    // Without a standby that answers, reads after a token are the primary's.
    tokio::task::spawn_blocking(move || drop(standby)).await.unwrap();
    let user = db.reader().after(token).users().get_by_id(user.id).await.unwrap();
    assert!(user.is_some());
    assert_eq!(db.health().await.reader.unwrap().status, HealthStatus::Unhealthy);
    assert!(db.health().await.is_healthy());
    db.close().await;
}

#[tokio::test]
async fn a_role_without_privileges_may_ask_how_far_a_standby_is() {
    let Some((primary, standby)) = pair().await else { return };
    on(&primary, &["create role app login"]).await;
    let app = |server: &Server| server.url("postgres").replace("postgres@", "app@");
    let db =
        connect(DatabaseConfig::builder().url(&app(&primary)).reader_url(&app(&standby))).await;
    let token = db.read_token().await.unwrap();
    let reader = db.reader().after(token).within(Duration::from_secs(20));
    let standby: bool = sqlx::query_scalar("select pg_is_in_recovery()")
        .fetch_one(reader.executor())
        .await
        .unwrap();
    assert!(standby, "it fell back to the primary");
    db.close().await;
}

#[tokio::test]
async fn a_token_of_a_later_timeline_is_not_taken_for_reached() {
    let Some((primary, standby)) = pair().await else { return };
    let db = connect(config(&primary, &standby)).await;
    let user = user(&db).await;
    let token = db.read_token().await.unwrap().to_string();
    let (timeline, lsn) = token.split_once('-').unwrap();
    assert_eq!(timeline, "1");
    caught_up(&standby, token.parse().unwrap()).await;
    let in_recovery = async |token: String, patience| {
        let reader = db.reader().after(token.parse().unwrap()).within(patience);
        assert!(reader.users().get_by_id(user.id).await.unwrap().is_some());
        let sql = "select pg_is_in_recovery()";
        sqlx::query_scalar::<_, bool>(sql).fetch_one(reader.executor()).await.unwrap()
    };
    assert!(in_recovery(token.clone(), Duration::from_secs(20)).await);
    // The same position after a promotion that this standby did not follow.
    assert!(!in_recovery(format!("2-{lsn}"), Duration::from_millis(50)).await);
    assert!("1-".parse::<ReadToken>().is_err() && "1-+5".parse::<ReadToken>().is_err());
    db.close().await;
}

#[tokio::test]
async fn a_promoted_standby_is_found_under_load_and_no_acknowledged_write_is_lost() {
    let Some((primary, standby)) = pair().await else { return };
    // What is acknowledged is on both.
    on(&primary, &["alter system set synchronous_standby_names = '*'", "select pg_reload_conf()"])
        .await;
    let db = connect(config(&primary, &standby).pool_size(8)).await;
    let owner = user(&db).await;
    let stopped = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let (db, stopped, written) = (db.clone(), Arc::clone(&stopped), Arc::clone(&written));
        writers.spawn(async move {
            let (mut acknowledged, mut failed) = (Vec::new(), 0);
            while !stopped.load(SeqCst) {
                match db.conversations().create(owner.id, None).await {
                    Ok(conversation) => {
                        acknowledged.push((conversation.id, Instant::now()));
                        written.fetch_add(1, SeqCst);
                    }
                    Err(_) => failed += 1,
                }
            }
            (acknowledged, failed)
        });
    }
    eventually("the writers write", async || written.load(SeqCst) >= 500).await;
    let (died, promoted, standby) = tokio::task::spawn_blocking(move || {
        let died = Instant::now();
        primary.stop(StopMode::Immediate).unwrap();
        standby.promote().unwrap();
        (died, Instant::now(), standby)
    })
    .await
    .unwrap();
    let before = written.load(SeqCst);
    eventually("they write again", async || written.load(SeqCst) >= before + 500).await;
    stopped.store(true, SeqCst);
    let (mut acknowledged, mut failed) = (Vec::new(), 0);
    while let Some(writer) = writers.join_next().await {
        let (ids, errors) = writer.unwrap();
        acknowledged.extend(ids);
        failed += errors;
    }
    let first = acknowledged.iter().map(|(_, at)| *at).filter(|at| *at > promoted).min();
    let first = first.expect("no write after the promotion");
    let mut lost = 0;
    for (id, _) in &acknowledged {
        lost += usize::from(db.conversations().get_by_id(*id).await.unwrap().is_none());
    }
    eprintln!(
        "fault: promotion under load: {lost} of {} acknowledged writes lost, {failed} refused; no server for {:.0?}, writes again {:.0?} later",
        acknowledged.len(),
        promoted - died,
        first - promoted,
    );
    assert_eq!(lost, 0);
    let health = db.health().await;
    assert_eq!((health.role, health.status), (Some(ServerRole::Primary), HealthStatus::Healthy));
    let token = db.read_token().await.unwrap();
    assert!(token.to_string().starts_with("2-"), "{token}");
    assert!(db.reader().after(token).users().get_by_id(owner.id).await.unwrap().is_some());
    db.close().await;

    // A process that starts now finds it as well, although the first URL leads nowhere.
    let gone = "postgres://postgres@127.0.0.1:1/postgres";
    let config = DatabaseConfig::builder().url(gone).reader_url(&standby.url("postgres"));
    let db = connect(config).await;
    user(&db).await;
    db.close().await;
}

#[tokio::test]
async fn a_primary_that_became_a_standby_is_left_for_the_one_that_takes_writes() {
    let Some((primary, standby)) = pair().await else { return };
    let hosts = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres",
        standby.port(),
        primary.port()
    );
    // The standby stands first, and is passed over.
    let db = connect(DatabaseConfig::builder().url(&hosts).pool_size(2)).await;
    user(&db).await;
    assert_eq!(db.health().await.role, Some(ServerRole::Primary));
    db.close().await;

    // Under one name, as behind a service's address: what was a standby takes writes after a promotion.
    let alone = connect(DatabaseConfig::builder().url(&standby.url("postgres"))).await;
    let refused = alone.users().create(new_user()).await.unwrap_err();
    assert!(matches!(refused, Error::ReadOnly), "{refused:?}");
    let standby = tokio::task::spawn_blocking(move || {
        standby.promote().unwrap();
        standby
    });
    let standby = standby.await.unwrap();
    alone.users().create(new_user()).await.unwrap();
    alone.close().await;
    drop(standby);
}
