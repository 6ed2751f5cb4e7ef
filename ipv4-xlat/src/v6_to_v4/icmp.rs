//! ICMPv6 to ICMPv4 (RFC 7915 5.2).

use super::header::{Input, Output};
use super::quote::{self, Quote};
use crate::checksum::{Delta, Sum, pseudo_v6};
use crate::multipart::{self, Multipart};
use crate::refusal::{Reason, Refusal};
use crate::wire::{ipv4, ipv6::Ipv6, protocol};
use crate::{AddressMap, Config, Offload, SCRATCH_LEN, Translated, mtu, transport};

const UNREACHABLE: u8 = 1;
const PACKET_TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// Bytes before an error's quoted packet, IPv4 header included.
const BEFORE_QUOTE: usize = ipv4::HEADER_LEN + 8;

/// The longest ICMPv4 error (RFC 1812 4.3.2.3).
const ERROR_MAX: usize = 576;

/// True for types under 128, which quote a packet (RFC 4443 2.1). A later fragment has no type to see and counts as
/// none.
#[inline]
pub(super) fn is_error(input: &Input<'_>) -> Result<bool, Refusal> {
    if input.fragment_offset() != 0 {
        return Ok(false);
    }
    match input.l4.first() {
        Some(&icmp_type) => Ok(type_is_error(icmp_type)),
        None => Err(input.short()),
    }
}

/// ICMPv6 errors (RFC 4443 2.1).
pub(crate) const fn type_is_error(icmp_type: u8) -> bool {
    icmp_type < 128
}

const fn echo(icmp_type: u8) -> Option<u8> {
    match icmp_type {
        ECHO_REQUEST => Some(8),
        ECHO_REPLY => Some(0),
        _ => None,
    }
}

/// Translates the header of an echo message, or of its first fragment. Returns how many bytes were written.
///
/// ICMPv6's checksum has a pseudo-header and ICMPv4's has none, so the message's length leaves it here.
pub(super) fn translate_echo(input: &Input<'_>, out: &mut [u8; transport::COPIED]) -> Result<usize, Refusal> {
    let fragment = input.is_fragment();
    let header = input.l4.first_chunk::<8>().ok_or_else(|| input.short())?;
    let icmp_type = echo(header[0]).ok_or(Reason::UntranslatableIcmp)?;
    let delta = echo_delta(header[0], icmp_type, &input.ip, if fragment { 0 } else { input.l4_len as u32 });
    out[..8].copy_from_slice(header);
    out[0] = icmp_type;
    let mut field = delta.apply(u16::from_be_bytes([header[2], header[3]]));
    if field == 0 && !fragment && echo_is_zero(out) {
        if !input.is_whole() {
            return Err(Refusal::NeedWhole);
        }
        field = zero_field(input.l4.get(8..).unwrap_or(&[]));
    }
    out[2..4].copy_from_slice(&field.to_be_bytes());
    Ok(8)
}

/// True when an echo header is zero but for its checksum.
const fn echo_is_zero(header: &[u8]) -> bool {
    matches!(header, [0, 0, _, _, 0, 0, 0, 0, ..])
}

/// The checksum field of an ICMPv4 message whose header is zero and whose updated checksum came out as 0. An update
/// cannot tell the two zeros apart: 0 is right where anything that is summed is not 0, and where nothing is (ICMPv4
/// has no pseudo-header), it is 0xffff.
fn zero_field(data: &[u8]) -> u16 {
    if data.iter().all(|byte| *byte == 0) { 0xffff } else { 0 }
}

fn echo_delta(from: u8, to: u8, ip: &Ipv6<'_>, len: u32) -> Delta {
    let pseudo = pseudo_v6(ip.source(), ip.destination(), len, protocol::ICMPV6);
    Delta::between(pseudo.word(u16::from(from) << 8), Sum::ZERO.word(u16::from(to) << 8))
}

/// Translates the inner header of a quoted echo message in place, as far as the quote reaches.
pub(super) fn translate_quoted_echo(l4: &mut [u8], len: u32, ip: &Ipv6<'_>) -> Result<(), Reason> {
    let from = *l4.first().ok_or(Reason::BadQuote)?;
    if type_is_error(from) {
        return Err(Reason::QuotedError);
    }
    let to = echo(from).ok_or(Reason::UntranslatableIcmp)?;
    if let [icmp_type, _, high, low, ..] = l4 {
        *icmp_type = to;
        let field = echo_delta(from, to, ip, len).apply(u16::from_be_bytes([*high, *low]));
        [*high, *low] = field.to_be_bytes();
        if field == 0 && echo_is_zero(l4) {
            let field = zero_field(l4.get(8..).unwrap_or(&[]));
            if let Some(out) = l4.get_mut(2..4) {
                out.copy_from_slice(&field.to_be_bytes());
            }
        }
    } else if let Some(icmp_type) = l4.first_mut() {
        *icmp_type = to;
    }
    Ok(())
}

/// What an ICMPv6 error becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Error {
    pub(super) icmp_type: u8,
    pub(super) code: u8,
    pub(super) word: Word,
}

/// The second 32-bit word of an ICMPv4 error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Type 3 but code 4, and type 11: zero, but for the length attribute of RFC 4884.
    Multipart,
    /// Zero: made from an ICMPv6 type that has no length attribute.
    Unused,
    /// Type 12.
    Pointer(u8),
    /// Type 3 code 4: made from this ICMPv6 MTU field.
    Mtu(u32),
}

/// The table of RFC 7915 5.2. `header` is the ICMPv6 header.
pub(super) fn error(header: &[u8; 8]) -> Result<Error, Reason> {
    let unreachable = |code| Error { icmp_type: 3, code, word: Word::Multipart };
    let word = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    match (header[0], header[1]) {
        // No route, beyond scope, address unreachable.
        (UNREACHABLE, 0 | 2 | 3) => Ok(unreachable(1)),
        // Administratively prohibited.
        (UNREACHABLE, 1) => Ok(unreachable(10)),
        (UNREACHABLE, 4) => Ok(unreachable(3)),
        // RFC 4443 3.2: the code is ignored by the receiver.
        (PACKET_TOO_BIG, _) => Ok(Error { icmp_type: 3, code: 4, word: Word::Mtu(word) }),
        (TIME_EXCEEDED, code @ (0 | 1)) => Ok(Error { icmp_type: 11, code, word: Word::Multipart }),
        (PARAMETER_PROBLEM, 0) => Ok(Error { icmp_type: 12, code: 0, word: Word::Pointer(pointer(word)?) }),
        // Unrecognized Next Header.
        (PARAMETER_PROBLEM, 1) => Ok(Error { icmp_type: 3, code: 2, word: Word::Unused }),
        _ => Err(Reason::UntranslatableIcmp),
    }
}

/// Where the field an ICMPv6 pointer names is in the IPv4 header (RFC 7915 figure 6).
const fn pointer(pointer: u32) -> Result<u8, Reason> {
    match pointer {
        0 => Ok(0),        // version, traffic class
        1 => Ok(1),        // traffic class, flow label
        4 | 5 => Ok(2),    // payload length
        6 => Ok(9),        // next header
        7 => Ok(8),        // hop limit
        8..=23 => Ok(12),  // source
        24..=39 => Ok(16), // destination
        _ => Err(Reason::UntranslatableIcmp),
    }
}

/// The length attribute of an ICMPv6 error in bytes: only types 1 and 3 have one (RFC 4884 section 4).
const fn length_attribute(header: &[u8; 8]) -> usize {
    match header[0] {
        UNREACHABLE | TIME_EXCEEDED => header[4] as usize * 8,
        _ => 0,
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
    if input.is_fragment() {
        return Err(Reason::FragmentedIcmp.into());
    }
    let out = out.first_chunk_mut::<SCRATCH_LEN>().filter(|_| input.is_whole()).ok_or(Refusal::NeedWhole)?;
    let Some((header, body)) = input.l4.split_first_chunk::<8>() else {
        return Err(Reason::ShortTransport.into());
    };
    let pseudo = pseudo_v6(input.ip.source(), input.ip.destination(), input.l4_len as u32, protocol::ICMPV6);
    if pseudo.bytes(input.l4).checksum() != 0 {
        return Err(Reason::IcmpChecksum.into());
    }
    let error = error(header)?;
    let message = Multipart::split(body, length_attribute(header))?;

    let (ip_out, rest) = out.split_at_mut(ipv4::HEADER_LEN);
    let (icmp_out, rest) = rest.split_at_mut(8);
    let (quote_out, _) = rest.split_at_mut(ERROR_MAX - BEFORE_QUOTE);
    let quote = quote::translate(message.datagram, map, config, output.identification, quote_out)?;
    let extension = if error.word == Word::Multipart { message.extension } else { &[] };
    let joined = multipart::join(quote_out, quote.written, extension, 4);

    icmp_out.copy_from_slice(&[error.icmp_type, error.code, 0, 0, 0, 0, 0, 0]);
    icmp_out[4..8].copy_from_slice(&word(&error, &quote, joined.length_attribute, config).to_be_bytes());
    let checksum =
        Sum::ZERO.bytes(icmp_out).bytes(quote_out.get(..joined.len).unwrap_or(quote_out)).checksum();
    icmp_out[2..4].copy_from_slice(&checksum.to_be_bytes());
    let total_len = BEFORE_QUOTE + joined.len;
    if let Some(ip_out) = ip_out.first_chunk_mut() {
        output.emit(total_len as u16, total_len, input.chain.fragment, ip_out);
    }
    let end = input.head.len();
    Ok(Translated::one(total_len, end..end, Offload::NONE))
}

/// The second word: RFC 4884's length attribute is its second octet.
fn word(error: &Error, quote: &Quote, length_attribute: u8, config: &Config) -> u32 {
    match error.word {
        Word::Multipart => u32::from(length_attribute) << 16,
        Word::Unused => 0,
        Word::Pointer(pointer) => u32::from(pointer) << 24,
        Word::Mtu(mtu) => {
            u32::from(mtu::fragmentation_needed_v4(mtu, quote.fragment, config.mtu4, config.mtu6))
        }
    }
}
