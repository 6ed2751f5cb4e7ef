//! What is sent to many of one network: groups and broadcasts, from a tenant and from the wire (docs/decisions/0011).
//!
//! ```text
//!   from a tenant:  admitted ──> Group ──────────────────────────┐
//!   from the wire:  L:(VNI:group) ──> Group ──> source judged ───┴─> copies.rs: one after another, each for a Listening or a host
//! ```
//!
//! What must stay true:
//!
//! * A [`Group`] is of one network, that of its identifier, and a [`Listening`] is an attachment of that network: nothing else makes one, and
//!   no copy is built without one.
//! * What came from the uplink does not go there again; its source is judged as any.
//! * A packet to many is never answered with an ICMP error, and its sender gets no copy.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::admit::Bearer;
use super::enter::Whence;
use super::look_up::{Recipient, Tenant};
use super::walk::{Stop, Walk};
use super::wire::Arriving;
use super::{Fate, PortId, Question, Scratch, copies, deliver, judge};
use crate::DropReason;
use crate::addr::{Identifier, Key, Kind};
use crate::packet::ipv6::Ipv6;
use crate::packet::{ETHERNET_LEN, Frame};
use crate::policy::{Attachment, LocatorId, Network, NetworkId, World};
use crate::tables::{Groups, group_in};

/// The IPv4 groups that everybody listens to without saying so (RFC 4541, section 2.1.2): 224.0.0.0/24.
const LOCAL_GROUPS: u32 = 0xe000_0000;

/// The hop limit on the wire: the sender's own, often 1, would end in the fabric.
pub(crate) const WIRE_HOP_LIMIT: u8 = 64;

/// A group or broadcast of one network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<'w> {
    network: &'w Network,
    network_id: NetworkId,
    key: Key,
    extent: Extent,
    hop_limit: u8,
}

/// Who is sent what is sent to a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Extent {
    Everybody,
    Listeners,
}

impl<'w> Group<'w> {
    /// The group of this key; `None` where it is none, or none of a network known here.
    pub(crate) fn of(world: &'w World, key: Key) -> Option<Self> {
        let (network_id, network) = world.network_of(key)?;
        let (everybody, link) = match key.kind() {
            Kind::Ipv4(_, address) if network.is_broadcast4(address) => (true, true),
            Kind::Ipv4(vnid, address) => {
                group_in(vnid, address.into())?;
                let local = address.to_bits() >> 8 == LOCAL_GROUPS >> 8;
                (local, local)
            }
            Kind::Multicast(vnid, scope, low) => {
                network.ipv6?;
                group_in(vnid, Identifier::group_address(scope, low).into())?;
                (scope == 2 && low == 1, scope == 2)
            }
            _ => return None,
        };
        let extent = if everybody || network.floods() { Extent::Everybody } else { Extent::Listeners };
        // Whoever is on the same link is as far as a neighbour; what has a wider scope has come far, and must not go on (design,
        // section 5, "Hop count").
        let hop_limit = if link { 255 } else { 1 };
        Some(Self { network, network_id, key, extent, hop_limit })
    }

    /// The only network that hears it.
    pub(crate) fn network(&self) -> &'w Network {
        self.network
    }
    /// The key.
    pub(crate) fn key(&self) -> Key {
        self.key
    }
    /// What a copy is delivered with.
    pub(crate) fn hop_limit(&self) -> u8 {
        self.hop_limit
    }
    /// Ports that may be given a copy; each is still to be judged.
    pub(crate) fn ports<'g>(&self, groups: &'g Groups) -> &'g [PortId]
    where
        'w: 'g,
    {
        match self.extent {
            Extent::Everybody => self.network.ports(),
            Extent::Listeners => groups.ports(self.key),
        }
    }
    /// Other hosts that are sent a copy.
    pub(crate) fn hosts(&self) -> &'w [LocatorId] {
        match self.extent {
            Extent::Everybody => self.network.hosts(),
            Extent::Listeners => self.network.listening_hosts(self.key),
        }
    }
    /// As its tenants know an IPv6 group.
    pub(crate) fn ipv6(&self) -> Option<Ipv6Addr> {
        match self.key.kind() {
            Kind::Multicast(_, scope, low) => Some(Identifier::group_address(scope, low)),
            _ => None,
        }
    }
    /// The type that the identifiers of its senders have.
    fn source_type(&self) -> u8 {
        if self.key.type_number() == 2 { 2 } else { 3 }
    }
}

/// An attachment that may be given a copy of what is sent to a group: proof that it is of the group's network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listening<'w> {
    attachment: &'w Attachment,
    group: Group<'w>,
}

impl<'w> Listening<'w> {
    /// The attachment of `port`, if it is of the group's network and its guest is here.
    pub(crate) fn at(world: &'w World, group: &Group<'w>, port: PortId) -> Option<Self> {
        let attachment = world.attachment(port)?;
        (attachment.network == group.network_id && attachment.is_here())
            .then_some(Self { attachment, group: *group })
    }
}

impl<'w> Tenant<'w> for Listening<'w> {
    fn network(&self) -> &'w Network {
        self.group.network
    }
    fn key(&self) -> Key {
        self.group.key
    }
}

impl<'w> Recipient<'w> for Listening<'w> {
    fn attachment(&self) -> &'w Attachment {
        self.attachment
    }
    /// RFC 1112, section 6.4; RFC 2464, section 7.
    fn mac(&self) -> [u8; 6] {
        let [_, b, c, d] = self.group.key.low().to_be_bytes();
        match self.group.key.kind() {
            Kind::Ipv4(_, address) if address.is_multicast() => [0x01, 0x00, 0x5e, b & 0x7f, c, d],
            Kind::Multicast(_, _, low) => [0x33, 0x33, (low >> 24) as u8, b, c, d],
            _ => [0xff; 6],
        }
    }
}

/// From a tenant to an IPv4 group or broadcast; `None`: `destination` is neither.
#[cold]
pub(crate) fn from_tenant4(
    walk: &mut Walk<'_>,
    bearer: Bearer<'_>,
    question: &Question,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Option<Result<Fate, Stop>> {
    let group = Group::of(walk.world, bearer.network.keys4.of(destination.to_bits()))?;
    Some(match bearer.admit4(walk.nve, source) {
        Ok(_) => copies::first(walk, question, &group, Ipv6Addr::UNSPECIFIED, frame, scratch),
        Err(reason) => Err(reason.into()),
    })
}

/// From a tenant to an IPv6 group.
#[cold]
pub(crate) fn from_tenant6(
    walk: &mut Walk<'_>,
    bearer: Bearer<'_>,
    question: &Question,
    header: Ipv6<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let key = bearer.network.group(header.destination().into());
    let group = key.and_then(|key| Group::of(walk.world, key));
    let group = group.ok_or(DropReason::Multicast)?;
    let (_admitted, source) = bearer.admit6_to_group(walk.nve, header.source())?;
    if header.hop_limit() == 0 {
        return Err(DropReason::HopLimit.into());
    }
    if question.is_icmpv6_error(frame, ETHERNET_LEN) {
        return Err(DropReason::QuotedPacket.into());
    }
    copies::first(walk, question, &group, source, frame, scratch)
}

/// From the wire, to our locator and a group.
#[cold]
pub(crate) fn arrived(
    walk: &mut Walk<'_>,
    question: &Question,
    group: &Group<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let header = Ipv6::read(frame, 0)?;
    if header.hop_limit() == 0 {
        return Err(DropReason::HopLimit.into());
    }
    judge::source(walk, header.source(), group.network_id, group.source_type())?;
    if question.is_icmpv6_error(frame, 0) {
        return Err(DropReason::QuotedPacket.into());
    }
    copies::first(walk, question, group, header.source(), frame, scratch)
}

/// What came from the wire, for a listener here.
pub(crate) fn to_listener(
    walk: &mut Walk<'_>,
    listening: &Listening<'_>,
    question: &Question,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let header = Ipv6::read(frame, 0)?;
    let hop_limit = listening.group.hop_limit;
    match listening.group.ipv6() {
        Some(destination) => {
            let shown = deliver::Readdressed { header, destination, hop_limit };
            super::rewrite6::to_tenant(walk, listening, shown, (frame, 0), scratch)
        }
        None => {
            let whence = Whence::Fabric;
            let arriving = Arriving { question, frame, header, hop_limit, whence };
            super::rewrite4::to_tenant(walk, listening, arriving, scratch)
        }
    }
}
