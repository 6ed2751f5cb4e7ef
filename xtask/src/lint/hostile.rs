//! `docs/hostile.md` has a row for every check, every row names tests that exist, and every file of end-to-end tests that reports to a
//! check is named in its row.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::{Source, files};
use crate::scoreboard::DOCUMENT;
use crate::workspace;

/// The checks that the page is held to, by number.
const CHECKS: [u8; 34] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 24, 25, 26, 27, 28, 29,
    30, 31, 32, 33, 34, 35,
];

pub(super) fn check() -> Result<Vec<String>> {
    let path = workspace::root().join(DOCUMENT);
    let document = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut sources = Vec::new();
    for room in ["nve-core", "vhost-ila", "tests", "fuzz/targets"] {
        sources.extend(files(room, ".rs")?);
    }
    let mut findings = findings(&document, |test| exists(&sources, test));
    let reporting = sources.iter().filter(|source| source.path.starts_with("tests/e2e/"));
    findings.extend(reporting.flat_map(|source| unnamed(&document, source)));
    Ok(findings)
}

/// The checks that a file of tests reports to, by number, and whose row does not name it.
fn unnamed(document: &str, source: &Source) -> Vec<String> {
    let file = source.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    let begun = source.text.split("Check::begin(").skip(1);
    let numbers: BTreeSet<u8> = begun.filter_map(|rest| rest.split(',').next()?.parse().ok()).collect();
    let names = |check: &u8| {
        let mut rows = document.lines().filter(|line| line.starts_with(&format!("| {check} |")));
        rows.any(|row| row.contains(&format!("`{file}::")))
    };
    let missing = numbers.into_iter().filter(|check| !names(check));
    missing
        .map(|check| format!("{DOCUMENT}: the row of check {check} does not name {}", source.path))
        .collect()
}

/// Whether `name` is a test: `fuzz: TARGET`, `FILE::FUNCTION` or `FUNCTION`.
pub(super) fn exists(sources: &[Source], name: &str) -> bool {
    if let Some(target) = name.strip_prefix("fuzz: ") {
        return sources.iter().any(|source| source.path == format!("fuzz/targets/{target}.rs"));
    }
    let (module, function) = name.rsplit_once("::").unwrap_or(("", name));
    let module = module.rsplit("::").next().unwrap_or_default();
    let in_module = |source: &&Source| {
        module.is_empty()
            || source.path.ends_with(&format!("/{module}.rs"))
            || source.path.contains(&format!("/{module}/"))
    };
    sources.iter().filter(in_module).any(|source| is_test(&source.text, function))
}

/// Whether `text` has a function of that name which is marked as a test.
fn is_test(text: &str, function: &str) -> bool {
    text.match_indices(&format!("fn {function}(")).any(|(at, _)| {
        // The marks are between the end of whatever came before and the function.
        let before = &text[..at];
        let marks = before.rfind(['}', ';', '{']).map_or(before, |end| &before[end..]);
        marks.contains("#[test]")
    })
}

fn findings(document: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    let mut missing: BTreeSet<u8> = CHECKS.into();
    for (number, line) in (1..).zip(document.lines()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", hazard, _, tests, ""] = cells[..]
            && hazard.get(1..3) == Some(": ")
        {
            let unknown = quoted(tests).filter(|name| !exists(name));
            findings.extend(
                unknown.map(|name| format!("{DOCUMENT}:{number}: hazard {hazard}: there is no test {name}")),
            );
        }
        let ["", check, what, tests, _, _, ""] = cells[..] else { continue };
        let Ok(check) = check.parse::<u8>() else { continue };
        let at = format!("{DOCUMENT}:{number}: check {check}");
        if !missing.remove(&check) && CHECKS.contains(&check) {
            findings.push(format!("{at} twice"));
        }
        if what.is_empty() {
            findings.push(format!("{at} does not say what must hold"));
        }
        let named: Vec<&str> = quoted(tests).collect();
        if named.is_empty() {
            findings.push(format!("{at} names no test"));
        }
        let unknown = named.into_iter().filter(|name| !exists(name));
        findings.extend(unknown.map(|name| format!("{at}: there is no test {name}")));
    }
    findings.extend(missing.iter().map(|check| format!("{DOCUMENT}: no row for check {check}")));
    findings
}

/// What stands between backticks.
pub(super) fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(change: impl Fn(u8) -> Option<String>) -> Vec<String> {
        let lines: Vec<String> = CHECKS.into_iter().filter_map(change).collect();
        findings(&lines.join("\n"), |name| name == "it::works")
    }

    fn row(check: u8) -> String {
        format!("| {check} | it works | `it::works` | once | twice |")
    }

    #[test]
    fn a_complete_document_has_no_findings() {
        assert_eq!(document(|check| Some(row(check))), Vec::<String>::new());
    }

    #[test]
    fn a_hazards_tests_must_exist() {
        let rows: Vec<String> = CHECKS.into_iter().map(row).collect();
        let document =
            format!("{}\n| A: it | is designed out | `it::works`, `it::worked` |", rows.join("\n"));
        let findings = findings(&document, |name| name == "it::works");
        assert_eq!(findings.len(), 1, "{findings:?}");
    }

    #[test]
    fn a_missing_row_a_missing_test_and_a_row_without_tests_are_found() {
        let broken = document(|check| match check {
            7 => None,
            8 => Some(row(8).replace("works", "worked")),
            9 => Some(row(9).replace("`it::works`", "by inspection")),
            10 => Some(row(12)),
            check => Some(row(check)),
        });
        assert_eq!(broken.len(), 5, "{broken:#?}");
    }

    #[test]
    fn a_file_that_reports_to_a_check_is_named_in_its_row() {
        let text = "let mut check = Check::begin(7, \"rounds\");".into();
        let source = Source { path: "tests/e2e/it.rs".into(), text };
        assert_eq!(unnamed(&row(7), &source), Vec::<String>::new());
        assert_eq!(unnamed(&row(8), &source).len(), 1);
    }

    #[test]
    fn a_function_is_a_test_only_if_it_is_marked_in_its_file() {
        let text = "#[test]\n#[ignore = \"end to end\"]\nfn it_works() {}\nfn it_does_not() {}\n";
        let sources = [Source { path: "tests/e2e/it.rs".into(), text: text.into() }];
        assert!(exists(&sources, "it_works") && exists(&sources, "it::it_works"));
        assert!(!exists(&sources, "it_does_not") && !exists(&sources, "other::it_works"));
        assert!(!exists(&sources, "fuzz: it"));
    }
}
