//! The folder that a server lives in, and sweeping the folders of owners that died.

use std::{
    env,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, chown},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{
    StartError,
    identity::{Identity, run, text},
    watchdog,
};

// Not the start of any other name in the temp folder: what has it may be removed.
const PREFIX: &str = "private-postgres.";
const LOCK: &str = "owner.lock";
const SHM: &str = "/dev/shm";

/// A new folder, owned by the server's user. Whether its owner lives is told by the lock, which the
/// system releases when the owner ends: process ids come again and differ between containers.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    _lock: File,
}

/// The folders that servers may live in, fastest first.
pub(crate) fn parents() -> Vec<PathBuf> {
    let mut parents = vec![env::temp_dir(), "/tmp".into()];
    if has_room(SHM) {
        parents.insert(0, SHM.into());
    }
    parents
}

/// At least 1 GiB free: containers often have a `/dev/shm` of 64 MB.
fn has_room(folder: &str) -> bool {
    let Ok(output) = run(Command::new("df").args(["-Pk", folder])) else {
        return false;
    };
    text(&output.stdout)
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok())
        .is_some_and(|kilobytes| kilobytes >= 1 << 20)
}

impl Folder {
    pub(crate) fn create(parents: &[PathBuf], identity: Identity) -> Result<Self, StartError> {
        let mut problems = Vec::new();
        for parent in parents {
            match Self::create_in(parent, identity) {
                Ok(folder) => return Ok(folder),
                Err(error) => problems.push(format!("{}: {error}", parent.display())),
            }
        }
        let problems = problems.join("; ");
        Err(StartError::new(format!(
            "no folder can be made for the private PostgreSQL server: {problems}"
        )))
    }

    fn create_in(parent: &Path, identity: Identity) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let parent = parent.canonicalize()?;
        for _ in 0..100 {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{PREFIX}{}-{number}", process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created?,
            }
            // Taken: another process sweeps it already, for it was not locked yet.
            let Some(lock) =
                File::create(path.join(LOCK)).ok().filter(|lock| lock.try_lock().is_ok())
            else {
                continue;
            };
            let folder = Self { path, _lock: lock };
            if identity.dropped {
                chown(&folder.path, Some(identity.uid), Some(identity.gid))?;
                // The temp folder may be one that only root can enter.
                let enter = ["-c", r#"cd "$0""#];
                if let Err(problem) = run(identity.command("/bin/sh").args(enter).arg(&folder.path))
                {
                    fs::remove_dir_all(&folder.path)?;
                    return Err(io::Error::other(problem));
                }
            }
            return Ok(folder);
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    pub(crate) fn data(&self) -> PathBuf {
        data(&self.path)
    }
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Ends and removes what dead owners left: only where the watchdog was killed as well.
pub(crate) fn sweep(parents: &[PathBuf], identity: Identity, pg_ctl: &Path) {
    let entries =
        parents.iter().filter_map(|parent| fs::read_dir(parent.canonicalize().ok()?).ok());
    for entry in entries.flatten().flatten() {
        let path = entry.path();
        let ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && fs::symlink_metadata(&path)
                .is_ok_and(|folder| folder.is_dir() && folder.uid() == identity.uid);
        if !ours {
            continue;
        }
        match File::open(path.join(LOCK)) {
            Ok(lock) if lock.try_lock().is_ok() => {
                watchdog::clean(identity, pg_ctl, &data(&path), &path);
            }
            // Not locked by its owner yet, or half removed by a watchdog that was killed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_old(&path) => {
                watchdog::clean(identity, pg_ctl, &data(&path), &path);
            }
            _ => {}
        }
    }
}

fn is_old(path: &Path) -> bool {
    let age = fs::metadata(path).and_then(|folder| folder.modified());
    age.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > Duration::from_secs(600)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_only_folders_whose_owner_is_dead() {
        let identity = Identity::current().unwrap();
        let scratch = Folder::create(&parents(), identity).unwrap();
        let parents = [scratch.path.clone()];
        let alive = Folder::create(&parents, identity).unwrap();
        let dead = Folder::create(&parents, identity).unwrap().path;
        let foreign = scratch.path.join("something-else");
        fs::create_dir(&foreign).unwrap();

        sweep(&parents, identity, Path::new("/nonexistent"));

        assert!(alive.path.exists());
        assert!(!dead.exists());
        assert!(foreign.exists());
        fs::remove_dir_all(&scratch.path).unwrap();
    }
}
