//! The end-to-end tests: each in a sandbox of its own, with a limit; most of them two at a time, because most of their time is waiting.
//!
//! ```text
//!   names ─┬─> two lanes, each takes the next; beside them a build ─┐
//!          └─> then [`ALONE`], one by one ──────────────────────────┴─> outcomes, in the order of the names
//! ```
//!
//! What must stay true: a test shares with its neighbour nothing but the processors. Networks, processes and `/run` are its sandbox's;
//! what it writes below cargo's target directory is named after it. What two processors must be shared for to spoil is in [`ALONE`].

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::scoreboard::{self, Row};
use crate::{build, fetch, lanes, sandbox, workspace};

/// The longest that one test may take; the harness's own limits are shorter.
const LIMIT: Duration = Duration::from_secs(420);
/// The same in a full run.
const LONG_LIMIT: Duration = Duration::from_secs(2 * 3600);

/// What came of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It ran to its end.
    Passed,
    /// It did not; its output is in the file.
    Failed(PathBuf),
    /// It said why it cannot run here.
    Skipped(String),
}

/// The module of the tests that need DPDK, which is large.
const DPDK: &str = "dpdk::";

/// The modules of the tests whose guests bring the programs of ordinary ones.
const ORDINARY: [&str; 3] = ["ordinary_guests::", "fragments_and_traceroute::", "one_host_and_two::"];

/// The module of the tests whose guests speak to many.
const TO_MANY: &str = "to_many::";

/// The module of the tests that resolve names: those clients ask, and dnsmasq answers.
const NAMES: &str = "names::";

/// The module of the tests whose guests are routers.
const ROUTERS: &str = "router_machines::";
/// The module of the tests that cross a NAT64.
const INTERNET: &str = "internet::";

/// The module of the tests in which a host of the fabric is the Linux kernel's own ILA.
const LINUX_ILA: &str = "the_kernels_own_ila::";

/// The modules of the tests of the reference network.
const SCENARIOS: [&str; 2] = ["the_thirteen_scenarios::", "without_root::"];

/// The module of the tests that cloud-init's own code takes part in.
const METADATA: &str = "metadata::";

/// The module of the tests that take minutes each.
const SOAKS: &str = "soaks::";

/// How many tests run side by side. In a long run none does: its figures are recorded.
const LANES: usize = 2;

/// The tests that run by themselves, by the beginnings of their names, and why: what they claim is about time, or about a share of the
/// machine.
const ALONE: [(&str, &str); 9] = [
    ("cloud_hypervisor::both_directions_flow", "within a second after a kill"),
    ("dpdk::", "within a second after a kill; its poll loops take whole processors"),
    ("hostile_connections_delay_nobody_else::", "measures how long an honest front-end waits"),
    ("hostile_load_leaves_the_others_their_share::", "measures a share of the processors"),
    ("identifiers_by_the_million::", "measures how long a table takes to load"),
    ("idle::", "measures processor time and wakes"),
    ("restarts::both_ways_are_open", "within a second after a kill"),
    ("the_bench_measures::", "drives generators that take whole processors"),
    (SOAKS, "minutes of load, with what grew at the end"),
];

/// How large a run is, and where its random numbers begin; the tests are told by the environment (`tests/src/scoreboard.rs`).
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// Checks at full scale, and the soaks.
    pub(crate) long: bool,
    /// Where random numbers begin.
    pub(crate) seed: u32,
}

/// A test's outcome, and what it reported to the scoreboard.
pub(crate) struct Ran {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// One row per check that it is part of.
    pub(crate) rows: Vec<Row>,
}

/// Runs the end-to-end tests whose name contains one of `filters`, or all, and says each one's name and outcome. Soaks run only when
/// the scale is long. `beside` runs while tests run side by side, and has ended before the first that runs alone.
///
/// # Errors
///
/// Fails when something does not build or cannot be fetched. A failed test is an outcome.
pub(crate) fn run(filters: &[String], scale: Scale, beside: impl FnOnce() + Send) -> Result<Vec<Ran>> {
    let binary = build::end_to_end()?;
    let list = Command::new(&binary).args(["--list", "--ignored", "--format", "terse"]).output()?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let names = names.filter(|name| filters.is_empty() || filters.iter().any(|filter| name.contains(filter)));
    let names: Vec<&str> = names.filter(|name| scale.long || !name.starts_with(SOAKS)).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    fetch::run(&[])?;
    let sets = [
        (&[DPDK][..], fetch::Set::Dpdk),
        (&ORDINARY, fetch::Set::Clients),
        (&[TO_MANY], fetch::Set::Avahi),
        (&[METADATA], fetch::Set::CloudInit),
        (&[NAMES], fetch::Set::Clients),
        (&[NAMES], fetch::Set::Resolver),
        (&[ROUTERS], fetch::Set::Keepalived),
        (&[INTERNET], fetch::Set::Nat64),
        (&[LINUX_ILA], fetch::Set::Iproute),
        (&SCENARIOS, fetch::Set::Socat),
    ];
    for (modules, set) in sets {
        if names.iter().any(|name| modules.iter().any(|module| name.starts_with(module))) {
            fetch::run(&[set])?;
        }
    }
    build::daemon()?;
    if filters.is_empty() {
        for (alone, _) in ALONE.iter().filter(|(alone, _)| scale.long || *alone != SOAKS) {
            ensure!(
                names.iter().any(|name| name.starts_with(alone)),
                "no test runs alone by the name {alone}"
            );
        }
    }
    let runs_alone = |name: &&str| ALONE.iter().any(|(alone, _)| name.starts_with(alone));
    let (alone, others): (Vec<&str>, Vec<&str>) = names.into_iter().partition(runs_alone);
    let side_by_side = if scale.long { 1 } else { LANES };
    let mut ran = thread::scope(|scope| {
        scope.spawn(beside);
        lanes::run(others, side_by_side, &|name| one(&binary, name, scale))
    })?;
    ran.extend(lanes::run(alone, 1, &|name| one(&binary, name, scale))?);
    ran.sort_by_key(|(name, _)| *name);
    Ok(ran.into_iter().map(|(_, ran)| ran).collect())
}

fn one(binary: &Path, name: &str, scale: Scale) -> Result<Ran> {
    let directory = workspace::target().join("e2e-output");
    fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{}.log", name.replace("::", ".")));
    let log = File::create(&file)?;
    let limit = if scale.long { LONG_LIMIT } else { LIMIT };
    let start = Instant::now();
    let mut command = sandbox::command(binary)?;
    command.env("VHOST_ILA_SEED", scale.seed.to_string());
    if scale.long {
        command.env("VHOST_ILA_LONG", "1");
    }
    let mut child = command
        .args([name, "--exact", "--ignored", "--nocapture"])
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting a sandbox")?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let said = fs::read_to_string(&file).unwrap_or_default();
    let seconds = start.elapsed().as_secs_f32();
    let skipped = said.lines().find_map(|line| line.strip_prefix("SKIPPED: "));
    let outcome = match (status, skipped) {
        (Some(status), Some(reason)) if status.success() => Outcome::Skipped(reason.to_owned()),
        (Some(status), None) if status.success() => Outcome::Passed,
        _ => Outcome::Failed(file),
    };
    // In one piece: a neighbour's may end at the same time.
    print!("{}", account(name, &outcome, seconds, status.is_none(), &said));
    let rows = scoreboard::rows(name, &said, outcome == Outcome::Passed);
    Ok(Ran { outcome, rows })
}

/// What is said of a test that has ended, in whole lines.
fn account(name: &str, outcome: &Outcome, seconds: f32, late: bool, said: &str) -> String {
    match outcome {
        Outcome::Passed => format!("ok      {name} ({seconds:.1} s)\n"),
        Outcome::Skipped(reason) => format!("skipped {name}: {reason}\n"),
        Outcome::Failed(file) => {
            let why = if late { "took too long" } else { "failed" };
            let mut text =
                format!("FAILED  {name} {why} after {seconds:.1} s; the end of {}:\n", file.display());
            let lines: Vec<&str> = said.lines().collect();
            for line in &lines[lines.len().saturating_sub(25)..] {
                // A string takes everything.
                let _ = writeln!(text, "    {line}");
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_failed_tests_output_is_shown() {
        let said: String = (0..40).map(|line| format!("line {line}\n")).collect();
        let text = account("a::b", &Outcome::Failed("log".into()), 1.25, false, &said);
        assert!(
            text.starts_with("FAILED  a::b failed after 1.2 s; the end of log:\n    line 15\n"),
            "{text}"
        );
        assert!(text.ends_with("    line 39\n"));
    }
}
