//! What a router machine has beside busybox: Debian's keepalived, and interfaces to make a network behind it.

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::libraries;
use crate::tools::Set;

/// A network behind the machine, and an interface with a virtual MAC.
pub(super) const MODULES: [&str; 2] = ["veth", "macvlan"];

/// Adds keepalived to an archive that has `bin` and `lib`.
///
/// # Errors
///
/// Fails when the set `keepalived` is missing.
pub(super) fn add(archive: &mut Archive) -> Result<()> {
    let set = Set::open("keepalived")?;
    let program = set.file("usr/sbin/keepalived")?;
    archive.directory("usr");
    archive.directory("usr/lib");
    archive.copy("bin/keepalived", &program)?;
    for library in libraries(&set, &program)? {
        let name = library.file_name().and_then(|name| name.to_str()).context("a library without a name")?;
        archive.copy(&format!("lib/{name}"), &library)?;
    }
    archive.copy("lib64/ld-linux-x86-64.so.2", &set.file("lib64/ld-linux-x86-64.so.2")?)
}
