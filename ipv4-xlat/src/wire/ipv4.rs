//! The IPv4 header (RFC 791), without its options.

use core::net::Ipv4Addr;

use crate::checksum::Sum;

/// Bytes of a header without options.
pub(crate) const HEADER_LEN: usize = 20;

/// The fixed part of an IPv4 header.
#[derive(Clone, Copy)]
pub(crate) struct Ipv4<'a>(pub(crate) &'a [u8; HEADER_LEN]);

impl Ipv4<'_> {
    #[inline]
    pub(crate) const fn version(&self) -> u8 {
        self.0[0] >> 4
    }
    /// Bytes; a multiple of 4, at most 60, perhaps less than 20.
    #[inline]
    pub(crate) const fn header_len(&self) -> usize {
        (self.0[0] & 0x0f) as usize * 4
    }
    #[inline]
    pub(crate) const fn tos(&self) -> u8 {
        self.0[1]
    }
    #[inline]
    pub(crate) const fn total_len(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }
    #[inline]
    pub(crate) const fn identification(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }
    #[inline]
    const fn flags_and_offset(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }
    #[inline]
    pub(crate) const fn dont_fragment(&self) -> bool {
        self.flags_and_offset() & 0x4000 != 0
    }
    #[inline]
    pub(crate) const fn more_fragments(&self) -> bool {
        self.flags_and_offset() & 0x2000 != 0
    }
    /// Bytes, a multiple of 8.
    #[inline]
    pub(crate) const fn fragment_offset(&self) -> usize {
        (self.flags_and_offset() & 0x1fff) as usize * 8
    }
    #[inline]
    pub(crate) const fn is_fragment(&self) -> bool {
        self.flags_and_offset() & 0x3fff != 0
    }
    #[inline]
    pub(crate) const fn ttl(&self) -> u8 {
        self.0[8]
    }
    #[inline]
    pub(crate) const fn protocol(&self) -> u8 {
        self.0[9]
    }
    #[inline]
    pub(crate) const fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15])
    }
    #[inline]
    pub(crate) const fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[16], self.0[17], self.0[18], self.0[19])
    }
}

/// An IPv4 header without options, to be written.
#[derive(Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) tos: u8,
    pub(crate) total_len: u16,
    pub(crate) identification: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) more_fragments: bool,
    /// Bytes, a multiple of 8.
    pub(crate) fragment_offset: u16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
}

impl Fields {
    /// Writes the header, checksum included.
    #[inline]
    pub(crate) fn emit(&self, out: &mut [u8; HEADER_LEN]) {
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(self.more_fragments) << 13;
        out[0] = 0x45;
        out[1] = self.tos;
        out[2..4].copy_from_slice(&self.total_len.to_be_bytes());
        out[4..6].copy_from_slice(&self.identification.to_be_bytes());
        out[6..8].copy_from_slice(&(flags | self.fragment_offset >> 3).to_be_bytes());
        out[8] = self.ttl;
        out[9] = self.protocol;
        out[10..12].copy_from_slice(&[0, 0]);
        out[12..16].copy_from_slice(&self.source.octets());
        out[16..20].copy_from_slice(&self.destination.octets());
        let checksum = Sum::ZERO.bytes(out).checksum();
        out[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}
