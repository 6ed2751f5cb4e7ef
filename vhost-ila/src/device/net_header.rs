//! The virtio-net header (virtio 1.2, 5.1.6) and the core's [`Offload`], each turned into the other.
//!
//! What must stay true: what a guest wrote is believed only where it was negotiated and describes the frame it came with
//! (the core checks it again against the transport header); what another guest is shown is made by us from [`Offload`], never
//! copied from the sender (CVE-2024-11614).

use nve_core::packet::{ChecksumState, Gso, GsoKind, Offload};

/// Bytes of the header.
pub const LEN: usize = 12;
/// Bytes of it that a sender fills in: `num_buffers` is the device's.
pub const READ_LEN: usize = 10;
/// Bytes of an Ethernet header: the virtio-net header counts from the frame, [`Offload`] from the IP header.
const ETHERNET: u16 = 14;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What a sender negotiated, so what its headers may say.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SenderOffloads {
    /// VIRTIO_NET_F_CSUM.
    pub csum: bool,
    /// VIRTIO_NET_F_HOST_TSO4.
    pub tso4: bool,
    /// VIRTIO_NET_F_HOST_TSO6.
    pub tso6: bool,
    /// VIRTIO_NET_F_HOST_ECN.
    pub ecn: bool,
    /// VIRTIO_NET_F_HOST_USO.
    pub uso: bool,
}

impl SenderOffloads {
    /// Everything: our own TUN, whose kernel we asked.
    pub const ALL: Self = Self { csum: true, tso4: true, tso6: true, ecn: true, uso: true };
}

/// The header as a receiver reads it: its first eight and last four bytes as little-endian numbers.
///
/// Numbers, because they stay in registers. Fields put together in memory and loaded wide again would not only miss store
/// forwarding: the load waits until every older store has left for the cache, and those go to lines another core holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WireHeader {
    first: u64,
    last: u32,
}

impl WireHeader {
    /// Nothing left to finish, one buffer.
    pub const PLAIN: Self = Self { first: 0, last: 1 << 16 };

    /// The same for a frame that takes `buffers` of them.
    #[inline]
    #[must_use]
    pub fn with_buffers(self, buffers: u16) -> Self {
        Self { last: self.last & 0xffff | u32::from(buffers) << 16, ..self }
    }

    /// The two numbers, in the byte order of memory.
    #[inline]
    pub(crate) fn to_words(self) -> (u64, u32) {
        (self.first.to_le(), self.last.to_le())
    }

    /// Puts it where `frame` begins, if it has room.
    #[inline]
    pub fn write(self, frame: &mut [u8]) {
        if let Some((first, rest)) = frame.split_first_chunk_mut()
            && let Some(last) = rest.first_chunk_mut()
        {
            (*first, *last) = (self.first.to_le_bytes(), self.last.to_le_bytes());
        }
    }

    /// The bytes.
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&self.first.to_le_bytes());
        bytes[8..].copy_from_slice(&self.last.to_le_bytes());
        bytes
    }
}

/// The header says something that was not negotiated or does not fit the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadHeader;

/// The fields, in host byte order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NetHeader {
    /// NEEDS_CSUM, DATA_VALID.
    pub flags: u8,
    /// NONE, TCPV4, TCPV6, UDP_L4; ECN as a flag.
    pub gso_type: u8,
    /// Bytes of headers, a hint.
    pub hdr_len: u16,
    /// Transport payload bytes of a segment.
    pub gso_size: u16,
    /// Where summing starts, from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum goes, from `csum_start`.
    pub csum_offset: u16,
    /// Buffers the frame takes, where mergeable.
    pub num_buffers: u16,
}

impl NetHeader {
    /// Whether the header says that nothing is left to finish, and no more: what most of them do.
    #[inline]
    #[must_use]
    pub fn is_plain(header: &[u8]) -> bool {
        matches!(header.first_chunk(), Some([flags, GSO_NONE]) if flags & NEEDS_CSUM == 0)
    }

    /// Reads the first ten bytes; `num_buffers` is the device's to write and ignored.
    #[inline]
    #[must_use]
    pub fn from_bytes(b: &[u8; READ_LEN]) -> Self {
        Self {
            flags: b[0],
            gso_type: b[1],
            hdr_len: u16::from_le_bytes([b[2], b[3]]),
            gso_size: u16::from_le_bytes([b[4], b[5]]),
            csum_start: u16::from_le_bytes([b[6], b[7]]),
            csum_offset: u16::from_le_bytes([b[8], b[9]]),
            num_buffers: 0,
        }
    }

    /// The wire form.
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; LEN] {
        self.wire().to_bytes()
    }

    /// The wire form as numbers.
    #[inline]
    #[must_use]
    pub fn wire(self) -> WireHeader {
        let first = u64::from(self.flags)
            | u64::from(self.gso_type) << 8
            | u64::from(self.hdr_len) << 16
            | u64::from(self.gso_size) << 32
            | u64::from(self.csum_start) << 48;
        WireHeader { first, last: u32::from(self.csum_offset) | u32::from(self.num_buffers) << 16 }
    }

    /// What it says about a frame of `len` bytes whose IP header begins at `ip`; fields not flagged are ignored, as 5.1.6.2.1 asks.
    ///
    /// # Errors
    /// [`BadHeader`]: the frame is to be dropped.
    #[inline]
    pub fn offload(&self, allowed: SenderOffloads, ip: u16, len: usize) -> Result<Offload, BadHeader> {
        if self.flags & NEEDS_CSUM == 0 && self.gso_type == GSO_NONE {
            return Ok(Offload::NONE);
        }
        let checksum = self.checksum(allowed, ip, len)?;
        let gso = self.gso(allowed)?;
        // 5.1.6.2: a large send leaves its checksum to the device.
        if gso.is_some() && !matches!(checksum, ChecksumState::Partial { .. }) {
            return Err(BadHeader);
        }
        Ok(Offload { checksum, gso })
    }

    fn checksum(&self, allowed: SenderOffloads, ip: u16, len: usize) -> Result<ChecksumState, BadHeader> {
        if self.flags & NEEDS_CSUM == 0 {
            return Ok(ChecksumState::InPacket);
        }
        let end = usize::from(self.csum_start) + usize::from(self.csum_offset) + 2;
        let start = self.csum_start.checked_sub(ip).ok_or(BadHeader)?;
        if !allowed.csum || end > len {
            return Err(BadHeader);
        }
        Ok(ChecksumState::Partial { start, offset: self.csum_offset })
    }

    fn gso(&self, allowed: SenderOffloads) -> Result<Option<Gso>, BadHeader> {
        let ecn = self.gso_type & GSO_ECN != 0;
        let (kind, ok) = match self.gso_type & !GSO_ECN {
            GSO_NONE if !ecn => return Ok(None),
            GSO_TCPV4 => (GsoKind::TcpV4 { ecn }, allowed.tso4),
            GSO_TCPV6 => (GsoKind::TcpV6 { ecn }, allowed.tso6),
            GSO_UDP_L4 if !ecn => (GsoKind::UdpL4, allowed.uso),
            _ => return Err(BadHeader),
        };
        if !ok || self.gso_size == 0 || (ecn && !allowed.ecn) {
            return Err(BadHeader);
        }
        Ok(Some(Gso { kind, size: self.gso_size }))
    }

    /// What a receiver of an Ethernet frame is told. The frame begins with `head` and goes on with what `behind` gives, if asked: not all
    /// of it, but what was copied of its headers. `verified`: it accepts DATA_VALID.
    #[inline]
    #[must_use]
    pub fn for_frame<'a>(
        offload: &Offload,
        head: &[u8],
        behind: impl FnOnce() -> &'a [u8],
        verified: bool,
    ) -> WireHeader {
        if offload.checksum == ChecksumState::InPacket {
            return WireHeader::PLAIN;
        }
        Self::with_ip_at(offload, (head, behind), ETHERNET, verified).wire()
    }

    /// What a TUN is told about an IP packet, which begins with `head` and goes on with `behind`, as there.
    #[inline]
    #[must_use]
    pub fn for_packet<'a>(offload: &Offload, head: &[u8], behind: impl FnOnce() -> &'a [u8]) -> Self {
        Self::with_ip_at(offload, (head, behind), 0, false)
    }

    #[inline]
    fn with_ip_at<'a>(
        offload: &Offload,
        (head, behind): (&[u8], impl FnOnce() -> &'a [u8]),
        ip: u16,
        verified: bool,
    ) -> Self {
        // 5.1.6.4.1: one unless several were merged.
        let mut header = Self { num_buffers: 1, ..Self::default() };
        match offload.checksum {
            ChecksumState::InPacket => return header,
            ChecksumState::Verified => {
                header.flags = if verified { DATA_VALID } else { 0 };
                return header;
            }
            ChecksumState::Partial { start, offset } => {
                header.flags = NEEDS_CSUM;
                header.csum_start = start.saturating_add(ip);
                header.csum_offset = offset;
            }
        }
        if let Some(gso) = offload.gso {
            header.gso_size = gso.size;
            header.gso_type = match gso.kind {
                GsoKind::TcpV4 { ecn } => GSO_TCPV4 | if ecn { GSO_ECN } else { 0 },
                GsoKind::TcpV6 { ecn } => GSO_TCPV6 | if ecn { GSO_ECN } else { 0 },
                GsoKind::UdpL4 => GSO_UDP_L4,
            };
            let transport = match gso.kind {
                GsoKind::UdpL4 => 8,
                _ => {
                    let at = usize::from(header.csum_start) + 12;
                    let byte = match at.checked_sub(head.len()) {
                        Some(at) => behind().get(at),
                        None => head.get(at),
                    };
                    // The data offset, in 32-bit words.
                    byte.map_or(20, |b| u16::from(b >> 4) * 4).max(20)
                }
            };
            header.hdr_len = header.csum_start.saturating_add(transport);
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TSO: NetHeader = NetHeader {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };

    #[test]
    fn a_large_send_becomes_an_offload_and_comes_back_the_same() {
        let offload = TSO.offload(SenderOffloads::ALL, 14, 9000).unwrap();
        assert_eq!(offload.checksum, ChecksumState::Partial { start: 20, offset: 16 });
        let mut head = [0; 64];
        head[46] = 0x50;
        let back = NetHeader::for_frame(&offload, &head, || &[], true);
        assert_eq!(back, NetHeader { num_buffers: 1, ..TSO }.wire());
        // Where TCP has options, they are headers too; wherever it lies.
        head[46] = 0x80;
        for len in [34, 46, 47, 64] {
            let (head, behind) = head.split_at(len);
            let back = NetHeader::for_frame(&offload, head, || behind, true);
            assert_eq!(back, NetHeader { hdr_len: 66, num_buffers: 1, ..TSO }.wire(), "{len}");
        }
        let bytes = back.to_bytes();
        let read = NetHeader::from_bytes(bytes.first_chunk().unwrap());
        assert_eq!(read, TSO);
    }

    #[test]
    fn a_checksum_beyond_the_frame_is_refused() {
        assert!(TSO.offload(SenderOffloads::ALL, 14, 52).is_ok());
        assert_eq!(TSO.offload(SenderOffloads::ALL, 14, 51), Err(BadHeader));
        let before_ip = NetHeader { csum_start: 13, ..TSO };
        assert_eq!(before_ip.offload(SenderOffloads::ALL, 14, 9000), Err(BadHeader));
    }

    #[test]
    fn what_was_not_negotiated_is_refused() {
        let none = SenderOffloads::default();
        assert_eq!(TSO.offload(none, 14, 9000), Err(BadHeader));
        let csum_only = SenderOffloads { csum: true, ..none };
        assert_eq!(TSO.offload(csum_only, 14, 9000), Err(BadHeader));
        let plain = NetHeader { gso_type: 0, ..TSO };
        assert!(plain.offload(csum_only, 14, 9000).is_ok());
    }

    #[test]
    fn a_large_send_without_a_partial_checksum_or_size_is_refused() {
        for bad in [
            NetHeader { flags: 0, ..TSO },
            NetHeader { gso_size: 0, ..TSO },
            NetHeader { gso_type: 3, ..TSO },
            NetHeader { gso_type: GSO_ECN, ..TSO },
            NetHeader { gso_type: GSO_UDP_L4 | GSO_ECN, ..TSO },
        ] {
            assert_eq!(bad.offload(SenderOffloads::ALL, 14, 9000), Err(BadHeader), "{bad:?}");
        }
    }
}
