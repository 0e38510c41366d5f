//! Sessions: who is signed in, until when. Time is the database's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::secrets::TokenHash;
use super::user::UserId;
use crate::db::id::{debug_fields, id};
use crate::db::page::limit_offset;
use crate::db::{Error, Result, input};
use crate::repositories::{Access, repository};

id!(
    /// Identifies a [`Session`].
    SessionId
);

/// A signed-in session. Serialised, it leaves the token's hash out.
#[derive(Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct Session {
    /// Its identifier.
    pub id: SessionId,
    /// Who is signed in.
    pub user_id: UserId,
    /// The hash of the token that the client holds.
    #[serde(skip)]
    pub token_hash: TokenHash,
    /// From when on it is void.
    pub expires_at: DateTime<Utc>,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
}

debug_fields!(Session { id, user_id, expires_at, created_at });

/// What a session is refused with whose user may not sign in.
pub(super) const INACTIVE: Error = Error::NotFound("active user");

repository!(
    /// Sessions: [`Database::sessions`](crate::Database::sessions).
    ///
    /// A user that is not [active](crate::User::is_active) has none, whatever the table holds: none can be
    /// opened, and no token opens one. Being deactivated and being activated again both end those that are
    /// stored, whichever program does it.
    SessionRepository
);

impl SessionRepository<'_> {
    /// Opens a session that ends at a given time.
    ///
    /// A clock that differs from the database's makes it end early or late:
    /// [`create_for`](Self::create_for) has the database reckon.
    ///
    /// # Errors
    ///
    /// [`Conflict`](Error::Conflict) when the token is in use; [`ForeignKey`](Error::ForeignKey) when
    /// there is no such user; [`NotFound`](Error::NotFound) when the user is not active.
    pub async fn create(
        self,
        user_id: UserId,
        token_hash: &TokenHash,
        expires_at: DateTime<Utc>,
    ) -> Result<Session> {
        input::time("expires_at", expires_at)?;
        sqlx::query_as!(
            Session,
            "insert into sessions (id, user_id, token_hash, expires_at)
             select $1, $2, $3, $4
              where not exists (select from users u where u.id = $2 and not u.is_active)
             returning id, user_id, token_hash, expires_at, created_at",
            SessionId::new().as_uuid(),
            user_id.as_uuid(),
            token_hash.expose(),
            expires_at,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(INACTIVE)
    }

    /// Opens a session that ends `lifetime` from now, by the database's clock.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`InvalidInput`](crate::Error::InvalidInput) for a lifetime of
    /// more than 100 years.
    pub async fn create_for(
        self,
        user_id: UserId,
        token_hash: &TokenHash,
        lifetime: Duration,
    ) -> Result<Session> {
        let seconds = input::seconds("lifetime", lifetime)?;
        sqlx::query_as!(
            Session,
            "insert into sessions (id, user_id, token_hash, expires_at)
             select $1, $2, $3, now() + make_interval(secs => $4)
              where not exists (select from users u where u.id = $2 and not u.is_active)
             returning id, user_id, token_hash, expires_at, created_at",
            SessionId::new().as_uuid(),
            user_id.as_uuid(),
            token_hash.expose(),
            seconds,
        )
        .fetch_optional(self.conn)
        .await?
        .ok_or(INACTIVE)
    }
}

impl<A: Access> SessionRepository<'_, A> {
    /// Returns the session with this identifier as it is stored, expired or not.
    pub async fn get_by_id(self, id: SessionId) -> Result<Option<Session>> {
        Ok(sqlx::query_as!(
            Session,
            "select id, user_id, token_hash, expires_at, created_at from sessions where id = $1",
            id.as_uuid(),
        )
        .fetch_optional(self.conn.repeatable())
        .await?)
    }

    /// Returns the session that this token opens; none when it has expired, or its user is not active.
    pub async fn get_by_token(self, token_hash: &TokenHash) -> Result<Option<Session>> {
        Ok(sqlx::query_as!(
            Session,
            "select id, user_id, token_hash, expires_at, created_at
               from sessions
              where token_hash = $1 and expires_at > now()
                and exists (select from users u where u.id = sessions.user_id and u.is_active)",
            token_hash.expose(),
        )
        .fetch_optional(self.conn.repeatable())
        .await?)
    }
}

impl SessionRepository<'_> {
    /// Sliding expiry: finds the session that this token opens and has it end `lifetime` from now,
    /// unless it ends later anyway; never past its absolute end, if it has one. None when it has expired,
    /// or its user is not active.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a lifetime of more than 100 years.
    pub async fn extend(
        self,
        token_hash: &TokenHash,
        lifetime: Duration,
    ) -> Result<Option<Session>> {
        let seconds = input::seconds("lifetime", lifetime)?;
        Ok(sqlx::query_as!(
            Session,
            "update sessions
                set expires_at = least(absolute_expires_at,
                                       greatest(expires_at, now() + make_interval(secs => $2)))
              where token_hash = $1 and expires_at > now()
                and exists (select from users u where u.id = sessions.user_id and u.is_active)
             returning id, user_id, token_hash, expires_at, created_at",
            token_hash.expose(),
            seconds,
        )
        .fetch_optional(self.conn)
        .await?)
    }
}

impl<A: Access> SessionRepository<'_, A> {
    /// Returns a user's sessions that have not expired, newest first; none of a user that is not active.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::Error::InvalidInput) for a limit outside of 0 to
    /// [`MAX_PAGE_SIZE`](crate::MAX_PAGE_SIZE) or a negative offset.
    pub async fn list_by_user(
        self,
        user_id: UserId,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Session>> {
        let (limit, offset) = limit_offset(limit, offset)?;
        Ok(sqlx::query_as!(
            Session,
            "select id, user_id, token_hash, expires_at, created_at
               from sessions
              where user_id = $1 and expires_at > now()
                and exists (select from users u where u.id = sessions.user_id and u.is_active)
              order by created_at desc, id desc
              limit $2 offset $3",
            user_id.as_uuid(),
            limit,
            offset,
        )
        .fetch_all(self.conn.repeatable())
        .await?)
    }
}

impl SessionRepository<'_> {
    /// Ends a session. Says whether there was one.
    pub async fn delete(self, id: SessionId) -> Result<bool> {
        let done = sqlx::query!("delete from sessions where id = $1", id.as_uuid())
            .execute(self.conn)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Ends all sessions of a user. Says how many.
    pub async fn delete_by_user(self, user_id: UserId) -> Result<u64> {
        let done = sqlx::query!("delete from sessions where user_id = $1", user_id.as_uuid())
            .execute(self.conn)
            .await?;
        Ok(done.rows_affected())
    }

    /// Removes the sessions that have expired, by the database's clock. Says how many.
    pub async fn delete_expired(self) -> Result<u64> {
        let done = sqlx::query!("delete from sessions where expires_at <= now()")
            .execute(self.conn)
            .await?;
        Ok(done.rows_affected())
    }
}
