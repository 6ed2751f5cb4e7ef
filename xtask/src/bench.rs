//! `cargo xtask bench`: hugepages for DPDK, a release build, and the bench in a sandbox.
//!
//! What must stay true: the machine's number of hugepages is what it was, whatever comes of the bench.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::fetch::{self, Set};
use crate::{build, sandbox, workspace};

/// The machine's number of 2 MB pages.
const HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";
/// A testpmd with 256 MB beside another or a switch with 512 MB, and room for both to fragment.
const NEEDED: u64 = 640;

/// Seen in the sandbox only.
const MOUNT: &str = r#"
    mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages && exec "$@"
"#;

/// What is measured. It goes to the bench as JSON.
#[derive(Args, Serialize)]
pub(crate) struct Plan {
    /// Which cases (v4-64, v4-1500, ...); all when none is named
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
        Plan { cases: Vec::new(), rounds, seconds: 3.0, against: Vec::new(), also: Vec::new() }
    }
}

/// Measures what `plan` says. The program is the release build, or what `VHOST_ILA_BINARY` names.
///
/// # Errors
///
/// Fails without root, as hugepages are the machine's, and when the bench does.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    [Set::Dpdk, Set::Ovs, Set::Net].into_iter().try_for_each(|set| fetch::ensure(set).map(drop))?;
    let binary = match std::env::var_os("VHOST_ILA_BINARY") {
        Some(binary) => PathBuf::from(binary),
        None => {
            build::daemon_for_speed()?;
            workspace::target().join("release/vhost-ila")
        }
    };
    let bench = build::harness(&["build", "--bin", "bench"])?;
    let _pages = Hugepages::at_least(NEEDED)?;
    let status = sandbox::command(Path::new("sh"))?
        .args(["-c", MOUNT, "sh"])
        .arg(bench)
        .arg(serde_json::to_string(plan)?)
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
