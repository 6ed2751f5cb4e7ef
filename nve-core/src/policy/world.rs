//! Networks and locators as the data path reads them, and everything small together.
//!
//! What must stay true: built only from a [`CheckedSetup`]; read-only afterwards.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ipv4_xlat::Config;
use ipv4_xlat::address::rfc6052;
use smoltcp::wire::{Ipv4Cidr, Ipv6Cidr};

use super::translation::{along, translation};
use super::{Aliases, Attachment, Away, Cell, Further, Peers, Reach, Rules, Several};
use crate::addr::{ChecksumMode, Identifier, Kind, Locator, Neutral, SirPrefix, Vnet, Vnid};
use crate::gateway::Lease4;
use crate::pipeline::PortId;
use crate::setup::{
    self, CheckedSetup, Multicast, Setup, Stragglers, Unknown, default_gateway4, default_gateway6,
};
use crate::tables::{Target, group_in};

/// A network's number within one [`World`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NetworkId(pub(crate) u16);

impl NetworkId {
    /// What a task's attachment has in place of a network: no network's number.
    pub(crate) const OF_TASKS: Self = Self(u16::MAX);
}

/// A locator's number on this host: never reused while the process lives, so that a value read from the mapping table during a
/// swap cannot mean another host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LocatorId(pub(crate) u32);

/// One virtual network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Name in config, counters and captures.
    pub name: String,
    /// Its number on the wire.
    pub vnid: Vnid,
    /// The tenant's IPv4 prefix.
    pub ipv4: Option<Ipv4Cidr>,
    /// The tenant's /96.
    pub ipv6: Option<Vnet>,
    /// The virtual gateway's IPv4 address: present where `ipv4` is.
    pub gateway4: Option<Ipv4Addr>,
    /// The virtual gateway's global IPv6 address: present where `ipv6` is.
    pub gateway6: Option<Ipv6Addr>,
    /// Resolvers told by DHCPv4 and RA.
    pub dns: Vec<IpAddr>,
    /// Servers on the host side that its gateway forwards DNS to; none: it does not.
    pub dns_forward: Vec<SocketAddr>,
    /// The tenants' own domain, told by DHCPv4.
    pub domain: Option<String>,
    /// Domains to search, told by DHCP and RA.
    pub search: Vec<String>,
    /// Time servers told by DHCPv4 and DHCPv6.
    pub ntp: Vec<IpAddr>,
    /// How DHCPv4 tells addresses.
    pub lease4: Lease4,
    /// Whether it has the metadata service.
    pub metadata: bool,
    /// Told to guests: uplink MTU minus 20 where the network has IPv4 (design, section 5), never below 1280 where it has IPv6.
    pub mtu: u16,
    /// Adjustment between our locator and the /96.
    pub(crate) neutral6: Option<Neutral>,
    /// How its IPv4 is translated: a link and not a hop, lossless between two NVEs (design, section 5, "Inside a VN").
    pub(crate) translation: Config,
    peers4: Peers4,
    many: Many,
    further: Further,
    /// What its IPv4 tenants call endpoints elsewhere.
    pub(super) aliases: Aliases,
    /// And the outside.
    pub(super) nat64: Option<rfc6052::Prefix>,
}

/// Who of a network is sent what is sent to many.
#[derive(Clone, Debug, Default)]
struct Many {
    flood: bool,
    /// Its attachments on this host, in order.
    ports: Box<[PortId]>,
    /// Every other host that a mapping names.
    hosts: Box<[LocatorId]>,
    /// Other hosts that have listeners, by group.
    listeners: HashMap<Identifier, Box<[LocatorId]>>,
}

/// The addresses of a network's IPv4 prefix that a tenant may have, host byte order.
#[derive(Clone, Copy, Debug)]
struct Peers4 {
    lowest: u32,
    highest: u32,
    gateway: u32,
}

impl Peers4 {
    /// No address lies between these.
    const NONE: Self = Self { lowest: 1, highest: 0, gateway: 0 };

    fn of(prefix: Ipv4Cidr, gateway: Option<Ipv4Addr>) -> Self {
        let length = u32::from(prefix.prefix_len());
        let first = prefix.network().address().to_bits();
        let last = first | u32::MAX.checked_shr(length).unwrap_or(0);
        // /31 and /32 have neither network nor broadcast address (RFC 3021).
        let edge = u32::from(length < 31);
        Self { lowest: first + edge, highest: last - edge, gateway: gateway.map_or(0, Ipv4Addr::to_bits) }
    }
}

/// Everything small, as of one `apply`. A copy is cheap: the large parts are shared.
#[derive(Clone, Debug)]
pub struct World {
    /// Name of this host.
    pub name: String,
    /// Where this host is.
    pub locator: Locator,
    /// The domain served.
    pub sir: SirPrefix,
    /// What we send; we receive both.
    pub checksum: ChecksumMode,
    /// Bytes of the largest IPv6 packet the uplink takes.
    pub uplink_mtu: u16,
    /// Hops that this host's own kernel spends between us and the fabric, 0 or 1.
    pub(crate) uplink_hops: u8,
    /// What becomes of packets to an address without a mapping.
    pub unknown: Unknown,
    /// What becomes of packets for identifiers that have moved away.
    pub(crate) stragglers: Stragglers,
    /// For how long.
    pub(crate) grace: Duration,
    /// Between realms.
    pub(crate) rules: Arc<Rules>,
    /// Hosts whose ILA is not ours.
    pub(crate) peers: Arc<Peers>,
    /// Adjustment between our locator and the SIR prefix.
    pub(crate) neutral: Neutral,
    networks: Arc<[Network]>,
    ports: Arc<[Option<Attachment>]>,
    by_vnid: Box<[(Vnid, NetworkId)]>,
    by_vnet: Box<[(u128, NetworkId)]>,
    reaches: Box<[Reach]>,
    known_locators: Box<[Locator]>,
    /// Those of them that the setup names, in order.
    said_locators: Arc<[Locator]>,
    /// Where nothing is outside, whether we know of it or not.
    fabric: Arc<[Ipv6Cidr]>,
    /// By identifier; none of them is in the mapping table.
    several: Arc<[Several]>,
}

/// What outlives a [`World`] and is part of the next.
#[derive(Clone, Copy)]
pub(crate) struct Numbers<'a> {
    /// By attachment.
    pub(crate) ports: &'a HashMap<String, PortId>,
    /// By [`LocatorId`].
    pub(crate) reaches: &'a [Reach],
    pub(crate) locators: &'a HashMap<Locator, LocatorId>,
    /// By shared address; one that has none yet gets a new one.
    pub(crate) holders: &'a HashMap<Identifier, Arc<Cell>>,
    pub(crate) away: &'a Away,
}

impl World {
    /// Everything of `setup`, with the numbers the registry gave its attachments and locators.
    pub(crate) fn build(setup: &CheckedSetup, numbers: Numbers<'_>) -> Self {
        let Numbers { reaches, .. } = numbers;
        let setup = setup.setup();
        let host = &setup.host;
        let networks = setup.networks.iter().map(|network| {
            let built = Network::build(network, host);
            let further = Further::build(&built, setup, numbers);
            Network { further, ..built }
        });
        let mut networks: Box<[Network]> = networks.collect();
        let aliases: Vec<_> = networks.iter().map(|n| Aliases::build(n, &networks, setup)).collect();
        networks.iter_mut().zip(aliases).for_each(|(network, aliases)| network.aliases = aliases);
        let attachments = attachments(setup, numbers, &networks);
        for (id, network) in (0..).map(NetworkId).zip(&mut networks) {
            network.many.gather(&attachments, id);
            network.many.gather_hosts(setup, (&network.name, network.vnid), reaches);
        }
        let mut by_vnid: Vec<_> =
            networks.iter().enumerate().map(|(i, n)| (n.vnid, NetworkId(i as u16))).collect();
        by_vnid.sort_unstable_by_key(|(vnid, _)| *vnid);
        let vnet_of = |(i, n): (usize, &Network)| n.ipv6.map(|vnet| (vnet.upper(), NetworkId(i as u16)));
        let mut by_vnet: Vec<_> = networks.iter().enumerate().filter_map(vnet_of).collect();
        by_vnet.sort_unstable_by_key(|(upper, _)| *upper);
        let known: HashSet<Locator> = setup.locators().chain([host.locator]).collect();
        let mut known_locators: Vec<Locator> = known.into_iter().collect();
        known_locators.sort_unstable();
        let world = Self {
            name: host.name.clone(),
            locator: host.locator,
            sir: host.sir,
            checksum: host.checksum,
            uplink_mtu: host.uplink_mtu,
            uplink_hops: setup.uplink_hops.min(1),
            unknown: host.unknown,
            stragglers: setup.moves.stragglers,
            grace: setup.moves.grace,
            rules: Arc::new(Rules::build(setup, &networks)),
            peers: Arc::new(Peers::build(setup)),
            neutral: Neutral::sir(host.locator, host.sir),
            networks: networks.into(),
            ports: attachments.into(),
            by_vnid: by_vnid.into(),
            by_vnet: by_vnet.into(),
            reaches: reaches.into(),
            said_locators: known_locators.as_slice().into(),
            known_locators: known_locators.into(),
            fabric: setup.fabric.clone().into(),
            several: Arc::new([]),
        };
        Self { several: world.gather_several(setup, numbers), ..world }
    }

    /// Every identifier of `setup` that has several locators.
    fn gather_several(&self, setup: &Setup, numbers: Numbers<'_>) -> Arc<[Several]> {
        let place = |identifier: Identifier, locator: Locator| {
            if locator == self.locator {
                let holds = |attachment: &&Attachment| attachment.identifiers().any(|own| own == identifier);
                return Some((locator, Target::Local(self.attachments().find(holds)?.port)));
            }
            let network = identifier.vnid().and_then(|vnid| self.network_of_vnid(vnid));
            let is_ipv4 = identifier.type_number() == 2;
            let neutral = match network {
                Some((_, network)) => network.neutral_to(locator, is_ipv4, self.checksum, self.sir),
                None => self.neutral_to_task(locator),
            };
            let neutral = neutral.filter(|_| identifier.has_neutral_form());
            Some((locator, Target::Remote(*numbers.locators.get(&locator)?, neutral)))
        };
        let mut several: Vec<_> = setup
            .several
            .iter()
            .filter_map(|several| {
                let identifier = several.identifier(setup)?;
                let places = several.locators.iter().filter_map(|locator| place(identifier, *locator));
                Several::new(identifier, places.collect())
            })
            .collect();
        several.sort_unstable_by_key(|several| several.identifier);
        several.into()
    }

    /// The locators of an identifier that has several. Asked only of what the mapping table does not have.
    #[cold]
    pub(crate) fn several(&self, identifier: Identifier) -> Option<&Several> {
        let at = self.several.binary_search_by_key(&identifier, |several| several.identifier).ok()?;
        self.several.get(at)
    }
    /// All of them, by identifier.
    pub(crate) fn all_several(&self) -> &[Several] {
        &self.several
    }

    /// The same, which knows `further` hosts, too; `reaches` has all numbers given so far.
    pub(crate) fn knowing(&self, reaches: &[Reach], further: impl IntoIterator<Item = Locator>) -> Self {
        let mut known = self.known_locators.to_vec();
        known.extend(further);
        known.sort_unstable();
        known.dedup();
        Self { reaches: reaches.into(), known_locators: known.into(), ..self.clone() }
    }

    /// The same, which knows none of `unused` any more but those that the setup names; `None`: it knows no other.
    pub(crate) fn forgetting(&self, unused: &BTreeSet<Locator>) -> Option<Self> {
        let goes = |locator: &Locator| {
            unused.contains(locator) && self.said_locators.binary_search(locator).is_err()
        };
        if unused.is_empty() || !self.known_locators.iter().any(goes) {
            return None;
        }
        let known = self.known_locators.iter().filter(|locator| !goes(locator)).copied().collect();
        Some(Self { known_locators: known, ..self.clone() })
    }

    /// The same, with other identifiers away.
    pub(crate) fn with_away(&self, away: &Away) -> Self {
        let mut ports = self.ports.to_vec();
        for attachment in ports.iter_mut().flatten() {
            let own: Vec<_> = attachment.identifiers().chain(attachment.awaited()).collect();
            attachment.hold(own.into_iter(), away);
        }
        let mut networks = self.networks.to_vec();
        for (id, network) in (0..).map(NetworkId).zip(&mut networks) {
            network.many.gather(&ports, id);
        }
        Self { ports: ports.into(), networks: networks.into(), ..self.clone() }
    }

    /// The attachment of this number.
    #[inline]
    pub fn attachment(&self, port: PortId) -> Option<&Attachment> {
        self.ports.get(usize::from(port.0))?.as_ref()
    }
    /// One more than the highest port number in use.
    pub fn port_count(&self) -> usize {
        self.ports.len()
    }
    /// All attachments, by number.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.ports.iter().flatten()
    }
    /// All networks.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.iter()
    }
    /// The network of this number.
    #[inline]
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(usize::from(id.0))
    }
    /// The network with this VNID.
    #[inline]
    pub fn network_of_vnid(&self, vnid: Vnid) -> Option<(NetworkId, &Network)> {
        let at = self.by_vnid.binary_search_by_key(&vnid, |(v, _)| *v).ok()?;
        let (_, id) = *self.by_vnid.get(at)?;
        Some((id, self.network(id)?))
    }
    /// The network whose /96 contains `address`.
    #[inline]
    pub fn network_of_address(&self, address: Ipv6Addr) -> Option<(NetworkId, &Network)> {
        let upper = address.to_bits() >> 32;
        let at = self.by_vnet.binary_search_by_key(&upper, |(u, _)| *u).ok()?;
        let (_, id) = *self.by_vnet.get(at)?;
        Some((id, self.network(id)?))
    }
    /// The locator of this number.
    #[inline]
    pub fn locator(&self, id: LocatorId) -> Option<Locator> {
        self.reach(id).map(|reach| reach.locator)
    }
    /// The host of this number, and what is known of the path to it.
    #[inline]
    pub(crate) fn reach(&self, id: LocatorId) -> Option<&Reach> {
        self.reaches.get(id.0 as usize)
    }
    /// Every host that a mapping names, and the path to it.
    pub(crate) fn reaches(&self) -> impl Iterator<Item = &Reach> {
        let known = |reach: &&Reach| self.known_locators.binary_search(&reach.locator).is_ok();
        self.reaches.iter().filter(known).filter(|reach| reach.locator != self.locator)
    }
    /// How `identifier` would be adjusted on its way to this very host.
    pub(crate) fn neutral_here(&self, identifier: Identifier) -> Option<Neutral> {
        let neutral = match identifier.kind() {
            Kind::Ipv6(vnid, _) => self.network_of_vnid(vnid)?.1.neutral6?,
            _ => self.neutral,
        };
        (self.checksum == ChecksumMode::Neutral).then_some(neutral)
    }
    /// How a task's address is adjusted on its way to `locator`.
    pub(crate) fn neutral_to_task(&self, locator: Locator) -> Option<Neutral> {
        self.adjusts_towards(locator).then(|| Neutral::sir(locator, self.sir))
    }
    /// Whether somebody said what is the fabric's.
    pub(crate) fn knows_fabric(&self) -> bool {
        !self.fabric.is_empty()
    }
    /// Whether `address` is the fabric's, of a host or network that we need not know.
    #[cold]
    pub(crate) fn is_of_fabric(&self, address: Ipv6Addr) -> bool {
        self.fabric.iter().any(|prefix| prefix.contains_addr(&address))
    }
    /// The locator of this or any other host we know of that has these upper 64 bits.
    #[inline]
    pub fn known_locator(&self, upper: u64) -> Option<Locator> {
        let at = self.known_locators.binary_search_by_key(&upper, |locator| locator.upper()).ok()?;
        self.known_locators.get(at).copied()
    }
}

/// Everything that is attached, by port number.
fn attachments(setup: &Setup, numbers: Numbers<'_>, networks: &[Network]) -> Vec<Option<Attachment>> {
    let Numbers { ports, away, .. } = numbers;
    let tenants = setup.attachments.iter().filter_map(|attachment| {
        let port = *ports.get(&attachment.name)?;
        let index = networks.iter().position(|n| n.name == attachment.network)?;
        let network = (NetworkId(index as u16), networks.get(index)?);
        Some(Attachment::build(attachment, port, network, away))
    });
    let tasks = setup.tasks.iter().filter_map(|task| {
        let port = *ports.get(&task.name)?;
        Some(Attachment::of_task(task, port, setup.host.sir, away))
    });
    let mut attachments = Vec::new();
    for attachment in tenants.chain(tasks) {
        let number = usize::from(attachment.port.0);
        if attachments.len() <= number {
            attachments.resize(number + 1, None);
        }
        if let Some(slot) = attachments.get_mut(number) {
            *slot = Some(attachment);
        }
    }
    attachments
}

impl Network {
    fn build(network: &setup::Network, host: &setup::Host) -> Self {
        let room = if network.ipv4.is_some() { host.uplink_mtu - 20 } else { host.uplink_mtu };
        // A guest has no IPv6 on a link below 1280; IPv4 is told the 20 bytes less by ICMP then.
        let mtu = if network.ipv6.is_some() { room.max(1280) } else { room };
        let gateway4 = network.gateway4.or_else(|| network.ipv4.and_then(default_gateway4));
        let gateway6 = network.gateway6.or_else(|| network.ipv6.map(default_gateway6));
        let told = if network.dns.is_empty() && !network.dns_forward.is_empty() {
            gateway4.map(IpAddr::V4).into_iter().chain(gateway6.map(IpAddr::V6)).collect()
        } else {
            network.dns.clone()
        };
        Self {
            name: network.name.clone(),
            vnid: network.vnid,
            ipv4: network.ipv4,
            ipv6: network.ipv6,
            gateway4,
            gateway6,
            dns: told,
            dns_forward: network.dns_forward.clone(),
            domain: network.domain.clone(),
            search: match &network.domain {
                Some(domain) if network.search.is_empty() => vec![domain.clone()],
                _ => network.search.clone(),
            },
            ntp: network.ntp.clone(),
            lease4: network.lease4,
            metadata: network.metadata,
            mtu,
            neutral6: network.ipv6.map(|vnet| Neutral::vnet(host.locator, network.vnid, vnet)),
            translation: translation(host.uplink_mtu),
            peers4: network.ipv4.map_or(Peers4::NONE, |prefix| Peers4::of(prefix, gateway4)),
            many: Many { flood: network.multicast == Multicast::Flood, ..Many::default() },
            further: Further::default(),
            aliases: Aliases::default(),
            nat64: network.nat64,
        }
    }

    /// What it has beside single addresses with one holder each.
    #[cold]
    pub(crate) fn further(&self) -> &Further {
        &self.further
    }

    /// How an address of this network is adjusted on its way to `locator`, where its identifier has a neutral form.
    pub(crate) fn neutral_to(
        &self,
        locator: Locator,
        is_ipv4: bool,
        mode: ChecksumMode,
        sir: SirPrefix,
    ) -> Option<Neutral> {
        match mode {
            ChecksumMode::Unmodified => None,
            ChecksumMode::Neutral if is_ipv4 => Some(Neutral::sir(locator, sir)),
            ChecksumMode::Neutral => self.ipv6.map(|vnet| Neutral::vnet(locator, self.vnid, vnet)),
        }
    }

    /// Whether everybody is sent what is sent to any group.
    pub fn floods(&self) -> bool {
        self.many.flood
    }
    /// Its attachments on this host, in order.
    pub fn ports(&self) -> &[PortId] {
        &self.many.ports
    }
    /// Every other host that a mapping names.
    pub(crate) fn hosts(&self) -> &[LocatorId] {
        &self.many.hosts
    }
    /// Other hosts that have listeners to `group`.
    pub(crate) fn listening_hosts(&self, group: Identifier) -> &[LocatorId] {
        self.many.listeners.get(&group).map_or(&[], |hosts| hosts)
    }
    /// Groups that other hosts listen to.
    pub(crate) fn distant_groups(&self) -> impl Iterator<Item = (Identifier, &[LocatorId])> {
        self.many.listeners.iter().map(|(group, hosts)| (*group, &**hosts))
    }

    /// Whether `address` is the broadcast address of its prefix; 255.255.255.255 is every network's.
    pub(crate) fn is_broadcast4(&self, address: Ipv4Addr) -> bool {
        let subnets = |prefix: Ipv4Cidr| prefix.prefix_len() < 31 && prefix.broadcast() == Some(address);
        address == Ipv4Addr::BROADCAST || self.ipv4.is_some_and(subnets)
    }

    /// Whether a tenant of this network may have `address`.
    #[inline]
    pub(crate) fn has_peer4(&self, address: Ipv4Addr) -> bool {
        let bits = address.to_bits();
        (self.peers4.lowest..=self.peers4.highest).contains(&bits) && bits != self.peers4.gateway
    }

    /// How its IPv4 is translated for a path that carries `mtu` bytes, fewer than the uplink does.
    #[cold]
    pub(crate) fn translation_along(&self, mtu: u16) -> Config {
        along(self.translation, mtu)
    }

    /// Whether a tenant of this network may have `address`; the subnet-router anycast address is nobody's.
    #[inline]
    pub(crate) fn has_peer6(&self, address: Ipv6Addr) -> bool {
        self.ipv6.is_some_and(|vnet| vnet.contains(address))
            && address.to_bits() as u32 != 0
            && Some(address) != self.gateway6
    }
}

impl Many {
    /// Who of `attachments` is in the network of this number.
    fn gather(&mut self, attachments: &[Option<Attachment>], network: NetworkId) {
        let own = attachments.iter().flatten();
        let own = own.filter(|attachment| attachment.network == network && attachment.is_here());
        self.ports = own.map(|attachment| attachment.port).collect();
    }

    /// Which other hosts `setup` names for the network of this name and number.
    fn gather_hosts(&mut self, setup: &Setup, (name, vnid): (&str, Vnid), reaches: &[Reach]) {
        let number = |locator: Locator| {
            let at =
                reaches.iter().position(|reach| reach.locator == locator && locator != setup.host.locator);
            at.map(|at| LocatorId(at as u32))
        };
        let mappings = setup.mappings.iter().filter(|mapping| mapping.network == name);
        let several = setup.several.iter().filter(|several| several.network.as_deref() == Some(name));
        let several = several.flat_map(|several| several.locators.iter().copied());
        let bulk = setup.bulk.hosts().iter().filter(|host| host.network == name).map(|host| host.locator);
        let several = several.chain(bulk);
        let locators: BTreeSet<Locator> = mappings.map(|mapping| mapping.locator).chain(several).collect();
        self.hosts = locators.into_iter().filter_map(number).collect();
        let mut listeners: HashMap<Identifier, BTreeSet<Locator>> = HashMap::new();
        for listener in setup.listeners.iter().filter(|listener| listener.network == name) {
            if let Some(group) = group_in(vnid, listener.group) {
                listeners.entry(group).or_default().insert(listener.locator);
            }
        }
        let numbered = |locators: BTreeSet<Locator>| locators.into_iter().filter_map(number).collect();
        self.listeners = listeners.into_iter().map(|(group, locators)| (group, numbered(locators))).collect();
    }
}

/// The identifier of a unicast address in `network`.
pub(crate) fn identifier_in(network: &Network, address: IpAddr) -> Option<Identifier> {
    match address {
        IpAddr::V4(v4) => Some(Identifier::ipv4(network.vnid, v4)),
        IpAddr::V6(v6) => Identifier::ipv6_address(network.vnid, network.ipv6?, v6).ok(),
    }
}
