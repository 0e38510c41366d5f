//! Users: an account, with or without a password of its own.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

use super::secrets::PasswordHash;
use super::time_zone;
use super::user_preferences::{
    NewUserPreferences, SummaryLength, UpdateFrequency, UserPreferences, UserPreferencesId,
};
use crate::db::id::{debug_fields, id};
use crate::db::{Error, Patch, Result, input};
use crate::repositories::{Access, repository};

id!(
    /// Identifies a [`User`].
    UserId
);

/// An account. Serialised, it leaves the password hash out.
#[derive(Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct User {
    /// Its identifier.
    pub id: UserId,
    /// The address, as its owner wrote it; unique without regard to the case of ASCII letters.
    pub email: String,
    /// The password's hash; none for an account that signs in through an identity provider.
    #[serde(skip)]
    pub password_hash: Option<PasswordHash>,
    /// What to call them.
    pub name: Option<String>,
    /// The URL of a picture.
    pub profile_picture: Option<String>,
    /// What they do.
    pub profession: Option<String>,
    /// When they were born.
    pub date_of_birth: Option<NaiveDate>,
    /// An IANA time zone, such as `Europe/Paris`. `UTC` unless said.
    pub timezone: String,
    /// Whether the account may sign in. One that may not has no sessions, and can open none.
    pub is_active: bool,
    /// When it last did.
    pub last_login: Option<DateTime<Utc>>,
    /// When the account was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

debug_fields!(User { id, is_active, last_login, created_at, updated_at });

/// An account to be made.
///
/// ```
/// use chancery::{NewUser, PasswordHash};
///
/// let through_a_provider = NewUser::new("ada@example.org").name("Ada");
/// let hash = PasswordHash::new("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaC1vZi0xNi1ieXRlcw")?;
/// let with_a_password = NewUser::new("ada@example.org").password_hash(hash);
/// # Ok::<(), chancery::Error>(())
/// ```
#[derive(Clone)]
pub struct NewUser {
    /// Of e-mail form, at most 255 characters. `A` to `Z` are the same as `a` to `z`; every other
    /// character is only itself, in every database: `ä` is not `Ä`, nor a letter and an accent.
    pub email: String,
    /// None: signs in through an identity provider.
    pub password_hash: Option<PasswordHash>,
    /// At most 100 characters.
    pub name: Option<String>,
    /// At most 255 characters.
    pub profile_picture: Option<String>,
    /// At most 100 characters.
    pub profession: Option<String>,
    /// In the years 1 to 9999.
    pub date_of_birth: Option<NaiveDate>,
    /// The IANA's name of a time zone that the server knows, such as `Europe/Paris`; `UTC` unless said.
    pub timezone: String,
}

debug_fields!(NewUser { timezone });

impl NewUser {
    /// With an address and nothing else.
    pub fn new(email: impl Into<String>) -> Self {
        Self {
            email: email.into(),
            password_hash: None,
            name: None,
            profile_picture: None,
            profession: None,
            date_of_birth: None,
            timezone: "UTC".into(),
        }
    }

    /// With a password.
    pub fn password_hash(mut self, hash: PasswordHash) -> Self {
        self.password_hash = Some(hash);
        self
    }

    /// With a name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    fn check(&self) -> Result<()> {
        input::email("email", &self.email)?;
        input::optional_text("name", self.name.as_deref(), 100)?;
        input::optional_text("profile_picture", self.profile_picture.as_deref(), 255)?;
        input::optional_text("profession", self.profession.as_deref(), 100)?;
        self.date_of_birth.map_or(Ok(()), |d| input::date("date_of_birth", d))?;
        time_zone::check(&self.timezone)
    }
}

/// What to change of an account; see [`Patch`].
#[derive(Clone, Default)]
pub struct UserPatch {
    /// Of e-mail form, at most 255 characters.
    pub email: Patch<String>,
    /// None: no sign-in by password any more.
    pub password_hash: Patch<Option<PasswordHash>>,
    /// At most 100 characters.
    pub name: Patch<Option<String>>,
    /// At most 255 characters.
    pub profile_picture: Patch<Option<String>>,
    /// At most 100 characters.
    pub profession: Patch<Option<String>>,
    /// In the years 1 to 9999.
    pub date_of_birth: Patch<Option<NaiveDate>>,
    /// The IANA's name of a time zone that the server knows, such as `Europe/Paris`.
    pub timezone: Patch<String>,
    /// Whether the account may sign in. Any change ends its sessions.
    pub is_active: Patch<bool>,
}

debug_fields!(UserPatch { is_active });

impl UserPatch {
    fn check(&self) -> Result<()> {
        self.email.as_ref().map_or(Ok(()), |v| input::email("email", v))?;
        input::optional_text("name", self.name.set_text(), 100)?;
        input::optional_text("profile_picture", self.profile_picture.set_text(), 255)?;
        input::optional_text("profession", self.profession.set_text(), 100)?;
        if let Patch::Set(Some(date)) = self.date_of_birth {
            input::date("date_of_birth", date)?;
        }
        self.timezone.as_ref().map_or(Ok(()), |v| time_zone::check(v))
    }
}

repository!(
    /// Accounts: [`Database::users`](crate::Database::users).
    UserRepository
);

impl UserRepository<'_> {
    /// Makes an account.
    ///
    /// # Errors
    ///
    /// [`Conflict`](Error::Conflict) with [`UsersEmailKey`](crate::Constraint::UsersEmailKey) when the
    /// address has one; [`InvalidInput`](Error::InvalidInput). A time zone's name may be one and the server
    /// know no such zone: that is `InvalidInput` too, and ends a unit of work, since the server was asked.
    pub async fn create(self, new: NewUser) -> Result<User> {
        new.check()?;
        sqlx::query_as!(
            User,
            "insert into users (id, email, password_hash, name, profile_picture, profession,
                                date_of_birth, timezone)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             returning id, email, password_hash, name, profile_picture, profession, date_of_birth,
                       timezone, is_active, last_login, created_at, updated_at",
            UserId::new().as_uuid(),
            new.email,
            new.password_hash.as_ref().map(PasswordHash::expose),
            new.name,
            new.profile_picture,
            new.profession,
            new.date_of_birth,
            new.timezone,
        )
        .fetch_one(self.conn)
        .await
        .map_err(time_zone::refused)
    }

    /// Makes an account together with its preferences, in one statement: both or neither.
    ///
    /// ```no_run
    /// # use chancery::{Database, NewUser, NewUserPreferences, UpdateFrequency};
    /// # async fn example(db: Database) -> chancery::Result<()> {
    /// let daily = NewUserPreferences { update_frequency: UpdateFrequency::Daily, ..Default::default() };
    /// let new = NewUser::new("ada@example.org"); // through an identity provider: no password
    /// let (user, preferences) = db.users().create_with_preferences(new, daily).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub async fn create_with_preferences(
        self,
        new: NewUser,
        preferences: NewUserPreferences,
    ) -> Result<(User, UserPreferences)> {
        new.check()?;
        // A CTE's columns have no table, so the types stand here and not in sqlx.toml.
        let row = sqlx::query!(
            r#"with u as (
                   insert into users (id, email, password_hash, name, profile_picture, profession,
                                      date_of_birth, timezone)
                   values ($1, $2, $3, $4, $5, $6, $7, $8)
                   returning id, email, password_hash, name, profile_picture, profession,
                             date_of_birth, timezone, is_active, last_login, created_at, updated_at),
               p as (
                   insert into user_preferences (id, user_id, update_frequency, summary_length,
                                                 email_notifications_enabled)
                   select $9, u.id, $10, $11, $12 from u
                   returning id, update_frequency, summary_length, email_notifications_enabled,
                             created_at, updated_at)
               select u.id as "id!: UserId", u.email as "email!",
                      u.password_hash as "password_hash: PasswordHash", u.name, u.profile_picture,
                      u.profession, u.date_of_birth, u.timezone as "timezone!",
                      u.is_active as "is_active!", u.last_login, u.created_at as "created_at!",
                      u.updated_at as "updated_at!",
                      p.id as "preferences_id!: UserPreferencesId",
                      p.update_frequency as "update_frequency!: UpdateFrequency",
                      p.summary_length as "summary_length!: SummaryLength",
                      p.email_notifications_enabled as "email_notifications_enabled!"
                 from u, p"#,
            UserId::new().as_uuid(),
            new.email,
            new.password_hash.as_ref().map(PasswordHash::expose),
            new.name,
            new.profile_picture,
            new.profession,
            new.date_of_birth,
            new.timezone,
            UserPreferencesId::new().as_uuid(),
            preferences.update_frequency.as_str(),
            preferences.summary_length.as_str(),
            preferences.email_notifications_enabled,
        )
        .fetch_one(self.conn)
        .await
        .map_err(time_zone::refused)?;
        let preferences = UserPreferences {
            id: row.preferences_id,
            user_id: row.id,
            update_frequency: row.update_frequency,
            summary_length: row.summary_length,
            email_notifications_enabled: row.email_notifications_enabled,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        let user = User {
            id: row.id,
            email: row.email,
            password_hash: row.password_hash,
            name: row.name,
            profile_picture: row.profile_picture,
            profession: row.profession,
            date_of_birth: row.date_of_birth,
            timezone: row.timezone,
            is_active: row.is_active,
            last_login: row.last_login,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        Ok((user, preferences))
    }
}

impl<A: Access> UserRepository<'_, A> {
    /// The account with this identifier.
    pub async fn get_by_id(self, id: UserId) -> Result<Option<User>> {
        Ok(sqlx::query_as!(
            User,
            "select id, email, password_hash, name, profile_picture, profession, date_of_birth,
                    timezone, is_active, last_login, created_at, updated_at
               from users
              where id = $1",
            id.as_uuid(),
        )
        .fetch_optional(self.conn.repeatable())
        .await?)
    }

    /// Returns the account with this address, whatever the case of its ASCII letters. A text that can be
    /// no stored address is not looked for.
    pub async fn get_by_email(self, email: &str) -> Result<Option<User>> {
        if !input::could_be_stored(email, 255) {
            return Ok(None);
        }
        Ok(sqlx::query_as!(
            User,
            r#"select id, email, password_hash, name, profile_picture, profession, date_of_birth,
                      timezone, is_active, last_login, created_at, updated_at
                 from users
                where lower(email collate "C") = lower($1 collate "C")"#,
            email,
        )
        .fetch_optional(self.conn.repeatable())
        .await?)
    }
}

impl UserRepository<'_> {
    /// Changes what the patch names.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound); otherwise as [`create`](Self::create).
    pub async fn update(self, id: UserId, patch: UserPatch) -> Result<User> {
        patch.check()?;
        sqlx::query_as!(
            User,
            "update users
                set email = coalesce($2, email),
                    password_hash = case when $3 then $4 else password_hash end,
                    name = case when $5 then $6 else name end,
                    profile_picture = case when $7 then $8 else profile_picture end,
                    profession = case when $9 then $10 else profession end,
                    date_of_birth = case when $11 then $12 else date_of_birth end,
                    timezone = coalesce($13, timezone),
                    is_active = coalesce($14, is_active)
              where id = $1
             returning id, email, password_hash, name, profile_picture, profession, date_of_birth,
                       timezone, is_active, last_login, created_at, updated_at",
            id.as_uuid(),
            patch.email.as_ref(),
            patch.password_hash.is_set(),
            patch.password_hash.as_ref().and_then(|hash| hash.as_ref()).map(PasswordHash::expose),
            patch.name.is_set(),
            patch.name.set_text(),
            patch.profile_picture.is_set(),
            patch.profile_picture.set_text(),
            patch.profession.is_set(),
            patch.profession.set_text(),
            patch.date_of_birth.is_set(),
            patch.date_of_birth.as_ref().copied().flatten(),
            patch.timezone.as_ref(),
            patch.is_active.as_ref().copied(),
        )
        .fetch_optional(self.conn)
        .await
        .map_err(time_zone::refused)?
        .ok_or(Error::NotFound("user"))
    }

    /// Notes that the account has just signed in, by the database's clock. None when there is no such
    /// account, or it is not active: then it may not sign in.
    pub async fn touch_last_login(self, id: UserId) -> Result<Option<DateTime<Utc>>> {
        let touched = sqlx::query_scalar!(
            "update users set last_login = now() where id = $1 and is_active returning last_login",
            id.as_uuid(),
        )
        .fetch_optional(self.conn)
        .await?;
        Ok(touched.flatten())
    }

    /// Closes the account without deleting anything: it may not sign in, and its sessions end, in one
    /// statement. `update` with `is_active` set opens it again, without the sessions that it had.
    ///
    /// # Errors
    ///
    /// [`NotFound`](Error::NotFound).
    pub async fn deactivate(self, id: UserId) -> Result<()> {
        let done = sqlx::query!(
            "with ended as (delete from sessions where user_id = $1)
             update users set is_active = false where id = $1",
            id.as_uuid(),
        )
        .execute(self.conn)
        .await?;
        if done.rows_affected() == 0 {
            return Err(Error::NotFound("user"));
        }
        Ok(())
    }

    /// Deletes the account with all that hangs on it: sessions, conversations, transcripts, … Says
    /// whether there was one.
    pub async fn delete(self, id: UserId) -> Result<bool> {
        let done = sqlx::query!("delete from users where id = $1", id.as_uuid())
            .execute(self.conn)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
