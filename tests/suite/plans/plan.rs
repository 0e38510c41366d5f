//! A plan, as `explain (format json)` tells it, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What the catalogue knows: our tables, and the columns of our indexes.
#[derive(Default)]
pub struct Catalogue {
    pub tables: BTreeSet<String>,
    pub indexes: BTreeMap<String, Index>,
}

pub struct Index {
    pub table: String,
    /// It holds only the rows of a condition.
    pub partial: bool,
    pub unique: bool,
    /// A btree reads a range only if its first column is given.
    pub ordered: bool,
    /// In the index's order; an expression is empty.
    pub columns: Vec<String>,
}

/// What stands between a scan and whoever takes its rows.
#[derive(Clone, Copy, Default)]
struct Above {
    limits: bool,
    filters: bool,
}

enum Narrowed {
    No,
    ToARange,
    ToAValue,
}

pub struct Plan<'c> {
    root: Value,
    catalogue: &'c Catalogue,
}

impl<'c> Plan<'c> {
    pub fn new(explained: &Value, catalogue: &'c Catalogue) -> Self {
        Self { root: explained[0]["Plan"].clone(), catalogue }
    }

    /// The indexes that it reads.
    pub fn indexes(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        each(&self.root, &mut |node| {
            if let Some(name) = node["Index Name"].as_str() {
                names.insert(name.to_owned());
            }
        });
        // The arbiter of `on conflict`.
        each(&self.root, &mut |node| {
            for name in node["Conflict Arbiter Indexes"].as_array().into_iter().flatten() {
                names.insert(name.as_str().unwrap().to_owned());
            }
        });
        names.retain(|name| self.catalogue.indexes.contains_key(name));
        names
    }

    /// What it does that grows with a table: whole tables and indexes that it reads, and sorts of a
    /// set that nothing bounds.
    pub fn faults(&self) -> BTreeSet<String> {
        let mut faults = BTreeSet::new();
        self.look_at(&self.root, Above::default(), &mut faults);
        faults
    }

    fn look_at(&self, node: &Value, above: Above, faults: &mut BTreeSet<String>) {
        let kind = node["Node Type"].as_str().unwrap();
        let relation = node["Relation Name"].as_str().unwrap_or_default();
        match kind {
            "Seq Scan" | "Parallel Seq Scan" if self.catalogue.tables.contains(relation) => {
                faults.insert(format!("reads all of {relation}"));
            }
            "Sort" | "Incremental Sort" if !inputs(node).all(|input| self.bounded(input)) => {
                let keys = node["Sort Key"].as_array().unwrap().iter();
                let key: Vec<_> = keys.map(|key| unqualified(key.as_str().unwrap())).collect();
                faults.insert(format!("sorts by {}", key.join(", ")));
            }
            _ => {}
        }
        let filtered = above.filters || !node["Filter"].is_null();
        if let Some((name, index)) = self.index(node) {
            // In the order of a list, as far as its limit goes.
            let walked = above.limits && !filtered;
            let wide = match narrowed(node, index) {
                Narrowed::No => true,
                Narrowed::ToARange => filtered,
                Narrowed::ToAValue => false,
            };
            if wide && !walked {
                let of = if index.partial { &name } else { &index.table };
                faults.insert(format!("reads all of {of}"));
            }
        }
        let passes = matches!(kind, "LockRows" | "Subquery Scan" | "Result" | "ProjectSet");
        for (place, input) in inputs(node).enumerate() {
            let outer = place == 0 && kind == "Nested Loop";
            let limits = kind == "Limit" || above.limits && (passes || outer);
            let filters = kind == "Bitmap Heap Scan" && filtered;
            self.look_at(input, Above { limits, filters }, faults);
        }
    }

    fn index(&self, node: &Value) -> Option<(String, &Index)> {
        let name = node["Index Name"].as_str()?;
        Some((name.to_owned(), self.catalogue.indexes.get(name)?))
    }

    fn foreign(&self, node: &Value) -> bool {
        let table = node["Relation Name"].as_str();
        table.is_some_and(|name| !self.catalogue.tables.contains(name))
    }

    /// Whether it is known that few rows come out: the caller's array, a limit, or one row by its key.
    fn bounded(&self, node: &Value) -> bool {
        match node["Node Type"].as_str().unwrap() {
            "Limit" | "Function Scan" | "Values Scan" => true,
            "Aggregate" if node["Strategy"] == "Plain" => true,
            // The server's own tables.
            _ if self.foreign(node) => true,
            "Index Scan" | "Index Only Scan" => self.index(node).is_some_and(|(_, index)| {
                let condition = node["Index Cond"].as_str().unwrap_or_default();
                index.unique && index.columns.iter().all(|column| equals(condition, column))
            }),
            // Of a common table expression: it stands elsewhere in the tree.
            "CTE Scan" => {
                let name = format!("CTE {}", node["CTE Name"].as_str().unwrap());
                let mut bounded = false;
                each(&self.root, &mut |other| {
                    if other["Subplan Name"] == name.as_str() {
                        bounded = self.bounded(other);
                    }
                });
                bounded
            }
            "ModifyTable" | "LockRows" | "Subquery Scan" | "Nested Loop" | "Hash Join" | "Hash"
            | "Merge Join" | "Materialize" | "Memoize" | "Sort" | "Append" | "Unique"
            | "Aggregate" | "Group" | "WindowAgg" | "ProjectSet" | "Result" => {
                rows(node).all(|input| self.bounded(input))
            }
            _ => false,
        }
    }
}

/// What an index's condition says of its first column. Of the newer half of a table, say, to find few
/// rows in it by a filter, is as good as nothing.
fn narrowed(node: &Value, index: &Index) -> Narrowed {
    let Some(condition) = node["Index Cond"].as_str() else {
        return Narrowed::No;
    };
    let first = &index.columns[0];
    if !index.ordered || first.is_empty() || equals(condition, first) {
        Narrowed::ToAValue
    } else if words(condition).any(|word| word == first) {
        Narrowed::ToARange
    } else {
        Narrowed::No
    }
}

/// Without the table, which is told or not, depending on how many there are.
fn unqualified(key: &str) -> &str {
    match key.split_once('.') {
        Some((table, column)) if words(table).count() == 1 => column,
        _ => key,
    }
}

fn equals(condition: &str, column: &str) -> bool {
    // A varchar is cast to text.
    let forms = [
        format!("({column} = "),
        format!(".{column} = "),
        format!("({column})::text = "),
        format!("({column} IS NULL)"),
    ];
    !column.is_empty() && forms.iter().any(|form| condition.contains(form))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn inputs(node: &Value) -> impl Iterator<Item = &Value> {
    node["Plans"].as_array().into_iter().flatten()
}

/// The inputs whose rows come out, without the values that are computed beside them.
fn rows(node: &Value) -> impl Iterator<Item = &Value> {
    inputs(node).filter(|input| {
        !matches!(input["Parent Relationship"].as_str(), Some("InitPlan" | "SubPlan"))
    })
}

fn each(node: &Value, seen: &mut impl FnMut(&Value)) {
    seen(node);
    for input in inputs(node) {
        each(input, seen);
    }
}
