//! Borrowers in lists: by owner, by document, by hash, by part of a name or of an account's number.

use super::{Borrower, BorrowerRepository, SsnHash};
use crate::db::page::limit_offset;
use crate::db::{Error, Reason, Result, input, rows};
use crate::identity::UserId;
use crate::intake::DocumentId;
use crate::repositories::Access;

impl<A: Access> BorrowerRepository<'_, A> {
    /// A user's borrowers, newest first.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list_by_user(
        self,
        user_id: UserId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Borrower>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        rows::all(self.conn.repeatable(), "borrowers", || {
            sqlx::query_as!(
                Borrower,
                "select id, user_id, name, ssn_hash, address, confidence_score, created_at
               from borrowers
              where user_id = $1
              order by created_at desc, id desc
              limit $2 offset $3",
                user_id.as_uuid(),
                limit,
                offset,
            )
        })
        .await
    }

    /// The borrowers that a document tells of, by name.
    ///
    /// # Errors
    ///
    /// As [`list_by_user`](Self::list_by_user).
    pub async fn list_by_document(
        self,
        document_id: DocumentId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Borrower>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        rows::all(self.conn.repeatable(), "borrowers", || {
            sqlx::query_as!(
                Borrower,
                "select id, user_id, name, ssn_hash, address, confidence_score, created_at
               from borrowers
              where id in (select borrower_id from source_references where document_id = $1)
              order by name, id
              limit $2 offset $3",
                document_id.as_uuid(),
                limit,
                offset,
            )
        })
        .await
    }

    /// The borrowers with this social security number, oldest first: the same person, read out of
    /// several documents.
    ///
    /// # Errors
    ///
    /// As [`list_by_user`](Self::list_by_user).
    pub async fn list_by_ssn_hash(self, ssn_hash: &SsnHash, limit: i64) -> Result<Vec<Borrower>> {
        let (limit, _) = limit_offset(limit, 0)?;
        rows::all(self.conn.repeatable(), "borrowers", || {
            sqlx::query_as!(
                Borrower,
                "select id, user_id, name, ssn_hash, address, confidence_score, created_at
               from borrowers
              where ssn_hash = $1
              order by created_at, id
              limit $2",
                ssn_hash.expose(),
                limit,
            )
        })
        .await
    }

    /// The borrowers whose name contains `part`, however it is capitalised, by name. `owner`: only
    /// this user's; none: everybody's, for the service.
    ///
    /// Beyond ASCII, what is one letter in two cases is the database's locale's to say.
    /// Every character stands for itself, `%` and `_` too. An index finds parts of three characters
    /// and more; for shorter ones all names are read.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](Error::InvalidInput) for an empty part; as [`list_by_user`](Self::list_by_user).
    pub async fn search_by_name(
        self,
        owner: Option<UserId>,
        part: &str,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Borrower>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        let Some(pattern) = containing(part, 255)? else { return Ok(Vec::new()) };
        // Pieces first, by index; `like` then looks at what has them all.
        Ok(match owner {
            None => {
                rows::all(self.conn.repeatable(), "borrowers", || {
                    sqlx::query_as!(
                        Borrower,
                        "select id, user_id, name, ssn_hash, address, confidence_score, created_at
                       from borrowers
                      where text_trigrams(name) @> text_trigrams($1)
                        and lower(name) like lower($2)
                      order by name, id
                      limit $3 offset $4",
                        part,
                        pattern,
                        limit,
                        offset,
                    )
                })
                .await?
            }
            Some(owner) => {
                rows::all(self.conn.repeatable(), "borrowers", || {
                    sqlx::query_as!(
                        Borrower,
                        "select id, user_id, name, ssn_hash, address, confidence_score, created_at
                       from borrowers
                      where user_id = $1
                        and text_trigrams(name) @> text_trigrams($2)
                        and lower(name) like lower($3)
                      order by name, id
                      limit $4 offset $5",
                        owner.as_uuid(),
                        part,
                        pattern,
                        limit,
                        offset,
                    )
                })
                .await?
            }
        })
    }

    /// The borrowers with an account whose number contains `part`, by name. `owner`: only this
    /// user's; none: everybody's, for the service.
    ///
    /// As [`search_by_name`](Self::search_by_name), but case matters.
    ///
    /// # Errors
    ///
    /// As [`search_by_name`](Self::search_by_name).
    pub async fn search_by_account_number(
        self,
        owner: Option<UserId>,
        part: &str,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Borrower>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        let Some(pattern) = containing(part, 50)? else { return Ok(Vec::new()) };
        Ok(match owner {
            None => {
                rows::all(self.conn.repeatable(), "borrowers", || {
                    sqlx::query_as!(
                        Borrower,
                        "select id, user_id, name, ssn_hash, address, confidence_score, created_at
                       from borrowers
                      where id in (select borrower_id
                                     from account_numbers
                                    where text_trigrams(number) @> text_trigrams($1)
                                      and number like $2)
                      order by name, id
                      limit $3 offset $4",
                        part,
                        pattern,
                        limit,
                        offset,
                    )
                })
                .await?
            }
            Some(owner) => {
                rows::all(self.conn.repeatable(), "borrowers", || {
                    sqlx::query_as!(
                        Borrower,
                        "select id, user_id, name, ssn_hash, address, confidence_score, created_at
                       from borrowers
                      where user_id = $1
                        and id in (select borrower_id
                                     from account_numbers
                                    where text_trigrams(number) @> text_trigrams($2)
                                      and number like $3)
                      order by name, id
                      limit $4 offset $5",
                        owner.as_uuid(),
                        part,
                        pattern,
                        limit,
                        offset,
                    )
                })
                .await?
            }
        })
    }
}

/// A LIKE pattern for texts that contain `part`; none when no text of at most `max` characters does.
fn containing(part: &str, max: usize) -> Result<Option<String>> {
    if part.is_empty() {
        return Err(Error::invalid("part", Reason::Empty));
    }
    if !input::could_be_stored(part, max) {
        return Ok(None);
    }
    let mut pattern = String::with_capacity(part.len() + 2);
    pattern.push('%');
    for c in part.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    Ok(Some(pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_every_character_literally() {
        assert_eq!(containing(r"a%_\b", 10).unwrap().unwrap(), r"%a\%\_\\b%");
        assert_eq!(containing("12345", 4).unwrap(), None);
        assert_eq!(containing("\0", 4).unwrap(), None);
        assert!(containing("", 4).is_err());
    }
}
