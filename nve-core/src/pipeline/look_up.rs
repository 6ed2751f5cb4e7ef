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
use crate::addr::{Identifier, Kind, Neutral};
use crate::packet::Frame;
use crate::policy::{Attachment, Endpoint, LocatorId, Network, NetworkId, Realm, World};
use crate::setup::Unknown;
use crate::tables::Target;

/// An attachment that may be given packets for `identifier`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiving<'w> {
    pub(crate) attachment: &'w Attachment,
    pub(crate) network: &'w Network,
    pub(crate) network_id: NetworkId,
    pub(crate) identifier: Identifier,
    /// Where its frames go: its own MAC, but for a shared address that was claimed with another.
    pub(crate) mac: EthernetAddress,
}

impl<'w> Receiving<'w> {
    /// The attachment of `port`, if it holds `identifier`, by itself, as shared, or in a prefix.
    #[inline]
    pub(crate) fn at(walk: &Walk<'w>, port: PortId, identifier: Identifier) -> Result<Self, DropReason> {
        let attachment = walk.world.attachment(port).ok_or(DropReason::NoMapping)?;
        let network = walk.world.network(attachment.network).ok_or(DropReason::NoMapping)?;
        let mac = match attachment.holds(identifier) {
            true => attachment.mac,
            false => mac_beyond(walk, attachment, network, identifier).ok_or(DropReason::NoMapping)?,
        };
        Ok(Self { attachment, network, network_id: attachment.network, identifier, mac })
    }
}

/// An attachment that is here and holds an identifier by itself: proof for the shortcut of `neighbour.rs`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plainly<'w>(&'w Attachment);

impl<'w> Plainly<'w> {
    /// Whoever has `identifier`, which is kept in this bucket of the table.
    #[inline]
    pub(crate) fn at(nve: &Nve, world: &'w World, (identifier, bucket): (Identifier, u32)) -> Option<Self> {
        let Some(Target::Local(port)) = nve.table.get_in(bucket, identifier) else { return None };
        world.attachment(port).filter(|attachment| attachment.holds(identifier)).map(Self)
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
    fn identifier(&self) -> Identifier;
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
    fn identifier(&self) -> Identifier {
        self.identifier
    }
}

impl Receiving<'_> {
    /// As other realms call it.
    pub(crate) fn endpoint(&self, walk: &Walk<'_>) -> Endpoint {
        let address = match (self.identifier.kind(), self.network.ipv6) {
            (Kind::Ipv6(_, low), Some(vnet)) => vnet.address(low),
            _ => walk.world.sir.address(self.identifier).ipv6(),
        };
        let realm = Realm::Network(self.network_id);
        Endpoint { realm, address, identifier: Some(self.identifier) }
    }
}

/// A task that may be given packets for `identifier`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToTask<'w> {
    attachment: &'w Attachment,
    identifier: Identifier,
}

impl<'w> ToTask<'w> {
    /// The task of `port`, if it has `identifier`.
    #[cold]
    fn at(walk: &Walk<'w>, port: PortId, identifier: Identifier) -> Option<Self> {
        let attachment = walk.world.attachment(port)?;
        let its = attachment.is_task() && attachment.holds(identifier);
        its.then_some(Self { attachment, identifier })
    }
    /// As everybody calls it.
    pub(crate) fn endpoint(&self, walk: &Walk<'_>) -> Endpoint {
        let address = walk.world.sir.address(self.identifier).ipv6();
        Endpoint { realm: Realm::Tasks, address, identifier: Some(self.identifier) }
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

/// Where frames to `identifier`, which is none of the attachment's own, go if it holds it all the same.
#[cold]
fn mac_beyond(
    walk: &Walk<'_>,
    attachment: &Attachment,
    network: &Network,
    identifier: Identifier,
) -> Option<EthernetAddress> {
    if attachment.awaits(identifier) {
        return (walk.nve.presence(attachment.port) == Presence::Here).then_some(attachment.mac);
    }
    if let Some(shared) = network.further().shared(identifier) {
        return shared.holder().filter(|holder| holder.port == attachment.port).map(|holder| holder.mac);
    }
    let leads = network.further().by_prefix(identifier);
    (leads == Some(Target::Local(attachment.port))).then_some(attachment.mac)
}

/// Where `identifier` lives, or leads.
#[inline]
pub(crate) fn target(walk: &Walk<'_>, identifier: Identifier) -> Option<Target> {
    walk.nve.table.get(identifier).or_else(|| beyond_table(walk, identifier))
}

#[cold]
fn beyond_table(walk: &Walk<'_>, identifier: Identifier) -> Option<Target> {
    if let Some(several) = walk.world.several(identifier) {
        return several.places().next();
    }
    let (_, network) = walk.world.network_of_vnid(identifier.vnid()?)?;
    network.further().find(identifier)
}

/// Where `identifier` lives, or leads, for the packet of `question`: of several places, the one of its flow.
#[inline]
pub(crate) fn target_of(
    walk: &Walk<'_>,
    identifier: Identifier,
    question: &Question,
    frame: &Frame<'_>,
) -> Option<Target> {
    walk.nve.table.get(identifier).or_else(|| match walk.world.several(identifier) {
        Some(several) => choice::towards(walk, several, question, frame),
        None => beyond_table(walk, identifier),
    })
}

/// Where `identifier` lives behind the locator of these upper 64 bits, if there.
pub(crate) fn target_at(walk: &Walk<'_>, identifier: Identifier, upper: u64) -> Option<Target> {
    match walk.world.several(identifier) {
        Some(several) => several.at(upper),
        None => target(walk, identifier),
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
) -> Result<(Identifier, Way), Stop> {
    let identifier = question.key.ok_or(DropReason::NoMapping)?;
    match walk.nve.table.get(identifier) {
        Some(target) => Ok((identifier, Way::Known(target))),
        None => peer_beyond(walk, admitted, identifier, (question, frame), source),
    }
}

/// As [`peer`], of what the table does not have. Nothing leads back to its sender: a router would send it here again.
#[cold]
fn peer_beyond(
    walk: &Walk<'_>,
    admitted: &Admitted<'_>,
    identifier: Identifier,
    (question, frame): (&Question, &Frame<'_>),
    source: IpAddr,
) -> Result<(Identifier, Way), Stop> {
    if let Some(several) = walk.world.several(identifier) {
        let chosen = choice::towards(walk, several, question, frame);
        return chosen.map(|target| (identifier, Way::Known(target))).ok_or_else(|| unreachable(source));
    }
    if let IpAddr::V4(_) = source
        && admitted.network.has_alias(ipv4_of(identifier))
    {
        return Ok((identifier, Way::Alias));
    }
    match beyond_table(walk, identifier) {
        Some(target) if target != Target::Local(admitted.attachment.port) => {
            Ok((identifier, Way::Known(target)))
        }
        None if asks_router(walk.world, identifier) => Ok((identifier, Way::Router)),
        _ => Err(unreachable(source)),
    }
}

/// Whether `identifier`, which has no mapping here, may have one that a router knows.
#[cold]
pub(crate) fn asks_router(world: &World, identifier: Identifier) -> bool {
    world.unknown == Unknown::Router && may_live_elsewhere(world, identifier, None).is_ok()
}

/// Whether `identifier` lives somewhere, as far as is known here.
#[inline]
pub(crate) fn has_home(walk: &Walk<'_>, identifier: Identifier) -> bool {
    target(walk, identifier).is_some() || asks_router(walk.world, identifier)
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

/// An identifier that lives on another host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distant {
    pub(crate) identifier: Identifier,
    pub(crate) realm: Realm,
    pub(crate) locator: LocatorId,
    pub(crate) neutral: Option<Neutral>,
}

impl Distant {
    /// As other realms call it, whatever the wire did.
    #[cold]
    pub(crate) fn endpoint(&self, walk: &Walk<'_>) -> Endpoint {
        let vnet = match self.realm {
            Realm::Network(id) => walk.world.network(id).and_then(|network| network.ipv6),
            Realm::Tasks | Realm::Outside => None,
        };
        let address = match (self.identifier.kind(), vnet) {
            (Kind::Ipv6(_, low), Some(vnet)) => vnet.address(low),
            _ => walk.world.sir.address(self.identifier).ipv6(),
        };
        Endpoint { realm: self.realm, address, identifier: Some(self.identifier) }
    }
}

/// Where the identifier of a packet from the wire lives (reading notes, section 5, check 4).
#[inline]
pub(crate) fn from_wire<'w>(
    walk: &Walk<'w>,
    question: &Question,
    frame: &Frame<'_>,
) -> Result<Wanted<'w>, DropReason> {
    let identifier = question.key.ok_or(DropReason::NotOurs)?;
    match walk.nve.table.get(identifier).or_else(|| beyond_table_from_wire(walk, identifier, question, frame))
    {
        Some(Target::Local(port)) => match Receiving::at(walk, port, identifier) {
            Ok(receiving) => Ok(Wanted::Here(receiving)),
            Err(reason) => ToTask::at(walk, port, identifier).map(Wanted::Task).ok_or(reason),
        },
        Some(Target::Remote(locator, neutral)) => {
            let realm = match identifier.vnid() {
                Some(vnid) => {
                    let network = walk.world.network_of_vnid(vnid);
                    Realm::Network(network.ok_or(DropReason::UnknownNetwork)?.0)
                }
                None => Realm::Tasks,
            };
            Ok(Wanted::There(Distant { identifier, realm, locator, neutral }))
        }
        None => absent(walk, identifier),
    }
}

/// What was sent to this host is for whoever has it here, of several places, too: its sender has chosen.
#[cold]
fn beyond_table_from_wire(
    walk: &Walk<'_>,
    identifier: Identifier,
    question: &Question,
    frame: &Frame<'_>,
) -> Option<Target> {
    match (walk.world.several(identifier), question.form) {
        (None, _) => beyond_table(walk, identifier),
        (Some(several), Form::Arrived) => {
            several.here().map(Target::Local).or_else(|| several.places().next())
        }
        (Some(several), _) => choice::towards(walk, several, question, frame),
    }
}

/// No endpoint's: perhaps a group's.
#[cold]
fn absent<'w>(walk: &Walk<'w>, identifier: Identifier) -> Result<Wanted<'w>, DropReason> {
    if let Some(group) = Group::of(walk.world, identifier) {
        return Ok(Wanted::Many(group));
    }
    match identifier.vnid() {
        Some(vnid) if walk.world.network_of_vnid(vnid).is_none() => Err(DropReason::UnknownNetwork),
        _ => Err(DropReason::NoMapping),
    }
}

/// The identifier and network of an address as an endpoint is called: `SIR:(VNI:VA)` or `VNET:VA`.
#[inline]
pub(crate) fn endpoint(walk: &Walk<'_>, address: Ipv6Addr) -> Option<(NetworkId, Identifier)> {
    let (upper, low) = ((address.to_bits() >> 64) as u64, address.to_bits() as u64);
    if upper == walk.world.sir.upper() {
        let identifier =
            Identifier::from_bits(low).ok().filter(|identifier| identifier.type_number() == 2)?;
        return Some((walk.world.network_of_vnid(identifier.vnid()?)?.0, identifier));
    }
    let (id, network) = walk.world.network_of_address(address)?;
    Some((id, Identifier::ipv6(network.vnid, low as u32)))
}

/// The IPv4 address of a type 2 identifier.
#[inline]
pub(crate) fn ipv4_of(identifier: Identifier) -> Ipv4Addr {
    Ipv4Addr::from_bits(identifier.bits() as u32)
}
