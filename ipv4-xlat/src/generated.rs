//! ICMP errors that we originate: what may be answered, and the packet (RFC 7915 4.4, 5.4).
//!
//! The error quotes the refused packet as it was received. Whether one is sent at all is decided here for every
//! caller alike; how often, by [`crate::limit`].

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::address::{illegal_source_v4, illegal_source_v6};
use crate::checksum::{Sum, pseudo_v6};
use crate::refusal::{Icmpv4Error, Icmpv6Error};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Fragment, Ipv6};
use crate::wire::protocol;

/// The longest ICMPv4 error (RFC 1812 4.3.2.3).
pub const ICMPV4_MAX: usize = 576;
/// The longest ICMPv6 error (RFC 4443 2.4(c)).
pub const ICMPV6_MAX: usize = 1280;

/// TTL and Hop Limit of what we send (RFC 1700's default).
const HOPS: u8 = 64;

/// Extension headers looked through for an ICMPv6 error.
const MAX_HEADERS: usize = 8;

/// Why no ICMP error is sent about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotSent {
    /// It is an ICMP error or redirect itself, or might be one.
    AboutError,
    /// It is not the first fragment of its datagram.
    AboutFragment,
    /// It was sent to many.
    AboutMulticast,
    /// Its source is not one host.
    IllegalSource,
    /// It has no complete IP header.
    Malformed,
    /// The buffer is shorter than the error.
    NoRoom,
}

/// Whether an ICMPv4 error may be sent about `original`, a packet's first bytes (RFC 1122 3.2.2, RFC 1812 4.3.2.7).
///
/// # Errors
///
/// The reason it may not.
pub fn may_answer_v4(original: &[u8]) -> Result<(), NotSent> {
    let ip = Ipv4(original.first_chunk().ok_or(NotSent::Malformed)?);
    let destination = ip.destination();
    if illegal_source_v4(ip.source()) {
        return Err(NotSent::IllegalSource);
    }
    if destination.is_multicast() || destination.is_broadcast() {
        return Err(NotSent::AboutMulticast);
    }
    if ip.fragment_offset() != 0 {
        return Err(NotSent::AboutFragment);
    }
    if ip.protocol() == protocol::ICMP {
        // Only what is certainly no error is answered: queries and their replies.
        match original.get(ip.header_len()) {
            Some(0 | 8 | 13..=18 | 42 | 43) => {}
            _ => return Err(NotSent::AboutError),
        }
    }
    Ok(())
}

/// Whether `error` may be sent about `original`, a packet's first bytes (RFC 4443 2.4(e)). Packets to many are answered
/// by packet-too-big and by unrecognized-option problems only.
///
/// # Errors
///
/// The reason it may not.
pub fn may_answer_v6(error: &Icmpv6Error, original: &[u8]) -> Result<(), NotSent> {
    let ip = Ipv6(original.first_chunk().ok_or(NotSent::Malformed)?);
    if illegal_source_v6(ip.source()) {
        return Err(NotSent::IllegalSource);
    }
    let excepted = matches!((error.icmp_type, error.code), (2, 0) | (4, 2));
    if ip.destination().is_multicast() && !excepted {
        return Err(NotSent::AboutMulticast);
    }
    let (mut next_header, mut at) = (ip.next_header(), ipv6::HEADER_LEN);
    for _ in 0..MAX_HEADERS {
        let Some(header) = original.get(at..).and_then(|rest| rest.first_chunk::<8>()) else { break };
        match next_header {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => {
                at += usize::from(header[1]) * 8 + 8;
            }
            protocol::FRAGMENT if Fragment::parse(header).offset != 0 => return Err(NotSent::AboutFragment),
            protocol::FRAGMENT => at += ipv6::FRAGMENT_LEN,
            _ => break,
        }
        next_header = header[0];
    }
    // An error, a redirect (137), or a type that is not there to be seen.
    if next_header == protocol::ICMPV6 && original.get(at).is_none_or(|&kind| kind < 128 || kind == 137) {
        return Err(NotSent::AboutError);
    }
    Ok(())
}

/// Builds the ICMPv4 error `error`, sent by `from`, about `original`, into `out`. Returns the packet's length, at most
/// [`ICMPV4_MAX`].
///
/// `original` is the packet as received, before any change, from its IP header on, or as much of its beginning as
/// there is. `identification` must differ from packet to packet: the error is sent with DF = 0.
///
/// # Errors
///
/// What [`may_answer_v4`] says, and [`NotSent::NoRoom`].
pub fn icmpv4_error(
    error: &Icmpv4Error,
    from: Ipv4Addr,
    identification: u16,
    original: &[u8],
    out: &mut [u8],
) -> Result<usize, NotSent> {
    const BEFORE_QUOTE: usize = ipv4::HEADER_LEN + 8;
    may_answer_v4(original)?;
    let counted = usize::from(Ipv4(original.first_chunk().ok_or(NotSent::Malformed)?).total_len());
    let quote = original.get(..counted.max(ipv4::HEADER_LEN)).unwrap_or(original);
    let quote = quote.get(..ICMPV4_MAX - BEFORE_QUOTE).unwrap_or(quote);
    let total_len = BEFORE_QUOTE + quote.len();

    let out = out.get_mut(..total_len).ok_or(NotSent::NoRoom)?;
    let (ip_out, icmp_out) = out.split_first_chunk_mut::<{ ipv4::HEADER_LEN }>().ok_or(NotSent::NoRoom)?;
    write_message(error.icmp_type, error.code, error.word, quote, icmp_out, Sum::ZERO)?;
    ipv4::Fields {
        tos: 0,
        total_len: total_len as u16,
        identification,
        dont_fragment: false,
        more_fragments: false,
        fragment_offset: 0,
        ttl: HOPS,
        protocol: protocol::ICMP,
        source: from,
        destination: error.to,
    }
    .emit(ip_out);
    Ok(total_len)
}

/// Builds the ICMPv6 error `error`, sent by `from`, about `original`, into `out`. Returns the packet's length, at most
/// [`ICMPV6_MAX`].
///
/// `original` is the packet as received, before any change, from its IP header on, or as much of its beginning as
/// there is.
///
/// # Errors
///
/// What [`may_answer_v6`] says, and [`NotSent::NoRoom`].
pub fn icmpv6_error(
    error: &Icmpv6Error,
    from: Ipv6Addr,
    original: &[u8],
    out: &mut [u8],
) -> Result<usize, NotSent> {
    const BEFORE_QUOTE: usize = ipv6::HEADER_LEN + 8;
    may_answer_v6(error, original)?;
    let payload_len = Ipv6(original.first_chunk().ok_or(NotSent::Malformed)?).payload_len();
    let quote = original.get(..ipv6::HEADER_LEN + usize::from(payload_len)).unwrap_or(original);
    let quote = quote.get(..ICMPV6_MAX - BEFORE_QUOTE).unwrap_or(quote);
    let icmp_len = 8 + quote.len();

    let out = out.get_mut(..ipv6::HEADER_LEN + icmp_len).ok_or(NotSent::NoRoom)?;
    let (ip_out, icmp_out) = out.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>().ok_or(NotSent::NoRoom)?;
    let pseudo = pseudo_v6(from, error.to, icmp_len as u32, protocol::ICMPV6);
    write_message(error.icmp_type, error.code, error.word, quote, icmp_out, pseudo)?;
    ipv6::Fields {
        traffic_class: 0,
        payload_len: icmp_len as u16,
        next_header: protocol::ICMPV6,
        hop_limit: HOPS,
        source: from,
        destination: error.to,
    }
    .emit(ip_out);
    Ok(ipv6::HEADER_LEN + icmp_len)
}

/// Writes an ICMP header, `quote` and the checksum, `pseudo` included, to `out`, which has just the length.
fn write_message(
    icmp_type: u8,
    code: u8,
    word: u32,
    quote: &[u8],
    out: &mut [u8],
    pseudo: Sum,
) -> Result<(), NotSent> {
    let (header, body) = out.split_first_chunk_mut::<8>().ok_or(NotSent::NoRoom)?;
    if body.len() != quote.len() {
        return Err(NotSent::NoRoom);
    }
    body.copy_from_slice(quote);
    header.copy_from_slice(&[icmp_type, code, 0, 0, 0, 0, 0, 0]);
    header[4..8].copy_from_slice(&word.to_be_bytes());
    let checksum = pseudo.bytes(header).bytes(quote).checksum();
    header[2..4].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}
