//! The IPv4 header: read, checked, and turned into an IPv6 header (RFC 7915 4.1).

use core::net::Ipv6Addr;

use super::options;
use crate::address::illegal_source_v4;
use crate::checksum::{Delta, Sum};
use crate::packet::Packet;
use crate::refusal::{IcmpError, Icmpv4Error, Reason, Refusal};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::{ipv6, protocol};
use crate::{AddressMap, Config, Role};

/// A packet whose IPv4 header is sound: its lengths are within the packet, its checksum is right.
pub(super) struct Input<'a> {
    pub(super) ip: Ipv4<'a>,
    /// The copied bytes behind the IP header that count.
    pub(super) l4: &'a [u8],
    /// Bytes from the start of the packet to the transport header: IHL * 4.
    pub(super) l4_offset: usize,
    /// Bytes the packet has behind the IP header; at least `l4.len()`.
    pub(super) l4_len: usize,
    /// The packet as copied, cut to its total length.
    pub(super) head: &'a [u8],
}

impl<'a> Input<'a> {
    /// Total Length decides what belongs to the packet, not the buffer.
    #[inline]
    pub(super) fn read(packet: &Packet<'a>) -> Result<Self, Refusal> {
        let Some(fixed) = packet.head.first_chunk::<{ ipv4::HEADER_LEN }>() else {
            return Err(missing(packet, ipv4::HEADER_LEN));
        };
        let ip = Ipv4(fixed);
        let (l4_offset, total_len) = (ip.header_len(), usize::from(ip.total_len()));
        if ip.version() != 4 {
            return Err(Reason::WrongVersion.into());
        }
        if l4_offset < ipv4::HEADER_LEN || total_len < l4_offset {
            return Err(Reason::HeaderLength.into());
        }
        if total_len > packet.len {
            return Err(Reason::Truncated.into());
        }
        let head = packet.head.get(..total_len).unwrap_or(packet.head);
        let Some((header, l4)) = head.split_at_checked(l4_offset) else {
            return Err(missing(packet, l4_offset));
        };
        let sum =
            if l4_offset == ipv4::HEADER_LEN { Sum::ZERO.bytes(fixed) } else { Sum::ZERO.bytes(header) };
        if sum.checksum() != 0 {
            return Err(Reason::HeaderChecksum.into());
        }
        Ok(Input { ip, l4, l4_offset, l4_len: total_len - l4_offset, head })
    }

    /// All bytes of the packet were copied.
    pub(super) const fn is_whole(&self) -> bool {
        self.l4.len() == self.l4_len
    }

    /// The refusal for transport bytes that are not in `l4`: either they were not copied, or there are none.
    #[cold]
    pub(super) const fn short(&self) -> Refusal {
        if self.is_whole() { Refusal::Silent(Reason::ShortTransport) } else { Refusal::NeedWhole }
    }
}

#[cold]
fn missing(packet: &Packet<'_>, wanted: usize) -> Refusal {
    if packet.head.len() < packet.len && wanted <= packet.len {
        Refusal::NeedWhole
    } else {
        Refusal::Silent(Reason::Truncated)
    }
}

/// The parts of the IPv6 header that do not depend on length.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub(super) traffic_class: u8,
    pub(super) next_header: u8,
    pub(super) hop_limit: u8,
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    /// What the change of addresses does to a checksum over the pseudo-header.
    pub(super) delta: Delta,
}

impl Output {
    #[inline]
    pub(super) fn emit(&self, payload_len: u16, next_header: u8, out: &mut [u8; ipv6::HEADER_LEN]) {
        let Output { traffic_class, hop_limit, source, destination, .. } = *self;
        ipv6::Fields { traffic_class, payload_len, next_header, hop_limit, source, destination }.emit(out);
    }
}

/// Translates the header: addresses, protocol, TTL, options. In a router's order: whom it is for, whom it is from,
/// whether it may go on.
#[inline]
pub(super) fn translate<M: AddressMap>(
    input: &Input<'_>,
    map: &M,
    config: &Config,
    icmp_error: bool,
) -> Result<Output, Refusal> {
    let ip = &input.ip;
    let to = ip.source();
    // The source of an ICMP error may be any router's, however odd: translating it keeps traceroute and path MTU
    // discovery alive (RFC 7915 4.1).
    if !icmp_error && illegal_source_v4(to) {
        return Err(Reason::IllegalSource.into());
    }
    let destination = map.v4_to_v6(ip.destination(), Role::Destination).ok_or(Reason::NotForUs)?;
    let role = if icmp_error { Role::ErrorSource } else { Role::Source };
    let Some(source) = map.v4_to_v6(to, role) else {
        return Err(Refusal::Icmp(Reason::UnmappedSource, IcmpError::V4(Icmpv4Error::prohibited(to))));
    };
    let next_header = next_header(ip.protocol())?;
    let Some(hop_limit) = config.hops_left(ip.ttl()) else {
        return Err(Refusal::Icmp(Reason::HopLimit, IcmpError::V4(Icmpv4Error::ttl_exceeded(to))));
    };
    if input.l4_offset > ipv4::HEADER_LEN {
        let options = input.head.get(ipv4::HEADER_LEN..input.l4_offset).unwrap_or(&[]);
        if options::has_unexpired_source_route(options) {
            return Err(Refusal::Icmp(
                Reason::SourceRoute,
                IcmpError::V4(Icmpv4Error::source_route_failed(to)),
            ));
        }
    }
    let delta =
        Delta::between(Sum::ZERO.ipv4(to).ipv4(ip.destination()), Sum::ZERO.ipv6(source).ipv6(destination));
    let traffic_class = config.traffic_class(ip.tos());
    Ok(Output { traffic_class, next_header, hop_limit, source, destination, delta })
}

/// The Next Header for a protocol. Refuses numbers that IPv6 would read as an extension header, whose contents the
/// sender would control, and IGMP, which has no meaning there.
#[inline]
pub(super) const fn next_header(protocol: u8) -> Result<u8, Reason> {
    match protocol {
        protocol::ICMP => Ok(protocol::ICMPV6),
        protocol::TCP | protocol::UDP => Ok(protocol),
        protocol::HOP_BY_HOP
        | protocol::ROUTING
        | protocol::FRAGMENT
        | protocol::ICMPV6
        | protocol::DESTINATION
        | protocol::MOBILITY
        | protocol::SHIM6
        | protocol::IGMP => Err(Reason::ForbiddenProtocol),
        other => Ok(other),
    }
}
