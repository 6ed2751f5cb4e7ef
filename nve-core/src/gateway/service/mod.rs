//! What the gateway serves on a TCP/IP stack of its own, at addresses that are the same in every VN.
//!
//! What must stay true:
//!
//! * **Only the attachment's own addresses are served.** [`admit`] checks the source before anything is punted, so whoever reads the
//!   answer is who asked. A guest without a lease, which speaks from 169.254.0.0/16 or a link-local address, is not answered.
//! * **One stack for each attachment**: what one opens, sends or leaves half done is in nobody else's stack.
//!
//! ```text
//!   mod.rs     which frames are for the stack            (worker, from the packet alone)
//!   stacks.rs  the stacks: made when first asked, dropped when idle  (slow path)
//!   stack.rs   one stack: frames in, frames out
//!   connection.rs > http.rs > metadata.rs    a request read, understood, answered; tokens.rs: IMDSv2
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use smoltcp::wire::IpProtocol;

use super::{Answer, GatewayContext, Kind, Limits, Protocol, headers_v4, headers_v6, is_pending};
use crate::DropReason;
use crate::packet::{ETHERNET_LEN, Frame};
use crate::pipeline::{Again, Desk};

mod connection;
mod http;
mod metadata;
mod stack;
mod stacks;
mod tokens;

pub(crate) use stacks::Stacks;

/// Where cloud guests ask for their metadata (Amazon EC2's address, which every other cloud took over).
pub const METADATA4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The same over IPv6 (Amazon EC2).
pub const METADATA6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// HTTP.
const PORT: [u8; 2] = 80_u16.to_be_bytes();

/// Whether `address` is served to this attachment.
pub(super) fn is_offered(ctx: &GatewayContext<'_>, address: impl Into<IpAddr>) -> bool {
    let address = address.into();
    ctx.metadata && (address == METADATA4 || address == METADATA6)
}

/// What of a packet to a served address is answered; `transport` begins with its transport header.
pub(super) fn kind(protocol: IpProtocol, transport: &[u8]) -> Option<Kind> {
    match (protocol, transport) {
        (IpProtocol::Tcp, [_, _, high, low, ..]) if [*high, *low] == PORT => Some(Kind::Service),
        (IpProtocol::Icmp, [8, ..]) => Some(Kind::Echo4),
        (IpProtocol::Icmpv6, [128, ..]) => Some(Kind::Echo6),
        _ => None,
    }
}

/// Whether a whole frame for the stack may go to it, or must be finished first: there is no hardware behind the stack.
pub(super) fn admit(
    ctx: &GatewayContext<'_>,
    limits: &mut Limits,
    now: Duration,
    asked: &Frame<'_>,
) -> Result<Answer, DropReason> {
    let packet = asked.head.get(ETHERNET_LEN..).unwrap_or_default();
    let v4 = headers_v4(packet).map(|ip| IpAddr::V4(ip.src_addr()));
    let source = v4.or_else(|| headers_v6(packet).map(|ip| IpAddr::V6(ip.src_addr())));
    let source = source.ok_or(DropReason::Malformed)?;
    ctx.may_speak(source)?;
    // What a router machine forwards, or an address that it shares, is not the machine itself.
    if !ctx.addresses.contains(&source) {
        return Err(DropReason::GatewayNoService);
    }
    if asked.offload.gso.is_some() {
        return Ok(Answer::Again(Again::Segments));
    }
    if asked.len > ETHERNET_LEN + usize::from(ctx.mtu) {
        return Err(DropReason::TooBig);
    }
    if is_pending(asked) {
        return Ok(Answer::Again(Again::Checksum));
    }
    limits.take(Protocol::Service, now)?;
    Ok(Answer::Punt(Desk::Service))
}
