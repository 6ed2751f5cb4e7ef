//! One's complement arithmetic (RFC 1071, RFC 1624).
//!
//! Sums are of big-endian 16-bit words. Updates use RFC 1624's equation 3, `HC' = ~(~HC + ~m + m')`; the older form
//! of RFC 1141 can produce the wrong one of the two zeros.

use core::net::{Ipv4Addr, Ipv6Addr};

/// A running one's complement sum. 64 bits hold the carries of more than any packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Sum = Sum(0);

    /// Adds a 16-bit word.
    #[inline]
    pub const fn word(self, word: u16) -> Self {
        Sum(self.0 + word as u64)
    }

    /// Adds a 32-bit number, as two words.
    #[inline]
    pub const fn dword(self, dword: u32) -> Self {
        Sum(self.0 + dword as u64)
    }

    /// Adds an IPv4 address.
    #[inline]
    pub const fn ipv4(self, address: Ipv4Addr) -> Self {
        self.dword(address.to_bits())
    }

    /// Adds an IPv6 address.
    #[inline]
    pub const fn ipv6(self, address: Ipv6Addr) -> Self {
        let bits = address.to_bits();
        self.dword((bits >> 96) as u32)
            .dword((bits >> 64) as u32)
            .dword((bits >> 32) as u32)
            .dword(bits as u32)
    }

    /// Adds bytes that start at an even offset of what is summed; an odd last byte is padded with zero.
    #[inline]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (quads, rest) = bytes.as_chunks::<4>();
        let mut sum = self;
        for quad in quads {
            sum = sum.dword(u32::from_be_bytes(*quad));
        }
        match *rest {
            [a] => sum.word(u16::from_be_bytes([a, 0])),
            [a, b] => sum.word(u16::from_be_bytes([a, b])),
            [a, b, c] => sum.word(u16::from_be_bytes([a, b])).word(u16::from_be_bytes([c, 0])),
            _ => sum,
        }
    }

    /// The sum in 16 bits, end-around carries added.
    #[inline]
    pub const fn fold(self) -> u16 {
        let (sum, carry) = ((self.0 >> 32) as u32).overflowing_add(self.0 as u32);
        fold32(sum.wrapping_add(carry as u32))
    }

    /// The checksum field for what was summed: the complement of the folded sum.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// Both halves added, and their carry: it goes from the lower half of the addition into the upper one.
#[inline]
const fn fold32(sum: u32) -> u16 {
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// Whether the checksum of an IPv4 header without options is right: the header sums to all ones (RFC 1071), in either byte order.
#[inline(always)]
pub fn header_is_right(header: &[u8; 20]) -> bool {
    let ([first, second], rest) = header.as_chunks::<8>() else { return false };
    let rest = rest.first_chunk().map_or(0, |rest| u64::from(u32::from_ne_bytes(*rest)));
    let (sum, carry) = u64::from_ne_bytes(*first).overflowing_add(u64::from_ne_bytes(*second));
    let (sum, more) = sum.overflowing_add(rest + u64::from(carry));
    // A carry out of this cannot meet another: what is left is small.
    Sum(sum.wrapping_add(more.into())).fold() == 0xffff
}

/// A change of the words a checksum covers: `~m + m'`, folded. Computed once, applied to any number of checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta(u16);

impl Delta {
    /// The change from words that sum to `old` to words that sum to `new`.
    #[inline]
    pub const fn between(old: Sum, new: Sum) -> Self {
        Delta(Sum(new.0).word(!old.fold()).fold())
    }

    /// The finished checksum `field` after the change (RFC 1624 equation 3).
    #[inline]
    pub const fn apply(self, field: u16) -> u16 {
        !fold32(!field as u32 + self.0 as u32)
    }

    /// The uncomplemented seed of a partial checksum after the change.
    #[inline]
    pub const fn apply_to_seed(self, seed: u16) -> u16 {
        fold32(seed as u32 + self.0 as u32)
    }
}

/// The sum of an IPv6 pseudo-header (RFC 8200 section 8.1).
#[inline]
pub const fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, len: u32, next_header: u8) -> Sum {
    Sum::ZERO.ipv6(source).ipv6(destination).dword(len).word(next_header as u16)
}

/// The sum of an IPv4 pseudo-header (RFC 768).
#[inline]
pub const fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, len: u16, protocol: u8) -> Sum {
    Sum::ZERO.ipv4(source).ipv4(destination).word(len).word(protocol as u16)
}
