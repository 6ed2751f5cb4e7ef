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
        let fragment = flags | self.fragment_offset >> 3;
        let first = 0x4500_0000 | u32::from(self.tos) << 16 | u32::from(self.total_len);
        let second = u32::from(self.identification) << 16 | u32::from(fragment);
        let hops = u16::from(self.ttl) << 8 | u16::from(self.protocol);
        // Of what is written, and not of what was: bytes just written in small pieces are slow to read in large ones.
        let sum = Sum::ZERO.dword(first).dword(second).word(hops).ipv4(self.source).ipv4(self.destination);
        let third = u32::from(hops) << 16 | u32::from(sum.checksum());
        out[0..4].copy_from_slice(&first.to_be_bytes());
        out[4..8].copy_from_slice(&second.to_be_bytes());
        out[8..12].copy_from_slice(&third.to_be_bytes());
        out[12..16].copy_from_slice(&self.source.octets());
        out[16..20].copy_from_slice(&self.destination.octets());
    }
}
