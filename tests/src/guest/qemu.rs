//! QEMU's command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Accel, Spec};
use crate::namespace::Namespace;
use crate::tools::Set;

/// A port of the machine that a card can be put into while it runs, as `bus`.
pub const PORT: &str = "port0";

/// Which QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qemu {
    /// 10.0 of bookworm-backports.
    V10,
    /// 7.2 of Debian 12. Under emulation it crashes when a guest enables MSI-X on a vhost-user NIC, so it gets
    /// `vectors=0`.
    V7_2,
}

/// A guest's network card.
#[derive(Clone, Debug)]
pub enum Nic {
    /// virtio-net behind a vhost-user socket.
    VhostUser {
        /// The socket's path.
        socket: PathBuf,
        /// Whether QEMU listens and the daemon connects; else QEMU connects, again and again.
        listens: bool,
        /// The card's address.
        mac: String,
        /// The link's MTU in bytes, told to the guest by the device.
        mtu: u16,
        /// Queue pairs.
        queues: u16,
        /// More device properties, each beginning with a comma (`,mrg_rxbuf=off`).
        properties: String,
    },
    /// virtio-net on a tap interface that exists in the namespace: the harness without the daemon.
    Tap {
        /// Where the interface is.
        namespace: Namespace,
        /// The interface.
        interface: String,
        /// The card's address.
        mac: String,
        /// Whether the host's kernel serves it (`/dev/vhost-net`); else QEMU does.
        vhost_net: bool,
    },
}

/// QEMU's command line for `spec`: console to `console`, second serial port to the socket `agent`, QMP on the socket `controls`.
///
/// There is room for more memory (`slots`), and a port ([`PORT`]) for a card that comes and goes.
pub(super) fn command(spec: &Spec, console: &Path, agent: &Path, controls: &Path) -> Result<Command> {
    let set = Set::open(match spec.qemu {
        Qemu::V10 => "qemu",
        Qemu::V7_2 => "qemu72",
    })?;
    let tool = set.tool("qemu-system-x86_64")?;
    let cards = || spec.nic.iter().chain(&spec.second);
    let namespace = cards().find_map(|card| match card {
        Nic::Tap { namespace, .. } => Some(namespace),
        Nic::VhostUser { .. } => None,
    });
    let mut command = namespace.map_or_else(|| tool.command(), |namespace| namespace.tool(&tool));
    for firmware in ["qemu", "seabios"] {
        command.arg("-L").arg(set.file("share")?.join(firmware));
    }
    let (accel, cpu) = match spec.accel {
        Accel::Kvm => ("kvm", "host"),
        Accel::Tcg => ("tcg,thread=multi", "max"),
    };
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(["-machine", "q35,memory-backend=memory,hpet=off", "-accel", accel, "-cpu", cpu]);
    command.args([
        "-m",
        "256M,slots=4,maxmem=1G",
        "-object",
        "memory-backend-memfd,id=memory,size=256M,share=on",
    ]);
    command.arg("-kernel").arg(&spec.image.kernel).arg("-initrd").arg(&spec.image.initramfs);
    // A panic reboots at once; `quiet` would hide what a failing boot has to say, a full log costs a second. Bounce buffers would
    // take a quarter of the memory, only because more could be added above 4 GiB.
    command.args(["-append", "console=ttyS0 loglevel=4 panic=-1 swiotlb=noforce"]);
    command.arg("-serial").arg(format!("file:{}", console.display()));
    command.arg("-chardev").arg(format!("socket,id=agent,path={}", agent.display()));
    command.args(["-serial", "chardev:agent"]);
    command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", controls.display()));
    command.args(["-device", &format!("pcie-root-port,id={PORT}")]);
    for (number, nic) in cards().enumerate() {
        network_card(&mut command, number, nic, spec.qemu);
    }
    Ok(command)
}

fn network_card(command: &mut Command, number: usize, nic: &Nic, qemu: Qemu) {
    let device = format!("virtio-net-pci,netdev=net{number},romfile=");
    match nic {
        Nic::VhostUser { socket, listens, mac, mtu, queues, properties } => {
            let socket = socket.display();
            let side = match (listens, qemu) {
                (true, _) => "server=on,wait=off",
                (false, Qemu::V10) => "reconnect-ms=500",
                (false, Qemu::V7_2) => "reconnect=1",
            };
            let vectors = match (qemu, queues) {
                (Qemu::V7_2, _) => ",vectors=0".to_owned(),
                (Qemu::V10, 1) => String::new(),
                // One for each ring, the control queue and changes of the configuration.
                (Qemu::V10, queues) => format!(",mq=on,vectors={}", 2 * queues + 2),
            };
            command.args(["-chardev", &format!("socket,id=nic{number},path={socket},{side}")]);
            command
                .args(["-netdev", &format!("vhost-user,id=net{number},chardev=nic{number},queues={queues}")]);
            command.args(["-device", &format!("{device},mac={mac},host_mtu={mtu}{vectors}{properties}")]);
        }
        Nic::Tap { interface, mac, vhost_net, .. } => {
            let vhost = if *vhost_net { ",vhost=on" } else { "" };
            let tap = format!("tap,id=net{number},ifname={interface},script=no,downscript=no{vhost}");
            command.args(["-netdev", &tap]);
            command.args(["-device", &format!("{device},mac={mac}")]);
        }
    }
}
