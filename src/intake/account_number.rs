//! Account numbers: stored and searched, never printed.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::borrower::BorrowerId;
use crate::db::id::{debug_fields, id};
use crate::db::{Result, input};

id!(
    /// Identifies an [`Account`].
    AccountId
);

/// The number of an account. It neither prints nor serialises: [`last_four`](Self::last_four) is for
/// showing.
///
/// ```
/// use chancery::AccountNumber;
///
/// let number = AccountNumber::new("000123456789")?;
/// assert_eq!(number.last_four(), "6789");
/// assert_eq!(format!("{number:?}"), "AccountNumber(…)");
/// # Ok::<(), chancery::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct AccountNumber(String);

impl AccountNumber {
    /// A number as it is written: 1 to 50 characters.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::InvalidInput).
    pub fn new(number: impl Into<String>) -> Result<Self> {
        let number = number.into();
        input::name("number", &number, 50)?;
        Ok(Self(number))
    }

    /// The whole number; keep it out of logs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The last four characters; of a number of less than eight, never more than half.
    pub fn last_four(&self) -> &str {
        let length = self.0.chars().count();
        let shown = (length / 2).min(4);
        let start = self.0.char_indices().nth(length - shown).map_or(self.0.len(), |(at, _)| at);
        &self.0[start..]
    }
}

impl fmt::Debug for AccountNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountNumber(…)")
    }
}

/// An account of a borrower. Serialised, it leaves the number out.
#[derive(Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct Account {
    /// Its identifier.
    pub id: AccountId,
    /// Whose it is.
    pub borrower_id: BorrowerId,
    /// Its number.
    #[serde(skip)]
    pub number: AccountNumber,
    /// What it is: `checking`, `loan`, …
    pub account_type: String,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

debug_fields!(Account { id, borrower_id, created_at });

/// The account without its borrower, as an array of records holds it.
pub(super) type AccountRow = (AccountId, AccountNumber, String, DateTime<Utc>);

impl Account {
    pub(super) fn from_row(borrower_id: BorrowerId, row: AccountRow) -> Self {
        let (id, number, account_type, created_at) = row;
        Self { id, borrower_id, number, account_type, created_at }
    }
}

/// An account to be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct NewAccount {
    /// Its number.
    pub number: AccountNumber,
    /// 1 to 20 characters.
    pub account_type: String,
}

debug_fields!(NewAccount { account_type });

impl NewAccount {
    /// With what every account has.
    pub fn new(number: AccountNumber, account_type: impl Into<String>) -> Self {
        Self { number, account_type: account_type.into() }
    }

    pub(super) fn check(&self) -> Result<()> {
        input::name("account_type", &self.account_type, 20)
    }
}

/// Accounts by column, as `unnest` takes them.
#[derive(Default)]
pub(super) struct AccountColumns {
    pub ids: Vec<Uuid>,
    pub borrower_ids: Vec<Uuid>,
    pub numbers: Vec<String>,
    pub account_types: Vec<String>,
}

impl AccountColumns {
    pub fn push(&mut self, borrower_id: BorrowerId, new: NewAccount) {
        self.ids.push(AccountId::new().as_uuid());
        self.borrower_ids.push(borrower_id.as_uuid());
        self.numbers.push(new.number.0);
        self.account_types.push(new.account_type);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_number_four_characters_are_shown_or_half_of_a_short_one() {
        for (number, shown) in
            [("1", ""), ("12", "2"), ("1234567", "567"), ("12345678", "5678"), ("ÄÖÜ€ßéñç", "ßéñç")]
        {
            assert_eq!(AccountNumber::new(number).unwrap().last_four(), shown, "{number}");
        }
    }

    #[test]
    fn a_number_has_1_to_50_characters() {
        assert!(AccountNumber::new("").is_err());
        assert!(AccountNumber::new("1\0").is_err());
        assert!(AccountNumber::new("1".repeat(50)).is_ok());
        assert!(AccountNumber::new("1".repeat(51)).is_err());
    }
}
