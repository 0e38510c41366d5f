//! Income records: what a borrower earned, exactly.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use uuid::Uuid;

use super::borrower::BorrowerId;
use crate::db::id::{debug_fields, id};
use crate::db::page::limit_offset;
use crate::db::{Result, input};
use crate::repositories::{Access, repository};

id!(
    /// Identifies an [`IncomeRecord`].
    IncomeRecordId
);

/// What a borrower earned. Serialised, the amount is a text: JSON's numbers are not exact everywhere.
#[derive(Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct IncomeRecord {
    /// Its identifier.
    pub id: IncomeRecordId,
    /// Who earned it.
    pub borrower_id: BorrowerId,
    /// How much: exact, with two decimals (the driver reads a zero without them).
    pub amount: Decimal,
    /// For how long: `annual`, `monthly`, …
    pub period: String,
    /// In which year.
    pub year: i32,
    /// Where it is from: `employment`, `rental`, …
    pub source_type: String,
    /// Who paid it.
    pub employer: Option<String>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

debug_fields!(IncomeRecord { id, borrower_id, created_at });

/// The record without its borrower, as an array of records holds it.
pub(super) type IncomeRow =
    (IncomeRecordId, Decimal, String, i32, String, Option<String>, DateTime<Utc>);

impl IncomeRecord {
    pub(super) fn from_row(borrower_id: BorrowerId, row: IncomeRow) -> Self {
        let (id, amount, period, year, source_type, employer, created_at) = row;
        Self { id, borrower_id, amount, period, year, source_type, employer, created_at }
    }
}

/// An income to be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct NewIncomeRecord {
    /// At most ten digits before the point and two after it. More decimals are refused, not rounded.
    pub amount: Decimal,
    /// 1 to 20 characters.
    pub period: String,
    /// 1 to 9999.
    pub year: i32,
    /// 1 to 50 characters.
    pub source_type: String,
    /// At most 255 characters.
    pub employer: Option<String>,
}

debug_fields!(NewIncomeRecord { year });

impl NewIncomeRecord {
    /// With what every income has.
    pub fn new(
        amount: Decimal,
        period: impl Into<String>,
        year: i32,
        source_type: impl Into<String>,
    ) -> Self {
        Self {
            amount,
            period: period.into(),
            year,
            source_type: source_type.into(),
            employer: None,
        }
    }

    /// With who paid it.
    pub fn employer(mut self, employer: impl Into<String>) -> Self {
        self.employer = Some(employer.into());
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let most = Decimal::new(999_999_999_999, 2);
        input::decimal(
            "amount",
            self.amount,
            (-most, most),
            "a number of at most ten digits before the point and two after it",
        )?;
        input::name("period", &self.period, 20)?;
        input::range("year", self.year.into(), 1, 9999)?;
        input::name("source_type", &self.source_type, 50)?;
        input::optional_text("employer", self.employer.as_deref(), 255)
    }
}

/// Incomes by column, as `unnest` takes them.
#[derive(Default)]
pub(super) struct IncomeColumns {
    pub ids: Vec<Uuid>,
    pub borrower_ids: Vec<Uuid>,
    pub amounts: Vec<Decimal>,
    pub periods: Vec<String>,
    pub years: Vec<i32>,
    pub source_types: Vec<String>,
    pub employers: Vec<Option<String>>,
}

impl IncomeColumns {
    pub fn push(&mut self, borrower_id: BorrowerId, new: NewIncomeRecord) {
        self.ids.push(IncomeRecordId::new().as_uuid());
        self.borrower_ids.push(borrower_id.as_uuid());
        self.amounts.push(new.amount);
        self.periods.push(new.period);
        self.years.push(new.year);
        self.source_types.push(new.source_type);
        self.employers.push(new.employer);
    }
}

/// What a borrower earned in a year.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct IncomeByYear {
    /// Which year.
    pub year: i32,
    /// The exact sum. Periods are not reckoned with: a monthly amount counts as it stands.
    pub total: Decimal,
    /// Of how many records.
    pub records: i64,
}

debug_fields!(IncomeByYear { year, records });

repository!(
    /// Incomes: [`Database::income_records`](crate::Database::income_records). They are stored with
    /// their borrower: [`BorrowerRepository::create`](crate::BorrowerRepository::create).
    IncomeRecordRepository
);

impl<A: Access> IncomeRecordRepository<'_, A> {
    /// A borrower's incomes, latest year first, then in the order in which they were stored.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list_by_borrower(
        self,
        borrower_id: BorrowerId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<IncomeRecord>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        Ok(sqlx::query_as!(
            IncomeRecord,
            "select id, borrower_id, amount, period, year, source_type, employer, created_at
               from income_records
              where borrower_id = $1
              order by year desc, created_at, id
              limit $2 offset $3",
            borrower_id.as_uuid(),
            limit,
            offset,
        )
        .fetch_all(self.conn.repeatable())
        .await?)
    }

    /// What a borrower earned in each year, latest first.
    pub async fn sum_income_by_year(self, borrower_id: BorrowerId) -> Result<Vec<IncomeByYear>> {
        Ok(sqlx::query_as!(
            IncomeByYear,
            r#"select year, sum(amount) as "total!", count(*) as "records!"
                 from income_records
                where borrower_id = $1
                group by year
                order by year desc"#,
            borrower_id.as_uuid(),
        )
        .fetch_all(self.conn.repeatable())
        .await?)
    }
}
