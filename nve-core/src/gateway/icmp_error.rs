//! ICMP errors to the attachment, from the gateway: unreachable, too big, time exceeded.
//!
//! What must stay true: an error goes to the packet's own sender on this link and to nobody else, quotes what that sender sent, and
//! is rate limited. Which packets may be answered at all is [`ipv4_xlat::generated`]'s to say.

use core::time::Duration;

use ipv4_xlat::generated::{icmpv4_error, icmpv6_error};
use ipv4_xlat::{Icmpv4Error, Icmpv6Error};
use smoltcp::wire::{EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet};

use super::emit::Emit;
use super::{GATEWAY_LINK_LOCAL, GatewayContext, Limits, Protocol, headers_v4, headers_v6};
use crate::DropReason;
use crate::pipeline::Rewritten;

/// ICMPv4 destination unreachable, port unreachable (RFC 792); ICMPv6's (RFC 4443, 3.1).
const PORT_UNREACHABLE_V4: (u8, u8) = (3, 3);
const PORT_UNREACHABLE_V6: (u8, u8) = (1, 4);

/// Writes `error` about `packet` (from its IPv4 header on; its first bytes suffice) as an Ethernet frame to the attachment.
/// `None` if none may be sent, the bucket is empty, or `out` is too short for [`ipv4_xlat::generated::ICMPV4_MAX`] and a header.
pub fn tell_v4(
    ctx: &GatewayContext<'_>,
    limits: &mut Limits,
    now: Duration,
    error: &Icmpv4Error,
    packet: &[u8],
    out: &mut [u8],
) -> Option<Rewritten> {
    // The error needs an identification that differs from packet to packet: the asker's own does.
    let identification = Ipv4Packet::new_unchecked(packet.get(..20)?).ident();
    let (ethernet, room) = split(ctx, EthernetProtocol::Ipv4, out)?;
    let len = icmpv4_error(error, ctx.gateway4?, identification, packet, room).ok()?;
    limits.take(Protocol::IcmpError, now).ok()?;
    Some(Rewritten::whole(0..ethernet + len))
}

/// As [`tell_v4`], for IPv6. A sender that speaks from a link-local address is told by fe80::1.
pub fn tell_v6(
    ctx: &GatewayContext<'_>,
    limits: &mut Limits,
    now: Duration,
    error: &Icmpv6Error,
    packet: &[u8],
    out: &mut [u8],
) -> Option<Rewritten> {
    let source = Ipv6Packet::new_unchecked(packet.get(..40)?).src_addr();
    let from = if source.is_unicast_link_local() { GATEWAY_LINK_LOCAL } else { ctx.gateway6? };
    let (ethernet, room) = split(ctx, EthernetProtocol::Ipv6, out)?;
    let len = icmpv6_error(error, from, packet, room).ok()?;
    limits.take(Protocol::IcmpError, now).ok()?;
    Some(Rewritten::whole(0..ethernet + len))
}

/// The answer to UDP or TCP for a gateway address: no such port. Everything else is dropped without a word.
pub(super) fn no_service(
    ctx: &GatewayContext<'_>,
    limits: &mut Limits,
    now: Duration,
    packet: &[u8],
    out: &mut [u8],
) -> Result<Option<Rewritten>, DropReason> {
    let has_ports = |protocol| matches!(protocol, IpProtocol::Udp | IpProtocol::Tcp);
    if let Some(ip) = headers_v4(packet) {
        if !ctx.owns(ip.src_addr()) {
            return Err(DropReason::SpoofedAddress);
        }
        let (icmp_type, code) = PORT_UNREACHABLE_V4;
        let error = Icmpv4Error { to: ip.src_addr(), icmp_type, code, word: 0 };
        return Ok(has_ports(ip.next_header())
            .then(|| tell_v4(ctx, limits, now, &error, packet, out))
            .flatten());
    }
    let ip = headers_v6(packet).ok_or(DropReason::Malformed)?;
    if !ctx.may_speak6(ip.src_addr()) {
        return Err(DropReason::SpoofedAddress);
    }
    let (icmp_type, code) = PORT_UNREACHABLE_V6;
    let error = Icmpv6Error { to: ip.src_addr(), icmp_type, code, word: 0 };
    Ok(has_ports(ip.next_header()).then(|| tell_v6(ctx, limits, now, &error, packet, out)).flatten())
}

/// Writes the Ethernet header; its length, and the room behind it.
fn split<'o>(
    ctx: &GatewayContext<'_>,
    protocol: EthernetProtocol,
    out: &'o mut [u8],
) -> Option<(usize, &'o mut [u8])> {
    let len = Emit::ethernet(out, ctx.mac, protocol).finish()?;
    Some((len, out.get_mut(len..)?))
}
