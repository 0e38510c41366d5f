//! Hostile input. The law of every method that takes input: what it is given is refused by name before
//! anything is written, or is stored and read back equal.
//!
//! Values are generated. HOSTILE_CASES says how many a law is tried with, HOSTILE_SEED which;
//! `scripts/hostile` is the long form.

mod jobs;
mod library;
mod lists;
mod loans;
mod others;
mod people;
mod values;

use std::fmt::Debug;
use std::panic::AssertUnwindSafe;

use chancery::{Database, Error, Result, UnitOfWork};
use futures_util::FutureExt;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Checks a law with generated values, each in a unit of work that is rolled back. The check says
/// whether the value was taken.
///
/// A value that breaks the law is made as small as it can be, by hand: proptest's own loop can't wait
/// for a future.
async fn law<S: Strategy>(
    db: &Database,
    values: S,
    check: impl AsyncFn(&mut UnitOfWork, S::Value) -> bool,
) {
    let (taken, refused) = tried(db, values, check).await;
    // Neither a law that refuses everything nor one that is never put to the test holds anything.
    assert!(taken + refused < 64 || taken > 0 && refused > 0, "{taken} taken, {refused} refused");
}

/// Checks what holds for every value, with none to be refused.
async fn always<S: Strategy>(
    db: &Database,
    values: S,
    check: impl AsyncFn(&mut UnitOfWork, S::Value),
) {
    tried(db, values, async |uow, value| {
        check(uow, value).await;
        true
    })
    .await;
}

async fn tried<S: Strategy>(
    db: &Database,
    values: S,
    check: impl AsyncFn(&mut UnitOfWork, S::Value) -> bool,
) -> (u64, u64) {
    let seed = number("HOSTILE_SEED", 1);
    let bytes: Vec<u8> = seed.to_be_bytes().repeat(4);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let keeps = async |value| {
        let mut uow = db.begin().await.unwrap();
        let checked = AssertUnwindSafe(check(&mut uow, value)).catch_unwind().await;
        uow.rollback().await.unwrap();
        checked.ok()
    };
    let (mut taken, mut refused) = (0, 0);
    let cases = number("HOSTILE_CASES", 64);
    for case in 0..cases {
        let mut tree = values.new_tree(&mut runner).unwrap();
        match keeps(tree.current()).await {
            Some(true) => taken += 1,
            Some(false) => refused += 1,
            None => {
                let mut smallest = tree.current();
                let mut smaller = tree.simplify();
                for _ in 0..500 {
                    if !smaller {
                        break;
                    }
                    let value = tree.current();
                    if keeps(tree.current()).await.is_none() {
                        smallest = value;
                        smaller = tree.simplify();
                    } else {
                        smaller = tree.complicate();
                    }
                }
                // Checked once more, so that the last panic that is printed is about this value.
                let mut uow = db.begin().await.unwrap();
                check(&mut uow, smallest).await;
                panic!("case {case} of seed {seed} breaks the law, but not a second time");
            }
        }
    }
    (taken, refused)
}

/// What was stored or found; none for what was refused. A refusal leaves the unit of work as it was:
/// usable, with nothing written.
async fn taken<T: Debug>(uow: &mut UnitOfWork, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::InvalidInput(_)) => {
            let untouched: bool =
                sqlx::query_scalar("select pg_current_xact_id_if_assigned() is null")
                    .fetch_one(uow.executor())
                    .await
                    .unwrap();
            assert!(untouched, "something was written before the refusal");
            None
        }
        Err(error) => panic!("neither taken nor refused by name: {error:?}"),
    }
}

/// Whether two documents are the same when numbers count by value: `jsonb` writes 1e16 in full, and
/// knows no negative zero.
fn same_json(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) if x.is_f64() || y.is_f64() => {
            x.as_f64() == y.as_f64()
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same_json(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len()
                && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| same_json(x, y)))
        }
        _ => a == b,
    }
}

#[track_caller]
fn assert_same_json(given: &Value, stored: &Value) {
    assert!(same_json(given, stored), "given {given}, stored {stored}");
}
