//! The straight line: an IPv6 packet without extension headers that carries TCP or UDP, fits, and leaves nothing to
//! hardware. Most packets are so.
//!
//! What stays true: whatever this translates, the general path translates to the same bytes (a property test compares
//! them); whatever is unusual or wrong is left to the general path, which alone decides about refusals. Why there are
//! two: `docs/decisions/0008-straight-line.md`.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::header::MAY_FRAGMENT;
use crate::address::illegal_source_v6;
use crate::checksum::{Delta, Sum};
use crate::offload::Offload;
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{ipv4, protocol};
use crate::{AddressMap, Config, HEAD_SCRATCH_LEN, Packet, Role, Translated};

/// Two IPv6 addresses as IPv4 has them, and what that means to a checksum that covers them: all that differs from one conversation to
/// another, so that it can be kept for the next packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    delta: Delta,
}

impl Between {
    /// What `map` makes of these addresses; `None`: it does not have one of them, or nobody may send from the source.
    #[inline]
    pub fn of<M: AddressMap>(source: Ipv6Addr, destination: Ipv6Addr, map: &M) -> Option<Self> {
        if illegal_source_v6(source) {
            return None;
        }
        let old = Sum::ZERO.ipv6(source).ipv6(destination);
        let destination = map.v6_to_v4(destination, Role::Destination)?;
        let source = map.v6_to_v4(source, Role::Source)?;
        let new = Sum::ZERO.ipv4(source).ipv4(destination);
        Some(Self { source, destination, delta: Delta::between(old, new) })
    }
}

/// Translates `packet` if it is of the usual kind.
#[inline]
pub(super) fn translate<M: AddressMap>(
    packet: &Packet<'_>,
    map: &M,
    config: &Config,
    identification: u16,
    out: &mut [u8],
) -> Option<Translated> {
    let ip = Ipv6(packet.head.first_chunk()?);
    let between = Between::of(ip.source(), ip.destination(), map)?;
    translate_between(packet, &between, config, (ip.hop_limit(), identification), out)
}

/// Translates `packet`, whose addresses count as those that `between` was made of, and its hop limit as this one, if it is of the usual
/// kind.
#[inline(always)]
pub fn translate_between(
    packet: &Packet<'_>,
    between: &Between,
    config: &Config,
    (hop_limit, identification): (u8, u16),
    out: &mut [u8],
) -> Option<Translated> {
    let Between { source, destination, delta } = *between;
    let out = out.first_chunk_mut::<HEAD_SCRATCH_LEN>()?;
    let (header, l4) = packet.head.split_first_chunk::<{ ipv6::HEADER_LEN }>()?;
    let ip = Ipv6(header);
    let l4_len = usize::from(ip.payload_len());
    let usual = ip.version() == 6 && packet.offload == Offload::NONE;
    if !usual || ipv6::HEADER_LEN + l4_len > packet.len {
        return None;
    }
    let ttl = config.hops_left(hop_limit)?;
    let total_len = ipv4::HEADER_LEN + l4_len;
    if total_len > (config.mtu4 as usize).min(usize::from(u16::MAX)) {
        return None;
    }
    // Where the checksum is, and that it is there.
    let copied = match ip.next_header() {
        protocol::TCP => 20,
        protocol::UDP => 8,
        _ => return None,
    };
    if l4_len < copied || l4.len() < copied {
        return None;
    }

    let (ip_out, l4_out) = out.split_first_chunk_mut::<{ ipv4::HEADER_LEN }>()?;
    if copied == 20 {
        let (from, to) = (l4.first_chunk::<20>()?, l4_out.first_chunk_mut::<20>()?);
        *to = *from;
        [to[16], to[17]] = delta.apply(u16::from_be_bytes([from[16], from[17]])).to_be_bytes();
    } else {
        let (from, to) = (l4.first_chunk::<8>()?, l4_out.first_chunk_mut::<8>()?);
        let field = u16::from_be_bytes([from[6], from[7]]);
        if field == 0 {
            return None;
        }
        *to = *from;
        let carried = delta.apply(field);
        [to[6], to[7]] = if carried == 0 { 0xffff } else { carried }.to_be_bytes();
    }
    ipv4::Fields {
        tos: config.traffic_class(ip.traffic_class()),
        total_len: total_len as u16,
        identification,
        dont_fragment: total_len > MAY_FRAGMENT,
        more_fragments: false,
        fragment_offset: 0,
        ttl,
        protocol: ip.next_header(),
        source,
        destination,
    }
    .emit(ip_out);
    let end = ipv6::HEADER_LEN + l4_len;
    Some(Translated::one(ipv4::HEADER_LEN + copied, ipv6::HEADER_LEN + copied..end, Offload::NONE))
}
