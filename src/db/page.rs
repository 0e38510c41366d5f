//! Pages: bounded lists that go on where the last one ended.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::error::{Error, InvalidInput, Reason, Result};
use super::input;

/// The most rows that any list returns at once.
pub const MAX_PAGE_SIZE: i64 = 1000;

/// Checks a limit (0 to [`MAX_PAGE_SIZE`]) and an offset (0 and up).
pub(crate) fn limit_offset(limit: i64, offset: i64) -> Result<(i64, i64)> {
    input::range("limit", limit, 0, MAX_PAGE_SIZE)?;
    input::range("offset", offset, 0, i64::MAX)?;
    Ok((limit, offset))
}

/// Which page of a list: its size, and where the last one ended.
///
/// ```
/// use chancery::PageRequest;
///
/// let first = PageRequest::first(20);
/// let from_a_client: PageRequest = serde_json::from_str(r#"{"size": 20, "after": null}"#)?;
/// assert_eq!(first, from_a_client);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRequest {
    /// Rows at most: 1 to [`MAX_PAGE_SIZE`]. 50 where a client leaves it out.
    #[serde(default = "default_size")]
    pub size: i64,
    /// The [`Page::next`] of the page before; none for the first one.
    #[serde(default)]
    pub after: Option<Cursor>,
}

fn default_size() -> i64 {
    50
}

impl Default for PageRequest {
    fn default() -> Self {
        Self::first(default_size())
    }
}

impl PageRequest {
    /// The first page.
    pub fn first(size: i64) -> Self {
        Self { size, after: None }
    }

    /// The page after `cursor`.
    pub fn after(size: i64, cursor: Cursor) -> Self {
        Self { size, after: Some(cursor) }
    }

    /// The key of the row after which the page begins: its time and its identifier, or neither.
    pub(crate) fn place(&self) -> Result<(Option<DateTime<Utc>>, Option<Uuid>)> {
        Ok(self.after.as_ref().map(Cursor::key).transpose()?.unzip())
    }

    /// The rows to ask for: one more than the page shows, to know whether another page follows.
    pub(crate) fn rows_to_fetch(&self) -> Result<i64> {
        input::range("size", self.size, 1, MAX_PAGE_SIZE)?;
        Ok(self.size + 1)
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The rows, in the list's order.
    pub items: Vec<T>,
    /// Where the next page begins; none when this was the last one.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Makes a page of the rows that `rows_to_fetch` asked for.
    pub(crate) fn new(
        request: &PageRequest,
        mut items: Vec<T>,
        key: impl Fn(&T) -> (DateTime<Utc>, Uuid),
    ) -> Self {
        let size = usize::try_from(request.size).unwrap_or(usize::MAX);
        let more = items.len() > size;
        items.truncate(size);
        let next = items.last().filter(|_| more).map(|last| {
            let (time, id) = key(last);
            Cursor { micros: time.timestamp_micros(), id }
        });
        Self { items, next }
    }

    /// The same page with its rows converted.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next: self.next }
    }
}

/// A place in a list, to be handed out to clients and taken back as text.
///
/// The text is opaque: its content may change between versions. A text that is damaged or made up is
/// refused as [`InvalidInput`]. It grants nothing: lists are chosen by the method's other arguments.
///
/// ```
/// use chancery::Cursor;
///
/// assert!("not a cursor".parse::<Cursor>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    micros: i64,
    id: Uuid,
}

const VERSION: u8 = 1;
const CHECKSUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

impl Cursor {
    /// The key of the last row that was shown.
    pub(crate) fn key(&self) -> Result<(DateTime<Utc>, Uuid)> {
        let time = DateTime::from_timestamp_micros(self.micros)
            .ok_or_else(|| Error::invalid("after", Reason::Malformed("a cursor")))?;
        Ok((time, self.id))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(29);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.micros.to_be_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(&CHECKSUM.checksum(&bytes).to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Cursor {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let malformed = || InvalidInput { field: "after", reason: Reason::Malformed("a cursor") };
        let bytes: [u8; 29] = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(malformed)?;
        let (content, checksum) = bytes.split_at(25);
        if bytes[0] != VERSION || CHECKSUM.checksum(content).to_be_bytes() != checksum {
            return Err(malformed());
        }
        let micros = i64::from_be_bytes(bytes[1..9].try_into().map_err(|_| malformed())?);
        let id = Uuid::from_bytes(bytes[9..25].try_into().map_err(|_| malformed())?);
        input::time("after", DateTime::from_timestamp_micros(micros).ok_or_else(malformed)?)
            .map_err(|_| malformed())?;
        Ok(Self { micros, id })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor { micros: 1_800_000_000_123_456, id: Uuid::now_v7() }
    }

    #[test]
    fn a_cursor_survives_its_text_form() {
        let cursor = cursor();
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert!(!cursor.to_string().contains(['+', '/', '=']));
    }

    #[test]
    fn a_cursor_with_any_character_changed_is_refused() {
        let text = cursor().to_string();
        for i in 0..text.len() {
            let other = if &text[i..=i] == "A" { "B" } else { "A" };
            let damaged = format!("{}{other}{}", &text[..i], &text[i + 1..]);
            assert!(damaged.parse::<Cursor>().is_err(), "{damaged}");
        }
        for broken in ["", "A", &text[..text.len() - 1], &format!("{text}A"), "ä", "\0"] {
            assert!(broken.parse::<Cursor>().is_err(), "{broken:?}");
        }
    }

    #[test]
    fn limits_and_offsets_out_of_range_are_refused() {
        for (limit, offset) in [(-1, 0), (1001, 0), (i64::MAX, 0), (1, -1), (1, i64::MIN)] {
            assert!(matches!(limit_offset(limit, offset), Err(Error::InvalidInput(_))));
        }
        assert!(limit_offset(0, i64::MAX).is_ok());
    }

    #[test]
    fn a_page_knows_whether_another_follows() {
        let rows: Vec<_> = (0..3).map(|_| (DateTime::UNIX_EPOCH, Uuid::now_v7())).collect();
        let page = Page::new(&PageRequest::first(2), rows.clone(), |row| *row);
        assert_eq!(page.items, rows[..2]);
        assert_eq!(page.next.unwrap().key().unwrap().1, rows[1].1);
        assert_eq!(Page::new(&PageRequest::first(3), rows, |row| *row).next, None);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            failure_persistence: None,
            ..Default::default()
        })]

        /// Of text with a right checksum, too: clients can compute it.
        #[test]
        fn any_text_is_a_cursor_that_can_be_used_or_is_refused(
            text: String,
            like in "[A-Za-z0-9_-]{39}",
            micros: i64,
            id: u128,
        ) {
            let made = Cursor { micros, id: Uuid::from_u128(id) }.to_string();
            for text in [text, like, made] {
                if let Ok(cursor) = text.parse::<Cursor>() {
                    proptest::prop_assert_eq!(cursor.to_string(), text);
                    proptest::prop_assert!(cursor.key().is_ok());
                }
            }
        }
    }
}
