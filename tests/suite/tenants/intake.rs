//! Documents, borrowers and their records.

use chancery::{DocumentStatus, NewBorrower, NewRecords, PageRequest};

use super::methods::{Case, case};
use super::{HOUR, World};
use crate::support::intake::{account, borrower_of, income, new_document};

fn new_borrower(w: &World) -> NewBorrower {
    borrower_of(&[w.document.id]).user_id(w.user.id).income(income(100)).account(account("1"))
}

pub fn cases(cases: &mut Vec<Case>) {
    case!(cases, |w| DocumentRepository::create(new_document().user_id(w.user.id)));
    case!(cases, Service, |w| DocumentRepository::create(new_document()));
    case!(cases, |w| DocumentRepository::create_or_get(new_document().user_id(w.user.id)));
    case!(cases, |w| DocumentRepository::get_by_id(w.document.id));
    case!(cases, |w| DocumentRepository::get_by_hash(&w.document.file_hash));
    case!(cases, |w| DocumentRepository::get_by_user_and_hash(
        Some(w.user.id),
        &w.document.file_hash
    ));
    case!(cases, |w| DocumentRepository::list_documents(None, 10, 0));
    case!(cases, |w| DocumentRepository::page_documents(
        Some(DocumentStatus::Pending),
        PageRequest::first(10)
    ));
    case!(cases, |w| DocumentRepository::list_by_user(w.user.id, 10, 0));
    case!(cases, |w| DocumentRepository::page_by_user(w.user.id, PageRequest::first(10)));
    case!(cases, |w| DocumentRepository::list_pending(10));
    case!(cases, |w| DocumentRepository::update_status(
        w.document.id,
        DocumentStatus::Completed,
        None,
        Some(3)
    ));
    case!(cases, |w| DocumentRepository::count(None));
    case!(cases, |w| DocumentRepository::delete(w.document.id));
    case!(cases, |w| DocumentRepository::claim_pending(10, HOUR));
    case!(cases, |w| DocumentRepository::extend(&w.claim, HOUR));
    case!(cases, |w| DocumentRepository::complete(&w.claim, Some(3)));
    case!(cases, |w| DocumentRepository::fail(&w.claim, "torn"));
    case!(cases, |w| DocumentRepository::release(&w.claim));

    case!(cases, |w| BorrowerRepository::create(new_borrower(w)));
    case!(cases, |w| BorrowerRepository::create_many(vec![new_borrower(w), new_borrower(w)]));
    case!(cases, |w| BorrowerRepository::add_records(
        w.borrower.borrower.id,
        NewRecords { incomes: vec![income(100)], ..NewRecords::default() }
    ));
    case!(cases, |w| BorrowerRepository::get_by_id(w.borrower.borrower.id));
    case!(cases, |w| BorrowerRepository::get_with_records(w.borrower.borrower.id));
    case!(cases, |w| BorrowerRepository::list_by_user(w.user.id, 10, 0));
    case!(cases, |w| BorrowerRepository::list_by_document(w.document.id, 10, 0));
    case!(cases, |w| BorrowerRepository::list_by_ssn_hash(&w.ssn_hash, 10));
    case!(cases, |w| BorrowerRepository::search_by_name(None, "orrow", 10, 0));
    case!(cases, |w| BorrowerRepository::search_by_account_number(None, "3-45", 10, 0));
    case!(cases, |w| BorrowerRepository::delete(w.borrower.borrower.id));
    case!(cases, |w| IncomeRecordRepository::list_by_borrower(w.borrower.borrower.id, 10, 0));
    case!(cases, |w| IncomeRecordRepository::sum_income_by_year(w.borrower.borrower.id));
    case!(cases, |w| SourceReferenceRepository::list_by_document(w.document.id, 10, 0));
}
