//! What a world is made of: networks, hosts and guests, and the [`Setup`] each host's NVE gets from it.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashSet;

use smoltcp::wire::{EthernetAddress, IpCidr};

use super::fabric::Link;
use super::guest::{Lent, Sends};
use super::world::World;
use crate::addr::{ChecksumMode, Locator, PeerChecksum, SirPrefix, Vnid};
use crate::pipeline::Receiver;
use crate::policy::TASK_MAC;
use crate::setup::{
    self, Alias, Attachment, Crossing, Instance, Listener, Mapping, Moves, Multicast, Network, Peer, Route,
    Setup, Task, TaskMapping, Unknown,
};

/// How a guest gets its addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Configured {
    /// IPv4 statically with its network's prefix; IPv6 as one address behind the router, as DHCPv6 would give it.
    Statically,
    /// The same, but its whole /96 is on the link, so that neighbours are asked for one by one.
    OnLink,
    /// IPv4 by smoltcp's DHCP client; IPv6 as [`Configured::Statically`].
    ByDhcp,
    /// No stack at all: frames are made by hand and looked at.
    ByHand,
}

/// A guest to be.
#[derive(Clone, Debug)]
pub struct GuestPlan {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) network: String,
    pub(super) mac: EthernetAddress,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) macs: Vec<EthernetAddress>,
    pub(super) prefixes: Vec<IpCidr>,
    pub(super) shared: Vec<IpAddr>,
    pub(super) answers: Vec<IpAddr>,
    pub(super) configured: Configured,
    pub(super) sends: Sends,
    pub(super) receives: Receiver,
}

impl GuestPlan {
    /// A guest with a static configuration that offloads nothing. Its MAC is made of its place in the plan.
    ///
    /// # Panics
    /// If an address is none.
    pub fn new(name: &str, host: &str, network: &str, addresses: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            host: host.to_owned(),
            network: network.to_owned(),
            mac: EthernetAddress([0; 6]),
            addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
            macs: Vec::new(),
            prefixes: Vec::new(),
            shared: Vec::new(),
            answers: Vec::new(),
            configured: Configured::Statically,
            sends: Sends::Plain,
            receives: Receiver { up: true, ..Receiver::default() },
        }
    }
    /// A task: it has no network and no stack unless asked for; what it sends and gets is looked at.
    ///
    /// # Panics
    /// If an address is none.
    pub fn task(name: &str, host: &str, addresses: &[&str]) -> Self {
        Self::new(name, host, "", addresses).by_hand()
    }
    /// Has a stack after all.
    pub fn with_stack(self) -> Self {
        Self { configured: Configured::Statically, ..self }
    }
    fn is_task(&self) -> bool {
        self.network.is_empty()
    }
    /// Its addresses as a task's.
    fn task_addresses(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.addresses.iter().filter_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        })
    }
    /// Has these prefixes behind it.
    ///
    /// # Panics
    /// If one of them is none.
    pub fn before(mut self, prefixes: &[&str]) -> Self {
        self.prefixes = prefixes.iter().map(|text| text.parse().expect("a prefix")).collect();
        self
    }
    /// Its stack has these addresses too: of a prefix behind it, or shared.
    ///
    /// # Panics
    /// If one of them is none.
    pub fn answering(mut self, addresses: &[&str]) -> Self {
        self.answers = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        self
    }
    /// May hold these addresses in turn with others, under its own MAC or one of `macs`.
    ///
    /// # Panics
    /// If one of them is none.
    pub fn sharing(mut self, addresses: &[&str], macs: &[EthernetAddress]) -> Self {
        self.shared = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        self.macs = macs.to_vec();
        self
    }
    /// Asks for its IPv4 address by DHCP.
    pub fn by_dhcp(self) -> Self {
        Self { configured: Configured::ByDhcp, ..self }
    }
    /// Believes that its whole IPv6 /96 is on its link.
    pub fn on_link(self) -> Self {
        Self { configured: Configured::OnLink, ..self }
    }
    /// Has no stack.
    pub fn by_hand(self) -> Self {
        Self { configured: Configured::ByHand, ..self }
    }
    /// Leaves this for others when it sends.
    pub fn sends(self, sends: Sends) -> Self {
        Self { sends, ..self }
    }
    /// Takes partial checksums and super-packets of every kind.
    pub fn takes_offloads(self) -> Self {
        let receives = Receiver { up: true, csum: true, tso4: true, tso6: true, ecn: true, uso: true };
        Self { receives, ..self }
    }
}

/// A host to be.
#[derive(Clone, Debug)]
pub(super) struct HostPlan {
    pub(super) name: String,
    pub(super) locator: Locator,
    pub(super) checksum: ChecksumMode,
    pub(super) link: Link,
    pub(super) unknown: Unknown,
}

/// A world to be. The default has the SIR prefix `2001:db8:51::/64` and one router.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) seed: u64,
    pub(super) sir: SirPrefix,
    pub(super) routers: usize,
    pub(super) fabric_offloads: bool,
    pub(super) networks: Vec<Network>,
    pub(super) hosts: Vec<HostPlan>,
    pub(super) guests: Vec<GuestPlan>,
    unmapped: Vec<(String, IpAddr)>,
    /// Guest and host.
    standbys: Vec<(String, String)>,
    /// Network, group and host.
    listeners: Vec<(String, IpAddr, String)>,
    crossings: Vec<Crossing>,
    aliases: Vec<Alias>,
    /// Hosts of another make.
    peers: Vec<(String, PeerChecksum)>,
}

impl Plan {
    /// An empty plan; `seed` decides everything that is left to chance.
    pub fn new(seed: u64) -> Self {
        let sir = SirPrefix::new(Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0)).expect("a /64");
        Self {
            seed,
            sir,
            routers: 1,
            fabric_offloads: false,
            networks: Vec::new(),
            hosts: Vec::new(),
            guests: Vec::new(),
            unmapped: Vec::new(),
            standbys: Vec::new(),
            crossings: Vec::new(),
            aliases: Vec::new(),
            peers: Vec::new(),
            listeners: Vec::new(),
        }
    }

    /// A network with its VNID and prefixes; an empty `ipv4` or `ipv6` means it has none.
    ///
    /// # Panics
    /// If one of them is not what it should be.
    pub fn network(mut self, name: &str, vni: u32, ipv4: &str, ipv6: &str) -> Self {
        let network = plain_network(name, vni, ipv4, ipv6);
        self.networks.push(Network { multicast: Multicast::Flood, ..network });
        self
    }

    /// A host in neutral mode; the n-th has locator `2001:db8:0:n::/64`.
    pub fn host(self, name: &str) -> Self {
        self.host_in(name, ChecksumMode::Neutral)
    }
    /// A host that sends in this mode.
    pub fn host_in(mut self, name: &str, checksum: ChecksumMode) -> Self {
        let number = self.hosts.len() as u16 + 1;
        let locator = Ipv6Addr::new(0x2001, 0xdb8, 0, number, 0, 0, 0, 0);
        let locator = Locator::new(locator).expect("a /64");
        let unknown = Unknown::default();
        self.hosts.push(HostPlan {
            name: name.to_owned(),
            locator,
            checksum,
            link: Link::default(),
            unknown,
        });
        self
    }
    /// Lets the host added last send what it has no mapping for to the router.
    pub fn asking_the_router(mut self) -> Self {
        if let Some(host) = self.hosts.last_mut() {
            host.unknown = Unknown::Router;
        }
        self
    }
    /// Changes the link of the host added last.
    pub fn with_link(mut self, change: impl FnOnce(&mut Link)) -> Self {
        if let Some(host) = self.hosts.last_mut() {
            change(&mut host.link);
        }
        self
    }
    /// How many routers are between any two hosts.
    pub fn routers(self, routers: usize) -> Self {
        Self { routers, ..self }
    }
    /// Cards leave segmentation and checksums to the receiver's, as veth pairs do: super-packets cross in one piece.
    pub fn fabric_offloads(self) -> Self {
        Self { fabric_offloads: true, ..self }
    }

    /// A guest.
    pub fn guest(mut self, mut guest: GuestPlan) -> Self {
        guest.mac = match guest.is_task() {
            true => TASK_MAC,
            false => EthernetAddress([0x52, 0x54, 0, 0, 0, self.guests.len() as u8 + 1]),
        };
        self.guests.push(guest);
        self
    }
    /// Snoops in the network added last: its guests are asked for their groups, and told nothing of others. Without it what is sent to any
    /// group goes to everybody, and no query comes between a scenario's frames.
    pub fn snooping(mut self) -> Self {
        if let Some(network) = self.networks.last_mut() {
            network.multicast = Multicast::Snoop;
        }
        self
    }
    /// Has `host` wait for `guest`, which runs elsewhere: an attachment of the same name and addresses, beside the mappings of them.
    pub fn standby(mut self, guest: &str, host: &str) -> Self {
        self.standbys.push((guest.to_owned(), host.to_owned()));
        self
    }
    /// Tells every other host that `host` has listeners to `group`.
    ///
    /// # Panics
    /// If it is no address.
    pub fn listener(mut self, network: &str, group: &str, host: &str) -> Self {
        let group = group.parse().expect("an address");
        self.listeners.push((network.to_owned(), group, host.to_owned()));
        self
    }
    /// Keeps `host` from knowing where `address` lives.
    ///
    /// # Panics
    /// If it is no address.
    pub fn without_mapping(mut self, host: &str, address: &str) -> Self {
        self.unmapped.push((host.to_owned(), address.parse().expect("an address")));
        self
    }

    /// Lets something pass between realms, on every host.
    pub fn crossing(mut self, crossing: Crossing) -> Self {
        self.crossings.push(crossing);
        self
    }
    /// What the IPv4 tenants of a network call an endpoint elsewhere, on every host.
    pub fn alias(mut self, alias: Alias) -> Self {
        self.aliases.push(alias);
        self
    }
    /// Changes the network added last.
    pub fn with_network(mut self, change: impl FnOnce(&mut Network)) -> Self {
        if let Some(network) = self.networks.last_mut() {
            change(network);
        }
        self
    }
    /// A host whose ILA is the Linux kernel's in this mode, as every other host knows it.
    pub fn peer(mut self, host: &str, checksum: PeerChecksum) -> Self {
        self.peers.push((host.to_owned(), checksum));
        self
    }

    /// What `guest` is given beside its addresses.
    pub(super) fn lent(&self, guest: &GuestPlan) -> Lent {
        let neighbours = self.guests.iter().filter(|other| other.network == guest.network);
        // Whoever may speak between realms may be heard; a test that has rules says itself who should not be.
        if guest.is_task() || !self.crossings.is_empty() {
            let anybody = ["0.0.0.0/0", "::/0"].map(|all| all.parse().expect("a prefix"));
            return Lent { of_network: anybody.to_vec(), ..Lent::default() };
        }
        Lent {
            macs: guest.macs.clone(),
            behind: guest.prefixes.clone(),
            shared: guest.shared.clone(),
            of_network: neighbours.flat_map(|other| other.prefixes.clone()).collect(),
        }
    }

    /// What `host`'s operator would have written.
    pub(super) fn setup(&self, host: &HostPlan) -> Setup {
        let here = |guest: &&GuestPlan| guest.host == host.name;
        let waits = |guest: &GuestPlan| self.standbys.contains(&(guest.name.clone(), host.name.clone()));
        let locator_of = |name: &str| {
            let found = self.hosts.iter().find(|host| host.name == name);
            found.unwrap_or_else(|| panic!("no host {name:?} in the plan")).locator
        };
        let attachment = |guest: &GuestPlan| Attachment {
            name: guest.name.clone(),
            network: guest.network.clone(),
            mac: guest.mac,
            macs: guest.macs.clone(),
            addresses: guest.addresses.clone(),
            prefixes: guest.prefixes.clone(),
            shared: guest.shared.clone(),
            hostname: Some(guest.name.clone()),
            instance: Instance::default(),
        };
        let task = |guest: &GuestPlan| Task {
            name: guest.name.clone(),
            addresses: guest.task_addresses().collect(),
        };
        let task_mappings = |guest: &GuestPlan| {
            let locator = locator_of(&guest.host);
            guest.task_addresses().map(|address| TaskMapping { address, locator }).collect::<Vec<_>>()
        };
        let peers = self.peers.iter().filter(|(name, _)| *name != host.name);
        let peer = |(name, checksum): &(String, PeerChecksum)| Peer {
            locator: locator_of(name),
            checksum: *checksum,
        };
        let mappings = |guest: &GuestPlan| {
            let locator = locator_of(&guest.host);
            let mapping = |address| Mapping { network: guest.network.clone(), address, locator };
            guest.addresses.iter().chain(&guest.shared).copied().map(mapping).collect::<Vec<_>>()
        };
        let routes = |guest: &GuestPlan| {
            let (network, locator) = (guest.network.clone(), locator_of(&guest.host));
            let route = |prefix| Route { network: network.clone(), prefix, locator };
            guest.prefixes.iter().copied().map(route).collect::<Vec<_>>()
        };
        // Several guests of one host share an address, which has one mapping.
        let mut mapped = HashSet::new();
        Setup {
            networks: self.networks.clone(),
            attachments: self
                .guests
                .iter()
                .filter(|guest| !guest.is_task() && (here(guest) || waits(guest)))
                .map(attachment)
                .collect(),
            mappings: self
                .guests
                .iter()
                .filter(|guest| !guest.is_task() && !here(guest))
                .flat_map(mappings)
                .filter(|mapping| !self.unmapped.contains(&(host.name.clone(), mapping.address)))
                .filter(|mapping| mapped.insert((mapping.network.clone(), mapping.address)))
                .collect(),
            listeners: self.listeners(host, locator_of),
            routes: self.guests.iter().filter(|guest| !here(guest)).flat_map(routes).collect(),
            moves: Moves {
                standby: self
                    .guests
                    .iter()
                    .filter(|guest| waits(guest))
                    .map(|guest| guest.name.clone())
                    .collect(),
                ..Moves::default()
            },
            tasks: self.guests.iter().filter(|guest| guest.is_task() && here(guest)).map(task).collect(),
            task_mappings: self
                .guests
                .iter()
                .filter(|guest| guest.is_task() && !here(guest))
                .flat_map(task_mappings)
                .collect(),
            aliases: self.aliases.clone(),
            crossings: self.crossings.clone(),
            peers: peers.map(peer).collect(),
            ..Setup::of(setup::Host {
                name: host.name.clone(),
                locator: host.locator,
                sir: self.sir,
                checksum: host.checksum,
                uplink_mtu: host.link.mtu as u16,
                unknown: host.unknown,
            })
        }
    }

    /// What every other host knows of the listeners told by [`Plan::listener`].
    fn listeners(&self, host: &HostPlan, locator_of: impl Fn(&str) -> Locator) -> Vec<Listener> {
        let elsewhere = self.listeners.iter().filter(|(_, _, at)| *at != host.name);
        let listener = |(network, group, at): &(String, IpAddr, String)| Listener {
            network: network.clone(),
            group: *group,
            locator: locator_of(at),
        };
        elsewhere.map(listener).collect()
    }

    /// Brings it to life.
    ///
    /// # Panics
    /// If a host's setup is refused.
    pub fn start(self) -> World {
        World::new(self)
    }
}

/// A network with its VNID and prefixes, and otherwise as a configuration that says no more; an empty `ipv4` or `ipv6` means it has none.
///
/// # Panics
/// If one of them is not what it should be.
pub fn plain_network(name: &str, vni: u32, ipv4: &str, ipv6: &str) -> Network {
    Network {
        ipv4: (!ipv4.is_empty()).then(|| ipv4.parse().expect("an IPv4 prefix")),
        ipv6: (!ipv6.is_empty()).then(|| ipv6.parse().expect("a /96")),
        ..Network::named(name, Vnid::new(vni).expect("a VNID of 28 bits"))
    }
}
