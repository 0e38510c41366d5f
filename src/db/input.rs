//! Checks of inputs: what can't be stored, or can't be read back, is refused before the server is asked.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use rust_decimal::Decimal;
use serde_json::Value;
use uuid::Uuid;

use super::error::{Error, Reason, Result};

/// The largest text or JSON document that is accepted, in bytes: 64 MiB.
///
/// In JSON a number counts with its zeros: 1e300 is three hundred bytes to the server.
/// PostgreSQL's own limit is 1 GiB a value; a message of that size would have to be held in memory
/// several times over on both sides.
pub const MAX_TEXT_BYTES: usize = 64 * 1024 * 1024;

/// The most that is accepted where many rows are stored by one statement, in bytes of their texts and
/// JSON: 256 MiB. The server takes no message, and no array, of 1 GiB.
pub const MAX_STATEMENT_BYTES: usize = 256 * 1024 * 1024;

/// The deepest JSON that is accepted, in levels of arrays and objects.
///
/// `jsonb` stores far deeper values, which `serde_json` then refuses to read (its limit is 128).
pub const MAX_JSON_DEPTH: usize = 64;

/// A text for a `varchar(max)` column.
pub(crate) fn text(field: &'static str, value: &str, max: usize) -> Result<()> {
    // No text has more characters than bytes: counting is needed only past that.
    if value.len() > max && value.chars().count() > max {
        return Err(Error::invalid(field, Reason::TooLong { max }));
    }
    no_nul(field, value)
}

/// A text for a nullable `varchar(max)` column.
pub(crate) fn optional_text(field: &'static str, value: Option<&str>, max: usize) -> Result<()> {
    value.map_or(Ok(()), |value| text(field, value, max))
}

/// A text that must not be empty, for a `varchar(max)` column.
pub(crate) fn name(field: &'static str, value: &str, max: usize) -> Result<()> {
    if value.is_empty() {
        return Err(Error::invalid(field, Reason::Empty));
    }
    text(field, value, max)
}

/// A text for a `text` column.
pub(crate) fn long_text(field: &'static str, value: &str) -> Result<()> {
    if value.len() > MAX_TEXT_BYTES {
        return Err(Error::invalid(field, Reason::TooLarge { max: MAX_TEXT_BYTES }));
    }
    no_nul(field, value)
}

/// Whether a `varchar(max)` column can hold this text at all: a search for another finds nothing.
pub(crate) fn could_be_stored(value: &str, max: usize) -> bool {
    text("", value, max).is_ok()
}

fn no_nul(field: &'static str, value: &str) -> Result<()> {
    if value.contains('\0') {
        return Err(Error::invalid(field, Reason::ContainsNul));
    }
    Ok(())
}

/// An e-mail address, by the rule of `users_email_check`: something, `@`, and a domain with a dot;
/// no white space.
pub(crate) fn email(field: &'static str, value: &str) -> Result<()> {
    name(field, value, 255)?;
    let well_formed = value
        .split_once('@')
        .filter(|(local, domain)| !local.is_empty() && !domain.contains('@'))
        .and_then(|(_, domain)| domain.rsplit_once('.'))
        .is_some_and(|(host, tld)| !host.is_empty() && !tld.is_empty())
        && !value.contains(|c: char| c.is_whitespace() || c.is_control());
    if !well_formed {
        return Err(Error::invalid(field, Reason::Malformed("an e-mail address")));
    }
    Ok(())
}

/// A JSON document: no NUL in any text or key, not too deep, not too large.
pub(crate) fn json(field: &'static str, value: &Value) -> Result<()> {
    json_size(field, value).map(drop)
}

/// The same, and how large it is, about.
pub(crate) fn json_size(field: &'static str, value: &Value) -> Result<usize> {
    let mut bytes = 0_usize;
    // Own stack: a document deep enough to be refused must not overflow the thread's.
    let mut open = vec![(value, 1_usize)];
    while let Some((value, depth)) = open.pop() {
        bytes += 8;
        match value {
            Value::String(text) => {
                bytes += text.len();
                no_nul(field, text)?;
            }
            Value::Array(_) | Value::Object(_) if depth > MAX_JSON_DEPTH => {
                return Err(Error::invalid(field, Reason::TooDeep { max: MAX_JSON_DEPTH }));
            }
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(members) => {
                for (key, member) in members {
                    bytes += key.len();
                    no_nul(field, key)?;
                    open.push((member, depth + 1));
                }
            }
            // The server writes 5e-324 and 1e308 in full when they are read.
            Value::Number(number) => bytes += zeros(number.as_f64().unwrap_or_default()),
            Value::Null | Value::Bool(_) => {}
        }
        if bytes > MAX_TEXT_BYTES {
            return Err(Error::invalid(field, Reason::TooLarge { max: MAX_TEXT_BYTES }));
        }
    }
    Ok(bytes)
}

/// Checks each element of a list; an error says which of them it is about.
pub(crate) fn each<T>(
    list: &'static str,
    items: &[T],
    mut check: impl FnMut(&T) -> Result<()>,
) -> Result<()> {
    for (index, item) in items.iter().enumerate() {
        check(item).map_err(|error| error.within(list, index))?;
    }
    Ok(())
}

/// What one statement is given in all.
pub(crate) fn statement_size(field: &'static str, bytes: usize) -> Result<()> {
    if bytes > MAX_STATEMENT_BYTES {
        return Err(Error::invalid(field, Reason::TooLarge { max: MAX_STATEMENT_BYTES }));
    }
    Ok(())
}

/// About as many zeros as a number has before or after its digits.
fn zeros(number: f64) -> usize {
    if number == 0.0 { 0 } else { number.abs().log10().abs() as usize }
}

/// A number in a range, both ends included.
pub(crate) fn range(field: &'static str, value: i64, min: i64, max: i64) -> Result<()> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(Error::invalid(field, Reason::OutOfRange { min, max }))
    }
}

/// An exact number for a `numeric(…, 2)` column, both ends included. Decimals that would be rounded
/// away are refused; zeros are none.
pub(crate) fn decimal(
    field: &'static str,
    value: Decimal,
    (min, max): (Decimal, Decimal),
    expected: &'static str,
) -> Result<()> {
    if (min..=max).contains(&value) && value.normalize().scale() <= 2 {
        Ok(())
    } else {
        Err(Error::invalid(field, Reason::Malformed(expected)))
    }
}

/// Seconds for `make_interval`; at most a hundred years, so that no sum leaves the calendar.
pub(crate) fn seconds(field: &'static str, duration: Duration) -> Result<f64> {
    const MAX: i64 = 100 * 366 * 24 * 3600;
    if duration > Duration::from_secs(MAX.unsigned_abs()) {
        return Err(Error::invalid(field, Reason::OutOfRange { min: 0, max: MAX }));
    }
    Ok(duration.as_secs_f64())
}

/// Puts rows into the order in which their identifiers were sent: a statement returns them in any.
pub(crate) fn sort_as<T>(ids: &[Uuid], rows: &mut [T], id: impl Fn(&T) -> Uuid) {
    if ids.is_sorted() {
        return rows.sort_unstable_by_key(id);
    }
    let places: HashMap<Uuid, usize> = ids.iter().copied().zip(0..).collect();
    rows.sort_unstable_by_key(|row| places.get(&id(row)).copied());
}

/// A time that both PostgreSQL and chrono hold.
pub(crate) fn time(field: &'static str, value: DateTime<Utc>) -> Result<()> {
    // As it is stored: a leap second as the second after it, which may be the next year's.
    match DateTime::from_timestamp_micros(value.timestamp_micros()) {
        Some(stored) => date(field, stored.date_naive()),
        None => Err(Error::invalid(field, Reason::TimeOutOfRange)),
    }
}

/// A date that both PostgreSQL and chrono hold.
pub(crate) fn date(field: &'static str, value: NaiveDate) -> Result<()> {
    if (1..=9999).contains(&value.year()) {
        Ok(())
    } else {
        Err(Error::invalid(field, Reason::TimeOutOfRange))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reason<T: std::fmt::Debug>(result: Result<T>) -> Reason {
        match result.unwrap_err() {
            Error::InvalidInput(e) => e.reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lengths_are_characters_not_bytes() {
        assert!(text("f", &"ä".repeat(255), 255).is_ok());
        assert_eq!(reason(text("f", &"ä".repeat(256), 255)), Reason::TooLong { max: 255 });
    }

    #[test]
    fn nul_is_refused_in_text_json_strings_and_json_keys() {
        assert_eq!(reason(text("f", "a\0b", 10)), Reason::ContainsNul);
        assert_eq!(reason(long_text("f", "\0")), Reason::ContainsNul);
        assert_eq!(reason(json("f", &json!(["\0"]))), Reason::ContainsNul);
        assert_eq!(reason(json("f", &json!({"\0": 1}))), Reason::ContainsNul);
    }

    #[test]
    fn json_may_be_64_levels_deep_and_no_deeper() {
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert!(json("f", &nested(64)).is_ok());
        assert_eq!(reason(json("f", &nested(65))), Reason::TooDeep { max: 64 });
    }

    #[test]
    fn a_number_counts_with_the_zeros_that_the_server_writes() {
        // 4 MiB here, 340 MB when it is read.
        let numbers = |number| Value::Array(vec![json!(number); 1_000_000]);
        assert!(json("f", &numbers(0.1)).is_ok());
        for wide in [5e-324, f64::MIN_POSITIVE, f64::MAX, f64::MIN] {
            assert!(matches!(reason(json("f", &numbers(wide))), Reason::TooLarge { .. }));
        }
    }

    #[test]
    fn email_addresses_follow_the_rule_of_the_database() {
        for good in ["a@b.c", "Ada.Lovelace+x@sub.example.org", "ä@ö.ü", "a@b..c"] {
            assert!(email("email", good).is_ok(), "{good}");
        }
        for bad in ["", "a", "@b.c", "a@", "a@b", "a@.c", "a@b.", "a b@c.d", "a@b@c.d", "a@b.c\n"] {
            assert!(email("email", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_outside_of_four_digit_years_are_refused() {
        assert_eq!(reason(time("t", DateTime::<Utc>::MAX_UTC)), Reason::TimeOutOfRange);
        assert_eq!(reason(time("t", DateTime::<Utc>::MIN_UTC)), Reason::TimeOutOfRange);
        assert!(time("t", DateTime::<Utc>::UNIX_EPOCH).is_ok());
        let last = "9999-12-31T23:59:59.999999999Z".parse().unwrap();
        assert!(time("t", last).is_ok());
        let leap = "9999-12-31T23:59:60Z".parse().unwrap();
        assert_eq!(reason(time("t", leap)), Reason::TimeOutOfRange);
    }
}
