//! The sandbox as seen from inside, and the directory where a run leaves its evidence.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// Set by `cargo xtask` for what it runs inside the namespaces it made.
const MARK: &str = "VHOST_ILA_SANDBOX";

/// Where sockets live: short enough for `sun_path`, on a tmpfs that only the sandbox sees.
pub const RUNTIME: &str = "/run/vhost-ila";

/// Checks that this process runs in a sandbox made by `cargo xtask`, and that cargo's target directory is known.
///
/// # Errors
///
/// Fails outside, with the command to use instead: an interface made there would be the machine's own.
pub fn entered() -> Result<()> {
    if env::var_os(MARK).is_none() {
        bail!("this makes network namespaces and guests; run it by `cargo xtask test` or `cargo xtask demo`");
    }
    fs::create_dir_all(RUNTIME).context("the sandbox has no private /run")
}

/// Cargo's target directory, as `cargo xtask` names it.
///
/// # Errors
///
/// Fails outside the sandbox.
pub fn target() -> Result<PathBuf> {
    let target =
        env::var_os("VHOST_ILA_TARGET").context("VHOST_ILA_TARGET is not set: run it by `cargo xtask`")?;
    Ok(PathBuf::from(target))
}

/// A fresh directory `target/NAME` for logs and captures; what an earlier run left there is removed.
///
/// # Errors
///
/// Fails when the directory cannot be made.
pub fn evidence(name: impl AsRef<Path>) -> Result<PathBuf> {
    let directory = target()?.join(name);
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    Ok(directory)
}
