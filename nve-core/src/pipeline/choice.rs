//! Which of several locators a packet goes to (policy/several): a flow is read from the packet, for packets whose destination has several.
//!
//! ```text
//!   source        as the wire has it: SIR:(VNI:VA), VNET:VA, SIR:T, or the outside's
//!   protocol      behind the headers that every fragment has; IPv4's as IPv6 calls it
//!   ICMP errors   the packet they quote, the other way round: an error finds whoever sent what it is about
//! ```
//!
//! What must stay true: a host that translates, one that routes, and one that sends read the same flow from the same packet, from any
//! fragment of it; only bytes in the copied head are read.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::quote::quoted_destination;
use super::walk::Walk;
use super::{Origin, Question};
use crate::addr::DomainId;
use crate::packet::Frame;
use crate::packet::ipv6::{HEADER_LEN, Ipv6};
use crate::packet::protocol::ICMPV6;
use crate::policy::{Flow, Several};
use crate::tables::Target;

/// ICMP for IPv4.
const ICMP: u8 = 1;

/// Bytes of an ICMP error, of either family, before what it quotes.
const BEFORE_QUOTE: usize = 8;

/// Where the packet of `question` goes, whose destination has `several` places.
#[cold]
pub(crate) fn towards(
    walk: &Walk<'_>,
    several: &Several,
    question: &Question,
    frame: &Frame<'_>,
) -> Option<Target> {
    let packet = frame.head.get(question.origin.ip_offset()..).unwrap_or_default();
    let (source, protocol) = match packet.first().map(|first| first >> 4) {
        Some(4) => of_ipv4(walk, question, packet)?,
        _ => {
            let is_error = question.is_icmpv6_error(frame, question.origin.ip_offset());
            of_ipv6(walk, several.key.domain(), packet, is_error)?
        }
    };
    several.choose(Flow::new(source, several.key.identifier(), protocol))
}

/// Source and protocol of an IPv4 packet from a tenant.
fn of_ipv4(walk: &Walk<'_>, question: &Question, packet: &[u8]) -> Option<(Ipv6Addr, u8)> {
    let Origin::Port(port) = question.origin else { return None };
    let network = walk.world.network(walk.world.attachment(port)?.network)?;
    let called = |address| network.sir_address(address);
    let header = packet.first_chunk::<20>()?;
    let l4 = usize::from(header[0] & 0xf) * 4;
    let is_first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    let is_error = header[9] == ICMP && is_first && matches!(packet.get(l4), Some(3 | 4 | 5 | 11 | 12));
    if is_error
        && let Some(quoted) = packet.get(l4 + BEFORE_QUOTE..).and_then(|rest| rest.first_chunk::<20>())
    {
        return Some((called(address4(quoted, 16)), as_ipv6(quoted[9])));
    }
    Some((called(address4(header, 12)), as_ipv6(header[9])))
}

fn address4(header: &[u8; 20], at: usize) -> Ipv4Addr {
    let octets = header.get(at..).and_then(|rest| rest.first_chunk::<4>());
    octets.map_or(Ipv4Addr::UNSPECIFIED, |octets| Ipv4Addr::from(*octets))
}

const fn as_ipv6(protocol: u8) -> u8 {
    if protocol == ICMP { ICMPV6 } else { protocol }
}

/// Source and protocol of an IPv6 packet.
fn of_ipv6(walk: &Walk<'_>, domain: DomainId, packet: &[u8], is_error: bool) -> Option<(Ipv6Addr, u8)> {
    let (protocol, at) = behind_common_headers(packet)?;
    if is_error
        && let Some(packet) = packet.get(at + BEFORE_QUOTE..)
        && let Some((quoted, (protocol, _))) = Ipv6::quoted(packet).zip(behind_common_headers(packet))
    {
        let destination = quoted.destination();
        let called = quoted_destination(walk, domain, destination).map_or(destination, |to| to.address);
        return Some((called, protocol));
    }
    Some((Ipv6::quoted(packet)?.source(), protocol))
}

/// The protocol behind the headers that all fragments of a datagram have, and where it begins in the first (RFC 8200, section 4.5).
fn behind_common_headers(packet: &[u8]) -> Option<(u8, usize)> {
    let (mut protocol, mut at) = (*packet.get(6)?, HEADER_LEN);
    // No more than two of each: the question has refused longer chains.
    for _ in 0..4 {
        let len = match protocol {
            43 => (usize::from(*packet.get(at + 1)?) + 1) * 8,
            44 => 8,
            _ => break,
        };
        protocol = *packet.get(at)?;
        at += len;
    }
    Some((protocol, at))
}
