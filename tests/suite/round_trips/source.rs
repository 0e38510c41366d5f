//! What the crate offers, read from its source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Each repository's type, and the method that it comes from.
pub fn repositories() -> BTreeMap<String, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/repositories.rs");
    fs::read_to_string(file)
        .unwrap()
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(": "))
        .filter(|(_, repository)| repository.ends_with("Repository"))
        .map(|(call, repository)| (repository.to_owned(), call.to_owned()))
        .collect()
}

/// Every public method of every repository, as it is called: `users().create`.
pub fn methods() -> BTreeSet<String> {
    methods_in(|_| true)
}

/// Those that read-only repositories have too.
pub fn reading_methods() -> BTreeSet<String> {
    methods_in(|header| header.contains("<A: Access") || header.contains(", A: Access"))
}

/// Those in an `impl` whose first line is like this.
fn methods_in(which: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let repositories = repositories();
    let mut methods = BTreeSet::new();
    visit(&source, &mut |text| {
        let mut call = None;
        for line in text.lines() {
            if line.starts_with("impl") {
                call = repositories
                    .iter()
                    .find(|(name, _)| which(line) && line.contains(&format!(" {name}<")));
            }
            let method = line
                .strip_prefix("    pub fn ")
                .or_else(|| line.strip_prefix("    pub async fn "))
                .and_then(|rest| rest.split(['(', '<']).next());
            if let (Some((_, call)), Some(method)) = (call, method) {
                methods.insert(format!("{call}().{method}"));
            }
        }
    });
    let found =
        |call: &&String| methods.iter().any(|method| method.starts_with(&format!("{call}().")));
    let silent: Vec<_> = repositories.values().filter(|call| !found(call)).collect();
    assert!(silent.is_empty() && !repositories.is_empty(), "no method of {silent:?} was found");
    methods
}

fn visit(folder: &Path, see: &mut impl FnMut(&str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, see);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            see(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// The documented table: an operation and its round trips on each line that begins with `` | ` ``.
pub fn table() -> BTreeMap<String, usize> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/round-trips.md");
    fs::read_to_string(file)
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| {
            let (operation, rest) = line.split_once("` |").unwrap();
            let count = rest.split('|').next().unwrap().trim();
            (operation.to_owned(), count.parse().unwrap())
        })
        .collect()
}
