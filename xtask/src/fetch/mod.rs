//! Brings foreign programs (QEMU, kernels, tshark, DPDK, Open vSwitch) without installing them.
//!
//! ```text
//! the host's apt configuration ──> target/tools/apt/{apt.conf,sources.list,lists,cache}   own state, own cache
//!                                        │ apt-get install --download-only, from an empty dpkg status
//!                                        v
//!                                  target/tools/SET/            dpkg-deb -x of every package of the closure
//!                                  target/tools/SET.stamp       what is in there; a match means nothing to do
//! ```
//!
//! What must stay true:
//! * Nothing is installed or started, and the host's apt state is only read; it works without root.
//! * A set is complete or absent: it is unpacked beside its place and renamed into it.
//! * Mirrors and proxies are the host's own. The repository names no host but `deb.debian.org`.

mod apt;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::workspace;

/// A directory under `target/tools` with programs that are used together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Set {
    /// QEMU 10 from bookworm-backports
    Qemu,
    /// QEMU 7.2 of Debian 12, for the one test that keeps it working
    Qemu72,
    /// The kernel of Debian 12 for clouds (6.1) with its modules
    Kernel,
    /// What a guest's initramfs is made of: busybox, tcpdump, kexec, ethtool
    Guest,
    /// What ordinary guests run: dhclient, systemd-networkd, dhcpcd, traceroute, mtr, iproute2
    Clients,
    /// What guests speak to many with: avahi-daemon, socat
    Avahi,
    /// What endpoints of the scenarios ask and answer with: socat
    Socat,
    /// What guests measure TCP with: iperf3
    Iperf,
    /// What router machines run: keepalived
    Keepalived,
    /// What sets up the Linux kernel's own ILA: iproute2
    Iproute,
    /// cloud-init with its python3
    CloudInit,
    /// What runs on the host: iproute2, ethtool, tshark, python3 with scapy
    Net,
    /// A resolver for the host's side: dnsmasq
    Resolver,
    /// A NAT64 of somebody else's: tayga
    Nat64,
    /// DPDK 22.11: dpdk-testpmd and its drivers
    Dpdk,
    /// Open vSwitch 3.1 over DPDK: its two daemons and what configures them
    Ovs,
    /// What makes a bare Debian
    Bare,
}

/// What `cargo xtask demo` and `test` need.
pub(crate) const END_TO_END: [Set; 5] = [Set::Qemu, Set::Qemu72, Set::Kernel, Set::Guest, Set::Net];

/// What apt is asked for, and which packages of the answer are unpacked.
struct Recipe {
    /// The directory's name under `target/tools`.
    directory: &'static str,
    /// The release the closure is resolved for.
    release: &'static str,
    packages: &'static [&'static str],
    /// Unpack only packages whose name starts so; empty for all of them.
    only: &'static str,
    /// Whether to unpack libc as well. Programs run by the host's loader need the host's libc; those that are packed
    /// into an initramfs bring both.
    libc: bool,
}

impl Recipe {
    fn unpacks(&self, package: &str) -> bool {
        package.starts_with(self.only) && (self.libc || package != "libc6")
    }
}

impl Set {
    fn recipe(self) -> Recipe {
        let (directory, release, packages, only): (_, _, &[&str], _) = match self {
            Set::Qemu => ("qemu", "bookworm-backports", &["qemu-system-x86"], ""),
            Set::Qemu72 => ("qemu72", "bookworm", &["qemu-system-x86"], ""),
            // The meta package drags in an initramfs builder, which is not wanted.
            Set::Kernel => ("kernel", "bookworm", &["linux-image-cloud-amd64"], "linux-image-"),
            Set::Guest => ("guest", "bookworm", &["busybox-static", "tcpdump", "kexec-tools", "ethtool"], ""),
            Set::Clients => (
                "clients",
                "bookworm",
                // The last four are what the clients' scripts are written for.
                &[
                    "isc-dhcp-client",
                    "systemd",
                    "dhcpcd-base",
                    "traceroute",
                    "mtr-tiny",
                    "iproute2",
                    "dash",
                    "debianutils",
                    "coreutils",
                    "libc-bin",
                ],
                "",
            ),
            Set::Avahi => ("avahi", "bookworm", &["avahi-daemon", "socat"], ""),
            Set::Socat => ("socat", "bookworm", &["socat"], ""),
            Set::Iperf => ("iperf", "bookworm", &["iperf3"], ""),
            Set::Keepalived => ("keepalived", "bookworm", &["keepalived"], ""),
            Set::Iproute => ("iproute", "bookworm", &["iproute2"], ""),
            Set::Net => (
                "net",
                "bookworm",
                &["iproute2", "ethtool", "kmod", "tshark", "python3", "python3-scapy"],
                "",
            ),
            Set::Resolver => ("resolver", "bookworm", &["dnsmasq-base"], ""),
            Set::Nat64 => ("nat64", "bookworm", &["tayga"], "tayga"),
            Set::CloudInit => ("cloud-init", "bookworm", &["cloud-init"], ""),
            Set::Dpdk => ("dpdk", "bookworm", &["dpdk-dev", "dpdk"], ""),
            // It works without any driver but the rings that its packets' memory is kept in.
            Set::Ovs => ("ovs", "bookworm", &["openvswitch-switch-dpdk", "librte-mempool-ring23"], ""),
            Set::Bare => ("bare", "bookworm", &["debootstrap"], ""),
        };
        Recipe {
            directory,
            release,
            packages,
            only,
            libc: matches!(
                self,
                Set::Guest
                    | Set::Clients
                    | Set::Avahi
                    | Set::Socat
                    | Set::Iperf
                    | Set::Keepalived
                    | Set::Iproute
            ),
        }
    }
}

/// Fetches `sets`, or [`END_TO_END`] when none is named.
///
/// # Errors
///
/// Fails when apt cannot reach its mirror, or a package is missing there.
pub(crate) fn run(sets: &[Set]) -> Result<()> {
    let sets = if sets.is_empty() { &END_TO_END } else { sets };
    sets.iter().try_for_each(|set| ensure(*set).map(drop))
}

/// The host's mirror of bookworm.
///
/// # Errors
///
/// Fails when there is no apt.
pub(crate) fn mirror() -> Result<String> {
    apt::mirror()
}

/// Makes sure that `set` is unpacked, and returns its directory.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn ensure(set: Set) -> Result<PathBuf> {
    let recipe = set.recipe();
    let tools = workspace::target().join("tools");
    let place = tools.join(recipe.directory);
    let stamp = tools.join(format!("{}.stamp", recipe.directory));
    let wanted =
        format!("recipe: {} {} {} {}\n", recipe.release, recipe.packages.join(" "), recipe.only, recipe.libc);
    if place.is_dir() && fs::read_to_string(&stamp).is_ok_and(|found| found.starts_with(&wanted)) {
        return Ok(place);
    }
    println!("fetch: {} ({} from {})", recipe.directory, recipe.packages.join(", "), recipe.release);
    let apt = apt::Apt::prepare(&tools.join("apt"))?;
    let packages = apt.download(recipe.release, recipe.packages)?;

    let unpacking = tools.join(format!("{}.unpacking", recipe.directory));
    if unpacking.exists() {
        fs::remove_dir_all(&unpacking).context("removing an interrupted unpacking")?;
    }
    fs::create_dir_all(&unpacking)?;
    let mut contents = wanted;
    for package in packages.iter().filter(|package| recipe.unpacks(&package.name)) {
        apt::unpack(&package.file, &unpacking)?;
        contents.push_str(&format!("{} {}\n", package.name, package.version));
    }
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::rename(&unpacking, &place)?;
    fs::write(&stamp, contents)?;
    Ok(place)
}
