//! What guests ask and answer with beside TCP: Debian's socat.

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::libraries;
use crate::tools::Set;

/// Adds socat to an archive that has `bin` and `lib`.
///
/// # Errors
///
/// Fails when the set `socat` is missing.
pub(super) fn add(archive: &mut Archive) -> Result<()> {
    let set = Set::open("socat")?;
    let program = set.file("usr/bin/socat")?;
    archive.copy("bin/socat", &program)?;
    for library in libraries(&set, &program)? {
        let name = library.file_name().and_then(|name| name.to_str()).context("a library without a name")?;
        archive.copy(&format!("lib/{name}"), &library)?;
    }
    archive.copy("lib64/ld-linux-x86-64.so.2", &set.file("lib64/ld-linux-x86-64.so.2")?)
}
