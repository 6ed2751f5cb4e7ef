//! What an ordinary guest runs beside busybox: the DHCP clients, probers and `ip` of Debian, configured as Debian's packages do.
//!
//! Nothing here is told what to expect: dhclient and dhcpcd have the files of their packages, systemd-networkd `DHCP=yes`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::libraries;
use crate::tools::Set;

/// Programs of the set, and where the guest has them. What busybox has too takes busybox's place.
const PROGRAMS: [(&str, &str); 13] = [
    ("sbin/dhclient", "sbin/dhclient"),
    ("sbin/dhcpcd", "sbin/dhcpcd"),
    ("lib/systemd/systemd-networkd", "lib/systemd/systemd-networkd"),
    ("bin/ip", "bin/ip"),
    ("bin/traceroute.db", "bin/traceroute"),
    ("bin/mtr", "bin/mtr"),
    ("bin/mtr-packet", "bin/mtr-packet"),
    ("sbin/dhclient-script", "sbin/dhclient-script"),
    ("bin/dash", "bin/sh"),
    ("bin/run-parts", "bin/run-parts"),
    ("bin/chown", "bin/chown"),
    ("bin/chmod", "bin/chmod"),
    ("bin/getent", "bin/getent"),
];

/// Directories of scripts and settings, taken as they are.
const AS_THEY_ARE: [&str; 4] = [
    "etc/dhcp/dhclient-enter-hooks.d",
    "etc/dhcp/dhclient-exit-hooks.d",
    "lib/dhcpcd",
    "lib/dhcpcd/dhcpcd-hooks",
];

/// Settings of the packages, and the few files of a Debian that their programs want to find.
const NETWORKD: &[u8] = b"[Match]\nName=eth0\n\n[Network]\nDHCP=yes\n";

/// Adds all of it to an archive that has `bin`, `etc`, `lib` and `lib64`.
///
/// # Errors
///
/// Fails when the set `clients` is missing.
pub(super) fn add(archive: &mut Archive) -> Result<()> {
    let set = Set::open("clients")?;
    for path in [
        "sbin",
        "usr",
        "usr/lib",
        "var",
        "var/lib",
        "var/lib/dhcp",
        "var/lib/dhcpcd",
        "lib/systemd",
        "etc/dhcp",
        "etc/systemd",
        "etc/systemd/network",
        "run/systemd",
    ] {
        archive.directory(path);
    }
    archive.symlink("var/run", "/run");
    archive.symlink("usr/sbin", "/sbin");
    archive.symlink("usr/lib/dhcpcd", "/lib/dhcpcd");
    archive.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nsystemd-network:x:998:998::/:/bin/false\n",
    );
    archive.file("etc/group", 0o644, b"root:x:0:\nsystemd-network:x:998:\n");
    archive.file("etc/fstab", 0o644, b"");
    archive.file("etc/resolv.conf", 0o644, b"");
    archive.file("etc/machine-id", 0o444, b"0123456789abcdef0123456789abcdef\n");
    archive.file("etc/systemd/network/eth0.network", 0o644, NETWORKD);
    for settings in ["etc/dhcp/dhclient.conf", "etc/dhcpcd.conf"] {
        archive.copy(settings, &set.file(settings)?)?;
    }
    for directory in AS_THEY_ARE {
        archive.directory(directory);
        for file in files(&set.file(directory)?)? {
            archive.copy(&format!("{directory}/{}", name(&file)?), &file)?;
        }
    }
    let mut needed = BTreeSet::new();
    for (path, there) in PROGRAMS {
        let program = set.file(path)?;
        archive.copy(there, &program)?;
        if fs::read(&program)?.starts_with(b"\x7fELF") {
            needed.extend(libraries(&set, &program)?);
        }
    }
    archive.symlink("bin/traceroute6", "traceroute");
    archive.copy("lib64/ld-linux-x86-64.so.2", &set.file("lib64/ld-linux-x86-64.so.2")?)?;
    needed.iter().try_for_each(|library| archive.copy(&format!("lib/{}", name(library)?), library))
}

fn name(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).context("a file without a name")
}

/// The plain files of a directory, in an order that does not change.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}
