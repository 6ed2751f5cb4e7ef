//! The ways of the last packets from the fabric, gone once more: what retrace.rs is to attachments.
//!
//! ```text
//!   the walk (wire.rs)   looked up ──> source judged ──> receiver ──> rewritten        twice the same two ──> kept
//!   here                 the same two, nothing changed since      ──> rewritten
//! ```
//!
//! What must stay true: what is kept of a way (which addresses, which attachment, whether the one may reach the other) was concluded by the
//! walk, from the world and the mapping table alone, and holds as long as neither has changed ([`gone`]). Whatever differs from
//! packet to packet is judged anew, by the functions that the walk judges it with. So what is decided here, the walk would decide, byte for
//! byte (a property test holds it); whatever else is left to it.

use core::net::Ipv6Addr;

use ipv4_xlat::Packet;
use ipv4_xlat::v6_to_v4::{self, Between};

use super::deliver::{self, Readdressed};
use super::look_up::{endpoint, ipv4_of};
use super::question::{self, Form};
use super::rewrite4::InNetwork;
use super::walk::Walk;
use super::{Fate, Nve, PortId, Question, Rewritten, Scratch, judge};
use crate::addr::Key;
use crate::packet::ipv6::{HEADER_LEN, Ipv6};
use crate::packet::{ETHERNET_LEN, Frame};
use crate::policy::{NetworkId, World};
use crate::tables::Target;

/// Ways that are kept: one for each of so many groups of pairs, by the last bytes of their addresses. Peers answer each other in trains, and
/// what a fabric brings is many such trains at once.
const WAYS: usize = 16;

/// Both addresses of an IPv6 header, source first.
type Addresses = [u8; 32];
const ADDRESSES_AT: usize = 8;

/// The last way of each group.
#[derive(Debug, Default)]
pub(crate) struct Homeward {
    ways: [Way; WAYS],
}

/// A way that was gone: from somebody elsewhere to an attachment.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// When it was kept: how often worker, world and table had changed. Zero: never.
    era: u64,
    /// Between whom the last packet of the group was that came plainly.
    last: Addresses,
    /// Between whom this way is; they were the last when it was kept.
    between: Addresses,
    kept: Option<Kept>,
}

/// What the walk concluded of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    key: Key,
    port: PortId,
    /// What its frames begin with.
    ethernet: [u8; ETHERNET_LEN],
    shown: Shown,
}

/// As what the packet arrives.
#[derive(Clone, Copy, Debug)]
enum Shown {
    /// IPv4 of this network, between these addresses.
    V4(NetworkId, Between),
    /// IPv6 to this address.
    V6(Ipv6Addr),
}

/// Where the way between these is kept.
#[inline]
fn group(between: &Addresses) -> usize {
    usize::from(between[15] ^ between[31]) % WAYS
}

#[inline]
fn addresses<'a>(frame: &Frame<'a>) -> Option<&'a Addresses> {
    frame.head.get(ADDRESSES_AT..)?.first_chunk()
}

impl Homeward {
    /// The walk took a packet of the fabric to `fate`. Where to, if it is the second in a row between the same two: then the way is to
    /// be kept.
    #[inline]
    pub(crate) fn note(&mut self, question: &Question, frame: &Frame<'_>, fate: &Fate) -> Option<PortId> {
        let (Fate::Local(port, _), true) = (fate, question.plain && question.form == Form::Arrived) else {
            return None;
        };
        let between = addresses(frame)?;
        let way = self.ways.get_mut(group(between))?;
        let again = way.last == *between;
        way.last = *between;
        again.then_some(*port)
    }

    /// Keeps the way that packets like `frame` go.
    pub(crate) fn keep(&mut self, era: u64, frame: &Frame<'_>, kept: Option<Kept>) {
        let Some(between) = addresses(frame) else { return };
        if let Some(way) = self.ways.get_mut(group(between)) {
            (way.era, way.between, way.kept) = (era, *between, kept);
        }
    }

    /// Decides the packet, if it goes a way that is kept.
    #[inline(always)]
    pub(crate) fn retrace(
        &self,
        nve: &Nve,
        (era, world, identification): (u64, &World, &mut u16),
        frame: &Frame<'_>,
        (scratch, fate): (&mut Scratch, &mut Fate),
    ) -> Option<()> {
        let between = addresses(frame)?;
        let way = self.ways.get(group(between))?;
        if way.era != era || way.between != *between {
            return None;
        }
        let Kept { key, port, ethernet, shown } = way.kept.as_ref()?;
        let mut question = Question::default();
        let header = question::arrived_again(frame, *key, &mut question).filter(|_| question.plain)?;
        if !nve.plainly_takes(*port, &frame.offload) {
            return None;
        }
        let hop_limit = deliver::give_back_spent_hop(world, header.hop_limit());
        let rewritten = match shown {
            Shown::V4(network, between) => {
                let network = world.network(*network)?;
                let next = identification.wrapping_add(1);
                let packet = Packet { head: frame.head, len: frame.len, offload: frame.offload };
                let out = scratch.head.get_mut(ETHERNET_LEN..)?;
                let config = &network.translation;
                let back = v6_to_v4::translate_between(&packet, between, config, (hop_limit, next), out)?;
                *identification = next;
                let (head, tail) = (0..ETHERNET_LEN + back.head_len, back.tail);
                Rewritten { head, tail, offload: back.offload, more: false }
            }
            Shown::V6(destination) => {
                let shown = Readdressed { header, destination: *destination, hop_limit };
                deliver::write_ipv6(scratch, ETHERNET_LEN, shown);
                let (head, tail) = (0..ETHERNET_LEN + HEADER_LEN, HEADER_LEN..header.total_len());
                Rewritten { head, tail, offload: frame.offload, more: false }
            }
        };
        *scratch.head.first_chunk_mut()? = *ethernet;
        *fate = Fate::Local(*port, rewritten);
        Some(())
    }
}

/// What the walk has concluded of the way of a plain packet to `port`; `None`: something else than the world and the table had a say in it.
#[inline(never)]
pub(crate) fn gone(walk: &Walk<'_>, question: &Question, frame: &Frame<'_>, port: PortId) -> Option<Kept> {
    let (key, header) = (question.key?, Ipv6::read(frame, 0).ok()?);
    let attachment = walk.world.attachment(port).filter(|attachment| attachment.holds(key))?;
    let network = walk.world.network(attachment.network)?;
    let (_, source) = endpoint(walk, header.source())?;
    // Not one of a crossing, which is about more than addresses; nor one that is elsewhere because nobody here has it.
    judge::source(walk, header.source(), attachment.network, key.type_number()).ok()?;
    if !matches!(walk.nve.table.get(source), Some(Target::Remote(..))) {
        return None;
    }
    let mut ethernet = [0; ETHERNET_LEN];
    let (shown, ether_type) = match (key.type_number(), network.ipv6) {
        (2, _) => {
            let map = InNetwork::new(network, Some(ipv4_of(key)));
            let called = network.sir_domain.address(key.identifier());
            (Shown::V4(attachment.network, Between::of(header.source(), called, &map)?), deliver::IPV4)
        }
        (3, Some(vnet)) => (Shown::V6(vnet.address(key.low())), deliver::IPV6),
        _ => return None,
    };
    deliver::put_ethernet(&mut ethernet, attachment.mac.0, ether_type);
    Some(Kept { key, port, ethernet, shown })
}
