//! The rules that neither rustc nor clippy knows. Each returns what breaks it, one line a finding.

mod arrows;
mod drops;
mod hostile;
mod ila02;
mod rfc7915;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// A rule of the house.
struct Rule {
    /// What must hold.
    name: &'static str,
    check: fn() -> Result<Vec<String>>,
}

const RULES: [Rule; 10] = [
    Rule { name: "dependencies follow the arrows between rooms", check: arrows::check },
    Rule {
        name: "`unsafe` stays in vhost-ila/src/device and vhost-ila/src/uplink",
        check: sources::unsafe_code,
    },
    Rule { name: "the core cannot read a clock", check: sources::clocks },
    Rule { name: "names are the field's, not `util` or `handle_`", check: sources::names },
    Rule { name: "every drop reason is documented and has a test", check: drops::check },
    Rule { name: "every rule of docs/rfc7915.md has a test that runs", check: rfc7915::check },
    Rule { name: "every check of docs/hostile.md has tests that exist", check: hostile::check },
    Rule { name: "every rule and scenario of docs/ila-02.md has tests that exist", check: ila02::check },
    Rule { name: "tests named in documents exist", check: sources::documented_tests },
    Rule { name: "the README's test command is what CI runs", check: sources::ci_command },
];

/// Checks all rules, says each one's outcome, and returns how many hold and how many do not.
///
/// # Errors
///
/// Fails when the sources cannot be read. A broken rule is an outcome.
pub(crate) fn run() -> Result<(usize, usize)> {
    let mut broken = 0;
    for rule in &RULES {
        let findings = (rule.check)().with_context(|| format!("checking that {}", rule.name))?;
        if findings.is_empty() {
            println!("ok      lint: {}", rule.name);
            continue;
        }
        broken += 1;
        println!("FAILED  lint: {}", rule.name);
        findings.iter().for_each(|finding| println!("    {finding}"));
    }
    Ok((RULES.len() - broken, broken))
}

/// As [`run`], for `cargo xtask lint`.
///
/// # Errors
///
/// Fails when a rule is broken, too.
pub(crate) fn command() -> Result<()> {
    let (_, broken) = run()?;
    ensure!(broken == 0, "{broken} rules are broken");
    Ok(())
}

/// A file of the repository.
struct Source {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

/// All files below `directory` (relative to the root) whose name ends in `suffix`. Build output is left out.
fn files(directory: &str, suffix: &str) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    let start = workspace::root().join(directory);
    if start.is_dir() {
        collect(&start, suffix, &mut paths)?;
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let path = path.strip_prefix(workspace::root()).unwrap_or(&path).display().to_string();
        Ok(Source { path, text })
    };
    paths.into_iter().map(read).collect()
}

fn collect(directory: &Path, suffix: &str, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with(".git") {
                collect(&path, suffix, paths)?;
            }
        } else if name.ends_with(suffix) {
            paths.push(path);
        }
    }
    Ok(())
}

/// Whether code is a test: a file under a directory of tests, or what follows `#[cfg(test)]`.
fn test_code(source: &Source) -> &str {
    let tests = ["/tests/", "tests/", "/tests.rs", "/testkit/", "/benches/"];
    if tests.iter().any(|part| source.path.contains(part)) {
        return &source.text;
    }
    source.text.find("#[cfg(test)]\nmod ").map_or("", |start| &source.text[start..])
}
