//! Numbered pages, as the specifications have them: a page's number, its size, and the total.

use serde::{Deserialize, Serialize};

use super::error::{InvalidInput, Reason};
use super::page::MAX_PAGE_SIZE;

/// Which numbered page: for interfaces that jump to page 7. An offset reads what it skips; where a
/// client only goes on, [`PageRequest`](crate::PageRequest) costs the same on every page.
///
/// What a client sends is checked when it is deserialised.
///
/// ```
/// use chancery::PaginationParams;
///
/// let params: PaginationParams = serde_json::from_str(r#"{"page": 3}"#)?;
/// assert_eq!((params.limit(), params.offset()), (50, 100));
/// assert!(serde_json::from_str::<PaginationParams>(r#"{"page": 0}"#).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct PaginationParams {
    page: i64,
    page_size: i64,
}

#[derive(Deserialize)]
struct Unchecked {
    #[serde(default = "first_page")]
    page: i64,
    #[serde(default = "default_page_size")]
    page_size: i64,
}

fn first_page() -> i64 {
    1
}

fn default_page_size() -> i64 {
    50
}

impl TryFrom<Unchecked> for PaginationParams {
    type Error = InvalidInput;

    fn try_from(params: Unchecked) -> Result<Self, InvalidInput> {
        Self::new(params.page, params.page_size)
    }
}

impl Default for PaginationParams {
    /// The first page, of 50.
    fn default() -> Self {
        Self { page: first_page(), page_size: default_page_size() }
    }
}

impl PaginationParams {
    /// The largest page number: its offset still fits PostgreSQL's `bigint`.
    pub const MAX_PAGE: i64 = i64::MAX / MAX_PAGE_SIZE;

    /// A page from 1, of 1 to [`MAX_PAGE_SIZE`] rows.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`], naming `page` or `page_size`.
    pub fn new(page: i64, page_size: i64) -> Result<Self, InvalidInput> {
        for (field, value, max) in
            [("page", page, Self::MAX_PAGE), ("page_size", page_size, MAX_PAGE_SIZE)]
        {
            if !(1..=max).contains(&value) {
                return Err(InvalidInput::new(field, Reason::OutOfRange { min: 1, max }));
            }
        }
        Ok(Self { page, page_size })
    }

    /// The page's number, from 1.
    pub fn page(&self) -> i64 {
        self.page
    }

    /// Rows on a page.
    pub fn page_size(&self) -> i64 {
        self.page_size
    }

    /// What a list method takes as `limit`.
    pub fn limit(&self) -> i64 {
        self.page_size
    }

    /// What a list method takes as `offset`. It can't overflow.
    pub fn offset(&self) -> i64 {
        (self.page - 1) * self.page_size
    }

    /// The answer for this page: its rows, and how many there are on all pages.
    ///
    /// ```
    /// use chancery::PaginationParams;
    ///
    /// let answer = PaginationParams::new(2, 10)?.envelope(vec!["k"], 11);
    /// assert_eq!(answer.pages, 2);
    /// # Ok::<(), chancery::InvalidInput>(())
    /// ```
    pub fn envelope<T>(&self, items: Vec<T>, total: i64) -> Numbered<T> {
        let total = total.max(0);
        Numbered {
            items,
            page: self.page,
            page_size: self.page_size,
            total,
            pages: total / self.page_size + i64::from(total % self.page_size > 0),
        }
    }
}

/// A numbered page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered<T> {
    /// The rows, in the list's order.
    pub items: Vec<T>,
    /// The page's number, from 1.
    pub page: i64,
    /// Rows on a page.
    pub page_size: i64,
    /// Rows on all pages.
    pub total: i64,
    /// How many pages there are.
    pub pages: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_first_page_of_50() {
        let params: PaginationParams = serde_json::from_str("{}").unwrap();
        assert_eq!(params, PaginationParams::default());
        assert_eq!((params.page(), params.limit(), params.offset()), (1, 50, 0));
    }

    #[test]
    fn pages_and_sizes_out_of_range_are_refused_by_name() {
        for (page, page_size, field) in [
            (0, 50, "page"),
            (-1, 50, "page"),
            (i64::MAX, 50, "page"),
            (1, 0, "page_size"),
            (1, 1001, "page_size"),
            (1, i64::MIN, "page_size"),
        ] {
            assert_eq!(PaginationParams::new(page, page_size).unwrap_err().field, field);
            let json = format!(r#"{{"page": {page}, "page_size": {page_size}}}"#);
            let error = serde_json::from_str::<PaginationParams>(&json).unwrap_err();
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }

    #[test]
    fn the_last_possible_page_has_an_offset_that_fits() {
        let last = PaginationParams::new(PaginationParams::MAX_PAGE, MAX_PAGE_SIZE).unwrap();
        assert!(last.offset() > 0);
    }

    #[test]
    fn an_envelope_counts_its_pages_and_survives_json() {
        let params = PaginationParams::new(1, 10).unwrap();
        for (total, pages) in [(0, 0), (1, 1), (10, 1), (11, 2), (i64::MAX, i64::MAX / 10 + 1)] {
            assert_eq!(params.envelope(Vec::<u8>::new(), total).pages, pages);
        }
        let answer = params.envelope(vec![1, 2], 2);
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(json, r#"{"items":[1,2],"page":1,"page_size":10,"total":2,"pages":1}"#);
        assert_eq!(serde_json::from_str::<Numbered<i32>>(&json).unwrap(), answer);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn any_numbers_are_a_page_that_can_be_asked_for_or_are_refused(
            page: i64,
            size: i64,
            near in 1..=PaginationParams::MAX_PAGE,
            small in 1..=MAX_PAGE_SIZE,
            total: i64,
        ) {
            let refused = PaginationParams::new(page, size).is_err();
            let inside = (1..=PaginationParams::MAX_PAGE).contains(&page)
                && (1..=MAX_PAGE_SIZE).contains(&size);
            proptest::prop_assert_eq!(refused, !inside);
            let params = PaginationParams::new(near, small).unwrap();
            proptest::prop_assert!(params.offset() >= 0);
            let answer = params.envelope(Vec::<u8>::new(), total);
            let rows = i128::from(answer.pages) * i128::from(small) - i128::from(answer.total);
            proptest::prop_assert!((0..small.into()).contains(&rows));
        }
    }
}
