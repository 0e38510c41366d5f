//! Who uses the application: accounts and signed-in sessions.

mod secrets;
mod session;
mod user;

pub use secrets::{PasswordHash, TokenHash};
pub use session::{Session, SessionId, SessionRepository};
pub use user::{NewUser, User, UserId, UserPatch, UserRepository};
