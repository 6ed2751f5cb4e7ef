//! ICMPv6 errors are judged by the packet they quote (reading notes, section 5, check 6).
//!
//! ```text
//!   fabric router ──> SIR:(VNI:VA1) or VNET:VA1        quotes  SIR:(VNI:VA1) > L2:(VNI:VA2)     (the wire's form)
//!   shown:   VN's gateway ──> VA1                      quotes  VA1 > VA2                        (the sender's form)
//! ```
//!
//! ```text
//!   packet too big, of a router ──> and the path to L2 carries less (policy/path.rs), for every tenant of this host
//! ```
//!
//! What must stay true: the quoted source is the receiver's own; the quoted destination has a mapping in a network the receiver may
//! reach, or rules would let the quoted packet pass to another realm; the rate is the receiver's allowance. Checksums are updated, never repaired. A tenant's word lowers no path: it would be
//! heard by other tenants.

use core::net::Ipv6Addr;
use core::ops::RangeInclusive;

use ipv4_xlat::checksum::{Delta, Sum};

use super::deliver;
use super::enter::is_registered;
use super::judge;
use super::leave::Leaving;
use super::look_up::{Receiving, Recipient, ToTask, has_home, target, target_at};
use super::peer;
use super::question::restore;
use super::rewrite4;
use super::traffic;
use super::walk::{Stop, Walk};
use super::wire::Arriving;
use super::{Again, Fate, PortId, Question, Rewritten, Scratch};
use crate::DropReason;
use crate::addr::{DomainId, Identifier, Key, Kind, Locator, Neutral};
use crate::gateway::Protocol;
use crate::packet::ipv6::{HEADER_LEN, Ipv6};
use crate::packet::{ETHERNET_LEN, Frame, protocol};
use crate::policy::{Endpoint, IPV6_MINIMUM, Nobody, Realm};
use crate::setup::Unknown;
use crate::tables::Target;

pub(crate) mod outside;

/// The longest ICMPv6 error (RFC 4443, section 2.4 (c)).
const LONGEST_ERROR: usize = 1280;

/// ICMPv6 bytes before the quoted packet.
const BEFORE_QUOTE: usize = 8;

/// The types of errors that there are (RFC 4443, section 2.1).
const DEFINED: RangeInclusive<u8> = 1..=4;

/// Whether the IPv6 packet at the start of `packet` is an ICMPv6 error without extension headers, as translation makes them.
#[inline]
pub(crate) fn is_error(packet: &[u8]) -> bool {
    packet.get(6) == Some(&protocol::ICMPV6) && packet.get(HEADER_LEN).is_some_and(|kind| *kind < 128)
}

/// An error that a neighbour on this host sends to `receiving`, over IPv6.
#[cold]
pub(crate) fn admit_from_neighbour(
    walk: &mut Walk<'_>,
    receiving: &Receiving<'_>,
    question: &Question,
    frame: &Frame<'_>,
) -> Result<(), Stop> {
    if !is_judgeable(question) {
        return Err(DropReason::QuotedPacket.into());
    }
    let quote = ETHERNET_LEN + usize::from(question.l4) + BEFORE_QUOTE;
    // Not what Ethernet pads the packet with.
    let end = (ETHERNET_LEN + question.ip_len as usize).min(frame.head.len());
    let Some(quoted) =
        frame.head.get(quote..end).filter(|quoted| quoted.len() >= HEADER_LEN || frame.is_whole())
    else {
        return Err(if frame.is_whole() {
            DropReason::QuotedPacket.into()
        } else {
            Stop::Again(Again::Whole)
        });
    };
    judge_quote(walk, &receiving.endpoint(), quoted)?;
    allow(walk, receiving.attachment.port, Protocol::PeerError)
}

/// The same over IPv4: `error` is its translation.
#[cold]
pub(crate) fn admit_translated(
    walk: &mut Walk<'_>,
    receiving: &Receiving<'_>,
    error: Option<&[u8]>,
) -> Result<(), Stop> {
    let quoted = error.and_then(|error| error.get(HEADER_LEN + BEFORE_QUOTE..));
    judge_quote(walk, &receiving.endpoint(), quoted.ok_or(DropReason::QuotedPacket)?)?;
    allow(walk, receiving.attachment.port, Protocol::PeerError)
}

/// An error that an attachment sends to another realm, or a task to anybody: about a packet that came from there, and might.
#[cold]
pub(crate) fn admit_leaving(
    walk: &mut Walk<'_>,
    leaving: &Leaving,
    to: &Endpoint,
    (question, frame): (&Question, &Frame<'_>),
) -> Result<(), Stop> {
    if !is_judgeable(question) {
        return Err(DropReason::QuotedPacket.into());
    }
    let end = ETHERNET_LEN + question.ip_len as usize;
    let Some(error) = frame.head.get(ETHERNET_LEN..end) else { return Err(Stop::Again(Again::Whole)) };
    admit_answer(walk, leaving, to, error.get(usize::from(question.l4)..).unwrap_or_default())
}

/// The same over IPv4: `error` is its translation.
#[cold]
pub(crate) fn admit_leaving_translated(
    walk: &mut Walk<'_>,
    leaving: &Leaving,
    to: &Endpoint,
    error: &[u8],
) -> Result<(), Stop> {
    admit_answer(walk, leaving, to, error.get(HEADER_LEN..).unwrap_or_default())
}

/// The ICMPv6 message `error`, from its own header on. Of its sender's allowance: where it goes, nobody may count it.
fn admit_answer(walk: &mut Walk<'_>, leaving: &Leaving, to: &Endpoint, error: &[u8]) -> Result<(), Stop> {
    let defined = error.first().is_some_and(|kind| DEFINED.contains(kind));
    let quoted = error.get(BEFORE_QUOTE..).filter(|_| defined).ok_or(DropReason::QuotedPacket)?;
    judge_answered(walk, &leaving.from, to, quoted)?;
    allow(walk, leaving.port, Protocol::PeerError)
}

/// Whether `to` may have sent the quoted packet to the realm of `from`.
fn judge_answered(walk: &Walk<'_>, from: &Endpoint, to: &Endpoint, quoted: &[u8]) -> Result<(), DropReason> {
    let traffic = traffic::of_quoted(quoted)?;
    let quoted = Ipv6::quoted(quoted).ok_or(DropReason::QuotedPacket)?;
    let addressee = Endpoint::called(walk.world, quoted.destination());
    let addressee = addressee.ok().filter(|addressee| addressee.realm == from.realm);
    let addressee = addressee.filter(|_| quoted.source() == to.address).ok_or(DropReason::QuotedPacket)?;
    walk.world.rules.judge(to, &addressee, traffic).map(|_| ()).map_err(|_| DropReason::QuotedPacket)
}

/// An error in pieces, or longer than any may be, cannot be judged.
fn is_judgeable(question: &Question) -> bool {
    !question.fragment && question.ip_len as usize <= LONGEST_ERROR
}

/// Takes one error from the receiver's allowance.
fn allow(walk: &mut Walk<'_>, port: PortId, of: Protocol) -> Result<(), Stop> {
    let limits = walk.limits.get_mut(usize::from(port.0));
    let allowed = limits.is_some_and(|limits| limits.take(of, walk.now).is_ok());
    if allowed { Ok(()) } else { Err(DropReason::RateLimited.into()) }
}

/// A quoted packet that the receiver may have sent.
struct Quoted {
    /// Whom to, as the receiver called him.
    to: Endpoint,
    /// Upper 64 bits of the destination on the wire.
    upper: u64,
    /// Its length by its own header, bytes.
    len: usize,
}

/// Judges the packet that an error to `own` quotes.
fn judge_quote(walk: &Walk<'_>, own: &Endpoint, packet: &[u8]) -> Result<Quoted, DropReason> {
    let quoted = Ipv6::quoted(packet).ok_or(DropReason::QuotedPacket)?;
    // An error goes to the very address that sent the packet; a quote of the receiver's other family would show it SIR addresses.
    if quoted.source() != own.address {
        return Err(DropReason::QuotedPacket);
    }
    let traffic = traffic::of_quoted(packet);
    let type_number = |endpoint: &Endpoint| endpoint.key.map(Key::type_number);
    let is_admitted = |to: &Endpoint| match to.realm {
        realm if realm == own.realm => type_number(to) == type_number(own),
        _ => traffic.is_ok_and(|traffic| walk.world.rules.judge(own, to, traffic).is_ok()),
    };
    let has_home = |to: &Endpoint| to.key.is_none_or(|key| has_home(walk, key));
    let readings = readings(walk, own, quoted.destination()).into_iter().flatten();
    let to = readings.filter(is_admitted).find(has_home).ok_or(DropReason::QuotedPacket)?;
    let upper = (quoted.destination().to_bits() >> 64) as u64;
    Ok(Quoted { to, upper, len: quoted.total_len() })
}

/// Whom a destination that `own` is told of may stand for, the likelier first. There is a doubt only where a router knows of hosts
/// that we do not, and nothing says which prefixes are the fabric's: one address in eight out there looks like a task's at such a host.
fn readings(walk: &Walk<'_>, own: &Endpoint, address: Ipv6Addr) -> [Option<Endpoint>; 2] {
    let domain = own.key.map(Key::domain);
    match Endpoint::called(walk.world, address) {
        Ok(outside) if outside.realm == Realm::Outside => {
            let guessed = on_the_wire(walk, domain, address);
            match own.realm {
                Realm::Tasks(_) => [Some(outside), guessed],
                _ => [guessed, Some(outside)],
            }
        }
        Ok(to) => [Some(to), None],
        Err(Nobody::Locator) => [on_the_wire(walk, domain, address), None],
        Err(_) => [None, None],
    }
}

/// Whom a quoted destination, on the wire or not, stands for, as its sender called him.
pub(super) fn quoted_destination(walk: &Walk<'_>, domain: DomainId, address: Ipv6Addr) -> Option<Endpoint> {
    match Endpoint::called(walk.world, address) {
        Ok(to) if to.realm != Realm::Outside => Some(to),
        Ok(outside) => on_the_wire(walk, Some(domain), address).or(Some(outside)),
        Err(Nobody::Locator) => on_the_wire(walk, Some(domain), address),
        Err(_) => None,
    }
}

/// Who is called `L:I` on the wire: in the one domain of a locator that is known, else in that of whoever is told, `asking`.
fn on_the_wire(walk: &Walk<'_>, asking: Option<DomainId>, address: Ipv6Addr) -> Option<Endpoint> {
    let (upper, low) = ((address.to_bits() >> 64) as u64, address.to_bits() as u64);
    let known = walk.world.known_locator_in(upper);
    let (locator, domain) = known.or_else(|| Some((routers_locator(walk, address)?, asking?)))?;
    let domain = walk.world.domain(domain)?;
    let wire = Identifier::from_bits(low & !Identifier::C_BIT).ok()?;
    let vnet = |vnid| walk.world.network_of_vnid(domain.id(), vnid)?.1.ipv6;
    let neutral = match wire.kind() {
        Kind::Local(_) | Kind::Ipv4(..) => Neutral::sir(locator, domain.sir()),
        Kind::Ipv6(vnid, _) => Neutral::vnet(locator, vnid, vnet(vnid)?),
        _ => return None,
    };
    let identifier = match low & Identifier::C_BIT {
        0 => peer::sent_as(walk, (locator, domain), wire)?,
        _ => restore(wire, low as u16, neutral).ok()?,
    };
    let called = walk.world.address_of(domain.key(identifier)?)?;
    Endpoint::called(walk.world, called).ok()
}

/// A locator of which only a router knows: what it passed on for us is quoted as it went on from there.
fn routers_locator(walk: &Walk<'_>, address: Ipv6Addr) -> Option<Locator> {
    let routed = walk.world.unknown == Unknown::Router;
    let may_be = routed && (walk.world.is_of_fabric(address) || !walk.world.knows_fabric());
    may_be.then(|| Locator::new(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)).ok())?
}

/// Who receives an error.
#[derive(Clone, Copy)]
pub(crate) enum Reader<'w> {
    Tenant(Receiving<'w>),
    Task(ToTask<'w>),
}

impl Reader<'_> {
    fn endpoint(&self) -> Endpoint {
        match self {
            Self::Tenant(receiving) => receiving.endpoint(),
            Self::Task(task) => task.endpoint(),
        }
    }
    fn port(&self) -> PortId {
        match self {
            Self::Tenant(receiving) => receiving.attachment.port,
            Self::Task(task) => task.attachment().port,
        }
    }
    /// Whether the error comes from somebody it may be shown: a peer, or the very one that the quoted packet was for.
    fn knows(&self, walk: &Walk<'_>, source: Ipv6Addr, quoted: &Quoted) -> bool {
        let is_peer = match self {
            Self::Tenant(receiving) => {
                let of_type = receiving.key.type_number();
                judge::source(walk, source, receiving.network_id, of_type).is_ok()
            }
            Self::Task(_) => false,
        };
        is_peer || source == quoted.to.address
    }
    /// What it is shown of a router of the fabric: a tenant, its gateway, in its family; a task, the router.
    fn shown(&self, router: Ipv6Addr) -> Ipv6Addr {
        let Self::Tenant(receiving) = self else { return router };
        let network = receiving.network;
        let gateway = match receiving.key.type_number() {
            2 => network.gateway4.map(|gateway| network.sir_address(gateway)),
            _ => network.gateway6,
        };
        gateway.unwrap_or(router)
    }
}

/// An error from the wire to `reader`: judged, its quoted packet given the sender's addresses, then delivered.
#[cold]
pub(crate) fn from_wire(
    walk: &mut Walk<'_>,
    reader: &Reader<'_>,
    arriving: Arriving<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let Arriving { question, frame, header, hop_limit, .. } = arriving;
    let (len, l4) = (question.ip_len as usize, usize::from(question.l4));
    if !is_judgeable(question) {
        return Err(DropReason::QuotedPacket.into());
    }
    let Some(error) = frame.head.get(..len) else { return Err(Stop::Again(Again::Whole)) };
    let own = reader.endpoint();
    if Endpoint::called(walk.world, header.source()) == Err(Nobody::NotUnicast) {
        return Err(DropReason::IllegalSource.into());
    }
    let quoted = judge_quote(walk, &own, error.get(l4 + BEFORE_QUOTE..).unwrap_or_default())?;
    let known = reader.knows(walk, header.source(), &quoted);
    if let Some(key) = quoted.to.key.filter(|_| header.source() == quoted.to.address)
        && !is_registered(walk, key, arriving.whence)
    {
        return Err(DropReason::UnregisteredSource.into());
    }
    allow(walk, reader.port(), if known { Protocol::PeerError } else { Protocol::IcmpError })?;

    learn(walk, &own, header.source(), &quoted, (error, l4));

    let is_ipv4 = own.key.is_some_and(|key| key.type_number() == 2);
    let at = if is_ipv4 { 0 } else { ETHERNET_LEN };
    let out = scratch.head.get_mut(at..at + len).ok_or(DropReason::QuotedPacket)?;
    out.copy_from_slice(error);
    let source = if known { header.source() } else { reader.shown(header.source()) };
    let (destination, quoted_destination) = (own.address, quoted.to.address);
    let shown = Shown { hop_limit, source, destination, quoted_destination };
    shown.write(out, l4).ok_or(DropReason::QuotedPacket)?;
    raise_to_minimum(out, l4);
    match reader {
        Reader::Tenant(receiving) if is_ipv4 => {
            let config = &receiving.network.translation;
            rewrite4::from_scratch(walk, receiving, len, (frame, config), scratch)
        }
        Reader::Tenant(receiving) => to_ipv6(walk, receiving, len, frame, scratch),
        Reader::Task(task) => to_ipv6(walk, task, len, frame, scratch),
    }
}

/// The error of `len` bytes that is in the scratch buffer, behind room for the Ethernet header.
fn to_ipv6<'w>(
    walk: &Walk<'_>,
    recipient: &impl Recipient<'w>,
    len: usize,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    deliver::to_port(walk, recipient, &frame.offload)?;
    deliver::write_ethernet(scratch, 0, recipient, deliver::IPV6);
    Ok(Fate::Local(recipient.attachment().port, Rewritten::whole(0..ETHERNET_LEN + len)))
}

/// Lowers the path that `error`, a judged ICMPv6 error with its header at `l4`, is about: if it is a packet too big, from no tenant, with
/// a good checksum, about a packet that we sent where it says and that was larger than what it says (RFC 8201, section 4).
fn learn(walk: &Walk<'_>, own: &Endpoint, from: Ipv6Addr, quoted: &Quoted, (error, l4): (&[u8], usize)) {
    let Some(&[2, 0, _, _, a, b, c, d]) = error.get(l4..).and_then(|rest| rest.first_chunk::<8>()) else {
        return;
    };
    let Ok(mtu) = u16::try_from(u32::from_be_bytes([a, b, c, d])) else { return };
    let target = quoted.to.key.and_then(|key| target_at(walk, key, quoted.upper));
    let Some(Target::Remote(locator, _)) = target else { return };
    let Some(reach) = walk.world.reach(locator) else { return };
    let ours = reach.locator.upper() == quoted.upper && quoted.len > usize::from(mtu);
    if ours && !may_be_a_tenant(walk, from) && verifies(error, l4, from, own.address) {
        reach.path.lower(walk.now, mtu, walk.world.uplink_mtu);
    }
}

/// No path carries less than IPv6's minimum, whatever a packet too big says; its receiver is not told so either.
fn raise_to_minimum(error: &mut [u8], l4: usize) {
    let Some(header) = error.get_mut(l4..).and_then(|rest| rest.first_chunk_mut::<8>()) else { return };
    let [2, 0, _, _, a, b, c, d] = *header else { return };
    let (said, least) = (u32::from_be_bytes([a, b, c, d]), u32::from(IPV6_MINIMUM));
    if said < least {
        let delta = Delta::between(Sum::ZERO.dword(said), Sum::ZERO.dword(least));
        let checksum = delta.apply(u16::from_be_bytes([header[2], header[3]]));
        header[2..4].copy_from_slice(&checksum.to_be_bytes());
        header[4..].copy_from_slice(&least.to_be_bytes());
    }
}

/// Whether `address` is one that tenants have, or look like having.
fn may_be_a_tenant(walk: &Walk<'_>, address: Ipv6Addr) -> bool {
    let upper = (address.to_bits() >> 64) as u64;
    walk.world.domain_called(upper).is_some() || walk.world.network_of_address(address).is_some()
}

/// Whether the checksum of the ICMPv6 message at `l4` is right for these addresses (RFC 4443, section 2.3).
fn verifies(message: &[u8], l4: usize, source: Ipv6Addr, destination: Ipv6Addr) -> bool {
    let body = message.get(l4..).unwrap_or_default();
    let pseudo = Sum::ZERO.ipv6(source).ipv6(destination).dword(body.len() as u32);
    pseudo.word(u16::from(protocol::ICMPV6)).bytes(body).fold() == 0xffff
}

/// An error that is passed on to another host needs a quoted packet of the one it is for; that host judges the rest.
#[cold]
pub(crate) fn passes_through(
    walk: &Walk<'_>,
    question: &Question,
    destination: &Endpoint,
    frame: &Frame<'_>,
) -> Result<(), Stop> {
    let quote = usize::from(question.l4) + BEFORE_QUOTE;
    let end = (question.ip_len as usize).min(frame.head.len());
    let quoted = frame.head.get(quote..end).and_then(Ipv6::quoted);
    let Some(quoted) = quoted else {
        return Err(if frame.is_whole() {
            DropReason::QuotedPacket.into()
        } else {
            Stop::Again(Again::Whole)
        });
    };
    let source = Endpoint::called(walk.world, quoted.source()).ok();
    let own = source.is_some_and(|source| source.key == destination.key);
    let has_home = |to: &Endpoint| to.key.is_none_or(|key| target(walk, key).is_some());
    let known = readings(walk, destination, quoted.destination()).iter().flatten().any(has_home);
    if own && known { Ok(()) } else { Err(DropReason::QuotedPacket.into()) }
}

/// What the receiver of an error is shown.
struct Shown {
    hop_limit: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    quoted_destination: Ipv6Addr,
}

impl Shown {
    /// Puts it into the error `out`, whose ICMPv6 header is at `l4`, and updates its checksum. That was made for the outer
    /// destination an endpoint sees, so only the outer source and the quoted destination count.
    fn write(&self, out: &mut [u8], l4: usize) -> Option<()> {
        let old_source = Ipv6::quoted(out)?.source();
        let old_quoted = Ipv6::quoted(out.get(l4 + BEFORE_QUOTE..)?)?.destination();
        *out.get_mut(7)? = self.hop_limit;
        out.get_mut(8..24)?.copy_from_slice(&self.source.octets());
        out.get_mut(24..40)?.copy_from_slice(&self.destination.octets());
        let quoted = l4 + BEFORE_QUOTE + 24;
        out.get_mut(quoted..quoted + 16)?.copy_from_slice(&self.quoted_destination.octets());

        let old = Sum::ZERO.ipv6(old_source).ipv6(old_quoted);
        let new = Sum::ZERO.ipv6(self.source).ipv6(self.quoted_destination);
        let field = out.get_mut(l4 + 2..)?.first_chunk_mut::<2>()?;
        *field = Delta::between(old, new).apply(u16::from_be_bytes(*field)).to_be_bytes();
        Some(())
    }
}
