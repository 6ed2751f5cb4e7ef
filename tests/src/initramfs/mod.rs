//! The initramfs of a guest: Debian's own busybox, tcpdump, kexec and ethtool, the kernel's own modules, and one script. The kernel itself
//! lies in `/boot`, for kexec.
//!
//! The kernel and its modules are Debian's, unmodified; nothing in the guest is ours but `INIT`, `UDHCPC` and the
//! few lines that name applets.

mod avahi;
mod clients;
mod cpio;
mod ila;
mod iperf;
mod modules;
mod routers;
mod socat;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::output;
use crate::tools::Set;
use cpio::Archive;

/// Process 1 of the guest.
const INIT: &str = include_str!("init.sh");

/// What udhcpc calls with the lease.
const UDHCPC: &str = include_str!("udhcpc.sh");

/// The modules a guest loads, before what they depend on: PCI transport, the NIC, packet sockets for tcpdump.
const MODULES: [&str; 3] = ["virtio_pci", "virtio_net", "af_packet"];

/// A kernel with an initramfs that suits it.
#[derive(Clone, Debug)]
pub struct Image {
    /// Debian's `vmlinuz`.
    pub kernel: PathBuf,
    /// The archive, uncompressed: unpacking costs more than loading under emulation.
    pub initramfs: PathBuf,
}

/// What a guest has beside busybox, tcpdump and what the harness needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kit {
    /// Nothing: it boots fastest.
    #[default]
    Bare,
    /// The clients that ordinary guests run (set `clients`).
    Clients,
    /// What speaks to groups: avahi-daemon and socat (set `avahi`).
    Avahi,
    /// What asks and answers by UDP (set `socat`).
    Socat,
    /// What measures TCP: Debian's iperf3 (set `iperf`).
    Iperf,
    /// What router machines have (set `keepalived`), and the modules of networks within them.
    Routers,
    /// What a host of the fabric needs whose ILA is the kernel's own: its module, and `ip` of iproute2 (set `iproute`).
    Ila,
}

/// Makes the image in `directory`, from the sets `kernel` and `guest`.
///
/// # Errors
///
/// Fails when a set is missing or the disk is full.
pub fn make(directory: &Path) -> Result<Image> {
    make_with(directory, Kit::Bare)
}

/// As [`make`], with more in it.
///
/// # Errors
///
/// As there.
pub fn make_with(directory: &Path, kit: Kit) -> Result<Image> {
    let (kernel, guest) = (Set::open("kernel")?, Set::open("guest")?);
    let release = only_entry(&kernel.file("lib/modules")?)?;
    let mut archive = Archive::default();
    for path in ["bin", "boot", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sys", "tmp"] {
        archive.directory(path);
    }
    archive.character_device("dev/console", 5, 1);
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("etc/udhcpc.sh", 0o755, UDHCPC.as_bytes());
    // tcpdump looks up whom to become.
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\n");

    let busybox = guest.file("bin/busybox")?;
    archive.copy("bin/busybox", &busybox)?;
    let mut list = Command::new(&busybox);
    list.arg("--list");
    for applet in output(list)?.lines().filter(|applet| *applet != "busybox") {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }

    let programs = [guest.file("bin/tcpdump")?, guest.file("sbin/kexec")?, guest.file("sbin/ethtool")?];
    let mut needed = BTreeSet::new();
    for (program, path) in programs.iter().zip(["bin/tcpdump", "bin/kexec", "bin/ethtool"]) {
        archive.copy(path, program)?;
        needed.extend(libraries(&guest, program)?);
    }
    archive.copy("lib64/ld-linux-x86-64.so.2", &guest.file("lib64/ld-linux-x86-64.so.2")?)?;
    for library in needed {
        let name = library.file_name().and_then(|name| name.to_str()).context("a library without a name")?;
        archive.copy(&format!("lib/{name}"), &library)?;
    }

    let mut order = String::new();
    let tree = kernel.file("lib/modules")?.join(&release);
    let more: &[&str] = match kit {
        Kit::Routers => &routers::MODULES,
        Kit::Ila => &ila::MODULES,
        Kit::Bare | Kit::Clients | Kit::Avahi | Kit::Socat | Kit::Iperf => &[],
    };
    for module in modules::in_order(&tree, &[&MODULES[..], more].concat())? {
        let name = module.file_name().and_then(|name| name.to_str()).context("a module without a name")?;
        archive.copy(&format!("lib/{name}"), &module)?;
        order.push_str(&format!("/lib/{name}\n"));
    }
    archive.file("etc/modules", 0o644, order.as_bytes());

    match kit {
        Kit::Bare => {}
        Kit::Clients => clients::add(&mut archive)?,
        Kit::Avahi => avahi::add(&mut archive)?,
        Kit::Socat => socat::add(&mut archive)?,
        Kit::Iperf => iperf::add(&mut archive)?,
        Kit::Routers => routers::add(&mut archive)?,
        Kit::Ila => ila::add(&mut archive)?,
    }
    let vmlinuz = kernel.file(&format!("boot/vmlinuz-{release}"))?;
    archive.copy("boot/vmlinuz", &vmlinuz)?;
    let image = Image { kernel: vmlinuz, initramfs: directory.join("initramfs.cpio") };
    fs::write(&image.initramfs, archive.finish())?;
    Ok(image)
}

/// The name of the only entry of a directory.
fn only_entry(directory: &Path) -> Result<String> {
    let entry = fs::read_dir(directory)?.next().context("an empty directory")??;
    entry.file_name().into_string().ok().context("a name that is not text")
}

/// The shared libraries of `program`, all of them from `set`, by asking the set's own loader.
fn libraries(set: &Set, program: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut loader = Command::new(set.file("lib64/ld-linux-x86-64.so.2")?);
    let search = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/systemd"];
    let search = search.map(|part| set.root().join(part));
    let search = search.map(|path| path.display().to_string()).join(":");
    loader.args(["--library-path", &search, "--list"]).arg(program);
    let listed = output(loader)?;
    let paths = listed.lines().filter_map(|line| line.split_once(" => ")?.1.split(' ').next());
    Ok(paths.filter(|path| path.contains(".so")).map(PathBuf::from).collect())
}
