//! Networks and locators as the data path reads them, and everything small together.
//!
//! What must stay true: built only from a [`CheckedSetup`]; read-only afterwards.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipv4_xlat::Config;
use ipv4_xlat::address::rfc6052;
use smoltcp::wire::{Ipv4Cidr, Ipv6Cidr};

use super::domains::numbered;
use super::translation::{along, translation};
use super::{Aliases, Attachment, Away, Cell, Further, Peers, Reach, Rules, Several};
use crate::addr::{ChecksumMode, Domain, DomainId, Key, Keys, Kind, Locator, Neutral, Vnet, Vnid};
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
    /// The identifier space it belongs to; all that its tenants send and are sent stays there.
    pub sir_domain: Domain,
    /// Its number on the wire, of its domain.
    pub vnid: Vnid,
    /// The keys of its tenants' IPv4 addresses.
    pub(crate) keys4: Keys,
    /// The same of their IPv6 addresses.
    pub(crate) keys6: Keys,
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
    /// The tenants' own domain in DNS, told by DHCPv4.
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
    listeners: HashMap<Key, Box<[LocatorId]>>,
}

/// The addresses of a network's IPv4 prefix that a tenant may have, host byte order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peers4 {
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

    /// Whether `address` is one of them.
    #[inline]
    pub(crate) fn have(self, address: u32) -> bool {
        (self.lowest..=self.highest).contains(&address) && address != self.gateway
    }
}

/// Everything small, as of one `apply`. A copy is cheap: the large parts are shared.
#[derive(Clone, Debug)]
pub struct World {
    /// Name of this host.
    pub name: String,
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
    /// By [`DomainId`]; at least one.
    pub(super) domains: Box<[Domain]>,
    /// By [`DomainId`]; the host's own has none.
    pub(super) domain_names: Arc<[Option<String>]>,
    networks: Arc<[Network]>,
    ports: Arc<[Option<Attachment>]>,
    /// By [`numbered`].
    by_vnid: Box<[(u32, NetworkId)]>,
    by_vnet: Box<[(u128, NetworkId)]>,
    reaches: Box<[Reach]>,
    /// In order, and in which domain.
    known_locators: Box<[(Locator, DomainId)]>,
    /// Those of them that the setup names, in order.
    said_locators: Arc<[Locator]>,
    /// Where nothing is outside, whether we know of it or not.
    fabric: Arc<[Ipv6Cidr]>,
    /// By key; none of them is in the mapping table.
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
    pub(crate) holders: &'a HashMap<Key, Arc<Cell>>,
    pub(crate) away: &'a Away,
}

impl World {
    /// Everything of `setup`, with the numbers the registry gave its attachments and locators.
    pub(crate) fn build(setup: &CheckedSetup, numbers: Numbers<'_>) -> Self {
        let Numbers { reaches, locators, .. } = numbers;
        let setup = setup.setup();
        let host = &setup.host;
        let networks = setup.networks.iter().filter_map(|network| {
            let domain = setup.numbered_domain(network.sir_domain.as_deref())?;
            let built = Network::build(network, host, domain);
            let further = Further::build(&built, setup, numbers);
            Some(Network { further, ..built })
        });
        let mut networks: Box<[Network]> = networks.collect();
        let aliases: Vec<_> = networks.iter().map(|n| Aliases::build(n, &networks, setup)).collect();
        networks.iter_mut().zip(aliases).for_each(|(network, aliases)| network.aliases = aliases);
        let attachments = attachments(setup, numbers, &networks);
        for (id, network) in (0..).map(NetworkId).zip(&mut networks) {
            network.many.gather(&attachments, id);
            let named = (&*network.name, network.sir_domain, network.vnid);
            network.many.gather_hosts(setup, named, locators);
        }
        let mut by_vnid: Vec<_> = networks
            .iter()
            .enumerate()
            .map(|(i, n)| (numbered(n.sir_domain.id(), n.vnid), NetworkId(i as u16)))
            .collect();
        by_vnid.sort_unstable_by_key(|(number, _)| *number);
        let vnet_of = |(i, n): (usize, &Network)| n.ipv6.map(|vnet| (vnet.upper(), NetworkId(i as u16)));
        let mut by_vnet: Vec<_> = networks.iter().enumerate().filter_map(vnet_of).collect();
        by_vnet.sort_unstable_by_key(|(upper, _)| *upper);
        let domains: Box<[Domain]> = setup.numbered_domains().collect();
        let own = domains.iter().map(|domain| (domain.locator(), domain.id()));
        let said = setup.named_locators();
        let said = said.filter_map(|(locator, name)| Some((locator, setup.numbered_domain(name)?.id())));
        let known: BTreeMap<Locator, DomainId> = said.chain(own).collect();
        let known_locators: Vec<_> = known.into_iter().collect();
        let world = Self {
            name: host.name.clone(),
            checksum: host.checksum,
            uplink_mtu: host.uplink_mtu,
            uplink_hops: setup.uplink_hops.min(1),
            unknown: host.unknown,
            stragglers: setup.moves.stragglers,
            grace: setup.moves.grace,
            rules: Arc::new(Rules::build(setup, &networks)),
            peers: Arc::new(Peers::build(setup)),
            domains,
            domain_names: setup.domains().map(|domain| domain.name.map(str::to_owned)).collect(),
            networks: networks.into(),
            ports: attachments.into(),
            by_vnid: by_vnid.into(),
            by_vnet: by_vnet.into(),
            reaches: reaches.into(),
            said_locators: known_locators.iter().map(|(locator, _)| *locator).collect(),
            known_locators: known_locators.into(),
            fabric: setup.fabric.clone().into(),
            several: Arc::new([]),
        };
        Self { several: world.gather_several(setup, numbers), ..world }
    }

    /// Every identifier of `setup` that has several locators.
    fn gather_several(&self, setup: &Setup, numbers: Numbers<'_>) -> Arc<[Several]> {
        let place = |key: Key, locator: Locator| {
            if self.is_own_locator(locator) {
                let holds = |attachment: &&Attachment| attachment.keys().any(|own| own == key);
                return Some((locator, Target::Local(self.attachments().find(holds)?.port)));
            }
            Some((locator, Target::Remote(*numbers.locators.get(&locator)?, self.neutral_to(key, locator))))
        };
        let mut several: Vec<_> = setup
            .several
            .iter()
            .filter_map(|several| {
                let key = self.key(several.name(setup)?)?;
                let places = several.locators.iter().filter_map(|locator| place(key, *locator));
                Several::new(key, places.collect())
            })
            .collect();
        several.sort_unstable_by_key(|several| several.key);
        several.into()
    }

    /// The locators of an identifier that has several. Asked only of what the mapping table does not have.
    #[cold]
    pub(crate) fn several(&self, key: Key) -> Option<&Several> {
        let at = self.several.binary_search_by_key(&key, |several| several.key).ok()?;
        self.several.get(at)
    }
    /// All of them, by key.
    pub(crate) fn all_several(&self) -> &[Several] {
        &self.several
    }

    /// The same, which knows `further` hosts, too; `reaches` has all numbers given so far.
    /// What is known of a locator's domain already stays.
    pub(crate) fn knowing(
        &self,
        reaches: &[Reach],
        further: impl IntoIterator<Item = (Locator, DomainId)>,
    ) -> Self {
        let mut known = self.known_locators.to_vec();
        known.extend(further);
        // Stable: of two of one locator, the one that was known is the first.
        known.sort_by_key(|(locator, _)| *locator);
        known.dedup_by_key(|(locator, _)| *locator);
        Self { reaches: reaches.into(), known_locators: known.into(), ..self.clone() }
    }

    /// The same, which knows none of `unused` any more but those that the setup names; `None`: it knows no other.
    pub(crate) fn forgetting(&self, unused: &BTreeSet<Locator>) -> Option<Self> {
        let goes = |locator: &Locator| {
            unused.contains(locator) && self.said_locators.binary_search(locator).is_err()
        };
        if unused.is_empty() || !self.known_locators.iter().any(|(locator, _)| goes(locator)) {
            return None;
        }
        let known = self.known_locators.iter().filter(|(locator, _)| !goes(locator)).copied().collect();
        Some(Self { known_locators: known, ..self.clone() })
    }

    /// The same, with other identifiers away.
    pub(crate) fn with_away(&self, away: &Away) -> Self {
        let mut ports = self.ports.to_vec();
        for attachment in ports.iter_mut().flatten() {
            let own: Vec<_> = attachment.keys().chain(attachment.awaited()).collect();
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
    /// The network with this VNID in this domain.
    #[inline]
    pub fn network_of_vnid(&self, domain: DomainId, vnid: Vnid) -> Option<(NetworkId, &Network)> {
        let at = self.by_vnid.binary_search_by_key(&numbered(domain, vnid), |(n, _)| *n).ok()?;
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
        let known = |reach: &&Reach| self.known_locator(reach.locator.upper()).is_some();
        self.reaches.iter().filter(known).filter(|reach| !self.is_own_locator(reach.locator))
    }
    /// How `key` would be adjusted on its way to this very host.
    pub(crate) fn neutral_here(&self, key: Key) -> Option<Neutral> {
        let neutral = match key.kind() {
            Kind::Ipv6(..) => self.network_of(key)?.1.neutral6?,
            _ => self.domain(key.domain())?.neutral(),
        };
        (self.checksum == ChecksumMode::Neutral).then_some(neutral)
    }
    /// How `key`, of an endpoint, is adjusted on its way to `locator`; `None` where it goes as it is.
    pub(crate) fn neutral_to(&self, key: Key, locator: Locator) -> Option<Neutral> {
        let neutral = match key.kind() {
            Kind::Local(_) => {
                let domain = self.domain(key.domain())?;
                self.adjusts_towards(locator).then(|| Neutral::sir(locator, domain.sir()))
            }
            Kind::Ipv4(..) | Kind::Ipv6(..) => {
                self.network_of(key)?.1.neutral_to(locator, key.type_number() == 2, self.checksum)
            }
            Kind::Interface(_) | Kind::Multicast(..) => None,
        };
        neutral.filter(|_| key.identifier().has_neutral_form())
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
        self.known_locator_in(upper).map(|(locator, _)| locator)
    }
    /// The same, and the one domain that it is of.
    #[inline]
    pub(crate) fn known_locator_in(&self, upper: u64) -> Option<(Locator, DomainId)> {
        let at = self.known_locators.binary_search_by_key(&upper, |(locator, _)| locator.upper()).ok()?;
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
        Some(Attachment::of_task(task, port, setup.domain_called(*task.addresses.first()?)?, away))
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
    fn build(network: &setup::Network, host: &setup::Host, domain: Domain) -> Self {
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
            sir_domain: domain,
            vnid: network.vnid,
            keys4: domain.keys_of_ipv4(network.vnid),
            keys6: domain.keys_of_ipv6(network.vnid),
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
            neutral6: network.ipv6.map(|vnet| Neutral::vnet(domain.locator(), network.vnid, vnet)),
            translation: translation(host.uplink_mtu),
            peers4: network.ipv4.map_or(Peers4::NONE, |prefix| Peers4::of(prefix, gateway4)),
            many: Many { flood: network.multicast == Multicast::Flood, ..Many::default() },
            further: Further::default(),
            aliases: Aliases::default(),
            nat64: network.nat64,
        }
    }

    /// What it is called on the wire: its number, in its domain.
    pub(crate) fn number(&self) -> (DomainId, Vnid) {
        (self.sir_domain.id(), self.vnid)
    }
    /// The key of a group of it that may leave its link or host; see [`group_in`].
    pub(crate) fn group(&self, address: IpAddr) -> Option<Key> {
        self.sir_domain.key(group_in(self.vnid, address)?)
    }

    /// What it has beside single addresses with one holder each.
    #[cold]
    pub(crate) fn further(&self) -> &Further {
        &self.further
    }

    /// How an address of this network is adjusted on its way to `locator`, where its identifier has a neutral form.
    pub(crate) fn neutral_to(&self, locator: Locator, is_ipv4: bool, mode: ChecksumMode) -> Option<Neutral> {
        match mode {
            ChecksumMode::Unmodified => None,
            ChecksumMode::Neutral if is_ipv4 => Some(Neutral::sir(locator, self.sir_domain.sir())),
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
    pub(crate) fn listening_hosts(&self, group: Key) -> &[LocatorId] {
        self.many.listeners.get(&group).map_or(&[], |hosts| hosts)
    }
    /// Groups that other hosts listen to.
    pub(crate) fn distant_groups(&self) -> impl Iterator<Item = (Key, &[LocatorId])> {
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
        self.peers4.have(address.to_bits())
    }
    /// All addresses that they may have.
    #[inline]
    pub(crate) fn peers4(&self) -> Peers4 {
        self.peers4
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
    fn gather_hosts(
        &mut self,
        setup: &Setup,
        (name, domain, vnid): (&str, Domain, Vnid),
        numbers: &HashMap<Locator, LocatorId>,
    ) {
        let number =
            |locator: Locator| numbers.get(&locator).copied().filter(|_| locator != domain.locator());
        let mappings = setup.mappings.iter().filter(|mapping| mapping.network == name);
        let several = setup.several.iter().filter(|several| several.network.as_deref() == Some(name));
        let several = several.flat_map(|several| several.locators.iter().copied());
        let bulk = setup.bulk.hosts().iter().filter(|host| host.network == name).map(|host| host.locator);
        let several = several.chain(bulk);
        let locators: BTreeSet<Locator> = mappings.map(|mapping| mapping.locator).chain(several).collect();
        self.hosts = locators.into_iter().filter_map(number).collect();
        let mut listeners: HashMap<Key, BTreeSet<Locator>> = HashMap::new();
        for listener in setup.listeners.iter().filter(|listener| listener.network == name) {
            if let Some(group) = group_in(vnid, listener.group).and_then(|group| domain.key(group)) {
                listeners.entry(group).or_default().insert(listener.locator);
            }
        }
        let numbered = |locators: BTreeSet<Locator>| locators.into_iter().filter_map(number).collect();
        self.listeners = listeners.into_iter().map(|(group, locators)| (group, numbered(locators))).collect();
    }
}

/// The key of a unicast address in `network`.
pub(crate) fn key_in(network: &Network, address: IpAddr) -> Option<Key> {
    match address {
        IpAddr::V4(v4) => Some(network.keys4.of(v4.to_bits())),
        IpAddr::V6(v6) => {
            network.ipv6.filter(|vnet| vnet.contains(v6)).map(|_| network.keys6.of(v6.to_bits() as u32))
        }
    }
}
