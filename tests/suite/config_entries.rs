//! The application's settings.

use chancery::{Database, Error};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::support::{BAD_WINDOWS, invalid_field};

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_value_of_any_json_type_can_be_read_back(pool: PgPool) {
    let db = Database::from_pool(pool);
    for value in [
        json!({"model": "m-1", "nested": {"ä": [1, 2.5, null]}}),
        json!([]),
        json!("text 👋"),
        json!(0.7),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(true),
        // As deep as is taken.
        (0..64).fold(json!(1), |inner, _| json!([inner])),
        Value::Null,
    ] {
        let set = db.config().set_value("llm.temperature", &value, Some("How free")).await.unwrap();
        assert_eq!((set.key.as_str(), &set.value), ("llm.temperature", &value));
        assert_eq!(set.description.as_deref(), Some("How free"));
        assert_eq!(db.config().get_value("llm.temperature").await.unwrap(), Some(value));
        assert_eq!(db.config().get("llm.temperature").await.unwrap(), Some(set));
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn numbers_come_back_to_the_last_bit(pool: PgPool) {
    let db = Database::from_pool(pool);
    let edges = [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, 0.1 + 0.2, 1e-307, 5.0, 0.0, -0.5];
    // Such as the components of a vector or a score.
    let fractions = (1..1000_u32).map(|i| f64::from(i.wrapping_mul(2_654_435_761)) / 4e9);
    let numbers: Vec<f64> = edges.into_iter().chain(fractions).collect();
    let set = db.config().set_value("numbers", &json!(numbers), None).await.unwrap();
    let read = db.config().get_value("numbers").await.unwrap().unwrap();
    assert_eq!(set.value, read);
    assert_eq!(serde_json::from_value::<Vec<f64>>(read).unwrap(), numbers);
    for integer in [json!(i64::MIN), json!(u64::MAX), json!(0)] {
        assert_eq!(db.config().set_value("n", &integer, None).await.unwrap().value, integer);
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_setting_that_is_not_there_is_none_and_one_set_to_null_is_not(pool: PgPool) {
    let db = Database::from_pool(pool);
    db.config().set_value("null", &Value::Null, None).await.unwrap();
    assert_eq!(db.config().get_value("null").await.unwrap(), Some(Value::Null));
    for absent in ["Null", "", "nul\0", &"x".repeat(101)] {
        assert_eq!(db.config().get_value(absent).await.unwrap(), None, "{absent:?}");
        assert_eq!(db.config().get(absent).await.unwrap(), None);
        assert!(!db.config().delete(absent).await.unwrap());
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn setting_a_value_again_overwrites_it_and_keeps_a_description_that_is_not_given(
    pool: PgPool,
) {
    let db = Database::from_pool(pool);
    let set = |value: i32, description| {
        let db = db.clone();
        async move { db.config().set_value("k", &json!(value), description).await.unwrap() }
    };
    let first = set(1, None).await;
    assert_eq!(first.description, None);
    let described = set(2, Some("what it does")).await;
    assert_eq!(described.description.as_deref(), Some("what it does"));
    assert!(described.updated_at > first.updated_at);
    let kept = set(3, None).await;
    assert_eq!((kept.value.clone(), kept.description.as_deref()), (json!(3), Some("what it does")));
    let emptied = set(4, Some("")).await;
    assert_eq!(emptied.description.as_deref(), Some(""));
    assert_eq!(db.config().list(10, 0).await.unwrap(), [emptied]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn eight_tasks_that_set_one_key_leave_one_row_and_no_error(pool: PgPool) {
    let db = Database::from_pool(pool);
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let db = db.clone();
        tasks.spawn(async move {
            for round in 0..20 {
                db.config().set_value("k", &json!([task, round]), None).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    let left = db.config().list(10, 0).await.unwrap();
    assert_eq!(left.len(), 1);
    // The last word of one of them.
    assert_eq!(left[0].value[1], 19);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn settings_are_listed_by_key_with_any_limit_and_offset_in_range(pool: PgPool) {
    let db = Database::from_pool(pool);
    let expected = ["a", "b", "c", "d", "e"];
    for key in ["c", "a", "e", "b", "d"] {
        db.config().set_value(key, &json!(key), None).await.unwrap();
    }
    let list = async |limit, offset| {
        let list = db.config().list(limit, offset).await.unwrap();
        list.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    assert_eq!(list(1000, 0).await, expected);
    assert!(list(0, 0).await.is_empty());
    assert_eq!(list(1, 0).await, ["a"]);
    assert_eq!(list(2, 4).await, ["e"]);
    assert!(list(10, 5).await.is_empty());
    assert!(list(10, i64::MAX).await.is_empty());
    assert_eq!([list(2, 0).await, list(2, 2).await, list(2, 4).await].concat(), expected);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_setting_is_removed_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    db.config().set_value("gone", &json!(1), Some("old")).await.unwrap();
    db.config().set_value("kept", &json!(2), None).await.unwrap();
    assert!(db.config().delete("gone").await.unwrap());
    assert!(!db.config().delete("gone").await.unwrap());
    assert_eq!(db.config().get("gone").await.unwrap(), None);
    assert_eq!(db.config().get_value("kept").await.unwrap(), Some(json!(2)));
    // Set anew, it does not remember what it was.
    let anew = db.config().set_value("gone", &json!(3), None).await.unwrap();
    assert_eq!(anew.description, None);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn bad_input_is_refused_by_name_and_the_transaction_goes_on(pool: PgPool) {
    let db = Database::from_pool(pool);
    let too_deep = (0..65).fold(json!(1), |inner, _| json!([inner]));
    let (one, long) = (json!(1), "x".repeat(101));
    let mut uow = db.begin().await.unwrap();
    for (field, key, value, description) in [
        ("key", "", &one, None),
        ("key", long.as_str(), &one, None),
        ("key", "\0", &one, None),
        ("value", "k", &too_deep, None),
        ("value", "k", &json!({"k": "\0"}), None),
        ("description", "k", &one, Some("\0")),
    ] {
        assert_eq!(invalid_field(uow.config().set_value(key, value, description).await), field);
    }
    for (limit, offset, field) in BAD_WINDOWS {
        assert_eq!(invalid_field(uow.config().list(limit, offset).await), field);
    }
    let longest = "ä".repeat(100);
    uow.config().set_value(&longest, &one, None).await.unwrap();
    uow.commit().await.unwrap();
    assert_eq!(db.config().get_value(&longest).await.unwrap(), Some(one));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_setting_of_a_unit_of_work_that_is_rolled_back_was_never_set(pool: PgPool) {
    let db = Database::from_pool(pool);
    db.config().set_value("k", &json!("before"), None).await.unwrap();
    let mut uow = db.begin().await.unwrap();
    uow.config().set_value("k", &json!("inside"), None).await.unwrap();
    assert_eq!(uow.config().get_value("k").await.unwrap(), Some(json!("inside")));
    assert_eq!(db.config().get_value("k").await.unwrap(), Some(json!("before")));
    uow.rollback().await.unwrap();
    assert_eq!(db.config().get_value("k").await.unwrap(), Some(json!("before")));
}
