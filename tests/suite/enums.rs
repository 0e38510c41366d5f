//! The enums that are stored as text, and the check constraints that hold the same lists.

use std::collections::{BTreeMap, BTreeSet};

use chancery::{DocumentStatus, JobStatus, Role, SummaryLength, TemplateType, UpdateFrequency};
use sqlx::PgPool;

type Values = BTreeSet<String>;

/// The values of an enum, after checking that text and JSON lead back to them.
macro_rules! values {
    ($name:ty) => {{
        let mut values = Values::new();
        for value in <$name>::ALL {
            let text = value.as_str();
            assert_eq!(text.parse(), Ok(*value));
            assert_eq!(value.to_string(), text);
            assert_eq!(serde_json::to_value(value).unwrap(), text);
            assert_eq!(serde_json::from_value::<$name>(text.into()).unwrap(), *value);
            values.insert(text.to_owned());
        }
        for other in ["", "User", " user", "canary"] {
            let error = other.parse::<$name>().unwrap_err();
            assert!(!format!("{error:?} {error}").contains("canary"));
        }
        values
    }};
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_enum_and_its_check_constraint_hold_the_same_values(pool: PgPool) {
    let in_the_crate = BTreeMap::from([
        ("messages_role_check", values!(Role)),
        ("templates_template_type_check", values!(TemplateType)),
        ("user_preferences_update_frequency_check", values!(UpdateFrequency)),
        ("user_preferences_summary_length_check", values!(SummaryLength)),
        ("documents_status_check", values!(DocumentStatus)),
        ("extraction_jobs_status_check", values!(JobStatus)),
    ]);
    let rows: Vec<(String, Vec<String>)> = sqlx::query_as(
        "select conname::text,
                array(select m[1]
                        from regexp_matches(pg_get_constraintdef(oid), '''([^'']*)''::', 'g') m)
           from pg_constraint
          where contype = 'c' and connamespace = current_schema()::regnamespace
            and pg_get_constraintdef(oid) like '%= ANY (%'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let in_the_database: BTreeMap<&str, Values> = rows
        .iter()
        .map(|(name, values)| (name.as_str(), values.iter().cloned().collect()))
        .collect();
    assert_eq!(in_the_database, in_the_crate);
}
