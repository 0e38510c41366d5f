//! Settings by key, each a JSON value.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::db::id::debug_fields;
use crate::db::page::limit_offset;
use crate::db::{Result, input, rows};
use crate::repositories::{Access, repository};

/// A setting.
#[derive(Clone, PartialEq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct ConfigEntry {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// What it does.
    pub description: Option<String>,
    /// When it was last set.
    pub updated_at: DateTime<Utc>,
}

debug_fields!(ConfigEntry { key, updated_at });

repository!(
    /// Settings: [`Database::config`](crate::Database::config).
    ConfigRepository
);

impl<A: Access> ConfigRepository<'_, A> {
    /// A setting's value. A key that can't be stored is not looked for.
    pub async fn get_value(self, key: &str) -> Result<Option<Value>> {
        if !input::could_be_stored(key, 100) {
            return Ok(None);
        }
        Ok(sqlx::query_scalar!("select value from config where key = $1", key)
            .fetch_optional(self.conn.repeatable())
            .await?)
    }

    /// The whole setting.
    pub async fn get(self, key: &str) -> Result<Option<ConfigEntry>> {
        if !input::could_be_stored(key, 100) {
            return Ok(None);
        }
        rows::one(self.conn.repeatable(), "config", || {
            sqlx::query_as!(
                ConfigEntry,
                "select key, value, description, updated_at from config where key = $1",
                key,
            )
        })
        .await
    }
}

impl ConfigRepository<'_> {
    /// Sets a value, whether or not there was one. Without a description the old one stays.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput): a key has 1 to 100 characters, a value at most
    /// [`MAX_JSON_DEPTH`](crate::MAX_JSON_DEPTH) levels.
    pub async fn set_value(
        self,
        key: &str,
        value: &Value,
        description: Option<&str>,
    ) -> Result<ConfigEntry> {
        input::name("key", key, 100)?;
        input::json("value", value)?;
        description.map_or(Ok(()), |text| input::long_text("description", text))?;
        Ok(sqlx::query_as!(
            ConfigEntry,
            "insert into config (key, value, description) values ($1, $2, $3)
             on conflict (key) do update
                set value = excluded.value,
                    description = coalesce(excluded.description, config.description),
                    updated_at = excluded.updated_at
             returning key, value, description, updated_at",
            key,
            value,
            description,
        )
        .fetch_one(self.conn)
        .await?)
    }
}

impl<A: Access> ConfigRepository<'_, A> {
    /// All settings, by key.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list(self, limit: i64, offset: i64) -> Result<Vec<ConfigEntry>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        rows::all(self.conn.repeatable(), "config", || {
            sqlx::query_as!(
                ConfigEntry,
                "select key, value, description, updated_at
               from config
              order by key
              limit $1 offset $2",
                limit,
                offset,
            )
        })
        .await
    }
}

impl ConfigRepository<'_> {
    /// Removes a setting. Says whether there was one.
    pub async fn delete(self, key: &str) -> Result<bool> {
        if !input::could_be_stored(key, 100) {
            return Ok(false);
        }
        let done =
            sqlx::query!("delete from config where key = $1", key).execute(self.conn).await?;
        Ok(done.rows_affected() > 0)
    }
}
