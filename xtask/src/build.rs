//! Builds what the end-to-end commands run, by cargo.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// A cargo command at the repository's root, using the cargo that runs this.
pub(crate) fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace::root()).env("CARGO_TARGET_DIR", workspace::target());
    command
}

/// Builds the daemon as the demo and the end-to-end tests run it: optimised, with its assertions.
///
/// # Errors
///
/// Fails when it does not build.
pub(crate) fn daemon() -> Result<()> {
    daemon_in("e2e")
}

/// Builds the daemon as it is released.
///
/// # Errors
///
/// As [`daemon`].
pub(crate) fn daemon_for_speed() -> Result<()> {
    daemon_in("release")
}

fn daemon_in(profile: &str) -> Result<()> {
    let status =
        cargo().args(["build", "--quiet", "--profile", profile, "--package", "vhost-ila"]).status()?;
    ensure!(status.success(), "vhost-ila does not build");
    Ok(())
}

/// Builds a target of the `tests` crate and returns its executable. `selection` is cargo's: `["build", "--bin", "demo"]`.
///
/// # Errors
///
/// Fails when it does not build.
pub(crate) fn harness(selection: &[&str]) -> Result<PathBuf> {
    let target = selection.last().copied().unwrap_or_default();
    executable(cargo().args(selection).args(["--package", "vhost-ila-tests"]), target)
}

/// Builds the end-to-end tests and returns their executable. Selected as `cargo test --workspace` selects them, so that everything has the same
/// features, and what that has built is not built again.
///
/// # Errors
///
/// Fails when they do not build.
pub(crate) fn end_to_end() -> Result<PathBuf> {
    executable(cargo().args(["test", "--no-run", "--workspace", "--test", "e2e"]), "e2e")
}

/// Builds the unit tests of the daemon, optimised and with their assertions, and returns their executable.
///
/// # Errors
///
/// Fails when they do not build.
pub(crate) fn unit_tests() -> Result<PathBuf> {
    let tests = ["test", "--no-run", "--profile", "e2e", "--package", "vhost-ila", "--lib"];
    executable(cargo().args(tests), "vhost_ila")
}

/// Runs cargo; where it put the executable of `target`.
fn executable(cargo: &mut Command, target: &str) -> Result<PathBuf> {
    let output = cargo
        .args(["--quiet", "--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the tests do not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    // A test's binaries are built, and named, beside it.
    let mut executables = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let wanted = message["target"]["name"].as_str() == Some(target);
        wanted.then(|| Some(PathBuf::from(message.get("executable")?.as_str()?)))?
    });
    executables.next_back().context("cargo named no executable")
}
