//! Router advertisements (RFC 4861, 4.2; RFC 8106).
//!
//! What must stay true: no prefix option is ever sent. The VN's prefix is a /96, of which no host can form an address by
//! itself, and without an on-link prefix guests send everything to the gateway, which is where everything is.

use core::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::{EthernetAddress, EthernetProtocol, IpProtocol};

use super::emit::{Emit, HOP_LIMIT};
use super::names::SearchList;
use super::nd::{ALL_NODES, ND_HOP_LIMIT};
use super::{GATEWAY_LINK_LOCAL, GATEWAY_MAC, GatewayContext, whole};
use crate::DropReason;
use crate::pipeline::Rewritten;

/// Managed addresses and other configuration: both by DHCPv6.
const FLAGS_MANAGED: u8 = 0xc0;
/// Seconds. The largest legal one (RFC 8319, 4): a guest keeps its router while the daemon is away for hours.
const LIFETIME: u16 = u16::MAX;
/// Resolvers told; more are left out, so that an advertisement stays far below the IPv6 minimum MTU.
const MAX_RESOLVERS: usize = 8;

/// Writes an advertisement for `to`, the asker's address or all nodes.
pub(super) fn advertise(
    ctx: &GatewayContext<'_>,
    to: Ipv6Addr,
    out: &mut [u8],
) -> Result<Rewritten, DropReason> {
    if ctx.vnet.is_none() {
        return Err(DropReason::NdUnanswered);
    }
    let mac = if to == ALL_NODES { EthernetAddress([0x33, 0x33, 0, 0, 0, 1]) } else { ctx.mac };
    let mut emit = Emit::ethernet(out, mac, EthernetProtocol::Ipv6);
    let ip_at = emit.len();
    emit.ipv6(GATEWAY_LINK_LOCAL, to, IpProtocol::Icmpv6, ND_HOP_LIMIT, 0);
    emit.put(&[134, 0, 0, 0, HOP_LIMIT, FLAGS_MANAGED]);
    emit.put(&LIFETIME.to_be_bytes());
    emit.zeros(8); // reachable and retransmission times: the guest's own
    emit.put(&[1, 1]); // source link-layer address
    emit.put(GATEWAY_MAC.as_bytes());
    emit.put(&[5, 1, 0, 0]); // MTU
    emit.put(&u32::from(ctx.mtu).to_be_bytes());
    put_resolvers(ctx, &mut emit);
    put_search_list(ctx, &mut emit);
    emit.close_ipv6(ip_at, IpProtocol::Icmpv6, 2);
    whole(emit.finish())
}

/// RDNSS (RFC 8106, 5.1).
fn put_resolvers(ctx: &GatewayContext<'_>, emit: &mut Emit<'_>) {
    let resolvers = || {
        let v6 = |a: &IpAddr| if let IpAddr::V6(a) = a { Some(*a) } else { None };
        ctx.dns.iter().filter_map(v6).take(MAX_RESOLVERS)
    };
    let count = resolvers().count();
    if count == 0 {
        return;
    }
    emit.put(&[25, 1 + 2 * count as u8, 0, 0]);
    emit.put(&u32::from(LIFETIME).to_be_bytes());
    resolvers().for_each(|resolver| emit.put(&resolver.octets()));
}

/// DNSSL (RFC 8106, 5.2), padded to units of eight bytes.
fn put_search_list(ctx: &GatewayContext<'_>, emit: &mut Emit<'_>) {
    let list = SearchList::of(ctx.search);
    let len = list.bytes().len();
    if len == 0 {
        return;
    }
    let units = (8 + len).div_ceil(8);
    emit.put(&[31, units as u8, 0, 0]);
    emit.put(&u32::from(LIFETIME).to_be_bytes());
    emit.put(list.bytes());
    emit.zeros(units * 8 - 8 - len);
}
