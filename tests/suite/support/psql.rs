//! What libpq makes of a URL, asked of its own program.

use std::process::Command;

/// The answer of `psql` to one statement, or its complaint; none where there is no `psql`, or one that
/// lacks its libpq.
pub fn psql(url: &str, statement: &str) -> Option<Result<String, String>> {
    let mut command = Command::new("psql");
    command.args(["-X", "-A", "-t", "-w", "-c", statement, "-d", url]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    // Without the certificates that lie in a home.
    let output = command.env("HOME", "/no/such/folder").output().ok();
    // What can't load a library ends with 127, and psql with 1 to 3.
    let Some(output) = output.filter(|output| output.status.code() != Some(127)) else {
        println!("SKIPPED: there is no psql to compare with");
        return None;
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned();
    Some(match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    })
}
