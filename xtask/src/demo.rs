//! `cargo xtask demo`: fetches, builds, and runs the demo in a sandbox.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::fetch::{self, Set};
use crate::{build, sandbox};

/// Runs the demo.
///
/// # Errors
///
/// Fails when a step of it does.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    [Set::Qemu, Set::Kernel, Set::Guest, Set::Net]
        .into_iter()
        .try_for_each(|set| fetch::ensure(set).map(drop))?;
    build::daemon()?;
    let demo = build::harness(&["build", "--bin", "demo"])?;
    println!("fetched and built in {:.0} s; the demo starts now", start.elapsed().as_secs_f32());
    let status = sandbox::command(&demo)?.status()?;
    ensure!(status.success(), "the demo failed");
    Ok(())
}
