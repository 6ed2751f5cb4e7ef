//! `cargo xtask bench`: hugepages for DPDK, a release build, and the bench in a sandbox.
//!
//! What must stay true: the machine's number of hugepages is what it was, whatever comes of the bench.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::fetch::{self, Set};
use crate::{build, sandbox, workspace};

/// The machine's number of 2 MB pages.
const HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";
/// Two testpmd with 256 MB each, and room for both to fragment.
const NEEDED: u64 = 384;

/// Seen in the sandbox only.
const MOUNT: &str = r#"
    mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages && exec "$@"
"#;

/// Runs `rounds` interleaved rounds.
///
/// # Errors
///
/// Fails without root, as hugepages are the machine's, and when the bench does.
pub(crate) fn run(rounds: usize) -> Result<()> {
    [Set::Dpdk, Set::Net].into_iter().try_for_each(|set| fetch::ensure(set).map(drop))?;
    build::daemon_for_speed()?;
    let bench = build::harness(&["build", "--bin", "bench"])?;
    let _pages = Hugepages::at_least(NEEDED)?;
    let status = sandbox::command(Path::new("sh"))?
        .args(["-c", MOUNT, "sh"])
        .arg(bench)
        .arg(rounds.to_string())
        .env("VHOST_ILA_BINARY", workspace::target().join("release/vhost-ila"))
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
