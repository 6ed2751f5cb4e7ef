//! Plain TCP and UDP between IPv4 neighbours on one host, without the IPv6 head in between.
//!
//! ```text
//!   rewrite4.rs:    IPv4 ──> IPv6 head ──> IPv4     every packet
//!   this shortcut:  IPv4 ────────────────> IPv4     what both translations together would leave as it is, but for
//!                                                   identification and DF (RFC 7915, section 5.1)
//! ```
//!
//! What must stay true: whatever is answered here is what [`super::rewrite4`] would answer, byte for byte (a property test holds it);
//! whatever is not plain (options, fragments, ICMP, a checksum of either zero unless it is UDP's for none, too large, or wrong) is
//! left to it.

use ipv4_xlat::address::illegal_source_v4;
use ipv4_xlat::checksum::{Delta, Sum};

use super::deliver;
use super::look_up::Receiving;
use super::walk::{Stop, Walk};
use super::{Fate, Rewritten, Scratch};
use crate::packet::ipv4::Ipv4;
use crate::packet::{ChecksumState, ETHERNET_LEN, Frame, GsoKind, Offload, largest_segment, protocol};

/// Bytes of an IPv4 header without options.
const HEADER_LEN: usize = 20;

/// What IPv6 adds to such a packet.
const GROWTH: usize = 20;

/// The largest packet that is delivered with DF = 0 (RFC 7915, section 5.1).
const MAY_FRAGMENT: usize = 1260;

/// Delivers a plain packet; `None`: it is not plain.
#[inline]
pub(crate) fn deliver(
    walk: &mut Walk<'_>,
    receiving: &Receiving<'_>,
    header: Ipv4<'_>,
    frame: &Frame<'_>,
    scratch: &mut Scratch,
) -> Option<Result<Fate, Stop>> {
    let largest = plain(walk, header, frame)?;
    if let Err(stop) = deliver::to_port(walk, receiving, &frame.offload) {
        return Some(Err(stop));
    }
    let identification = walk.next_identification();
    deliver::write_ethernet(scratch, 0, receiving, deliver::IPV4);
    let out = scratch.head.get_mut(ETHERNET_LEN..)?.first_chunk_mut::<HEADER_LEN>()?;
    *out = *header.bytes();
    let dont_fragment: u16 = if largest > MAY_FRAGMENT { 0x4000 } else { 0 };
    // It was right, so what it becomes follows from the words that change: bytes just written are not read again.
    let (old, new) =
        (Sum::ZERO.bytes(&header.bytes()[4..8]), Sum::ZERO.word(identification).word(dont_fragment));
    let checksum = Delta::between(old, new).apply(header.checksum());
    out[4..6].copy_from_slice(&identification.to_be_bytes());
    out[6..8].copy_from_slice(&dont_fragment.to_be_bytes());
    out[10..12].copy_from_slice(&checksum.to_be_bytes());
    let rewritten = Rewritten {
        head: 0..ETHERNET_LEN + HEADER_LEN,
        tail: ETHERNET_LEN + HEADER_LEN..ETHERNET_LEN + header.total_len(),
        offload: frame.offload,
        more: false,
    };
    Some(Ok(Fate::Local(receiving.attachment.port, rewritten)))
}

/// The length of the largest packet that arrives, as IPv4, if nothing in this one would change on its way through IPv6.
#[inline]
fn plain(walk: &Walk<'_>, header: Ipv4<'_>, frame: &Frame<'_>) -> Option<usize> {
    let bytes = header.bytes();
    // Version and length; fragmentation but DF, and the reserved bit; TTL.
    if bytes[0] != 0x45 || bytes[6] & !0x40 != 0 || bytes[7] != 0 || bytes[8] == 0 {
        return None;
    }
    let l4 = frame.head.get(ETHERNET_LEN + HEADER_LEN..)?;
    let (field, shortest) = match header.protocol() {
        protocol::TCP => (16, 20),
        protocol::UDP => (6, 8),
        _ => return None,
    };
    if header.total_len() < HEADER_LEN + shortest || l4.len() < shortest {
        return None;
    }
    // Translation may turn one zero of one's complement into the other; UDP's "no checksum" passes as it is inside a network.
    match *l4.get(field..)?.first_chunk::<2>()? {
        [0, 0] if header.protocol() == protocol::UDP && frame.offload == Offload::NONE => {}
        [0, 0] | [0xff, 0xff] => return None,
        _ => {}
    }
    // The other zero of a checksum is right, but not what comes out of translation.
    let right = Sum::ZERO.bytes(bytes).fold() == 0xffff && header.checksum() != 0xffff;
    if !right || illegal_source_v4(header.source()) {
        return None;
    }
    if frame.offload != Offload::NONE && !describes(&frame.offload, header.protocol(), field as u16) {
        return None;
    }
    let tcp_words = l4.get(12).map_or(5, |byte| byte >> 4);
    let largest = largest_segment(&frame.offload, HEADER_LEN, header.total_len(), tcp_words);
    (largest + GROWTH <= usize::from(walk.world.uplink_mtu)).then_some(largest)
}

/// Whether `offload` leaves the checksum of this packet, and its segmentation if any, as virtio 1.2, section 5.1.6.2 has it.
#[inline]
fn describes(offload: &Offload, protocol: u8, field: u16) -> bool {
    let partial = ChecksumState::Partial { start: HEADER_LEN as u16, offset: field };
    offload.checksum == partial
        && offload.gso.is_none_or(|gso| {
            gso.size > 0
                && match gso.kind {
                    GsoKind::TcpV4 { .. } => protocol == protocol::TCP,
                    GsoKind::UdpL4 => protocol == protocol::UDP,
                    GsoKind::TcpV6 { .. } => false,
                }
        })
}
