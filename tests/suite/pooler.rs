//! Behind a pooler in transaction mode: found out, used where it is safe, refused where it is not.

use std::time::Duration;

use chancery::{Database, DatabaseConfig, DatabaseConfigBuilder, Error, PoolerFault, PoolerMode};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::task::JoinSet;

use crate::support::database::{PATIENCE, connect, url, value};
use crate::support::pooler::{PgBouncer, Release};
use crate::support::proxy::Proxy;
use crate::support::user;

const TRACKING: &str = "max_prepared_statements = 200";
const CLIENTS: i64 = 16;
const QUERIES: i64 = 100;

fn through(pooler: &PgBouncer, pool: &PgPool) -> DatabaseConfigBuilder {
    let builder = DatabaseConfig::builder().url(pooler.url(&url(pool)).as_str());
    builder.pool_size(2).pool_timeout(PATIENCE)
}

async fn refused(config: DatabaseConfigBuilder) -> PoolerFault {
    match Database::connect(&config.build().unwrap()).await {
        Err(error @ Error::UnsafePooler { fault, .. }) => {
            assert!(error.to_string().contains("connect to the server itself"), "{error}");
            fault
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// The clients' queries, each of ten texts that only its client has. Returns how often the answer was
/// another's, and how often there was none.
async fn mixed_up<F>(ask: impl Fn(String) -> F) -> (usize, usize)
where
    F: Future<Output = Result<i64, sqlx::Error>> + Send + 'static,
{
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        for query in 0..QUERIES {
            let expected = client * 1000 + query % 10;
            let asking = ask(format!("select {expected}::bigint"));
            clients.spawn(async move { asking.await.map(|answer| answer == expected) });
        }
    }
    let answers = clients.join_all().await;
    let wrong = answers.iter().filter(|answer| matches!(answer, Ok(false))).count();
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    (wrong, failed)
}

/// The driver's own options.
fn plain_options(pooler: &PgBouncer, pool: &PgPool) -> PgConnectOptions {
    let options: PgConnectOptions = pooler.url(&url(pool)).as_str().parse().unwrap();
    options.extra_float_digits(None)
}

/// The driver's own pool, with as many connections as there are clients.
async fn plain(pooler: &PgBouncer, pool: &PgPool) -> PgPool {
    PgPoolOptions::new()
        .max_connections(CLIENTS as u32)
        .min_connections(CLIENTS as u32)
        .test_before_acquire(false)
        .acquire_timeout(PATIENCE)
        .connect_with(plain_options(pooler, pool))
        .await
        .unwrap()
}

/// What a client of the plain driver is answered that asks for 1 a second time, on the server on which
/// another client prepared its own statement under the same name.
async fn crossed(pooler: &PgBouncer, pool: &PgPool) -> i64 {
    let options = plain_options(pooler, pool);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(PgConnection::connect_with(&options).await.unwrap());
    }
    let [first, second, third] = &mut clients[..] else { unreachable!() };
    let ask = async |client: &mut PgConnection, text| -> i64 {
        sqlx::query_scalar(text).fetch_one(client).await.unwrap()
    };
    assert_eq!(ask(first, "select 1::bigint").await, 1);
    // Keeps the only server that there is, so that the second client gets another one.
    sqlx::raw_sql("begin").execute(&mut *third).await.unwrap();
    assert_eq!(ask(second, "select 2::bigint").await, 2);
    let answer = ask(first, "select 1::bigint").await;
    for client in clients {
        client.close().await.unwrap();
    }
    answer
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn one_that_loses_prepared_statements_mixes_answers_up_and_is_refused(pool: PgPool) {
    let server = url(&pool);
    let Some(pooler) = PgBouncer::start(Release::Old, &server, "") else { return };
    assert_eq!(crossed(&pooler, &pool).await, 2, "the driver alone is safe");
    for _ in 0..5 {
        assert_eq!(refused(through(&pooler, &pool)).await, PoolerFault::PreparedStatements);
    }

    let driver = plain(&pooler, &pool).await;
    let (wrong, failed) = mixed_up(|text| {
        let driver = driver.clone();
        async move { sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(&driver).await }
    })
    .await;
    println!(
        "pooler: {wrong} of {} answers of the plain driver wrong, {failed} errors",
        CLIENTS * QUERIES
    );
    // Refused under load as well, and also when it is the first use that connects.
    assert_eq!(refused(through(&pooler, &pool)).await, PoolerFault::PreparedStatements);
    let lazy = Database::connect_lazy(&through(&pooler, &pool).build().unwrap());
    for _ in 0..2 {
        let error = lazy.users().get_by_email("ada@example.org").await.unwrap_err();
        assert!(matches!(error, Error::UnsafePooler { .. }), "{error:?}");
    }
    driver.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn one_that_keeps_track_of_them_is_used_and_no_answer_is_wrong(pool: PgPool) {
    let server = url(&pool);
    let Some(pooler) = PgBouncer::start(Release::New, &server, TRACKING) else { return };
    let db = connect(through(&pooler, &pool).pool_size(CLIENTS as u32)).await;
    let (wrong, failed) = mixed_up(|text| {
        let db = db.clone();
        async move { sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(db.executor()).await }
    })
    .await;
    println!(
        "pooler: {wrong} of {} answers of the crate wrong, {failed} errors",
        CLIENTS * QUERIES
    );
    assert_eq!((wrong, failed), (0, 0));

    let user = user(&db).await;
    assert_eq!(db.users().get_by_email(&user.email).await.unwrap().unwrap().id, user.id);
    assert!(db.health().await.is_healthy());
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn with_the_tracking_switched_off_it_is_refused(pool: PgPool) {
    let server = url(&pool);
    for servers in ["", "default_pool_size = 1"] {
        let off = format!("max_prepared_statements = 0\n{servers}");
        let Some(pooler) = PgBouncer::start(Release::New, &server, &off) else { return };
        assert_eq!(refused(through(&pooler, &pool)).await, PoolerFault::PreparedStatements);
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn one_server_for_all_is_enough(pool: PgPool) {
    let server = url(&pool);
    let one = format!("{TRACKING}\ndefault_pool_size = 1");
    let Some(pooler) = PgBouncer::start(Release::New, &server, &one) else { return };
    let db = connect(through(&pooler, &pool)).await;
    let (wrong, failed) = mixed_up(|text| {
        let db = db.clone();
        async move { sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(db.executor()).await }
    })
    .await;
    assert_eq!((wrong, failed), (0, 0));
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_unit_of_work_brings_its_timeouts_and_leaves_none_behind(pool: PgPool) {
    let server = url(&pool);
    let one = format!("{TRACKING}\ndefault_pool_size = 1");
    let Some(pooler) = PgBouncer::start(Release::New, &server, &one) else { return };
    let config = through(&pooler, &pool)
        .statement_timeout(Duration::from_millis(12_345))
        .lock_timeout(Duration::from_millis(2_345));
    let db = connect(config).await;
    let shown =
        "select current_setting('statement_timeout') || ' ' || current_setting('lock_timeout')";
    let mut uow = db.begin().await.unwrap();
    let inside: String = sqlx::query_scalar(shown).fetch_one(uow.executor()).await.unwrap();
    assert_eq!(inside, "12345ms 2345ms");
    uow.commit().await.unwrap();
    let outside: String = sqlx::query_scalar(shown).fetch_one(db.executor()).await.unwrap();
    assert_eq!(outside, "0 0");

    let mut uow = db.begin().await.unwrap();
    sqlx::query("set local statement_timeout = 10").execute(uow.executor()).await.unwrap();
    let slow = sqlx::query("select pg_sleep(10)").execute(uow.executor()).await;
    assert!(matches!(slow.map_err(Error::from), Err(Error::StatementTimeout)));
    drop(uow);
    db.close().await;
}

#[sqlx::test(migrations = false)]
async fn migrating_and_listening_take_the_direct_url_and_ask_for_it(pool: PgPool) {
    let server = url(&pool);
    let Some(pooler) = PgBouncer::start(Release::New, &server, TRACKING) else { return };
    let db = connect(through(&pooler, &pool)).await;
    for error in
        [db.migrate().await.unwrap_err(), db.listen_extraction_jobs().await.map(drop).unwrap_err()]
    {
        assert!(matches!(error, Error::DirectUrlMissing(_)), "{error:?}");
        assert!(error.to_string().contains("DATABASE_DIRECT_URL"), "{error}");
    }
    db.close().await;

    let db = connect(through(&pooler, &pool).direct_url(server.as_str())).await;
    assert!(!db.migrate().await.unwrap().is_empty());
    db.check_schema().await.unwrap();
    let mut listener = db.listen_extraction_jobs().await.unwrap();
    crate::support::job(&db).await;
    assert!(listener.wait(PATIENCE).await);
    drop(listener);
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn settings_of_the_url_are_not_lost_without_a_word(pool: PgPool) {
    let server = url(&pool);
    // The second drops what it is asked for instead of refusing it.
    for ignoring in ["", "ignore_startup_parameters = options"] {
        let settings = format!("{TRACKING}\n{ignoring}");
        let Some(pooler) = PgBouncer::start(Release::New, &server, &settings) else { return };
        let mut url = pooler.url(&server);
        url.set_query(Some("options=-c%20search_path%3Delsewhere"));
        let config = DatabaseConfig::builder().url(url.as_str());
        assert_eq!(refused(config).await, PoolerFault::SessionSettings);

        let db = connect(through(&pooler, &pool)).await;
        assert!(matches!(db.migrate().await, Err(Error::DirectUrlMissing(_))));
        db.close().await;
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn who_knows_what_stands_between_says_so(pool: PgPool) {
    let server = url(&pool);
    let Some(pooler) = PgBouncer::start(Release::New, &server, TRACKING) else { return };
    let said = DatabaseConfig::from_variables(|name| match name {
        "DATABASE_URL" => Some(pooler.url(&server).to_string()),
        "DATABASE_DIRECT_URL" => Some(server.to_string()),
        "DATABASE_POOLER" => Some("transaction".into()),
        _ => None,
    });
    for db in [
        Database::connect(said.as_ref().unwrap()).await.unwrap(),
        Database::connect_lazy(said.as_ref().unwrap()),
    ] {
        user(&db).await;
        db.migrate().await.unwrap();
        db.close().await;
    }
    let wrong = DatabaseConfig::from_variables(|name| match name {
        "DATABASE_URL" => Some(server.to_string()),
        "DATABASE_POOLER" => Some("session".into()),
        _ => None,
    });
    assert!(wrong.unwrap_err().to_string().starts_with("DATABASE_POOLER"));
    drop(pooler);

    // In session mode each connection has its own session, and everything works.
    let session = "pool_mode = session\nignore_startup_parameters = options";
    let Some(pooler) = PgBouncer::start(Release::Old, &server, session) else { return };
    let db = connect(through(&pooler, &pool).pooler(PoolerMode::Direct)).await;
    db.migrate().await.unwrap();
    user(&db).await;
    db.close().await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn where_there_is_none_it_costs_one_short_connection(pool: PgPool) {
    let server = url(&pool);
    let mut requests = Vec::new();
    for mode in [PoolerMode::Direct, PoolerMode::Detect] {
        let proxy = Proxy::start(&server, Duration::ZERO).await;
        let config = DatabaseConfig::builder().url(proxy.url(&server).as_str()).pooler(mode);
        let db = Database::connect(&config.pool_size(1).build().unwrap()).await.unwrap();
        let settings: String =
            value(db.pool(), "select current_setting('statement_timeout')").await;
        assert_eq!(settings, "30s");
        // The pool's own connection is there by now.
        requests.push(proxy.requests());
        db.close().await;
    }
    assert!(requests[1] <= requests[0] + 6, "{requests:?}");
    println!("pooler: {requests:?} requests to connect directly, told and found out");
}
