//! `cargo xtask instructions`: what a packet costs, in instructions that callgrind counts: the translation, the walk, and from ring to ring.
//! The counts are the same on a busy machine, so two commits can be compared where times cannot.

use anyhow::{Result, ensure};

use crate::build;

/// Each prints a table, or judges what two workers load and store; or says that there is no valgrind.
const COUNTS: [&[&str]; 4] = [
    &["bench", "--package", "ipv4-xlat", "--bench", "instructions"],
    &["bench", "--package", "nve-core", "--bench", "instructions"],
    &[
        "test",
        "--release",
        "--package",
        "vhost-ila",
        "--lib",
        "--",
        "--ignored",
        "--exact",
        "--nocapture",
        "worker::tests::instructions::instructions_of_a_packet_from_ring_to_ring",
    ],
    &[
        "test",
        "--release",
        "--package",
        "vhost-ila",
        "--lib",
        "--",
        "--ignored",
        "--exact",
        "--nocapture",
        "worker::tests::lines::two_workers_with_disjoint_ports_share_no_written_cache_line",
    ],
];

/// Counts all of them.
///
/// # Errors
///
/// Fails when one does not build, or counts nothing.
pub(crate) fn run() -> Result<()> {
    for arguments in COUNTS {
        let status = build::cargo().args(arguments).status()?;
        ensure!(status.success(), "cargo {} fails", arguments.join(" "));
    }
    Ok(())
}
