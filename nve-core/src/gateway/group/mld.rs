//! MLD (RFC 2710, RFC 3810): reports read, queries written. Twin of `igmp.rs`.
//!
//! What must stay true: a report has hop limit 1 and a Router Alert option, is no fragment, has a good checksum, is from a link-local address or
//! none, and was sent where its version sends it.

use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;

use ipv4_xlat::checksum::pseudo_v6;
use smoltcp::wire::{EthernetAddress, EthernetProtocol, IpProtocol};

use super::records::Records;
use super::{About, QUERY_INTERVAL, ROBUSTNESS, Said};
use crate::DropReason;
use crate::gateway::GATEWAY_LINK_LOCAL;
use crate::gateway::emit::Emit;
use crate::packet::protocol::ICMPV6;

/// Where MLDv2 reports go, and what MLDv1 says at the end.
const ROUTERS_V2: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Hop-by-hop options that make routers look: Router Alert for MLD (RFC 2711), and two bytes of padding.
const ROUTER_ALERT: [u8; 8] = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];

/// Reads the IPv6 packet `packet`.
pub(super) fn read(packet: &[u8]) -> Result<Records<'_, 16>, DropReason> {
    let (fixed, rest) = packet.split_first_chunk::<40>().ok_or(DropReason::BadReport)?;
    let rest =
        rest.get(..usize::from(u16::from_be_bytes([fixed[4], fixed[5]]))).ok_or(DropReason::BadReport)?;
    let address = |at: usize| {
        fixed
            .get(at..)
            .and_then(|rest| rest.first_chunk::<16>())
            .map_or(Ipv6Addr::UNSPECIFIED, |o| Ipv6Addr::from(*o))
    };
    let (source, destination) = (address(8), address(24));
    // A query is told apart before it is judged: who asks is worth knowing, however it was written.
    let behind = if fixed[6] == 0 { rest.get(options_len(rest)..).unwrap_or_default() } else { rest };
    if behind.first() == Some(&130) {
        return Err(DropReason::RogueQuerier);
    }
    let alerted = fixed[6] == 0 && has_router_alert(rest);
    let on_link = source.is_unicast_link_local() || source.is_unspecified();
    let message = rest.get(options_len(rest)..).filter(|message| checksum(source, destination, message) == 0);
    let (Some(message), true) = (message, alerted && on_link && fixed[7] == 1) else {
        return Err(DropReason::BadReport);
    };
    let (head, rest) = message.split_first_chunk::<8>().ok_or(DropReason::BadReport)?;
    let group = rest.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets)).filter(Ipv6Addr::is_multicast);
    let records = match (head[0], group) {
        (131, Some(group)) if destination == group => Some(Records::single(Said::Listens(group.into()))),
        (132, Some(group)) if destination == ROUTERS => Some(Records::single(Said::Leaves(group.into()))),
        (143, _) if destination == ROUTERS_V2 => Records::of(u16::from_be_bytes([head[6], head[7]]), rest),
        _ => None,
    };
    records.ok_or(DropReason::BadReport)
}

/// Bytes of the hop-by-hop options at the start of `bytes`.
fn options_len(bytes: &[u8]) -> usize {
    bytes.get(1).map_or(0, |len| (usize::from(*len) + 1) * 8)
}

/// Whether the hop-by-hop options at the start of `bytes` are followed by ICMPv6, hold a Router Alert for MLD, and nothing but padding beside it.
fn has_router_alert(bytes: &[u8]) -> bool {
    let Some(options) = bytes.get(2..options_len(bytes)).filter(|_| bytes.first() == Some(&ICMPV6)) else {
        return false;
    };
    let (mut rest, mut alerted) = (options, false);
    // Each step is a byte of the options at least.
    while let Some((kind, behind)) = rest.split_first() {
        if *kind == 0 {
            rest = behind;
            continue;
        }
        let Some((len, behind)) = behind.split_first() else { return false };
        let Some((body, behind)) = behind.split_at_checked(usize::from(*len)) else { return false };
        match (*kind, body) {
            (5, [0, 0]) => alerted = true,
            (1, _) => {}
            _ => return false,
        }
        rest = behind;
    }
    alerted
}

/// What is left of the ICMPv6 checksum; zero if it is right.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    !pseudo_v6(source, destination, message.len() as u32, ICMPV6).bytes(message).fold()
}

/// Writes an MLDv2 query, which older hosts understand as theirs (RFC 3810, 8.2.1); how many bytes it has. `longest` is the longest that an
/// answer may take, at most 32.7 s.
pub(super) fn query(about: About, longest: Duration, out: &mut [u8]) -> Option<usize> {
    let (group, destination) = match about {
        About::One(IpAddr::V6(group)) => (group, group),
        _ => (Ipv6Addr::UNSPECIFIED, ALL_NODES),
    };
    let [.., a, b, c, d] = destination.octets();
    let mut emit = Emit::ethernet(out, EthernetAddress([0x33, 0x33, a, b, c, d]), EthernetProtocol::Ipv6);
    let mut message = [0; 28];
    let millis = u16::try_from(longest.as_millis()).unwrap_or(u16::MAX).min(32767);
    message[0] = 130;
    message[4..6].copy_from_slice(&millis.to_be_bytes());
    message[8..24].copy_from_slice(&group.octets());
    (message[24], message[25]) = (ROBUSTNESS, u8::try_from(QUERY_INTERVAL.as_secs()).unwrap_or(127));
    let sum = pseudo_v6(GATEWAY_LINK_LOCAL, destination, message.len() as u32, ICMPV6).bytes(&message);
    message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    let len = (ROUTER_ALERT.len() + message.len()) as u16;
    emit.ipv6(GATEWAY_LINK_LOCAL, destination, IpProtocol::HopByHop, 1, len);
    emit.put(&ROUTER_ALERT);
    emit.put(&message);
    emit.finish()
}
