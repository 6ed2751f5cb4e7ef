//! Looking up: where an identifier lives, and the attachment that receives it.
//!
//! What must stay true: a [`Receiving`] holds the identifier it was looked up for, in the network of that identifier; nothing is
//! delivered to an attachment under another, also while a reload is under way.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipv4_xlat::{IcmpError, Icmpv4Error, Icmpv6Error};
use smoltcp::wire::EthernetAddress;

use super::admit::Admitted;
use super::group::Group;
use super::learned::may_live_elsewhere;
use super::question::Form;
use super::walk::{Stop, Walk};
use super::{Nve, PortId, Presence, Question, choice};
use crate::DropReason;
use crate::addr::{Domain, Identifier, Key, Kind, Neutral};
use crate::packet::{Frame, Offload};
use crate::policy::{Attachment, Endpoint, LocatorId, Network, NetworkId, Realm, World};
use crate::setup::Unknown;
use crate::tables::Target;

/// An attachment that may be given packets for `key`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiving<'w> {
    pub(crate) attachment: &'w Attachment,
    pub(crate) network: &'w Network,
    pub(crate) network_id: NetworkId,
    pub(crate) key: Key,
    /// Where its frames go: its own MAC, but for a shared address that was claimed with another.
    pub(crate) mac: EthernetAddress,
}

impl<'w> Receiving<'w> {
    /// The attachment of `port`, if it holds `key`, by itself, as shared, or in a prefix.
    #[inline]
    pub(crate) fn at(walk: &Walk<'w>, port: PortId, key: Key) -> Result<Self, DropReason> {
        let attachment = walk.world.attachment(port).ok_or(DropReason::NoMapping)?;
        let network = walk.world.network(attachment.network).ok_or(DropReason::NoMapping)?;
        let mac = match attachment.holds(key) {
            true => attachment.mac,
            false => mac_beyond(walk, attachment, network, key).ok_or(DropReason::NoMapping)?,
        };
        Ok(Self { attachment, network, network_id: attachment.network, key, mac })
    }
}

/// An attachment that is here and holds an identifier by itself: proof for the shortcut of `neighbour.rs`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plainly<'w>(&'w Attachment);

impl<'w> Plainly<'w> {
    /// The attachment of `port`, which has `key` and takes a packet with `offload`.
    #[inline(always)]
    pub(crate) fn at(
        nve: &Nve,
        world: &'w World,
        (key, port): (Key, PortId),
        offload: &Offload,
    ) -> Option<Self> {
        let attachment = world.attachment(port).filter(|attachment| attachment.holds(key))?;
        nve.plainly_takes(port, offload).then_some(Self(attachment))
    }
    /// Its number.
    #[inline]
    pub(crate) fn port(self) -> PortId {
        self.0.port
    }
    /// Its own MAC.
    #[inline]
    pub(crate) fn mac(self) -> [u8; 6] {
        self.0.mac.0
    }
}

/// Whoever may be given a packet: proof of it. Implemented by the three proofs there are, [`Receiving`], [`ToTask`] and
/// [`super::group::Listening`].
pub(crate) trait Recipient<'w>: Copy {
    fn attachment(&self) -> &'w Attachment;
    /// The frame's destination.
    fn mac(&self) -> [u8; 6];
}

/// A recipient that is in a network, and what the packet says of its destination.
pub(crate) trait Tenant<'w>: Recipient<'w> {
    fn network(&self) -> &'w Network;
    /// The packet's destination.
    fn key(&self) -> Key;
}

impl<'w> Recipient<'w> for Receiving<'w> {
    #[inline]
    fn attachment(&self) -> &'w Attachment {
        self.attachment
    }
    #[inline]
    fn mac(&self) -> [u8; 6] {
        self.mac.0
    }
}

impl<'w> Tenant<'w> for Receiving<'w> {
    #[inline]
    fn network(&self) -> &'w Network {
        self.network
    }
    #[inline]
    fn key(&self) -> Key {
        self.key
    }
}

impl Receiving<'_> {
    /// As other realms call it.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let address = match (self.key.kind(), self.network.ipv6) {
            (Kind::Ipv6(_, low), Some(vnet)) => vnet.address(low),
            _ => self.network.sir_domain.address(self.key.identifier()),
        };
        Endpoint { realm: Realm::Network(self.network_id), address, key: Some(self.key) }
    }
}

/// A task that may be given packets for `key`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToTask<'w> {
    attachment: &'w Attachment,
    key: Key,
}

impl<'w> ToTask<'w> {
    /// The task of `port`, if it has `key`.
    #[cold]
    fn at(walk: &Walk<'w>, port: PortId, key: Key) -> Option<Self> {
        let attachment = walk.world.attachment(port)?;
        let its = attachment.is_task() && attachment.holds(key);
        its.then_some(Self { attachment, key })
    }
    /// As everybody calls it.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let domain = &self.attachment.sir_domain;
        let address = domain.address(self.key.identifier());
        Endpoint { realm: Realm::Tasks(domain.id()), address, key: Some(self.key) }
    }
}

impl<'w> Recipient<'w> for ToTask<'w> {
    fn attachment(&self) -> &'w Attachment {
        self.attachment
    }
    fn mac(&self) -> [u8; 6] {
        self.attachment.mac.0
    }
}

/// Where frames to `key`, which is none of the attachment's own, go if it holds it all the same.
#[cold]
fn mac_beyond(
    walk: &Walk<'_>,
    attachment: &Attachment,
    network: &Network,
    key: Key,
) -> Option<EthernetAddress> {
    if attachment.awaits(key) {
        return (walk.nve.presence(attachment.port) == Presence::Here).then_some(attachment.mac);
    }
    if let Some(shared) = network.further().shared(key) {
        return shared.holder().filter(|holder| holder.port == attachment.port).map(|holder| holder.mac);
    }
    let leads = network.further().by_prefix(key);
    (leads == Some(Target::Local(attachment.port))).then_some(attachment.mac)
}

/// Where `key` lives, or leads.
#[inline]
pub(crate) fn target(walk: &Walk<'_>, key: Key) -> Option<Target> {
    walk.nve.table.get(key).or_else(|| beyond_table(walk, key))
}

#[cold]
fn beyond_table(walk: &Walk<'_>, key: Key) -> Option<Target> {
    if let Some(several) = walk.world.several(key) {
        return several.places().next();
    }
    let (_, network) = walk.world.network_of(key)?;
    network.further().find(key)
}

/// Where `key` lives, or leads, for the packet of `question`: of several places, the one of its flow.
#[inline]
pub(crate) fn target_of(walk: &Walk<'_>, key: Key, question: &Question, frame: &Frame<'_>) -> Option<Target> {
    walk.nve.table.get(key).or_else(|| match walk.world.several(key) {
        Some(several) => choice::towards(walk, several, question, frame),
        None => beyond_table(walk, key),
    })
}

/// Where `key` lives behind the locator of these upper 64 bits, if there.
pub(crate) fn target_at(walk: &Walk<'_>, key: Key, upper: u64) -> Option<Target> {
    match walk.world.several(key) {
        Some(several) => several.at(upper),
        None => target(walk, key),
    }
}

/// The way to a tenant's peer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// It lives there.
    Known(Target),
    /// A router knows.
    Router,
    /// It is no peer, but somebody's alias who is elsewhere.
    Alias,
}

/// The way to a tenant's peer. Its network is the sender's, by the question's key.
///
/// # Errors
/// Without a mapping, the sender is owed "unreachable" (design, section 5, "Unknown destination").
#[inline]
pub(crate) fn peer(
    walk: &Walk<'_>,
    admitted: &Admitted<'_>,
    (question, frame): (&Question, &Frame<'_>),
    source: IpAddr,
) -> Result<(Key, Way), Stop> {
    let key = question.key.ok_or(DropReason::NoMapping)?;
    match walk.nve.table.get(key) {
        Some(target) => Ok((key, Way::Known(target))),
        None => peer_beyond(walk, admitted, key, (question, frame), source),
    }
}

/// As [`peer`], of what the table does not have. Nothing leads back to its sender: a router would send it here again.
#[cold]
fn peer_beyond(
    walk: &Walk<'_>,
    admitted: &Admitted<'_>,
    key: Key,
    (question, frame): (&Question, &Frame<'_>),
    source: IpAddr,
) -> Result<(Key, Way), Stop> {
    if let Some(several) = walk.world.several(key) {
        let chosen = choice::towards(walk, several, question, frame);
        return chosen.map(|target| (key, Way::Known(target))).ok_or_else(|| unreachable(source));
    }
    if let IpAddr::V4(_) = source
        && admitted.network.has_alias(ipv4_of(key))
    {
        return Ok((key, Way::Alias));
    }
    match beyond_table(walk, key) {
        Some(target) if target != Target::Local(admitted.attachment.port) => Ok((key, Way::Known(target))),
        None if asks_router(walk.world, key) => Ok((key, Way::Router)),
        _ => Err(unreachable(source)),
    }
}

/// Whether `key`, which has no mapping here, may have one that a router knows.
#[cold]
pub(crate) fn asks_router(world: &World, key: Key) -> bool {
    world.unknown == Unknown::Router && may_live_elsewhere(world, key, None).is_ok()
}

/// Whether `key` lives somewhere, as far as is known here.
#[inline]
pub(crate) fn has_home(walk: &Walk<'_>, key: Key) -> bool {
    target(walk, key).is_some() || asks_router(walk.world, key)
}

/// No way leads to whom `source` wrote to.
#[cold]
pub(crate) fn unreachable(source: IpAddr) -> Stop {
    let error = match source {
        IpAddr::V4(source) => IcmpError::V4(Icmpv4Error::host_unreachable(source)),
        IpAddr::V6(source) => IcmpError::V6(Icmpv6Error::address_unreachable(source)),
    };
    Stop::Owed(DropReason::NoMapping, error)
}

/// The destination of a packet from the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'w> {
    /// Here.
    Here(Receiving<'w>),
    /// With a task of this host.
    Task(ToTask<'w>),
    /// On another host.
    There(Distant),
    /// With whoever listens.
    Many(Group<'w>),
}

/// A key that lives on another host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distant {
    pub(crate) key: Key,
    pub(crate) realm: Realm,
    pub(crate) domain: Domain,
    pub(crate) locator: LocatorId,
    pub(crate) neutral: Option<Neutral>,
}

impl Distant {
    /// As other realms call it, whatever the wire did.
    #[cold]
    pub(crate) fn endpoint(&self, walk: &Walk<'_>) -> Endpoint {
        let vnet = match self.realm {
            Realm::Network(id) => walk.world.network(id).and_then(|network| network.ipv6),
            Realm::Tasks(_) | Realm::Outside => None,
        };
        let address = match (self.key.kind(), vnet) {
            (Kind::Ipv6(_, low), Some(vnet)) => vnet.address(low),
            _ => self.domain.address(self.key.identifier()),
        };
        Endpoint { realm: self.realm, address, key: Some(self.key) }
    }
}

/// Where the key of a packet from the wire lives (reading notes, section 5, check 4).
#[inline]
pub(crate) fn from_wire<'w>(
    walk: &Walk<'w>,
    question: &Question,
    frame: &Frame<'_>,
) -> Result<Wanted<'w>, DropReason> {
    let key = question.key.ok_or(DropReason::NotOurs)?;
    match walk.nve.table.get(key).or_else(|| beyond_table_from_wire(walk, key, question, frame)) {
        Some(Target::Local(port)) => match Receiving::at(walk, port, key) {
            Ok(receiving) => Ok(Wanted::Here(receiving)),
            Err(reason) => ToTask::at(walk, port, key).map(Wanted::Task).ok_or(reason),
        },
        Some(Target::Remote(locator, neutral)) => {
            let domain = *walk.world.domain(key.domain()).ok_or(DropReason::NotOurs)?;
            let realm = match key.vnid() {
                Some(_) => {
                    let network = walk.world.network_of(key);
                    Realm::Network(network.ok_or(DropReason::UnknownNetwork)?.0)
                }
                None => Realm::Tasks(domain.id()),
            };
            Ok(Wanted::There(Distant { key, realm, domain, locator, neutral }))
        }
        None => absent(walk, key),
    }
}

/// What was sent to this host is for whoever has it here, of several places, too: its sender has chosen.
#[cold]
fn beyond_table_from_wire(
    walk: &Walk<'_>,
    key: Key,
    question: &Question,
    frame: &Frame<'_>,
) -> Option<Target> {
    match (walk.world.several(key), question.form) {
        (None, _) => beyond_table(walk, key),
        (Some(several), Form::Arrived) => {
            several.here().map(Target::Local).or_else(|| several.places().next())
        }
        (Some(several), _) => choice::towards(walk, several, question, frame),
    }
}

/// No endpoint's: perhaps a group's.
#[cold]
fn absent<'w>(walk: &Walk<'w>, key: Key) -> Result<Wanted<'w>, DropReason> {
    if let Some(group) = Group::of(walk.world, key) {
        return Ok(Wanted::Many(group));
    }
    match key.vnid() {
        Some(_) if walk.world.network_of(key).is_none() => Err(DropReason::UnknownNetwork),
        _ => Err(DropReason::NoMapping),
    }
}

/// The key and network of an address as an endpoint is called: `SIR:(VNI:VA)` or `VNET:VA`.
#[inline]
pub(crate) fn endpoint(walk: &Walk<'_>, address: Ipv6Addr) -> Option<(NetworkId, Key)> {
    let (upper, low) = ((address.to_bits() >> 64) as u64, address.to_bits() as u64);
    if let Some(domain) = walk.world.domain_called(upper) {
        let identifier =
            Identifier::from_bits(low).ok().filter(|identifier| identifier.type_number() == 2)?;
        let key = domain.key(identifier)?;
        return Some((walk.world.network_of(key)?.0, key));
    }
    let (id, network) = walk.world.network_of_address(address)?;
    Some((id, network.keys6.of(low as u32)))
}

/// The IPv4 address of a type 2 key.
#[inline]
pub(crate) fn ipv4_of(key: Key) -> Ipv4Addr {
    Ipv4Addr::from_bits(key.low())
}
