//! The transport header and its checksum, the same for both directions.
//!
//! Only the pseudo-header's addresses change (its length and protocol are the same in both families), so a
//! checksum moves by one [`Delta`] per packet and no payload is read. A finished UDP checksum that becomes 0 is sent
//! as 0xffff (RFC 768, RFC 8200 8.1); TCP's and DCCP's 0 is an ordinary value and stays.

use crate::checksum::Delta;
use crate::offload::{ChecksumState, Offload};
use crate::refusal::Reason;
use crate::wire::protocol;

/// Most transport bytes that are copied to scratch.
pub(crate) const COPIED: usize = 20;

/// What was copied to scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// This many bytes, even, with the checksum carried over.
    Done(usize),
    /// As `Done(8)`, but it is a UDP header with checksum 0, which means "none": untouched, the policy decides.
    ZeroUdp,
}

/// Copies the beginning of the transport header `l4` of an unfragmented packet or first fragment to `out`, its
/// checksum carried over by `delta`. `None`: `l4` is too short.
#[inline]
pub(crate) fn copy(
    protocol: u8,
    l4: &[u8],
    delta: Delta,
    offload: &Offload,
    out: &mut [u8; COPIED],
) -> Option<Copied> {
    match protocol {
        protocol::TCP => {
            *out = *l4.first_chunk::<20>()?;
            let field = carry(u16::from_be_bytes([out[16], out[17]]), delta, offload);
            out[16..18].copy_from_slice(&field.to_be_bytes());
            Some(Copied::Done(20))
        }
        protocol::UDP => {
            let header = *l4.first_chunk::<8>()?;
            out[..8].copy_from_slice(&header);
            let field = u16::from_be_bytes([header[6], header[7]]);
            let partial = matches!(offload.checksum, ChecksumState::Partial { .. });
            if field == 0 && !partial {
                return Some(Copied::ZeroUdp);
            }
            let carried = carry(field, delta, offload);
            let field = if carried == 0 && !partial { 0xffff } else { carried };
            out[6..8].copy_from_slice(&field.to_be_bytes());
            Some(Copied::Done(8))
        }
        protocol::UDP_LITE | protocol::DCCP => {
            let header = *l4.first_chunk::<8>()?;
            out[..8].copy_from_slice(&header);
            let field = in_quote(protocol, u16::from_be_bytes([header[6], header[7]]), delta);
            out[6..8].copy_from_slice(&field.to_be_bytes());
            Some(Copied::Done(8))
        }
        _ => Some(Copied::Done(0)),
    }
}

#[inline]
fn carry(field: u16, delta: Delta, offload: &Offload) -> u16 {
    match offload.checksum {
        ChecksumState::Partial { .. } => delta.apply_to_seed(field),
        _ => delta.apply(field),
    }
}

/// A first fragment must hold the whole transport header (RFC 7112), which for TCP includes its options.
pub(crate) fn header_is_whole(protocol: u8, l4: &[u8], l4_len: usize) -> bool {
    match protocol {
        protocol::TCP => l4.get(12).is_some_and(|offset| l4_len >= (usize::from(offset >> 4) * 4).max(20)),
        protocol::UDP | protocol::UDP_LITE | protocol::DCCP | protocol::ICMP | protocol::ICMPV6 => {
            l4_len >= 8
        }
        _ => true,
    }
}

/// Carries over the checksum in `l4`, the transport header of a packet quoted in an ICMP error, as far as the quote
/// reaches. UDP's 0 stays 0: nothing can be computed from a quote.
pub(crate) fn carry_quoted(protocol: u8, l4: &mut [u8], delta: Delta) {
    let at = match protocol {
        protocol::TCP => 16,
        protocol::UDP | protocol::UDP_LITE | protocol::DCCP => 6,
        _ => return,
    };
    if let Some([high, low]) = l4.get_mut(at..at + 2) {
        let field = in_quote(protocol, u16::from_be_bytes([*high, *low]), delta);
        [*high, *low] = field.to_be_bytes();
    }
}

fn in_quote(protocol: u8, field: u16, delta: Delta) -> u16 {
    match (protocol, field) {
        // RFC 768 "none", RFC 3828 "invalid": not a sum, so nothing is added to it.
        (protocol::UDP | protocol::UDP_LITE, 0) => 0,
        (protocol::UDP | protocol::UDP_LITE, field) => match delta.apply(field) {
            0 => 0xffff,
            carried => carried,
        },
        (_, field) => delta.apply(field),
    }
}

/// Reason for a UDP checksum of 0 that may not pass.
pub(crate) const fn zero_udp(fragment: bool) -> Reason {
    if fragment { Reason::ZeroUdpChecksumFragment } else { Reason::ZeroUdpChecksum }
}
