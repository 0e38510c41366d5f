//! The crate's list of constraints is the database's.

use std::collections::BTreeSet;

use chancery::Constraint;
use sqlx::PgPool;

#[sqlx::test(migrator = "chancery::MIGRATOR")]
async fn the_list_of_constraints_is_the_catalogues(pool: PgPool) {
    // Not those of PostgreSQL 18 for `not null`: their violation is an error without a name before.
    let in_the_database: Vec<String> = sqlx::query_scalar(
        "select conname
           from pg_constraint c
           join pg_class t on t.oid = conrelid
          where c.connamespace = current_schema::regnamespace
            and contype <> 'n'
            and relname not like '\\_%\\_migrations'
         union
         -- users_email_exact_key is told as users_email_key, beside which it is another program's.
         select relname
           from pg_index
           join pg_class i on i.oid = indexrelid
          where relnamespace = current_schema::regnamespace
            and indisunique
            and relname <> 'users_email_exact_key'
            and indrelid::regclass::text not like '\\_%\\_migrations'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let in_the_database: BTreeSet<_> = in_the_database.iter().map(String::as_str).collect();
    let in_the_crate: BTreeSet<_> = Constraint::ALL.iter().map(|c| c.name()).collect();
    assert!(in_the_crate.len() > 40, "{in_the_crate:?}");
    assert_eq!(in_the_crate.len(), Constraint::ALL.len(), "a name stands twice");
    let missing: Vec<_> = in_the_database.difference(&in_the_crate).collect();
    let gone: Vec<_> = in_the_crate.difference(&in_the_database).collect();
    assert!(missing.is_empty(), "not in the crate: {missing:?}");
    assert!(gone.is_empty(), "not in the database: {gone:?}");
}

#[test]
fn a_constraints_variant_is_its_name_in_camel_case() {
    for constraint in Constraint::ALL {
        let camel: String = constraint
            .name()
            .split('_')
            .map(|word| word[..1].to_uppercase() + &word[1..])
            .collect();
        assert_eq!(format!("{constraint:?}"), camel);
        assert_eq!(constraint.to_string(), constraint.name());
    }
}
