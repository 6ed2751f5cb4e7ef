//! The IPv6 header: read, checked, and turned into an IPv4 header (RFC 7915 5.1).

use core::net::Ipv4Addr;

use super::extension::{self, Chain};
use crate::address::illegal_source_v6;
use crate::checksum::{Delta, Sum};
use crate::packet::Packet;
use crate::refusal::{IcmpError, Icmpv6Error, Reason, Refusal};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{ipv4, protocol};
use crate::{AddressMap, Config, Role};

/// A packet whose IPv6 header is sound: its length is within the packet, its extension headers have been walked.
pub(super) struct Input<'a> {
    pub(super) ip: Ipv6<'a>,
    /// What lies between the fixed header and the transport header.
    pub(super) chain: Chain,
    /// The copied bytes behind the IP headers that count.
    pub(super) l4: &'a [u8],
    /// Bytes from the start of the packet to the transport header.
    pub(super) l4_offset: usize,
    /// Bytes the packet has behind the IP headers; at least `l4.len()`.
    pub(super) l4_len: usize,
    /// The packet as copied, cut to its payload length.
    pub(super) head: &'a [u8],
}

impl<'a> Input<'a> {
    /// Payload Length decides what belongs to the packet, not the buffer.
    #[inline]
    pub(super) fn read(packet: &Packet<'a>) -> Result<Self, Refusal> {
        let Some(fixed) = packet.head.first_chunk::<{ ipv6::HEADER_LEN }>() else {
            return Err(missing(packet, ipv6::HEADER_LEN));
        };
        let ip = Ipv6(fixed);
        let total_len = ipv6::HEADER_LEN + usize::from(ip.payload_len());
        if ip.version() != 6 {
            return Err(Reason::WrongVersion.into());
        }
        if ip.payload_len() == 0 && ip.next_header() == protocol::HOP_BY_HOP {
            return Err(Reason::Jumbogram.into());
        }
        if total_len > packet.len {
            return Err(Reason::Truncated.into());
        }
        let head = packet.head.get(..total_len).unwrap_or(packet.head);
        let chain = match ip.next_header() {
            next @ (protocol::TCP | protocol::UDP | protocol::ICMPV6) => Chain::none(next),
            next => extension::walk(head, next, total_len)?,
        };
        let l4_offset = ipv6::HEADER_LEN + chain.len;
        let l4 = head.get(l4_offset..).ok_or_else(|| missing(packet, l4_offset))?;
        Ok(Input { ip, chain, l4, l4_offset, l4_len: total_len - l4_offset, head })
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

    /// Part of a datagram: has a Fragment Header that is not atomic (RFC 6946).
    #[inline]
    pub(super) const fn is_fragment(&self) -> bool {
        match self.chain.fragment {
            Some(fragment) => fragment.offset != 0 || fragment.more,
            None => false,
        }
    }

    /// Byte offset within the datagram.
    #[inline]
    pub(super) const fn fragment_offset(&self) -> usize {
        match self.chain.fragment {
            Some(fragment) => fragment.offset as usize,
            None => 0,
        }
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

/// The parts of the IPv4 header that do not depend on length.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub(super) tos: u8,
    pub(super) protocol: u8,
    pub(super) ttl: u8,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    /// For packets without a Fragment Header.
    pub(super) identification: u16,
    /// What the change of addresses does to a checksum over the pseudo-header.
    pub(super) delta: Delta,
}

impl Output {
    /// Writes the header. `segment_len` is the Total Length of the largest packet that leaves, which decides DF: what
    /// fits 1260 bytes may be fragmented, for an IPv6 sender cannot go below 1280 (RFC 7915 5.1).
    #[inline]
    pub(super) fn emit(
        &self,
        total_len: u16,
        segment_len: usize,
        fragment: Option<ipv6::Fragment>,
        out: &mut [u8; ipv4::HEADER_LEN],
    ) {
        let Output { tos, protocol, ttl, source, destination, .. } = *self;
        let (identification, dont_fragment, more_fragments, fragment_offset) = match fragment {
            None => (self.identification, segment_len > MAY_FRAGMENT, false, 0),
            Some(fragment) => (fragment.identification as u16, false, fragment.more, fragment.offset),
        };
        ipv4::Fields {
            tos,
            total_len,
            identification,
            dont_fragment,
            more_fragments,
            fragment_offset,
            ttl,
            protocol,
            source,
            destination,
        }
        .emit(out);
    }
}

/// The largest IPv4 packet that is sent with DF = 0: an IPv6 packet of the minimum MTU.
pub(super) const MAY_FRAGMENT: usize = 1260;

/// Translates the header: addresses, protocol, Hop Limit. In a router's order: whom it is for, whom it is from,
/// whether it may go on.
#[inline]
pub(super) fn translate<M: AddressMap>(
    input: &Input<'_>,
    map: &M,
    config: &Config,
    identification: u16,
    icmp_error: bool,
) -> Result<Output, Refusal> {
    let ip = &input.ip;
    let to = ip.source();
    if illegal_source_v6(to) {
        return Err(Reason::IllegalSource.into());
    }
    let destination = map.v6_to_v4(ip.destination(), Role::Destination).ok_or(Reason::NotForUs)?;
    let role = if icmp_error { Role::ErrorSource } else { Role::Source };
    let Some(source) = map.v6_to_v4(to, role) else {
        return Err(Refusal::Icmp(Reason::UnmappedSource, IcmpError::V6(Icmpv6Error::prohibited(to))));
    };
    let protocol = ipv4_protocol(input.chain.next_header)?;
    let Some(ttl) = config.hops_left(ip.hop_limit()) else {
        return Err(Refusal::Icmp(Reason::HopLimit, IcmpError::V6(Icmpv6Error::hop_limit_exceeded(to))));
    };
    if let Some(pointer) = input.chain.segments_left {
        return Err(Refusal::Icmp(
            Reason::SegmentsLeft,
            IcmpError::V6(Icmpv6Error::erroneous_header(to, pointer)),
        ));
    }
    let delta =
        Delta::between(Sum::ZERO.ipv6(to).ipv6(ip.destination()), Sum::ZERO.ipv4(source).ipv4(destination));
    let tos = config.traffic_class(ip.traffic_class());
    Ok(Output { tos, protocol, ttl, source, destination, identification, delta })
}

/// The protocol for a Next Header. Refuses ICMPv4 and IGMP, which have no meaning over IPv6 and would be believed
/// over IPv4.
#[inline]
pub(super) const fn ipv4_protocol(next_header: u8) -> Result<u8, Reason> {
    match next_header {
        protocol::ICMPV6 => Ok(protocol::ICMP),
        protocol::ICMP | protocol::IGMP => Err(Reason::ForbiddenProtocol),
        other => Ok(other),
    }
}
