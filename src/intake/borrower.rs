//! Borrowers: who the documents are about, with what was read about them.

use std::fmt;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::account_number::{Account, AccountRow};
use super::income_record::{IncomeRecord, IncomeRow};
use super::source_reference::{SourceReference, SourceRow};
use crate::db::id::{debug_fields, id};
use crate::db::{Error, Reason, Result, input, rows};
use crate::identity::UserId;
use crate::repositories::{Access, repository};

mod list;
mod new;

use new::RecordColumns;
pub use new::{NewBorrower, NewRecords};

id!(
    /// Identifies a [`Borrower`].
    BorrowerId
);

/// The hash of a social security number. It neither prints nor serialises. The number itself is never
/// stored.
///
/// ```
/// use chancery::SsnHash;
///
/// assert!(SsnHash::new("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08").is_ok());
/// assert!(SsnHash::new("078-05-1120").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct SsnHash(String);

impl SsnHash {
    /// A hash in the application's form (HMAC-SHA-256 in hex, for example): 32 to 64 letters, digits
    /// and signs of ASCII, so that a plain number is not stored by mistake. Case matters.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::InvalidInput).
    pub fn new(hash: impl Into<String>) -> Result<Self> {
        let hash = hash.into();
        if !(32..=64).contains(&hash.len()) || !hash.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid(
                "ssn_hash",
                Reason::Malformed("a hash of 32 to 64 characters"),
            ));
        }
        Ok(Self(hash))
    }

    /// The text, to be compared; keep it out of logs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SsnHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SsnHash(…)")
    }
}

/// Who borrows. Serialised, it leaves the hash of the social security number out.
#[derive(Clone, PartialEq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct Borrower {
    /// Its identifier.
    pub id: BorrowerId,
    /// Whose record it is; none: nobody's.
    pub user_id: Option<UserId>,
    /// What the borrower is called.
    pub name: String,
    /// The hash of the social security number.
    #[serde(skip)]
    pub ssn_hash: Option<SsnHash>,
    /// Where the borrower lives, in the application's form.
    pub address: Option<Value>,
    /// How sure the extraction was: 0 to 1.
    pub confidence_score: Decimal,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

debug_fields!(Borrower { id, user_id, confidence_score, created_at });

/// A borrower with all that is known, in the order in which it was stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BorrowerWithRecords {
    /// The borrower.
    #[serde(flatten)]
    pub borrower: Borrower,
    /// What was earned.
    pub incomes: Vec<IncomeRecord>,
    /// Which accounts there are.
    pub accounts: Vec<Account>,
    /// Where all of that stands.
    pub sources: Vec<SourceReference>,
}

/// A borrower with arrays of records, as one row holds them.
struct Row {
    id: BorrowerId,
    user_id: Option<UserId>,
    name: String,
    ssn_hash: Option<SsnHash>,
    address: Option<Value>,
    confidence_score: Decimal,
    created_at: DateTime<Utc>,
    incomes: Option<Vec<IncomeRow>>,
    accounts: Option<Vec<AccountRow>>,
    sources: Option<Vec<SourceRow>>,
}

impl From<Row> for BorrowerWithRecords {
    fn from(row: Row) -> Self {
        let id = row.id;
        let incomes = row.incomes.unwrap_or_default().into_iter();
        let accounts = row.accounts.unwrap_or_default().into_iter();
        let sources = row.sources.unwrap_or_default().into_iter();
        Self {
            borrower: Borrower {
                id,
                user_id: row.user_id,
                name: row.name,
                ssn_hash: row.ssn_hash,
                address: row.address,
                confidence_score: row.confidence_score,
                created_at: row.created_at,
            },
            incomes: incomes.map(|row| IncomeRecord::from_row(id, row)).collect(),
            accounts: accounts.map(|row| Account::from_row(id, row)).collect(),
            sources: sources.map(|row| SourceReference::from_row(id, row)).collect(),
        }
    }
}

repository!(
    /// Borrowers with their incomes, accounts and source references:
    /// [`Database::borrowers`](crate::Database::borrowers).
    ///
    /// ```no_run
    /// use chancery::{Database, NewBorrower};
    ///
    /// # async fn example(db: Database, read_out: NewBorrower) -> chancery::Result<()> {
    /// let stored = db.borrowers().create(read_out).await?; // with all its records
    /// let again = db.borrowers().get_with_records(stored.borrower.id).await?;
    /// assert_eq!(again, Some(stored));
    ///
    /// let found = db.borrowers().search_by_name(None, "xampl", 20, 0).await?;
    /// let found = db.borrowers().search_by_account_number(None, "6789", 20, 0).await?;
    /// # Ok(()) }
    /// ```
    BorrowerRepository
);

impl BorrowerRepository<'_> {
    /// Stores a borrower with all records: one statement, all or nothing.
    ///
    /// # Errors
    ///
    /// [`ForeignKey`](Error::ForeignKey) when there is no such document or user;
    /// [`InvalidInput`](Error::InvalidInput).
    pub async fn create(self, new: NewBorrower) -> Result<BorrowerWithRecords> {
        new.check()?;
        self.store(vec![new]).await?.pop().ok_or(Error::NotFound("borrower"))
    }

    /// Stores any number of borrowers with all their records in one statement: all of them or none.
    /// They come back in the order given; an empty list asks nothing of the server.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub async fn create_many(self, new: Vec<NewBorrower>) -> Result<Vec<BorrowerWithRecords>> {
        input::each("borrowers", &new, NewBorrower::check)?;
        if new.is_empty() {
            return Ok(Vec::new());
        }
        self.store(new).await
    }

    async fn store(self, new: Vec<NewBorrower>) -> Result<Vec<BorrowerWithRecords>> {
        let mut ids = Vec::with_capacity(new.len());
        let mut user_ids = Vec::with_capacity(new.len());
        let mut names = Vec::with_capacity(new.len());
        let mut ssn_hashes = Vec::with_capacity(new.len());
        let mut addresses = Vec::with_capacity(new.len());
        let mut scores = Vec::with_capacity(new.len());
        let mut records = RecordColumns::default();
        for borrower in new {
            let id = BorrowerId::new();
            ids.push(id.as_uuid());
            user_ids.push(borrower.user_id.map(|id| id.as_uuid()));
            names.push(borrower.name);
            ssn_hashes.push(borrower.ssn_hash.map(|hash| hash.0));
            addresses.push(borrower.address);
            scores.push(borrower.confidence_score);
            records.push(id, borrower.records);
        }
        let RecordColumns { incomes, accounts, sources } = &records;
        // The records are not returned by their inserts: row-level security would look for a borrower
        // that its own statement has not made yet.
        let rows = sqlx::query_as!(
            Row,
            r#"with b as (
                   insert into borrowers (id, user_id, name, ssn_hash, address, confidence_score)
                   select id, user_id, name, ssn_hash, address, confidence_score
                     from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[],
                                 $6::numeric[])
                          as n (id, user_id, name, ssn_hash, address, confidence_score)
                   returning id, user_id, name, ssn_hash, address, confidence_score, created_at
               ), i as (
                   select id, borrower_id, amount::numeric(12, 2), period::varchar(20), year,
                          source_type::varchar(50), employer::varchar(255), now() as created_at
                     from unnest($7::uuid[], $8::uuid[], $9::numeric[], $10::text[], $11::int[],
                                 $12::text[], $13::text[])
                          as n (id, borrower_id, amount, period, year, source_type, employer)
               ), new_i as (
                   insert into income_records (id, borrower_id, amount, period, year,
                                               source_type, employer, created_at)
                   select id, borrower_id, amount, period, year, source_type, employer, created_at
                     from i
               ), a as (
                   select id, borrower_id, number::varchar(50), account_type::varchar(20),
                          now() as created_at
                     from unnest($14::uuid[], $15::uuid[], $16::text[], $17::text[])
                          as n (id, borrower_id, number, account_type)
               ), new_a as (
                   insert into account_numbers (id, borrower_id, number, account_type, created_at)
                   select id, borrower_id, number, account_type, created_at from a
               ), s as (
                   select id, borrower_id, document_id, page_number, section::varchar(100), snippet,
                          char_start, char_end, now() as created_at
                     from unnest($18::uuid[], $19::uuid[], $20::uuid[], $21::int[], $22::text[],
                                 $23::text[], $24::int[], $25::int[])
                          as n (id, borrower_id, document_id, page_number, section, snippet,
                                char_start, char_end)
               ), new_s as (
                   insert into source_references (id, borrower_id, document_id, page_number,
                                                  section, snippet, char_start, char_end,
                                                  created_at)
                   select id, borrower_id, document_id, page_number, section, snippet,
                          char_start, char_end, created_at
                     from s
               )
               select b.id as "id!: BorrowerId", b.user_id as "user_id: UserId",
                      b.name as "name!", b.ssn_hash as "ssn_hash: SsnHash", b.address,
                      b.confidence_score as "confidence_score!", b.created_at as "created_at!",
                      incomes as "incomes: Vec<IncomeRow>",
                      accounts as "accounts: Vec<AccountRow>",
                      sources as "sources: Vec<SourceRow>"
                 from b
                 left join (select borrower_id,
                                   array_agg(row(id, amount, period, year, source_type, employer,
                                                 created_at) order by id) as incomes
                              from i group by borrower_id) i on i.borrower_id = b.id
                 left join (select borrower_id,
                                   array_agg(row(id, number, account_type, created_at)
                                             order by id) as accounts
                              from a group by borrower_id) a on a.borrower_id = b.id
                 left join (select borrower_id,
                                   array_agg(row(id, document_id, page_number, section, snippet,
                                                 char_start, char_end, created_at)
                                             order by id) as sources
                              from s group by borrower_id) s on s.borrower_id = b.id
                order by b.id"#,
            &ids,
            &user_ids as &[Option<Uuid>],
            &names,
            &ssn_hashes as &[Option<String>],
            &addresses as &[Option<Value>],
            &scores,
            &incomes.ids,
            &incomes.borrower_ids,
            &incomes.amounts,
            &incomes.periods,
            &incomes.years,
            &incomes.source_types,
            &incomes.employers as &[Option<String>],
            &accounts.ids,
            &accounts.borrower_ids,
            &accounts.numbers,
            &accounts.account_types,
            &sources.ids,
            &sources.borrower_ids,
            &sources.document_ids,
            &sources.page_numbers,
            &sources.sections as &[Option<String>],
            &sources.snippets,
            &sources.char_starts as &[Option<i32>],
            &sources.char_ends as &[Option<i32>],
        )
        .fetch_all(self.conn)
        .await?;
        Ok(rows.into_iter().map(BorrowerWithRecords::from).collect())
    }

    /// Stores more about a borrower that is there, from another document for example: one statement,
    /// all or nothing.
    ///
    /// # Errors
    ///
    /// [`ForeignKey`](Error::ForeignKey) when there is no such borrower or document;
    /// [`InvalidInput`](Error::InvalidInput).
    pub async fn add_records(self, borrower_id: BorrowerId, new: NewRecords) -> Result<()> {
        new.check()?;
        let mut records = RecordColumns::default();
        records.push(borrower_id, new);
        let RecordColumns { incomes, accounts, sources } = &records;
        sqlx::query!(
            "with i as (
                 insert into income_records (id, borrower_id, amount, period, year, source_type,
                                             employer)
                 select id, borrower_id, amount, period, year, source_type, employer
                   from unnest($1::uuid[], $2::uuid[], $3::numeric[], $4::text[], $5::int[],
                               $6::text[], $7::text[])
                        as n (id, borrower_id, amount, period, year, source_type, employer)
             ), a as (
                 insert into account_numbers (id, borrower_id, number, account_type)
                 select id, borrower_id, number, account_type
                   from unnest($8::uuid[], $9::uuid[], $10::text[], $11::text[])
                        as n (id, borrower_id, number, account_type)
             )
             insert into source_references (id, borrower_id, document_id, page_number, section,
                                            snippet, char_start, char_end)
             select id, borrower_id, document_id, page_number, section, snippet, char_start,
                    char_end
               from unnest($12::uuid[], $13::uuid[], $14::uuid[], $15::int[], $16::text[],
                           $17::text[], $18::int[], $19::int[])
                    as n (id, borrower_id, document_id, page_number, section, snippet,
                          char_start, char_end)",
            &incomes.ids,
            &incomes.borrower_ids,
            &incomes.amounts,
            &incomes.periods,
            &incomes.years,
            &incomes.source_types,
            &incomes.employers as &[Option<String>],
            &accounts.ids,
            &accounts.borrower_ids,
            &accounts.numbers,
            &accounts.account_types,
            &sources.ids,
            &sources.borrower_ids,
            &sources.document_ids,
            &sources.page_numbers,
            &sources.sections as &[Option<String>],
            &sources.snippets,
            &sources.char_starts as &[Option<i32>],
            &sources.char_ends as &[Option<i32>],
        )
        .execute(self.conn)
        .await?;
        Ok(())
    }
}

impl<A: Access> BorrowerRepository<'_, A> {
    /// The borrower with this identifier.
    pub async fn get_by_id(self, id: BorrowerId) -> Result<Option<Borrower>> {
        rows::one(self.conn.repeatable(), "borrowers", || {
            sqlx::query_as!(
                Borrower,
                "select id, user_id, name, ssn_hash, address, confidence_score, created_at
               from borrowers
              where id = $1",
                id.as_uuid(),
            )
        })
        .await
    }

    /// The borrower with all records, in one statement.
    pub async fn get_with_records(self, id: BorrowerId) -> Result<Option<BorrowerWithRecords>> {
        let row = rows::one(self.conn.repeatable(), "borrowers", || {
            sqlx::query_as!(
                Row,
                r#"select id, user_id, name, ssn_hash, address, confidence_score, created_at,
                      array(select row(i.id, i.amount, i.period, i.year, i.source_type,
                                       i.employer, i.created_at)
                              from income_records i
                             where i.borrower_id = b.id
                             order by i.created_at, i.id) as "incomes: Vec<IncomeRow>",
                      array(select row(a.id, a.number, a.account_type, a.created_at)
                              from account_numbers a
                             where a.borrower_id = b.id
                             order by a.created_at, a.id) as "accounts: Vec<AccountRow>",
                      array(select row(s.id, s.document_id, s.page_number, s.section, s.snippet,
                                       s.char_start, s.char_end, s.created_at)
                              from source_references s
                             where s.borrower_id = b.id
                             order by s.created_at, s.id) as "sources: Vec<SourceRow>"
                 from borrowers b
                where id = $1"#,
                id.as_uuid(),
            )
        })
        .await?;
        Ok(row.map(BorrowerWithRecords::from))
    }
}

impl BorrowerRepository<'_> {
    /// Deletes a borrower with all records. Says whether there was one.
    pub async fn delete(self, id: BorrowerId) -> Result<bool> {
        let done = sqlx::query!("delete from borrowers where id = $1", id.as_uuid())
            .execute(self.conn)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
