//! Borrowers to be stored.

use rust_decimal::Decimal;
use serde_json::Value;

use super::{BorrowerId, SsnHash};
use crate::db::id::debug_fields;
use crate::db::{Result, input};
use crate::identity::UserId;
use crate::intake::account_number::{AccountColumns, NewAccount};
use crate::intake::income_record::{IncomeColumns, NewIncomeRecord};
use crate::intake::source_reference::{NewSourceReference, SourceColumns};

/// What is known of a borrower, to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewRecords {
    /// What was earned.
    pub incomes: Vec<NewIncomeRecord>,
    /// Which accounts there are.
    pub accounts: Vec<NewAccount>,
    /// Where all of that stands.
    pub sources: Vec<NewSourceReference>,
}

impl NewRecords {
    pub(super) fn check(&self) -> Result<()> {
        input::each("incomes", &self.incomes, NewIncomeRecord::check)?;
        input::each("accounts", &self.accounts, NewAccount::check)?;
        input::each("sources", &self.sources, NewSourceReference::check)
    }
}

/// A borrower to be stored, with what is known.
///
/// ```
/// use chancery::{AccountNumber, DocumentId, NewAccount, NewBorrower, NewIncomeRecord};
/// use chancery::NewSourceReference;
/// use rust_decimal::Decimal;
///
/// # let document_id = DocumentId::new();
/// let borrower = NewBorrower::new("Ada Example")
///     .confidence_score(Decimal::new(95, 2))
///     .income(NewIncomeRecord::new(Decimal::new(7_250_050, 2), "annual", 2025, "employment"))
///     .account(NewAccount::new(AccountNumber::new("000123456789")?, "checking"))
///     .source(NewSourceReference::new(document_id, 1, "Wages 72,500.50").chars(120, 135));
/// # Ok::<(), chancery::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct NewBorrower {
    /// None, unless said: nobody's. With an owner, it goes when the owner's account goes.
    pub user_id: Option<UserId>,
    /// 1 to 255 characters.
    pub name: String,
    /// The hash of the social security number.
    pub ssn_hash: Option<SsnHash>,
    /// At most [`MAX_JSON_DEPTH`](crate::MAX_JSON_DEPTH) levels.
    pub address: Option<Value>,
    /// 0 to 1, with at most two decimals; 0 unless said.
    pub confidence_score: Decimal,
    /// What is known.
    pub records: NewRecords,
}

debug_fields!(NewBorrower { user_id, confidence_score });

impl NewBorrower {
    /// With a name and nothing else.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            user_id: None,
            name: name.into(),
            ssn_hash: None,
            address: None,
            confidence_score: Decimal::ZERO,
            records: NewRecords::default(),
        }
    }

    /// With an owner.
    pub fn user_id(mut self, owner: UserId) -> Self {
        self.user_id = Some(owner);
        self
    }

    /// With the hash of the social security number.
    pub fn ssn_hash(mut self, hash: SsnHash) -> Self {
        self.ssn_hash = Some(hash);
        self
    }

    /// With an address.
    pub fn address(mut self, address: Value) -> Self {
        self.address = Some(address);
        self
    }

    /// With how sure the extraction was.
    pub fn confidence_score(mut self, score: Decimal) -> Self {
        self.confidence_score = score;
        self
    }

    /// With one more income.
    pub fn income(mut self, income: NewIncomeRecord) -> Self {
        self.records.incomes.push(income);
        self
    }

    /// With one more account.
    pub fn account(mut self, account: NewAccount) -> Self {
        self.records.accounts.push(account);
        self
    }

    /// With one more place in a document.
    pub fn source(mut self, source: NewSourceReference) -> Self {
        self.records.sources.push(source);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        input::name("name", &self.name, 255)?;
        self.address.as_ref().map_or(Ok(()), |v| input::json("address", v))?;
        input::decimal(
            "confidence_score",
            self.confidence_score,
            (Decimal::ZERO, Decimal::ONE),
            "a number from 0 to 1 with at most two decimals",
        )?;
        self.records.check()
    }
}

/// Records by column, as `unnest` takes them.
#[derive(Default)]
pub(super) struct RecordColumns {
    pub incomes: IncomeColumns,
    pub accounts: AccountColumns,
    pub sources: SourceColumns,
}

impl RecordColumns {
    pub fn push(&mut self, borrower_id: BorrowerId, new: NewRecords) {
        new.incomes.into_iter().for_each(|income| self.incomes.push(borrower_id, income));
        new.accounts.into_iter().for_each(|account| self.accounts.push(borrower_id, account));
        new.sources.into_iter().for_each(|source| self.sources.push(borrower_id, source));
    }
}
