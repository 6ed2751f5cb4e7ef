//! `cargo xtask instructions`: what a packet costs, in instructions that callgrind counts: the translation, the walk, and from ring to ring.
//! The counts are the same on a busy machine, so two commits can be compared where times cannot.

use anyhow::{Result, ensure};

use crate::build;

/// Each prints a table, or judges what two workers load and store; or says that there is no valgrind.
const BENCHES: [&str; 2] = ["ipv4-xlat", "nve-core"];

/// The same, among the program's own tests.
const TESTS: [&str; 2] = [
    "instructions::instructions_of_a_packet_from_ring_to_ring",
    "lines::two_workers_with_disjoint_ports_share_no_written_cache_line",
];

/// Counts all of them.
///
/// # Errors
///
/// Fails when one does not build, or counts nothing.
pub(crate) fn run() -> Result<()> {
    for package in BENCHES {
        cargo(&["bench", "--package", package, "--bench", "instructions"])?;
    }
    for test in TESTS {
        let name = format!("worker::tests::{test}");
        let which = ["test", "--release", "--package", "vhost-ila", "--lib"];
        cargo(&[&which[..], &["--", "--ignored", "--exact", "--nocapture", &name]].concat())?;
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let status = build::cargo().args(arguments).status()?;
    ensure!(status.success(), "cargo {} fails", arguments.join(" "));
    Ok(())
}
