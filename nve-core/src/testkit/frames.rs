//! Packets made by hand: what a smoltcp guest would not send.
//!
//! All of these start at the IP header; [`ethernet`] puts one into a frame. Checksums are right unless said otherwise.

use core::net::{IpAddr, SocketAddr};

use smoltcp::wire::EthernetAddress;

use super::checksum;
use super::dissect::{Dissected, protocol};
use crate::packet::{ChecksumState, Gso, GsoKind, Offload};

/// What an IP header says beside addresses and lengths.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// TOS or traffic class.
    pub traffic_class: u8,
    /// IPv4 identification.
    pub identification: u16,
    /// IPv4 DF.
    pub dont_fragment: bool,
}

impl Default for Header {
    fn default() -> Self {
        Self { hop_limit: 64, traffic_class: 0, identification: 0x4711, dont_fragment: true }
    }
}

/// An IP packet around `transport`, whose checksum field (if its protocol has one) is filled in.
///
/// # Panics
/// If the addresses are not of one family.
pub fn ip(
    header: Header,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    mut transport: Vec<u8>,
) -> Vec<u8> {
    if let Some(field) = checksum::field_of(protocol).and_then(|at| transport.get_mut(at..at + 2)) {
        field.fill(0);
        let value = checksum::compute(source, destination, protocol, &transport);
        let at = checksum::field_of(protocol).unwrap_or_default();
        transport[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }
    let mut packet = Vec::with_capacity(40 + transport.len());
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = (20 + transport.len()) as u16;
            let flags: u16 = if header.dont_fragment { 0x4000 } else { 0 };
            packet.extend([0x45, header.traffic_class]);
            packet.extend(total.to_be_bytes());
            packet.extend(header.identification.to_be_bytes());
            packet.extend(flags.to_be_bytes());
            packet.extend([header.hop_limit, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            seal_ipv4(&mut packet);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let first: u32 = 6 << 28 | u32::from(header.traffic_class) << 20;
            packet.extend(first.to_be_bytes());
            packet.extend((transport.len() as u16).to_be_bytes());
            packet.extend([protocol, header.hop_limit]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        mixed => panic!("no packet goes between {mixed:?}"),
    }
    packet.extend(transport);
    packet
}

/// Computes the header checksum of the IPv4 packet afresh.
pub fn seal_ipv4(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let header = usize::from(packet[0] & 0xf) * 4;
    let value = !checksum::sum(&packet[..header]);
    packet[10..12].copy_from_slice(&value.to_be_bytes());
}

/// A UDP datagram.
pub fn udp(header: Header, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut transport = Vec::with_capacity(8 + payload.len());
    transport.extend(source.port().to_be_bytes());
    transport.extend(destination.port().to_be_bytes());
    transport.extend(((8 + payload.len()) as u16).to_be_bytes());
    transport.extend([0, 0]);
    transport.extend(payload);
    ip(header, source.ip(), destination.ip(), protocol::UDP, transport)
}

/// TCP flags.
pub mod flags {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// Acknowledgement.
    pub const ACK: u8 = 0x10;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// A TCP segment without options, sequence number 1000.
pub fn tcp(
    header: Header,
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut transport = Vec::with_capacity(20 + payload.len());
    transport.extend(source.port().to_be_bytes());
    transport.extend(destination.port().to_be_bytes());
    transport.extend(1000_u32.to_be_bytes());
    transport.extend(1_u32.to_be_bytes());
    transport.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    transport.extend(payload);
    ip(header, source.ip(), destination.ip(), protocol::TCP, transport)
}

/// An echo request.
pub fn echo_request(
    header: Header,
    source: IpAddr,
    destination: IpAddr,
    sequence: u16,
    payload: &[u8],
) -> Vec<u8> {
    let (protocol, kind) = match destination {
        IpAddr::V4(_) => (protocol::ICMP, 8),
        IpAddr::V6(_) => (protocol::ICMPV6, 128),
    };
    let mut transport = vec![kind, 0, 0, 0, 0x77, 0x77];
    transport.extend(sequence.to_be_bytes());
    transport.extend(payload);
    ip(header, source, destination, protocol, transport)
}

/// The packet in fragments of up to `size` bytes behind the IP header each, as its sender would cut it; `size` is a multiple of eight.
///
/// # Panics
/// If it is no IP packet, or has options or extension headers.
pub fn fragments(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let view = Dissected::of_ip(packet).expect("an IP packet");
    let last = (view.transport.len().div_ceil(size) - 1) * size;
    let cut = |(number, part): (usize, &[u8])| {
        let (at, more) = (number * size, number * size < last);
        if view.version == 4 {
            let mut piece = [&packet[..20], part].concat();
            piece[2..4].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
            piece[6..8].copy_from_slice(&((at / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
            seal_ipv4(&mut piece);
            return piece;
        }
        let field = (at as u16 | u16::from(more)).to_be_bytes();
        let mut piece = [&packet[..40], &[view.protocol, 0], &field, &[0, 0, 0x47, 0x11], part].concat();
        piece[4..6].copy_from_slice(&((8 + part.len()) as u16).to_be_bytes());
        piece[6] = 44;
        piece
    };
    view.transport.chunks(size).enumerate().map(cut).collect()
}

/// The packet that these are fragments of, in any order and none twice: the first one's header, with the lengths and without the marks of a
/// whole one.
///
/// # Panics
/// If they are not all of one packet.
pub fn reassembled(fragments: &[&[u8]]) -> Vec<u8> {
    let mut views: Vec<_> = fragments.iter().filter_map(|piece| Dissected::of_ip(piece)).collect();
    views.sort_by_key(|view| view.fragment_offset);
    let (first, last) = (views.first().expect("a fragment"), views.last().expect("a fragment"));
    assert!(first.fragment_offset == 0 && !last.more_fragments, "both ends: {views:?}");
    let mut transport = Vec::<u8>::new();
    for view in &views {
        assert_eq!(view.fragment_offset, transport.len(), "no gap and no overlap");
        transport.extend(view.transport);
    }
    let Some(head) = fragments.iter().find(|piece| Dissected::of_ip(piece).as_ref() == Some(first)) else {
        panic!("the first is one of them")
    };
    let mut packet = head[..if first.version == 4 { 20 } else { 40 }].to_vec();
    if first.version == 4 {
        packet[2..4].copy_from_slice(&((20 + transport.len()) as u16).to_be_bytes());
        packet[6..8].fill(0);
        seal_ipv4(&mut packet);
    } else {
        packet[4..6].copy_from_slice(&(transport.len() as u16).to_be_bytes());
        packet[6] = first.protocol;
    }
    packet.extend(transport);
    packet
}

/// The packet in an Ethernet frame, its type read from the version.
pub fn ethernet(source: EthernetAddress, destination: EthernetAddress, packet: &[u8]) -> Vec<u8> {
    let ethertype: u16 = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    [destination.as_bytes(), source.as_bytes(), &ethertype.to_be_bytes(), packet].concat()
}

/// Takes the finished checksum out again and leaves a seed, as a guest with `VIRTIO_NET_F_CSUM` does (virtio 1.2, 5.1.6.2):
/// the pseudo-header's sum, uncomplemented.
///
/// # Panics
/// If it is neither TCP nor UDP.
pub fn leave_checksum(packet: &mut [u8]) -> Offload {
    let view = Dissected::of_ip(packet).expect("an IP packet");
    let (start, protocol) = (view.transport_at, view.protocol);
    assert!(matches!(protocol, protocol::TCP | protocol::UDP), "no partial checksum for protocol {protocol}");
    let seed = checksum::pseudo_header(view.source, view.destination, protocol, view.transport.len());
    let offset = checksum::field_of(protocol).unwrap_or_default();
    packet[start + offset..start + offset + 2].copy_from_slice(&seed.to_be_bytes());
    Offload { checksum: ChecksumState::Partial { start: start as u16, offset: offset as u16 }, gso: None }
}

/// Leaves checksum and segmentation: `size` payload bytes for each segment.
///
/// # Panics
/// If it is neither TCP nor UDP.
pub fn leave_segmentation(packet: &mut [u8], size: u16) -> Offload {
    let Offload { checksum, .. } = leave_checksum(packet);
    let view = Dissected::of_ip(packet).expect("an IP packet");
    let ecn = view.protocol == protocol::TCP && view.transport[13] & flags::CWR != 0;
    let kind = match (view.protocol, view.version) {
        (protocol::UDP, _) => GsoKind::UdpL4,
        (_, 4) => GsoKind::TcpV4 { ecn },
        _ => GsoKind::TcpV6 { ecn },
    };
    Offload { checksum, gso: Some(Gso { kind, size }) }
}
