//! What is asked about a packet: where its headers are, and the key of its destination. Parse only; nothing is admitted here.
//!
//! What must stay true: a question is made from the frame's head alone and touches no table that does not fit a cache, so that a batch of
//! questions can be made before the first table line is needed. It is written field by field to where it stays.
//!
//! ```text
//!   from a port:   ARP, ND ────────────────> Gateway        own VN's peer ──> Peer4, Peer6 (key)      all else ──> Elsewhere
//!   from uplink:   our locator, C reversed ─> Arrived (key)  SIR, VNET ──────> Routed (key)            all else ──> Refused
//!   from outside:  a source inside, a locator ─> Refused     SIR, VNET ──────> Routed (key)            all else ──> Refused
//! ```

use core::net::Ipv6Addr;

use super::neighbour::{is_plain4, is_plain6};
use super::{Origin, PortId};
use crate::DropReason;
use crate::addr::{Domain, Identifier, Key, Kind, Neutral};
use crate::packet::ipv4::Ipv4;
use crate::packet::ipv6::{Chain, Ipv6};
use crate::packet::{ETHERNET_LEN, Frame, IpVersion, Transport, Unread, protocol};
use crate::policy::{Attachment, Endpoint, Network, Nobody, Realm, World};

/// A classified packet: small and `Copy`, so that a batch of them can be held while table lines are fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    pub(crate) origin: Origin,
    pub(crate) form: Form,
    /// The protocol behind the IPv6 extension headers, or of the IPv4 header.
    pub(crate) protocol: u8,
    /// The transport header is in the packet (no fragment, or the first).
    pub(crate) has_transport: bool,
    /// The packet is a fragment.
    pub(crate) fragment: bool,
    /// Where the transport header starts, from the IP header.
    pub(crate) l4: u16,
    /// Bytes of the IP packet by its own header; never more than the frame has.
    pub(crate) ip_len: u32,
    /// Nothing in it needs the walk: see `neighbour.rs`.
    pub(crate) plain: bool,
    /// Where the table keeps `key`, if anywhere.
    pub(crate) bucket: u32,
    /// Who it is for, where the form says so, and in which domain.
    pub(crate) key: Option<Key>,
}

/// What kind of packet it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Not to be looked at any further.
    Refused(DropReason),
    /// Its headers go on behind the head.
    Incomplete,
    /// From a tenant: ARP or neighbour discovery.
    Gateway,
    /// From a tenant: IPv4 to an address of its VN, or behind one of its routers.
    Peer4,
    /// From a tenant: IPv6 to an address of its VN.
    Peer6,
    /// From a tenant: IPv4 to the gateway, a broadcast or group, or outside.
    Elsewhere4,
    /// From a tenant: IPv6 to the gateway, link-local, a group, or outside.
    Elsewhere6,
    /// From a task: IPv6 to anybody.
    Task,
    /// From a tenant: IPv6 with hop-by-hop options to a group, which is MLD or refused.
    Options6,
    /// From the uplink: to our locator.
    Arrived,
    /// The same, to a task, where some hosts' packets to tasks are not as the draft has them.
    ArrivedTwisted,
    /// From the uplink, or from outside: to a SIR prefix or /96 that is routed to us.
    Routed,
}

impl Default for Question {
    /// Nobody's.
    fn default() -> Self {
        Self::bare(Origin::Uplink, Form::Refused(DropReason::Malformed))
    }
}

impl Question {
    #[inline]
    fn bare(origin: Origin, form: Form) -> Self {
        Self {
            origin,
            form,
            protocol: 0,
            has_transport: false,
            fragment: false,
            l4: 0,
            ip_len: 0,
            plain: false,
            bucket: 0,
            key: None,
        }
    }

    #[inline]
    fn unread(origin: Origin, unread: Unread) -> Self {
        let form = match unread {
            Unread::BeyondHead => Form::Incomplete,
            Unread::Refused(reason) => Form::Refused(reason),
        };
        Self::bare(origin, form)
    }

    /// An ICMPv6 error: judged by the packet it quotes.
    #[inline]
    pub(crate) fn is_icmpv6_error(&self, frame: &Frame<'_>, offset: usize) -> bool {
        self.protocol == protocol::ICMPV6
            && self.has_transport
            && frame.head.get(offset + usize::from(self.l4)).is_some_and(|icmp_type| *icmp_type < 128)
    }
}

/// Classifies an Ethernet frame from `port`.
#[inline(always)]
pub(crate) fn from_tenant(world: &World, port: PortId, frame: &Frame<'_>, question: &mut Question) {
    let origin = Origin::Port(port);
    let network = world.attachment(port).and_then(|attachment| world.network(attachment.network));
    let Some(network) = network else {
        *question = from_task(world, port, frame);
        return;
    };
    let read = match frame.head.get(12..ETHERNET_LEN) {
        Some([0x08, 0x00]) => tenant_ipv4(origin, network, frame, question),
        Some([0x86, 0xdd]) => tenant_ipv6(origin, network, frame, question),
        Some([0x08, 0x06]) => {
            *question = Question::bare(origin, Form::Gateway);
            return;
        }
        Some(_) => Err(Unread::Refused(DropReason::EtherType)),
        None => Err(Unread::Refused(DropReason::Malformed)),
    };
    if let Err(unread) = read {
        *question = Question::unread(origin, unread);
    }
}

/// Classifies a frame of whoever is in no network: of a task, or nobody.
#[cold]
fn from_task(world: &World, port: PortId, frame: &Frame<'_>) -> Question {
    let origin = Origin::Port(port);
    if !world.attachment(port).is_some_and(Attachment::is_task) {
        return Question::bare(origin, Form::Refused(DropReason::NoAttachment));
    }
    let question = match frame.head.get(12..ETHERNET_LEN) {
        Some([0x86, 0xdd]) => task_ipv6(world, origin, frame),
        Some(_) => Err(Unread::Refused(DropReason::EtherType)),
        None => Err(Unread::Refused(DropReason::Malformed)),
    };
    question.unwrap_or_else(|unread| Question::unread(origin, unread))
}

fn task_ipv6(world: &World, origin: Origin, frame: &Frame<'_>) -> Result<Question, Unread> {
    let header = Ipv6::read(frame, ETHERNET_LEN)?;
    let key = Endpoint::called(world, header.destination()).ok().and_then(|to| to.key);
    let mut question = Question::default();
    ipv6_question(origin, (frame, ETHERNET_LEN), header, (Form::Task, key), &mut question)?;
    // Nobody is on a task's link to discover.
    match question.is_neighbour_discovery(frame, ETHERNET_LEN)? {
        true => Err(Unread::Refused(DropReason::NdUnanswered)),
        false => Ok(question),
    }
}

#[inline(always)]
fn tenant_ipv4(
    origin: Origin,
    network: &Network,
    frame: &Frame<'_>,
    question: &mut Question,
) -> Result<(), Unread> {
    let header = Ipv4::read(frame, ETHERNET_LEN)?;
    let destination = header.destination();
    let is_peer = network.has_peer4(destination) || network.further().leads_out4(destination);
    let key = is_peer.then(|| network.keys4.of(destination.to_bits()));
    if header.protocol() == protocol::UDP && header.has_transport() {
        refuse_server(frame, ETHERNET_LEN + header.header_len(), DHCP4)?;
    }
    *question = Question {
        origin,
        form: if key.is_some() { Form::Peer4 } else { Form::Elsewhere4 },
        protocol: header.protocol(),
        has_transport: false,
        fragment: false,
        l4: header.header_len() as u16,
        ip_len: header.total_len() as u32,
        plain: key.is_some() && is_plain4(header, frame),
        bucket: 0,
        key,
    };
    Ok(())
}

#[inline]
fn tenant_ipv6(
    origin: Origin,
    network: &Network,
    frame: &Frame<'_>,
    question: &mut Question,
) -> Result<(), Unread> {
    let header = Ipv6::read(frame, ETHERNET_LEN)?;
    let destination = header.destination();
    let key = network.has_peer6(destination).then(|| network.keys6.of(destination.to_bits() as u32));
    let form = if key.is_some() { Form::Peer6 } else { Form::Elsewhere6 };
    if let Err(unread) = ipv6_question(origin, (frame, ETHERNET_LEN), header, (form, key), question) {
        *question = with_options(origin, header, unread)?;
        return Ok(());
    }
    if question.is_neighbour_discovery(frame, ETHERNET_LEN)? {
        question.form = Form::Gateway;
    } else if question.protocol == protocol::UDP && question.has_transport {
        refuse_server(frame, ETHERNET_LEN + usize::from(question.l4), DHCP6)?;
    }
    Ok(())
}

/// Hop-by-hop options are refused, but where listeners report with them (RFC 2710, section 3).
#[cold]
fn with_options(origin: Origin, header: Ipv6<'_>, unread: Unread) -> Result<Question, Unread> {
    let refused = unread == Unread::Refused(DropReason::ExtensionHeader);
    if refused && header.next_header() == 0 && header.destination().is_multicast() {
        return Ok(Question::bare(origin, Form::Options6));
    }
    Err(unread)
}

/// The port at which DHCP clients hear servers (RFC 2131, 4.1; RFC 8415, 7.2). They do not ask which port a server speaks from.
pub(super) const DHCP4: [u8; 2] = [0, 68];
pub(super) const DHCP6: [u8; 2] = [2, 34];

/// Only the gateway is a DHCP server: no client takes a tenant's word, also not by unicast.
#[inline]
pub(super) fn refuse_server(frame: &Frame<'_>, ports_at: usize, client: [u8; 2]) -> Result<(), Unread> {
    match frame.head.get(ports_at..).and_then(|rest| rest.first_chunk::<4>()) {
        Some([.., a, b]) if [*a, *b] == client => Err(Unread::Refused(DropReason::RogueServer)),
        // Too short for UDP: the translator or the chain says so.
        None if !frame.is_whole() => Err(Unread::BeyondHead),
        _ => Ok(()),
    }
}

/// Reads the chain and judges the offload metadata by it.
#[inline(always)]
fn ipv6_question(
    origin: Origin,
    (frame, offset): (&Frame<'_>, usize),
    header: Ipv6<'_>,
    (form, key): (Form, Option<Key>),
    question: &mut Question,
) -> Result<(), Unread> {
    let total = header.total_len();
    let chain = Chain::read(frame, offset, header)?;
    if !frame.offload.is_none() {
        let transport = Transport {
            version: IpVersion::V6,
            protocol: chain.protocol,
            start: chain.l4,
            len: total.saturating_sub(chain.l4),
            fragment: chain.fragment,
        };
        // What passes here may be shown to another guest's driver, which believes it.
        if !frame.offload.describes(&transport) {
            return Err(Unread::Refused(DropReason::BadOffload));
        }
    }
    let shortest = match chain.protocol {
        protocol::TCP => 20,
        protocol::UDP | protocol::ICMPV6 => 8,
        _ => 0,
    };
    if chain.has_transport && chain.l4 + shortest > total {
        let reason = if chain.fragment { DropReason::BadFragment } else { DropReason::Malformed };
        return Err(Unread::Refused(reason));
    }
    *question = Question {
        origin,
        form,
        protocol: chain.protocol,
        has_transport: chain.has_transport,
        fragment: chain.fragment,
        l4: chain.l4 as u16,
        ip_len: total as u32,
        plain: is_plain6(&chain, header.hop_limit()),
        bucket: 0,
        key,
    };
    Ok(())
}

impl Question {
    /// Neighbour discovery never leaves its link: the gateway answers it, and no other sees it (RFC 4861; fragmented: RFC 6980).
    #[inline]
    fn is_neighbour_discovery(&self, frame: &Frame<'_>, offset: usize) -> Result<bool, Unread> {
        if self.protocol != protocol::ICMPV6 || !self.has_transport {
            return Ok(false);
        }
        match frame.head.get(offset + usize::from(self.l4)) {
            Some(133..=137) if self.fragment => Err(Unread::Refused(DropReason::BadFragment)),
            Some(133..=137) => Ok(true),
            Some(_) => Ok(false),
            None if frame.is_whole() => Err(Unread::Refused(DropReason::Malformed)),
            None => Err(Unread::BeyondHead),
        }
    }
}

/// Classifies an IPv6 packet from the uplink (reading notes, section 5, checks 1 to 3).
#[inline]
pub(crate) fn from_wire(world: &World, frame: &Frame<'_>, question: &mut Question) {
    if let Err(unread) = wire_ipv6(world, frame, question) {
        *question = Question::unread(Origin::Uplink, unread);
    }
}

#[inline(always)]
fn wire_ipv6(world: &World, frame: &Frame<'_>, question: &mut Question) -> Result<(), Unread> {
    let header = Ipv6::read(frame, 0)?;
    let wanted = wire_destination(world, header.destination()).map_err(Unread::Refused)?;
    ipv6_packet(Origin::Uplink, frame, header, wanted, question)
}

/// As [`from_wire`], of a packet to our locator whose destination has been read before and is `key`; its header, or `None` where it is
/// refused.
#[inline(always)]
pub(super) fn arrived_again<'a>(frame: &Frame<'a>, key: Key, question: &mut Question) -> Option<Ipv6<'a>> {
    let header = Ipv6::read(frame, 0).ok()?;
    ipv6_packet(Origin::Uplink, frame, header, (Form::Arrived, key), question).ok()?;
    Some(header)
}

/// What is asked about an IPv6 packet without a link, once it is known whom it is for.
#[inline(always)]
fn ipv6_packet(
    origin: Origin,
    frame: &Frame<'_>,
    header: Ipv6<'_>,
    (form, key): (Form, Key),
    question: &mut Question,
) -> Result<(), Unread> {
    ipv6_question(origin, (frame, 0), header, (form, Some(key)), question)?;
    if question.is_neighbour_discovery(frame, 0)? {
        return Err(Unread::Refused(DropReason::NdUnanswered));
    }
    if question.protocol == protocol::UDP && question.has_transport {
        // The other edge has looked, too.
        let client = if key.type_number() == 2 { DHCP4 } else { DHCP6 };
        refuse_server(frame, usize::from(question.l4), client)?;
    }
    Ok(())
}

/// Classifies an IPv6 packet that came from outside, through the gateway.
pub(crate) fn from_outside(world: &World, frame: &Frame<'_>, question: &mut Question) {
    if let Err(unread) = outside_ipv6(world, frame, question) {
        *question = Question::unread(Origin::Outside, unread);
    }
}

/// Whoever is outside has no address of the inside, and knows nobody there but by the address that an endpoint has itself (design, section
/// 5, "Isolation").
fn outside_ipv6(world: &World, frame: &Frame<'_>, question: &mut Question) -> Result<(), Unread> {
    let header = Ipv6::read(frame, 0)?;
    let refused = |reason| Err(Unread::Refused(reason));
    match Endpoint::called(world, header.source()) {
        Ok(source) if source.realm == Realm::Outside => {}
        Err(Nobody::NotUnicast) => return refused(DropReason::IllegalSource),
        Ok(_) | Err(Nobody::Locator | Nobody::Identifier | Nobody::Network) => {
            return refused(DropReason::InsideSource);
        }
    }
    if world.known_locator((header.destination().to_bits() >> 64) as u64).is_some() {
        return refused(DropReason::LocatorDestination);
    }
    let wanted = wire_destination(world, header.destination()).map_err(Unread::Refused)?;
    ipv6_packet(Origin::Outside, frame, header, wanted, question)
}

/// Checks 1 to 3: which of our prefixes, and so which domain; a legal type, C reversed.
#[inline(always)]
fn wire_destination(world: &World, destination: Ipv6Addr) -> Result<(Form, Key), DropReason> {
    let (upper, low) = ((destination.to_bits() >> 64) as u64, destination.to_bits() as u64);
    if let Some(domain) = world.domain_here(upper) {
        let identifier = local_identifier(world, domain, low)?;
        let twisted = identifier.type_number() == 1 && world.has_twisted_peers();
        let key = domain.key(identifier).ok_or(DropReason::HostAddress)?;
        return Ok((if twisted { Form::ArrivedTwisted } else { Form::Arrived }, key));
    }
    if let Some(domain) = world.domain_called(upper) {
        let identifier = Identifier::from_bits(low).map_err(|_| DropReason::ReservedType)?;
        return match identifier.kind() {
            Kind::Interface(_) => Err(DropReason::HostAddress),
            // A VN's IPv6 addresses are called by their own names, never through SIR (reading notes, section 5).
            Kind::Ipv6(..) => Err(DropReason::ReservedType),
            Kind::Multicast(..) => Err(DropReason::Multicast),
            Kind::Local(_) | Kind::Ipv4(..) => {
                Ok((Form::Routed, domain.key(identifier).ok_or(DropReason::HostAddress)?))
            }
        };
    }
    match world.network_of_address(destination) {
        Some((_, network)) => Ok((Form::Routed, network.keys6.of(low as u32))),
        None => Err(DropReason::NotOurs),
    }
}

/// The identifier behind our locator in `domain`, the adjustment reversed where C says so.
#[inline]
fn local_identifier(world: &World, domain: &Domain, low: u64) -> Result<Identifier, DropReason> {
    let wire = Identifier::from_bits(low & !Identifier::C_BIT).map_err(|_| DropReason::ReservedType)?;
    let adjusted = low & Identifier::C_BIT != 0;
    let neutral = match wire.kind() {
        Kind::Interface(_) if adjusted => return Err(DropReason::ReservedType),
        Kind::Interface(_) => return Err(DropReason::HostAddress),
        _ if !adjusted => return Ok(wire),
        Kind::Local(_) | Kind::Ipv4(..) => domain.neutral(),
        Kind::Ipv6(vnid, _) => {
            let network = world.network_of_vnid(domain.id(), vnid).ok_or(DropReason::UnknownNetwork)?.1;
            network.neutral6.ok_or(DropReason::UnknownNetwork)?
        }
        Kind::Multicast(vnid, scope, _) => Neutral::multicast(domain.locator(), vnid, scope),
    };
    restore(wire, low as u16, neutral)
}

/// `wire` with its low word `adjusted` put back.
#[inline]
pub(crate) fn restore(wire: Identifier, adjusted: u16, neutral: Neutral) -> Result<Identifier, DropReason> {
    let bits = wire.bits() & !0xffff | u64::from(neutral.reverse(adjusted));
    Identifier::from_bits(bits).map_err(|_| DropReason::ReservedType)
}
