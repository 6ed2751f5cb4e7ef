//! ARP (RFC 826, RFC 5227): the whole VN answers with the gateway's MAC.
//!
//! What must stay true: a guest never hears of its own address (it would decline it), and announcements get no answer.

use core::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetProtocol};

use super::emit::Emit;
use super::{GATEWAY_MAC, GatewayContext, service, whole};
use crate::DropReason;
use crate::pipeline::Rewritten;

pub(super) fn answer(
    ctx: &GatewayContext<'_>,
    packet: &[u8],
    out: &mut [u8],
) -> Result<Rewritten, DropReason> {
    let packet = ArpPacket::new_checked(packet).map_err(|_| DropReason::Malformed)?;
    let Ok(ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr: source,
        target_protocol_addr: target,
        ..
    }) = ArpRepr::parse(&packet)
    else {
        return Err(DropReason::Malformed);
    };
    if source_hardware_addr != ctx.mac {
        return Err(DropReason::SpoofedMac);
    }
    let probe = source.is_unspecified();
    if !probe {
        ctx.may_speak(source)?;
    }
    let due = match operation {
        ArpOperation::Request if probe => is_taken(ctx, target),
        ArpOperation::Request => is_neighbour(ctx, target),
        _ => false,
    };
    if !due {
        return Err(DropReason::ArpUnanswered);
    }
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: GATEWAY_MAC,
        source_protocol_addr: target,
        target_hardware_addr: ctx.mac,
        target_protocol_addr: source,
    };
    let mut body = [0; 28];
    reply.emit(&mut ArpPacket::new_unchecked(&mut body[..]));
    let mut emit = Emit::ethernet(out, ctx.mac, EthernetProtocol::Arp);
    emit.put(&body);
    whole(emit.finish())
}

/// An address of the VN that is not the asker's, nor the prefix's network or broadcast address; or one that the gateway serves.
fn is_neighbour(ctx: &GatewayContext<'_>, target: Ipv4Addr) -> bool {
    if ctx.is_askers(target) {
        return false;
    }
    if Some(target) == ctx.gateway4 || service::is_offered(ctx, target) {
        return true;
    }
    ctx.prefix4.is_some_and(|prefix| {
        // RFC 3021: a /31 has neither, and a /32 is one host.
        let is_host = prefix.prefix_len() >= 31
            || (target != prefix.network().address() && Some(target) != prefix.broadcast());
        prefix.contains_addr(&target) && is_host
    })
}

/// RFC 5227, 2.1.1: a probe asks whether an address may be taken. Answered only if it may not.
fn is_taken(ctx: &GatewayContext<'_>, target: Ipv4Addr) -> bool {
    Some(target) == ctx.gateway4
        || service::is_offered(ctx, target)
        || (ctx.prefix4.is_some_and(|prefix| prefix.contains_addr(&target))
            && (ctx.held_by_another)(IpAddr::V4(target)))
}
