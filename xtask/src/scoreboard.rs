//! What the checks of docs/hostile.md came to: collected from the tests' output, printed, and recorded in that document.
//!
//! ```text
//!   tests/src/scoreboard.rs ──lines of a test's output──> rows ─┬─> print: a table, and target/scoreboard.md
//!   fuzz targets that stand for a check ──────────> fuzzed ─────┘─> record: the document's second table
//! ```
//!
//! What must stay true: a row that is recorded replaces the older one of the same check and test, and no other.

use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{fuzz, workspace};

/// What a test's line for the scoreboard begins with.
const MARK: &str = "SCOREBOARD ";

/// Fuzz targets and the check that each is.
const FUZZED: [(&str, u8); 4] = [("rings", 10), ("messages", 13), ("gateway", 33), ("redirects", 34)];

/// The document that [`record`] changes, and the heading that its table follows.
pub(crate) const DOCUMENT: &str = "docs/hostile.md";
const HEADING: &str = "## Recorded runs";
const COLUMNS: &str = "| check | test | commit | command | seed | count | result | time |";

/// One test's part in one check.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    check: u8,
    test: String,
    seed: u64,
    count: String,
    passed: bool,
    seconds: f32,
}

/// What all rows of a run have in common.
pub(crate) struct Run {
    pub(crate) commit: String,
    pub(crate) command: String,
}

/// A line as a test prints it; `passed` is null when it begins.
#[derive(Deserialize)]
struct Line {
    check: u8,
    seed: u64,
    count: u64,
    unit: String,
    seconds: f32,
    passed: Option<bool>,
}

/// The rows in what `test` said. A check that began and did not end has failed, and so have all when the test has.
pub(crate) fn rows(test: &str, said: &str, test_passed: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let lines = said.lines().filter_map(|line| line.split_once(MARK));
    for line in lines.filter_map(|(_, json)| serde_json::from_str::<Line>(json).ok()) {
        let row = Row {
            check: line.check,
            test: test.to_owned(),
            seed: line.seed,
            count: format!("{} {}", line.count, line.unit),
            passed: test_passed && line.passed == Some(true),
            seconds: line.seconds,
        };
        match rows.iter_mut().find(|old| old.check == row.check && line.passed.is_some()) {
            Some(begun) => *begun = row,
            None => rows.push(row),
        }
    }
    rows
}

/// The row of a fuzz target, if it is a check's.
pub(crate) fn fuzzed(ran: &fuzz::Ran) -> Option<Row> {
    let (_, check) = FUZZED.into_iter().find(|(target, _)| *target == ran.target)?;
    Some(Row {
        check,
        test: format!("fuzz: {}", ran.target),
        seed: ran.seed.into(),
        count: format!("{} {}", ran.count, ran.unit),
        passed: ran.survived,
        seconds: ran.seconds,
    })
}

/// Prints the table, and leaves it in target/scoreboard.md. Nothing when no check ran.
///
/// # Errors
///
/// Fails when the file cannot be written.
pub(crate) fn print(rows: &[Row], run: &Run) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<(u8, String)> = rows.iter().map(|row| (row.check, row.line(run))).collect();
    lines.sort();
    let table: String = lines.into_iter().map(|(_, line)| line + "\n").collect();
    let table = format!("{COLUMNS}\n{}\n{table}", rule());
    println!("\n{table}");
    let file = workspace::target().join("scoreboard.md");
    fs::write(&file, table).with_context(|| format!("writing {}", file.display()))
}

/// Puts `rows` into the document's table of recorded runs.
///
/// # Errors
///
/// Fails when the document cannot be read or written, or lacks the table.
pub(crate) fn record(rows: &[Row], run: &Run) -> Result<()> {
    let path = workspace::root().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(fs::write(&path, recorded(&text, rows, run)?)?)
}

/// `text` with `rows` in the table of recorded runs, in the order of checks and tests.
fn recorded(text: &str, rows: &[Row], run: &Run) -> Result<String> {
    let (before, after) = text
        .split_once(&format!("{COLUMNS}\n{}\n", rule()))
        .filter(|(before, _)| before.contains(HEADING))
        .with_context(|| format!("{DOCUMENT} has no table of recorded runs"))?;
    let end =
        after.lines().take_while(|line| line.starts_with('|')).map(|line| line.len() + 1).sum::<usize>();
    let (old, rest) = after.split_at(end.min(after.len()));
    let replaced = |line: &&str| rows.iter().any(|row| line.starts_with(&row.key()));
    let mut lines: Vec<String> = old.lines().filter(|line| !replaced(line)).map(str::to_owned).collect();
    lines.extend(rows.iter().map(|row| row.line(run)));
    let check = |line: &String| line.split('|').nth(1).and_then(|cell| cell.trim().parse::<u8>().ok());
    lines.sort_by_cached_key(|line| (check(line), line.clone()));
    let table: String = lines.into_iter().map(|line| line + "\n").collect();
    Ok(format!("{before}{COLUMNS}\n{}\n{table}{rest}", rule()))
}

/// The line between a table's head and its rows.
fn rule() -> String {
    "|---".repeat(COLUMNS.matches('|').count() - 1) + "|"
}

impl Row {
    fn key(&self) -> String {
        format!("| {} | `{}` |", self.check, self.test)
    }

    fn line(&self, run: &Run) -> String {
        let result = if self.passed { "pass" } else { "FAIL" };
        let (key, Run { commit, command }) = (self.key(), run);
        format!(
            "{key} {commit} | `{command}` | {} | {} | {result} | {:.0} s |",
            self.seed, self.count, self.seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: &str =
        r#"SCOREBOARD {"check":13,"seed":7,"count":0,"unit":"messages","seconds":0.0,"passed":null}"#;
    const ENDED: &str =
        r#"SCOREBOARD {"check":13,"seed":7,"count":12,"unit":"messages","seconds":1.5,"passed":true}"#;

    fn run() -> Run {
        Run { commit: "abc".into(), command: "cargo xtask test".into() }
    }

    #[test]
    fn a_check_that_began_and_did_not_end_has_failed() {
        let ended = rows("a::b", &format!("test a::b ... {BEGUN}\n{ENDED}\n"), true);
        assert_eq!(ended.len(), 1);
        assert!(ended[0].passed && ended[0].count == "12 messages");
        let killed = rows("a::b", BEGUN, false);
        assert!(killed.len() == 1 && !killed[0].passed);
        // The check itself saw nothing wrong, but the test went on to fail.
        assert!(!rows("a::b", ENDED, false)[0].passed);
    }

    #[test]
    fn a_recorded_row_replaces_the_older_one_of_its_test_only() {
        let rule = rule();
        let other = "| 13 | `c::d` | old | `x` | 1 | 1 messages | pass | 1 s |";
        let old = "| 13 | `a::b` | old | `x` | 1 | 1 messages | FAIL | 1 s |";
        let text = format!("{HEADING}\n\n{COLUMNS}\n{rule}\n{old}\n{other}\n\nMore.\n");
        let rows = rows("a::b", ENDED, true);
        let text = recorded(&text, &rows, &run()).unwrap();
        let new = "| 13 | `a::b` | abc | `cargo xtask test` | 7 | 12 messages | pass | 2 s |";
        assert_eq!(text, format!("{HEADING}\n\n{COLUMNS}\n{rule}\n{new}\n{other}\n\nMore.\n"));
        assert!(recorded("no table", &rows, &run()).is_err());
    }
}
