//! `with-postgres CMD ARGS…` runs a command with `DATABASE_URL` set to a private server, which ends
//! with it, and exits as it does. Where `DATABASE_URL` is set already, no server is started.
//!
//! Ctrl-C goes to the command and to this program alike; what it leaves is ended by the watchdog.

#![forbid(unsafe_code)]

use std::{
    env, io,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode},
};

use private_postgres::Server;

fn main() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("usage: with-postgres CMD ARGS…");
        return ExitCode::from(2);
    };
    let mut command = Command::new(&program);
    command.args(words);

    let url = env::var_os("DATABASE_URL");
    let mut server = None;
    if url.is_none_or(|url| url.is_empty()) {
        match Server::start() {
            Ok(started) => {
                command.env("DATABASE_URL", started.url("postgres"));
                server = Some(started);
            }
            Err(error) => {
                eprintln!("with-postgres: {error}");
                return ExitCode::FAILURE;
            }
        }
    }

    let status = command.status();
    drop(server);
    match status {
        Ok(status) => {
            let code = status.code().or(status.signal().map(|signal| 128 + signal));
            ExitCode::from(code.and_then(|code| code.try_into().ok()).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("with-postgres: {}: {error}", program.display());
            // As shells do.
            ExitCode::from(match error.kind() {
                io::ErrorKind::NotFound => 127,
                _ => 126,
            })
        }
    }
}
