//! Fragments in, fragments out (RFC 7915 4, 4.1).

use super::header::Input;
use crate::packet::Split;
use crate::refusal::{IcmpError, Icmpv4Error, Reason, Refusal};
use crate::wire::ipv6::{FRAGMENT_LEN, Fragment, HEADER_LEN};
use crate::{Config, mtu};

/// Refuses fragments that cannot be part of a datagram (RFC 8200 4.5).
pub(super) fn check(input: &Input<'_>) -> Result<(), Reason> {
    if input.ip.more_fragments() && !input.l4_len.is_multiple_of(8) {
        return Err(Reason::FragmentAlignment);
    }
    if input.ip.fragment_offset() + input.l4_len > usize::from(u16::MAX) {
        return Err(Reason::FragmentBeyondEnd);
    }
    Ok(())
}

/// The Fragment Header of a packet: offset and M copied, identification 0x0000 and the 16 bits IPv4 has. Identification
/// 0 is copied too: with DF = 0 it is the sender's duty to keep it unique (RFC 6864).
pub(super) fn header(input: &Input<'_>, next_header: u8) -> Fragment {
    Fragment {
        next_header,
        offset: u16::try_from(input.ip.fragment_offset()).unwrap_or(u16::MAX),
        more: input.ip.more_fragments(),
        identification: u32::from(input.ip.identification()),
    }
}

/// What to do with a packet that is too large for IPv6's limit.
pub(super) enum Fit {
    /// It leaves as it is.
    Whole,
    /// It leaves in pieces.
    Split(Split),
}

/// Decides for a packet whose IPv6 form, or whose largest segment's, has `len` bytes; `fragment` tells whether that
/// includes a Fragment Header already.
///
/// DF = 0: nothing larger than lowest-ipv6-mtu leaves in one piece; nor anything larger than the next hop takes.
/// DF = 1: the next hop's MTU alone counts, and the sender is told.
pub(super) fn fit(input: &Input<'_>, config: &Config, len: usize, fragment: bool) -> Result<Fit, Refusal> {
    if input.ip.dont_fragment() {
        if len <= config.mtu6 as usize {
            return Ok(Fit::Whole);
        }
        let told =
            Icmpv4Error::fragmentation_needed(input.ip.source(), mtu::told_to_v4(config.mtu6, fragment));
        return Err(Refusal::Icmp(Reason::PacketTooBig, IcmpError::V4(told)));
    }
    let limit = limit(config);
    if len <= limit {
        return Ok(Fit::Whole);
    }
    let step = limit.saturating_sub(HEADER_LEN + FRAGMENT_LEN).min(usize::from(u16::MAX)) as u16 & !7;
    // 13 bits, in units of 8 bytes.
    let offset = input.ip.fragment_offset() as u16;
    Ok(Fit::Split(Split { step, offset, more: input.ip.more_fragments() }))
}

/// The largest packet that may be fragmented and yet leaves whole; at least 1280.
#[inline]
pub(super) fn limit(config: &Config) -> usize {
    config.lowest_ipv6_mtu.get().min(config.mtu6) as usize
}
