//! What the crate's own source must not hold, because the compiler can't forbid all of it.
//!
//! The driver takes only text that was there when the program was compiled, or what somebody vouches
//! for. So SQL that is put together at run time has to go through one of a few names.

use std::fs;
use std::path::{Path, PathBuf};

/// The ways to turn a text that was put together into a statement.
const DOORS: [&str; 6] =
    ["AssertSqlSafe", "QueryBuilder", "Box::leak", ".leak()", "SqlStr::from", "impl SqlSafeStr"];

/// Text that is put together, and begins as a statement does.
const BUILDERS: [&str; 5] = ["format!", "write!", "writeln!", "concat!", "format_args!"];
const VERBS: [&str; 21] = [
    "select ",
    "insert ",
    "update ",
    "delete ",
    "with ",
    "begin",
    "commit",
    "rollback",
    "savepoint",
    "release ",
    "set ",
    "create ",
    "alter ",
    "drop ",
    "grant ",
    "copy ",
    "call ",
    "do ",
    "listen ",
    "notify ",
    "lock ",
];

/// What is allowed all the same: a file, what is in it, and why.
const ALLOWED: [(&str, &str, &str); 4] = [
    (
        "src/db/actor.rs",
        "QueryBuilder",
        "BEGIN has no parameters, and carries the user it works for: a Uuid, hex digits and hyphens",
    ),
    (
        "src/db/unit_of_work.rs",
        "QueryBuilder",
        "BEGIN has no parameters, and behind a pooler carries the configuration's timeouts: numbers",
    ),
    (
        "src/db/pooler.rs",
        "QueryBuilder",
        "a text that no server has seen yet: a number by chance, selected",
    ),
    (
        "src/db/migrate/preflight.rs",
        "remedy: format!",
        "a statement that an administrator is shown, and that nothing runs",
    ),
];

fn sources() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// The lines that open a door, with what opens it.
fn findings(source: &str) -> Vec<(String, &'static str)> {
    let code = |line: &str| !line.trim_start().starts_with("//");
    let lines: Vec<&str> = source.lines().filter(|line| code(line)).collect();
    let text = lines.join("\n");
    let doors =
        DOORS.iter().flat_map(|door| text.match_indices(door).map(move |(at, _)| (at, *door)));
    let built = BUILDERS.iter().flat_map(|builder| {
        text.match_indices(builder).filter_map(|(at, _)| {
            let literal = text[at..].split('"').nth(1)?.trim_start().to_lowercase();
            VERBS.iter().any(|verb| literal.starts_with(verb)).then_some((at, *builder))
        })
    });
    doors
        .chain(built)
        .map(|(at, what)| {
            let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
            (text[start..].lines().next().unwrap_or_default().trim().to_owned(), what)
        })
        .collect()
}

#[test]
fn no_statement_is_put_together_at_run_time() {
    let files = sources();
    assert!(files.len() > 40, "{files:?}");
    let mut used = Vec::new();
    let mut found = Vec::new();
    for file in files {
        for (line, what) in findings(&fs::read_to_string(&file).unwrap()) {
            let allowed = ALLOWED
                .iter()
                .position(|(name, part, _)| file.ends_with(name) && line.contains(part));
            match allowed {
                Some(which) => used.push(which),
                None => found.push(format!("{}: {what}: {line}", file.display())),
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    for (which, exception) in ALLOWED.iter().enumerate() {
        assert!(used.contains(&which), "nothing needs the exception {exception:?} any more");
    }
}

#[test]
fn statements_that_are_put_together_are_seen() {
    for (source, seen) in [
        ("sqlx::query(AssertSqlSafe(text))", 1),
        ("let sql = format!(\"select * from {table}\");", 1),
        ("write!(\n    sql,\n    \"\n  update {table} set\"\n)", 1),
        ("let all: &'static str = text.leak();", 1),
        ("QueryBuilder::new(\"select 1\")", 1),
        ("// AssertSqlSafe is not used", 0),
        ("format!(\"{table} is selected\")", 0),
        ("query!(\"select id from users where id = $1\", id)", 0),
    ] {
        assert_eq!(findings(source).len(), seen, "{source}");
    }
}

#[test]
fn unsafe_code_is_forbidden() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    assert!(lib.lines().any(|line| line == "#![forbid(unsafe_code)]"));
}
