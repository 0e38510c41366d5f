//! The application's settings.

mod config;

pub use config::{ConfigEntry, ConfigRepository};
