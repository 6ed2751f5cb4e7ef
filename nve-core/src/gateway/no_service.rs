//! What is addressed to the gateway and served by none of its protocols.

use ipv4_xlat::{IcmpError, Icmpv4Error, Icmpv6Error};
use smoltcp::wire::IpProtocol;

use super::{GatewayContext, headers_v4, headers_v6};
use crate::DropReason;

/// Destination unreachable, port unreachable (RFC 792; RFC 4443, 3.1).
const PORT_UNREACHABLE_V4: (u8, u8) = (3, 3);
const PORT_UNREACHABLE_V6: (u8, u8) = (1, 4);

/// UDP and TCP are told that there is no such port; everything else is dropped without a word.
pub(super) fn owed(ctx: &GatewayContext<'_>, packet: &[u8]) -> Result<Option<IcmpError>, DropReason> {
    let has_ports = |protocol| matches!(protocol, IpProtocol::Udp | IpProtocol::Tcp);
    if let Some(ip) = headers_v4(packet) {
        let to = ip.src_addr();
        ctx.may_speak(to)?;
        let (icmp_type, code) = PORT_UNREACHABLE_V4;
        let error = IcmpError::V4(Icmpv4Error { to, icmp_type, code, word: 0 });
        return Ok(has_ports(ip.next_header()).then_some(error));
    }
    let ip = headers_v6(packet).ok_or(DropReason::Malformed)?;
    let to = ip.src_addr();
    ctx.may_speak6(to)?;
    let (icmp_type, code) = PORT_UNREACHABLE_V6;
    let error = IcmpError::V6(Icmpv6Error { to, icmp_type, code, word: 0 });
    Ok(has_ports(ip.next_header()).then_some(error))
}
