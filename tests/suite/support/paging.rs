//! Walking through lists.

use chancery::{MAX_PAGE_SIZE, Page, PageRequest, Result};

/// Limits and page sizes that every list refuses.
pub const BAD_LIMITS: [i64; 5] = [-1, MAX_PAGE_SIZE + 1, i64::MIN, i64::MAX, i64::MAX - 1];

/// All items of a paged list, in pages of `size`. Cursors travel as text, as they do with clients.
pub async fn all_pages<T>(
    size: i64,
    fetch: impl AsyncFn(PageRequest) -> Result<Page<T>>,
) -> Vec<T> {
    let mut request = PageRequest::first(size);
    let mut items = Vec::new();
    loop {
        let page = fetch(request).await.unwrap();
        let count = page.items.len() as i64;
        items.extend(page.items);
        match page.next {
            None => {
                assert!(count <= size, "{count} items on a page of {size}");
                assert!(count > 0 || items.is_empty(), "an empty page at the end");
                return items;
            }
            Some(cursor) => {
                assert_eq!(count, size, "a page that is not the last one is full");
                request = PageRequest::after(size, cursor.to_string().parse().unwrap());
            }
        }
    }
}
