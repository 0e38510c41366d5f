//! Pages from the query string.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use url::form_urlencoded;

use crate::db::{Error, PageRequest, Reason, Result};

/// From the query string: `?size=20&after=…`. Either may be missing or empty; other parameters are
/// left to others. Feature `axum`.
///
/// The rejection is [`Error::InvalidInput`], so a size that is no number or a cursor that was damaged
/// answers 422; so does a size out of range, when the list is asked for.
impl<S: Sync> FromRequestParts<S> for PageRequest {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        from_query(parts.uri.query().unwrap_or_default())
    }
}

fn from_query(query: &str) -> Result<PageRequest> {
    let mut page = PageRequest::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()).filter(|(_, v)| !v.is_empty()) {
        match &*key {
            "size" => {
                let malformed = |_| Error::invalid("size", Reason::Malformed("a whole number"));
                page.size = value.parse().map_err(malformed)?;
            }
            "after" => page.after = Some(value.parse()?),
            _ => {}
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_empty_has_its_default() {
        for query in ["", "size=&after=", "sort=asc&=&%00=%ff"] {
            assert_eq!(from_query(query).unwrap(), PageRequest::default(), "{query}");
        }
        assert_eq!(from_query("x=1&size=7").unwrap(), PageRequest::first(7));
    }

    #[test]
    fn what_can_not_be_read_is_refused_by_name() {
        for (query, field) in [
            ("size=ten", "size"),
            ("size=1.5", "size"),
            ("size=99999999999999999999", "size"),
            ("after=x", "after"),
            ("size=5&after=%00", "after"),
        ] {
            match from_query(query) {
                Err(Error::InvalidInput(e)) => assert_eq!(e.field, field),
                other => panic!("{query}: {other:?}"),
            }
        }
    }
}
