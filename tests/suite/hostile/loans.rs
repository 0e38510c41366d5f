//! Documents and borrowers with their records.

use chancery::{
    AccountNumber, Database, DocumentStatus, FileHash, NewAccount, NewBorrower, NewDocument,
    NewIncomeRecord, NewRecords, NewSourceReference, SsnHash,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use rust_decimal::Decimal;
use sqlx::PgPool;

use super::values::{any_text, decimal, duration, integer, json, long_text, text, wide_integer};
use super::{always, assert_same_json, law, taken};
use crate::support::intake::{document, file_hash};

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_document_is_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let hash = prop_oneof![4 => "[0-9a-fA-F]{64}", 1 => any_text(), 1 => "[0-9a-g]{63,65}"];
    let values =
        (text(255), hash, text(10), wide_integer(), of(text(500)), long_text(), of(integer()));
    law(&db, values, async |uow, (name, hash, kind, size, uri, error, pages)| {
        let Ok(file_hash) = FileHash::new(&hash) else { return false };
        let new = NewDocument {
            storage_uri: uri.clone(),
            ..NewDocument::new(&*name, file_hash.clone(), &*kind, size)
        };
        let created = uow.documents().create_or_get(new).await;
        let Some(created) = taken(uow, created).await else { return false };
        let read = uow.documents().get_by_hash(&file_hash).await.unwrap().unwrap();
        assert_eq!(read, created.document);
        assert_eq!((read.filename, read.file_type), (name, kind));
        assert_eq!(read.file_hash.as_str(), hash.to_ascii_lowercase());
        assert_eq!((read.file_size_bytes, read.storage_uri), (size, uri));
        let failed = DocumentStatus::Failed;
        let update = uow.documents().update_status(read.id, failed, Some(&error), pages).await;
        match update {
            Ok(failed) => {
                assert_eq!((failed.error_message, failed.page_count), (Some(error), pages));
            }
            Err(refused) => assert!(matches!(refused, chancery::Error::InvalidInput(_))),
        }
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_claim_takes_any_limit_and_lease_or_refuses_them(pool: PgPool) {
    let db = Database::from_pool(pool);
    document(&db).await;
    let values = (wide_integer(), duration(), duration(), long_text());
    law(&db, values, async |uow, (limit, lease, more, error)| {
        let claimed = uow.documents().claim_pending(limit, lease).await;
        let Some(claimed) = taken(uow, claimed).await else { return false };
        for claimed in claimed {
            let extended = uow.documents().extend(&claimed.claim, more).await;
            assert!(
                matches!(extended, Ok(_) | Err(chancery::Error::InvalidInput(_))),
                "{extended:?}"
            );
            match uow.documents().fail(&claimed.claim, &error).await {
                Ok(failed) => assert_eq!(failed.error_message, Some(error.clone())),
                Err(refused) => assert!(matches!(refused, chancery::Error::InvalidInput(_))),
            }
        }
        true
    })
    .await;
}

fn income() -> impl Strategy<Value = NewIncomeRecord> {
    let year = prop_oneof![9 => 1..=9999, 1 => integer()];
    (decimal(), text(20), year, text(50), of(text(255))).prop_map(
        |(amount, period, year, source, employer)| NewIncomeRecord {
            employer,
            ..NewIncomeRecord::new(amount, period, year, source)
        },
    )
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_borrower_with_records_is_refused_or_stored_as_given(pool: PgPool) {
    let db = Database::from_pool(pool);
    let document_id = document(&db).await.id;
    let hash = prop_oneof![4 => "[!-~]{32,64}", 1 => any_text(), 1 => "[a-f]{65}"];
    let score = prop_oneof![6 => (0_i64..=100).prop_map(|n| Decimal::new(n, 2)), 1 => decimal()];
    let source = (integer(), of(text(100)), long_text(), of(integer()), of(integer()));
    let values = (
        (text(255), of(hash), of(json()), score),
        vec(income(), 0..2),
        vec((text(50), text(20)), 0..2),
        vec(source, 0..2),
    );
    law(&db, values, async |uow, ((name, hash, address, score), incomes, accounts, sources)| {
        let Ok(ssn_hash) = hash.map(SsnHash::new).transpose() else { return false };
        let accounts: chancery::Result<Vec<_>> = accounts
            .into_iter()
            .map(|(number, kind)| Ok(NewAccount::new(AccountNumber::new(number)?, kind)))
            .collect();
        let Ok(accounts) = accounts else { return false };
        let sources = sources
            .into_iter()
            .map(|(page, section, snippet, start, end)| NewSourceReference {
                section,
                char_start: start,
                char_end: end,
                ..NewSourceReference::new(document_id, page, snippet)
            })
            .collect();
        let records = NewRecords { incomes, accounts, sources };
        let new = NewBorrower {
            ssn_hash,
            address,
            confidence_score: score,
            records: records.clone(),
            ..NewBorrower::new(name)
        };
        let created = uow.borrowers().create(new.clone()).await;
        let Some(created) = taken(uow, created).await else { return false };
        let id = created.borrower.id;
        // What is known already can be told again.
        uow.borrowers().add_records(id, records.clone()).await.unwrap();
        let read = uow.borrowers().get_with_records(id).await.unwrap().unwrap();
        assert_eq!(read.borrower, created.borrower);
        assert_eq!(read.borrower.name, new.name);
        assert_eq!(read.borrower.ssn_hash, new.ssn_hash);
        assert_eq!(read.borrower.confidence_score, score);
        assert_eq!(read.borrower.address.is_some(), new.address.is_some());
        if let (Some(given), Some(stored)) = (&new.address, &read.borrower.address) {
            assert_same_json(given, stored);
        }
        assert_eq!(read.incomes.len(), 2 * records.incomes.len());
        assert_eq!(read.accounts.len(), 2 * records.accounts.len());
        assert_eq!(read.sources.len(), 2 * records.sources.len());
        for (given, stored) in records.incomes.iter().cycle().zip(&read.incomes) {
            assert_eq!((given.amount, given.year), (stored.amount, stored.year));
            assert_eq!((&given.period, &given.source_type), (&stored.period, &stored.source_type));
            assert_eq!(given.employer, stored.employer);
        }
        for sum in uow.income_records().sum_income_by_year(id).await.unwrap() {
            let expected: Decimal =
                records.incomes.iter().filter(|i| i.year == sum.year).map(|i| i.amount).sum();
            assert_eq!(sum.total, expected * Decimal::TWO);
        }
        for (given, stored) in records.accounts.iter().cycle().zip(&read.accounts) {
            assert_eq!(
                (&given.number, &given.account_type),
                (&stored.number, &stored.account_type)
            );
            let shown = stored.number.last_four();
            assert!(stored.number.expose().ends_with(shown) && shown.chars().count() <= 4);
        }
        for (given, stored) in records.sources.iter().cycle().zip(&read.sources) {
            assert_eq!((given.page_number, &given.section), (stored.page_number, &stored.section));
            assert_eq!(
                (&given.snippet, given.char_start, given.char_end),
                (&stored.snippet, stored.char_start, stored.char_end)
            );
        }
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_name_and_a_number_are_found_by_every_part_of_them(pool: PgPool) {
    let db = Database::from_pool(pool);
    // Some locales write a small sigma at a word's end in another way, and a part has another end.
    let name = text(255).prop_map(|name| name.replace('Σ', "s"));
    let values = (name, text(50), any::<(usize, usize)>());
    law(&db, values, async |uow, (name, number, (from, length))| {
        let Ok(account) = AccountNumber::new(&*number) else { return false };
        let new = NewBorrower::new(&*name).account(NewAccount::new(account, "checking"));
        let created = uow.borrowers().create(new).await;
        let Some(created) = taken(uow, created).await else { return false };
        let part = |text: &str| -> String {
            let from = from % text.chars().count();
            text.chars().skip(from).take(1 + length % 12).collect()
        };
        let (in_name, in_number) = (part(&name), part(&number));
        let found = uow.borrowers().search_by_name(None, &in_name, 10, 0).await.unwrap();
        assert_eq!(found, std::slice::from_ref(&created.borrower), "{in_name:?} of {name:?}");
        let found =
            uow.borrowers().search_by_account_number(None, &in_number, 10, 0).await.unwrap();
        assert_eq!(found, [created.borrower], "{in_number:?} of {number:?}");
        true
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_search_finds_only_what_contains_the_text(pool: PgPool) {
    let db = Database::from_pool(pool);
    for name in ["plain", "100%", "a_b", "back\\slash", "O'Hara", "İstanbul", "e\u{301}té"] {
        let account = NewAccount::new(AccountNumber::new(name).unwrap(), "checking");
        db.borrowers().create(NewBorrower::new(name).account(account)).await.unwrap();
    }
    let parts = prop_oneof![
        any_text(),
        text(50),
        select(&["%", "_", "\\", "a", "%%", "__", "\\%", "É"][..]).prop_map(str::to_owned)
    ];
    always(&db, parts, async |uow, part| {
        let by_number = uow.borrowers().search_by_account_number(None, &part, 10, 0).await;
        let by_name = uow.borrowers().search_by_name(None, &part, 10, 0).await;
        let Some(by_number) = taken(uow, by_number).await else {
            assert!(part.is_empty() && taken(uow, by_name).await.is_none());
            return;
        };
        // The names are the numbers.
        for borrower in &by_number {
            assert!(borrower.name.contains(&part), "{part:?} is not in {:?}", borrower.name);
        }
        let by_name = by_name.unwrap();
        assert!(by_number.iter().all(|found| by_name.contains(found)));
        if part.is_ascii() {
            for borrower in by_name {
                // The only one of these letters whose small form is ASCII: to some locales, not to all.
                let name = borrower.name.replace('İ', "i").to_ascii_lowercase();
                assert!(name.contains(&part.to_ascii_lowercase()), "{part:?} is not in {name:?}");
            }
        }
    })
    .await;
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_digest_is_a_hash_that_is_found(pool: PgPool) {
    let db = Database::from_pool(pool);
    always(&db, any::<[u8; 32]>(), async |uow, digest| {
        let hash = FileHash::from(digest);
        let new = NewDocument::new("w2.pdf", hash.clone(), "pdf", 1);
        let created = uow.documents().create(new).await.unwrap();
        assert_eq!(uow.documents().get_by_hash(&hash).await.unwrap(), Some(created));
        assert_eq!(uow.documents().get_by_hash(&file_hash()).await.unwrap(), None);
    })
    .await;
}
