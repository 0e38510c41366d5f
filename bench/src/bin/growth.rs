//! How reads and writes grow with the table, and what identifiers that grow are worth.
//!
//!     cargo run --release --manifest-path bench/Cargo.toml --bin growth [-- 10000 1000000 10000000]
//!
//! A database for each number of messages; they take turns, round by round. The largest takes about
//! 4 GB: DATABASE_URL names a server that has room, or else a private one is started.

use std::error::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use chancery::{
    ConversationId, Database, DatabaseConfig, MessageId, NewMessage, PageRequest, UserId,
};
use private_postgres::Server;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const MESSAGES_IN_A_CONVERSATION: usize = 100;
const CONVERSATIONS_OF_A_USER: usize = 10;
/// Conversations that go on at the same time: a conversation's messages lie apart by as many rows.
const AT_ONCE: usize = 1_000;
const ROUNDS: usize = 5;
const CALLS: usize = 400;
const OPERATIONS: [&str; 4] = ["get", "page", "append", "list"];

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut sizes = Vec::new();
    for argument in std::env::args().skip(1) {
        sizes.push(argument.parse()?);
    }
    if sizes.is_empty() {
        sizes = vec![10_000, 1_000_000, 10_000_000];
    }
    let server = match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => Err(url),
        _ => Ok(Server::builder()
            .setting("shared_buffers", "1GB")
            .setting("max_wal_size", "8GB")
            .setting("full_page_writes", "on")
            .start()?),
    };
    let base = match &server {
        Ok(server) => server.url("postgres"),
        Err(url) => url.clone(),
    };
    let mut grown = Vec::new();
    for (place, size) in sizes.into_iter().enumerate() {
        grown.push(Grown::load(&base, place, size).await?);
    }
    for _ in 0..ROUNDS {
        for database in &mut grown {
            database.measure().await?;
        }
    }
    println!("\nmedian (p99) in µs; blocks that the server looked at; WAL bytes");
    println!("| messages | operation | median | p99 | blocks | WAL |\n|---|---|---|---|---|---|");
    for database in &mut grown {
        database.report();
    }
    if let Some(largest) = grown.last_mut() {
        largest.sizes().await?;
        keys(&mut largest.admin).await?;
    }
    let names: Vec<_> = grown.iter().map(|database| database.name.clone()).collect();
    for database in grown {
        database.db.close().await;
        database.admin.close().await?;
    }
    let mut admin = PgConnection::connect(&base).await?;
    for name in names {
        execute(&mut admin, format!("drop database {name} with (force)")).await?;
    }
    Ok(())
}

async fn execute(connection: &mut PgConnection, statement: String) -> Outcome<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

/// A database with so many messages.
struct Grown {
    name: String,
    size: usize,
    db: Database,
    admin: PgConnection,
    users: Vec<Uuid>,
    conversations: Vec<Uuid>,
    /// Every hundredth message.
    messages: Vec<Uuid>,
    figures: [Figures; 4],
}

#[derive(Default)]
struct Figures {
    latencies: Vec<Duration>,
    blocks: i64,
    wal: i64,
}

impl Grown {
    async fn load(base: &str, place: usize, size: usize) -> Outcome<Self> {
        let name = format!("chancery_growth_{}_{place}", std::process::id());
        let mut admin = PgConnection::connect(base).await?;
        execute(&mut admin, format!("create database {name}")).await?;
        let url = match base.rsplit_once('/') {
            Some((server, _)) => format!("{server}/{name}"),
            None => return Err("DATABASE_URL has no database".into()),
        };
        // One connection, whose statistics are flushed and read.
        let config = DatabaseConfig::builder().url(&url).pool_size(1).max_overflow(0).build()?;
        let db = Database::connect(&config).await?;
        db.migrate().await?;
        let admin = PgConnection::connect(&url).await?;
        let mut grown = Self {
            name,
            size,
            db,
            admin,
            users: Vec::new(),
            conversations: Vec::new(),
            messages: Vec::new(),
            figures: Default::default(),
        };
        grown.fill().await?;
        Ok(grown)
    }

    async fn fill(&mut self) -> Outcome<()> {
        let conversations = self.size / MESSAGES_IN_A_CONVERSATION;
        let users = conversations.div_ceil(CONVERSATIONS_OF_A_USER);
        // Triggers and foreign keys would be most of the time; what is loaded is right.
        execute(&mut self.admin, "set session_replication_role = replica".into()).await?;
        self.users = (0..users).map(|_| Uuid::now_v7()).collect();
        self.conversations = (0..conversations).map(|_| Uuid::now_v7()).collect();
        let owner = |conversation: usize| self.users[conversation % users];

        let mut copy = Copy::start(&mut self.admin, "users (id, email, name)").await?;
        for (n, id) in self.users.iter().enumerate() {
            copy.row(format_args!("{id}\tuser{n}@example.org\tUser number {n}\n")).await?;
        }
        copy.finish().await?;
        let mut copy = Copy::start(
            &mut self.admin,
            "conversations (id, user_id, title, created_at, updated_at)",
        )
        .await?;
        for (n, id) in self.conversations.iter().enumerate() {
            let time = time(n * MESSAGES_IN_A_CONVERSATION);
            let owner = owner(n);
            copy.row(format_args!("{id}\t{owner}\tConversation {n}\t{time}\t{time}\n")).await?;
        }
        copy.finish().await?;

        let started = Instant::now();
        let before = wal(&mut self.admin).await?;
        let mut copy = Copy::start(
            &mut self.admin,
            "messages (id, conversation_id, user_id, role, content, metadata, created_at)",
        )
        .await?;
        let mut written = 0;
        for (block, now) in self.conversations.chunks(AT_ONCE).enumerate() {
            for turn in 0..MESSAGES_IN_A_CONVERSATION {
                for (n, conversation) in now.iter().enumerate() {
                    let (id, owner) = (Uuid::now_v7(), owner(block * AT_ONCE + n));
                    let line = message(turn, written);
                    let time = time(written);
                    copy.row(format_args!("{id}\t{conversation}\t{owner}\t{line}\t{time}\n"))
                        .await?;
                    if written % 100 == 0 {
                        self.messages.push(id);
                    }
                    written += 1;
                }
            }
        }
        copy.finish().await?;
        let seconds = started.elapsed().as_secs_f64();
        let bytes = wal(&mut self.admin).await? - before;
        println!(
            "{written} messages: COPY into all indexes {:.0} rows a second, {} WAL bytes a row",
            written as f64 / seconds,
            bytes / written as i64
        );
        execute(&mut self.admin, "set session_replication_role = origin".into()).await?;
        execute(&mut self.admin, "vacuum (analyze)".into()).await?;
        execute(&mut self.admin, "checkpoint".into()).await
    }

    async fn measure(&mut self) -> Outcome<()> {
        for (place, operation) in OPERATIONS.into_iter().enumerate() {
            let before = self.counters().await?;
            let mut latencies = Vec::with_capacity(CALLS);
            for _ in 0..CALLS {
                let conversation = self.conversations[fastrand::usize(..self.conversations.len())];
                let started = Instant::now();
                match operation {
                    "get" => {
                        let id = self.messages[fastrand::usize(..self.messages.len())];
                        let found = self.db.messages().get_by_id(MessageId::from(id)).await?;
                        assert!(found.is_some());
                    }
                    "page" => {
                        let id = ConversationId::from(conversation);
                        let page = PageRequest::first(50);
                        let page = self.db.messages().page_by_conversation(id, page).await?;
                        assert_eq!(page.items.len(), 50);
                    }
                    "append" => {
                        let id = ConversationId::from(conversation);
                        self.db.messages().create(NewMessage::user(id, "Why the Moon?")).await?;
                    }
                    _ => {
                        let user = self.users[fastrand::usize(..self.users.len())];
                        let user = UserId::from(user);
                        let list = self.db.conversations().list_by_user(user, 20, 0).await?;
                        assert_eq!(list.len(), CONVERSATIONS_OF_A_USER);
                    }
                }
                latencies.push(started.elapsed());
            }
            let after = self.counters().await?;
            let figures = &mut self.figures[place];
            figures.latencies.append(&mut latencies);
            figures.blocks += after.0 - before.0;
            figures.wal += after.1 - before.1;
        }
        Ok(())
    }

    /// Blocks that were looked at in this database, and the end of the log. The server tells its
    /// statistics once a second at most.
    async fn counters(&mut self) -> Outcome<(i64, i64)> {
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        sqlx::query("select pg_stat_force_next_flush()").execute(self.db.executor()).await?;
        sqlx::query("select").execute(self.db.executor()).await?;
        let blocks: i64 = sqlx::query_scalar(
            "select (sum(heap_blks_hit + heap_blks_read)
                     + sum(coalesce(idx_blks_hit, 0) + coalesce(idx_blks_read, 0)))::bigint
               from pg_statio_user_tables",
        )
        .fetch_one(&mut self.admin)
        .await?;
        Ok((blocks, wal(&mut self.admin).await?))
    }

    fn report(&mut self) {
        for (operation, figures) in OPERATIONS.into_iter().zip(&mut self.figures) {
            figures.latencies.sort();
            let count = figures.latencies.len();
            println!(
                "| {} | {operation} | {:.0} | {:.0} | {:.1} | {} |",
                self.size,
                figures.latencies[count / 2].as_secs_f64() * 1e6,
                figures.latencies[count * 99 / 100].as_secs_f64() * 1e6,
                figures.blocks as f64 / count as f64,
                figures.wal / count as i64
            );
        }
    }

    /// What a row costs, by table and index.
    async fn sizes(&mut self) -> Outcome<()> {
        execute(
            &mut self.admin,
            "insert into transcripts (id, user_id, youtube_video_id, transcript_text)
             select gen_random_uuid(), id, 'video', 'text' from users limit 1000;
             insert into chunks (transcript_id, chunk_text, chunk_index, token_count, metadata)
             select t.id, repeat(md5(random()::text), 32), n, 160, '{\"start\": 10}'
               from (select id from transcripts limit 1000) t, generate_series(1, 100) n"
                .into(),
        )
        .await?;
        execute(&mut self.admin, "vacuum (analyze) chunks".into()).await?;
        println!("\nbytes a row\n| table | heap or index | bytes |\n|---|---|---|");
        let rows = sqlx::query(
            "select t.relname::text, i.name, pg_relation_size(i.oid)::float8 / greatest(t.reltuples, 1)
               from pg_class t
               cross join lateral (
                    select 'heap' as name, t.oid
                    union all
                    select c.relname::text, c.oid from pg_index x join pg_class c on c.oid = indexrelid
                     where indrelid = t.oid) i
              where t.relname in ('users', 'conversations', 'messages', 'chunks')
              order by t.relname, i.name <> 'heap', i.name",
        )
        .fetch_all(&mut self.admin)
        .await?;
        for row in rows {
            let (table, of, bytes): (String, String, f64) = (row.get(0), row.get(1), row.get(2));
            println!("| {table} | {of} | {bytes:.1} |");
        }
        Ok(())
    }
}

/// The same rows with identifiers that grow and with random ones, ten batches in turn.
async fn keys(admin: &mut PgConnection) -> Outcome<()> {
    const BATCHES: usize = 10;
    const ROWS: usize = 100_000;
    execute(
        admin,
        "create table keys_v7 (like messages including all);
         create table keys_v4 (like messages including all);
         set session_replication_role = replica"
            .into(),
    )
    .await?;
    let mut seconds = [0.0; 2];
    let mut bytes = [0; 2];
    for batch in 0..BATCHES {
        for (which, table) in ["keys_v7", "keys_v4"].into_iter().enumerate() {
            let make = || if which == 0 { Uuid::now_v7() } else { Uuid::new_v4() };
            let mut lines = String::new();
            let (mut conversation, user) = (make(), make());
            for n in 0..ROWS {
                let id = make();
                if n % MESSAGES_IN_A_CONVERSATION == 0 {
                    conversation = make();
                }
                let line = message(n, n);
                let time = time(batch * ROWS + n);
                writeln!(lines, "{id}\t{conversation}\t{user}\t{line}\t{time}")?;
            }
            execute(admin, "checkpoint".into()).await?;
            let before = wal(admin).await?;
            let started = Instant::now();
            let columns = "(id, conversation_id, user_id, role, content, metadata, created_at)";
            let mut copy = Copy::start(admin, &format!("{table} {columns}")).await?;
            copy.row(format_args!("{lines}")).await?;
            copy.finish().await?;
            seconds[which] += started.elapsed().as_secs_f64();
            bytes[which] += wal(admin).await? - before;
        }
    }
    println!("\n| keys | rows a second | WAL bytes a row | key index, MB | all indexes, MB |");
    println!("|---|---|---|---|---|");
    for (which, table) in ["keys_v7", "keys_v4"].into_iter().enumerate() {
        let sizes = sqlx::query(AssertSqlSafe(format!(
            "select pg_relation_size('{table}_pkey') / 1e6::float8,
                    pg_indexes_size('{table}') / 1e6::float8"
        )))
        .fetch_one(&mut *admin)
        .await?;
        let rows = (BATCHES * ROWS) as f64;
        println!(
            "| {table} | {:.0} | {:.0} | {:.1} | {:.1} |",
            rows / seconds[which],
            bytes[which] as f64 / rows,
            sizes.get::<f64, _>(0),
            sizes.get::<f64, _>(1)
        );
    }
    Ok(())
}

/// Role, text and metadata of a message, as COPY reads them: 100 to 200 bytes of text.
fn message(turn: usize, n: usize) -> String {
    let role = if turn.is_multiple_of(2) { "user" } else { "assistant" };
    let metadata = if turn.is_multiple_of(2) { "{}" } else { "{\"model\": \"m-1\"}" };
    let text = "We choose to go to the Moon in this decade and do the other things. ";
    format!("{role}\t{n:08} {text}{}\t{metadata}", &text[..n % 64])
}

/// A second for each hundred messages.
fn time(n: usize) -> String {
    let seconds = n / 100;
    let (day, seconds) = (seconds / 86_400, seconds % 86_400);
    let (month, day) = (day / 28, day % 28);
    format!(
        "2025-{:02}-{:02} {:02}:{:02}:{:02}+00",
        month + 1,
        day + 1,
        seconds / 3_600,
        seconds % 3_600 / 60,
        seconds % 60
    )
}

async fn wal(connection: &mut PgConnection) -> Outcome<i64> {
    Ok(sqlx::query_scalar("select (pg_current_wal_insert_lsn() - '0/0')::bigint")
        .fetch_one(connection)
        .await?)
}

struct Copy<'c> {
    to: sqlx::postgres::PgCopyIn<&'c mut PgConnection>,
    buffer: String,
}

impl<'c> Copy<'c> {
    async fn start(connection: &'c mut PgConnection, table: &str) -> Outcome<Self> {
        let to = connection.copy_in_raw(&format!("copy {table} from stdin")).await?;
        Ok(Self { to, buffer: String::new() })
    }

    async fn row(&mut self, row: std::fmt::Arguments<'_>) -> Outcome<()> {
        self.buffer.write_fmt(row)?;
        if self.buffer.len() > 1 << 20 {
            self.to.send(self.buffer.as_bytes()).await?;
            self.buffer.clear();
        }
        Ok(())
    }

    async fn finish(mut self) -> Outcome<()> {
        self.to.send(self.buffer.as_bytes()).await?;
        self.to.finish().await?;
        Ok(())
    }
}
