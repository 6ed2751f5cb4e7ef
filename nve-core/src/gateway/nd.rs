//! Neighbour discovery (RFC 4861, RFC 4862): the whole /96 answers with the gateway's MAC, and of link-local addresses only ours.
//!
//! What must stay true: a guest never hears of its own address (duplicate address detection would fail), and advertisements
//! get no answer.

use core::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::{EthernetAddress, EthernetProtocol, IpProtocol, Ipv6Packet, checksum};

use super::emit::Emit;
use super::{GATEWAY_MAC, GatewayContext, ra, service, whole};
use crate::DropReason;
use crate::pipeline::Rewritten;

/// ff02::1.
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Every ND message is sent with it, so that none came through a router (RFC 4861, 6.1.1, 7.1.1).
pub(super) const ND_HOP_LIMIT: u8 = 255;

pub(super) const OPTION_SOURCE_LINK_LAYER: u8 = 1;
pub(super) const OPTION_TARGET_LINK_LAYER: u8 = 2;
const FLAG_ROUTER: u8 = 0x80;
pub(super) const FLAG_SOLICITED: u8 = 0x40;
pub(super) const FLAG_OVERRIDE: u8 = 0x20;

pub(super) fn answer(
    ctx: &GatewayContext<'_>,
    packet: &[u8],
    out: &mut [u8],
) -> Result<Rewritten, DropReason> {
    let ip = Ipv6Packet::new_checked(packet).map_err(|_| DropReason::Malformed)?;
    let source = ip.src_addr();
    check(&ip)?;
    if !source.is_unspecified() {
        ctx.may_speak6(source)?;
    }
    match ip.payload() {
        [133, 0, _, _, _, _, _, _, options @ ..] => {
            check_source_link_layer(ctx, source, options)?;
            ra::advertise(ctx, if source.is_unspecified() { ALL_NODES } else { source }, out)
        }
        [135, 0, _, _, _, _, _, _, rest @ ..] => {
            let (target, options) = rest.split_first_chunk::<16>().ok_or(DropReason::Malformed)?;
            check_source_link_layer(ctx, source, options)?;
            answer_solicitation(ctx, &ip, Ipv6Addr::from(*target), out)
        }
        [136, 0, _, _, _, _, _, _, rest @ ..] if rest.len() >= 16 => Err(DropReason::NdUnanswered),
        [134, ..] | [137, ..] => Err(DropReason::RogueRouter),
        _ => Err(DropReason::Malformed),
    }
}

/// What every message must be (RFC 4861, 6.1 and 7.1): from this link, and whole.
pub(super) fn check(ip: &Ipv6Packet<&[u8]>) -> Result<(), DropReason> {
    if ip.hop_limit() != ND_HOP_LIMIT {
        return Err(DropReason::NdHopLimit);
    }
    if checksum_is_good(ip) { Ok(()) } else { Err(DropReason::BadChecksum) }
}

fn answer_solicitation(
    ctx: &GatewayContext<'_>,
    ip: &Ipv6Packet<&[u8]>,
    target: Ipv6Addr,
    out: &mut [u8],
) -> Result<Rewritten, DropReason> {
    if target.is_multicast() || target.is_unspecified() {
        return Err(DropReason::Malformed);
    }
    let source = ip.src_addr();
    let probe = source.is_unspecified();
    if probe && ip.dst_addr() != solicited_node(target) {
        return Err(DropReason::Malformed);
    }
    let due = if probe { is_taken(ctx, target) } else { is_neighbour(ctx, target) };
    if !due {
        return Err(DropReason::NdUnanswered);
    }
    // RFC 4861, 7.2.4: to all nodes, and not solicited, where the asker has no address yet.
    let (to, mac, solicited) = if probe {
        (ALL_NODES, EthernetAddress([0x33, 0x33, 0, 0, 0, 1]), 0)
    } else {
        (source, ctx.mac, FLAG_SOLICITED)
    };
    let router = if ctx.is_gateway6(target) { FLAG_ROUTER } else { 0 };
    let mut emit = Emit::ethernet(out, mac, EthernetProtocol::Ipv6);
    let ip_at = emit.len();
    emit.ipv6(target, to, IpProtocol::Icmpv6, ND_HOP_LIMIT, 0);
    emit.put(&[136, 0, 0, 0, router | solicited | FLAG_OVERRIDE, 0, 0, 0]);
    emit.put(&target.octets());
    emit.put(&[OPTION_TARGET_LINK_LAYER, 1]);
    emit.put(GATEWAY_MAC.as_bytes());
    emit.close_ipv6(ip_at, IpProtocol::Icmpv6, 2);
    whole(emit.finish())
}

/// An address of the VN that is not the asker's, or one of the gateway's. Of link-local addresses only ours: another
/// attachment's is not on this link.
fn is_neighbour(ctx: &GatewayContext<'_>, target: Ipv6Addr) -> bool {
    !ctx.is_askers(target) && (is_ours(ctx, target) || is_in_network(ctx, target))
}

/// RFC 4862, 5.4: duplicate address detection asks whether an address may be taken. Answered only if it may not.
fn is_taken(ctx: &GatewayContext<'_>, target: Ipv6Addr) -> bool {
    is_ours(ctx, target) || (is_in_network(ctx, target) && (ctx.held_by_another)(IpAddr::V6(target)))
}

fn is_ours(ctx: &GatewayContext<'_>, target: Ipv6Addr) -> bool {
    ctx.is_gateway6(target) || service::is_offered(ctx, target)
}

fn is_in_network(ctx: &GatewayContext<'_>, target: Ipv6Addr) -> bool {
    ctx.vnet.is_some_and(|vnet| vnet.contains(target))
}

/// RFC 4291, 2.7.1.
pub(super) fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

/// RFC 4861, 6.1.1 and 7.1.1: an asker without an address names no MAC.
fn check_source_link_layer(
    ctx: &GatewayContext<'_>,
    source: Ipv6Addr,
    options: &[u8],
) -> Result<(), DropReason> {
    let named = check_link_layer(ctx, OPTION_SOURCE_LINK_LAYER, options);
    match source.is_unspecified() {
        true if named != Ok(false) => Err(DropReason::Malformed),
        _ => named.map(|_| ()),
    }
}

/// RFC 4861, 6.1 and 7.1: options are whole and none is empty. Beyond the RFC: a MAC that option `wanted` names is the asker's. Says
/// whether it names one.
pub(super) fn check_link_layer(
    ctx: &GatewayContext<'_>,
    wanted: u8,
    options: &[u8],
) -> Result<bool, DropReason> {
    let (mut rest, mut named) = (options, false);
    while let [kind, units, ..] = *rest {
        let (option, after) = match units {
            0 => return Err(DropReason::Malformed),
            _ => rest.split_at_checked(usize::from(units) * 8).ok_or(DropReason::Malformed)?,
        };
        rest = after;
        if kind == wanted {
            named = true;
            if option.get(2..8) != Some(ctx.mac.as_bytes()) {
                return Err(DropReason::SpoofedMac);
            }
        }
    }
    if rest.is_empty() { Ok(named) } else { Err(DropReason::Malformed) }
}

/// Whether the ICMPv6 checksum of a packet without extension headers verifies (RFC 4443, 2.3).
fn checksum_is_good(ip: &Ipv6Packet<&[u8]>) -> bool {
    let payload = ip.payload();
    let Ok(len) = u32::try_from(payload.len()) else { return false };
    let pseudo = checksum::pseudo_header_v6(&ip.src_addr(), &ip.dst_addr(), IpProtocol::Icmpv6, len);
    checksum::combine(&[pseudo, checksum::data(payload)]) == 0xffff
}
