//! Attachments as the data path reads them: the NICs of tenants, and of tasks.
//!
//! What must stay true: an attachment's keys are those of its addresses that are here, of a shared address that it holds, or in a prefix
//! behind it; nothing is delivered to it under another. A task's network is a number that no network
//! has, so that nothing of a network is ever found for it.

use core::net::IpAddr;
use std::collections::{HashMap, HashSet};

use smoltcp::wire::{EthernetAddress, IpCidr};

use super::world::key_in;
use super::{Network, NetworkId, Realm};
use crate::addr::{Domain, Key};
use crate::pipeline::PortId;
use crate::setup::{self, task_identifier};

/// The MAC that the core's Ethernet headers give every task: what the shell puts before a packet from a task's TUN, and takes off one to it.
/// (Locally administered; the middle bytes spell "ILA".)
pub const TASK_MAC: EthernetAddress = EthernetAddress([0x02, 0x49, 0x4c, 0x41, 0x00, 0x02]);

/// No key.
const NONE: u64 = 0;

/// One NIC of a tenant system, or of a task.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Keys of its first addresses; [`NONE`] where there are fewer.
    first: [u64; 4],
    /// Keys of the others.
    further: Box<[u64]>,
    /// Keys of those of its addresses that are elsewhere until its guest comes (docs/decisions/0017). It holds none of them.
    awaited: Box<[Key]>,
    /// Its own MAC.
    pub mac: EthernetAddress,
    /// Virtual MACs it may also use.
    pub macs: Box<[EthernetAddress]>,
    /// Its number, stable while its name is configured.
    pub port: PortId,
    /// Its network; of a task, a number that no network has.
    pub network: NetworkId,
    /// The identifier space of its network, or of a task's own addresses.
    pub sir_domain: Domain,
    /// Name in config, counters and captures.
    pub name: String,
    /// Its own addresses; the first of each family is the one told by DHCP.
    pub addresses: Vec<IpAddr>,
    /// Prefixes behind it.
    pub prefixes: Box<[IpCidr]>,
    /// Addresses it may hold in turn with others.
    pub shared: Box<[IpAddr]>,
    /// Host name told by DHCPv4.
    pub hostname: Option<String>,
    /// What the metadata service tells it besides.
    pub instance: setup::Instance,
}

impl Attachment {
    /// Whether one of its addresses has this key.
    #[inline]
    pub fn holds(&self, key: Key) -> bool {
        self.first.contains(&key.bits()) || self.further.contains(&key.bits())
    }

    /// Whether one of its addresses has these low 32 bits, host byte order, in the network and family of `peer`.
    #[inline]
    pub(crate) fn holds_beside(&self, peer: Key, low: u32) -> bool {
        let bits = peer.bits() & !u64::from(u32::MAX) | u64::from(low);
        self.first.contains(&bits) || self.further.contains(&bits)
    }

    /// Keys of its own addresses that are here.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.first.iter().chain(&self.further).filter_map(|bits| Key::from_bits(*bits))
    }

    /// Who it belongs to.
    pub fn realm(&self) -> Realm {
        match self.network {
            NetworkId::OF_TASKS => Realm::Tasks(self.sir_domain.id()),
            network => Realm::Network(network),
        }
    }

    /// Whether it is a task's.
    pub fn is_task(&self) -> bool {
        self.network == NetworkId::OF_TASKS
    }

    /// Whether one of its addresses has this key, and is elsewhere as far as this world knows.
    pub(crate) fn awaits(&self, key: Key) -> bool {
        self.awaited.contains(&key)
    }
    /// What it waits for.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = Key> {
        self.awaited.iter().copied()
    }

    /// Holds its `keys`, but for those that are away.
    pub(super) fn hold(&mut self, keys: impl Iterator<Item = Key>, away: &Away) {
        let (awaited, held): (Vec<_>, Vec<_>) =
            keys.partition(|key| away.get(&self.port).is_some_and(|away| away.contains(key)));
        let held: Vec<u64> = held.into_iter().map(Key::bits).collect();
        self.first = first_of(&held);
        self.further = held.get(4..).unwrap_or_default().into();
        self.awaited = awaited.into();
    }
    /// Whether it has an address here.
    pub(crate) fn is_here(&self) -> bool {
        self.first[0] != NONE
    }
}

/// What attachments wait for.
pub(crate) type Away = HashMap<PortId, HashSet<Key>>;

impl Attachment {
    pub(super) fn build(
        attachment: &setup::Attachment,
        port: PortId,
        (network, facts): (NetworkId, &Network),
        away: &Away,
    ) -> Self {
        let mut built = Self {
            first: [NONE; 4],
            further: Box::default(),
            awaited: Box::default(),
            mac: attachment.mac,
            macs: attachment.macs.clone().into(),
            port,
            network,
            sir_domain: facts.sir_domain,
            name: attachment.name.clone(),
            addresses: attachment.addresses.clone(),
            prefixes: attachment.prefixes.clone().into(),
            shared: attachment.shared.clone().into(),
            hostname: attachment.hostname.clone(),
            instance: attachment.instance.clone(),
        };
        let own = attachment.addresses.iter().filter_map(|address| key_in(facts, *address));
        built.hold(own, away);
        built
    }

    pub(super) fn of_task(task: &setup::Task, port: PortId, domain: Domain, away: &Away) -> Self {
        let mut built = Self {
            first: [NONE; 4],
            further: Box::default(),
            awaited: Box::default(),
            mac: TASK_MAC,
            macs: Box::default(),
            port,
            network: NetworkId::OF_TASKS,
            sir_domain: domain,
            name: task.name.clone(),
            addresses: task.addresses.iter().copied().map(IpAddr::V6).collect(),
            prefixes: Box::default(),
            shared: Box::default(),
            hostname: None,
            instance: setup::Instance::default(),
        };
        let own = task.addresses.iter().filter_map(|address| task_identifier(domain.sir(), *address));
        built.hold(own.filter_map(|identifier| domain.key(identifier)), away);
        built
    }
}

/// The first keys, where a line of the cache has them all.
fn first_of(keys: &[u64]) -> [u64; 4] {
    let mut first = [NONE; 4];
    for (slot, bits) in first.iter_mut().zip(keys) {
        *slot = *bits;
    }
    first
}
