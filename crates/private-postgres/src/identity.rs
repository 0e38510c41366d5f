//! Whom the server runs as: PostgreSQL refuses to run as root.

use std::{
    env,
    ffi::OsStr,
    os::unix::process::CommandExt,
    process::{Command, Output, Stdio},
};

use crate::StartError;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// This process is root, and the server's processes are not.
    pub(crate) dropped: bool,
}

impl Identity {
    pub(crate) fn current() -> Result<Self, StartError> {
        let (Some(uid), Some(gid)) = (id("-u", None), id("-g", None)) else {
            return Err(StartError::new("`id -u` does not tell the current user"));
        };
        if uid != 0 {
            let dropped = false;
            return Ok(Self { uid, gid, dropped });
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|user| {
                let (uid, gid) = (id("-u", Some(user))?, id("-g", Some(user))?);
                let dropped = true;
                (uid != 0).then_some(Self { uid, gid, dropped })
            })
            .ok_or_else(|| {
                StartError::new(
                    "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` \
                     to run it as",
                )
            })
    }

    /// A command run as this user, unaffected by the caller's `PG…` variables, locale and folder
    /// (which this user may be unable to read).
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        if self.dropped {
            // std clears the supplementary groups when root sets another user.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }
}

fn id(what: &str, user: Option<&str>) -> Option<u32> {
    let output = Command::new("id").arg(what).args(user).output().ok()?;
    let number: i64 = text(&output.stdout).parse().ok()?;
    // macOS may print the id of `nobody` as -2.
    output.status.success().then_some(number as u32)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// Runs a command to its end; what it printed if it failed.
pub(crate) fn run(command: &mut Command) -> Result<Output, String> {
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(output);
    }
    let printed = [text(&output.stdout), text(&output.stderr)].join("\n");
    let program = command.get_program().display();
    Err(format!("{program}: {}: {}", output.status, printed.trim()))
}
