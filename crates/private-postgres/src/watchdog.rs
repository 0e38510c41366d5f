//! What ends a server and removes its folder when its owner ends, however that happens.

use std::{
    io,
    os::fd::AsFd,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{identity::Identity, libraries};

// $1 the program pg_ctl, $2 the data folder, $3 the whole folder.
// - The first `read` returns when the owner closes its end of the pipe, by ending or on purpose, and
//   nothing that it started holds it any more.
// - A process id in a leftover file may be another process's by now: its command line tells.
// - A frozen server cannot hear that it should stop, hence CONT.
// - A server that was killed leaves its shared memory segment (line 7 of the file).
// - More than one round: processes that are just ending may still write to the folder.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
read -r line
for round in 1 2 3 4 5; do
    if [ -f "$2/postmaster.pid" ]; then
        {
            read -r pid
            for line in 2 3 4 5 6; do read -r line; done
            read -r key segment
        } <"$2/postmaster.pid"
        case $(tr '\0' ' ' <"/proc/$pid/cmdline" || ps -o args= -p "$pid") in
        *"$2"*)
            kill -CONT "$pid"
            "$1" stop -D "$2" -m immediate -t 20
            ;;
        *) ipcrm -m "$segment" ;;
        esac
    fi
    rm -rf "$3"
    [ -e "$3" ] || break
    sleep 1
done
"#;

fn script(identity: Identity, pg_ctl: &Path, data: &Path, folder: &Path) -> Command {
    let mut command = identity.command("/bin/sh");
    command
        .args(["-c", SCRIPT, "private-postgres-watchdog"])
        .args([pg_ctl, data, folder])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A Ctrl-C is for the terminal's foreground group only.
        .process_group(0);
    if let Some(bin) = pg_ctl.parent() {
        libraries::beside(bin, &mut command);
    }
    command
}

/// Ends what an owner left that is known to be dead.
pub(crate) fn clean(identity: Identity, pg_ctl: &Path, data: &Path, folder: &Path) {
    _ = script(identity, pg_ctl, data, folder).status();
}

/// Cleans up when it is dropped or this process ends.
pub(crate) struct Watchdog(Child);

impl Watchdog {
    pub(crate) fn start(
        identity: Identity,
        pg_ctl: &Path,
        data: &Path,
        folder: &Path,
    ) -> io::Result<Self> {
        // std marks our end of the pipe close-on-exec: no other child keeps it open.
        script(identity, pg_ctl, data, folder).stdin(Stdio::piped()).spawn().map(Self)
    }

    /// Makes the watchdog wait for this command too if the owner dies meanwhile. `initdb` and a
    /// server that starts leave shared memory behind when their folder vanishes, or when a Ctrl-C
    /// reaches them.
    pub(crate) fn wait_for<'a>(&self, command: &'a mut Command) -> io::Result<&'a mut Command> {
        let pipe = self.0.stdin.as_ref().expect("it is piped");
        let pipe = pipe.as_fd().try_clone_to_owned()?;
        Ok(command.stdin(pipe).process_group(0))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // `wait` closes the pipe first.
        _ = self.0.wait();
    }
}
