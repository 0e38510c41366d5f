//! Which statements are sent again when the connection breaks: those that change nothing.

use sqlx::PgPool;

use crate::round_trips::source;
use crate::support::statements::{self, OWNED, Statement, one_line};

/// Volatile functions that change nothing all the same.
const HARMLESS: [(&str, &str); 1] =
    [("pg_xact_status", "asks how a transaction ended; later the answer may be another one")];

/// Words of statements that write or lock.
const WRITING: [&str; 9] =
    ["insert", "update", "delete", "merge", "truncate", "lock", "share", "into", "nextval"];

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// The names before a parenthesis.
fn called(text: &str) -> Vec<String> {
    let before = |at: usize| words(text[..at].trim_end()).last().map(str::to_owned);
    let mut names: Vec<_> = text.match_indices('(').filter_map(|(at, _)| before(at)).collect();
    names.sort();
    names.dedup();
    names
}

/// Why a statement must not be sent again.
async fn reason(pool: &PgPool, text: &str) -> Option<String> {
    let text = one_line(text).to_lowercase();
    if !text.starts_with("select ") {
        return Some("it is no select".into());
    }
    if let Some(word) = words(&text).find(|word| WRITING.contains(word)) {
        return Some(format!("it says {word}"));
    }
    let volatile: Vec<String> = sqlx::query_scalar(
        "select distinct proname::text from pg_proc where proname = any($1) and provolatile = 'v'",
    )
    .bind(called(&text))
    .fetch_all(pool)
    .await
    .unwrap();
    let harmless = |name: &String| HARMLESS.iter().any(|(harmless, _)| harmless == name);
    volatile.into_iter().find(|name| !harmless(name)).map(|name| format!("it calls {name}()"))
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_may_be_sent_again_changes_nothing(pool: PgPool) {
    let statements = statements::of_the_crate();
    let repeatable: Vec<_> = statements.iter().filter(|statement| statement.repeatable).collect();
    assert!(repeatable.len() > 60, "only {} of {}", repeatable.len(), statements.len());
    for Statement { name, text, .. } in &repeatable {
        let reason = reason(&pool, text).await;
        assert_eq!(reason, None, "{name} may be sent again: {text}");
    }
    for (name, _) in HARMLESS {
        let used = repeatable.iter().any(|s| called(&s.text).iter().any(|called| called == name));
        assert!(used, "nothing needs the exception for {name} any more");
    }
}

/// So that the law above is not kept by not seeing anything.
#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_writes_is_seen(pool: PgPool) {
    for text in [
        "select delete_document($1)",
        "select inserted from replace_chunks($1, $2)",
        "select id from users where id = $1 for update",
        "select id from users where id = $1 for share",
        "with gone as (delete from users returning id) select id from gone",
        "select nextval ('ids')",
        "select gen_random_uuid()",
        "insert into users (email) values ($1)",
    ] {
        assert!(reason(&pool, text).await.is_some(), "{text}");
    }
    for text in ["select count(*), now() from users where lower(email) = lower($1)"] {
        assert_eq!(reason(&pool, text).await, None);
    }
}

/// A method says that it reads by where it stands, and by what it runs on: the two say the same.
#[test]
fn the_methods_that_read_are_those_whose_statements_may_be_sent_again() {
    let (calls, reading) = (source::repositories(), source::reading_methods());
    assert!(reading.len() > 40, "{reading:?}");
    let mut seen = 0;
    for Statement { name, repeatable, .. } in statements::of_the_crate() {
        for name in name.split(", ").map(|name| name.trim_end_matches(OWNED)) {
            let Some((repository, method)) = name.split_once("::") else { continue };
            let Some(call) = calls.get(repository) else { continue };
            let reads = reading.contains(&format!("{call}().{method}"));
            assert_eq!(repeatable, reads, "{name}: may be sent again, reads");
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}
