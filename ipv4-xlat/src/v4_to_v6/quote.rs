//! The packet an ICMPv4 error is about, or its beginning (RFC 7915 4.3).
//!
//! Everything here may be cut, stale or invented: its length field describes the packet that was sent, not the bytes
//! that are here; its checksum is not verified; its TTL is not ours to spend.

use super::header::{self, Output};
use super::icmp;
use crate::checksum::{Delta, Sum};
use crate::refusal::Reason;
use crate::transport;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Fragment};
use crate::wire::protocol;
use crate::{AddressMap, Config, Role};

/// A translated quote.
pub(super) struct Quote {
    /// Bytes written to `out`.
    pub(super) written: usize,
    /// Total Length as the quoted header states it, true or not.
    pub(super) stated_len: u16,
}

/// Translates the quoted packet `datagram` into `out`, cutting what does not fit.
pub(super) fn translate<M: AddressMap>(
    datagram: &[u8],
    map: &M,
    config: &Config,
    out: &mut [u8],
) -> Result<Quote, Reason> {
    let ip = Ipv4(datagram.first_chunk().ok_or(Reason::BadQuote)?);
    if ip.version() != 4 || ip.header_len() < ipv4::HEADER_LEN {
        return Err(Reason::BadQuote);
    }
    let l4 = datagram.get(ip.header_len()..).ok_or(Reason::BadQuote)?;
    let output = addresses(&ip, map, config)?;
    let fragment = ip.is_fragment();

    let l4_out = ipv6::HEADER_LEN + if fragment { ipv6::FRAGMENT_LEN } else { 0 };
    let (head, rest) = out.split_at_mut_checked(l4_out).ok_or(Reason::BadQuote)?;
    let copied = l4.len().min(rest.len());
    let l4_copy = rest.get_mut(..copied).ok_or(Reason::BadQuote)?;
    l4_copy.copy_from_slice(l4.get(..copied).ok_or(Reason::BadQuote)?);

    // The length it had, whatever is left of it; a field that is less than its own header says 0.
    let l4_len = ip.total_len().saturating_sub(ip.header_len() as u16);
    if ip.fragment_offset() == 0 {
        if ip.protocol() == protocol::ICMP {
            icmp::translate_quoted_echo(l4_copy, if fragment { 0 } else { u32::from(l4_len) }, &output)?;
        } else {
            transport::carry_quoted(ip.protocol(), l4_copy, output.delta);
        }
    }

    let (ip_out, fragment_out) = head.split_first_chunk_mut().ok_or(Reason::BadQuote)?;
    let next_header = if fragment { protocol::FRAGMENT } else { output.next_header };
    output.emit(l4_len.saturating_add((l4_out - ipv6::HEADER_LEN) as u16), next_header, ip_out);
    if let Some(fragment_out) = fragment_out.first_chunk_mut() {
        let offset = ip.fragment_offset() as u16;
        let identification = u32::from(ip.identification());
        let (next_header, more) = (output.next_header, ip.more_fragments());
        Fragment { next_header, offset, more, identification }.emit(fragment_out);
    }
    Ok(Quote { written: l4_out + copied, stated_len: ip.total_len() })
}

/// The quoted header's translation. Its hop count is copied: the packet was not forwarded here.
fn addresses<M: AddressMap>(ip: &Ipv4<'_>, map: &M, config: &Config) -> Result<Output, Reason> {
    let source = map.v4_to_v6(ip.source(), Role::QuotedSource).ok_or(Reason::UnmappedQuote)?;
    let destination = map.v4_to_v6(ip.destination(), Role::QuotedDestination).ok_or(Reason::UnmappedQuote)?;
    Ok(Output {
        traffic_class: config.traffic_class(ip.tos()),
        next_header: header::next_header(ip.protocol())?,
        hop_limit: ip.ttl(),
        source,
        destination,
        delta: Delta::between(
            Sum::ZERO.ipv4(ip.source()).ipv4(ip.destination()),
            Sum::ZERO.ipv6(source).ipv6(destination),
        ),
    })
}
