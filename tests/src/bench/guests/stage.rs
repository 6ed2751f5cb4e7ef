//! Three guests on two hosts, each with a card behind this program and one in its host's bridge.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use std::fs;

use crate::fabric::Host;
use crate::guest::{Accel, Guest, Nic};
use crate::initramfs::{self, Kit};
use crate::sandbox;
use crate::site::{Plan, Site, VM1, VM2, Vm, address};

/// The machines: the first two on one host, the third on the other.
const MACHINES: [Vm; 3] = [
    VM1,
    Vm { name: "vm3", mac: "52:54:00:00:00:03", ipv4: "10.1.0.3", ipv6: "2001:db8:b1:e::3", ..VM1 },
    VM2,
];

/// Who carries the packets between guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// This program.
    Us = 0,
    /// Linux's bridge, and its VXLAN between hosts.
    Linux = 1,
}

/// A tenant's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// From the first machine to one on the same host, or on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    Neighbour,
    OtherHost,
}

impl To {
    fn index(self) -> usize {
        match self {
            To::Neighbour => 1,
            To::OtherHost => 2,
        }
    }

    /// What Linux carries on such a way: a card's 1500 bytes, and what VXLAN over IPv6 leaves of those.
    fn linux_mtu(self) -> u16 {
        match self {
            To::Neighbour => 1500,
            To::OtherHost => 1430,
        }
    }
}

/// All that is measured on.
pub(super) struct Stage {
    site: Site,
    guests: Vec<Guest>,
    /// How the guests run.
    pub(super) accel: Accel,
}

impl Stage {
    /// Boots everything; every way carries packets when this returns.
    pub(super) fn start(name: &str) -> Result<Stage> {
        let site = Site::start(name, Plan { kit: Kit::Iperf, ..Plan::of(&MACHINES) })?;
        let [one, two] = &site.fabric.hosts[..] else { anyhow::bail!("two hosts") };
        bridge(one, two)?;
        bridge(two, one)?;
        let image = initramfs::make_with(Path::new(sandbox::RUNTIME), Kit::Iperf)?;
        let accel = Accel::choose(&image)?;
        let boot = |vm: &Vm| -> Result<Guest> {
            let host = &site.fabric.hosts[vm.host];
            let interface = format!("tap-{}", vm.name);
            host.namespace.ip(&format!("tuntap add {interface} mode tap"))?;
            host.namespace.ip(&format!("link set {interface} up master br0"))?;
            let mac = vm.mac.replace("52:54:00:00", "52:54:00:01");
            let (namespace, vhost_net) = (host.namespace.clone(), has_vhost_net());
            let card = Nic::Tap { namespace, interface, mac, vhost_net };
            let spec = site.spec(vm, vm.name, &image, accel)?;
            Guest::start(&crate::guest::Spec { second: Some(card), ..spec }, &site.evidence)
        };
        let mut guests = MACHINES.iter().map(boot).collect::<Result<Vec<_>>>()?;
        for (number, (vm, guest)) in (1..).zip(MACHINES.iter().zip(&mut guests)) {
            guest.wait_until_ready(Duration::from_secs(90))?;
            address(vm, guest)?;
            guest.run("echo 0 >/proc/sys/net/ipv6/conf/eth1/accept_dad; ip link set eth1 up")?;
            guest.run(&format!("ip addr add 10.9.0.{number}/24 dev eth1"))?;
            guest.run(&format!("ip -6 addr add 2001:db8:b9::{number}/64 dev eth1"))?;
            guest.run("iperf3 -s -D")?;
        }
        let mut stage = Stage { site, guests, accel };
        for to in [To::Neighbour, To::OtherHost] {
            for family in [Family::V4, Family::V6] {
                for by in [By::Us, By::Linux] {
                    let target = stage.target(by, to, family)?;
                    let said = stage.sender().run(&format!("ping -c 3 -i 0.2 {target}"))?;
                    ensure!(said.contains(" 0% packet loss"), "{by:?}, {to:?}: {said}");
                }
            }
        }
        Ok(stage)
    }

    /// Who measures.
    pub(super) fn sender(&mut self) -> &mut Guest {
        &mut self.guests[0]
    }

    /// The address at which the other end is reached by `by`, whose link has its MTU from now on.
    pub(super) fn target(&mut self, by: By, to: To, family: Family) -> Result<String> {
        let index = to.index();
        if by == By::Linux {
            for guest in [0, index] {
                self.guests[guest].run(&format!("ip link set eth1 mtu {}", to.linux_mtu()))?;
            }
        }
        let machine = &MACHINES[index];
        Ok(match (by, family) {
            (By::Us, Family::V4) => machine.ipv4.to_owned(),
            (By::Us, Family::V6) => machine.ipv6.to_owned(),
            (By::Linux, Family::V4) => format!("10.9.0.{}", index + 1),
            (By::Linux, Family::V6) => format!("2001:db8:b9::{}", index + 1),
        })
    }

    /// Starts the daemons again with another `spin`; the guests' QEMUs come back to them by themselves.
    pub(super) fn spin(&mut self, spin: &str) -> Result<()> {
        for host in 0..self.site.daemons.len() {
            let file = self.site.config(host);
            let text = fs::read_to_string(&file)?;
            fs::write(&file, text.replacen("[host]\n", &format!("[host]\nspin = \"{spin}\"\n"), 1))?;
            self.site.daemons[host].terminate()?;
            self.site.daemons[host].restart()?;
        }
        for to in [To::Neighbour, To::OtherHost] {
            let target = self.target(By::Us, to, Family::V4)?;
            let wait = format!("for i in $(seq 100); do ping -c 1 -W 1 {target} && exit 0; done; exit 1");
            self.sender().run_within(&wait, Duration::from_secs(120)).context("the daemons are back")?;
        }
        Ok(())
    }

    /// Ends all of it, so that there may be another.
    ///
    /// # Errors
    ///
    /// Fails when a daemon is gone.
    pub(super) fn end(mut self) -> Result<()> {
        self.site.daemons_must_run()?;
        let fabric = self.site.fabric.clone();
        drop(self);
        fabric.hosts.iter().try_for_each(|host| host.namespace.delete())?;
        fabric.router.delete()
    }
}

/// Whether the machine's kernel can serve the taps.
pub(super) fn has_vhost_net() -> bool {
    Path::new("/dev/vhost-net").exists()
}

/// A bridge on `host`, and a tunnel from it to that of `other`.
fn bridge(host: &Host, other: &Host) -> Result<()> {
    let (from, to) = (host.underlay(), other.underlay());
    host.namespace.ip("link add br0 type bridge")?;
    host.namespace.ip("link set br0 up")?;
    host.namespace
        .ip(&format!("link add vxlan0 type vxlan id 9 local {from} remote {to} dstport 4789 dev fabric0"))?;
    host.namespace.ip("link set vxlan0 up master br0").map(drop)
}
