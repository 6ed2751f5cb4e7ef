//! ICMPv4 to ICMPv6 (RFC 7915 4.2).

use super::header::{Input, Output};
use super::quote::{self, Quote};
use crate::checksum::{Delta, Sum, pseudo_v6};
use crate::multipart::{self, Multipart};
use crate::refusal::{Reason, Refusal};
use crate::wire::{ipv6, protocol};
use crate::{AddressMap, Config, Offload, SCRATCH_LEN, Translated, mtu, transport};

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// Bytes before an error's quoted packet, IPv6 header included.
const BEFORE_QUOTE: usize = ipv6::HEADER_LEN + 8;

/// True for the types that quote a packet: destination unreachable, source quench, redirect, time exceeded, parameter
/// problem. A later fragment has no type to see and counts as none.
#[inline]
pub(super) fn is_error(input: &Input<'_>) -> Result<bool, Refusal> {
    if input.ip.fragment_offset() != 0 {
        return Ok(false);
    }
    match input.l4.first() {
        Some(&icmp_type) => Ok(type_is_error(icmp_type)),
        None => Err(input.short()),
    }
}

/// ICMPv4 errors (RFC 1122 3.2.2).
pub(crate) const fn type_is_error(icmp_type: u8) -> bool {
    matches!(icmp_type, 3 | 4 | 5 | 11 | 12)
}

const fn echo(icmp_type: u8) -> Option<u8> {
    match icmp_type {
        ECHO_REQUEST => Some(128),
        ECHO_REPLY => Some(129),
        _ => None,
    }
}

/// Translates the header of an echo message, or of its first fragment. Returns how many bytes were written.
///
/// ICMPv6's checksum has a pseudo-header and ICMPv4's has none, so the message's length enters it here.
pub(super) fn translate_echo(
    input: &Input<'_>,
    output: &Output,
    out: &mut [u8; transport::COPIED],
) -> Result<usize, Refusal> {
    let fragment = input.ip.is_fragment();
    let header = input.l4.first_chunk::<8>().ok_or_else(|| input.short())?;
    let icmp_type = echo(header[0]).ok_or(Reason::UntranslatableIcmp)?;
    let delta = echo_delta(header[0], icmp_type, output, if fragment { 0 } else { input.l4_len as u32 });
    out[..8].copy_from_slice(header);
    out[0] = icmp_type;
    let field = delta.apply(u16::from_be_bytes([header[2], header[3]]));
    out[2..4].copy_from_slice(&field.to_be_bytes());
    Ok(8)
}

fn echo_delta(from: u8, to: u8, output: &Output, len: u32) -> Delta {
    let pseudo = pseudo_v6(output.source, output.destination, len, protocol::ICMPV6);
    Delta::between(Sum::ZERO.word(u16::from(from) << 8), pseudo.word(u16::from(to) << 8))
}

/// Translates the inner header of a quoted echo message in place, as far as the quote reaches.
pub(super) fn translate_quoted_echo(l4: &mut [u8], len: u32, output: &Output) -> Result<(), Reason> {
    let from = *l4.first().ok_or(Reason::BadQuote)?;
    if type_is_error(from) {
        return Err(Reason::QuotedError);
    }
    let to = echo(from).ok_or(Reason::UntranslatableIcmp)?;
    if let [icmp_type, _, high, low, ..] = l4 {
        *icmp_type = to;
        let field = echo_delta(from, to, output, len).apply(u16::from_be_bytes([*high, *low]));
        [*high, *low] = field.to_be_bytes();
    } else if let Some(icmp_type) = l4.first_mut() {
        *icmp_type = to;
    }
    Ok(())
}

/// What an ICMPv4 error becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Error {
    pub(super) icmp_type: u8,
    pub(super) code: u8,
    pub(super) word: Word,
}

/// The second 32-bit word of an ICMPv6 error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Type 1 and 3: zero, but for the length attribute of RFC 4884.
    Multipart,
    /// Type 4.
    Pointer(u32),
    /// Type 2: made from this ICMPv4 MTU field.
    Mtu(u16),
}

/// The table of RFC 7915 4.2. `header` is the ICMPv4 header.
pub(super) fn error(header: &[u8; 8]) -> Result<Error, Reason> {
    let unreachable = |code| Error { icmp_type: 1, code, word: Word::Multipart };
    let problem = |code, pointer| Error { icmp_type: 4, code, word: Word::Pointer(pointer) };
    match (header[0], header[1]) {
        // Network and host unreachable, source route failed, unknown, isolated, by type of service.
        (UNREACHABLE, 0 | 1 | 5 | 6 | 7 | 8 | 11 | 12) => Ok(unreachable(0)),
        // Protocol unreachable: IPv6 points to the Next Header field instead.
        (UNREACHABLE, 2) => Ok(problem(1, 6)),
        (UNREACHABLE, 3) => Ok(unreachable(4)),
        (UNREACHABLE, 4) => {
            let mtu = u16::from_be_bytes([header[6], header[7]]);
            Ok(Error { icmp_type: 2, code: 0, word: Word::Mtu(mtu) })
        }
        // Administratively prohibited, and precedence cutoff.
        (UNREACHABLE, 9 | 10 | 13 | 15) => Ok(unreachable(1)),
        (TIME_EXCEEDED, code @ (0 | 1)) => Ok(Error { icmp_type: 3, code, word: Word::Multipart }),
        (PARAMETER_PROBLEM, 0 | 2) => Ok(problem(0, pointer(header[4])?)),
        _ => Err(Reason::UntranslatableIcmp),
    }
}

/// Where the field an ICMPv4 pointer names is in the IPv6 header (RFC 7915 figure 3).
const fn pointer(pointer: u8) -> Result<u32, Reason> {
    match pointer {
        0 => Ok(0),        // version, header length
        1 => Ok(1),        // type of service
        2 | 3 => Ok(4),    // total length
        8 => Ok(7),        // time to live
        9 => Ok(6),        // protocol
        12..=15 => Ok(8),  // source
        16..=19 => Ok(24), // destination
        _ => Err(Reason::UntranslatableIcmp),
    }
}

/// Translates an ICMP error entirely into `out`: its quoted packet is rewritten, so the whole message is needed.
#[cold]
pub(super) fn translate_error<M: AddressMap>(
    input: &Input<'_>,
    output: &Output,
    map: &M,
    config: &Config,
    out: &mut [u8],
) -> Result<Translated, Refusal> {
    if input.ip.is_fragment() {
        return Err(Reason::FragmentedIcmp.into());
    }
    let out = out.first_chunk_mut::<SCRATCH_LEN>().filter(|_| input.is_whole()).ok_or(Refusal::NeedWhole)?;
    let Some((header, body)) = input.l4.split_first_chunk::<8>() else {
        return Err(Reason::ShortTransport.into());
    };
    if Sum::ZERO.bytes(input.l4).checksum() != 0 {
        return Err(Reason::IcmpChecksum.into());
    }
    let error = error(header)?;
    let message = Multipart::split(body, usize::from(header[5]) * 4)?;

    let (ip_out, rest) = out.split_at_mut(ipv6::HEADER_LEN);
    let (icmp_out, quote_out) = rest.split_at_mut(8);
    let quote = quote::translate(message.datagram, map, config, quote_out)?;
    let extension = if error.word == Word::Multipart { message.extension } else { &[] };
    let joined = multipart::join(quote_out, quote.written, extension, 8);

    icmp_out.copy_from_slice(&[error.icmp_type, error.code, 0, 0, 0, 0, 0, 0]);
    icmp_out[4..8].copy_from_slice(&word(&error, &quote, joined.length_attribute, config).to_be_bytes());
    let icmp_len = 8 + joined.len;
    let pseudo = pseudo_v6(output.source, output.destination, icmp_len as u32, protocol::ICMPV6);
    let checksum = pseudo.bytes(icmp_out).bytes(quote_out.get(..joined.len).unwrap_or(quote_out)).checksum();
    icmp_out[2..4].copy_from_slice(&checksum.to_be_bytes());
    if let Some(ip_out) = ip_out.first_chunk_mut() {
        output.emit(icmp_len as u16, protocol::ICMPV6, ip_out);
    }
    let end = input.head.len();
    Ok(Translated::one(BEFORE_QUOTE + joined.len, end..end, Offload::NONE))
}

/// The second word: RFC 4884's length attribute is its top octet.
fn word(error: &Error, quote: &Quote, length_attribute: u8, config: &Config) -> u32 {
    match error.word {
        Word::Multipart => u32::from(length_attribute) << 24,
        Word::Pointer(pointer) => pointer,
        Word::Mtu(mtu) => mtu::packet_too_big_v6(mtu, quote.stated_len, config.mtu4, config.mtu6),
    }
}
