//! `qemu-args`: what to paste so that a virtual machine gets an attachment's NIC.
//!
//! What must stay true: each form names the same MAC, MTU and socket as the daemon serves, and shares the guest's memory, without which
//! a vhost-user device cannot reach it. Config refuses names and paths that would need quoting in any of the three.

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use nve_core::pipeline::Nve;

use crate::authority::StaticFile;
use crate::config::{DeviceConfig, SocketMode, nearest};

/// `qemu-args ...`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The attachment, as the config names it
    name: String,
    /// Print one form, without comments
    #[arg(long, value_enum)]
    only: Option<Form>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Form {
    /// QEMU command line arguments
    Qemu,
    /// cloud-hypervisor command line arguments
    CloudHypervisor,
    /// libvirt domain XML elements
    Libvirt,
}

/// Runs the command; the text to paste.
///
/// # Errors
/// The config is refused, or has no such attachment.
pub fn run(args: Args, config: &StaticFile) -> Result<String> {
    let config = config.read()?;
    let Some(device) = config.devices.iter().find(|device| device.name == args.name) else {
        let names = config.devices.iter().map(|device| device.name.as_str());
        let remedy = match nearest::of(&args.name, names.clone()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are: {}", names.collect::<Vec<_>>().join(", ")),
        };
        return Err(anyhow!("there is no attachment {}; {remedy}", args.name));
    };
    // The core says what the guest is told; an NVE that serves nobody is enough to ask.
    let nve = Nve::new(config.setup, 0);
    let mtu = nve.port(&device.name).map_or(0, |port| nve.mtu(port));
    let mac = device.mac.map(|byte| format!("{byte:02x}")).join(":");
    let nic = Nic { device, mac, mtu };
    Ok(match args.only {
        Some(Form::Qemu) => nic.qemu(),
        Some(Form::CloudHypervisor) => nic.cloud_hypervisor(),
        Some(Form::Libvirt) => nic.libvirt(),
        None => format!(
            "# QEMU (7.2 under TCG: also vectors=0 on the device; from 9.2 reconnect-ms=1000 replaces reconnect=1)\n{}\n\
             # cloud-hypervisor\n{}\n\
             # libvirt: memoryBacking in <domain>, interface in <devices>\n{}{}",
            nic.qemu(),
            nic.cloud_hypervisor(),
            nic.libvirt(),
            nic.more_pairs()
        ),
    })
}

/// What a virtual machine monitor is told.
struct Nic<'a> {
    device: &'a DeviceConfig,
    mac: String,
    /// Bytes of the largest IP packet of the guest.
    mtu: u16,
}

impl Nic<'_> {
    fn qemu(&self) -> String {
        let Self { device: DeviceConfig { name, socket, mode, offer, .. }, mac, mtu } = self;
        let packed = if offer.packed_rings() { ",packed=on" } else { "" };
        let role = match mode {
            SocketMode::Server => "reconnect=1",
            SocketMode::Client => "server=on,wait=off",
        };
        format!(
            "-m 1G -object memory-backend-memfd,id=mem0,size=1G,share=on -machine memory-backend=mem0 \\\n\
             -chardev socket,id=chr-{name},path={},{role} \\\n\
             -netdev vhost-user,id=net-{name},chardev=chr-{name} \\\n\
             -device virtio-net-pci,netdev=net-{name},mac={mac},host_mtu={mtu}{packed}\n",
            socket.display()
        )
    }

    fn cloud_hypervisor(&self) -> String {
        let Self { device: DeviceConfig { socket, mode, .. }, mac, mtu } = self;
        let role = match mode {
            SocketMode::Server => "client",
            SocketMode::Client => "server",
        };
        format!(
            "--memory size=1G,shared=on \\\n\
             --net vhost_user=true,socket={},vhost_mode={role},mac={mac},mtu={mtu}\n",
            socket.display()
        )
    }

    /// How to have more than one queue pair, where they are offered.
    fn more_pairs(&self) -> String {
        let pairs = self.device.offer.pairs();
        if pairs == 1 {
            return String::new();
        }
        format!(
            "\n# N queue pairs, up to {pairs}: QEMU: queues=N on the netdev, mq=on,vectors=2N+2 on the device;\n\
             # cloud-hypervisor, N up to {}: num_queues=2N; libvirt: <driver queues='N'/> in <interface>\n",
            pairs / 2
        )
    }

    fn libvirt(&self) -> String {
        let Self { device: DeviceConfig { socket, mode, offer, .. }, mac, mtu } = self;
        let packed = if offer.packed_rings() { "  <driver packed='on'/>\n" } else { "" };
        let source = match mode {
            SocketMode::Server => format!(
                "  <source type='unix' path='{}' mode='client'>\n    \
                 <reconnect enabled='yes' timeout='1'/>\n  </source>\n",
                socket.display()
            ),
            SocketMode::Client => {
                format!("  <source type='unix' path='{}' mode='server'/>\n", socket.display())
            }
        };
        format!(
            "<memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>\n\
             <interface type='vhostuser'>\n  <mac address='{mac}'/>\n{source}  \
             <model type='virtio'/>\n{packed}  <mtu size='{mtu}'/>\n</interface>\n"
        )
    }
}
