//! `cargo xtask test`: everything that can fail, in the order of what fails fastest.
//!
//! ```text
//! format ─> clippy ─> lint ─> cargo test ─> fuzz, a while ─> end to end, and the README in a bare Debian beside it
//! ```
//!
//! The last line counts them all, whatever went wrong before. With a filter, only the end-to-end tests and fuzz targets of that
//! name run. `--long` fuzzes for longer, walks 10^9 descriptors beside the reference ([`reference`]), runs the checks of
//! docs/hostile.md at full scale, adds the soaks and the bench, and prints a line for `docs/long-runs.md`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::e2e::{self, Outcome, Scale};
use crate::scoreboard::{self, Row};
use crate::{bare, bench, build, fuzz, lint, reference, sanitize, workspace};

/// How long each fuzz target runs with `--long`, in seconds.
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

    /// Counts what a part of the run came to; a part that could not be run is a failure.
    fn part(&mut self, name: &str, result: Result<(usize, usize)>) {
        match result {
            Ok(counted) => self.add(counted),
            Err(error) => {
                self.step(name, false);
                println!("    {error:#}");
            }
        }
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
pub(crate) fn run(filters: &[String], scale: Scale, record: bool) -> Result<()> {
    let Scale { long, seed } = scale;
    let start = Instant::now();
    let mut count = Count::default();
    let everything = filters.is_empty();
    if everything {
        everything_but_guests(&mut count);
    }
    let mut rows = fuzzed(&mut count, filters, scale);
    match reference::run(filters, scale) {
        Ok(None) => {}
        Ok(Some((passed, row))) => {
            count.add((usize::from(passed), usize::from(!passed)));
            rows.extend(row);
        }
        Err(error) => count.part("rings beside the reference", Err(error)),
    }
    // That one builds everything anew, which takes minutes; most end-to-end tests wait most of the time.
    let bare = || bare::run(Some(&workspace::target().join("bare.log")));
    let mut readme = None;
    let beside = || readme = (everything && !long).then(bare);
    rows.extend(end_to_end(&mut count, filters, scale, beside));
    if everything {
        the_readme(&mut count, readme.unwrap_or_else(bare));
    }
    if long && everything {
        count.step(
            "sanitize",
            sanitize::run(SOAK, seed).inspect_err(|error| println!("    {error:#}")).is_ok(),
        );
        count.step(
            "bench",
            bench::run(&bench::Plan::all(5)).inspect_err(|error| println!("    {error:#}")).is_ok(),
        );
    }
    let run = scoreboard::Run { commit: commit(), command: command(filters, scale) };
    scoreboard::print(&rows, &run)?;
    if record {
        scoreboard::record(&rows, &run)?;
    }
    println!("all of it took {} s\n", start.elapsed().as_secs());
    ensure!(count.passed + count.failed + count.skipped > 0, "no test has a name with {filters:?}");
    let skipped = if count.skipped > 0 { format!(", {} skipped", count.skipped) } else { String::new() };
    let counted = format!("{} passed, {} failed{skipped}", count.passed, count.failed);
    if long {
        println!("| {} | {seed} | `{}` | {counted} |\n", run.commit, run.command);
    }
    println!("{counted}");
    ensure!(count.failed == 0, "some tests failed");
    Ok(())
}

/// The commit that is tested, short; with a plus sign when there are changes that are not committed. "unknown" where git is not installed,
/// or this is no checkout: tests need neither.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git").args(arguments).current_dir(workspace::root()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".into() };
    let changed = git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty());
    commit + if changed { "+" } else { "" }
}

/// The command that repeats this run.
fn command(filters: &[String], scale: Scale) -> String {
    let long = if scale.long { " --long" } else { "" };
    format!("cargo xtask test{long} --seed {} {}", scale.seed, filters.join(" ")).trim_end().to_owned()
}

fn fuzzed(count: &mut Count, filters: &[String], scale: Scale) -> Vec<Row> {
    let length = if scale.long { fuzz::Length::Seconds(SOAK) } else { fuzz::Length::Smoke };
    match fuzz::run(filters, length, scale.seed) {
        Ok(ran) => {
            let survived = ran.iter().filter(|ran| ran.survived).count();
            count.add((survived, ran.len() - survived));
            ran.iter().filter_map(scoreboard::fuzzed).collect()
        }
        Err(error) => {
            count.part("fuzz", Err(error));
            Vec::new()
        }
    }
}

fn end_to_end(count: &mut Count, filters: &[String], scale: Scale, beside: impl FnOnce() + Send) -> Vec<Row> {
    let tests = match e2e::run(filters, scale, beside) {
        Ok(tests) => tests,
        Err(error) => {
            count.part("end to end", Err(error));
            return Vec::new();
        }
    };
    for test in &tests {
        match test.outcome {
            Outcome::Passed => count.passed += 1,
            Outcome::Failed(_) => count.failed += 1,
            Outcome::Skipped(_) => count.skipped += 1,
        }
    }
    tests.into_iter().flat_map(|test| test.rows).collect()
}

fn everything_but_guests(count: &mut Count) {
    let passes =
        |arguments: &[&str]| build::cargo().args(arguments).status().is_ok_and(|status| status.success());
    count.step("cargo fmt --check", passes(&["fmt", "--all", "--check"]));
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    count.step("cargo clippy -D warnings", passes(&clippy));
    count.part("lint", lint::run());
    count.part("cargo test", cargo_test());
}

fn the_readme(count: &mut Count, ran: Result<Option<String>>) {
    const NAME: &str = "the README's two commands in a bare Debian";
    match ran {
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
