//! What is found out before the first migration is applied.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use sqlx::migrate::Migration;

use super::error::MissingRight;
use super::names::Names;
use super::{MIGRATOR, MigrationError, ups};
use crate::db::error::Result;

/// Where a connection is.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Place {
    pub database: String,
    encoding: String,
    search_path: String,
    // The first schema of the search_path that there is: where tables are made.
    schema: Option<String>,
    bookkept_in: Option<String>,
    may_read: bool,
}

impl Place {
    pub async fn of(connection: &mut PgConnection) -> Result<Self> {
        Ok(sqlx::query_as(include_str!("place.sql")).fetch_one(connection).await?)
    }

    /// The migrations that are to be applied, and those that are.
    pub async fn pending(
        &self,
        connection: &mut PgConnection,
    ) -> Result<(Vec<&'static Migration>, BTreeSet<i64>)> {
        let applied = match &self.bookkept_in {
            None => BTreeSet::new(),
            Some(tables) => {
                let new = self.schema.clone().unwrap_or_default();
                if *tables != new {
                    return Err(MigrationError::OtherSchema { tables: tables.clone(), new }.into());
                }
                if !self.may_read {
                    let role = current_role(connection).await?;
                    let right = MissingRight {
                        what: "read _chancery_migrations".into(),
                        remedy: format!("grant chancery_service to {role}"),
                    };
                    return Err(MigrationError::NotAllowed { role, missing: vec![right] }.into());
                }
                checked(connection).await?
            }
        };
        let newest = applied.last().copied();
        let pending: Vec<_> = ups().filter(|m| !applied.contains(&m.version)).collect();
        if let (Some(first), Some(newest)) = (pending.first(), newest)
            && newest > first.version
        {
            let version = first.version;
            return Err(MigrationError::OutOfOrder { version, applied: newest }.into());
        }
        Ok((pending, applied))
    }

    /// Fails with what would stop one of these migrations, so that none is applied.
    pub async fn preflight(
        &self,
        connection: &mut PgConnection,
        pending: &[&'static Migration],
        applied: &BTreeSet<i64>,
    ) -> Result<()> {
        if self.encoding != "UTF8" {
            return Err(MigrationError::NotUtf8 {
                database: self.database.clone(),
                encoding: self.encoding.clone(),
            }
            .into());
        }
        // `pg_catalog` and temporary ones are no place for tables that stay.
        let schema = self.schema.as_ref().filter(|name| !name.starts_with("pg_"));
        let Some(schema) = schema else {
            let search_path = format!("{:?}", self.search_path);
            return Err(MigrationError::NoSchema { search_path }.into());
        };
        let mut tables = Names::of(ups().filter(|m| applied.contains(&m.version))).tables;
        if self.bookkept_in.is_some() {
            tables.push(MIGRATOR.table_name.to_string());
        }
        let missing: Vec<(String, String)> = sqlx::query_as(include_str!("rights.sql"))
            .bind(tables)
            .fetch_all(&mut *connection)
            .await?;
        if !missing.is_empty() {
            let role = current_role(connection).await?;
            let missing =
                missing.into_iter().map(|(what, remedy)| MissingRight { what, remedy }).collect();
            return Err(MigrationError::NotAllowed { role, missing }.into());
        }
        let wanted = Names::of(pending.iter().copied());
        let names: Vec<String> = sqlx::query_scalar(include_str!("taken.sql"))
            .bind(wanted.tables)
            .bind(wanted.relations)
            .bind(wanted.functions)
            .fetch_all(connection)
            .await?;
        if !names.is_empty() {
            return Err(MigrationError::NamesTaken { schema: schema.clone(), names }.into());
        }
        Ok(())
    }
}

async fn current_role(connection: &mut PgConnection) -> Result<String> {
    let role = sqlx::query_scalar("select quote_ident(current_user)").fetch_one(connection).await?;
    Ok(role)
}

/// The versions of the applied migrations, after checking that they are the crate's.
pub(super) async fn checked(connection: &mut PgConnection) -> Result<BTreeSet<i64>> {
    let rows: Vec<(i64, bool, Vec<u8>)> = sqlx::query_as(
        "select version, success, checksum from _chancery_migrations order by version",
    )
    .fetch_all(connection)
    .await?;
    if let Some((version, ..)) = rows.iter().find(|(_, success, _)| !success) {
        return Err(MigrationError::Dirty(*version).into());
    }
    for (version, _, checksum) in &rows {
        match ups().find(|m| m.version == *version) {
            None => return Err(MigrationError::Newer(*version).into()),
            Some(m) if *m.checksum != **checksum => {
                return Err(MigrationError::Edited(*version).into());
            }
            Some(_) => {}
        }
    }
    Ok(rows.into_iter().map(|(version, ..)| version).collect())
}
