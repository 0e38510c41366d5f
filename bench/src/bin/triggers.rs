//! What it costs that a message touches its conversation: the trigger by statement and by row, and
//! the indexes on `updated_at`, which keep the touch from being a HOT update.
//!
//!     cargo run --release --manifest-path bench/Cargo.toml --bin triggers
//!
//! What is compared takes turns in one run, on a private server, full_page_writes off.

use std::error::Error;
use std::time::{Duration, Instant};

use chancery::{Database, DatabaseConfig};
use private_postgres::Server;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let server = Server::builder().setting("max_wal_size", "4GB").start()?;
    triggers(&server).await?;
    touches(&server).await
}

async fn execute(connection: &mut PgConnection, statement: &str) -> Outcome<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await?;
    Ok(())
}

async fn database(server: &Server, name: &str) -> Outcome<PgConnection> {
    let mut admin = PgConnection::connect(&server.url("postgres")).await?;
    execute(&mut admin, &format!("create database {name}")).await?;
    let url = server.url(name);
    let config = DatabaseConfig::builder().url(&url).build()?;
    let db = Database::connect(&config).await?;
    db.migrate().await?;
    db.close().await;
    Ok(PgConnection::connect(&url).await?)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// By name, and what replaces the trigger of the schema.
const TRIGGERS: [(&str, &str); 5] = [
    ("none", ""),
    (
        "by row",
        "create function touch() returns trigger language plpgsql as $$
         begin
             update conversations set updated_at = now() where id = new.conversation_id;
             return new;
         end $$;
         create trigger touch after insert on messages for each row execute function touch()",
    ),
    (
        "by row, if it is newer",
        "create function touch() returns trigger language plpgsql as $$
         begin
             update conversations set updated_at = new.created_at
              where id = new.conversation_id and updated_at < new.created_at;
             return new;
         end $$;
         create trigger touch after insert on messages for each row execute function touch()",
    ),
    ("by statement, as in the schema", "keep"),
    (
        "by statement, one by one",
        "create function touch() returns trigger language plpgsql as $$
         declare
             newest record;
         begin
             for newest in
                 select i.conversation_id, max(i.created_at) as created_at
                   from inserted i group by i.conversation_id order by i.conversation_id
             loop
                 update conversations set updated_at = newest.created_at
                  where id = newest.conversation_id and updated_at < newest.created_at;
             end loop;
             return null;
         end $$;
         create trigger touch after insert on messages referencing new table as inserted
             for each statement execute function touch()",
    ),
];

async fn triggers(server: &Server) -> Outcome<()> {
    let mut contenders = Vec::new();
    for (place, (_, trigger)) in TRIGGERS.into_iter().enumerate() {
        let mut connection = database(server, &format!("triggers_{place}")).await?;
        if trigger != "keep" {
            let drop = "drop trigger trigger_update_conversation on messages";
            execute(&mut connection, &format!("{drop}; {trigger}")).await?;
        }
        execute(
            &mut connection,
            "insert into users (id, email)
             values ('00000000-0000-0000-0000-000000000001', 'ada@example.org');
             insert into conversations (user_id)
             select '00000000-0000-0000-0000-000000000001' from generate_series(1, 100000);
             analyze",
        )
        .await?;
        let conversations: Vec<Uuid> =
            sqlx::query_scalar("select id from conversations").fetch_all(&mut connection).await?;
        contenders.push((connection, conversations));
    }
    println!("one insert, committed: median in ms");
    println!("| messages | conversations | {} |", TRIGGERS.map(|(name, _)| name).join(" | "));
    println!("|---|---|{}", "---|".repeat(TRIGGERS.len()));
    for (messages, spread, rounds) in [
        (1, 1, 301),
        (1, 1_000, 301),
        (100, 1, 51),
        (100, 1_000, 51),
        (10_000, 1, 3),
        (10_000, 1_000, 5),
    ] {
        let mut times = vec![Vec::new(); TRIGGERS.len()];
        for _ in 0..rounds {
            for (place, (connection, conversations)) in contenders.iter_mut().enumerate() {
                let first = fastrand::usize(..=conversations.len() - spread);
                let mut chosen = conversations[first..first + spread].to_vec();
                fastrand::shuffle(&mut chosen);
                let started = Instant::now();
                sqlx::query(
                    "insert into messages (conversation_id, user_id, role, content)
                     select ($2::uuid[])[1 + n % $3], '00000000-0000-0000-0000-000000000001', 'user',
                            'Why the Moon?'
                       from generate_series(1, $1) n",
                )
                .bind(messages)
                .bind(chosen)
                .bind(spread as i32)
                .execute(&mut *connection)
                .await?;
                times[place].push(started.elapsed());
            }
        }
        let cells: Vec<_> =
            times.iter_mut().map(|t| format!("{:.2}", median(t).as_secs_f64() * 1e3)).collect();
        println!("| {messages} | {spread} | {} |", cells.join(" | "));
    }
    Ok(())
}

/// By name, which indexes on `updated_at` it has, and the fillfactor of the table.
const TABLES: [(&str, bool, bool, u32); 7] = [
    ("both indexes, as in the schema", true, true, 100),
    ("both, fillfactor 85", true, true, 85),
    ("by user alone", true, false, 100),
    ("of all alone", false, true, 100),
    ("neither", false, false, 100),
    ("neither, fillfactor 85", false, false, 85),
    ("neither, fillfactor 70", false, false, 70),
];

async fn touches(server: &Server) -> Outcome<()> {
    const CONVERSATIONS: usize = 100_000;
    const ROUNDS: usize = 5;
    const TOUCHES: usize = 4_000;
    let mut connection = database(server, "touches").await?;
    for (place, (_, by_user, recent, fillfactor)) in TABLES.into_iter().enumerate() {
        let mut script = format!(
            "create table touched_{place} (like conversations including defaults)
                 with (fillfactor = {fillfactor}, autovacuum_enabled = off);
             insert into touched_{place} (id, user_id, title, created_at, updated_at)
             select md5('c' || n)::uuid,
                    md5('u' || case when n % 100 = 0 then 0 else n / 10 end)::uuid,
                    'Conversation ' || n, now() - n * interval '1 second',
                    now() - n * interval '1 second'
               from generate_series(1, {CONVERSATIONS}) n;
             alter table touched_{place} add primary key (id), add unique (id, user_id);
             create index touched_{place}_user_id_idx on touched_{place} (user_id);"
        );
        if by_user {
            script += &format!(
                "create index touched_{place}_by_user on touched_{place}
                     (user_id, updated_at desc, id desc);
                 drop index touched_{place}_user_id_idx;"
            );
        }
        if recent {
            script += &format!(
                "create index touched_{place}_recent on touched_{place} (updated_at desc, id desc);"
            );
        }
        execute(&mut connection, &script).await?;
        execute(&mut connection, &format!("vacuum (analyze) touched_{place}")).await?;
    }
    let ids: Vec<Uuid> =
        sqlx::query_scalar("select id from touched_0").fetch_all(&mut connection).await?;
    let mut times = vec![Vec::new(); TABLES.len()];
    let mut bytes = [0; TABLES.len()];
    for _ in 0..ROUNDS {
        for place in 0..TABLES.len() {
            let statement =
                format!("update touched_{place} set updated_at = clock_timestamp() where id = $1");
            let before = wal(&mut connection).await?;
            for _ in 0..TOUCHES {
                let id = ids[fastrand::usize(..ids.len())];
                let started = Instant::now();
                sqlx::query(AssertSqlSafe(statement.clone()))
                    .bind(id)
                    .execute(&mut connection)
                    .await?;
                times[place].push(started.elapsed());
            }
            bytes[place] += wal(&mut connection).await? - before;
        }
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    execute(&mut connection, "select pg_stat_force_next_flush()").await?;

    println!(
        "\n{CONVERSATIONS} conversations, {} touches of random ones, no vacuum meanwhile; then lists",
        ROUNDS * TOUCHES
    );
    println!(
        "| indexes on updated_at | HOT | WAL bytes | µs | table, MB | indexes, MB | one user's 20 of 10: blocks, µs | 20 of 1,000: blocks, µs | 20 of all: blocks, µs |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (place, (name, ..)) in TABLES.into_iter().enumerate() {
        let row = sqlx::query(AssertSqlSafe(format!(
            "select n_tup_hot_upd::float8 / greatest(n_tup_upd, 1),
                    pg_relation_size(relid) / 1e6::float8, pg_indexes_size(relid) / 1e6::float8
               from pg_stat_user_tables where relname = 'touched_{place}'"
        )))
        .fetch_one(&mut connection)
        .await?;
        let few = list(&mut connection, place, "where user_id = md5('u5001')::uuid").await?;
        let many = list(&mut connection, place, "where user_id = md5('u0')::uuid").await?;
        let all = list(&mut connection, place, "").await?;
        println!(
            "| {name} | {:.0} % | {} | {:.0} | {:.1} | {:.1} | {few} | {many} | {all} |",
            row.get::<f64, _>(0) * 100.0,
            bytes[place] / (ROUNDS * TOUCHES) as i64,
            median(&mut times[place]).as_secs_f64() * 1e6,
            row.get::<f64, _>(1),
            row.get::<f64, _>(2),
        );
    }
    Ok(())
}

/// Blocks and time of a list, newest first.
async fn list(connection: &mut PgConnection, place: usize, which: &str) -> Outcome<String> {
    let statement = format!(
        "select id, user_id, title, created_at, updated_at from touched_{place} {which}
          order by updated_at desc, id desc limit 20"
    );
    let mut times = Vec::new();
    for _ in 0..21 {
        let started = Instant::now();
        sqlx::query(AssertSqlSafe(statement.clone())).fetch_all(&mut *connection).await?;
        times.push(started.elapsed());
    }
    let explained: serde_json::Value = sqlx::query_scalar(AssertSqlSafe(format!(
        "explain (analyze, buffers, format json) {statement}"
    )))
    .fetch_one(&mut *connection)
    .await?;
    let plan = &explained[0]["Plan"];
    let blocks = ["Shared Hit Blocks", "Shared Read Blocks"].map(|kind| plan[kind].as_i64());
    let blocks: i64 = blocks.into_iter().flatten().sum();
    Ok(format!("{blocks}, {:.0}", median(&mut times).as_secs_f64() * 1e6))
}

async fn wal(connection: &mut PgConnection) -> Outcome<i64> {
    Ok(sqlx::query_scalar("select (pg_current_wal_insert_lsn() - '0/0')::bigint")
        .fetch_one(connection)
        .await?)
}
