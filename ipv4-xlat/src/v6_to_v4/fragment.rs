//! Fragments in, and packets too big for IPv4 (RFC 7915 5.1, 5.1.1).

use super::header::Input;
use crate::refusal::{IcmpError, Icmpv6Error, Reason, Refusal};
use crate::wire::{ipv4, ipv6};
use crate::{Config, mtu};

/// Refuses fragments that cannot be part of a datagram (RFC 8200 4.5), or of an IPv4 one.
pub(super) fn check(input: &Input<'_>) -> Result<(), Reason> {
    let more = input.chain.fragment.is_some_and(|fragment| fragment.more);
    if more && !input.l4_len.is_multiple_of(8) {
        return Err(Reason::FragmentAlignment);
    }
    let end = input.fragment_offset() + input.l4_len;
    if end > usize::from(u16::MAX) {
        return Err(Reason::FragmentBeyondEnd);
    }
    if end + ipv4::HEADER_LEN > usize::from(u16::MAX) {
        return Err(Reason::ResultTooLong);
    }
    Ok(())
}

/// Decides for a packet whose IPv4 form, or whose largest segment's, has `len` bytes, more than the next hop takes.
///
/// This translator does not fragment IPv4. The sender is told, unless its packet is so small already that the answer,
/// at least 1280, would not help: such a packet leaves with DF = 0, and who sends it on fragments it.
#[cold]
pub(super) fn too_big(input: &Input<'_>, config: &Config, len: usize) -> Result<(), Refusal> {
    let told = mtu::told_to_v6(config.mtu4, input.chain.fragment.is_some());
    let headers = input.l4_offset.max(ipv6::HEADER_LEN);
    let sent = len - ipv4::HEADER_LEN + headers;
    if sent <= told as usize {
        return Ok(());
    }
    let error = Icmpv6Error::packet_too_big(input.ip.source(), told);
    Err(Refusal::Icmp(Reason::PacketTooBig, IcmpError::V6(error)))
}
