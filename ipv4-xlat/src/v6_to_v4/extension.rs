//! IPv6 extension headers: skipped, but for the Fragment Header and routes not yet travelled (RFC 7915 5.1).

use crate::refusal::{Reason, Refusal};
use crate::wire::ipv6::{self, Fragment};
use crate::wire::protocol;

/// Extension headers a packet may have. RFC 8200 4.1 knows seven places for them.
const MAX_HEADERS: usize = 8;

/// What lies between the fixed header and the transport header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    /// Bytes of all extension headers.
    pub(super) len: usize,
    /// The first Next Header value that is none.
    pub(super) next_header: u8,
    /// The Fragment Header.
    pub(super) fragment: Option<Fragment>,
    /// Offset from the start of the packet of the Segments Left field that is not 0.
    pub(super) segments_left: Option<u32>,
}

impl Chain {
    /// No extension headers.
    #[inline]
    pub(super) const fn none(next_header: u8) -> Self {
        Chain { len: 0, next_header, fragment: None, segments_left: None }
    }
}

/// Walks the headers of `head`, the beginning of a packet of `total_len` bytes.
///
/// Bounded by [`MAX_HEADERS`]; every header is 8 bytes or longer and must lie within the packet.
#[cold]
pub(super) fn walk(head: &[u8], next_header: u8, total_len: usize) -> Result<Chain, Refusal> {
    let mut chain = Chain::none(next_header);
    for _ in 0..=MAX_HEADERS {
        let is_fragment = match chain.next_header {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => false,
            protocol::FRAGMENT => true,
            _ => return Ok(chain),
        };
        let at = ipv6::HEADER_LEN + chain.len;
        let Some(header) = head.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
            return Err(if head.len() < total_len && at + 8 <= total_len {
                Refusal::NeedWhole
            } else {
                Reason::Truncated.into()
            });
        };
        if is_fragment {
            let fragment = Fragment::parse(header);
            behind_fragment(fragment.next_header)?;
            chain.fragment = Some(fragment);
            chain.len += ipv6::FRAGMENT_LEN;
            chain.next_header = fragment.next_header;
            return Ok(chain);
        }
        if chain.next_header == protocol::ROUTING && header[3] != 0 && chain.segments_left.is_none() {
            chain.segments_left = u32::try_from(at + 3).ok();
        }
        chain.len += usize::from(header[1]) * 8 + 8;
        chain.next_header = header[0];
        if ipv6::HEADER_LEN + chain.len > total_len {
            return Err(Reason::Truncated.into());
        }
    }
    Err(Reason::ExtensionChain.into())
}

/// Behind a Fragment Header comes the transport header, in every fragment: the rest of the chain would be payload to
/// IPv4 (RFC 7915 5.1.1). ESP is a transport in this sense.
const fn behind_fragment(next_header: u8) -> Result<(), Reason> {
    match next_header {
        protocol::FRAGMENT => Err(Reason::ExtensionChain),
        protocol::HOP_BY_HOP
        | protocol::ROUTING
        | protocol::AH
        | protocol::DESTINATION
        | protocol::MOBILITY
        | protocol::HIP
        | protocol::SHIM6 => Err(Reason::ExtensionBehindFragment),
        _ => Ok(()),
    }
}
