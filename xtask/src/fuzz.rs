//! Fuzz targets under stable Rust: libFuzzer with coverage, without a sanitizer.
//!
//! What cargo-fuzz asks nightly for is the address sanitizer; the coverage that guides libFuzzer comes from LLVM's own pass,
//! which stable can turn on. The targets' own assertions, overflow checks and bounds checks find what is looked for.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use toml::Table;

use crate::{build, lanes, workspace};

/// What makes LLVM count edges and comparisons for libFuzzer.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

/// The platform, named so that build scripts and proc macros are built without coverage.
pub(crate) const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// What came of one target's run.
pub(crate) struct Ran {
    pub(crate) target: String,
    /// Whether nothing was found.
    pub(crate) survived: bool,
    pub(crate) seed: u32,
    /// What was counted, and in what: runs, or what the target itself counts.
    pub(crate) count: u64,
    pub(crate) unit: String,
    pub(crate) seconds: f32,
}

/// How long a target runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Length {
    /// So many seconds.
    Seconds(u32),
    /// As many runs as `[package.metadata.smoke]` of `fuzz/Cargo.toml` says, so that a fast machine does not look further than a slow one. (The
    /// inputs still differ from run to run: hash maps are seeded by the system.) At most [`LONGEST_SMOKE`].
    Smoke,
}

/// Seconds after which a smoke run ends on a machine that is too slow for it.
const LONGEST_SMOKE: u32 = 60;

/// Runs every target of `fuzz/` whose name contains one of `filters`, or all, for `length` each, starting from `seed`.
///
/// # Errors
///
/// Fails when the targets do not build. A finding is an outcome: its input is kept in `fuzz/artifacts/TARGET`.
pub(crate) fn run(filters: &[String], length: Length, seed: u32) -> Result<Vec<Ran>> {
    run_instrumented(filters, length, seed, Instrumented { name: "fuzz", flags: "", options: "" })
}

/// How the targets are built besides libFuzzer's coverage.
#[derive(Clone, Copy)]
pub(crate) struct Instrumented {
    /// Directory of the build and the logs, below cargo's target directory.
    pub(crate) name: &'static str,
    /// More flags for rustc, unstable ones too.
    pub(crate) flags: &'static str,
    /// What the sanitizer is told.
    pub(crate) options: &'static str,
}

/// As [`run`], with more instrumentation.
///
/// # Errors
///
/// As there.
pub(crate) fn run_instrumented(
    filters: &[String],
    length: Length,
    seed: u32,
    instrumented: Instrumented,
) -> Result<Vec<Ran>> {
    let Some(manifest) = manifest()? else { return Ok(Vec::new()) };
    let chosen = |name: &String| filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
    let targets: Vec<String> = targets(&manifest).into_iter().filter(chosen).collect();
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let directory = workspace::root().join("fuzz");
    let output = workspace::target().join(instrumented.name);
    let mut build = build::cargo();
    if !instrumented.flags.is_empty() {
        build.env("RUSTC_BOOTSTRAP", "1");
    }
    let status = build
        .args(["build", "--quiet", "--release", "--target", PLATFORM])
        .args(["--config", "profile.release.debug-assertions=true"])
        .args(["--config", "profile.release.overflow-checks=true"])
        .env("RUSTFLAGS", format!("{COVERAGE} {}", instrumented.flags))
        .env("CARGO_TARGET_DIR", &output)
        .current_dir(&directory)
        .status()?;
    ensure!(status.success(), "the fuzz targets do not build");
    let binary = |target: &str| output.join(PLATFORM).join("release").join(target);
    let run = |target: &String| {
        let limits = match length {
            Length::Seconds(seconds) => vec![format!("-max_total_time={seconds}")],
            Length::Smoke => {
                let runs = smoke_runs(&manifest, target)?;
                vec![format!("-runs={runs}"), format!("-max_total_time={LONGEST_SMOKE}")]
            }
        };
        one(target, &binary(target), &limits, seed, instrumented)
    };
    match length {
        Length::Seconds(_) => targets.iter().map(run).collect(),
        // A smoke run is of runs and not of time, so two at once find as much.
        Length::Smoke => {
            let ran = lanes::run(targets.iter().collect(), 2, &run)?;
            Ok(ran.into_iter().map(|(_, ran)| ran).collect())
        }
    }
}

/// Runs one target.
fn one(target: &str, binary: &Path, limits: &[String], seed: u32, instrumented: Instrumented) -> Result<Ran> {
    let fuzz = workspace::root().join("fuzz");
    let (corpus, artifacts) = (fuzz.join("corpus").join(target), fuzz.join("artifacts").join(target));
    let log = workspace::target().join(instrumented.name).join(format!("{target}.log"));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let mut command = Command::new(binary);
    command.arg(&corpus).env("ASAN_OPTIONS", instrumented.options);
    // Seeds that are kept with the sources, if there are any; libFuzzer writes to the first directory only.
    let seeds = fuzz.join("seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    let start = Instant::now();
    let status = command
        .args(limits)
        .args([format!("-seed={seed}"), "-timeout=10".into()])
        .args([format!("-artifact_prefix={}/", artifacts.display()), "-print_final_stats=1".into()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .status()
        .with_context(|| format!("starting {}", binary.display()))?;
    let said = fs::read_to_string(&log).unwrap_or_default();
    let (count, unit) = counted(&said);
    let seconds = start.elapsed().as_secs_f32();
    if status.success() {
        println!("ok      fuzz: {target} ({count} {unit} in {seconds:.0} s)");
    } else {
        println!("FAILED  fuzz: {target}; the end of {}:", log.display());
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(25)..].iter().for_each(|line| println!("    {line}"));
    }
    Ok(Ran { target: target.to_owned(), survived: status.success(), seed, count, unit, seconds })
}

/// What a target says it has counted (the last `counted: 12 messages`), else libFuzzer's number of runs.
fn counted(said: &str) -> (u64, String) {
    let own = said.lines().rev().find_map(|line| line.strip_prefix("counted: ")?.split_once(' '));
    let runs = || said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let (number, unit) = own.unwrap_or_else(|| (runs().unwrap_or("0"), "runs"));
    (number.trim().parse().unwrap_or(0), unit.to_owned())
}

/// `fuzz/Cargo.toml`, if there is such a file.
fn manifest() -> Result<Option<Table>> {
    let path = workspace::root().join("fuzz/Cargo.toml");
    if !path.exists() {
        return Ok(None);
    }
    fs::read_to_string(&path)?.parse().map(Some).context("reading fuzz/Cargo.toml")
}

/// The names of the `[[bin]]` sections.
fn targets(manifest: &Table) -> Vec<String> {
    let bins = manifest.get("bin").and_then(|bins| bins.as_array()).into_iter().flatten();
    bins.filter_map(|bin| Some(bin.get("name")?.as_str()?.to_owned())).collect()
}

/// Runs of `target` in a smoke run.
fn smoke_runs(manifest: &Table, target: &str) -> Result<i64> {
    let section = ["package", "metadata", "smoke"];
    let section = section.iter().try_fold(manifest, |table, key| table.get(*key)?.as_table());
    let runs = section.and_then(|section| section.get(target)?.as_integer());
    runs.with_context(|| format!("[package.metadata.smoke] of fuzz/Cargo.toml says nothing of {target}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_targets_own_count_goes_before_libfuzzers() {
        let said =
            "counted: 5 descriptor reads\ncounted: 9 descriptor reads\nstat::number_of_executed_units: 7\n";
        assert_eq!(counted(said), (9, "descriptor reads".into()));
        assert_eq!(counted("stat::number_of_executed_units: 7\n"), (7, "runs".into()));
    }

    #[test]
    fn every_target_says_how_many_runs_a_smoke_run_has() {
        let manifest = manifest().expect("it can be read").expect("it is there");
        let targets = targets(&manifest);
        assert!(!targets.is_empty());
        for target in targets {
            assert!(smoke_runs(&manifest, &target).is_ok_and(|runs| runs > 0), "{target}");
        }
    }
}
