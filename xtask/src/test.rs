//! `cargo xtask test`: everything that can fail, in the order of what fails fastest.
//!
//! ```text
//! format ─> clippy ─> lint ─> cargo test ─> fuzz, 30 s a target ─> end to end ─> the README in a bare Debian
//! ```
//!
//! The last line counts them all. With a filter, only the end-to-end tests and fuzz targets of that name run.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::e2e::{self, Outcome};
use crate::{bare, build, fuzz, lint};

/// How long each fuzz target runs, in seconds.
const SMOKE: u32 = 30;
/// The same with `--long`.
const SOAK: u32 = 600;

/// What is counted.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Count {
    fn add(&mut self, (passed, failed): (usize, usize)) {
        self.passed += passed;
        self.failed += failed;
    }

    /// Counts a step that passes or fails as a whole.
    fn step(&mut self, name: &str, passed: bool) {
        println!("{} {name}", if passed { "ok     " } else { "FAILED " });
        self.add((usize::from(passed), usize::from(!passed)));
    }
}

/// Runs the tests.
///
/// # Errors
///
/// Fails when a test does, after the line that counts them, and when something does not build or cannot be fetched.
pub(crate) fn run(filters: &[String], long: bool, seed: u32) -> Result<()> {
    let start = Instant::now();
    let mut count = Count::default();
    if filters.is_empty() {
        everything_but_guests(&mut count)?;
    }
    count.add(fuzz::run(filters, if long { SOAK } else { SMOKE }, seed)?);
    for (_, outcome) in e2e::run(filters)? {
        match outcome {
            Outcome::Passed => count.passed += 1,
            Outcome::Failed(_) => count.failed += 1,
            Outcome::Skipped(_) => count.skipped += 1,
        }
    }
    if filters.is_empty() {
        the_readme(&mut count);
    }
    println!("all of it took {} s\n", start.elapsed().as_secs());
    ensure!(count.passed + count.failed + count.skipped > 0, "no test has a name with {filters:?}");
    let skipped = if count.skipped > 0 { format!(", {} skipped", count.skipped) } else { String::new() };
    println!("{} passed, {} failed{skipped}", count.passed, count.failed);
    ensure!(count.failed == 0, "some tests failed");
    Ok(())
}

fn everything_but_guests(count: &mut Count) -> Result<()> {
    let passes =
        |arguments: &[&str]| Ok::<bool, anyhow::Error>(build::cargo().args(arguments).status()?.success());
    count.step("cargo fmt --check", passes(&["fmt", "--all", "--check"])?);
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    count.step("cargo clippy -D warnings", passes(&clippy)?);
    count.add(lint::run()?);
    count.add(cargo_test()?);
    Ok(())
}

fn the_readme(count: &mut Count) {
    const NAME: &str = "the README's two commands in a bare Debian";
    match bare::run() {
        Ok(None) => count.step(NAME, true),
        Ok(Some(reason)) => {
            println!("skipped {NAME}: {reason}");
            count.skipped += 1;
        }
        Err(error) => {
            count.step(NAME, false);
            println!("    {error:#}");
        }
    }
}

/// Runs `cargo test`, and counts its tests by the lines that end each binary's run.
fn cargo_test() -> Result<(usize, usize)> {
    let start = Instant::now();
    let mut child = build::cargo()
        .args(["test", "--workspace", "--no-fail-fast"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting cargo test")?;
    let (mut passed, mut failed) = (0, 0);
    let output = child.stdout.take().context("cargo's output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some((some, others)) = result(&line) {
            passed += some;
            failed += others;
        }
        // Thousands of `ok` would hide the one that is not.
        let silent = line.is_empty()
            || line.ends_with("... ok")
            || line.ends_with(" 0 filtered out; finished in 0.00s");
        if !silent && !line.contains("... ignored") && !line.starts_with("running ") {
            println!("{line}");
        }
    }
    let succeeded = child.wait()?.success();
    if !succeeded && failed == 0 {
        // A test binary that aborts or does not build prints no result.
        failed = 1;
    }
    println!("cargo test: {passed} passed, {failed} failed in {} s", start.elapsed().as_secs());
    Ok((passed, failed))
}

/// Reads `test result: ok. 12 passed; 0 failed; ...`.
fn result(line: &str) -> Option<(usize, usize)> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut numbers = counts.split("; ").filter_map(|part| part.split(' ').next()?.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_result_line_is_counted() {
        let line = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(result(line), Some((12, 1)));
        assert_eq!(result("running 3 tests"), None);
    }
}
