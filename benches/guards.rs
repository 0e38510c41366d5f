//! What each guard costs: one autocommit read and one unit of work, from a bare connection that is kept
//! and used again, guard by guard, to the crate as it is.
//!
//! ```sh
//! cargo bench --bench guards              # a private server
//! DATABASE_URL=… cargo bench --bench guards -- 40   # that one, with forty rounds
//! ```
//!
//! In each round every variant runs for a while, in a new order; a ratio is that of one round, and the
//! median of all rounds is shown. Allocations are counted, and exact.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{HashMap, VecDeque};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chancery::{
    Database, DatabaseConfig, DatabaseConfigBuilder, NewMessage, NewUser, TransactionOptions,
};
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Arguments, Connection};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use uuid::Uuid;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: the system's allocator does the work; beside it a number is counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMIT: Duration = Duration::from_secs(35);
const READ: &str = "select id, email, name, created_at from users where id = $1";
const WRITE: &str = "insert into messages (id, conversation_id, role, content) values ($1, $2, 'user', 'Why the Moon?')";

/// As a lease does it: a permit, the stack of warm connections, and who holds what since when.
#[derive(Default)]
struct Kept {
    warm: VecDeque<PgConnection>,
    holders: HashMap<u64, (&'static Location<'static>, Instant)>,
    next: u64,
}

fn arguments(id: Uuid) -> PgArguments {
    let mut arguments = PgArguments::default();
    arguments.add(id).unwrap();
    arguments
}

async fn read(connection: &mut PgConnection, arguments: PgArguments) -> Option<PgRow> {
    sqlx::query_with(READ, arguments).fetch_optional(connection).await.unwrap()
}

/// The times of the variants, round by round, and what they allocate.
#[derive(Default)]
struct Table {
    variants: Vec<(&'static str, Vec<f64>, u64)>,
}

impl Table {
    /// Runs one variant for a while.
    async fn run(&mut self, name: &'static str, count: u32, mut once: impl AsyncFnMut()) {
        once().await;
        let (started, allocated) = (Instant::now(), ALLOCATIONS.load(Relaxed));
        for _ in 0..count {
            once().await;
        }
        let time = started.elapsed().as_secs_f64() * 1e6 / f64::from(count);
        let allocated = (ALLOCATIONS.load(Relaxed) - allocated) / u64::from(count);
        match self.variants.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, times, allocations)) => {
                times.push(time);
                *allocations = allocated;
            }
            None => self.variants.push((name, vec![time], allocated)),
        }
    }

    fn print(&mut self, title: &str, bare: &str) {
        let base = self.variants.iter().find(|(name, ..)| *name == bare).unwrap().1.clone();
        println!("\n| {title} | µs | ratio | allocations |\n|---|---|---|---|");
        self.variants.sort_by_key(|(name, ..)| *name);
        for (name, times, allocations) in &self.variants {
            let ratios = times.iter().zip(&base).map(|(time, base)| time / base).collect();
            let time = median(times.clone());
            println!("| {} | {time:.1} | {:.3} | {allocations} |", &name[3..], median(ratios));
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One connection, so that all variants use one that is warm.
async fn database(
    url: &str,
    set: impl FnOnce(DatabaseConfigBuilder) -> DatabaseConfigBuilder,
) -> Database {
    let config = DatabaseConfig::builder().url(url).pool_size(1).max_overflow(0);
    Database::connect(&set(config).build().unwrap()).await.unwrap()
}

#[tokio::main]
async fn main() {
    let rounds: u32 = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(20);
    let server =
        std::env::var("DATABASE_URL").map_err(|_| private_postgres::Server::start().unwrap());
    let url = match &server {
        Ok(url) => url.clone(),
        Err(server) => server.url("postgres"),
    };
    let db = database(&url, |config| config).await;
    db.migrate().await.unwrap();
    let unlimited = database(&url, |config| config.statement_timeout(Duration::ZERO)).await;
    let unpinged = database(&url, |config| config.pool_pre_ping(false)).await;
    let user = NewUser::new(format!("{}@example.org", Uuid::now_v7()));
    let user = db.users().create(user).await.unwrap();
    let conversation = db.conversations().create(user.id, None).await.unwrap();
    let id = user.id.as_uuid();
    let mut bare = PgConnection::connect(&url).await.unwrap();
    let permits = Arc::new(Semaphore::new(1));
    let kept = Mutex::new(Kept::default());
    let second = PgConnection::connect(&url).await.unwrap();
    kept.lock().unwrap().warm.push_back(second);

    let (mut reads, mut units) = (Table::default(), Table::default());
    for round in 0..rounds {
        for step in 0..8 {
            match (step + round) % 8 {
                0 => {
                    reads
                        .run("00 a bare connection, kept", 500, async || {
                            read(&mut bare, arguments(id)).await;
                        })
                        .await;
                }
                1 => {
                    reads
                        .run("01 + a limit for the answer", 500, async || {
                            timeout(LIMIT, read(&mut bare, arguments(id))).await.unwrap();
                        })
                        .await;
                }
                2 => {
                    reads
                        .run("02 + a copy of the arguments", 500, async || {
                            let arguments = arguments(id);
                            let copy = arguments.clone();
                            timeout(LIMIT, read(&mut bare, copy)).await.unwrap();
                            drop(arguments);
                        })
                        .await;
                }
                3 => {
                    reads
                        .run("03 + handed on, with its holder noted", 500, async || {
                            let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
                            let (mut connection, holder) = {
                                let mut kept = kept.lock().unwrap();
                                let connection = kept.warm.pop_front().unwrap();
                                kept.next += 1;
                                let holder = kept.next;
                                kept.holders.insert(holder, (Location::caller(), Instant::now()));
                                (connection, holder)
                            };
                            let arguments = arguments(id);
                            let copy = arguments.clone();
                            timeout(LIMIT, read(&mut connection, copy)).await.unwrap();
                            let mut kept = kept.lock().unwrap();
                            kept.holders.remove(&holder);
                            kept.warm.push_back(connection);
                            drop((kept, permit));
                        })
                        .await;
                }
                4 => {
                    reads
                        .run("04 the executor, with all of that", 500, async || {
                            sqlx::query_with(READ, arguments(id))
                                .fetch_optional(db.executor())
                                .await
                                .unwrap();
                        })
                        .await;
                }
                5 => {
                    reads
                        .run("05 the same, no limit for the answer", 500, async || {
                            sqlx::query_with(READ, arguments(id))
                                .fetch_optional(unlimited.executor())
                                .await
                                .unwrap();
                        })
                        .await;
                }
                6 => {
                    reads
                        .run("06 the same, no test of idle connections", 500, async || {
                            sqlx::query_with(READ, arguments(id))
                                .fetch_optional(unpinged.executor())
                                .await
                                .unwrap();
                        })
                        .await;
                }
                _ => {
                    reads
                        .run("07 the repository: the whole row, as its type", 500, async || {
                            db.users().get_by_id(user.id).await.unwrap();
                        })
                        .await;
                }
            }
        }

        let write = |id: Uuid| sqlx::query(WRITE).bind(id).bind(conversation.id.as_uuid());
        for step in 0..6 {
            match (step + round) % 6 {
                0 => {
                    units
                        .run("00 a bare connection, kept", 100, async || {
                            let mut transaction = bare.begin().await.unwrap();
                            write(Uuid::now_v7()).execute(&mut *transaction).await.unwrap();
                            transaction.commit().await.unwrap();
                        })
                        .await;
                }
                1 => {
                    units
                        .run("01 + BEGIN and COMMIT in tasks of their own", 100, async || {
                            let mut connection = kept.lock().unwrap().warm.pop_front().unwrap();
                            let begin = tokio::spawn(async move {
                                sqlx::query("begin")
                                    .execute(&mut connection)
                                    .await
                                    .map(|_| connection)
                            });
                            let mut connection = begin.await.unwrap().unwrap();
                            write(Uuid::now_v7()).execute(&mut connection).await.unwrap();
                            let commit = tokio::spawn(async move {
                                sqlx::query("commit")
                                    .execute(&mut connection)
                                    .await
                                    .map(|_| connection)
                            });
                            let connection = commit.await.unwrap().unwrap();
                            kept.lock().unwrap().warm.push_back(connection);
                        })
                        .await;
                }
                2 => {
                    units
                        .run("02 the unit of work, by hand", 100, async || {
                            let mut uow = db.begin().await.unwrap();
                            write(Uuid::now_v7()).execute(uow.executor()).await.unwrap();
                            uow.commit().await.unwrap();
                        })
                        .await;
                }
                3 => {
                    units
                        .run("03 the same, no limit for the answers", 100, async || {
                            let mut uow = unlimited.begin().await.unwrap();
                            write(Uuid::now_v7()).execute(uow.executor()).await.unwrap();
                            uow.commit().await.unwrap();
                        })
                        .await;
                }
                4 => {
                    units
                        .run(
                            "04 the closure form: collisions repeated, no second connection",
                            100,
                            async || {
                                let message = NewMessage::user(conversation.id, "Why the Moon?");
                                db.transaction(async |uow| uow.messages().create(message).await)
                                    .await
                                    .unwrap();
                            },
                        )
                        .await;
                }
                _ => {
                    units
                        .run("05 the same, with a deadline", 100, async || {
                            let options = TransactionOptions::default().deadline(LIMIT);
                            let message = NewMessage::user(conversation.id, "Why the Moon?");
                            db.transaction_with(options, async |uow| {
                                uow.messages().create(message).await
                            })
                            .await
                            .unwrap();
                        })
                        .await;
                }
            }
        }
    }
    println!("{rounds} rounds, one client");
    reads.print("an autocommit read", "00 a bare connection, kept");
    units.print("a unit of work: BEGIN, a message, COMMIT", "00 a bare connection, kept");
    for db in [db, unlimited, unpinged] {
        db.close().await;
    }
}
