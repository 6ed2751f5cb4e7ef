//! The shortcut: plain packets from a tenant to its peers, decided without a walk.
//!
//! ```text
//!   to a neighbour   the walk:       IPv4 ──> IPv6 head ──> IPv4     IPv6 ──> IPv6     every packet
//!   on this host     this shortcut:  IPv4 ────────────────> IPv4     IPv6 ──> IPv6     what leaves as it came, but for the Ethernet header,
//!                                                                                      and for IPv4 identification and DF (RFC 7915, 5.1)
//!   to another host  both:           IPv4 ──> IPv6, IPv6 ──> IPv6; here only what is too small for any path's MTU to matter
//! ```
//!
//! What must stay true: whatever is decided here, the walk would decide, byte for byte (property tests hold it). Here is only a yes;
//! whatever is not plain (options, fragments, ICMP, a checksum of either zero unless it is UDP's for none, too large, or wrong), and
//! whoever is not plainly admitted, known, and able to take it, is left to the walk, which knows each no by its name.

use core::net::Ipv6Addr;

use ipv4_xlat::address::illegal_source_v4;
use ipv4_xlat::checksum::{Sum, header_is_right};

use ipv4_xlat::v4_to_v6::{self, Between};

use super::deliver;
use super::look_up::Plainly;
use super::question::Form;
use super::rewrite4::{self, InNetwork};
use super::rewrite6::on_the_wire;
use super::{Fate, Nve, Origin, Question, Rewritten, Scratch};
use crate::addr::Key;
use crate::packet::ipv4::Ipv4;
use crate::packet::ipv6::{Chain, HEADER_LEN as IPV6_LEN, Ipv6};
use crate::packet::{
    ChecksumState, ETHERNET_LEN, Frame, IpVersion, Offload, Transport, largest_segment, protocol,
};
use crate::policy::{Attachment, IPV6_MINIMUM, Network, World};
use crate::tables::Target;

/// Bytes of an IPv4 header without options.
pub(super) const IPV4_LEN: usize = 20;

/// What IPv6 adds to such a packet.
const GROWTH: usize = 20;

/// The largest packet that is delivered with DF = 0 (RFC 7915, section 5.1).
const MAY_FRAGMENT: usize = 1260;

/// Decides the plain packet of `question`; false: the walk decides.
#[inline(always)]
pub(crate) fn decide(
    nve: &Nve,
    (world, identification): (&World, &mut u16),
    question: &Question,
    frame: &Frame<'_>,
    (scratch, fate): (&mut Scratch, &mut Fate),
) -> bool {
    match question.form {
        Form::Peer4 => ipv4(nve, (world, identification), question, frame, (scratch, fate)).is_some(),
        Form::Peer6 => ipv6(nve, world, question, frame, (scratch, fate)).is_some(),
        _ => false,
    }
}

#[inline(always)]
fn ipv4(
    nve: &Nve,
    (world, identification): (&World, &mut u16),
    question: &Question,
    frame: &Frame<'_>,
    (scratch, fate): (&mut Scratch, &mut Fate),
) -> Option<()> {
    const HEAD: usize = ETHERNET_LEN + IPV4_LEN;
    let source = u32::from_be_bytes(*frame.head.get(ETHERNET_LEN + 12..)?.first_chunk()?);
    let (sender, destination, target) = admitted(nve, world, question, frame, source)?;
    let (port, header) = match target {
        Target::Local(port) => (port, Ipv4::read(frame, ETHERNET_LEN).ok()?),
        Target::Remote(locator, Some(neutral)) => {
            let (network, locator) = (world.network(sender.network)?, world.locator(locator)?);
            let (map, header) = (InNetwork::new(network, None), Ipv4::read(frame, ETHERNET_LEN).ok()?);
            let between = Between::of(header.source(), header.destination(), &map)?;
            let between =
                between.sent_to(on_the_wire(locator, destination.identifier(), Some(neutral)).ipv6());
            *fate = ipv4_to_the_fabric((world, network), &between, frame, scratch)?;
            return Some(());
        }
        Target::Remote(_, None) => return None,
    };
    let receiver = Plainly::at(nve, world, (destination, port), &frame.offload)?;
    let largest = largest(frame, IPV4_LEN, header.total_len());
    if !fits4(world.uplink_mtu, largest) {
        return None;
    }
    let onward = Onward4::of(identification, header.bytes(), largest);
    let out = scratch.head.first_chunk_mut::<HEAD>()?;
    deliver::put_ethernet(out.first_chunk_mut()?, receiver.mac(), deliver::IPV4);
    let out = out.last_chunk_mut::<IPV4_LEN>()?;
    *out = *header.bytes();
    onward.write(out);
    let (head, tail, offload) = (0..HEAD, HEAD..ETHERNET_LEN + header.total_len(), frame.offload);
    *fate = Fate::Local(receiver.port(), Rewritten { head, tail, offload, more: false });
    Some(())
}

/// What changes in an IPv4 header on its way through IPv6 and back, each as its bytes are.
#[derive(Clone, Copy)]
pub(super) struct Onward4 {
    identification: [u8; 2],
    fragment: [u8; 2],
    checksum: [u8; 2],
}

impl Onward4 {
    /// Of a plain packet to a neighbour, the largest segment of which has so many bytes, with the checksum of its header right.
    #[inline(always)]
    pub(super) fn of(identification: &mut u16, header: &[u8; IPV4_LEN], largest: usize) -> Self {
        *identification = identification.wrapping_add(1);
        let identification = identification.to_be_bytes();
        let fragment = if largest > MAY_FRAGMENT { [0x40, 0] } else { [0, 0] };
        // It was right, so what it becomes follows from the words that change: bytes just written are not read again. The order of bytes does
        // not matter to the sum, as long as it is one.
        let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let checksum = Sum::ZERO
            .word(!word(4))
            .word(!word(6))
            .word(!word(10))
            .word(u16::from_ne_bytes(identification))
            .word(u16::from_ne_bytes(fragment))
            .checksum();
        Self { identification, fragment, checksum: checksum.to_ne_bytes() }
    }

    #[inline(always)]
    pub(super) fn write(self, header: &mut [u8; IPV4_LEN]) {
        [header[4], header[5]] = self.identification;
        [header[6], header[7]] = self.fragment;
        [header[10], header[11]] = self.checksum;
    }
}

/// Whether an IPv4 packet fits through the fabric, the largest segment of which has so many bytes.
#[inline(always)]
pub(super) fn fits4(mtu: u16, largest: usize) -> bool {
    largest + GROWTH <= usize::from(mtu)
}

#[inline(always)]
fn ipv6(
    nve: &Nve,
    world: &World,
    question: &Question,
    frame: &Frame<'_>,
    (scratch, fate): (&mut Scratch, &mut Fate),
) -> Option<()> {
    const HEAD: usize = ETHERNET_LEN + IPV6_LEN;
    let header = frame.head.first_chunk::<HEAD>()?.last_chunk::<IPV6_LEN>()?;
    let (source, destination) = (header[8..].first_chunk::<16>()?, header[24..].first_chunk::<16>()?);
    // The destination is in the /96 of the sender's network; so is what has the same upper bits.
    if source.first_chunk::<12>() != destination.first_chunk::<12>() {
        return None;
    }
    let source = u32::from_be_bytes(*source.last_chunk()?);
    let (_, destination, target) = admitted(nve, world, question, frame, source)?;
    let total = question.ip_len as usize;
    let port = match target {
        Target::Local(port) => port,
        Target::Remote(locator, Some(neutral)) => {
            let header = Ipv6::read(frame, ETHERNET_LEN).ok()?;
            let wire = on_the_wire(world.locator(locator)?, destination.identifier(), Some(neutral));
            *fate = ipv6_to_the_fabric(world, header, wire.ipv6(), frame, scratch)?;
            return Some(());
        }
        Target::Remote(_, None) => return None,
    };
    let receiver = Plainly::at(nve, world, (destination, port), &frame.offload)?;
    if largest(frame, IPV6_LEN, total) > usize::from(world.uplink_mtu) {
        return None;
    }
    deliver::put_ethernet(scratch.head.first_chunk_mut()?, receiver.mac(), deliver::IPV6);
    let (head, tail, offload) = (0..ETHERNET_LEN, ETHERNET_LEN..ETHERNET_LEN + total, frame.offload);
    *fate = Fate::Local(receiver.port(), Rewritten { head, tail, offload, more: false });
    Some(())
}

/// To another host: translated to IPv6 and sent there, if no path's MTU can matter to it.
#[inline(always)]
pub(super) fn ipv4_to_the_fabric(
    (world, network): (&World, &Network),
    between: &Between,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Option<Fate> {
    let packet = rewrite4::packet_of(frame);
    let translated = v4_to_v6::translate_between(&packet, between, &network.translation, &mut scratch.head)?;
    if translated.head_len + translated.tail.len() > usize::from(IPV6_MINIMUM) {
        return None;
    }
    let hop_limit = scratch.head.get_mut(7)?;
    *hop_limit = deliver::give_back_hop(world, *hop_limit);
    let (head, tail) = (0..translated.head_len, rewrite4::behind_ethernet(translated.tail));
    Some(Fate::Uplink(Rewritten { head, tail, offload: translated.offload, more: false }))
}

/// The same of an IPv6 packet.
#[inline(always)]
pub(super) fn ipv6_to_the_fabric(
    world: &World,
    header: Ipv6<'_>,
    destination: Ipv6Addr,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Option<Fate> {
    if header.total_len() > usize::from(IPV6_MINIMUM) || !frame.offload.is_none() {
        return None;
    }
    let hop_limit = deliver::give_back_hop(world, header.hop_limit());
    deliver::write_ipv6(scratch, 0, deliver::Readdressed { header, destination, hop_limit });
    let tail = ETHERNET_LEN + IPV6_LEN..ETHERNET_LEN + header.total_len();
    Some(Fate::Uplink(Rewritten { head: 0..IPV6_LEN, tail, offload: frame.offload, more: false }))
}

/// Who sends the packet, whom to, and where that lives; if its sender bears its own MAC and address, the low 32 bits of which are `source`.
#[inline(always)]
fn admitted<'w>(
    nve: &Nve,
    world: &'w World,
    question: &Question,
    frame: &Frame<'_>,
    source: u32,
) -> Option<(&'w Attachment, Key, Target)> {
    let Origin::Port(port) = question.origin else { return None };
    let destination = question.key.filter(|_| question.plain)?;
    let sender = world.attachment(port)?;
    let mac = frame.head.get(6..)?.first_chunk::<6>()?;
    // Of the same network and family as the destination.
    if *mac != sender.mac.0 || !sender.holds_beside(destination, source) {
        return None;
    }
    Some((sender, destination, nve.table.get_in(question.bucket, destination)?))
}

/// Bytes of the largest packet that leaves.
#[inline]
fn largest(frame: &Frame<'_>, l4: usize, total: usize) -> usize {
    if frame.offload.gso.is_none() {
        return total;
    }
    let tcp_words = frame.head.get(ETHERNET_LEN + l4 + 12).map_or(5, |byte| byte >> 4);
    largest_segment(&frame.offload, l4, total, tcp_words)
}

/// Whether nothing in an IPv4 packet to a peer would change on its way through IPv6, but for what the shortcut changes.
#[inline(always)]
pub(crate) fn is_plain4(header: Ipv4<'_>, frame: &Frame<'_>) -> bool {
    let room = frame.len.saturating_sub(ETHERNET_LEN);
    let word = |at| frame.head.get(ETHERNET_LEN + IPV4_LEN + at..)?.first_chunk().copied();
    // Of TCP the last word as well: a head that ends before is asked for whole.
    plain4(header.bytes(), room, &frame.offload, word).is_some()
        && !illegal_source_v4(header.source())
        && (header.protocol() != protocol::TCP || word(18).is_some())
}

/// Bytes of such a packet, of at most `room` bytes, with this header; whoever asks judges its source. `word(n)`: the two bytes from the n-th of its transport
/// header on.
#[inline(always)]
pub(super) fn plain4(
    header: &[u8; IPV4_LEN],
    room: usize,
    offload: &Offload,
    word: impl Fn(usize) -> Option<[u8; 2]>,
) -> Option<usize> {
    // Version and length; fragmentation but DF, and the reserved bit; TTL.
    if header[0] != 0x45 || header[6] & !0x40 != 0 || header[7] != 0 || header[8] == 0 {
        return None;
    }
    let protocol = header[9];
    let (field, shortest) = match protocol {
        protocol::TCP => (16, 20),
        protocol::UDP => (6, 8),
        _ => return None,
    };
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if total < IPV4_LEN + shortest || total > room {
        return None;
    }
    // Translation may turn one zero of one's complement into the other; UDP's "no checksum" passes as it is inside a network.
    match word(field)? {
        [0, 0] if protocol == protocol::UDP && offload.is_none() => {}
        [0, 0] | [0xff, 0xff] => return None,
        _ => {}
    }
    // The other zero of a checksum is right, but not what comes out of translation.
    if !header_is_right(header) || header[10..12] == [0xff, 0xff] {
        return None;
    }
    (offload.is_none() || describes(offload, protocol, total)).then_some(total)
}

/// Whether `offload` leaves the checksum of this packet, and its segmentation if any.
#[inline]
fn describes(offload: &Offload, protocol: u8, total: usize) -> bool {
    let (len, start) = (total.saturating_sub(IPV4_LEN), IPV4_LEN);
    let transport = Transport { version: IpVersion::V4, protocol, start, len, fragment: false };
    matches!(offload.checksum, ChecksumState::Partial { .. }) && offload.describes(&transport)
}

/// The same of an IPv6 packet with this header, between two peers.
#[inline(always)]
pub(super) fn plain6(header: &[u8; IPV6_LEN], room: usize, offload: &Offload) -> Option<usize> {
    let (protocol, hop_limit) = (header[6], header[7]);
    let shortest = match protocol {
        protocol::TCP => 20,
        protocol::UDP => 8,
        _ => return None,
    };
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let total = IPV6_LEN + len;
    if header[0] >> 4 != 6 || hop_limit == 0 || len < shortest || total > room {
        return None;
    }
    let transport = Transport { version: IpVersion::V6, protocol, start: IPV6_LEN, len, fragment: false };
    (offload.is_none() || offload.describes(&transport)).then_some(total)
}

/// Whether an IPv6 packet to a peer, whose chain was read and whose offload was judged by it, is TCP or UDP with nothing in between.
#[inline]
pub(crate) fn is_plain6(chain: &Chain, hop_limit: u8) -> bool {
    matches!(chain.protocol, protocol::TCP | protocol::UDP) && chain.l4 == IPV6_LEN && hop_limit > 0
}
