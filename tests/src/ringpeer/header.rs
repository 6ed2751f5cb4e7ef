//! The virtio-net header before each frame (virtio 1.2, section 5.1.6), 12 bytes, little-endian.

/// Its length with VIRTIO_F_VERSION_1.
pub const LENGTH: usize = 12;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM in [`NetHeader::flags`].
pub const NEEDS_CSUM: u8 = 1;

/// VIRTIO_NET_HDR_GSO_TCPV4 in [`NetHeader::gso_type`].
pub const GSO_TCPV4: u8 = 1;

/// VIRTIO_NET_HDR_GSO_TCPV6 in [`NetHeader::gso_type`].
pub const GSO_TCPV6: u8 = 4;

/// VIRTIO_NET_HDR_GSO_UDP_L4 in [`NetHeader::gso_type`].
pub const GSO_UDP_L4: u8 = 5;

/// The header, field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHeader {
    /// Flags: 1 the checksum is partial, 2 it is valid.
    pub flags: u8,
    /// 0 none, 1 TCP over IPv4, 4 TCP over IPv6, 5 datagrams of UDP; 0x80 is added for ECN.
    pub gso_type: u8,
    /// Bytes of all headers of a super-packet, a hint.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// From the Ethernet header to where the checksum begins, in bytes.
    pub csum_start: u16,
    /// From there to the checksum's field, in bytes.
    pub csum_offset: u16,
    /// How many chains the frame takes; set by the device.
    pub num_buffers: u16,
}

impl NetHeader {
    /// As it lies in memory.
    pub fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [self.flags, self.gso_type, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let words = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset, self.num_buffers];
        for (place, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// From memory.
    pub fn from_bytes(bytes: [u8; LENGTH]) -> NetHeader {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        NetHeader {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            num_buffers: word(10),
        }
    }
}
