//! Borrowers with their records: stored and read by one call, found by parts.

use chancery::{
    Borrower, BorrowerId, Constraint, Database, DocumentId, Error, NewAccount, NewBorrower,
    NewIncomeRecord, NewRecords, NewSourceReference, SsnHash, UserId,
};
use rust_decimal::Decimal;
use serde_json::json;
use sqlx::{PgPool, Row};

use crate::support::intake::{account, borrower_of, document, income, income_of};
use crate::support::user;

fn ssn_hash(digit: char) -> SsnHash {
    SsnHash::new(digit.to_string().repeat(64)).unwrap()
}

async fn named(db: &Database, name: &str) -> Borrower {
    db.borrowers().create(NewBorrower::new(name)).await.unwrap().borrower
}

fn names(borrowers: &[Borrower]) -> Vec<&str> {
    borrowers.iter().map(|b| b.name.as_str()).collect()
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_borrower_is_stored_and_read_back_with_all_records(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (owner, document) = (user(&db).await.id, document(&db).await.id);
    let new = NewBorrower::new("Ada Example")
        .user_id(owner)
        .ssn_hash(ssn_hash('a'))
        .address(json!({"city": "London", "lines": ["12 Example Street"]}))
        .confidence_score("0.95".parse().unwrap())
        .income(income(7_250_050).employer("Analytical Engines"))
        .income(income_of(2024, -1))
        .account(account("000123456789"))
        .account(account("42"))
        .source(NewSourceReference::new(document, 2, "Wages").section("Box 1").chars(120, 135))
        .source(NewSourceReference::new(document, 1, "Name"));
    let stored = db.borrowers().create(new).await.unwrap();

    let borrower = &stored.borrower;
    assert_eq!((borrower.user_id, borrower.name.as_str()), (Some(owner), "Ada Example"));
    assert_eq!(borrower.ssn_hash, Some(ssn_hash('a')));
    assert_eq!(borrower.address.as_ref().unwrap()["city"], "London");
    assert_eq!(borrower.confidence_score.to_string(), "0.95");

    let incomes: Vec<_> = stored.incomes.iter().map(|i| (i.amount.to_string(), i.year)).collect();
    assert_eq!(incomes, [("72500.50".into(), 2025), ("-0.01".into(), 2024)]);
    assert_eq!(stored.incomes[0].employer.as_deref(), Some("Analytical Engines"));
    assert_eq!(stored.incomes[1].employer, None);
    assert_eq!(stored.incomes[0].period, "annual");
    assert_eq!(stored.incomes[0].source_type, "employment");
    let numbers: Vec<_> = stored.accounts.iter().map(|a| a.number.expose()).collect();
    assert_eq!(numbers, ["000123456789", "42"]);
    assert_eq!(stored.accounts[0].account_type, "checking");
    let source = &stored.sources[0];
    assert_eq!((source.document_id, source.page_number), (document, 2));
    assert_eq!((source.section.as_deref(), source.snippet.as_str()), (Some("Box 1"), "Wages"));
    assert_eq!((source.char_start, source.char_end), (Some(120), Some(135)));
    assert_eq!((stored.sources[1].char_start, &stored.sources[1].section), (None, &None));
    assert!(stored.incomes.iter().all(|i| i.borrower_id == borrower.id));
    assert!(stored.accounts.iter().all(|a| a.borrower_id == borrower.id));
    assert!(stored.sources.iter().all(|s| s.borrower_id == borrower.id));

    assert_eq!(db.borrowers().get_by_id(borrower.id).await.unwrap().as_ref(), Some(borrower));
    let again = db.borrowers().get_with_records(borrower.id).await.unwrap();
    assert_eq!(again, Some(stored));
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_borrower_without_records_has_none_and_a_missing_one_is_none(pool: PgPool) {
    let db = Database::from_pool(pool);
    let stored = db.borrowers().create(NewBorrower::new("Ada")).await.unwrap();
    assert_eq!((stored.incomes.len(), stored.accounts.len(), stored.sources.len()), (0, 0, 0));
    assert_eq!(stored.borrower.confidence_score, Decimal::ZERO);
    let again = db.borrowers().get_with_records(stored.borrower.id).await.unwrap();
    assert_eq!(again, Some(stored));

    let missing = BorrowerId::new();
    assert_eq!(db.borrowers().get_by_id(missing).await.unwrap(), None);
    assert_eq!(db.borrowers().get_with_records(missing).await.unwrap(), None);
    assert!(!db.borrowers().delete(missing).await.unwrap());
    assert_eq!(db.income_records().sum_income_by_year(missing).await.unwrap(), []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn many_borrowers_are_stored_in_the_order_given_or_none_is(pool: PgPool) {
    let db = Database::from_pool(pool);
    assert_eq!(db.borrowers().create_many(vec![]).await.unwrap(), []);
    let document = document(&db).await.id;
    let new = |n: usize| {
        let borrower = borrower_of(&[document]);
        (0..n).fold(borrower, |borrower, i| borrower.income(income(i64::try_from(i).unwrap())))
    };
    let stored = db.borrowers().create_many((0..50).map(new).collect()).await.unwrap();
    for (n, stored) in stored.iter().enumerate() {
        let cents: Vec<_> = stored.incomes.iter().map(|i| i.amount).collect();
        assert_eq!(cents, (0..n).map(|i| Decimal::new(i as i64, 2)).collect::<Vec<_>>());
        let again = db.borrowers().get_with_records(stored.borrower.id).await.unwrap();
        assert_eq!(again.as_ref(), Some(stored));
    }

    let lost = vec![borrower_of(&[document]), borrower_of(&[DocumentId::new()])];
    let refused = db.borrowers().create_many(lost).await;
    let key = Constraint::SourceReferencesDocumentIdFkey;
    assert!(matches!(&refused, Err(Error::ForeignKey(c)) if *c == key), "{refused:?}");
    assert_eq!(db.borrowers().list_by_document(document, 1000, 0).await.unwrap().len(), 50);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn more_can_be_stored_about_a_borrower(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (first, second) = (document(&db).await.id, document(&db).await.id);
    let id =
        db.borrowers().create(borrower_of(&[first]).income(income(1))).await.unwrap().borrower.id;
    let more = || NewRecords {
        incomes: vec![income(2), income(3)],
        accounts: vec![account("42")],
        sources: vec![NewSourceReference::new(second, 3, "Wages")],
    };
    db.borrowers().add_records(id, more()).await.unwrap();
    db.borrowers().add_records(id, NewRecords::default()).await.unwrap();
    let stored = db.borrowers().get_with_records(id).await.unwrap().unwrap();
    let cents: Vec<_> = stored.incomes.iter().map(|i| i.amount.mantissa()).collect();
    assert_eq!((cents, stored.accounts.len()), (vec![1, 2, 3], 1));
    let documents: Vec<_> = stored.sources.iter().map(|s| s.document_id).collect();
    assert_eq!(documents, [first, second]);
    let missing = db.borrowers().add_records(BorrowerId::new(), more()).await;
    assert!(matches!(missing, Err(Error::ForeignKey(_))), "{missing:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn sums_are_exact(pool: PgPool) {
    let db = Database::from_pool(pool);
    let most: Decimal = "9999999999.99".parse().unwrap();
    let mut new = NewBorrower::new("Ada").income(income_of(2023, 999_999_999_999));
    // As binary floating point, a thousand times 0.10 is 99.9999999999986.
    for _ in 0..1000 {
        new = new.income(income_of(2024, 10));
    }
    new = new.income(income_of(2023, 999_999_999_999)).income(income_of(2025, -5));
    let id = db.borrowers().create(new).await.unwrap().borrower.id;
    db.borrowers().create(NewBorrower::new("Bob").income(income_of(2024, 7))).await.unwrap();
    let sums = db.income_records().sum_income_by_year(id).await.unwrap();
    let sums: Vec<_> = sums.iter().map(|s| (s.year, s.total.to_string(), s.records)).collect();
    let twice_the_most = (most + most).to_string();
    assert_eq!(
        sums,
        [(2025, "-0.05".into(), 1), (2024, "100.00".into(), 1000), (2023, twice_the_most, 2)]
    );
    let listed = db.income_records().list_by_borrower(id, 2, 0).await.unwrap();
    assert_eq!(listed.iter().map(|i| i.year).collect::<Vec<_>>(), [2025, 2024]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn amounts_that_would_be_rounded_or_do_not_fit_are_refused(pool: PgPool) {
    let db = Database::from_pool(pool);
    for (amount, stored) in [
        ("9999999999.99", Some("9999999999.99")),
        ("-9999999999.99", Some("-9999999999.99")),
        ("1.50000", Some("1.50")),
        ("0", Some("0")),
        ("-0.00", Some("0")),
        ("1e3", Some("1000.00")),
        ("10000000000", None),
        ("-10000000000", None),
        ("9999999999.995", None),
        ("0.001", None),
        ("79228162514264337593543950335", None),
    ] {
        let amount = amount.parse().or_else(|_| Decimal::from_scientific(amount)).unwrap();
        let new = NewBorrower::new("Ada").income(NewIncomeRecord { amount, ..income(0) });
        match (db.borrowers().create(new).await, stored) {
            (Ok(borrower), Some(text)) => {
                assert_eq!(borrower.incomes[0].amount.to_string(), text);
            }
            (Err(Error::InvalidInput(e)), None) => assert_eq!(e.field, "amount"),
            (other, _) => panic!("{amount}: {other:?}"),
        }
    }
    for (score, good) in [
        ("0", true),
        ("1", true),
        ("0.07", true),
        ("1.01", false),
        ("-0.01", false),
        ("0.005", false),
    ] {
        let new = NewBorrower::new("Ada").confidence_score(score.parse().unwrap());
        match db.borrowers().create(new).await {
            Ok(b) if good => assert_eq!(b.borrower.confidence_score, score.parse().unwrap()),
            Err(Error::InvalidInput(e)) if !good => assert_eq!(e.field, "confidence_score"),
            other => panic!("{score}: {other:?}"),
        }
    }
    let id = named(&db, "Bob").await.id;
    let nan = sqlx::query(
        "insert into income_records (borrower_id, amount, period, year, source_type)
         values ($1, 'NaN', 'annual', 2025, 'employment')",
    )
    .bind(id)
    .execute(db.executor())
    .await;
    let nan = Error::from(nan.unwrap_err());
    assert!(matches!(nan, Error::Check(Constraint::IncomeRecordsAmountCheck)), "{nan:?}");
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn input_that_cannot_be_stored_is_refused_by_name(pool: PgPool) {
    let db = Database::from_pool(pool);
    let document = document(&db).await.id;
    let text = |n: usize| "x".repeat(n);
    let ada = || NewBorrower::new("Ada");
    let of = |new: NewIncomeRecord| ada().income(new);
    let at = |new: NewSourceReference| ada().source(new);
    let source = || NewSourceReference::new(document, 1, "");
    for (field, new) in [
        ("name", NewBorrower::new("")),
        ("name", NewBorrower::new(text(256))),
        ("name", NewBorrower::new("\0")),
        ("address", ada().address(json!({"city": "\0"}))),
        ("period", of(NewIncomeRecord { period: text(0), ..income(1) })),
        ("period", of(NewIncomeRecord { period: text(21), ..income(1) })),
        ("year", of(income_of(0, 1))),
        ("year", of(income_of(10_000, 1))),
        ("source_type", of(NewIncomeRecord { source_type: text(51), ..income(1) })),
        ("employer", of(income(1).employer(text(256)))),
        ("account_type", ada().account(NewAccount { account_type: text(21), ..account("1") })),
        ("page_number", at(NewSourceReference { page_number: 0, ..source() })),
        ("section", at(source().section(text(101)))),
        ("snippet", at(NewSourceReference { snippet: "\0".into(), ..source() })),
        ("char_start", at(source().chars(2, 1))),
        ("char_start", at(source().chars(-1, 1))),
        ("char_end", at(source().chars(0, -1))),
    ] {
        match db.borrowers().create(new).await {
            Err(Error::InvalidInput(e)) => assert_eq!(e.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    db.borrowers().create(at(source().chars(0, 0))).await.unwrap();
    for hash in [text(31), text(65), "x y".repeat(15), "078-05-1120".into()] {
        assert!(SsnHash::new(&*hash).is_err(), "{hash}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_name_is_found_by_any_part_however_it_is_capitalised(pool: PgPool) {
    let db = Database::from_pool(pool);
    for name in ["Grace Hopper", "Ada Lovelace", "Alan Turing", "ada byron"] {
        named(&db, name).await;
    }
    for (part, found) in [
        ("ADA", vec!["Ada Lovelace", "ada byron"]),
        ("lace", vec!["Ada Lovelace"]),
        ("Grace Hopper", vec!["Grace Hopper"]),
        ("e h", vec!["Grace Hopper"]),
        ("al", vec!["Alan Turing"]),
        ("N", vec!["Alan Turing", "ada byron"]),
        ("hopper grace", vec![]),
        ("ada  ", vec![]),
    ] {
        let mut names = found.clone();
        names.sort_unstable();
        let borrowers = db.borrowers().search_by_name(None, part, 10, 0).await.unwrap();
        let mut seen = self::names(&borrowers);
        seen.sort_unstable();
        assert_eq!(seen, names, "{part}");
    }
    let all = db.borrowers().search_by_name(None, "a", 10, 0).await.unwrap();
    let some = db.borrowers().search_by_name(None, "a", 2, 1).await.unwrap();
    assert_eq!(some, all[1..3]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_like_takes_for_a_wildcard_is_searched_for_as_it_stands(pool: PgPool) {
    let db = Database::from_pool(pool);
    for text in ["100% Ada", "1000 Ada", "a_b", "axb", r"c\d", "cd", r"50\% off"] {
        db.borrowers().create(NewBorrower::new(text).account(account(text))).await.unwrap();
    }
    for (part, found) in [
        ("%", vec!["100% Ada", r"50\% off"]),
        ("100%", vec!["100% Ada"]),
        ("00% Ada", vec!["100% Ada"]),
        ("_", vec!["a_b"]),
        ("a_b", vec!["a_b"]),
        (r"\", vec![r"50\% off", r"c\d"]),
        (r"c\d", vec![r"c\d"]),
        (r"\%", vec![r"50\% off"]),
        (r"0\%", vec![r"50\% off"]),
    ] {
        let mut by_name = db.borrowers().search_by_name(None, part, 10, 0).await.unwrap();
        let mut by_number =
            db.borrowers().search_by_account_number(None, part, 10, 0).await.unwrap();
        by_name.sort_by(|a, b| a.name.cmp(&b.name));
        by_number.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(names(&by_name), found, "{part}");
        assert_eq!(by_number, by_name, "{part}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn an_account_is_found_by_any_part_of_its_number_once(pool: PgPool) {
    let db = Database::from_pool(pool);
    let new = NewBorrower::new("Ada").account(account("DE-0012345")).account(account("0012399"));
    let ada = db.borrowers().create(new).await.unwrap().borrower;
    let bob = db.borrowers().create(NewBorrower::new("Bob").account(account("99"))).await.unwrap();
    for (part, found) in [
        ("00123", vec![ada.clone()]),
        ("2345", vec![ada.clone()]),
        ("99", vec![ada.clone(), bob.borrower]),
        ("DE-", vec![ada.clone()]),
        ("de-", vec![]),
        ("0000", vec![]),
    ] {
        let borrowers = db.borrowers().search_by_account_number(None, part, 10, 0).await.unwrap();
        assert_eq!(borrowers, found, "{part}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_search_refuses_nothing_to_look_for_and_finds_nothing_for_what_cannot_be_stored(
    pool: PgPool,
) {
    let db = Database::from_pool(pool);
    named(&db, "Ada").await;
    for part in ["\0", &"x".repeat(256)] {
        assert_eq!(db.borrowers().search_by_name(None, part, 10, 0).await.unwrap(), []);
        assert_eq!(db.borrowers().search_by_account_number(None, part, 10, 0).await.unwrap(), []);
    }
    for outcome in [
        db.borrowers().search_by_name(None, "", 10, 0).await,
        db.borrowers().search_by_account_number(None, "", 10, 0).await,
        db.borrowers().search_by_name(None, "a", -1, 0).await,
        db.borrowers().search_by_account_number(None, "a", 1, -1).await,
    ] {
        assert!(matches!(outcome, Err(Error::InvalidInput(_))), "{outcome:?}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_users_borrowers_can_be_asked_for_and_go_with_the_user(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (ada, bob) = (user(&db).await.id, user(&db).await.id);
    for (owner, name) in [(ada, "one Ada"), (bob, "one Bob"), (ada, "two Ada")] {
        let new = NewBorrower::new(name).user_id(owner).account(account("1234567"));
        db.borrowers().create(new).await.unwrap();
    }
    let listed = db.borrowers().list_by_user(ada, 10, 0).await.unwrap();
    assert_eq!(names(&listed), ["two Ada", "one Ada"]);
    let found = db.borrowers().search_by_name(Some(ada), "one", 10, 0).await.unwrap();
    assert_eq!(names(&found), ["one Ada"]);
    let found = db.borrowers().search_by_account_number(Some(bob), "3456", 10, 0).await.unwrap();
    assert_eq!(names(&found), ["one Bob"]);
    assert_eq!(db.borrowers().list_by_user(UserId::new(), 10, 0).await.unwrap(), []);
    db.users().delete(ada).await.unwrap();
    let left = db.borrowers().search_by_name(None, "o", 10, 0).await.unwrap();
    assert_eq!(names(&left), ["one Bob"]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn borrowers_are_found_by_document_and_by_social_security_number(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (first, second) = (document(&db).await.id, document(&db).await.id);
    let same = |name: &str, of: &[DocumentId]| NewBorrower {
        name: name.into(),
        ssn_hash: Some(ssn_hash('a')),
        ..borrower_of(of)
    };
    let other = NewBorrower { name: "Bob".into(), ..borrower_of(&[first]) }.ssn_hash(ssn_hash('b'));
    let new = vec![same("Zoe", &[first, first]), other, same("Zoé", &[second])];
    db.borrowers().create_many(new).await.unwrap();
    let told = db.borrowers().list_by_document(first, 10, 0).await.unwrap();
    assert_eq!(names(&told), ["Bob", "Zoe"]);
    let told = db.borrowers().list_by_document(first, 10, 1).await.unwrap();
    assert_eq!(names(&told), ["Zoe"]);
    let person = db.borrowers().list_by_ssn_hash(&ssn_hash('a'), 10).await.unwrap();
    assert_eq!(names(&person), ["Zoe", "Zoé"]);
    assert_eq!(db.borrowers().list_by_ssn_hash(&ssn_hash('c'), 10).await.unwrap(), []);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn what_was_read_out_of_a_document_is_listed_by_page(pool: PgPool) {
    let db = Database::from_pool(pool);
    let (read, other) = (document(&db).await.id, document(&db).await.id);
    let new = [(read, 3), (read, 1), (other, 1), (read, 2)]
        .into_iter()
        .fold(NewBorrower::new("Ada"), |new, (id, page)| {
            new.source(NewSourceReference::new(id, page, "Name"))
        });
    db.borrowers().create(new).await.unwrap();
    let pages = async |limit, offset| -> Vec<i32> {
        let listed = db.source_references().list_by_document(read, limit, offset).await.unwrap();
        listed.iter().map(|s| s.page_number).collect()
    };
    assert_eq!(pages(10, 0).await, [1, 2, 3]);
    assert_eq!(pages(1, 1).await, [2]);
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn a_deleted_borrower_takes_along_its_records(pool: PgPool) {
    let db = Database::from_pool(pool);
    let document = document(&db).await.id;
    let new = borrower_of(&[document]).income(income(1)).account(account("1"));
    let id = db.borrowers().create(new).await.unwrap().borrower.id;
    assert!(db.borrowers().delete(id).await.unwrap());
    assert!(!db.borrowers().delete(id).await.unwrap());
    let left: i64 = sqlx::query_scalar(
        "select (select count(*) from income_records) + (select count(*) from account_numbers)
              + (select count(*) from source_references)",
    )
    .fetch_one(db.executor())
    .await
    .unwrap();
    assert_eq!(left, 0);
    assert!(db.documents().get_by_id(document).await.unwrap().is_some());
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn both_searches_are_served_by_an_index(pool: PgPool) {
    let db = Database::from_pool(pool);
    let mut uow = db.begin().await.unwrap();
    for setting in
        ["set local enable_seqscan = off", "set local plan_cache_mode = force_generic_plan"]
    {
        sqlx::query(setting).execute(uow.executor()).await.unwrap();
    }
    for (explain, index) in [
        (
            "explain select id from borrowers
              where text_trigrams(name) @> text_trigrams($1) and lower(name) like lower($2)",
            "borrowers_name_idx",
        ),
        (
            "explain select borrower_id from account_numbers
              where text_trigrams(number) @> text_trigrams($1) and number like $2",
            "account_numbers_number_idx",
        ),
    ] {
        let query = sqlx::query(explain).bind("abc").bind("%abc%");
        let plan = query.fetch_all(uow.executor()).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|line| line.get(0)).collect();
        assert!(plan.iter().any(|line| line.contains(index)), "{plan:#?}");
    }
}

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn neither_numbers_hashes_nor_what_was_read_are_printed_and_no_secret_is_serialised(
    pool: PgPool,
) {
    let db = Database::from_pool(pool);
    let secret = SsnHash::new("canary".repeat(6)).unwrap();
    let document = document(&db).await.id;
    let new = |secret: SsnHash| {
        NewBorrower::new("canary name")
            .ssn_hash(secret)
            .address(json!("canary"))
            .income(income(424_242).employer("canary"))
            .account(account("canary"))
            .source(NewSourceReference::new(document, 1, "canary").section("canary"))
    };
    let printed = format!("{:?} {:?}", new(secret.clone()), new(secret.clone()).records);
    let stored = db.borrowers().create(new(secret.clone())).await.unwrap();
    let sums = db.income_records().sum_income_by_year(stored.borrower.id).await.unwrap();
    let printed =
        format!("{printed} {secret:?} {:?} {stored:?} {sums:?}", stored.accounts[0].number);
    assert!(!printed.contains("canary") && !printed.contains("4242"), "{printed}");

    let json = serde_json::to_value(&stored).unwrap();
    assert_eq!(json["name"], "canary name");
    assert_eq!(json["incomes"][0]["amount"], "4242.42");
    assert_eq!((json.get("ssn_hash"), json["accounts"][0].get("number")), (None, None));
    assert!(!json.to_string().contains(secret.expose()));
}
