//! What guests measure TCP with: Debian's iperf3.

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::libraries;
use crate::tools::Set;

/// Adds iperf3 to an archive that has `bin` and `lib`.
///
/// # Errors
///
/// Fails when the set `iperf` is missing.
pub(super) fn add(archive: &mut Archive) -> Result<()> {
    let set = Set::open("iperf")?;
    let program = set.file("usr/bin/iperf3")?;
    archive.copy("bin/iperf3", &program)?;
    for library in libraries(&set, &program)? {
        let name = library.file_name().and_then(|name| name.to_str()).context("a library without a name")?;
        archive.copy(&format!("lib/{name}"), &library)?;
    }
    archive.copy("lib64/ld-linux-x86-64.so.2", &set.file("lib64/ld-linux-x86-64.so.2")?)
}
