//! The IPv6 header and Fragment Header (RFC 8200).

use core::net::Ipv6Addr;

/// Bytes of the fixed header.
pub(crate) const HEADER_LEN: usize = 40;
/// Bytes of a Fragment Header.
pub(crate) const FRAGMENT_LEN: usize = 8;

/// An IPv6 header.
#[derive(Clone, Copy)]
pub(crate) struct Ipv6<'a>(pub(crate) &'a [u8; HEADER_LEN]);

impl Ipv6<'_> {
    #[inline]
    pub(crate) const fn version(&self) -> u8 {
        self.0[0] >> 4
    }
    #[inline]
    pub(crate) const fn traffic_class(&self) -> u8 {
        self.0[0] << 4 | self.0[1] >> 4
    }
    #[inline]
    pub(crate) const fn payload_len(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }
    #[inline]
    pub(crate) const fn next_header(&self) -> u8 {
        self.0[6]
    }
    #[inline]
    pub(crate) const fn hop_limit(&self) -> u8 {
        self.0[7]
    }
    #[inline]
    pub(crate) fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(bits(self.0, 8))
    }
    #[inline]
    pub(crate) fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(bits(self.0, 24))
    }
}

/// The 16 bytes from `at` (8 or 24).
#[inline]
fn bits(header: &[u8; HEADER_LEN], at: usize) -> u128 {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    u128::from_be_bytes(octets)
}

/// An IPv6 header with flow label 0, to be written.
#[derive(Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) traffic_class: u8,
    pub(crate) payload_len: u16,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
}

impl Fields {
    /// Writes the header.
    #[inline]
    pub(crate) fn emit(&self, out: &mut [u8; HEADER_LEN]) {
        let first = 6 << 60
            | u64::from(self.traffic_class) << 52
            | u64::from(self.payload_len) << 16
            | u64::from(self.next_header) << 8
            | u64::from(self.hop_limit);
        out[0..8].copy_from_slice(&first.to_be_bytes());
        out[8..24].copy_from_slice(&self.source.octets());
        out[24..40].copy_from_slice(&self.destination.octets());
    }
}

/// A Fragment Header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment {
    pub(crate) next_header: u8,
    /// Bytes, a multiple of 8.
    pub(crate) offset: u16,
    pub(crate) more: bool,
    pub(crate) identification: u32,
}

impl Fragment {
    /// Reads a Fragment Header.
    pub(crate) const fn parse(bytes: &[u8; FRAGMENT_LEN]) -> Self {
        let offset = u16::from_be_bytes([bytes[2], bytes[3]]);
        Fragment {
            next_header: bytes[0],
            offset: offset & !7,
            more: offset & 1 != 0,
            identification: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        }
    }

    /// Writes the header, reserved bits 0.
    pub(crate) fn emit(&self, out: &mut [u8; FRAGMENT_LEN]) {
        out[0] = self.next_header;
        out[1] = 0;
        out[2..4].copy_from_slice(&(self.offset & !7 | u16::from(self.more)).to_be_bytes());
        out[4..8].copy_from_slice(&self.identification.to_be_bytes());
    }
}
