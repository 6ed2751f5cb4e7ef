//! What offload metadata makes of a packet's size. Whether it is of that packet at all, [`Offload::describes`] says.

use super::{GsoKind, Offload};

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
