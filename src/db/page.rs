//! Pages: bounded lists that go on where the last one ended.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::error::{Error, InvalidInput, Reason, Result, UnreadableRow};
use super::input;
use super::rows::Listed;

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
    pub(crate) fn place(&self, list: List) -> Result<(Option<DateTime<Utc>>, Option<Uuid>)> {
        Ok(self.after.as_ref().map(|cursor| cursor.key(list)).transpose()?.unzip())
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
    /// The rows of this page that are stored and could not be read: they are missing in `items`.
    /// Empty, and then left out of what is serialised, unless another program or a newer version has
    /// stored what this one can't read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<UnreadableRow>,
}

impl<T> Page<T> {
    /// Makes a page of the rows that `rows_to_fetch` asked for.
    pub(crate) fn new(
        request: &PageRequest,
        list: List,
        rows: impl Into<Listed<T>>,
        key: impl Fn(&T) -> (DateTime<Utc>, Uuid),
    ) -> Self {
        let Listed { mut items, mut lost } = rows.into();
        let size = usize::try_from(request.size).unwrap_or(usize::MAX);
        let more = items.len() + lost.len() > size;
        if more && lost.pop_if(|lost| lost.position == size).is_none() {
            items.pop();
        }
        let last = match lost.last() {
            Some(last) if last.position + 1 == size => last.time.zip(last.id),
            _ => items.last().map(key),
        };
        let next = last.filter(|_| more).map(|(time, id)| Cursor {
            list: list.0,
            micros: time.timestamp_micros(),
            id,
        });
        Self { items, next, unreadable: lost.into_iter().map(|lost| lost.row).collect() }
    }

    /// The same page with its rows converted.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(f).collect(),
            next: self.next,
            unreadable: self.unreadable,
        }
    }
}

/// A place in a list, to be handed out to clients and taken back as text.
///
/// The text is opaque: its content may change between versions. A text that is damaged or made up is
/// refused as [`InvalidInput`], and so is a place in another list: of another method, or of another
/// user's or conversation's rows. It grants nothing: lists are chosen by the method's other arguments.
///
/// ```
/// use chancery::Cursor;
///
/// assert!("not a cursor".parse::<Cursor>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    list: u32,
    micros: i64,
    id: Uuid,
}

/// Which list a cursor is a place in: its name, and whose or which rows it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct List(u32);

impl List {
    pub(crate) fn new(name: &'static str) -> Self {
        Self(CHECKSUM.checksum(name.as_bytes()))
    }

    /// The list of this name that is chosen by `key`.
    pub(crate) fn by(name: &'static str, key: impl AsRef<[u8]>) -> Self {
        let mut digest = CHECKSUM.digest();
        digest.update(name.as_bytes());
        digest.update(key.as_ref());
        Self(digest.finalize())
    }
}

const VERSION: u8 = 2;
const LENGTH: usize = 33;
const CHECKSUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

impl Cursor {
    /// The key of the last row that was shown.
    pub(crate) fn key(&self, list: List) -> Result<(DateTime<Utc>, Uuid)> {
        if self.list != list.0 {
            return Err(Error::invalid("after", Reason::Malformed("a cursor of this list")));
        }
        let time = DateTime::from_timestamp_micros(self.micros)
            .ok_or_else(|| Error::invalid("after", Reason::Malformed("a cursor")))?;
        Ok((time, self.id))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.list.to_be_bytes());
        bytes.extend_from_slice(&self.micros.to_be_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(&CHECKSUM.checksum(&bytes).to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Cursor {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let malformed = || InvalidInput::new("after", Reason::Malformed("a cursor"));
        let bytes: [u8; LENGTH] = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(malformed)?;
        let (content, checksum) = bytes.split_at(LENGTH - 4);
        if bytes[0] != VERSION || CHECKSUM.checksum(content).to_be_bytes() != checksum {
            return Err(malformed());
        }
        let list = u32::from_be_bytes(bytes[1..5].try_into().map_err(|_| malformed())?);
        let micros = i64::from_be_bytes(bytes[5..13].try_into().map_err(|_| malformed())?);
        let id = Uuid::from_bytes(bytes[13..29].try_into().map_err(|_| malformed())?);
        input::time("after", DateTime::from_timestamp_micros(micros).ok_or_else(malformed)?)
            .map_err(|_| malformed())?;
        Ok(Self { list, micros, id })
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
    use super::super::rows::Lost;
    use super::*;

    const LIST: List = List(7);

    fn cursor() -> Cursor {
        Cursor { list: 7, micros: 1_800_000_000_123_456, id: Uuid::now_v7() }
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
        let page = Page::new(&PageRequest::first(2), LIST, rows.clone(), |row| *row);
        assert_eq!(page.items, rows[..2]);
        assert_eq!(page.next.unwrap().key(LIST).unwrap().1, rows[1].1);
        assert_eq!(Page::new(&PageRequest::first(3), LIST, rows, |row| *row).next, None);
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
        let page = PageRequest::after(1, Cursor { list: List::by("a", ada).0, ..cursor() });
        assert!(page.place(List::by("a", ada)).is_ok());
        for other in [List::by("a", bob), List::by("b", ada), List::new("a")] {
            let error = page.place(other).unwrap_err();
            assert_eq!(error.to_string(), "after is not a cursor of this list");
        }
    }

    /// Whichever rows of a list can't be read, its pages show each of the others once.
    #[test]
    fn pages_go_on_past_rows_that_can_not_be_read() {
        const ROWS: usize = 6;
        let key = |n: usize| (DateTime::UNIX_EPOCH, Uuid::from_u128(n as u128));
        for lost in 0..1_usize << ROWS {
            for size in 1..=ROWS {
                let (mut seen, mut from, mut unreadable) = (Vec::new(), 0, 0);
                loop {
                    let mut listed = Listed::from(Vec::new());
                    for (position, n) in (from..ROWS).take(size + 1).enumerate() {
                        if lost & (1 << n) == 0 {
                            listed.items.push(n);
                            continue;
                        }
                        let (time, id) = key(n);
                        let row = UnreadableRow { table: "t", id: id.into(), column: "c".into() };
                        let error = sqlx::Error::RowNotFound;
                        let (id, time) = (Some(id), Some(time));
                        listed.lost.push(Lost { position, id, time, row, error });
                    }
                    let request = PageRequest::first(i64::try_from(size).unwrap());
                    let page = Page::new(&request, LIST, listed, |n| key(*n));
                    assert!(page.items.len() + page.unreadable.len() <= size);
                    seen.extend(page.items);
                    unreadable += page.unreadable.len();
                    let Some(next) = page.next else { break };
                    from = usize::try_from(next.id.as_u128()).unwrap() + 1;
                }
                let readable: Vec<_> = (0..ROWS).filter(|n| lost & (1 << n) == 0).collect();
                assert_eq!((seen, unreadable), (readable, lost.count_ones() as usize));
            }
        }
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
            like in "[A-Za-z0-9_-]{44}",
            list: u32,
            micros: i64,
            id: u128,
        ) {
            let made = Cursor { list, micros, id: Uuid::from_u128(id) }.to_string();
            for text in [text, like, made] {
                if let Ok(cursor) = text.parse::<Cursor>() {
                    proptest::prop_assert_eq!(cursor.to_string(), text);
                    proptest::prop_assert!(cursor.key(List(cursor.list)).is_ok());
                }
            }
        }
    }
}
