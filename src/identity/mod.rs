//! Who uses the application: accounts, their preferences, and signed-in sessions.

mod secrets;
mod session;
mod session_token;
mod time_zone;
mod user;
mod user_preferences;

pub use secrets::{PasswordHash, TokenHash};
pub use session::{Session, SessionId, SessionRepository};
pub use session_token::SessionToken;
pub use user::{NewUser, User, UserId, UserPatch, UserRepository};
pub use user_preferences::{
    NewUserPreferences, SummaryLength, UpdateFrequency, UserPreferences, UserPreferencesId,
    UserPreferencesPatch, UserPreferencesRepository,
};
