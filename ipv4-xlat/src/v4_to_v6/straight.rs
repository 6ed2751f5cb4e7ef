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
    let out = out.first_chunk_mut::<HEAD_SCRATCH_LEN>()?;
    let (header, l4) = packet.head.split_first_chunk::<{ ipv4::HEADER_LEN }>()?;
    if packet.offload != Offload::NONE {
        return None;
    }
    let usual = Usual::of(header, packet.len, config)?;
    let copied = usual.transport_len();
    let (ip_out, l4_out) = out.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>()?;
    if copied == 20 {
        let (from, to) = (l4.first_chunk::<20>()?, l4_out.first_chunk_mut::<20>()?);
        *to = *from;
        [to[16], to[17]] = usual.checksum(between, [from[16], from[17]])?;
    } else {
        let (from, to) = (l4.first_chunk::<8>()?, l4_out.first_chunk_mut::<8>()?);
        *to = *from;
        [to[6], to[7]] = usual.checksum(between, [from[6], from[7]])?;
    }
    usual.write_header(between, ip_out);
    let tail = ipv4::HEADER_LEN + copied..usual.total_len();
    Some(Translated::one(ipv6::HEADER_LEN + copied, tail, Offload::NONE))
}

/// What the header of a packet of the usual kind says: all that translation takes from it, but for the addresses.
#[derive(Clone, Copy, Debug)]
pub struct Usual {
    /// At least that of its headers.
    total_len: u16,
    protocol: u8,
    hop_limit: u8,
    traffic_class: u8,
}

impl Usual {
    /// Of a packet of at most `room` bytes, with nothing left to hardware; `None`: it is not of the usual kind.
    #[inline(always)]
    pub fn of(header: &[u8; ipv4::HEADER_LEN], room: usize, config: &Config) -> Option<Self> {
        let ip = Ipv4(header);
        let (total_len, protocol) = (ip.total_len(), ip.protocol());
        // Version 4, five words of header; no MF, no offset.
        let usual = header[0] == 0x45 && !ip.is_fragment();
        if !usual
            || usize::from(total_len) > room
            || illegal_source_v4(ip.source())
            || !header_is_right(header)
        {
            return None;
        }
        let shortest = match protocol {
            protocol::TCP => 20,
            protocol::UDP => 8,
            _ => return None,
        };
        if total_len < ipv4::HEADER_LEN as u16 + shortest {
            return None;
        }
        let limit =
            if ip.dont_fragment() { config.mtu6 } else { config.mtu6.min(config.lowest_ipv6_mtu.get()) };
        if u32::from(total_len) + (ipv6::HEADER_LEN - ipv4::HEADER_LEN) as u32 > limit {
            return None;
        }
        let (hop_limit, traffic_class) = (config.hops_left(ip.ttl())?, config.traffic_class(ip.tos()));
        Some(Self { total_len, protocol, hop_limit, traffic_class })
    }

    /// Bytes of the packet.
    #[inline]
    #[must_use]
    pub const fn total_len(&self) -> usize {
        self.total_len as usize
    }

    /// Bytes of its transport header without options: 8 (UDP) or 20 (TCP).
    #[inline]
    #[must_use]
    pub const fn transport_len(&self) -> usize {
        if self.protocol == protocol::TCP { 20 } else { 8 }
    }

    /// Where behind its IP header the transport checksum is.
    #[inline]
    #[must_use]
    pub const fn checksum_at(&self) -> usize {
        if self.protocol == protocol::TCP { 16 } else { 6 }
    }

    /// The transport checksum, which is `field` now, between the translated addresses. `None`: there is none to carry over.
    #[inline(always)]
    #[must_use]
    pub fn checksum(&self, between: &Between, field: [u8; 2]) -> Option<[u8; 2]> {
        let field = u16::from_be_bytes(field);
        let carried = between.delta.apply(field);
        if self.protocol == protocol::TCP {
            return Some(carried.to_be_bytes());
        }
        let carried = if carried == 0 { 0xffff } else { carried };
        (field != 0).then_some(carried.to_be_bytes())
    }

    /// The same packet, its hops counted by somebody else.
    #[inline]
    #[must_use]
    pub const fn with_hop_limit(self, hop_limit: u8) -> Self {
        Self { hop_limit, ..self }
    }

    /// Hops that are left to it.
    #[inline]
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// Writes the IPv6 header of the translated packet.
    #[inline(always)]
    pub fn write_header(&self, between: &Between, out: &mut [u8; ipv6::HEADER_LEN]) {
        ipv6::Fields {
            traffic_class: self.traffic_class,
            payload_len: self.total_len - ipv4::HEADER_LEN as u16,
            next_header: self.protocol,
            hop_limit: self.hop_limit,
            source: between.source,
            destination: between.destination,
        }
        .emit(out);
    }
}
