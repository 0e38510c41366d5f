//! Values to be afraid of.

use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, TimeZone, Utc};
use proptest::collection::vec;
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Number, Value, json};

const TEXTS: [&str; 44] = [
    "",
    " ",
    "\t\r\n",
    "\0",
    "a\0b",
    "'",
    "\"",
    "\\",
    "\\0",
    "%",
    "_",
    "%%",
    "\\%",
    "''",
    "--",
    "/*",
    "$1",
    "{}",
    "{a,\"b\"}",
    "()",
    ",",
    "NULL",
    "null",
    "\u{1}\u{7f}",
    "\u{85}",
    "\u{a0}",
    "e\u{301}",
    "\u{301}",
    "\u{202e}abc",
    "\u{5d0}\u{5d1}",
    "\u{feff}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{fffd}",
    "\u{e000}",
    "\u{2028}",
    "\u{180e}",
    "\u{200b}",
    "İıßǅﬃ",
    "ΣΑΣ",
    "\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    "\u{10ffff}",
    "\u{1f1eb}\u{1f1f7}",
    "\u{20000}",
];

/// Any short text.
pub fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => proptest::sample::select(&TEXTS[..]).prop_map(str::to_owned),
        3 => vec(any::<char>(), 0..12).prop_map(String::from_iter),
        2 => vec(proptest::sample::select(&TEXTS[..]), 1..5).prop_map(|parts| parts.concat()),
        3 => "[a-z0-9]{1,12}",
    ]
}

/// Texts around a limit in characters, among others; most are taken.
pub fn text(max: usize) -> impl Strategy<Value = String> {
    let wide = proptest::sample::select(&['a', ' ', 'ä', '€', '\u{1f600}', '\u{10ffff}'][..]);
    prop_oneof![
        20 => any_text().prop_map(move |text| text.chars().filter(|&c| c != '\0').take(max).collect()),
        2 => any_text(),
        3 => wide.clone().prop_map(move |c| c.to_string().repeat(max)),
        // In bytes it fits.
        1 => wide.clone().prop_map(move |c| c.to_string().repeat(max / c.len_utf8())),
        1 => wide.prop_map(move |c| c.to_string().repeat(max + 1)),
        1 => Just("x".repeat(max) + " "),
        1 => Just("\0".to_owned()),
    ]
}

/// Texts for a column without a limit: some are larger than a page of the server.
pub fn long_text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => any_text(),
        1 => (any::<char>(), 1_000_usize..60_000).prop_map(|(c, n)| c.to_string().repeat(n)),
        1 => vec(any::<char>(), 1_000..4_000).prop_map(String::from_iter),
    ]
}

/// Mostly of e-mail form.
pub fn email() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => any_text(),
        3 => (text(20), text(20), text(10)).prop_map(|(l, d, t)| format!("{l}@{d}.{t}")),
        6 => ("[a-zÄ-ü'%_\\\\]{1,9}", "[a-z\u{1f600}ß.]{1,9}", "[a-z]{1,5}")
                .prop_map(|(l, d, t)| format!("{l}@{d}.{t}")),
        1 => (240_usize..260).prop_map(|n| format!("{}@b.c", "é".repeat(n))),
    ]
}

fn json_number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|n| Number::from_f64(n).map_or(Value::Null, Value::Number)),
        proptest::num::f64::ANY
            .prop_map(|n| Number::from_f64(n).map_or(Value::Null, Value::Number)),
        proptest::sample::select(vec![
            json!(f64::MAX),
            json!(f64::MIN),
            json!(f64::MIN_POSITIVE),
            json!(5e-324),
            json!(-5e-324),
            json!(-0.0),
            json!(0.0),
            json!(1e16),
            json!(0.1),
            json!(i64::MIN),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(9007199254740993_i64),
        ]),
    ]
}

/// JSON of every shape.
pub fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        json_number(),
        // A document has many texts, and one NUL is enough to refuse it.
        any_text().prop_map(|text| Value::String(text.replace('\0', ""))),
    ];
    let tree = leaf.clone().prop_recursive(6, 40, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::Array),
            vec((any_text().prop_map(|key| key.replace('\0', ".")), inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    prop_oneof![
        20 => tree.clone(),
        3 => (1_usize..=130, any::<bool>(), leaf).prop_map(|(depth, arrays, leaf)| {
            nested(depth, arrays, leaf)
        }),
        2 => (63_usize..=66, any::<bool>()).prop_map(|(depth, arrays)| {
            nested(depth, arrays, Value::Null)
        }),
        1 => vec(json_number(), 1_000..2_000).prop_map(Value::Array),
        1 => long_text().prop_map(Value::String),
        1 => (any_text(), tree.clone()).prop_map(|(text, tree)| json!({"k": {text: tree}})),
        1 => (any_text(), tree).prop_map(|(text, tree)| json!([tree, format!("{text}\0")])),
    ]
}

fn nested(depth: usize, arrays: bool, leaf: Value) -> Value {
    (0..depth).fold(leaf, |inner, _| if arrays { json!([inner]) } else { json!({"": inner}) })
}

pub fn date() -> impl Strategy<Value = NaiveDate> {
    let day = |y, m, d| NaiveDate::from_ymd_opt(y, m, d).unwrap();
    prop_oneof![
        8 => (0_u64..3_652_059).prop_map(move |n| day(1, 1, 1) + Days::new(n)),
        1 => proptest::sample::select(vec![
            NaiveDate::MIN, NaiveDate::MAX, day(0, 12, 31), day(0, 2, 29), day(-4713, 11, 24),
            day(10_000, 1, 1),
        ]),
        2 => proptest::sample::select(vec![
            day(1, 1, 1), day(9999, 12, 31), day(1582, 10, 10), day(1999, 12, 31), day(2000, 2, 29),
        ]),
    ]
}

/// Any date, with every time of the day, the leap second included.
pub fn time() -> impl Strategy<Value = DateTime<Utc>> {
    let nanos = prop_oneof![
        0_u32..1_000_000_000,
        proptest::sample::select(vec![0, 1, 999, 1_000, 999_999_000, 999_999_999]),
    ];
    let clock = prop_oneof![
        4 => (0_u32..86_400, nanos.clone()),
        2 => (Just(86_399), nanos.clone()),
        1 => (Just(86_399), nanos.prop_map(|n| n + 1_000_000_000)),
    ];
    let last_day = NaiveDate::from_ymd_opt(9999, 12, 31).unwrap();
    let dates = prop_oneof![6 => date(), 1 => Just(last_day)];
    (dates, clock).prop_map(|(date, (seconds, nanos))| {
        let clock = chrono::NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos).unwrap();
        Utc.from_utc_datetime(&date.and_time(clock))
    })
}

/// Times are stored in microseconds; what is less is cut off, in the direction of the year 2000.
#[track_caller]
pub fn assert_same_time(given: DateTime<Utc>, stored: DateTime<Utc>) {
    let off = stored.timestamp_micros() - given.timestamp_micros();
    assert!((0..=1).contains(&off), "given {given:?}, stored {stored:?}");
}

pub fn duration() -> impl Strategy<Value = Duration> {
    let century = Duration::from_secs(100 * 366 * 24 * 3600);
    prop_oneof![
        4 => (0_u64..80_000, 0_u32..1_000_000_000).prop_map(|(s, n)| Duration::new(s, n)),
        3 => (0_u64..100 * 366 * 24 * 3600, 0_u32..1_000_000_000)
                .prop_map(|(s, n)| Duration::new(s, n)),
        3 => proptest::sample::select(vec![
            Duration::ZERO, Duration::from_nanos(1), Duration::from_nanos(999),
            Duration::from_micros(1), Duration::from_millis(1), century,
        ]),
        1 => proptest::sample::select(vec![
            century + Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX,
        ]),
        1 => any::<Duration>(),
    ]
}

/// Asserts that a time is `lifetime` after another, to what a double and the server resolve.
#[track_caller]
pub fn assert_later_by(start: DateTime<Utc>, lifetime: Duration, end: DateTime<Utc>) {
    let micros = i128::from((end - start).num_microseconds().unwrap());
    let off = micros - i128::try_from(lifetime.as_micros()).unwrap();
    assert!((-1..=1).contains(&off), "{lifetime:?} after {start:?} is not {end:?}");
}

/// Mostly at the edges.
pub fn integer() -> impl Strategy<Value = i32> {
    prop_oneof![
        6 => 0..i32::MAX,
        2 => proptest::sample::select(vec![0, 1, 9999, 10_000, i32::MAX]),
        1 => proptest::sample::select(vec![-1, i32::MIN, i32::MIN + 1]),
    ]
}

pub fn wide_integer() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 0..1001_i64,
        2 => proptest::sample::select(vec![0, 1, 1000, 1001, i64::MAX, i64::MAX - 1]),
        2 => any::<i64>(),
        1 => proptest::sample::select(vec![-1, i64::MIN, i64::MIN + 1]),
    ]
}

/// Decimals of up to 28 digits and as many of them after the point.
pub fn decimal() -> impl Strategy<Value = Decimal> {
    prop_oneof![
        6 => (-999_999_999_999_i64..=999_999_999_999).prop_map(|n| Decimal::new(n, 2)),
        3 => (-1_000_i64..=1_000, 0_u32..4).prop_map(|(n, scale)| Decimal::new(n, scale)),
        1 => (any::<i64>(), 0_u32..=28).prop_map(|(n, scale)| Decimal::new(n, scale)),
        // Zeros after the point count for nothing.
        1 => (0_i64..100, 2_u32..=18).prop_map(|(n, scale)| {
            Decimal::from_i128_with_scale(i128::from(n) * 10_i128.pow(scale), scale)
        }),
        1 => proptest::sample::select(vec![
            Decimal::MAX, Decimal::MIN, Decimal::ZERO, -Decimal::ZERO, Decimal::new(0, 28),
            Decimal::new(1, 28), Decimal::ONE, Decimal::new(1_000_000_000_000, 2),
            Decimal::new(-1_000_000_000_000, 2), Decimal::new(9_999_999_999_995, 3),
        ]),
    ]
}
