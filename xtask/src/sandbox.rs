//! Runs a program where nothing that it makes can leak: own user (unless root), network, mount and PID namespaces.
//!
//! What must stay true: when this process ends, in whatever way, everything in the sandbox ends. `setpriv` has the kernel
//! kill `unshare` when its parent dies, `unshare` has it kill process 1 of the PID namespace, and that one takes the rest
//! with it; interfaces, namespaces and mounts go with their last process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// A private `/run` for network namespaces and sockets, then the program.
const SET_UP: &str = r#"mount -t tmpfs -o mode=755 tmpfs /run && exec "$@""#;

/// A command that runs `program` in a new sandbox; arguments can be added.
///
/// # Errors
///
/// Fails when `/proc` cannot tell who runs this.
pub(crate) fn command(program: &Path) -> Result<Command> {
    let root = fs::metadata("/proc/self").context("reading /proc")?.uid() == 0;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    if !root {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", SET_UP, "sh"]).arg(program);
    command.env("VHOST_ILA_SANDBOX", "1");
    command.env("VHOST_ILA_TARGET", workspace::target());
    command.env("VHOST_ILA_XTASK", std::env::current_exe()?);
    command.env("VHOST_ILA_BINARY", workspace::target().join("e2e/vhost-ila"));
    Ok(command)
}

/// Runs `program` with `arguments` in a sandbox, for `cargo xtask sandbox`.
///
/// # Errors
///
/// Fails when the program does.
pub(crate) fn run(program: &[PathBuf]) -> Result<()> {
    let (program, arguments) = program.split_first().context("no program")?;
    let status = command(program)?.args(arguments).status()?;
    ensure!(status.success(), "{} in a sandbox: {status}", program.display());
    Ok(())
}
