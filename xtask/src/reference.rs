//! Check 10 of docs/hostile.md at full scale: the unit test that walks rings beside the reference, optimised, for as many descriptors as the
//! check is held to. `cargo test` runs the same test for a second.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::e2e::Scale;
use crate::scoreboard::{self, Row};
use crate::{build, workspace};

const TEST: &str = "rings_of_any_script_do_what_the_reference_does";
/// Where it is.
const MODULE: &str = "device::ring::reference::tests";
/// Descriptors read with `--long`, and where it is asked for by name without.
const MANY: u64 = 1_000_000_000;
const SOME: u64 = 20_000_000;

/// Runs it if it is asked for: whether it passed, and its row of the scoreboard.
///
/// # Errors
///
/// Fails when it does not build or cannot be started.
pub(crate) fn run(filters: &[String], scale: Scale) -> Result<Option<(bool, Vec<Row>)>> {
    let asked =
        if filters.is_empty() { scale.long } else { filters.iter().any(|word| TEST.contains(word.as_str())) };
    if !asked {
        return Ok(None);
    }
    let binary = build::unit_tests()?;
    let output = Command::new(binary)
        .args([&format!("{MODULE}::{TEST}"), "--exact", "--nocapture"])
        .env("VHOST_ILA_SEED", scale.seed.to_string())
        .env("VHOST_ILA_READS", if scale.long { MANY } else { SOME }.to_string())
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("starting the unit tests")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let rows = scoreboard::rows(TEST, &said, output.status.success());
    // Were the test renamed, none would run, and that none failed is no success.
    let passed = output.status.success() && !rows.is_empty();
    println!("{} {TEST}", if passed { "ok     " } else { "FAILED " });
    if !passed {
        said.lines().for_each(|line| println!("    {line}"));
    }
    Ok(Some((passed, rows)))
}
