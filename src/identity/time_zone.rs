//! Names of time zones, as the IANA's database has them.
//!
//! New zones appear several times in ten years, and which of them convert times is the server's to say: a
//! list of them in this crate would refuse what the server knows. So a name's form is checked here, against
//! what does not change (the areas, and the old names without an area), and the rest by the server, in the
//! statement that stores it (the triggers on `users.timezone`).

use crate::db::{Error, Reason, Result, input};

const EXPECTED: Reason = Reason::Malformed("the name of a time zone, such as Europe/Paris");

/// The first word of every name that has several.
const AREAS: [&str; 15] = [
    "Africa",
    "America",
    "Antarctica",
    "Arctic",
    "Asia",
    "Atlantic",
    "Australia",
    "Brazil",
    "Canada",
    "Chile",
    "Europe",
    "Indian",
    "Mexico",
    "Pacific",
    "US",
];

/// The names without an area, which are old: none is added. Those of `Etc` too.
const ALONE: [&str; 43] = [
    "CET",
    "CST6CDT",
    "Cuba",
    "EET",
    "EST",
    "EST5EDT",
    "Egypt",
    "Eire",
    "GB",
    "GB-Eire",
    "GMT",
    "GMT+0",
    "GMT-0",
    "GMT0",
    "Greenwich",
    "HST",
    "Hongkong",
    "Iceland",
    "Iran",
    "Israel",
    "Jamaica",
    "Japan",
    "Kwajalein",
    "Libya",
    "MET",
    "MST",
    "MST7MDT",
    "NZ",
    "NZ-CHAT",
    "Navajo",
    "PRC",
    "PST8PDT",
    "Poland",
    "Portugal",
    "ROC",
    "ROK",
    "Singapore",
    "Turkey",
    "UCT",
    "UTC",
    "Universal",
    "W-SU",
    "WET",
];

/// Refuses what can be no time zone's name.
pub(super) fn check(name: &str) -> Result<()> {
    input::name("timezone", name, 50)?;
    if is_name(name) { Ok(()) } else { Err(Error::invalid("timezone", EXPECTED)) }
}

/// Turns the server's refusal of a name into what a malformed one is refused with.
pub(super) fn refused(error: sqlx::Error) -> Error {
    let unknown = error.as_database_error().is_some_and(|e| {
        e.code().as_deref() == Some("22023")
            && e.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
                .is_some_and(|e| e.column() == Some("timezone"))
    });
    if unknown { Error::invalid("timezone", EXPECTED) } else { error.into() }
}

fn is_name(name: &str) -> bool {
    let Some((area, place)) = name.split_once('/') else {
        return name == "Zulu" || ALONE.contains(&name);
    };
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.bytes().all(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'-'))
    };
    match area {
        "Etc" => {
            matches!(place, "Zulu" | "UTC" | "UCT" | "Universal" | "Greenwich") || is_hours(place)
        }
        _ => AREAS.contains(&area) && place.split('/').count() <= 2 && place.split('/').all(word),
    }
}

/// Whether it is `GMT` with an offset in hours: ahead, which is written with a minus, there are more.
fn is_hours(place: &str) -> bool {
    let Some(offset) = place.strip_prefix("GMT") else { return false };
    let hours = |hours: &str, most| {
        !hours.starts_with(['0', '+']) && hours.parse().is_ok_and(|hours: u8| hours <= most)
    };
    match offset.split_at_checked(1) {
        None => true,
        Some(("0", "") | ("+" | "-", "0")) => true,
        Some(("+", west)) => hours(west, 12),
        Some(("-", east)) => hours(east, 14),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_known_area_or_are_known() {
        for name in [
            "UTC",
            "Europe/Paris",
            "America/Argentina/Buenos_Aires",
            "America/Port-au-Prince",
            "Antarctica/DumontDUrville",
            "Asia/Kathmandu",
            "US/East-Indiana",
            "Zulu",
            "GB-Eire",
            "EST5EDT",
            "Etc/GMT",
            "Etc/GMT0",
            "Etc/GMT+0",
            "Etc/GMT+12",
            "Etc/GMT-14",
            "Etc/UTC",
        ] {
            assert!(check(name).is_ok(), "{name}");
        }
        let long = format!("Europe/{}", "A".repeat(44));
        for name in [
            "",
            " UTC",
            "utc",
            "Not/AZone",
            "PST",
            "CEST",
            "UTC+2",
            "GMT+1",
            "FOO3",
            "<+03>-3",
            "+02:00",
            "2",
            "Europe",
            "Europe/",
            "Europe//Paris",
            "europe/paris",
            "Europe/paris",
            "Europe/Paris ",
            "Europe/Paris/A/B",
            "Europe/../Paris",
            "Europe/Zürich",
            "Europe/Paris5",
            "posix/Europe/Paris",
            "Etc/GMT+13",
            "Etc/GMT-15",
            "Etc/GMT1",
            "Etc/GMT+00",
            "Etc/GMT+",
            "Etc/GMT++1",
            "Etc/Paris",
            "localtime",
            "DEFAULT",
            "Europe/Par\0is",
            &long,
        ] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
