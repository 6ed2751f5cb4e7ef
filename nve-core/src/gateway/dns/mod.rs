//! DNS at the gateway's addresses: questions are passed on to the servers that the operator configured on the host side, and their
//! answers back (RFC 5625, DNS proxies; RFC 5452, forged answers).
//!
//! What must stay true:
//!
//! * **One question, one answer, to its asker.** The source of a question is an address of the attachment that sent it, and its answer goes to
//!   that attachment only, as long as it still has that address. So there is nobody to send unwanted answers to.
//! * **Nothing is remembered.** No answer is kept: a cache shared by tenants would let one of them choose what another is told, and tell it
//!   what others asked. The servers have caches, and answer in well under a millisecond.
//! * **What is outstanding is bounded**, for each attachment and in all; who has most makes room first.
//! * **An answer is what was asked**: it comes from the server that was asked, to a port of the host that only this question uses, under an
//!   identification that only this question has, both unpredictable, and repeats the question. Anything else is counted and ignored.
//! * **An answer fits**: longer than its asker takes, or its link, it is cut down to its question and says so (TC).
//!
//! ```text
//!   worker                          slow thread                                               shell
//!   answer() ── is it a query? ──>  Forwarder::ask ───── Errand::Send(token, server, message) ──> a socket of its own, connected
//!            (dns-query)               │  question outstanding: 1.2 s a server, 4.8 s in all
//!                                      │  Forwarder::tick (another server, or SERVFAIL)
//!   guest  <── Act::Answer(frame) ── Forwarder::heard <──────────────────────────────────────── what came to the socket
//! ```

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use smoltcp::wire::{EthernetAddress, Ipv4Packet, Ipv6Packet, UdpPacket};

use super::emit::Emit;
use super::{Answer, GatewayContext, Limits, Protocol, headers_v4, headers_v6, is_pending};
use crate::DropReason;
use crate::packet::{ETHERNET_LEN, Frame};
use crate::pipeline::{Again, Desk};

mod forwarder;
mod message;

pub use forwarder::{Act, Errand, Forwarder, Heard, Random, Token};
use message::Query;

/// Where a resolver listens.
pub(super) const PORT: u16 = 53;

/// Servers of one network at most.
pub const MAX_SERVERS: usize = 4;

/// IPv4 and UDP headers; IPv6 and UDP headers.
const HEADERS_V4: u16 = 28;
const HEADERS_V6: u16 = 48;

/// A question as an attachment sent it.
struct Asked {
    /// The asker: an address of the attachment, or its own link-local one.
    from: SocketAddr,
    /// Which of the gateway's addresses it asked.
    to: IpAddr,
    query: Query,
}

/// Whether a whole frame to port 53 of the gateway may go to the slow path, or must be finished first.
pub(super) fn admit(
    ctx: &GatewayContext<'_>,
    limits: &mut Limits,
    now: Duration,
    asked: &Frame<'_>,
) -> Result<Answer, DropReason> {
    if asked.offload.gso.is_some() {
        return Err(DropReason::BadOffload);
    }
    if asked.len > ETHERNET_LEN + usize::from(ctx.mtu) {
        return Err(DropReason::TooBig);
    }
    if is_pending(asked) {
        return Ok(Answer::Again(Again::Checksum));
    }
    limits.take(Protocol::Dns, now)?;
    check(ctx, asked.head.get(ETHERNET_LEN..).unwrap_or_default())?;
    Ok(Answer::Punt(Desk::Dns))
}

/// Whether `packet`, an IP packet to port 53 of the gateway, is a question that can be passed on.
fn check(ctx: &GatewayContext<'_>, packet: &[u8]) -> Result<(), DropReason> {
    let asked = read(ctx, packet)?;
    match asked.from.ip() {
        IpAddr::V4(source) => ctx.may_speak(source),
        IpAddr::V6(source) => ctx.may_speak6(source),
    }
}

/// Reads a packet of which [`check`] may have said that it is a question.
fn read(ctx: &GatewayContext<'_>, packet: &[u8]) -> Result<Asked, DropReason> {
    if headers_v4(packet).is_some() {
        let ip = Ipv4Packet::new_checked(packet).map_err(|_| DropReason::Malformed)?;
        if !ip.verify_checksum() {
            return Err(DropReason::BadChecksum);
        }
        if ip.more_frags() || ip.frag_offset() != 0 {
            return Err(DropReason::DnsQuery);
        }
        return datagram(ctx, ip.src_addr().into(), ip.dst_addr().into(), ip.payload());
    }
    headers_v6(packet).ok_or(DropReason::Malformed)?;
    let ip = Ipv6Packet::new_checked(packet).map_err(|_| DropReason::Malformed)?;
    datagram(ctx, ip.src_addr().into(), ip.dst_addr().into(), ip.payload())
}

fn datagram(
    ctx: &GatewayContext<'_>,
    from: IpAddr,
    to: IpAddr,
    datagram: &[u8],
) -> Result<Asked, DropReason> {
    let udp = UdpPacket::new_checked(datagram).map_err(|_| DropReason::Malformed)?;
    // IPv6 has no datagrams without a checksum (RFC 8200, 8.1).
    let absent = udp.checksum() == 0 && from.is_ipv6();
    if absent || !udp.verify_checksum(&from.into(), &to.into()) {
        return Err(DropReason::BadChecksum);
    }
    let headers = if from.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    let query = Query::read(udp.payload(), ctx.mtu.saturating_sub(headers)).ok_or(DropReason::DnsQuery)?;
    Ok(Asked { from: SocketAddr::new(from, udp.src_port()), to, query })
}

/// The Ethernet frame that takes `message` from port 53 of the gateway's address `from` to the attachment's; `None` if it is too long.
fn frame(mac: EthernetAddress, from: IpAddr, to: SocketAddr, message: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; 14 + usize::from(HEADERS_V6) + message.len()];
    let len = Emit::datagram(&mut out, mac, SocketAddr::new(from, PORT), to, message)?;
    out.truncate(len);
    Some(out)
}

#[cfg(test)]
mod tests;
