//! What rules look at ([`Traffic`]), read from a packet of either family, or from one that an ICMP error quotes.
//!
//! What must stay true: read from the copied head only; what a fragment, or a quote that is cut, does not show is said so.

use core::ops::Range;

use super::Question;
use super::walk::Stop;
use crate::DropReason;
use crate::packet::ipv4::Ipv4;
use crate::packet::ipv6::{HEADER_LEN, Ipv6};
use crate::packet::protocol::{ICMPV6, SCTP, TCP, UDP};
use crate::packet::{ETHERNET_LEN, Frame};
use crate::pipeline::Again;
use crate::policy::{Shown, Traffic};

/// Of an IPv6 packet at `offset` that is no ICMPv6 error.
pub(crate) fn of_ipv6(question: &Question, frame: &Frame<'_>, offset: usize) -> Result<Traffic, Stop> {
    let at = offset + usize::from(question.l4);
    let end = offset + question.ip_len as usize;
    let shown = match question.has_transport {
        true => shown(question.protocol, frame, at..end)?,
        false => Shown::Nothing,
    };
    Ok(Traffic { protocol: question.protocol, shown })
}

/// Of an IPv4 packet in an Ethernet frame, as what it will be in IPv6; `None`: it is an ICMP error.
pub(crate) fn of_ipv4(header: Ipv4<'_>, frame: &Frame<'_>) -> Result<Option<Traffic>, Stop> {
    let protocol = if header.protocol() == ICMP { ICMPV6 } else { header.protocol() };
    if !header.has_transport() {
        return Ok(Some(Traffic { protocol, shown: Shown::Nothing }));
    }
    let (at, end) = (ETHERNET_LEN + header.header_len(), ETHERNET_LEN + header.total_len());
    let shown = match shown(protocol, frame, at..end)? {
        Shown::Icmp(3 | 4 | 5 | 11 | 12) => return Ok(None),
        Shown::Icmp(8) => Shown::Icmp(128),
        Shown::Icmp(0) => Shown::Icmp(129),
        // Nothing else has a form in IPv6 (RFC 7915, section 4.2).
        Shown::Icmp(_) => Shown::Icmp(0),
        shown => shown,
    };
    Ok(Some(Traffic { protocol, shown }))
}

/// ICMP for IPv4.
const ICMP: u8 = 1;

/// `at`: where the transport header starts and the packet ends; what the frame has behind that is no part of it.
fn shown(protocol: u8, frame: &Frame<'_>, at: Range<usize>) -> Result<Shown, Stop> {
    let copied = at.end.min(frame.head.len());
    match transport(protocol, frame.head.get(at.start..copied).unwrap_or_default()) {
        Some(shown) => Ok(shown),
        None if copied == at.end || frame.is_whole() => Ok(Shown::Nothing),
        None => Err(Stop::Again(Again::Whole)),
    }
}

/// `None`: there are too few bytes.
fn transport(protocol: u8, bytes: &[u8]) -> Option<Shown> {
    let ports = |answers| {
        let [a, b, c, d] = *bytes.first_chunk::<4>()?;
        let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        Some(Shown::Ports { source, destination, answers })
    };
    match protocol {
        TCP => ports(bytes.get(13)? & ACK_OR_RST != 0),
        UDP | SCTP => ports(false),
        ICMPV6 => bytes.first().map(|kind| Shown::Icmp(*kind)),
        _ => Some(Shown::Other),
    }
}

/// RFC 9293, section 3.1.
const ACK_OR_RST: u8 = 0x10 | 0x04;

/// Extension headers that a quoted packet may have.
const LONGEST_CHAIN: usize = 8;

/// Of the IPv6 packet, or its beginning, that an ICMPv6 error quotes.
pub(crate) fn of_quoted(packet: &[u8]) -> Result<Traffic, DropReason> {
    let header = Ipv6::quoted(packet).ok_or(DropReason::QuotedPacket)?;
    let (mut protocol, mut at) = (header.next_header(), HEADER_LEN);
    for _ in 0..LONGEST_CHAIN {
        if !matches!(protocol, 0 | 43 | 44 | 60) {
            return Ok(Traffic { protocol, shown: shown_by_quote(protocol, packet.get(at..)) });
        }
        let fields = packet.get(at..).and_then(|rest| rest.first_chunk::<4>());
        let fields = fields.ok_or(DropReason::QuotedPacket)?;
        let is_fragment = protocol == 44;
        protocol = fields[0];
        if is_fragment && u16::from_be_bytes([fields[2], fields[3]]) & !7 != 0 {
            return Ok(Traffic { protocol, shown: Shown::Nothing });
        }
        at += if is_fragment { 8 } else { (usize::from(fields[1]) + 1) * 8 };
    }
    Err(DropReason::QuotedPacket)
}

/// A quote may end behind the ports (RFC 792): that a TCP segment answered is believed then.
fn shown_by_quote(protocol: u8, bytes: Option<&[u8]>) -> Shown {
    let bytes = bytes.unwrap_or_default();
    let believed = || match transport(UDP, bytes)? {
        Shown::Ports { source, destination, .. } if protocol == TCP => {
            Some(Shown::Ports { source, destination, answers: true })
        }
        _ => None,
    };
    transport(protocol, bytes).or_else(believed).unwrap_or(Shown::Nothing)
}
