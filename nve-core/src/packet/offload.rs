//! Offload metadata against the packet it came with (virtio 1.2, section 5.1.6.2).
//!
//! What must stay true: what passes here may be shown to another guest's driver, which believes it.

use super::{ChecksumState, GsoKind, Offload, Unread, protocol};
use crate::DropReason;

/// Checks that `offload` describes an IPv6 packet of `total` bytes whose transport header of `protocol` is at `l4`.
#[inline]
pub(crate) fn check_offload(
    offload: &Offload,
    protocol: u8,
    l4: usize,
    total: usize,
    fragment: bool,
) -> Result<(), Unread> {
    if offload.gso.is_none() && !matches!(offload.checksum, ChecksumState::Partial { .. }) {
        return Ok(());
    }
    let (field, header) = match protocol {
        protocol::TCP => (16, 20),
        protocol::UDP => (6, 8),
        _ => return Err(Unread::Refused(DropReason::BadOffload)),
    };
    let described = matches!(offload.checksum, ChecksumState::Partial { start, offset }
        if usize::from(start) == l4 && offset == field);
    let kind_fits = offload.gso.is_none_or(|gso| {
        gso.size > 0
            && match gso.kind {
                GsoKind::TcpV6 { .. } => protocol == protocol::TCP,
                GsoKind::UdpL4 => protocol == protocol::UDP,
                GsoKind::TcpV4 { .. } => false,
            }
    });
    if !described || !kind_fits || fragment || l4 + header > total {
        return Err(Unread::Refused(DropReason::BadOffload));
    }
    Ok(())
}

/// Bytes of the largest packet that leaves when `offload` is carried out: all `total`, unless it is a super-packet. `tcp_words` is the TCP
/// data offset in 32-bit words.
#[inline]
pub(crate) fn largest_segment(offload: &Offload, l4: usize, total: usize, tcp_words: u8) -> usize {
    let Some(gso) = offload.gso else { return total };
    let header = match gso.kind {
        GsoKind::UdpL4 => 8,
        GsoKind::TcpV4 { .. } | GsoKind::TcpV6 { .. } => usize::from(tcp_words.max(5)) * 4,
    };
    total.min(l4 + header + usize::from(gso.size))
}
