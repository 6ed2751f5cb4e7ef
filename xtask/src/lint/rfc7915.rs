//! `docs/rfc7915.md` has a line for every rule, and every line names tests that run.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::{build, workspace};

/// How many rules there are.
const RULES: usize = 112;
const DOCUMENT: &str = "docs/rfc7915.md";

pub(super) fn check() -> Result<Vec<String>> {
    let path = workspace::root().join(DOCUMENT);
    let document = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(findings(&document, &compiled_tests()?))
}

/// The tests that `cargo test -p ipv4-xlat` runs: those it lists, without those it ignores.
fn compiled_tests() -> Result<BTreeSet<String>> {
    let mut tests = BTreeSet::new();
    // A test crate of one file has no modules: its tests go by the file's name.
    for (target, prefix) in [("rfc7915", ""), ("siit", "siit::")] {
        let all = list(target, &[])?;
        let ignored = list(target, &["--ignored"])?;
        tests.extend(all.difference(&ignored).map(|name| format!("{prefix}{name}")));
    }
    Ok(tests)
}

fn list(target: &str, options: &[&str]) -> Result<BTreeSet<String>> {
    let arguments =
        ["test", "--quiet", "--package", "ipv4-xlat", "--test", target, "--", "--list", "--format", "terse"];
    let output = build::cargo().args(arguments).args(options).output()?;
    ensure!(output.status.success(), "listing tests: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(String::from).collect())
}

fn findings(document: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut missing: BTreeSet<usize> = (1..=RULES).collect();
    for (number, line) in (1..).zip(document.lines()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", rule, what, _, verdict, named, ""] = cells[..] else { continue };
        let Ok(rule) = rule.parse::<usize>() else { continue };
        if !missing.remove(&rule) {
            findings.push(format!("{DOCUMENT}:{number}: rule {rule} twice, or none of 1 to {RULES}"));
        }
        if what.is_empty() || verdict.is_empty() {
            findings.push(format!("{DOCUMENT}:{number}: rule {rule} says nothing or has no verdict"));
        }
        let named: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            findings.push(format!("{DOCUMENT}:{number}: rule {rule} names no test"));
        }
        let unknown = named.iter().filter(|name| !tests.contains(**name));
        findings.extend(unknown.map(|name| format!("{DOCUMENT}:{number}: rule {rule}: no test {name} runs")));
    }
    findings.extend(missing.iter().map(|rule| format!("{DOCUMENT}: no line for rule {rule}")));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(change: impl Fn(usize) -> Option<String>) -> Vec<String> {
        let lines: Vec<String> = (1..=RULES).filter_map(change).collect();
        findings(&lines.join("\n"), &BTreeSet::from([String::from("whole::it_works")]))
    }

    fn line(rule: usize) -> String {
        format!("| {rule} | it works | 7915 | held | `whole::it_works` |")
    }

    #[test]
    fn a_complete_document_has_no_findings() {
        assert_eq!(document(|rule| Some(line(rule))), Vec::<String>::new());
    }

    #[test]
    fn a_missing_line_a_missing_test_and_an_empty_line_are_found() {
        let broken = document(|rule| match rule {
            7 => None,
            8 => Some(line(8).replace("it_works", "it_ran_once")),
            9 => Some(String::from("| 9 | it works | 7915 | held | by inspection |")),
            10 => Some(line(9)),
            rule => Some(line(rule)),
        });
        assert_eq!(broken.len(), 5, "{broken:#?}");
    }
}
