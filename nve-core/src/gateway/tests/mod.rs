//! The gateway, asked by one attachment of a VN with both families; frames are made and read by smoltcp's wire.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use std::sync::LazyLock;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Packet, Icmpv6Repr, IpProtocol,
    Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr,
};

use super::*;

mod any_bytes;
mod arp;
mod dhcpv4;
mod dhcpv6;
mod echo;
mod guest;
mod nd;
mod no_service;
mod rates;
mod service;
mod through_the_walk;

pub(super) const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 1]);
const OTHER_MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 2]);
pub(super) const OWN4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// Held by another attachment.
const PEER4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
/// In the network and held by nobody.
const FREE4: Ipv4Addr = Ipv4Addr::new(10, 1, 7, 7);
pub(super) const GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 1, 255, 254);
pub(super) const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 1);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 2);
const FREE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 0x77);
pub(super) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0xffff, 0xfffe);
pub(super) const OWN_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe00, 1);

const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(OWN4), IpAddr::V6(OWN6)];
const RESOLVERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 1, 0, 53)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 0x53)),
];

const CLOCKS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 1, 0, 123)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 0x123)),
];
static SEARCH: LazyLock<[String; 2]> = LazyLock::new(|| ["blue.example".to_owned(), "example".to_owned()]);

fn peers(address: IpAddr) -> bool {
    address == IpAddr::V4(PEER4) || address == IpAddr::V6(PEER6)
}

pub(super) fn context() -> GatewayContext<'static> {
    GatewayContext {
        mac: MAC,
        addresses: &ADDRESSES,
        shared: &[],
        waits: false,
        further: None,
        hostname: Some("vm1"),
        prefix4: Some(Ipv4Cidr::new(Ipv4Addr::new(10, 1, 0, 0), 16)),
        gateway4: Some(GATEWAY4),
        vnet: Vnet::new(Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 0)).ok(),
        gateway6: Some(GATEWAY6),
        dns: &RESOLVERS,
        forwards_dns: true,
        domain: Some("blue.example"),
        search: &*SEARCH,
        ntp: &CLOCKS,
        mtu: 1480,
        lease4: Lease4::Subnet,
        metadata: true,
        held_by_another: &peers,
    }
}

/// The answer to `frame`, asked of full buckets; a reply as the guest would receive it.
fn ask_with(ctx: &GatewayContext<'_>, frame: &[u8]) -> Result<Vec<u8>, Answer> {
    let mut out = [0xaa; 2048];
    match answer(ctx, &mut Limits::default(), Duration::ZERO, &Frame::whole(frame), &mut out) {
        Answer::Reply(reply) => Ok(bytes_of(&reply, &out, frame)),
        other => Err(other),
    }
}

fn bytes_of(reply: &Rewritten, out: &[u8], asking: &[u8]) -> Vec<u8> {
    [&out[reply.head.clone()], &asking[reply.tail.clone()]].concat()
}

fn ask(frame: &[u8]) -> Result<Vec<u8>, Answer> {
    ask_with(&context(), frame)
}

fn ignored(reason: DropReason) -> Result<Vec<u8>, Answer> {
    Err(Answer::Drop(reason))
}

pub(super) fn ethernet(
    from: EthernetAddress,
    to: EthernetAddress,
    protocol: EthernetProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    EthernetRepr { src_addr: from, dst_addr: to, ethertype: protocol }.emit(&mut frame);
    frame.payload_mut().copy_from_slice(payload);
    bytes
}

pub(super) fn ipv4(from: Ipv4Addr, to: Ipv4Addr, next_header: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr =
        Ipv4Repr { src_addr: from, dst_addr: to, next_header, payload_len: payload.len(), hop_limit: 64 };
    let mut bytes = vec![0; repr.buffer_len() + payload.len()];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(payload);
    ethernet(MAC, GATEWAY_MAC, EthernetProtocol::Ipv4, &bytes)
}

pub(super) fn udp4(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr { src_port: from.1, dst_port: to.1 };
    let mut bytes = vec![0; 8 + payload.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut bytes[..]),
        &from.0.into(),
        &to.0.into(),
        payload.len(),
        |room| room.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    ipv4(from.0, to.0, IpProtocol::Udp, &bytes)
}

pub(super) fn ipv6(
    from: Ipv6Addr,
    to: Ipv6Addr,
    hop_limit: u8,
    next_header: IpProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let repr = Ipv6Repr { src_addr: from, dst_addr: to, next_header, payload_len: payload.len(), hop_limit };
    let mut bytes = vec![0; 40 + payload.len()];
    let mut packet = Ipv6Packet::new_unchecked(&mut bytes[..]);
    repr.emit(&mut packet);
    packet.payload_mut().copy_from_slice(payload);
    ethernet(MAC, GATEWAY_MAC, EthernetProtocol::Ipv6, &bytes)
}

fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, hop_limit: u8, message: &Icmpv6Repr<'_>) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    let mut packet = Icmpv6Packet::new_unchecked(&mut bytes[..]);
    message.emit(&from, &to, &mut packet, &ChecksumCapabilities::default());
    ipv6(from, to, hop_limit, IpProtocol::Icmpv6, &bytes)
}

/// The payload of a reply, which must be from the gateway's MAC to `to`.
fn from_gateway(reply: &[u8], to: EthernetAddress, protocol: EthernetProtocol) -> &[u8] {
    let frame = EthernetFrame::new_checked(reply).expect("an Ethernet header");
    assert_eq!((frame.src_addr(), frame.dst_addr(), frame.ethertype()), (GATEWAY_MAC, to, protocol));
    &reply[14..]
}

/// Every checksum of a frame verifies, and its lengths agree. Its own arithmetic: one's complement sum by 128-bit remainder.
pub(super) fn assert_well_formed(frame: &[u8]) {
    let packet = &frame[14..];
    match frame[12..14] {
        [0x08, 0x06] => assert_eq!(packet.len(), 28),
        [0x08, 0x00] => {
            let header = usize::from(packet[0] & 15) * 4;
            assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
            assert_eq!(remainder(&[&packet[..header]]), 0, "IPv4 header checksum");
            let payload = &packet[header..];
            let pseudo = [&packet[12..20], &[0, packet[9]], &(payload.len() as u16).to_be_bytes()].concat();
            match packet[9] {
                1 => assert_eq!(remainder(&[payload]), 0, "ICMP checksum"),
                17 => {
                    assert_eq!(usize::from(u16::from_be_bytes([payload[4], payload[5]])), payload.len());
                    assert_eq!(remainder(&[&pseudo, payload]), 0, "UDP checksum");
                }
                other => panic!("the gateway does not speak protocol {other}"),
            }
        }
        [0x86, 0xdd] => {
            let payload = &packet[40..];
            assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), payload.len());
            let pseudo = [&packet[8..40], &[0, packet[6]], &(payload.len() as u16).to_be_bytes()].concat();
            assert_eq!(remainder(&[&pseudo, payload]), 0, "transport checksum over IPv6");
        }
        _ => panic!("the gateway speaks ARP and IP only"),
    }
}

/// Zero exactly if the one's complement sum is: 2^16 is 1 modulo 65535.
fn remainder(pieces: &[&[u8]]) -> u64 {
    let bytes = pieces.concat();
    bytes.chunks(2).map(|w| u64::from(w[0]) << 8 | u64::from(*w.get(1).unwrap_or(&0))).sum::<u64>() % 0xffff
}
