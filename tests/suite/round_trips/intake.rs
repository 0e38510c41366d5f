//! Documents, borrowers and what is known of them.

use std::time::Duration;

use chancery::{DocumentStatus, NewRecords, PageRequest, SsnHash};

use super::{Meter, count};
use crate::support::intake::{account, borrower_of, document, income, new_document};
use crate::support::user;

const MINUTE: Duration = Duration::from_secs(60);

pub async fn measure(meter: &mut Meter) {
    let setup = meter.setup.clone();
    let owner = user(&setup).await.id;
    let kept = document(&setup).await;
    let page = PageRequest::first(10);
    let claim = async || {
        document(&setup).await;
        let claimed = setup.documents().claim_pending(1000, MINUTE).await.unwrap();
        claimed.into_iter().last().unwrap().claim
    };

    count!(meter, documents().create(new_document()));
    count!(meter, documents().create_or_get(new_document()));
    count!(meter, documents().get_by_id(kept.id));
    count!(meter, documents().get_by_hash(&kept.file_hash));
    count!(meter, documents().get_by_user_and_hash(None, &kept.file_hash));
    count!(meter, documents().list_documents(None, 10, 0));
    count!(meter, documents().page_documents(Some(DocumentStatus::Pending), page));
    count!(meter, documents().list_by_user(owner, 10, 0));
    count!(meter, documents().page_by_user(owner, page));
    count!(meter, documents().list_pending(10));
    count!(meter, documents().update_status(kept.id, DocumentStatus::Completed, None, Some(3)));
    count!(meter, documents().count(None));
    count!(meter, documents().claim_pending(10, MINUTE));
    count!(meter, documents().extend(&claim().await, MINUTE));
    count!(meter, documents().complete(&claim().await, Some(3)));
    count!(meter, documents().fail(&claim().await, "torn"));
    count!(meter, documents().release(&claim().await));

    let new = || borrower_of(&[kept.id]).income(income(100)).account(account("123-456"));
    let borrower = setup.borrowers().create(new()).await.unwrap().borrower.id;
    let ssn = SsnHash::new("0".repeat(64)).unwrap();

    count!(meter, borrowers().create(new()));
    count!(meter, borrowers().create_many(vec![new(), new()]));
    count!(meter, borrowers().add_records(borrower, NewRecords::default()));
    count!(meter, borrowers().get_by_id(borrower));
    count!(meter, borrowers().get_with_records(borrower));
    count!(meter, borrowers().list_by_user(owner, 10, 0));
    count!(meter, borrowers().list_by_document(kept.id, 10, 0));
    count!(meter, borrowers().list_by_ssn_hash(&ssn, 10));
    count!(meter, borrowers().search_by_name(None, "orrow", 10, 0));
    count!(meter, borrowers().search_by_account_number(None, "3-45", 10, 0));
    count!(meter, income_records().list_by_borrower(borrower, 10, 0));
    count!(meter, income_records().sum_income_by_year(borrower));
    count!(meter, source_references().list_by_document(kept.id, 10, 0));
    count!(meter, borrowers().delete(borrower));
    count!(meter, documents().delete(kept.id));
}
