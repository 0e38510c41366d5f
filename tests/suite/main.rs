//! The whole suite, one file a subject. Each test has a database of its own on a real server: the
//! one that DATABASE_URL names, or a private one that lives as long as this process.

mod support;

mod accounts;
mod chunks;
mod config_entries;
mod conversation_trigger;
mod conversations;
mod enums;
mod messages;
mod other_programs;
mod secrets;
mod sessions;
mod startup;
mod templates;
mod transcripts;
mod users;
