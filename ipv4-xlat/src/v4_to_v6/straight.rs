//! The straight line: an unfragmented IPv4 packet without options that carries TCP or UDP, fits, and leaves nothing to
//! hardware. Most packets are so.
//!
//! What stays true: whatever this translates, the general path translates to the same bytes (a property test compares
//! them); whatever is unusual or wrong is left to the general path, which alone decides about refusals. Why there are
//! two: `docs/decisions/0008-straight-line.md`.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::address::illegal_source_v4;
use crate::checksum::{Delta, Sum, header_is_right};
use crate::offload::Offload;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::{ipv6, protocol};
use crate::{AddressMap, Config, HEAD_SCRATCH_LEN, Packet, Role, Translated};

/// Two IPv4 addresses as IPv6 has them, and what that means to a checksum that covers them: all that differs from one conversation to
/// another, so that it can be kept for the next packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    delta: Delta,
}

impl Between {
    /// What `map` makes of these addresses; `None`: it does not have one of them.
    #[inline]
    pub fn of<M: AddressMap>(source: Ipv4Addr, destination: Ipv4Addr, map: &M) -> Option<Self> {
        let old = Sum::ZERO.ipv4(source).ipv4(destination);
        let destination = map.v4_to_v6(destination, Role::Destination)?;
        let source = map.v4_to_v6(source, Role::Source)?;
        let new = Sum::ZERO.ipv6(source).ipv6(destination);
        Some(Self { source, destination, delta: Delta::between(old, new) })
    }

    /// The same, sent to an address with the same sum.
    #[inline]
    #[must_use]
    pub const fn sent_to(self, destination: Ipv6Addr) -> Self {
        Self { destination, ..self }
    }
}

/// Translates `packet` if it is of the usual kind.
#[inline]
pub(super) fn translate<M: AddressMap>(
    packet: &Packet<'_>,
    map: &M,
    config: &Config,
    out: &mut [u8],
) -> Option<Translated> {
    let ip = Ipv4(packet.head.first_chunk()?);
    let between = Between::of(ip.source(), ip.destination(), map)?;
    translate_between(packet, &between, config, out)
}

/// Translates `packet`, whose addresses are those that `between` was made of, if it is of the usual kind.
#[inline(always)]
pub fn translate_between(
    packet: &Packet<'_>,
    between: &Between,
    config: &Config,
    out: &mut [u8],
) -> Option<Translated> {
    let Between { source, destination, delta } = *between;
    let out = out.first_chunk_mut::<HEAD_SCRATCH_LEN>()?;
    let (header, l4) = packet.head.split_first_chunk::<{ ipv4::HEADER_LEN }>()?;
    let ip = Ipv4(header);
    let total_len = usize::from(ip.total_len());
    // Version 4, five words of header; no MF, no offset.
    let usual = header[0] == 0x45 && !ip.is_fragment() && packet.offload == Offload::NONE;
    if !usual || total_len > packet.len || illegal_source_v4(ip.source()) {
        return None;
    }
    if !header_is_right(header) {
        return None;
    }
    let hop_limit = config.hops_left(ip.ttl())?;
    let l4_len = total_len.checked_sub(ipv4::HEADER_LEN)?;
    let limit = if ip.dont_fragment() { config.mtu6 } else { config.mtu6.min(config.lowest_ipv6_mtu.get()) };
    if ipv6::HEADER_LEN + l4_len > limit as usize {
        return None;
    }
    // Where the checksum is, and that it is there.
    let copied = match ip.protocol() {
        protocol::TCP => 20,
        protocol::UDP => 8,
        _ => return None,
    };
    if l4_len < copied || l4.len() < copied {
        return None;
    }

    let (ip_out, l4_out) = out.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>()?;
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
    ipv6::Fields {
        traffic_class: config.traffic_class(ip.tos()),
        payload_len: l4_len as u16,
        next_header: ip.protocol(),
        hop_limit,
        source,
        destination,
    }
    .emit(ip_out);
    Some(Translated::one(ipv6::HEADER_LEN + copied, ipv4::HEADER_LEN + copied..total_len, Offload::NONE))
}
