//! `cargo xtask scenarios`: fetches, builds, and runs the reference network of the draft in a sandbox.

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::fetch::{self, Set};
use crate::{build, sandbox};

/// How checksums stay right on the wire (draft, section 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Checksum {
    /// Checksum-neutral mapping
    Neutral,
    /// Unmodified: checksums are for the endpoints' addresses
    Unmodified,
    /// One after the other
    Both,
}

impl Checksum {
    fn word(self) -> &'static str {
        match self {
            Checksum::Neutral => "neutral",
            Checksum::Unmodified => "unmodified",
            Checksum::Both => "both",
        }
    }
}

/// Runs the scenarios; or, with `again`, has the captures of the last run judged once more.
///
/// # Errors
///
/// Fails when one of them differs from the draft, or something does not come up.
pub(crate) fn run(checksum: Checksum, again: bool) -> Result<()> {
    let start = Instant::now();
    [Set::Qemu, Set::Kernel, Set::Guest, Set::Net, Set::Socat]
        .into_iter()
        .try_for_each(|set| fetch::ensure(set).map(drop))?;
    build::daemon()?;
    let scenarios = build::harness(&["build", "--bin", "scenarios"])?;
    println!("fetched and built in {:.0} s; the network starts now", start.elapsed().as_secs_f32());
    let again = again.then_some("again");
    let status = sandbox::command(&scenarios)?.args(["scenarios", checksum.word()]).args(again).status()?;
    ensure!(status.success(), "the scenarios failed");
    Ok(())
}
