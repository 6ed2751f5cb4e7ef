//! `cargo xtask bench`: hugepages for DPDK, a release build, and the bench in a sandbox.
//!
//! What must stay true: the machine's number of hugepages is what it was, whatever comes of the bench.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::fetch::{self, Set};
use crate::{build, sandbox, test, workspace};

/// The machine's number of 2 MB pages.
const HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";
/// A testpmd with 256 MB beside another or a switch with 512 MB, and room for both to fragment.
const NEEDED: u64 = 640;

/// The cases without DPDK (`tests/src/bench/guests/`).
const BETWEEN_GUESTS: [&str; 2] = ["tcp", "ping"];

/// Seen in the sandbox only.
const MOUNT: &str = r#"
    mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages && exec "$@"
"#;

/// What is measured. It goes to the bench as JSON.
#[derive(Args, Serialize)]
pub(crate) struct Plan {
    /// Which cases (v4-64, v4-1500, tcp, ping, ...; a wrong one lists them); all when none is named
    cases: Vec<String>,
    /// Interleaved rounds, of which the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each back-end is measured in each round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only these peers
    #[arg(long, value_enum)]
    against: Vec<Peer>,
    /// Another build of vhost-ila, measured in turns with this one
    #[arg(long, value_name = "BINARY")]
    also: Vec<PathBuf>,
    /// The 99th percentile at half load too, by as many rounds again; always when no case is named
    #[arg(long)]
    latency: bool,
    /// Measure again, up to so many times, where others had either end's core for more than one percent of the time; the least
    /// disturbed counts
    #[arg(long, default_value_t = 0)]
    again: usize,
    /// Take the results into docs/bench; always when no case is named. They are under target/bench in any case
    #[arg(long)]
    record: bool,
}

/// Who else can be measured.
#[derive(Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    /// DPDK's testpmd, forwarding from port to port
    Testpmd,
    /// Open vSwitch over DPDK, rewriting three headers
    Ovs,
}

impl Plan {
    /// All cases, in so many rounds.
    pub(crate) fn all(rounds: usize) -> Plan {
        let (cases, against, also) = (Vec::new(), Vec::new(), Vec::new());
        Plan { cases, rounds, seconds: 3.0, against, also, latency: true, again: 0, record: false }
    }

    /// Whether it is the whole table that is measured, and nothing else.
    fn is_whole(&self) -> bool {
        self.cases.is_empty() && self.against.is_empty() && self.also.is_empty()
    }

    /// Whether a peer of DPDK's takes part.
    fn needs_hugepages(&self) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|case| !BETWEEN_GUESTS.contains(&case.as_str()))
    }

    /// What the bench is told: more than a command line says.
    fn told(&self) -> serde_json::Result<String> {
        let record = self.record.then(|| workspace::root().join("docs/bench"));
        let mut told = serde_json::to_value(self)?;
        told["record"] = serde_json::to_value(record)?;
        told["latency"] = (self.latency || self.cases.is_empty()).into();
        told["commit"] = test::commit().into();
        serde_json::to_string(&told)
    }
}

/// `cargo xtask bench`: a whole table is kept.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn command(mut plan: Plan) -> Result<()> {
    plan.record |= plan.is_whole();
    run(&plan)
}

/// Measures what `plan` says. The program is the release build, or what `VHOST_ILA_BINARY` names.
///
/// # Errors
///
/// Fails without root, as hugepages are the machine's, and when the bench does.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let guests = [Set::Qemu, Set::Kernel, Set::Guest, Set::Iperf];
    [Set::Dpdk, Set::Ovs, Set::Net]
        .iter()
        .chain(&guests)
        .try_for_each(|set| fetch::ensure(*set).map(drop))?;
    let binary = match std::env::var_os("VHOST_ILA_BINARY") {
        Some(binary) => PathBuf::from(binary),
        None => {
            build::daemon_for_speed()?;
            workspace::target().join("release/vhost-ila")
        }
    };
    let bench = build::harness(&["build", "--release", "--bin", "bench"])?;
    let _pages = plan.needs_hugepages().then(|| Hugepages::at_least(NEEDED)).transpose()?;
    let status = sandbox::command(Path::new("sh"))?
        .args(["-c", MOUNT, "sh"])
        .arg(bench)
        .arg(plan.told()?)
        .env("VHOST_ILA_BINARY", binary)
        .status()?;
    ensure!(status.success(), "the bench failed");
    Ok(())
}

/// Hugepages that are given back when dropped.
struct Hugepages {
    before: u64,
}

impl Hugepages {
    fn at_least(needed: u64) -> Result<Hugepages> {
        let before = fs::read_to_string(HUGEPAGES)?.trim().parse().context("a number of pages")?;
        if before < needed {
            println!("bench: {needed} hugepages for DPDK; {before} again afterwards");
            fs::write(HUGEPAGES, needed.to_string()).context("hugepages need root")?;
        }
        Ok(Hugepages { before })
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        if let Err(error) = fs::write(HUGEPAGES, self.before.to_string()) {
            eprintln!("bench: the number of hugepages is not {} again: {error}", self.before);
        }
    }
}
