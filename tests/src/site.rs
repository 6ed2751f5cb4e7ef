//! A site: a fabric, hosts with a daemon each (two where a test names no others), and guests attached to them.
//!
//! ```text
//! Plan (networks, guests, mode) ──> Site::start: fabric, host.toml of each host, daemons ──> Site::boot: guests, addressed
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::capture::Running;
use crate::daemon::{Daemon, runtime};
use crate::fabric::{Fabric, Host, SIR, TUN, TWO};
use crate::guest::{Accel, Guest, Nic, Qemu, Spec};
use crate::initramfs::{self, Image, Kit};
use crate::process::wait_for;
use crate::sandbox;
use crate::testpmd::{self, Pages, Testpmd};

/// The MTU of the fabric's links, in bytes.
pub const UPLINK_MTU: u16 = 1500;

/// What a guest's link carries when its network has IPv4: an IPv6 header is 20 bytes longer than one of IPv4.
pub const LINK_MTU: u16 = UPLINK_MTU - 20;

/// A virtual network.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its virtual network identifier, 28 bits.
    pub vni: u32,
    /// Its IPv4 prefix.
    pub ipv4: &'static str,
    /// Its VNET, a /96.
    pub ipv6: &'static str,
}

/// The network of the demo.
pub const BLUE: Network =
    Network { name: "blue", vni: 1001, ipv4: "10.1.0.0/16", ipv6: "2001:db8:b1:e::/96" };

/// A second tenant: the same IPv4 addresses, and the neighbouring /96.
pub const RED: Network =
    Network { name: "red", vni: 1002, ipv4: "10.1.0.0/16", ipv6: "2001:db8:b1:e:0:1::/96" };

/// A virtual machine: a NIC of a tenant system.
#[derive(Clone, Copy, Debug)]
pub struct Vm {
    /// Its name, also that of its attachment.
    pub name: &'static str,
    /// The index of its host.
    pub host: usize,
    /// Its network.
    pub network: Network,
    /// Its NIC's address.
    pub mac: &'static str,
    /// Its IPv4 address.
    pub ipv4: &'static str,
    /// Its IPv6 address.
    pub ipv6: &'static str,
    /// More addresses, of both families, that nobody configures by himself.
    pub more: &'static [&'static str],
}

impl Vm {
    /// All its addresses.
    pub fn addresses(&self) -> Vec<&'static str> {
        [self.ipv4, self.ipv6].into_iter().chain(self.more.iter().copied()).collect()
    }
}

/// The demo's guest on hv1.
pub const VM1: Vm = Vm {
    name: "vm1",
    host: 0,
    network: BLUE,
    mac: "52:54:00:00:00:01",
    ipv4: "10.1.0.1",
    ipv6: "2001:db8:b1:e::1",
    more: &[],
};

/// The demo's guest on hv2.
pub const VM2: Vm = Vm {
    name: "vm2",
    host: 1,
    network: BLUE,
    mac: "52:54:00:00:00:02",
    ipv4: "10.1.0.2",
    ipv6: "2001:db8:b1:e::2",
    more: &[],
};

/// How checksums stay right when a destination becomes an ILA address (draft, section 4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Checksum-neutral mapping: the C bit and an adjustment.
    #[default]
    Neutral,
    /// No adjustment: checksums on the wire are those of the endpoints' addresses.
    Unmodified,
}

impl Checksum {
    /// The word of the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Checksum::Neutral => "neutral",
            Checksum::Unmodified => "unmodified",
        }
    }
}

/// A SIR domain beside the hosts' own, the first after it.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its SIR prefix.
    pub sir: &'static str,
    /// The names of its networks.
    pub networks: &'static [&'static str],
}

impl Domain {
    /// Its number: the hosts' own has none, and counts as zero.
    pub const NUMBER: u8 = 1;
}

/// What an attachment may use beside its addresses (docs/configuration.md).
#[derive(Clone, Copy, Debug, Default)]
pub struct Lent {
    /// Prefixes behind it.
    pub prefixes: &'static [&'static str],
    /// Addresses that it may hold in turn with others of its host.
    pub shared: &'static [&'static str],
    /// Virtual MAC addresses.
    pub macs: &'static [&'static str],
}

/// What a site is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All virtual machines, of all networks.
    pub vms: Vec<Vm>,
    /// A domain of some of the networks.
    pub domain: Option<Domain>,
    /// The names of the hosts.
    pub hosts: Vec<&'static str>,
    /// The index of the host that the SIR prefix and the networks' IPv6 prefixes are routed to.
    pub anycast: usize,
    /// More of the configurations of the hosts: the index of a host, and text that follows what else is there.
    pub host_text: Vec<(usize, String)>,
    /// The indices of hosts that know no mapping and ask a router.
    pub asking_the_router: Vec<usize>,
    /// The mode of all hosts.
    pub checksum: Checksum,
    /// Whether the daemons connect to sockets that QEMU listens on; else they listen.
    pub daemons_connect: bool,
    /// The QEMU of all guests.
    pub qemu: Qemu,
    /// Device properties of the NICs of some machines, by name; each property begins with a comma.
    pub nic_properties: Vec<(&'static str, String)>,
    /// Queue pairs of the NICs of some machines, by name; one of the others.
    pub queues: Vec<(&'static str, u16)>,
    /// More keys of the attachments of some machines, by name; each a line of the configuration.
    pub attachment_keys: Vec<(&'static str, String)>,
    /// More keys of some networks, by name; each a line of the configuration of both hosts.
    pub network_keys: Vec<(&'static str, String)>,
    /// What some machines may use beside their addresses, by name; the other host has mappings of it.
    pub lent: Vec<(&'static str, Lent)>,
    /// The indices of hosts whose uplink is of kind vhost-user: a testpmd joins it to their link to the fabric.
    pub by_rings: Vec<usize>,
    /// What all guests have.
    pub kit: Kit,
    /// Workers of each daemon.
    pub workers: u16,
}

impl Plan {
    /// One network with these machines, neutral mode, daemons listening, QEMU 10.
    pub fn of(vms: &[Vm]) -> Plan {
        Plan {
            vms: vms.to_vec(),
            domain: None,
            hosts: TWO.to_vec(),
            anycast: 0,
            host_text: Vec::new(),
            asking_the_router: Vec::new(),
            checksum: Checksum::Neutral,
            daemons_connect: false,
            qemu: Qemu::V10,
            nic_properties: Vec::new(),
            queues: Vec::new(),
            attachment_keys: Vec::new(),
            network_keys: Vec::new(),
            lent: Vec::new(),
            by_rings: Vec::new(),
            kit: Kit::Bare,
            workers: 1,
        }
    }

    /// The same, and every machine is offered packed rings as well: its driver chooses.
    #[must_use]
    pub fn offering_packed_rings(mut self) -> Plan {
        self.attachment_keys.extend(self.vms.iter().map(|vm| (vm.name, "packed = true".to_owned())));
        self
    }

    fn networks(&self) -> Vec<Network> {
        let mut networks: Vec<Network> = Vec::new();
        for vm in &self.vms {
            if networks.iter().all(|network| network.name != vm.network.name) {
                networks.push(vm.network);
            }
        }
        networks
    }

    fn properties(&self, vm: &str) -> String {
        let of_vm = self.nic_properties.iter().filter(|(name, _)| *name == vm);
        of_vm.map(|(_, properties)| properties.as_str()).collect()
    }

    fn lent_to(&self, vm: &str) -> Lent {
        self.lent.iter().find(|(name, _)| *name == vm).map_or(Lent::default(), |(_, lent)| *lent)
    }

    fn queues_of(&self, vm: &str) -> u16 {
        self.queues.iter().find(|(name, _)| *name == vm).map_or(1, |(_, queues)| *queues)
    }

    fn vnets(&self) -> Vec<String> {
        self.networks().iter().map(|network| network.ipv6.to_owned()).collect()
    }

    /// The domain of the network of this name, if it is not the hosts' own.
    pub fn domain_of(&self, network: &str) -> Option<Domain> {
        self.domain.filter(|domain| domain.networks.contains(&network))
    }

    /// The text of `host.toml` for the host of index `host`.
    fn host_toml(&self, fabric: &Fabric, host: usize) -> String {
        let at = |index: usize| fabric.hosts[index].locator();
        let checksum = self.checksum.word();
        let mode = if self.daemons_connect { "client" } else { "server" };
        let asks = self.asking_the_router.contains(&host);
        let unknown = if asks { "router" } else { "unreachable" };
        let uplink = if self.by_rings.contains(&host) {
            format!("kind = \"vhost-user\"\nnext_hop = \"{}\"", fabric.hosts[host].gateway())
        } else {
            format!("kind = \"tun\"\nname = \"{TUN}\"")
        };
        let mut text = format!(
            "[host]\nname = \"{}\"\nlocator = \"{}\"\nsir = \"{SIR}\"\nchecksum = \"{checksum}\"\n\
             unknown = \"{unknown}\"\nruntime = \"{}\"\nworkers = {}\n\n\
             [uplink]\n{uplink}\nmtu = {UPLINK_MTU}\n",
            fabric.hosts[host].name,
            at(host),
            runtime(&fabric.hosts[host]).display(),
            self.workers,
        );
        if let Some(Domain { name, sir, .. }) = self.domain {
            let locator = fabric.hosts[host].locator_in(Domain::NUMBER);
            text += &format!("\n[domain.{name}]\nsir = \"{sir}\"\nlocator = \"{locator}\"\n");
        }
        for Network { name, vni, ipv4, ipv6 } in self.networks() {
            text += &format!("\n[network.{name}]\nvni = {vni}\nipv4 = \"{ipv4}\"\nipv6 = \"{ipv6}\"\n");
            if let Some(domain) = self.domain_of(name) {
                text += &format!("sir_domain = \"{}\"\n", domain.name);
            }
            for (_, key) in self.network_keys.iter().filter(|(network, _)| *network == name) {
                text += &format!("{key}\n");
            }
        }
        for vm in &self.vms {
            let Vm { name, network, mac, .. } = vm;
            let network = network.name;
            let addresses = vm.addresses();
            let Lent { prefixes, shared, macs } = self.lent_to(name);
            if vm.host == host {
                text += &format!(
                    "\n[attachment.{name}]\nnetwork = \"{network}\"\nkind = \"vhost-user\"\n\
                     socket = \"{name}.sock\"\nmode = \"{mode}\"\nmac = \"{mac}\"\naddresses = {addresses:?}\n\
                     prefixes = {prefixes:?}\nshared = {shared:?}\nmacs = {macs:?}\n"
                );
                for (_, key) in self.attachment_keys.iter().filter(|(vm, _)| vm == name) {
                    text += &format!("{key}\n");
                }
                continue;
            }
            if asks {
                continue;
            }
            let locator = match self.domain_of(network) {
                Some(_) => fabric.hosts[vm.host].locator_in(Domain::NUMBER),
                None => at(vm.host),
            };
            for address in addresses.iter().chain(prefixes).chain(shared) {
                // Those who share an address share its mapping.
                let address = format!("network = \"{network}\"\naddress = \"{address}\"\n");
                if !text.contains(&address) {
                    text += &format!("\n[[mapping]]\n{address}locator = \"{locator}\"\n");
                }
            }
        }
        let more = self.host_text.iter().filter(|(index, _)| *index == host);
        text + &more.map(|(_, more)| format!("\n{more}")).collect::<String>()
    }
}

/// A running site. Everything in it ends when it is dropped.
pub struct Site {
    /// Where logs and captures go.
    pub evidence: PathBuf,
    /// The hosts and the router.
    pub fabric: Fabric,
    /// The daemons, one a host.
    pub daemons: Vec<Daemon>,
    /// What joins uplinks of kind vhost-user to their links.
    wires: Vec<Testpmd>,
    plan: Plan,
}

impl Site {
    /// Builds the fabric and starts the daemons; evidence goes to `target/NAME`.
    ///
    /// # Errors
    ///
    /// Fails outside a sandbox, and when something does not come up.
    pub fn start(name: &str, plan: Plan) -> Result<Site> {
        sandbox::entered()?;
        let evidence = sandbox::evidence(name)?;
        let vnets = plan.vnets();
        let fabric = Fabric::of(&plan.hosts, plan.anycast, &vnets)?;
        if let Some(Domain { sir, .. }) = plan.domain {
            fabric.add_domain(Domain::NUMBER, sir, plan.anycast)?;
        }
        let daemon = |index: usize| -> Result<Daemon> {
            let host = &fabric.hosts[index];
            let config = config(&evidence, host);
            fs::write(&config, plan.host_toml(&fabric, index))?;
            let mut to_tun = vnets.clone();
            to_tun.extend(plan.domain.map(|domain| domain.sir.to_owned()));
            to_tun.extend(plan.domain.map(|_| host.locator_in(Domain::NUMBER)));
            let to_tun = (!plan.by_rings.contains(&index)).then_some(&to_tun[..]);
            Daemon::start_with(host, to_tun, &config, &evidence)
        };
        let daemons: Vec<Daemon> = (0..fabric.hosts.len()).map(daemon).collect::<Result<_>>()?;
        let wire = |index: &usize| join(&fabric, *index, &daemons[*index], &evidence);
        let wires = plan.by_rings.iter().map(wire).collect::<Result<_>>()?;
        Ok(Site { evidence, fabric, daemons, wires, plan })
    }

    /// Boots all guests at once and gives them their addresses: IPv4 by DHCP, IPv6 by the kernel's own means.
    ///
    /// # Errors
    ///
    /// Fails when a guest does not come up or gets no addresses.
    pub fn boot(&self) -> Result<Vec<Guest>> {
        let mut guests = self.power_on()?;
        for (vm, guest) in self.plan.vms.iter().zip(&mut guests) {
            address(vm, guest)?;
        }
        Ok(guests)
    }

    /// Boots all guests at once and leaves their links without addresses.
    ///
    /// # Errors
    ///
    /// Fails when a guest does not come up.
    pub fn power_on(&self) -> Result<Vec<Guest>> {
        self.power_on_only(&self.plan.vms)
    }

    /// As [`Site::power_on`], of these machines; the others may be front-ends of another kind.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn power_on_only(&self, vms: &[Vm]) -> Result<Vec<Guest>> {
        let mut guests = self.switch_on(vms)?;
        for guest in &mut guests {
            guest.wait_until_ready(Duration::from_secs(90))?;
        }
        Ok(guests)
    }

    /// As [`Site::power_on_only`], without waiting for them.
    ///
    /// # Errors
    ///
    /// Fails when a QEMU ends at once.
    pub fn switch_on(&self, vms: &[Vm]) -> Result<Vec<Guest>> {
        // Not evidence, and large.
        let image = initramfs::make_with(Path::new(sandbox::RUNTIME), self.plan.kit)?;
        let accel = Accel::choose(&image)?;
        let start = |vm| self.power_on_one(vm, &image, accel);
        vms.iter().map(start).collect()
    }

    fn power_on_one(&self, vm: &Vm, image: &Image, accel: Accel) -> Result<Guest> {
        Guest::start(&self.spec(vm, vm.name, image, accel)?, &self.evidence)
    }

    /// What the machine of `vm` is made of, called `name`.
    ///
    /// # Errors
    ///
    /// Fails when its host's daemon does not listen for it.
    pub fn spec(&self, vm: &Vm, name: &str, image: &Image, accel: Accel) -> Result<Spec> {
        let socket = self.socket(vm);
        if !self.plan.daemons_connect {
            wait_for(&format!("{}", socket.display()), Duration::from_secs(10), || {
                Ok(socket.exists().then_some(()))
            })?;
        }
        let nic = Nic::VhostUser {
            socket,
            listens: self.plan.daemons_connect,
            mac: vm.mac.to_owned(),
            mtu: LINK_MTU,
            queues: self.plan.queues_of(vm.name),
            properties: self.plan.properties(vm.name),
        };
        let (image, qemu) = (image.clone(), self.plan.qemu);
        Ok(Spec { name: name.to_owned(), image, qemu, accel, nic: Some(nic), second: None })
    }

    /// A second machine for `vm`, called `name`, that stands still: it waits for a migration from `uri`, and goes on when it is told.
    ///
    /// # Errors
    ///
    /// Fails when QEMU does not start, or finds nobody at the socket of `vm`'s NIC.
    pub fn awaiting_migration(&self, vm: &Vm, name: &str, uri: &str) -> Result<Guest> {
        let image = initramfs::make_with(Path::new(sandbox::RUNTIME), self.plan.kit)?;
        let spec = self.spec(vm, name, &image, Accel::choose(&image)?)?;
        Guest::start_with(&spec, &["-S", "-incoming", uri], &self.evidence)
    }

    /// Has the daemon of the host of index `host` run what `plan` says: its attachments and mappings, nothing else of it.
    ///
    /// # Errors
    ///
    /// Fails when the daemon refuses.
    pub fn reconfigure(&self, host: usize, plan: &Plan) -> Result<()> {
        fs::write(self.config(host), plan.host_toml(&self.fabric, host))?;
        self.daemons[host].reload()
    }

    /// What it is made of.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The vhost-user socket of `vm`'s NIC.
    pub fn socket(&self, vm: &Vm) -> PathBuf {
        runtime(&self.fabric.hosts[vm.host]).join(format!("{}.sock", vm.name))
    }

    /// The config of the host of index `host`.
    pub fn config(&self, host: usize) -> PathBuf {
        config(&self.evidence, &self.fabric.hosts[host])
    }

    /// Captures all of the router's links into `fabric.pcapng`.
    ///
    /// # Errors
    ///
    /// Fails when dumpcap does.
    pub fn capture(&self) -> Result<Running> {
        Running::start(&self.fabric.router, &self.plan.hosts, &self.evidence.join("fabric.pcapng"))
    }

    /// Fails when a daemon is gone.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn daemons_must_run(&mut self) -> Result<()> {
        self.wires.iter_mut().try_for_each(Testpmd::must_run)?;
        self.daemons.iter_mut().try_for_each(Daemon::must_run)
    }
}

/// Joins the uplink of the host of index `index`, of kind vhost-user, to its link to the fabric by a testpmd that copies frames between the two, and
/// has the router send there what is for the locator.
fn join(fabric: &Fabric, index: usize, daemon: &Daemon, evidence: &Path) -> Result<Testpmd> {
    let host = &fabric.hosts[index];
    let uplink = daemon.show("uplink")?;
    let said = |key: &str| uplink[key].as_str().with_context(|| format!("`show uplink` says {key}"));
    let route = format!("-6 route replace {} via {} dev {}", host.locator(), said("link_local")?, host.name);
    fabric.router.ip(&route)?;
    let mut command = testpmd::command_in(&host.namespace, &host.name, Pages::Ordinary(256), "0@1,1@1")?;
    command.arg("--vdev").arg(format!("net_virtio_user0,path={}", said("socket")?));
    command.args(["--vdev", "net_af_packet0,iface=fabric0", "--", "-i", "--auto-start", "--forward-mode=io"]);
    command.args(["--nb-cores=1", "--total-num-mbufs=20000", "--no-mlockall"]);
    let mut testpmd = Testpmd::start(command, &evidence.join(format!("{}-testpmd.log", host.name)))?;
    wait_for("testpmd to attach to the uplink", Duration::from_secs(30), || {
        testpmd.must_run()?;
        let rings = daemon.show("uplink")?["device"]["rings"].clone();
        Ok((rings[0]["running"] == true && rings[1]["running"] == true).then_some(()))
    })?;
    Ok(testpmd)
}

fn config(evidence: &Path, host: &Host) -> PathBuf {
    evidence.join(format!("{}.toml", host.name))
}

/// Gives `guest` the addresses of `vm`: IPv4 by DHCP; a static IPv6 address, whose default route comes by router
/// advertisement.
///
/// # Errors
///
/// Fails when DHCP gives another address, no router is advertised, or the address is a duplicate.
pub fn address(vm: &Vm, guest: &mut Guest) -> Result<()> {
    let lease = guest.run("udhcpc -i eth0 -f -q -n -t 20 -T 1 -O mtu -O staticroutes -s /etc/udhcpc.sh")?;
    ensure!(lease.contains(&format!("dhcp: ip={} ", vm.ipv4)), "{}: DHCP gave\n{lease}", vm.name);
    guest.run(&format!("ip -6 addr add {}/128 dev eth0", vm.ipv6))?;
    let route = guest.try_run(
        "for i in $(seq 150); do ip -6 route | grep -q '^default' && exit 0; sleep 0.1; done; ip -6 addr; ip -6 route; exit 1",
        Duration::from_secs(40),
    )?;
    ensure!(route.status == 0, "{}: no router was advertised\n{}", vm.name, route.output);
    guest
        .run("while ip -6 addr show dev eth0 | grep -q tentative; do sleep 0.1; done; ! ip -6 addr show dev eth0 | grep dadfailed")
        .with_context(|| format!("{}: duplicate address detection", vm.name))
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_each_network_once() {
        let plan = Plan::of(&[VM1, VM2, Vm { network: RED, ..VM1 }]);
        assert_eq!(plan.vnets(), [BLUE.ipv6, RED.ipv6]);
    }
}
