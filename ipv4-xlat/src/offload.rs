//! Work left to hardware (virtio 1.2 section 5.1.6), and how it changes with the headers.
//!
//! A partial checksum's field holds the *uncomplemented* pseudo-header sum, so it moves with the opposite sign of
//! a finished checksum. `csum_start` moves with the transport header. A large send keeps its segment size: that is
//! payload, and lowering it would change what UDP applications receive.

use crate::wire::protocol;

/// Offload metadata of a packet; offsets count from the start of the IP packet, not of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Who has done or will do the transport checksum.
    pub checksum: ChecksumState,
    /// Set for a super-packet that hardware, or the receiver, cuts into segments.
    pub gso: Option<Gso>,
}

impl Offload {
    /// Nothing left to hardware.
    pub const NONE: Offload = Offload { checksum: ChecksumState::InPacket, gso: None };

    /// Whether that is so.
    #[inline]
    pub const fn is_none(&self) -> bool {
        matches!(self.checksum, ChecksumState::InPacket) && self.gso.is_none()
    }
}

/// What a transport header travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A transport header, as the headers before it tell; what an [`Offload`] must be about.
#[derive(Clone, Copy, Debug)]
pub struct Transport {
    /// What it travels in.
    pub version: IpVersion,
    /// IP protocol number.
    pub protocol: u8,
    /// Bytes from the start of the IP packet.
    pub start: usize,
    /// Bytes of its header and payload.
    pub len: usize,
    /// Whether the packet is part of a datagram.
    pub fragment: bool,
}

/// The most datagrams of one super-packet of UDP (Linux: `UDP_MAX_SEGMENTS`, beyond which its kernel takes none).
pub const UDP_MAX_SEGMENTS: usize = 128;

impl Offload {
    /// Whether it describes the packet with this transport header (virtio 1.3, section 5.1.6.2). Metadata that does not came from a hostile or
    /// broken sender, and a receiver's network card would believe it.
    #[inline]
    pub fn describes(&self, transport: &Transport) -> bool {
        let ChecksumState::Partial { start, offset } = self.checksum else {
            // A large send always leaves the checksum to be done.
            return self.gso.is_none();
        };
        let (field, header) = match transport.protocol {
            protocol::TCP => (16, 20),
            protocol::UDP => (6, UDP_HEADER),
            _ => return false,
        };
        let at_the_header = offset == field && usize::from(start) == transport.start;
        at_the_header
            && !transport.fragment
            && transport.len >= header
            && self.gso.is_none_or(|gso| gso.fits(transport))
    }
}

impl Gso {
    #[inline]
    fn fits(self, transport: &Transport) -> bool {
        let size = usize::from(self.size);
        size > 0
            && match self.kind {
                GsoKind::TcpV4 { .. } => {
                    transport.protocol == protocol::TCP && transport.version == IpVersion::V4
                }
                GsoKind::TcpV6 { .. } => {
                    transport.protocol == protocol::TCP && transport.version == IpVersion::V6
                }
                // Of datagrams, the size is what an application reads: no more is said than there is.
                GsoKind::UdpL4 => {
                    let payload = transport.len.saturating_sub(UDP_HEADER);
                    transport.protocol == protocol::UDP
                        && size <= payload
                        && payload <= size * UDP_MAX_SEGMENTS
                }
            }
    }
}

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// Who has done or will do the transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumState {
    /// The packet carries a finished checksum that nobody has verified.
    #[default]
    InPacket,
    /// The packet carries a finished checksum that was verified (`VIRTIO_NET_HDR_F_DATA_VALID`).
    Verified,
    /// The packet carries a pseudo-header sum to be completed (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    Partial {
        /// Where summing starts: bytes from the start of the IP packet; must be the transport header.
        start: u16,
        /// Where the checksum goes: bytes from `start`.
        offset: u16,
    },
}

/// A super-packet's kind and segment size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What the segments are.
    pub kind: GsoKind,
    /// Transport payload bytes of each segment but the last; never 0.
    pub size: u16,
}

/// What a super-packet is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`).
    TcpV4 {
        /// The first segment carries CWR and it must not be copied to the others (`VIRTIO_NET_HDR_GSO_ECN`).
        ecn: bool,
    },
    /// TCP over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`).
    TcpV6 {
        /// As for [`GsoKind::TcpV4`].
        ecn: bool,
    },
    /// UDP datagrams over either family (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    UdpL4,
}

/// The same state for a transport header that is now at `l4_offset`. `l4` is what it was: neither a fragment nor a UDP
/// datagram without a checksum has anything that could have been verified, whatever its sender says.
#[inline]
pub(crate) fn moved(
    offload: &Offload,
    l4_offset: u16,
    protocol: u8,
    l4: &[u8],
    fragment: bool,
) -> ChecksumState {
    match offload.checksum {
        ChecksumState::Partial { offset, .. } => ChecksumState::Partial { start: l4_offset, offset },
        ChecksumState::Verified if fragment => ChecksumState::InPacket,
        ChecksumState::Verified if protocol == protocol::UDP && l4.get(6..8) == Some(&[0, 0]) => {
            ChecksumState::InPacket
        }
        done => done,
    }
}

/// Transport bytes of the largest segment that leaves: all of them, unless the packet is a super-packet.
#[inline]
pub(crate) fn segment_len(offload: &Offload, l4: &[u8], l4_len: usize) -> usize {
    let Some(gso) = offload.gso else { return l4_len };
    let header = match gso.kind {
        GsoKind::UdpL4 => UDP_HEADER,
        _ => l4.get(12).map_or(20, |offset| usize::from(offset >> 4) * 4).max(20),
    };
    l4_len.min(header + usize::from(gso.size))
}
