//! What working for a user costs, as a ratio to the plain form.

use std::time::{Duration, Instant};

use chancery::{Database, NewMessage, PageRequest};
use sqlx::PgPool;

use super::{Tenants, World};
use crate::support::{conversation_of, messages};

const ROUNDS: usize = 400;
/// Statements of a unit of work.
const UNIT: u32 = 20;

/// Medians, measured in turns in one run:
/// `cargo test --test suite tenants::price -- --ignored --nocapture`.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
#[ignore = "prints figures"]
async fn the_price_of_working_for_a_user(pool: PgPool) {
    // Each with connections of its own; the mixed ones go from a user to the service and back.
    let (users, service, mixed) = (
        Tenants::new(&pool, "users").await,
        Tenants::new(&pool, "service").await,
        Tenants::new(&pool, "mixed").await,
    );
    let plain = Database::from_pool(pool.clone());
    let world = World::new(&plain).await;
    let user = world.user.id;
    let long = conversation_of(&plain, user).await;
    plain.messages().create_many(messages(&long, 1000)).await.unwrap();
    sqlx::raw_sql("analyze").execute(&pool).await.unwrap();

    println!(
        "medians of {ROUNDS} in turns | superuser | service | a user's | on mixed connections | in a unit of {UNIT}"
    );
    macro_rules! measure {
        ($name:literal, $repository:ident().$method:ident($($argument:expr),*)) => {{
            let mut times: [Vec<Duration>; 6] = Default::default();
            for _ in 0..ROUNDS {
                let mut column = times.iter_mut();
                macro_rules! time {
                    ($statements:expr, $work:block) => {{
                        let started = Instant::now();
                        $work
                        column.next().unwrap().push(started.elapsed() / $statements);
                    }};
                }
                time!(1, { plain.$repository().$method($($argument),*).await.unwrap(); });
                time!(1, { service.db.$repository().$method($($argument),*).await.unwrap(); });
                time!(1, { users.db.as_user(user).$repository().$method($($argument),*).await.unwrap(); });
                mixed.db.$repository().$method($($argument),*).await.unwrap();
                time!(1, { mixed.db.as_user(user).$repository().$method($($argument),*).await.unwrap(); });
                time!(UNIT, {
                    let mut uow = plain.begin().await.unwrap();
                    for _ in 0..UNIT {
                        uow.$repository().$method($($argument),*).await.unwrap();
                    }
                    uow.commit().await.unwrap();
                });
                time!(UNIT, {
                    let mut uow = users.db.as_user(user).begin().await.unwrap();
                    for _ in 0..UNIT {
                        uow.$repository().$method($($argument),*).await.unwrap();
                    }
                    uow.commit().await.unwrap();
                });
            }
            let [plain, service, user, mixed, plain_unit, user_unit] = times.map(|mut times| {
                times.sort_unstable();
                times[ROUNDS / 2].as_secs_f64()
            });
            println!(
                "{:<24} | {:>3.0} µs | × {:.2} | × {:.2} | × {:.2} | × {:.2} of {:.0} µs",
                $name, plain * 1e6, service / plain, user / plain, mixed / plain,
                user_unit / plain_unit, plain_unit * 1e6
            );
        }};
    }
    measure!("point read", messages().get_by_id(world.message.id));
    measure!(
        "page of 50 messages",
        messages().page_by_conversation(long.id, PageRequest::first(50))
    );
    measure!("page of conversations", conversations().page_by_user(user, PageRequest::first(10)));
    measure!("job, by its project", extraction_jobs().get_by_id(world.job.id));
    measure!(
        "insert of a message",
        messages().create(NewMessage::user(world.conversation.id, "m"))
    );
    for tenants in [users, service, mixed] {
        tenants.end().await;
    }
}
