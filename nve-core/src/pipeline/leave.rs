//! From an attachment to another realm, and from a task to anybody: the ingress edge (docs/decisions/0014; draft, section 4.3).
//!
//! ```text
//!   resolve   the destination as its sender writes it ──> Endpoint          IPv4: an alias, or RFC 6052; IPv6: SIR:T, SIR:(VNI:VA), VNET:VA
//!   judge     rules between the realms, or what an ICMP error quotes        refused: "prohibited", and a drop by name
//!   hop       one is spent between realms, none between tasks
//!   rewrite   IPv4 ──> IPv6 between endpoints, then the destination becomes L:I
//!   deliver   another host, or the outside: Uplink.   This host: around.rs
//! ```
//!
//! What must stay true: nothing leaves but from a [`Leaving`], which only proofs of admission make; a packet to a peer of its own network
//! never comes here.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipv4_xlat::{
    AddressMap, HopChange, IcmpError, Icmpv4Error, Icmpv6Error, Packet, Role, Translated, v4_to_v6,
};

use super::admit::{Admitted, AdmittedTask};
use super::look_up::{asks_router, target_of, unreachable};
use super::rewrite4::GROWTH;
use super::rewrite6::{fits_path, on_the_wire, path_mtu};
use super::walk::{Pending, Stop, Walk};
use super::{
    Fate, Origin, PortId, Question, Rewritten, Scratch, around, deliver, peer, quote, rewrite4, traffic,
};
use crate::DropReason;
use crate::addr::{Key, Locator};
use crate::packet::ipv4::Ipv4;
use crate::packet::ipv6::{HEADER_LEN, Ipv6};
use crate::packet::{ETHERNET_LEN, Frame};
use crate::policy::{Endpoint, Network, Nobody, Realm, Traffic, Unruled, World};
use crate::tables::Target;

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    pub(super) port: PortId,
    pub(super) from: Endpoint,
}

impl Leaving {
    /// A tenant with an IPv6 address.
    pub(crate) fn tenant(admitted: &Admitted<'_>, source: Ipv6Addr) -> Self {
        let key = admitted.network.keys6.of(source.to_bits() as u32);
        let realm = Realm::Network(admitted.attachment.network);
        let from = Endpoint { realm, address: source, key: Some(key) };
        Self { port: admitted.attachment.port, from }
    }

    fn ipv4_tenant(admitted: &Admitted<'_>, source: Ipv4Addr) -> Self {
        let key = admitted.network.keys4.of(source.to_bits());
        let address = admitted.network.sir_address(source);
        let realm = Realm::Network(admitted.attachment.network);
        let from = Endpoint { realm, address, key: Some(key) };
        Self { port: admitted.attachment.port, from }
    }

    fn task(admitted: &AdmittedTask<'_>) -> Self {
        let (key, domain) = (admitted.key(), &admitted.attachment().sir_domain);
        let address = domain.address(key.identifier());
        let from = Endpoint { realm: Realm::Tasks(domain.id()), address, key: Some(key) };
        Self { port: admitted.attachment().port, from }
    }
}

/// Anything from a task.
#[cold]
pub(crate) fn from_task(
    walk: &mut Walk<'_>,
    question: &Question,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let header = Ipv6::read(frame, ETHERNET_LEN)?;
    if header.destination().is_multicast() {
        return Err(DropReason::Multicast.into());
    }
    let admitted = AdmittedTask::of(walk, question, frame, header.source())?;
    let leaving = Leaving::task(&admitted);
    ipv6(walk, leaving, question, header, frame, scratch)
}

/// An IPv6 packet.
#[cold]
pub(crate) fn ipv6(
    walk: &mut Walk<'_>,
    leaving: Leaving,
    question: &Question,
    header: Ipv6<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let source = header.source();
    let to = Endpoint::called(walk.world, header.destination()).map_err(nobody)?;
    // A peer by another name than peers have.
    if to.realm == leaving.from.realm && !matches!(to.realm, Realm::Tasks(_)) {
        return Err(DropReason::SirDestination.into());
    }
    if question.is_icmpv6_error(frame, ETHERNET_LEN) {
        quote::admit_leaving(walk, &leaving, &to, (question, frame))?;
    } else {
        let traffic = traffic::of_ipv6(question, frame, ETHERNET_LEN)?;
        judge(walk, &leaving.from, &to, traffic, source.into())?;
    }
    let way = way(walk, &to, question.ip_len as usize, (question, frame))
        .ok_or_else(|| unreachable(source.into()))?;
    let hop_limit = match header.hop_limit() {
        0 => return Err(DropReason::HopLimit.into()),
        hops if leaving.from.realm == to.realm => hops,
        1 => {
            let error = IcmpError::V6(Icmpv6Error::hop_limit_exceeded(source));
            return Err(Stop::Owed(DropReason::HopLimit, error));
        }
        hops => hops - 1,
    };
    fits_path(way.mtu, question, frame, source)?;
    if way.finish {
        deliver::unmodified_to_uplink(&frame.offload)?;
    }
    let shown = deliver::Readdressed {
        header,
        destination: way.address,
        hop_limit: way.hop_limit(walk.world, hop_limit),
    };
    deliver::write_ipv6(scratch, 0, shown);
    let tail = ETHERNET_LEN + HEADER_LEN..ETHERNET_LEN + header.total_len();
    let packet = Rewritten { head: 0..HEADER_LEN, tail, offload: frame.offload, more: false };
    if way.here {
        return around::around(walk, &packet, frame, scratch);
    }
    to_host(walk, &way, Fate::Uplink(packet), frame, scratch)
}

/// An IPv4 packet of a tenant to what is no address of its network.
#[cold]
pub(crate) fn ipv4(
    walk: &mut Walk<'_>,
    admitted: &Admitted<'_>,
    question: &Question,
    (header, frame): (Ipv4<'_>, &Frame<'_>),
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    let (network, source) = (admitted.network, header.source());
    let prohibited = IcmpError::V4(Icmpv4Error::prohibited(source));
    let called = network.called_elsewhere(header.destination());
    let called = called.ok_or(Stop::Owed(DropReason::Outside, prohibited))?;
    let to = Endpoint::called(walk.world, called).map_err(nobody)?;
    let leaving = Leaving::ipv4_tenant(admitted, source);
    let traffic = traffic::of_ipv4(header, frame)?;
    if let Some(traffic) = traffic {
        judge(walk, &leaving.from, &to, traffic, source.into())?;
    }
    let way = way(walk, &to, header.total_len() + GROWTH, (question, frame))
        .ok_or_else(|| unreachable(source.into()))?;
    let config = match to.key {
        // Both ends are IPv4: nothing need be lost but the hop.
        Some(key) if key.type_number() == 2 => {
            network.translation_along(way.mtu).with_hop_change(HopChange::SpendOne)
        }
        Some(_) => walk.world.apart_along(way.mtu),
        None => walk.world.apart_outside(),
    };
    let packet = Packet {
        head: frame.head.get(ETHERNET_LEN..).unwrap_or_default(),
        len: frame.len.saturating_sub(ETHERNET_LEN),
        offload: frame.offload,
    };
    let map = Elsewhere { network };
    let translated = v4_to_v6::translate(&packet, &map, &config, &mut scratch.head)?;
    match (traffic, quote::is_error(&scratch.head)) {
        (None, true) => {
            let error = scratch.head.get(..translated.head_len).unwrap_or_default();
            quote::admit_leaving_translated(walk, &leaving, &to, error)?;
        }
        (Some(_), false) => {}
        _ => return Err(DropReason::Untranslatable.into()),
    }
    if way.finish {
        deliver::unmodified_to_uplink(&translated.offload)?;
    }
    deliver::redirect_ipv6(scratch, way.address, |hops| way.hop_limit(walk.world, hops));
    let fate = send(walk, leaving.port, way.here, translated, frame, scratch)?;
    to_host(walk, &way, fate, frame, scratch)
}

/// `fate` in the form that the other host takes.
fn to_host(
    walk: &mut Walk<'_>,
    way: &Way,
    fate: Fate,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    match (fate, way.there) {
        (Fate::Uplink(packet), Some(there)) => {
            peer::twist(walk, there, frame, packet, scratch).map(Fate::Uplink)
        }
        (fate, _) => Ok(fate),
    }
}

/// The packet in the scratch buffer, in as many pieces as it takes.
fn send(
    walk: &mut Walk<'_>,
    sender: PortId,
    here: bool,
    translated: Translated,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    if !here {
        return rewrite4::to_uplink(walk, sender, translated, scratch);
    }
    if !translated.is_one_piece() {
        let pending = Pending::one(Origin::Port(sender), Origin::Uplink, translated.pieces());
        *walk.pending = Some(Pending { around: true, ..pending });
        return around::piece(walk, frame, scratch)?.ok_or(Stop::Drop(DropReason::Malformed));
    }
    let Translated { head_len, tail, offload, .. } = translated;
    let tail = tail.start + ETHERNET_LEN..tail.end + ETHERNET_LEN;
    around::around(walk, &Rewritten { head: 0..head_len, tail, offload, more: false }, frame, scratch)
}

/// Who is called what outside of the sender's network. Whatever is neither an alias nor of the outside is of the network itself: the
/// sender, and what it quotes of itself.
struct Elsewhere<'a> {
    network: &'a Network,
}

impl AddressMap for Elsewhere<'_> {
    fn v4_to_v6(&self, address: Ipv4Addr, _: Role) -> Option<Ipv6Addr> {
        let own = || self.network.sir_address(address);
        Some(self.network.called_elsewhere(address).unwrap_or_else(own))
    }
    fn v6_to_v4(&self, _: Ipv6Addr, _: Role) -> Option<Ipv4Addr> {
        None
    }
}

/// How a packet gets to somebody.
struct Way {
    /// Its destination on the wire.
    address: Ipv6Addr,
    /// Bytes of the largest IPv6 packet.
    mtu: u16,
    /// Checksums are made for another address than that.
    finish: bool,
    /// Its receiver is on this host.
    here: bool,
    /// Where on another host.
    there: Option<(Locator, Key)>,
}

impl Way {
    /// What the packet has before the TUN, of what its receiver is to have.
    fn hop_limit(&self, world: &World, hops: u8) -> u8 {
        if self.here { hops } else { deliver::give_back_hop(world, hops) }
    }
}

/// The way to `to` for a packet of `len` bytes.
fn way(
    walk: &Walk<'_>,
    to: &Endpoint,
    len: usize,
    (question, frame): (&Question, &Frame<'_>),
) -> Option<Way> {
    let mtu = walk.world.uplink_mtu;
    let as_it_is = Way { address: to.address, mtu, finish: false, here: false, there: None };
    let Some(key) = to.key else { return Some(as_it_is) };
    let target = target_of(walk, key, question, frame);
    let (locator, neutral, here) = match target {
        Some(Target::Remote(locator, neutral)) => (walk.world.locator(locator)?, neutral, false),
        Some(Target::Local(_)) => {
            (walk.world.domain(key.domain())?.locator(), walk.world.neutral_here(key), true)
        }
        None if asks_router(walk.world, key) => return Some(as_it_is),
        None => return None,
    };
    let wire = on_the_wire(locator, key.identifier(), neutral);
    let mtu = target.map_or(mtu, |target| path_mtu(walk, target, len));
    let there = (!here).then_some((locator, key));
    Some(Way { address: wire.ipv6(), mtu, finish: !wire.is_neutral(), here, there })
}

/// Whether rules let it pass.
fn judge(
    walk: &Walk<'_>,
    from: &Endpoint,
    to: &Endpoint,
    traffic: Traffic,
    source: IpAddr,
) -> Result<(), Stop> {
    let Err(unruled) = walk.world.rules.judge(from, to, traffic) else { return Ok(()) };
    let reason = match (unruled, to.realm, to.key.map(Key::type_number)) {
        (Unruled::Domain, ..) => DropReason::ForeignDomain,
        (Unruled::Fragment, ..) => DropReason::CrossingFragment,
        (Unruled::Denied, ..) => DropReason::OutsideDenied,
        (Unruled::NoRule, Realm::Outside, _) => DropReason::Outside,
        (Unruled::NoRule, _, Some(3)) => DropReason::ForeignNetwork,
        (Unruled::NoRule, ..) => DropReason::SirDestination,
    };
    let error = match source {
        IpAddr::V4(source) => IcmpError::V4(Icmpv4Error::prohibited(source)),
        IpAddr::V6(source) => IcmpError::V6(Icmpv6Error::prohibited(source)),
    };
    Err(Stop::Owed(reason, error))
}

fn nobody(nobody: Nobody) -> Stop {
    match nobody {
        Nobody::Locator => DropReason::LocatorDestination,
        Nobody::Identifier | Nobody::Network => DropReason::SirDestination,
        Nobody::NotUnicast => DropReason::LinkLocal,
    }
    .into()
}
