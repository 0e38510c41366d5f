//! The names that migrations make, read from their text.

use sqlx::migrate::Migration;

/// What a run of migrations is about to make.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub tables: Vec<String>,
    /// Tables, indexes, and the indexes of keys: what shares one space of names.
    pub relations: Vec<String>,
    /// With the types of their arguments: `delete_document(uuid)`.
    pub functions: Vec<String>,
    /// Names that the run frees itself, before it makes them anew.
    freed: Vec<String>,
}

impl Names {
    /// Reads the statements one after the other. They are this crate's own, in lower case.
    pub fn of<'m>(migrations: impl IntoIterator<Item = &'m Migration>) -> Self {
        let mut names = Self::default();
        for migration in migrations {
            for statement in statements(migration.sql.as_str()) {
                names.read(&statement);
            }
        }
        names
    }

    fn read(&mut self, statement: &str) {
        let mut words = statement.split([' ', '(']).filter(|w| !MODIFIERS.contains(w));
        let (verb, kind, name) = (words.next(), words.next(), words.next().unwrap_or_default());
        match (verb, kind) {
            (Some("create"), Some("table")) => {
                self.relation(name);
                self.tables.push(name.to_owned());
            }
            (Some("create"), Some("index" | "view" | "sequence" | "type")) => self.relation(name),
            // `create or replace` has another second word.
            (Some("create"), Some("function")) if !self.is_freed(name) => {
                self.functions.extend(signature(statement, name));
            }
            (Some("drop"), Some("table" | "index" | "function")) => {
                self.freed.push(name.to_owned());
            }
            (Some("alter"), _) if statement.contains(" rename to ") => {
                self.freed.push(name.to_owned());
                self.relation(statement.rsplit(' ').next().unwrap_or_default());
            }
            _ => {}
        }
        // A key's index is named after it.
        for text in statement.split("drop constraint ").skip(1) {
            self.freed.push(text.split([' ', ',']).next().unwrap_or_default().to_owned());
        }
        for text in statement.split("constraint ").skip(1) {
            let mut words = text.split([' ', '(']);
            let name = words.next().unwrap_or_default();
            // With `using index` it takes one that is there.
            let makes_index = matches!(words.next(), Some("primary" | "unique" | "exclude"));
            if makes_index && !words.take(3).any(|word| word == "using") {
                self.relation(name);
            }
        }
    }

    fn relation(&mut self, name: &str) {
        if !self.is_freed(name) {
            self.relations.push(name.to_owned());
        }
    }

    fn is_freed(&self, name: &str) -> bool {
        self.freed.iter().any(|freed| freed == name)
    }
}

/// Words between a verb and a name.
const MODIFIERS: [&str; 6] = ["", "unique", "concurrently", "if", "exists", "not"];

/// The statements without comments and bodies of functions, with single blanks.
fn statements(sql: &str) -> Vec<String> {
    let code: String = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ");
    let outside: String = code.split("$$").step_by(2).collect();
    outside.split(';').map(|s| s.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// `name(type, type)` of `create function name(a type, b type, out c type)`.
fn signature(statement: &str, name: &str) -> Option<String> {
    let arguments = statement.split_once('(')?.1;
    let arguments = arguments.split_once(')')?.0;
    let types: Vec<_> = arguments
        .split(',')
        .map(str::trim)
        .filter(|argument| !argument.is_empty() && !argument.starts_with("out "))
        .map(|argument| argument.split_once(' ').map_or(argument, |(_, of_type)| of_type))
        .collect();
    Some(format!("{name}({})", types.join(", ")))
}
