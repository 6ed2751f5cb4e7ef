//! The end-to-end tests: each in a sandbox of its own, with a limit, one after the other.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::scoreboard::{self, Row};
use crate::{build, fetch, sandbox, workspace};

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
/// the scale is long.
///
/// # Errors
///
/// Fails when something does not build or cannot be fetched. A failed test is an outcome.
pub(crate) fn run(filters: &[String], scale: Scale) -> Result<Vec<Ran>> {
    let binary = build::harness(&["test", "--no-run", "--test", "e2e"])?;
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
    names.into_iter().map(|name| one(&binary, name, scale)).collect()
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
    match &outcome {
        Outcome::Passed => println!("ok      {name} ({seconds:.1} s)"),
        Outcome::Skipped(reason) => println!("skipped {name}: {reason}"),
        Outcome::Failed(file) => {
            let why = if status.is_none() { "took too long" } else { "failed" };
            println!("FAILED  {name} {why} after {seconds:.1} s; the end of {}:", file.display());
            let lines: Vec<&str> = said.lines().collect();
            lines[lines.len().saturating_sub(25)..].iter().for_each(|line| println!("    {line}"));
        }
    }
    let rows = scoreboard::rows(name, &said, outcome == Outcome::Passed);
    Ok(Ran { outcome, rows })
}
