//! What guests speak to many with: Debian's avahi-daemon, and socat for groups of its user's choice.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::libraries;
use crate::tools::Set;

/// Programs of the set, and where the guest has them.
const PROGRAMS: [(&str, &str); 2] =
    [("usr/sbin/avahi-daemon", "bin/avahi-daemon"), ("usr/bin/socat", "bin/socat")];

/// The package's own settings, but for the bus that these guests have not.
const SETTINGS: &str = "etc/avahi/avahi-daemon.conf";

/// Adds all of it to an archive that has `bin`, `etc`, `lib` and `lib64`.
///
/// # Errors
///
/// Fails when the set `avahi` is missing.
pub(super) fn add(archive: &mut Archive) -> Result<()> {
    let set = Set::open("avahi")?;
    for path in ["var", "etc/avahi", "etc/avahi/services"] {
        archive.directory(path);
    }
    archive.symlink("var/run", "/run");
    // It looks up whose its runtime directory is.
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\navahi:x:107:107::/run:/bin/false\n");
    archive.file("etc/group", 0o644, b"root:x:0:\navahi:x:107:\n");
    let settings = std::fs::read_to_string(set.file(SETTINGS)?).context("avahi's settings")?;
    archive.file(SETTINGS, 0o644, settings.replace("#enable-dbus=yes", "enable-dbus=no").as_bytes());
    let mut needed = BTreeSet::new();
    for (path, there) in PROGRAMS {
        let program = set.file(path)?;
        archive.copy(there, &program)?;
        needed.extend(libraries(&set, &program)?);
    }
    archive.copy("lib64/ld-linux-x86-64.so.2", &set.file("lib64/ld-linux-x86-64.so.2")?)?;
    for library in needed {
        let name = library.file_name().and_then(|name| name.to_str()).context("a library without a name")?;
        archive.copy(&format!("lib/{name}"), &library)?;
    }
    Ok(())
}
