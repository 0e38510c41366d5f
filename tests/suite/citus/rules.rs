//! What a statement may hold, so that it also runs where the tables are distributed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Place, places};
use crate::support::statements::{self, OWNED, one_line};

/// Reads and writes of one user's rows that do not name the user: right, but each machine is asked.
/// None of an owned form.
pub const ASK_ALL: &[&str] = &[
    "ChunkRepository::delete",
    "ChunkRepository::delete_by_transcript",
    "ChunkRepository::get_by_id",
    "ChunkRepository::get_by_ids",
    "ChunkRepository::list_by_transcript",
    "ChunkRepository::stream_by_transcript",
    "ConversationRepository::delete",
    "ConversationRepository::get_by_id",
    "ConversationRepository::list_recent",
    "ConversationRepository::update_title",
    "MessageRepository::count_since",
    "MessageRepository::delete",
    "MessageRepository::get_by_id",
    "MessageRepository::get_last_n",
    "MessageRepository::list_by_conversation",
    "MessageRepository::page_back_by_conversation",
    "MessageRepository::page_by_conversation",
    "MessageRepository::stream_by_conversation",
    "MessageRepository::update",
    "SessionRepository::delete",
    "SessionRepository::delete_by_user",
    "SessionRepository::delete_expired",
    "SessionRepository::get_by_id",
    "SessionRepository::list_by_user",
    "TranscriptRepository::delete",
    "TranscriptRepository::get_by_id",
    "TranscriptRepository::update",
];

/// What Citus refuses, by its documentation or because it was seen; docs/scale.md says what to call
/// instead. Of the owned forms only `replace_all`: it calls a function, which asks by the transcript's
/// id. `create_with_messages` and `create_with_chunks` have one form, which names the owner: a WITH that
/// inserts into two tables.
pub const REFUSED: &[&str] = &[
    "ChunkRepository::create_batch",
    "ChunkRepository::insert_batch",
    "ChunkRepository::replace_all",
    "ChunkRepository::replace_all (owned)",
    "ConversationRepository::create_with_messages",
    "MessageRepository::create",
    "MessageRepository::create_batch",
    "SessionRepository::rotate",
    "TranscriptRepository::create_with_chunks",
    "TranscriptRepository::get_with_chunk_count",
    "TranscriptRepository::list_by_video",
    "UnitOfWork::lock_conversation",
    "UserRepository::create_with_preferences",
    "UserRepository::deactivate",
];

/// They lock rows of the coordinator's own tables.
const SKIP_LOCKED: &[&str] = &[
    "DocumentRepository::claim_pending",
    "ExtractionJobRepository::claim",
    "ExtractionJobRepository::heartbeat_many",
];

/// In an UPDATE, of the coordinator's own tables.
const VOLATILE: &[&str] = &["ExtractionJobRepository::fail"];

const VOLATILE_FUNCTIONS: [&str; 5] =
    ["random()", "gen_random_uuid()", "clock_timestamp()", "nextval(", "statement_timestamp()"];

#[test]
fn statements_keep_the_rules_of_distributed_tables() {
    let places = places();
    let mut broken = Vec::new();
    let mut found = BTreeMap::<&str, BTreeSet<String>>::new();
    for statement in statements::of_the_crate() {
        let text = one_line(&statement.text).to_lowercase();
        let distributed = by_column(&text, &places);
        let names: Vec<_> = statement.name.split(", ").map(str::to_owned).collect();
        let mut seen = |list, of: &Vec<String>| found.entry(list).or_default().extend(of.clone());
        let mut fault = |what: &str| broken.push(format!("{}: {what}", statement.name));

        if let Some((_, update)) = text.split_once("do update")
            && update.contains("now()")
        {
            fault("now() in `on conflict do update`: write excluded.…");
        }
        if text.contains("update ") && VOLATILE_FUNCTIONS.iter().any(|f| text.contains(f)) {
            seen("volatile", &names);
            if !distributed.is_empty() {
                fault("a volatile function in an UPDATE");
            }
        }
        if text.contains("skip locked") {
            seen("skip locked", &names);
            if !distributed.is_empty() {
                fault("`skip locked` over several machines");
            }
        }
        if distributed.is_empty() {
            continue;
        }
        if statement.name.contains(OWNED) && !names_the_owner(&text, &distributed) {
            fault("an owned form that does not name the owner everywhere");
        }
        if refused(&text, &distributed) {
            seen("refused", &names);
        } else if !names_the_owner(&text, &distributed) {
            seen("ask all", &names);
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let listed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let lists: BTreeMap<&str, BTreeSet<String>> = BTreeMap::from([
        ("volatile", listed(VOLATILE)),
        ("skip locked", listed(SKIP_LOCKED)),
        ("refused", listed(REFUSED)),
        ("ask all", listed(ASK_ALL)),
    ]);
    for (list, found) in &found {
        let new: Vec<_> = found.difference(&lists[list]).collect();
        assert!(new.is_empty(), "not on the list `{list}`: {new:#?}");
    }
    for (list, names) in &lists {
        let stale: Vec<_> = names
            .iter()
            .filter(|name| !found.get(list).is_some_and(|f| f.contains(*name)))
            .collect();
        assert!(stale.is_empty(), "on the list `{list}` without need: {stale:#?}");
    }
}

/// Functions whose bodies write to tables that are spread.
const FUNCTIONS: [(&str, &str); 1] = [("replace_chunks", "chunks")];

/// The tables in it that are spread by a column of a user's.
fn by_column<'p>(text: &str, places: &'p BTreeMap<String, Place>) -> Vec<&'p str> {
    let mut words: BTreeSet<_> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let called = FUNCTIONS.iter().filter(|(function, _)| words.contains(function));
    words.extend(called.map(|(_, table)| *table).collect::<Vec<_>>());
    let tables = places
        .iter()
        .filter(|(table, place)| matches!(place, Place::By(_)) && words.contains(table.as_str()));
    tables.map(|(table, _)| table.as_str()).collect()
}

/// How often a table is read or written.
fn places_of(text: &str, table: &str) -> usize {
    let verbs = ["from", "join", "into", "update"];
    verbs.iter().map(|verb| names_after(text, verb, table)).sum()
}

fn names_after(text: &str, verb: &str, table: &str) -> usize {
    let words: Vec<_> = text.split(' ').map(|w| w.trim_matches(['(', ')', ',', ';'])).collect();
    words.windows(2).filter(|pair| pair == &[verb, table]).count()
}

/// Whether it says whose rows it means, at every place where it reads or writes them: they are on one
/// machine, and Citus finds which.
fn names_the_owner(text: &str, distributed: &[&str]) -> bool {
    let column = if distributed == ["sessions"] { "token_hash" } else { "user_id" };
    let places: usize = distributed.iter().map(|table| places_of(text, table)).sum();
    let said = text.matches(&format!("{column} = $")).count();
    let inserted =
        text.split("insert into ").skip(1).filter(|insert| gives(insert, column)).count();
    said + inserted >= places
}

/// Whether an insert's column is given as a parameter.
fn gives(insert: &str, column: &str) -> bool {
    let (_, list) = insert.split_once(" (").unwrap();
    let (columns, rest) = list.split_once(')').unwrap();
    let Some(place) = columns.split(',').position(|name| name.trim() == column) else {
        return false;
    };
    let values = rest.trim_start();
    let values = values.strip_prefix("values (").or_else(|| values.strip_prefix("select "));
    let value = values.and_then(|values| listed(values).into_iter().nth(place));
    value.is_some_and(|value| value.starts_with('$'))
}

/// The values of a list, which may hold parentheses.
fn listed(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut values) = (0_i32, 0, Vec::new());
    for (place, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                values.push(text[start..place].trim());
                start = place + 1;
            }
            _ => {}
        }
        if depth < 0 {
            values.push(text[start..place].trim());
            return values;
        }
    }
    values.push(text[start..].trim());
    values
}

fn moves(text: &str, table: &str) -> bool {
    let update = text.split_once(&format!("update {table} ")).map(|(_, rest)| rest);
    let set = update.map(|rest| rest.split(" where ").next().unwrap());
    set.is_some_and(|set| {
        let column = if table == "sessions" { "token_hash" } else { "user_id" };
        set.contains(&format!("set {column} =")) || set.contains(&format!(", {column} ="))
    })
}

/// Whether Citus would not run it: a WITH that writes to more than one user's rows of one table, a
/// subquery in VALUES, an array that is joined with a distributed table from outside, several tables of
/// which not each is asked for by the owner, a lock on rows that may lie on any machine, a function that
/// writes, a change of the column that says where a row lies.
fn refused(text: &str, distributed: &[&str]) -> bool {
    let inserts = text.starts_with("insert into");
    let writes = ["insert into", "update ", "delete from"].iter().any(|verb| text.contains(verb));
    let locks = text.contains("for update") || text.contains("for no key update");
    // Reading a reference table is no matter.
    let into_all = |table| {
        ["into", "update", "delete from"]
            .iter()
            .any(|verb| text.contains(&format!("{verb} {table} ")))
    };
    let one_table = distributed.len() == 1 && !into_all("users") && !into_all("templates");
    text.starts_with("with ") && writes && !(one_table && names_the_owner(text, distributed))
        || inserts && text.contains("values (") && text.contains("(select ")
        || inserts && text.contains("left join")
        || distributed.len() > 1 && !names_the_owner(text, distributed)
        || locks && !names_the_owner(text, distributed)
        || FUNCTIONS.iter().any(|(function, _)| text.contains(&format!("{function}(")))
        || distributed.iter().any(|table| moves(text, table))
}

/// The rules can fail: forms that lack an owner somewhere are seen.
#[test]
fn an_owner_that_is_missing_at_one_place_is_seen() {
    let named = names_the_owner;
    assert!(named("select id from messages where id = $1 and user_id = $2", &["messages"]));
    assert!(!named("select id, user_id from messages where id = $1", &["messages"]));
    let (both, one) = (
        "select (select count(*) from chunks where user_id = $2) from transcripts where user_id = $2",
        "select (select count(*) from chunks c where c.transcript_id = t.id) from transcripts t where user_id = $2",
    );
    assert!(named(both, &["chunks", "transcripts"]));
    assert!(!named(one, &["chunks", "transcripts"]) && refused(one, &["chunks", "transcripts"]));
    let insert = |value: &str| {
        format!(
            "insert into messages (id, user_id, role) select n.id, {value}, n.role from unnest($1) n"
        )
    };
    assert!(named(&insert("$2::uuid"), &["messages"]));
    assert!(!named(&insert("n.user_id"), &["messages"]));
    let values = "insert into messages (id, user_id) values (coalesce($1, $2), (select user_id))";
    assert!(!named(values, &["messages"]));
}
