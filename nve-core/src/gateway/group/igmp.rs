//! IGMP (RFC 1112, RFC 2236, RFC 3376): reports read, queries written. Twin of `mld.rs`.
//!
//! What must stay true: a report has TTL 1, is no fragment, has a good checksum, and was sent where its version sends it.

use core::net::{IpAddr, Ipv4Addr};

use ipv4_xlat::checksum::Sum;
use smoltcp::wire::{EthernetAddress, EthernetProtocol, IpProtocol};

use super::records::Records;
use super::{About, LAST_LISTENER_INTERVAL, QUERY_INTERVAL, ROBUSTNESS, Said};
use crate::DropReason;
use crate::gateway::emit::Emit;

/// Where IGMPv3 reports go, and leaves of IGMPv2.
const ROUTERS_V3: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

/// The option that makes routers look (RFC 2113).
const ROUTER_ALERT: [u8; 4] = [148, 4, 0, 0];

/// Reads the IPv4 packet `packet`.
pub(super) fn read(packet: &[u8]) -> Result<Records<'_, 4>, DropReason> {
    let fixed = packet.first_chunk::<20>().ok_or(DropReason::BadReport)?;
    let header = usize::from(fixed[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    let (ttl, protocol) = (fixed[8], fixed[9]);
    let whole = fixed[6] & 0x3f == 0 && fixed[7] == 0;
    let options = packet
        .get(..header)
        .filter(|options| options.len() >= 20 && Sum::ZERO.bytes(options).fold() == 0xffff);
    let message = packet.get(header..total).filter(|message| Sum::ZERO.bytes(message).fold() == 0xffff);
    let (Some(_), Some(message), true) = (options, message, whole && ttl == 1 && protocol == 2) else {
        return Err(DropReason::BadReport);
    };
    let destination = Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]);
    let (head, rest) = message.split_first_chunk::<8>().ok_or(DropReason::BadReport)?;
    let group = Ipv4Addr::new(head[4], head[5], head[6], head[7]);
    let records = match head[0] {
        0x11 => return Err(DropReason::RogueQuerier),
        0x12 | 0x16 if group.is_multicast() && destination == group => {
            Some(Records::single(Said::Listens(group.into())))
        }
        0x17 if group.is_multicast() && [ROUTERS, group].contains(&destination) => {
            Some(Records::single(Said::Leaves(group.into())))
        }
        0x22 if destination == ROUTERS_V3 => Records::of(u16::from_be_bytes([head[6], head[7]]), rest),
        _ => None,
    };
    records.ok_or(DropReason::BadReport)
}

/// Writes an IGMPv3 query to the host with this MAC, which older hosts understand as theirs (RFC 3376, 7.3.1); how many bytes it has. `longest`
/// is the longest that an answer may take, at most 12.8 s.
pub(super) fn query(
    gateway: Ipv4Addr,
    about: About,
    longest: core::time::Duration,
    out: &mut [u8],
) -> Option<usize> {
    let (group, destination) = match about {
        About::One(IpAddr::V4(group)) => (group, group),
        _ => (Ipv4Addr::UNSPECIFIED, ALL_SYSTEMS),
    };
    let [_, b, c, d] = destination.octets();
    let mac = EthernetAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d]);
    let mut emit = Emit::ethernet(out, mac, EthernetProtocol::Ipv4);
    let at = emit.len();
    // Internetwork control (RFC 3376, 4).
    emit.ipv4(gateway, destination, IpProtocol::Igmp, 0xc0, 24 + 12);
    emit.put(&ROUTER_ALERT);
    let tenths = u8::try_from(longest.as_millis() / 100).unwrap_or(127);
    let interval = u8::try_from(QUERY_INTERVAL.as_secs()).unwrap_or(127);
    let mut message = [0; 12];
    (message[0], message[1], message[8], message[9]) = (0x11, tenths.min(127), ROBUSTNESS, interval);
    message[4..8].copy_from_slice(&group.octets());
    let sum = Sum::ZERO.bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    emit.put(&message);
    let header = emit.from(at).first_chunk_mut::<24>()?;
    (header[0], header[8]) = (0x46, 1);
    header[10..12].fill(0);
    let sum = Sum::ZERO.bytes(header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    emit.finish()
}

const _: () =
    assert!(LAST_LISTENER_INTERVAL.as_secs() == 1 && QUERY_INTERVAL.as_secs() < 128, "no exponents");
