//! What a host of the fabric has whose ILA is the Linux kernel's own: the module, and Debian's `ip`, which busybox's does not replace.

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::libraries;
use crate::tools::Set;

/// `ip ila` (netfilter's side) and `ip route ... encap ila` (the routes' side) are one module.
pub(super) const MODULES: [&str; 1] = ["ila"];

/// Adds `ip` to an archive that has `bin` and `lib`.
///
/// # Errors
///
/// Fails when the set `iproute` is missing.
pub(super) fn add(archive: &mut Archive) -> Result<()> {
    let set = Set::open("iproute")?;
    let program = set.file("bin/ip")?;
    archive.copy("bin/ip", &program)?;
    for library in libraries(&set, &program)? {
        let name = library.file_name().and_then(|name| name.to_str()).context("a library without a name")?;
        archive.copy(&format!("lib/{name}"), &library)?;
    }
    archive.copy("lib64/ld-linux-x86-64.so.2", &set.file("lib64/ld-linux-x86-64.so.2")?)
}
