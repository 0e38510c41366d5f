//! The crate's own statements: the text of each and the method that runs it, read from `src/` and
//! `.sqlx`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A statement that the crate sends.
pub struct Statement {
    /// `MessageRepository::get_last_n`; two methods with one statement are both named. The owned form
    /// of a statement ends with [`OWNED`].
    pub name: String,
    pub text: String,
    /// How many parameters it has.
    pub parameters: usize,
    /// Whether it is sent again when the connection breaks, in one of the methods at least.
    pub repeatable: bool,
}

/// How the name of an owned form ends: of the statement that is sent where the owner is known.
pub const OWNED: &str = " (owned)";

/// All of them, by name. `.sqlx` also holds those of tests and examples, which are left out.
pub fn of_the_crate() -> Vec<Statement> {
    let parameters = prepared();
    let mut statements = BTreeMap::<String, Statement>::new();
    let mut calls = 0;
    for file in rust_files(&package().join("src")) {
        let source = fs::read_to_string(&file).unwrap();
        for (name, text, repeatable) in Scanner::new(&source).calls() {
            calls += 1;
            let parameters = *parameters.get(&one_line(&text)).unwrap_or_else(|| {
                panic!("the statement of {name} is not in .sqlx (run scripts/prepare): {text}")
            });
            statements
                .entry(one_line(&text))
                .and_modify(|known| {
                    known.name = format!("{}, {name}", known.name);
                    known.repeatable |= repeatable;
                })
                .or_insert(Statement { name, text, parameters, repeatable });
        }
    }
    assert!(calls >= 100, "only {calls} statements were found in src");
    let mut statements: Vec<_> = statements.into_values().collect();
    statements.sort_by(|a, b| a.name.cmp(&b.name));
    statements
}

/// The folder of the package.
pub fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default().into()
}

/// With single blanks.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What `.sqlx` knows: the number of parameters of each statement.
fn prepared() -> BTreeMap<String, usize> {
    let files = fs::read_dir(package().join(".sqlx")).unwrap();
    files
        .map(|file| {
            let json = fs::read(file.unwrap().path()).unwrap();
            let known: serde_json::Value = serde_json::from_slice(&json).unwrap();
            let parameters = known["describe"]["parameters"]["Left"].as_array().unwrap().len();
            (one_line(known["query"].as_str().unwrap()), parameters)
        })
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// As much of Rust as it takes to find the calls of `query…!` and where they stand.
struct Scanner<'s> {
    rest: &'s str,
    depth: usize,
    /// The type of each `impl` around this place, with the depth of braces that it stands at.
    types: Vec<(usize, String)>,
    function: String,
    /// Inside of a `query…!`, before its statement.
    in_call: bool,
    /// In a call of `rows::…` that makes its statement itself: whether it is sent again.
    in_rows: Option<bool>,
    found: Vec<(String, String, bool)>,
}

impl<'s> Scanner<'s> {
    fn new(source: &'s str) -> Self {
        Self {
            rest: source,
            depth: 0,
            types: Vec::new(),
            function: String::new(),
            in_call: false,
            in_rows: None,
            found: Vec::new(),
        }
    }

    fn calls(mut self) -> Vec<(String, String, bool)> {
        while let Some(next) = self.rest.chars().next() {
            if self.rest.starts_with("//") {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if let Some(text) = self.literal() {
                self.statement(text);
            } else if self.rest.starts_with("'\"'") {
                self.skip(3);
            } else if self.rest.starts_with("'\\\"'") {
                self.skip(4);
            } else if next.is_alphabetic() || next == '_' {
                self.word();
            } else {
                self.skip(next.len_utf8());
                match next {
                    '{' => self.depth += 1,
                    '}' => {
                        self.depth -= 1;
                        let depth = self.depth;
                        self.types.pop_if(|(at, _)| *at == depth);
                    }
                    _ => {}
                }
            }
        }
        self.found
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// The value of the string literal that begins here.
    fn literal(&mut self) -> Option<String> {
        let start = self.rest.trim_start_matches('b');
        if let Some(raw) = start.strip_prefix('r') {
            let hashes = raw.len() - raw.trim_start_matches('#').len();
            let body = raw[hashes..].strip_prefix('"')?;
            let end = format!("\"{}", "#".repeat(hashes));
            let length = body.find(&end)?;
            self.rest = &body[length + end.len()..];
            return Some(body[..length].to_owned());
        }
        let body = start.strip_prefix('"')?;
        let (mut text, mut chars) = (String::new(), body.char_indices());
        while let Some((place, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &body[place + 1..];
                    return Some(text);
                }
                // Whatever is escaped counts as a blank, but for quotation marks.
                '\\' => match chars.next()?.1 {
                    escaped @ ('"' | '\\' | '\'') => text.push(escaped),
                    _ => text.push(' '),
                },
                _ => text.push(c),
            }
        }
        None
    }

    fn word(&mut self) {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let word = &self.rest[..end.unwrap_or(self.rest.len())];
        self.skip(word.len());
        match word {
            "fn" => {
                let name = self.rest.trim_start();
                let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
                self.function = name[..end.unwrap_or(0)].to_owned();
            }
            // Not the one in a method's signature.
            "impl" if self.depth == 0 => {
                let header = &self.rest[..self.rest.find('{').unwrap_or(0)];
                let header = header.split(" where ").next().unwrap_or(header);
                let named = header.rsplit(" for ").next().unwrap_or(header).trim_start();
                let named = match named.strip_prefix('<') {
                    Some(_) => named.split_once('>').map_or("", |(_, rest)| rest).trim_start(),
                    None => named,
                };
                let end = named.find(|c: char| !c.is_alphanumeric() && c != '_');
                let name = named[..end.unwrap_or(named.len())].to_owned();
                if !name.is_empty() && name.starts_with(char::is_uppercase) {
                    self.types.push((self.depth, name));
                }
            }
            "rows" => {
                let call = self.rest.split_once('(').map_or("", |(_, arguments)| arguments);
                let mut arguments = call.splitn(3, ',').map(str::trim_start);
                let on = arguments.next().unwrap_or_default();
                if arguments.nth(1).is_some_and(|statement| statement.starts_with("||")) {
                    self.in_rows = Some(is_sent_again(on));
                }
            }
            _ if word.starts_with("query") && self.rest.starts_with('!') => self.in_call = true,
            _ => {}
        }
    }

    /// The first literal of a call is its statement; `+` goes on with it. In `by_owner!`, what
    /// `owned(…)` holds is of the owned form alone, which goes on after `+` and stands for itself
    /// after `|`.
    fn statement(&mut self, text: String) {
        if !std::mem::take(&mut self.in_call) {
            return;
        }
        let (mut plain, mut owned) = (text, None::<String>);
        loop {
            let rest = self.rest.trim_start();
            let Some(more) = rest.strip_prefix('+').or_else(|| rest.strip_prefix('|')) else {
                break;
            };
            let instead = rest.starts_with('|');
            self.rest = more.trim_start();
            if let Some(inside) = self.rest.strip_prefix("owned(") {
                self.rest = inside.trim_start();
                let text = self.literal().expect("a literal in `owned(…)`");
                owned = Some(if instead { text } else { plain.clone() + &text });
                self.rest =
                    self.rest.trim_start().strip_prefix(')').expect("the end of `owned(…)`");
            } else {
                let text = self.literal().expect("a literal after `+`");
                plain += &text;
                owned = owned.map(|owned| owned + &text);
            }
        }
        let name = match self.types.last() {
            Some((_, of)) => format!("{of}::{}", self.function),
            None => self.function.clone(),
        };
        let repeatable = self.is_repeatable();
        if let Some(owned) = owned {
            self.found.push((name.clone() + OWNED, owned, repeatable));
        }
        self.found.push((name, plain, repeatable));
    }

    /// Whether what was just read is run where it is sent again.
    fn is_repeatable(&mut self) -> bool {
        const RUN: [&str; 9] = [
            ".fetch(",
            ".fetch_one(",
            ".fetch_optional(",
            ".fetch_all(",
            ".execute(",
            "rows::one(",
            "rows::all(",
            "rows::listed(",
            "rows::stream(",
        ];
        self.in_rows.take().unwrap_or_else(|| {
            let on = RUN.iter().filter_map(|run| Some((self.rest.find(run)?, run.len()))).min();
            let (at, length) = on.expect("a statement is run");
            is_sent_again(self.rest[at + length..].trim_start())
        })
    }
}

/// Whether a statement that is run on this is sent again when its connection breaks.
fn is_sent_again(on: &str) -> bool {
    on.starts_with("self.conn.repeatable()") || on.starts_with("self.executor().repeatable()")
}
