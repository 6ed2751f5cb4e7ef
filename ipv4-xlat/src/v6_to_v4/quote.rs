//! The packet an ICMPv6 error is about, or its beginning (RFC 7915 5.3).
//!
//! Everything here may be cut, stale or invented: its length field describes the packet that was sent, not the bytes
//! that are here; its Hop Limit is not ours to spend.

use super::extension;
use super::header::{self, Output};
use super::icmp;
use crate::checksum::{Delta, Sum};
use crate::refusal::{Reason, Refusal};
use crate::transport;
use crate::wire::ipv4;
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::protocol;
use crate::{AddressMap, Config, Role};

/// A translated quote.
pub(super) struct Quote {
    /// Bytes written to `out`.
    pub(super) written: usize,
    /// The quoted packet has a Fragment Header.
    pub(super) fragment: bool,
}

/// Translates the quoted packet `datagram` into `out`, cutting what does not fit.
pub(super) fn translate<M: AddressMap>(
    datagram: &[u8],
    map: &M,
    config: &Config,
    identification: u16,
    out: &mut [u8],
) -> Result<Quote, Reason> {
    let ip = Ipv6(datagram.first_chunk().ok_or(Reason::BadQuote)?);
    if ip.version() != 6 {
        return Err(Reason::BadQuote);
    }
    // The chain must be in the quote: what it does not show cannot be translated.
    let chain = match extension::walk(datagram, ip.next_header(), datagram.len()) {
        Ok(chain) if chain.segments_left.is_none() => chain,
        Err(Refusal::Silent(reason @ Reason::ExtensionBehindFragment)) => return Err(reason),
        _ => return Err(Reason::BadQuote),
    };
    let l4 = datagram.get(ipv6::HEADER_LEN + chain.len..).ok_or(Reason::BadQuote)?;
    let output = addresses(&ip, chain.next_header, map, config, identification)?;
    let (fragment, first) = match chain.fragment {
        Some(fragment) => (fragment.more || fragment.offset != 0, fragment.offset == 0),
        None => (false, true),
    };

    let (ip_out, rest) = out.split_first_chunk_mut().ok_or(Reason::BadQuote)?;
    let copied = l4.len().min(rest.len());
    let l4_copy = rest.get_mut(..copied).ok_or(Reason::BadQuote)?;
    l4_copy.copy_from_slice(l4.get(..copied).ok_or(Reason::BadQuote)?);

    // The length it had, whatever is left of it; a field that is less than its own headers says 0.
    let l4_len = usize::from(ip.payload_len()).saturating_sub(chain.len);
    if first {
        if chain.next_header == protocol::ICMPV6 {
            icmp::translate_quoted_echo(l4_copy, if fragment { 0 } else { l4_len as u32 }, &ip)?;
        } else {
            transport::carry_quoted(chain.next_header, l4_copy, output.delta);
        }
    }

    let total_len = ipv4::HEADER_LEN + l4_len;
    output.emit(u16::try_from(total_len).unwrap_or(u16::MAX), total_len, chain.fragment, ip_out);
    Ok(Quote { written: ipv4::HEADER_LEN + copied, fragment: chain.fragment.is_some() })
}

/// The quoted header's translation. Its hop count is copied: the packet was not forwarded here.
fn addresses<M: AddressMap>(
    ip: &Ipv6<'_>,
    next_header: u8,
    map: &M,
    config: &Config,
    identification: u16,
) -> Result<Output, Reason> {
    let source = map.v6_to_v4(ip.source(), Role::QuotedSource).ok_or(Reason::UnmappedQuote)?;
    let destination = map.v6_to_v4(ip.destination(), Role::QuotedDestination).ok_or(Reason::UnmappedQuote)?;
    Ok(Output {
        tos: config.traffic_class(ip.traffic_class()),
        protocol: header::ipv4_protocol(next_header)?,
        ttl: ip.hop_limit(),
        source,
        destination,
        identification,
        delta: Delta::between(
            Sum::ZERO.ipv6(ip.source()).ipv6(ip.destination()),
            Sum::ZERO.ipv4(source).ipv4(destination),
        ),
    })
}
