//! What all workers and the control side share.
//!
//! What must stay true: `apply` is all or nothing; a port keeps its number while its attachment's name is configured, and a number is
//! not given to another name in the very `apply` that freed it, nor in the next, when the same name gets it back; locator numbers are
//! never reused.
//!
//! ```text
//!   apply:  identifiers that leave ──> new World ──> identifiers that come or move, one store each
//!           a worker that still has the old World finds no port or locator under a new number, and drops; never another's
//! ```

use core::net::{IpAddr, Ipv6Addr};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use core::time::Duration;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use smoltcp::wire::EthernetAddress;

use super::announce::Announcements;
use super::departure::Departures;
use super::learned::{Learned, Lessons, Source};
use super::presence::{Presence, Presences};
use super::trial::{Replaced, Trial};
use super::worlds::Worlds;
use super::{Again, MAX_PORTS, PortId};
use crate::addr::{Identifier, Key, Kind, Locator, SirAddress, SirPrefix};
use crate::counters::{PortTotals, Totals, WorkerCells};
use crate::packet::{ChecksumState, GsoKind, Offload};
use crate::policy::{Attachment, Away, Cell, LocatorId, Network, Numbers, Reach, World, key_in};
use crate::setup::{Bulk, CheckedSetup, Realm, Setup, task_identifier};
use crate::tables::{Groups, MappingTable, TableFull, Target};

/// What the guest behind an attachment can take, as its driver negotiated it; or the fabric ([`PortId::FABRIC`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Receiver {
    /// Its receive ring runs.
    pub up: bool,
    /// Partial checksums (VIRTIO_NET_F_GUEST_CSUM).
    pub csum: bool,
    /// TCP over IPv4 super-packets (VIRTIO_NET_F_GUEST_TSO4).
    pub tso4: bool,
    /// TCP over IPv6 super-packets (VIRTIO_NET_F_GUEST_TSO6).
    pub tso6: bool,
    /// CWR in super-packets (VIRTIO_NET_F_GUEST_ECN).
    pub ecn: bool,
    /// UDP super-packets (VIRTIO_NET_F_GUEST_USO4 and USO6).
    pub uso: bool,
}

impl Receiver {
    /// The kernel behind a TUN finishes what it is given itself.
    pub const KERNEL: Self = Self { up: true, csum: true, tso4: true, tso6: true, ecn: true, uso: false };

    /// Whether a packet with `offload` may be given to it as it is, or what must be finished in software first.
    #[inline]
    pub(super) fn takes(self, offload: &Offload) -> Result<(), Again> {
        if let Some(gso) = offload.gso {
            let (takes, ecn) = match gso.kind {
                GsoKind::TcpV4 { ecn } => (self.tso4, ecn),
                GsoKind::TcpV6 { ecn } => (self.tso6, ecn),
                GsoKind::UdpL4 => (self.uso, false),
            };
            if !takes || !self.csum || (ecn && !self.ecn) {
                return Err(Again::Segments);
            }
        } else if !self.csum && matches!(offload.checksum, ChecksumState::Partial { .. }) {
            return Err(Again::Checksum);
        }
        Ok(())
    }

    /// [`Receiver::up`], packed.
    const UP: u8 = 1;

    fn pack(self) -> u8 {
        [self.up, self.csum, self.tso4, self.tso6, self.ecn, self.uso]
            .iter()
            .enumerate()
            .fold(0, |bits, (i, set)| bits | u8::from(*set) << i)
    }
    #[inline]
    fn unpack(bits: u8) -> Self {
        let set = |i: u8| bits >> i & 1 != 0;
        Self { up: set(0), csum: set(1), tso4: set(2), tso6: set(3), ecn: set(4), uso: set(5) }
    }
}

/// One line of `show mappings`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MappingLine {
    /// Name of the network; of a task's address, [`Realm::TASKS`].
    pub network: String,
    /// The tenant's address, or the first of a prefix.
    pub address: IpAddr,
    /// Bits of the prefix; `None`: one address.
    pub length: Option<u8>,
    /// Several attachments of this host may hold it in turn.
    pub shared: bool,
    /// The SIR prefix of its domain.
    pub sir: SirPrefix,
    /// The identifier of `address` there.
    pub identifier: Identifier,
    /// The host that has it.
    pub locator: Locator,
    /// The attachment, where that host is this one; `None` of a shared address that nobody holds, too.
    pub attachment: Option<String>,
    /// `address` on the wire.
    pub wire: Ipv6Addr,
    /// Who says so.
    pub source: Source,
    /// Of what was learned; zero of what the setup says.
    pub epoch: u64,
    /// When it was learned, of the epoch of [`super::Walker::begin`]; `None`: it is the setup's.
    pub since: Option<Duration>,
    /// When it ends by itself; `None`: never.
    pub until: Option<Duration>,
}

/// One line of `show groups`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupLine {
    /// Name of the network.
    pub network: String,
    /// The group's address, as its tenants know it.
    pub group: IpAddr,
    /// Its identifier.
    pub identifier: Identifier,
    /// The attachments of this host that listen.
    pub attachments: Vec<String>,
    /// Other hosts that have listeners.
    pub locators: Vec<Locator>,
}

/// One line of `show paths`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathLine {
    /// The host it leads to.
    pub locator: Locator,
    /// Bytes of the largest IPv6 packet that is sent there.
    pub mtu: u16,
    /// How long ago the fabric said that it carries no more than that; `None` where it never did, or too long ago to count.
    pub learned: Option<Duration>,
}

/// Why a checked setup could not be applied. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ApplyError {
    /// More addresses than the mapping table has room for.
    #[error("{needed} addresses do not fit the mapping table's {capacity}; restart with a larger one")]
    TooManyMappings {
        /// Attachments' and mappings' addresses together.
        needed: usize,
        /// What the table was made for.
        capacity: usize,
    },
    /// Every port number is in use or was freed just now.
    #[error("no free port number; remove attachments in one reload and add the others in the next")]
    NoFreePort,
    /// A key's domain is a number, which must mean the same to every worker.
    #[error("the host's domains, or its locators in them, are not those it started with; restart")]
    Domains,
}

/// Numbers that must outlive a [`World`]. On lines of its own, as its lock's is written for every mapping that is learned.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Registry {
    pub(super) ports: HashMap<String, PortId>,
    /// Freed by the last `apply`: the next gives them to nobody else. A name that comes back has its number again, so that devices made
    /// before a reload that is taken back are on the right port after it.
    resting: HashMap<String, PortId>,
    pub(super) reaches: Vec<Reach>,
    pub(super) locator_ids: HashMap<Locator, LocatorId>,
    /// How many of them were learned before any setup named them.
    pub(super) learned_hosts: usize,
    /// What the setup did not say.
    pub(super) lessons: Lessons,
    /// Of the shared addresses in force.
    pub(super) holders: HashMap<Key, Arc<Cell>>,
    /// Of attachments that are not here, or not with all their addresses, what they wait for. Of a port whose [`Presence`] is `Here` it is
    /// out of date, and will be forgotten.
    pub(super) away: Away,
    /// Attachments that the setup in force has on standby.
    pub(super) standby: BTreeSet<String>,
    /// Epochs of identifiers that moved to this host.
    pub(super) moved_here: HashMap<Key, u64>,
}

/// One NVE: shared by all workers and the control side.
pub struct Nve {
    pub(super) world: Worlds,
    pub(super) table: MappingTable,
    /// Who on this host listens to what.
    pub(super) groups: ArcSwap<Groups>,
    pub(super) announcements: Announcements,
    pub(super) presences: Presences,
    pub(super) departures: Departures,
    receivers: Box<[AtomicU8]>,
    triangles: AtomicBool,
    pub(super) registry: Mutex<Registry>,
    workers: Mutex<Vec<Arc<WorkerCells>>>,
}

impl core::fmt::Debug for Nve {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Nve").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Nve {
    /// An NVE with `setup` applied and room for `mapping_capacity` identifiers (at least as many as `setup` needs).
    pub fn new(setup: CheckedSetup, mapping_capacity: usize) -> Arc<Self> {
        let mut registry = Registry::default();
        // A first apply into an empty table that is large enough cannot fail; an empty world would be the honest result if it did.
        let needed = identifier_count(&setup);
        let ports = registry.number(&setup).unwrap_or_default();
        let nve = Self {
            world: Worlds::of(World::build(&setup, registry.numbers(&ports))),
            table: MappingTable::with_capacity(mapping_capacity.max(needed)),
            groups: ArcSwap::default(),
            announcements: Announcements::default(),
            presences: Presences::default(),
            departures: Departures::default(),
            receivers: (0..=MAX_PORTS).map(|_| AtomicU8::new(0)).collect(),
            triangles: AtomicBool::new(false),
            registry: Mutex::new(registry),
            workers: Mutex::default(),
        };
        let applied = nve.apply(setup);
        debug_assert_eq!(applied, Ok(()));
        // A TUN, unless somebody says otherwise.
        nve.set_receiver(PortId::FABRIC, Receiver::KERNEL);
        Arc::new(nve)
    }

    /// Replaces the setup. Port numbers are stable by attachment name; the mapping table is changed entry by entry. What was learned
    /// stays, but for what the setup now says otherwise (`learned.rs`).
    ///
    /// # Errors
    /// See [`ApplyError`]; the running state is as it was.
    pub fn apply(&self, setup: CheckedSetup) -> Result<(), ApplyError> {
        self.try_out(setup).map(Trial::keep)
    }

    /// [`Nve::apply`], with the registry's lock held to the end: what is learned meanwhile must not come between. What it changed that
    /// `setup` does not tell.
    pub(super) fn replace(
        &self,
        registry: &mut Registry,
        setup: &CheckedSetup,
    ) -> Result<Replaced, ApplyError> {
        let (needed, capacity) =
            (identifier_count(setup) + registry.lessons.registered(), self.table.capacity());
        if needed > capacity {
            return Err(ApplyError::TooManyMappings { needed, capacity });
        }
        if !setup.setup().numbered_domains().eq(self.world.load().domains().iter().copied()) {
            return Err(ApplyError::Domains);
        }
        let ports = registry.number(setup)?;
        let mut declared = registry.declared_here(setup);
        declared.retain(|port| self.activate(*port));
        let placed = registry.await_guests(setup, &ports, &self.presences);
        let world = World::build(setup, registry.numbers(&ports));
        let world = world.knowing(&registry.reaches, registry.lessons.locators());
        let mut wanted = registry.targets(setup, &world);
        let bulk = BulkTargets::new(&setup.setup().bulk, &world, &registry.locator_ids);
        let Registry { lessons, locator_ids, .. } = &mut *registry;
        // What is learned is laid over what the bulk says, too.
        for key in lessons.keys() {
            if let Some(said) = bulk.of(key) {
                wanted.entry(key).or_insert(said);
            }
        }
        let number = |locator| locator_ids.get(&locator).copied();
        let lessons = lessons.reconcile(&world, number, (&mut wanted, capacity - bulk.len()));
        registry.settle(ports, &world);

        // Identifiers that leave go first: their room is needed, and an old port must not be found under them.
        let leaving: Vec<_> = self
            .table
            .iter()
            .map(|(id, _)| id)
            .filter(|id| !wanted.contains_key(id) && !bulk.has(*id))
            .collect();
        for key in leaving {
            self.table.remove(key);
        }
        let before = self.world.change(world);
        self.announce_changes(&before);
        let mut departed = Vec::new();
        let beside = bulk.iter().filter(|(key, _)| !wanted.contains_key(key));
        for (key, target) in wanted.iter().map(|(key, target)| (*key, *target)).chain(beside) {
            let stored = self.table.insert(key, target);
            debug_assert_ne!(stored, Err(TableFull), "counted above");
            if let (Ok(Some(Target::Local(_))), Target::Remote(..)) = (stored, target) {
                departed.push(key);
            }
        }
        self.departures.add(departed, None);
        self.arrived_meanwhile();
        Ok(Replaced { declared, placed, lessons })
    }

    /// Whoever was told something by router advertisements that is not so any more is due for another.
    fn announce_changes(&self, before: &World) {
        fn told(world: &World, port: PortId) -> Option<impl PartialEq> {
            let network = world.network(world.attachment(port)?.network)?;
            Some((network.ipv6.is_some(), network.mtu, network.dns.as_slice(), network.search.as_slice()))
        }
        let now = self.world.load();
        for port in now.attachments().map(|attachment| attachment.port) {
            if told(before, port) != told(&now, port) {
                self.announcements.changed(port);
            }
        }
    }

    /// Addresses of the mapping table's memory, for who knows what pages it is best kept in.
    pub fn table_memory(&self) -> core::ops::Range<usize> {
        self.table.memory()
    }

    /// The number of an attachment.
    pub fn port(&self, name: &str) -> Option<PortId> {
        self.world.load().attachments().find(|a| a.name == name).map(|a| a.port)
    }
    /// The name of an attachment.
    pub fn port_name(&self, port: PortId) -> Option<String> {
        self.world.load().attachment(port).map(|a| a.name.clone())
    }
    /// Every attachment, by number.
    pub fn ports(&self) -> Vec<Attachment> {
        self.world.load().attachments().cloned().collect()
    }
    /// The key of whoever is called so in all the fabric, if his domain is served here.
    pub fn key(&self, name: SirAddress) -> Option<Key> {
        self.world.load().key(name)
    }
    /// The world as it is now.
    pub fn world(&self) -> Arc<World> {
        self.world.load_full()
    }
    /// The MTU told to the guest behind `port`: virtio config space, DHCP option 26, RA; of a task, its TUN's; the uplink's own of [`PortId::FABRIC`]. Zero
    /// where there is no such port.
    pub fn mtu(&self, port: PortId) -> u16 {
        let world = self.world.load();
        if port == PortId::FABRIC {
            return world.uplink_mtu;
        }
        let Some(attachment) = world.attachment(port) else { return 0 };
        match world.network(attachment.network) {
            Some(network) => network.mtu,
            None if attachment.is_task() => world.uplink_mtu,
            None => 0,
        }
    }

    /// What the guest behind `port` can take from now on.
    pub fn set_receiver(&self, port: PortId, receiver: Receiver) {
        let Some(cell) = self.receivers.get(usize::from(port.0)) else { return };
        let before = Receiver::unpack(cell.swap(receiver.pack(), Relaxed));
        match (before.up, receiver.up) {
            (false, true) => self.announcements.started(port),
            (true, false) => self.announcements.stopped(port),
            _ => {}
        }
    }
    /// Whether the guest behind `port` is there and takes a packet with `offload` as it is.
    #[inline(always)]
    pub(super) fn plainly_takes(&self, port: PortId, offload: &Offload) -> bool {
        let Some(cell) = self.receivers.get(usize::from(port.0)) else { return false };
        let bits = cell.load(Relaxed);
        bits & Receiver::UP != 0 && (offload.is_none() || Receiver::unpack(bits).takes(offload).is_ok())
    }
    /// What the guest behind `port` can take.
    #[inline]
    pub fn receiver(&self, port: PortId) -> Receiver {
        self.receivers
            .get(usize::from(port.0))
            .map_or(Receiver::default(), |c| Receiver::unpack(c.load(Relaxed)))
    }

    /// Whether [`super::Walker::next_triangle`] is going to be asked: whether this host tells redirects.
    pub fn want_triangles(&self, wanted: bool) {
        self.triangles.store(wanted, Relaxed);
    }
    pub(super) fn wants_triangles(&self) -> bool {
        self.triangles.load(Relaxed)
    }

    /// Who on this host listens to which groups, from now on: all of it.
    pub fn publish_groups(&self, groups: Groups) {
        self.groups.store(Arc::new(groups));
    }
    /// Every group that somebody listens to, here or elsewhere, ordered by network and address.
    pub fn groups(&self) -> Vec<GroupLine> {
        let (world, groups) = (self.world.load(), self.groups.load());
        let distant = world.networks().flat_map(|network| network.distant_groups().map(|(group, _)| group));
        let all: BTreeSet<Key> = groups.iter().map(|(group, _)| group).chain(distant).collect();
        let mut lines: Vec<_> =
            all.into_iter().filter_map(|group| group_line(&world, &groups, group)).collect();
        lines.sort_by(|a, b| (&a.network, a.group).cmp(&(&b.network, b.group)));
        lines
    }

    /// Who holds a shared address of `network` now, and the MAC it was claimed with.
    pub fn holder(&self, network: &str, address: IpAddr) -> Option<(String, EthernetAddress)> {
        let world = self.world.load();
        let network = world.networks().find(|known| known.name == network)?;
        let holder = network.further().shared(key_in(network, address)?)?.holder()?;
        Some((world.attachment(holder.port)?.name.clone(), holder.mac))
    }

    /// Every mapping, prefixes and shared addresses among them, ordered by network and address.
    pub fn mappings(&self) -> Vec<MappingLine> {
        self.mappings_beside(&Bulk::NONE)
    }

    /// As [`Nve::mappings`], without those that only `bulk` says.
    pub fn mappings_beside(&self, bulk: &Bulk) -> Vec<MappingLine> {
        let world = self.world.load();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let is_of_bulk = |id| bulk.host_of(id).is_some() && registry.lessons.of(id).is_none();
        let own = self.table.iter().filter(|(id, _)| !is_of_bulk(*id)).filter_map(|(id, target)| {
            let line = mapping_line(&world, id, Some(target))?;
            let Some(Learned { source, epoch, since, until }) = registry.lessons.of(id) else {
                return Some(line);
            };
            Some(MappingLine { source, epoch, since: Some(since), until, ..line })
        });
        let shared =
            world.networks().flat_map(|network| network.further().all_shared()).filter_map(|shared| {
                let holder = shared.holder().map(|holder| Target::Local(holder.port));
                Some(MappingLine { shared: true, ..mapping_line(&world, shared.key, holder)? })
            });
        let prefixes = world.networks().flat_map(|network| {
            network.further().prefixes().iter().filter_map(|(prefix, target)| {
                let line = mapping_line(&world, key_in(network, prefix.address().into())?, Some(*target))?;
                Some(MappingLine { length: Some(prefix.prefix_len()), ..line })
            })
        });
        let several = world.all_several().iter().flat_map(|several| {
            several.places().filter_map(|target| mapping_line(&world, several.key, Some(target)))
        });
        let mut lines: Vec<_> = own.chain(shared).chain(prefixes).chain(several).collect();
        lines.sort_by(|a, b| (&a.network, a.address, a.length).cmp(&(&b.network, b.address, b.length)));
        lines
    }

    /// Every host that a mapping names and what is sent there at `now` (of the epoch of [`super::Walker::begin`]), by locator.
    pub fn paths(&self, now: Duration) -> Vec<PathLine> {
        let world = self.world.load();
        let line = |reach: &Reach| PathLine {
            locator: reach.locator,
            mtu: reach.path.mtu(now, world.uplink_mtu),
            learned: reach.path.learned(now).map(|learned| learned.age),
        };
        let mut lines: Vec<_> = world.reaches().map(line).collect();
        lines.sort_by_key(|line| line.locator);
        lines
    }

    /// Sums over all workers, past and present.
    pub fn counters(&self) -> Totals {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = Totals::default();
        for attachment in self.world.load().attachments() {
            let mut port = PortTotals::default();
            workers.iter().for_each(|cells| cells.add_port(attachment.port, &mut port));
            totals.ports.push((attachment.name.clone(), port));
        }
        workers.iter().for_each(|cells| cells.add_uplink(&mut totals.uplink));
        workers.iter().for_each(|cells| cells.add_outside(&mut totals.outside));
        totals
    }

    /// Cells for one more worker.
    pub(crate) fn register_worker(&self) -> Arc<WorkerCells> {
        let cells = Arc::new(WorkerCells::default());
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(cells.clone());
        cells
    }
}

/// What a bulk says, in the table's words: a target for each of its hosts, and none for each of its identifiers.
struct BulkTargets<'a> {
    bulk: &'a Bulk,
    /// By the place of a host: for IPv4 addresses, and for IPv6 ones. `None`: the host is this one, where attachments say more.
    targets: Vec<[Option<Target>; 2]>,
}

impl<'a> BulkTargets<'a> {
    fn new(bulk: &'a Bulk, world: &World, numbers: &HashMap<Locator, LocatorId>) -> Self {
        let by_name: HashMap<&str, &Network> = world.networks().map(|n| (n.name.as_str(), n)).collect();
        let targets = bulk.hosts().iter().map(|host| {
            let place = by_name.get(host.network.as_str()).zip(numbers.get(&host.locator));
            let place = place.filter(|_| !world.is_own_locator(host.locator));
            [true, false].map(|is_ipv4| {
                let (network, id) = place?;
                let neutral = network.neutral_to(host.locator, is_ipv4, world.checksum);
                Some(Target::Remote(*id, neutral))
            })
        });
        Self { bulk, targets: targets.collect() }
    }

    fn target(&self, key: Key, place: usize) -> Option<Target> {
        let [ipv4, ipv6] = *self.targets.get(place)?;
        match if key.type_number() == 2 { ipv4 } else { ipv6 }? {
            Target::Remote(id, neutral) => {
                Some(Target::Remote(id, neutral.filter(|_| key.identifier().has_neutral_form())))
            }
            here @ Target::Local(_) => Some(here),
        }
    }

    fn len(&self) -> usize {
        self.bulk.len()
    }

    fn of(&self, key: Key) -> Option<Target> {
        self.target(key, self.bulk.host_of(key)?)
    }

    /// Whether it says where `key` lives, which is elsewhere.
    fn has(&self, key: Key) -> bool {
        !self.bulk.is_empty() && self.of(key).is_some()
    }

    fn iter(&self) -> impl Iterator<Item = (Key, Target)> {
        self.bulk.iter().filter_map(|(key, place)| Some((key, self.target(key, place)?)))
    }
}

fn identifier_count(setup: &CheckedSetup) -> usize {
    let setup = setup.setup();
    let tenants = setup.attachments.iter().map(|a| a.addresses.len()).sum::<usize>();
    let tasks = setup.tasks.iter().map(|task| task.addresses.len()).sum::<usize>();
    tenants + tasks + setup.mappings.len() + setup.task_mappings.len() + setup.bulk.len()
}

fn group_line(world: &World, groups: &Groups, key: Key) -> Option<GroupLine> {
    let (id, network) = world.network_of(key)?;
    let group = match key.kind() {
        Kind::Ipv4(_, group) => IpAddr::V4(group),
        Kind::Multicast(_, scope, group) => IpAddr::V6(Identifier::group_address(scope, group)),
        _ => return None,
    };
    let own = |port: &PortId| world.attachment(*port).filter(|attachment| attachment.network == id);
    let attachments = groups.ports(key).iter().filter_map(own).map(|a| a.name.clone()).collect();
    let hosts = network.listening_hosts(key).iter();
    let locators = hosts.filter_map(|host| world.locator(*host)).collect();
    let identifier = key.identifier();
    Some(GroupLine { network: network.name.clone(), group, identifier, attachments, locators })
}

/// The line of one key; `target` is `None` where it is here and nobody holds it.
fn mapping_line(world: &World, key: Key, target: Option<Target>) -> Option<MappingLine> {
    let domain = world.domain(key.domain())?;
    let network = world.network_of(key).map(|(_, network)| network);
    let address = match (key.kind(), network) {
        (Kind::Ipv4(_, address), Some(_)) => IpAddr::V4(address),
        (Kind::Ipv6(_, low), Some(network)) => IpAddr::V6(network.ipv6?.address(low)),
        (Kind::Local(_), _) => IpAddr::V6(domain.address(key.identifier())),
        _ => return None,
    };
    let (locator, attachment) = match target {
        Some(Target::Local(port)) => (domain.locator(), Some(world.attachment(port)?.name.clone())),
        Some(Target::Remote(id, _)) => (world.locator(id)?, None),
        None => (domain.locator(), None),
    };
    // As we write it, or would as a peer.
    let wire = match world.neutral_to(key, locator) {
        Some(neutral) => locator.neutral(key.identifier(), neutral),
        None => world.unadjusted(locator, key),
    };
    let network = match network {
        Some(network) => network.name.clone(),
        None => Realm::Tasks(world.domain_name(domain.id()).map(str::to_owned)).name().into_owned(),
    };
    let identifier = key.identifier();
    Some(MappingLine {
        network,
        address,
        length: None,
        shared: false,
        sir: domain.sir(),
        identifier,
        locator,
        attachment,
        wire: wire.ipv6(),
        source: Source::Setup,
        epoch: 0,
        since: None,
        until: None,
    })
}

/// The key of a task's address.
fn task_key(setup: &Setup, address: Ipv6Addr) -> Option<Key> {
    let domain = setup.domain_called(address)?;
    domain.key(task_identifier(domain.sir(), address)?)
}

impl Registry {
    /// Numbers for every attachment and locator of `setup`: old ones where they had one.
    fn number(&mut self, setup: &CheckedSetup) -> Result<HashMap<String, PortId>, ApplyError> {
        let setup = setup.setup();
        let taken: HashSet<PortId> = self.ports.values().chain(self.resting.values()).copied().collect();
        let mut free = (0..MAX_PORTS as u16).map(PortId).filter(|port| !taken.contains(port));
        let mut ports = HashMap::new();
        let tasks = setup.tasks.iter().map(|task| &task.name);
        for name in setup.attachments.iter().map(|attachment| &attachment.name).chain(tasks) {
            let port = match self.ports.get(name).or_else(|| self.resting.get(name)) {
                Some(port) => *port,
                None => free.next().ok_or(ApplyError::NoFreePort)?,
            };
            ports.insert(name.clone(), port);
        }
        for locator in setup.locators() {
            self.number_of(locator);
        }
        Ok(ports)
    }

    /// The epoch of what is known of `key`; zero of what the setup alone says.
    pub(super) fn epoch_of(&self, key: Key) -> u64 {
        let learned = self.lessons.of(key).map_or(0, |learned| learned.epoch);
        self.moved_here.get(&key).copied().unwrap_or(0).max(learned)
    }

    /// The number of a host: its old one, if it had one.
    pub(super) fn number_of(&mut self, locator: Locator) -> LocatorId {
        let next = LocatorId(self.reaches.len() as u32);
        let id = *self.locator_ids.entry(locator).or_insert(next);
        if id == next {
            self.reaches.push(Reach::to(locator));
        }
        id
    }

    /// What the next world is made with.
    fn numbers<'a>(&'a self, ports: &'a HashMap<String, PortId>) -> Numbers<'a> {
        Numbers {
            ports,
            reaches: &self.reaches,
            locators: &self.locator_ids,
            holders: &self.holders,
            away: &self.away,
        }
    }

    /// Every key of `setup` and where it lives.
    fn targets(&self, setup: &CheckedSetup, world: &World) -> HashMap<Key, Target> {
        let mut targets = HashMap::new();
        let by_name: HashMap<&str, &Network> = world.networks().map(|n| (n.name.as_str(), n)).collect();
        for mapping in &setup.setup().mappings {
            let Some(network) = by_name.get(mapping.network.as_str()) else { continue };
            let Some(key) = key_in(network, mapping.address) else { continue };
            let Some(id) = self.locator_ids.get(&mapping.locator) else { continue };
            targets.insert(key, Target::Remote(*id, world.neutral_to(key, mapping.locator)));
        }
        for mapping in &setup.setup().task_mappings {
            let Some(key) = task_key(setup.setup(), mapping.address) else { continue };
            let Some(id) = self.locator_ids.get(&mapping.locator) else { continue };
            targets.insert(key, Target::Remote(*id, world.neutral_to(key, mapping.locator)));
        }
        // After the mappings: where one names this host, the attachment is the better answer.
        for attachment in world.attachments() {
            if attachment.is_task() {
                let own = attachment.keys().map(|own| (own, Target::Local(attachment.port)));
                targets.extend(own);
            }
            let Some(network) = world.network(attachment.network) else { continue };
            let own = attachment.addresses.iter().filter_map(|a| key_in(network, *a));
            for key in own.filter(|key| attachment.holds(*key)) {
                targets.insert(key, Target::Local(attachment.port));
            }
        }
        // Those have no one place: the walk asks for it when the table has none.
        for several in world.all_several() {
            targets.remove(&several.key);
        }
        targets
    }

    /// Those that waited and are on standby no more: the operator says that their guests are here.
    fn declared_here(&self, setup: &CheckedSetup) -> Vec<PortId> {
        let setup = setup.setup();
        let stays = |name: &&String| setup.attachments.iter().any(|attachment| attachment.name == **name);
        let off = self.standby.iter().filter(|name| !setup.moves.waits(name)).filter(stays);
        off.filter_map(|name| self.ports.get(name).copied()).collect()
    }

    /// Which attachments of `setup` wait, and for what: those it has on standby, unless their guests have come, and what had gone from the
    /// others before. Whom it placed where.
    fn await_guests(
        &mut self,
        setup: &CheckedSetup,
        ports: &HashMap<String, PortId>,
        presences: &Presences,
    ) -> Vec<(PortId, Presence)> {
        let setup = setup.setup();
        let network = |name: &str| setup.networks.iter().find(|network| network.name == name);
        let guests = setup.attachments.iter().map(|attachment| {
            let own = attachment.addresses.iter().map(|address| {
                let network = network(&attachment.network)?;
                setup.numbered_domain(network.sir_domain.as_deref())?.key(network.identifier(*address)?)
            });
            (&attachment.name, own.flatten().collect::<HashSet<Key>>())
        });
        let tasks = setup.tasks.iter().map(|task| {
            let own = task.addresses.iter().map(|address| task_key(setup, *address));
            (&task.name, own.flatten().collect())
        });
        let (mut away, mut placed) = (Away::default(), Vec::new());
        for (name, keys) in guests.chain(tasks) {
            let Some(port) = ports.get(name).copied() else { continue };
            let waited = self.ports.contains_key(name) && presences.get(port) != Presence::Here;
            let (was_on_standby, on_standby) = (self.standby.contains(name), setup.moves.waits(name));
            let awaited: HashSet<Key> = match (waited, was_on_standby, on_standby) {
                // Put on standby now, or its guest has not come.
                (_, false, true) | (true, true, true) => keys,
                (false, ..) | (_, true, false) => HashSet::new(),
                // Those that had gone.
                (true, false, false) => {
                    let gone = self.away.get(&port);
                    keys.into_iter().filter(|id| gone.is_some_and(|gone| gone.contains(id))).collect()
                }
            };
            let place = match awaited.is_empty() {
                true => Some(Presence::Here),
                false if !waited => Some(Presence::Waiting),
                false => None,
            };
            if let Some(place) = place {
                presences.set(port, place);
                placed.push((port, place));
            }
            if !awaited.is_empty() {
                away.insert(port, awaited);
            }
        }
        self.away = away;
        self.standby = setup.moves.standby.clone();
        placed
    }

    /// Makes `ports` the numbers in use; the ones no longer used rest until the apply after the next. Of shared addresses, keeps the holders
    /// that `world` lists.
    fn settle(&mut self, ports: HashMap<String, PortId>, world: &World) {
        let shared = world.networks().flat_map(|network| network.further().all_shared());
        self.holders = shared.map(|shared| (shared.key, shared.keep_if_listed())).collect();
        let before = std::mem::replace(&mut self.ports, ports);
        self.resting = before.into_iter().filter(|(name, _)| !self.ports.contains_key(name)).collect();
    }
}
