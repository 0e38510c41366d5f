//! What a user wants of the digest: one row a user.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::user::UserId;
use crate::db::id::{id, text_enum};
use crate::db::{Patch, Result};
use crate::repositories::{Access, repository};

id!(
    /// Identifies a row of [`UserPreferences`].
    UserPreferencesId
);

text_enum!(
    /// How often a digest is sent.
    UpdateFrequency {
        /// Every day.
        Daily = "daily",
        /// Every third day.
        EveryThreeDays = "every_3_days",
        /// Every week.
        Weekly = "weekly",
        /// Every second week.
        EveryTwoWeeks = "every_2_weeks",
        /// Every month.
        Monthly = "monthly",
        /// Not at all.
        Never = "never",
    }
);

text_enum!(
    /// How long a summary is.
    SummaryLength {
        /// A few sentences.
        Concise = "concise",
        /// A few paragraphs.
        Standard = "standard",
        /// As long as it takes.
        Detailed = "detailed",
    }
);

/// What a user wants of the digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[non_exhaustive]
pub struct UserPreferences {
    /// The row's identifier.
    pub id: UserPreferencesId,
    /// Whose they are.
    pub user_id: UserId,
    /// How often a digest is sent.
    pub update_frequency: UpdateFrequency,
    /// How long its summaries are.
    pub summary_length: SummaryLength,
    /// Whether e-mails are sent at all.
    pub email_notifications_enabled: bool,
    /// When they were first stored.
    pub created_at: DateTime<Utc>,
    /// When they last changed.
    pub updated_at: DateTime<Utc>,
}

/// Preferences to be stored. The default is the specification's: weekly, standard, with e-mails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewUserPreferences {
    /// How often a digest is sent.
    pub update_frequency: UpdateFrequency,
    /// How long its summaries are.
    pub summary_length: SummaryLength,
    /// Whether e-mails are sent at all.
    pub email_notifications_enabled: bool,
}

impl Default for NewUserPreferences {
    fn default() -> Self {
        Self {
            update_frequency: UpdateFrequency::Weekly,
            summary_length: SummaryLength::Standard,
            email_notifications_enabled: true,
        }
    }
}

/// What to change of preferences; see [`Patch`].
#[derive(Debug, Clone, Copy, Default)]
pub struct UserPreferencesPatch {
    /// How often a digest is sent.
    pub update_frequency: Patch<UpdateFrequency>,
    /// How long its summaries are.
    pub summary_length: Patch<SummaryLength>,
    /// Whether e-mails are sent at all.
    pub email_notifications_enabled: Patch<bool>,
}

repository!(
    /// Preferences: [`Database::user_preferences`](crate::Database::user_preferences).
    UserPreferencesRepository
);

impl UserPreferencesRepository<'_> {
    /// Stores a user's preferences.
    /// [`UserRepository::create_with_preferences`](crate::UserRepository::create_with_preferences)
    /// does it together with the account.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::Error::Conflict) when the user has some already
    /// ([`UserPreferencesUserIdKey`](crate::Constraint::UserPreferencesUserIdKey));
    /// [`ForeignKey`](crate::Error::ForeignKey) when there is no such user.
    pub async fn create(self, user_id: UserId, new: NewUserPreferences) -> Result<UserPreferences> {
        Ok(sqlx::query_as!(
            UserPreferences,
            "insert into user_preferences (id, user_id, update_frequency, summary_length,
                                           email_notifications_enabled)
             values ($1, $2, $3, $4, $5)
             returning id, user_id, update_frequency, summary_length, email_notifications_enabled,
                       created_at, updated_at",
            UserPreferencesId::new().as_uuid(),
            user_id.as_uuid(),
            new.update_frequency.as_str(),
            new.summary_length.as_str(),
            new.email_notifications_enabled,
        )
        .fetch_one(self.conn)
        .await?)
    }
}

impl<A: Access> UserPreferencesRepository<'_, A> {
    /// A user's preferences; none when the account was made without.
    pub async fn get_by_user(self, user_id: UserId) -> Result<Option<UserPreferences>> {
        Ok(sqlx::query_as!(
            UserPreferences,
            "select id, user_id, update_frequency, summary_length, email_notifications_enabled,
                    created_at, updated_at
               from user_preferences
              where user_id = $1",
            user_id.as_uuid(),
        )
        .fetch_optional(self.conn.repeatable())
        .await?)
    }
}

impl UserPreferencesRepository<'_> {
    /// Changes what the patch names. A user without preferences gets the defaults with the patch on
    /// top, so a settings page needs no case of its own for old accounts.
    ///
    /// # Errors
    ///
    /// [`ForeignKey`](crate::Error::ForeignKey) when there is no such user.
    pub async fn update(
        self,
        user_id: UserId,
        patch: UserPreferencesPatch,
    ) -> Result<UserPreferences> {
        let defaults = NewUserPreferences::default();
        Ok(sqlx::query_as!(
            UserPreferences,
            "insert into user_preferences as p (id, user_id, update_frequency, summary_length,
                                                email_notifications_enabled)
             values ($1, $2, coalesce($3, $6), coalesce($4, $7), coalesce($5::boolean, $8))
             on conflict (user_id) do update
                set update_frequency = coalesce($3, p.update_frequency),
                    summary_length = coalesce($4, p.summary_length),
                    email_notifications_enabled = coalesce($5, p.email_notifications_enabled)
             returning id, user_id, update_frequency, summary_length, email_notifications_enabled,
                       created_at, updated_at",
            UserPreferencesId::new().as_uuid(),
            user_id.as_uuid(),
            patch.update_frequency.as_ref().map(|v| v.as_str()),
            patch.summary_length.as_ref().map(|v| v.as_str()),
            patch.email_notifications_enabled.as_ref().copied(),
            defaults.update_frequency.as_str(),
            defaults.summary_length.as_str(),
            defaults.email_notifications_enabled,
        )
        .fetch_one(self.conn)
        .await?)
    }
}
