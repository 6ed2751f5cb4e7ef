//! `docs/ila-02.md` has a row for every section of the draft that states a rule and for every scenario and reply, and every row names
//! tests that exist.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::files;
use super::hostile::{exists, quoted};
use crate::workspace;

const DOCUMENT: &str = "docs/ila-02.md";

/// The sections that state a rule. A section may have several rows.
const SECTIONS: [&str; 26] = [
    "3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7.1", "3.7.2", "3.8", "3.9", "4.1", "4.2.1", "4.2.2", "4.3",
    "4.3.1", "4.3.2", "4.4", "4.4.1", "4.4.2", "4.5", "4.6", "4.7", "A.1", "A.2", "B.1", "B.2",
];

/// The scenarios of section 5, and the replies that the draft or its reading gives a line of their own.
const SCENARIOS: [&str; 17] =
    ["1", "2", "3", "4", "4r", "5", "6", "7", "8", "8r", "9", "10", "11", "12", "12r", "13", "13r"];

pub(super) fn check() -> Result<Vec<String>> {
    let path = workspace::root().join(DOCUMENT);
    let document = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut sources = Vec::new();
    for room in ["nve-core", "vhost-ila", "tests", "fuzz/targets"] {
        sources.extend(files(room, ".rs")?);
    }
    Ok(findings(&document, |test| exists(&sources, test)))
}

fn findings(document: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    let mut missing: BTreeSet<&str> = SECTIONS.iter().chain(&SCENARIOS).copied().collect();
    for (number, line) in (1..).zip(document.lines()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", key, what, verdict, tests, ""] = cells[..] else { continue };
        if !SECTIONS.contains(&key) && !SCENARIOS.contains(&key) {
            continue;
        }
        missing.remove(key);
        let at = format!("{DOCUMENT}:{number}: {key}");
        if what.is_empty() || verdict.is_empty() {
            findings.push(format!("{at} says nothing or has no verdict"));
        }
        let named: Vec<&str> = quoted(tests).collect();
        if named.is_empty() {
            findings.push(format!("{at} names no test"));
        }
        let unknown = named.into_iter().filter(|name| !exists(name));
        findings.extend(unknown.map(|name| format!("{at}: there is no test {name}")));
    }
    findings.extend(missing.into_iter().map(|key| format!("{DOCUMENT}: no row for {key}")));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(change: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let lines: Vec<String> = SECTIONS.iter().chain(&SCENARIOS).filter_map(|key| change(key)).collect();
        findings(&lines.join("\n"), |name| name == "it_works")
    }

    fn row(key: &str) -> String {
        format!("| {key} | it works | held | `it_works` |")
    }

    #[test]
    fn a_complete_document_has_no_findings() {
        assert_eq!(document(|key| Some(row(key))), Vec::<String>::new());
    }

    #[test]
    fn a_missing_row_a_missing_test_a_missing_verdict_and_a_row_without_tests_are_found() {
        let broken = document(|key| match key {
            "13r" => None,
            "4.3.1" => Some(row(key).replace("it_works", "it_worked")),
            "A.1" => Some(row(key).replace("held", "")),
            "9" => Some(row(key).replace('`', "")),
            _ => Some(row(key)),
        });
        assert_eq!(broken.len(), 4, "{broken:#?}");
    }
}
