//! The libraries that lie beside a server's programs, used in place of the machine's.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const VARIABLE: &str =
    if cfg!(target_os = "macos") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };

/// Lets a program of this folder find the libpq beside it, and so whatever it starts or loads. A
/// package that was unpacked elsewhere than it was built for leads its programs there, but not the
/// modules that the server loads: the standby's would take the machine's libpq, an older one or none.
pub(crate) fn beside<'a>(bin: &Path, command: &'a mut Command) -> &'a mut Command {
    match own(bin) {
        Some(folder) => command.env(VARIABLE, first(&folder, env::var_os(VARIABLE).as_deref())),
        None => command,
    }
}

/// The folder beside `bin` that holds a libpq.
fn own(bin: &Path) -> Option<PathBuf> {
    let root = bin.parent()?;
    ["lib", "lib64"].map(|name| root.join(name)).into_iter().find(|folder| {
        fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libpq.so.") || name.starts_with("libpq.") && name.ends_with(".dylib")
        })
    })
}

/// The folder before those that are set already. An empty list means none: one with an empty entry
/// would be the current folder.
fn first(folder: &Path, set: Option<&OsStr>) -> OsString {
    let mut list = folder.as_os_str().to_owned();
    if let Some(set) = set.filter(|set| !set.is_empty()) {
        list.push(":");
        list.push(set);
    }
    list
}

/// Which libraries a program lacks on this machine, as far as `ldd` tells.
pub(crate) fn missing(bin: &Path, program: &str) -> Vec<String> {
    let mut ldd = Command::new("ldd");
    let Ok(output) = beside(bin, ldd.arg(bin.join(program))).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" => not found"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_libpq_beside_the_programs_comes_before_the_machines() {
        let root = env::temp_dir().join(format!("private-postgres-lib-{}", std::process::id()));
        let bin = root.join("bin");
        let variable = |bin: &Path| {
            let mut command = Command::new("true");
            beside(bin, &mut command);
            let set = command.get_envs().find(|(name, _)| *name == VARIABLE);
            set.and_then(|(_, value)| value.map(OsStr::to_owned))
        };
        for (lib, libpq) in [("lib", "libpq.so.5"), ("lib64", "libpq.5.dylib")] {
            fs::create_dir_all(root.join(lib)).unwrap();
            // What is linked statically or is a module of the server says nothing.
            fs::write(root.join(lib).join("libpq.a"), "").unwrap();
            fs::write(root.join(lib).join("libpqwalreceiver.so"), "").unwrap();
            assert_eq!(variable(&bin), None);
            fs::write(root.join(lib).join(libpq), "").unwrap();
            assert!(env::split_paths(&variable(&bin).unwrap()).next() == Some(root.join(lib)));
            fs::remove_dir_all(root.join(lib)).unwrap();
        }
        _ = fs::remove_dir_all(&root);
        assert_eq!(first(Path::new("/a"), None), "/a");
        assert_eq!(first(Path::new("/a"), Some(OsStr::new(""))), "/a");
        assert_eq!(first(Path::new("/a"), Some(OsStr::new("/b:/c"))), "/a:/b:/c");
    }
}
