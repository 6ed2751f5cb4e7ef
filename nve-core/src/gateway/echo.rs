//! Echo to the gateway's addresses (RFC 792, RFC 4443, 4.2).
//!
//! What must stay true: a reply is as long as its request, without the request's IPv4 options. Its data is the request's own bytes, untouched and unread:
//! the checksum is adjusted for the changed type, so a broken request brings a broken reply, which the guest discards.

use smoltcp::wire::{EthernetProtocol, IpProtocol, Ipv4Packet, checksum};

use super::emit::{Emit, HOP_LIMIT};
use super::{GatewayContext, headers_v4, headers_v6};
use crate::DropReason;
use crate::pipeline::Rewritten;

const ETHERNET: usize = 14;
const ECHO_HEADER: usize = 8;

/// `packet` is the head of an IPv4 packet in an Ethernet frame of `frame_len` bytes.
pub(super) fn answer_v4(
    ctx: &GatewayContext<'_>,
    packet: &[u8],
    frame_len: usize,
    out: &mut [u8],
) -> Result<Rewritten, DropReason> {
    let ip = headers_v4(packet).ok_or(DropReason::Malformed)?;
    ctx.may_speak(ip.src_addr())?;
    if !ip.verify_checksum() {
        return Err(DropReason::BadChecksum);
    }
    let header = usize::from(ip.header_len());
    let end = usize::from(ip.total_len());
    let echo = echo_header(packet, header, end, frame_len)?;
    let reply_len = u16::try_from(20 + end - header).map_err(|_| DropReason::Malformed)?;
    let tos = tos(&ip);
    let mut emit = Emit::ethernet(out, ctx.mac, EthernetProtocol::Ipv4);
    emit.ipv4(ip.dst_addr(), ip.src_addr(), IpProtocol::Icmp, tos, reply_len);
    put_reply(&mut emit, 0, echo);
    sent(emit, header, end)
}

/// `packet` is the head of an IPv6 packet in an Ethernet frame of `frame_len` bytes.
pub(super) fn answer_v6(
    ctx: &GatewayContext<'_>,
    packet: &[u8],
    frame_len: usize,
    out: &mut [u8],
) -> Result<Rewritten, DropReason> {
    let ip = headers_v6(packet).ok_or(DropReason::Malformed)?;
    ctx.may_speak6(ip.src_addr())?;
    let end = 40 + usize::from(ip.payload_len());
    let echo = echo_header(packet, 40, end, frame_len)?;
    let mut emit = Emit::ethernet(out, ctx.mac, EthernetProtocol::Ipv6);
    emit.ipv6(ip.dst_addr(), ip.src_addr(), IpProtocol::Icmpv6, HOP_LIMIT, ip.payload_len());
    put_reply(&mut emit, 129, echo);
    sent(emit, 40, end)
}

/// The eight bytes of the echo header, which the packet's own length must cover, as the frame's must the packet's.
fn echo_header(
    packet: &[u8],
    at: usize,
    end: usize,
    frame_len: usize,
) -> Result<[u8; ECHO_HEADER], DropReason> {
    let header = packet.get(at..).and_then(<[u8]>::first_chunk).ok_or(DropReason::Malformed)?;
    let lengths_agree = end >= at + ECHO_HEADER && ETHERNET + end <= frame_len;
    if header[1] == 0 && lengths_agree { Ok(*header) } else { Err(DropReason::Malformed) }
}

/// The request's header with the reply's type. Swapping the addresses does not change a pseudo-header's sum, so only the type
/// does: RFC 1624, equation 3.
fn put_reply(emit: &mut Emit<'_>, reply_type: u8, echo: [u8; ECHO_HEADER]) {
    let [request_type, code, sum_high, sum_low, rest @ ..] = echo;
    let old = u16::from_be_bytes([sum_high, sum_low]);
    let was = u16::from_be_bytes([request_type, code]);
    let is = u16::from_be_bytes([reply_type, code]);
    // Of the two zeros, the one that also verifies when all else is zero (RFC 1624, 3).
    let new = match !checksum::combine(&[!old, !was, is]) {
        0 => 0xffff,
        sum => sum,
    };
    emit.put(&[reply_type, code]);
    emit.put(&new.to_be_bytes());
    emit.put(&rest);
}

fn sent(emit: Emit<'_>, header: usize, end: usize) -> Result<Rewritten, DropReason> {
    let head = emit.finish().ok_or(DropReason::GatewayNoRoom)?;
    Ok(Rewritten { tail: ETHERNET + header + ECHO_HEADER..ETHERNET + end, ..Rewritten::whole(0..head) })
}

fn tos(ip: &Ipv4Packet<&[u8]>) -> u8 {
    ip.dscp() << 2 | ip.ecn()
}
