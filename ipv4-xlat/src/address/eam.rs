//! Explicit address mappings (RFC 7757): pairs of prefixes, the longest match wins, the suffix is copied.
//!
//! A table is the caller's slice, checked once. It stays true that mapping an IPv4 address to IPv6 and back gives the
//! same address: tables in which two IPv4 addresses share an IPv6 address are refused.

use core::net::{Ipv4Addr, Ipv6Addr};

/// One mapping: an IPv4 prefix stands for an IPv6 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eam {
    v6: u128,
    v6_len: u8,
    v4: u32,
    v4_len: u8,
}

/// A mapping or table that was refused. Indices are of the table's slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EamError {
    /// A prefix length over 32 (IPv4) or 128 (IPv6).
    Length,
    /// Bits are set behind a prefix's length.
    HostBits,
    /// The IPv4 prefix leaves more suffix bits than the IPv6 prefix has room for (RFC 7757 3.1).
    SuffixTooLong,
    /// Two mappings of one IPv4 prefix.
    SameV4(usize, usize),
    /// Two mappings of one IPv6 prefix.
    SameV6(usize, usize),
    /// Two IPv4 addresses would share an IPv6 address.
    SharedV6(usize, usize),
}

impl core::fmt::Display for EamError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            EamError::Length => f.write_str("a prefix length is over 32 (IPv4) or 128 (IPv6)"),
            EamError::HostBits => f.write_str("bits are set behind a prefix's length"),
            EamError::SuffixTooLong => {
                f.write_str("the IPv4 suffix is longer than the IPv6 suffix (RFC 7757 3.1)")
            }
            EamError::SameV4(a, b) => write!(f, "mappings {a} and {b} have the same IPv4 prefix"),
            EamError::SameV6(a, b) => write!(f, "mappings {a} and {b} have the same IPv6 prefix"),
            EamError::SharedV6(a, b) => {
                write!(f, "mappings {a} and {b} give two IPv4 addresses one IPv6 address")
            }
        }
    }
}

impl core::error::Error for EamError {}

/// The upper `len` bits.
const fn mask4(len: u8) -> u32 {
    match len {
        0 => 0,
        len => u32::MAX << (32 - len),
    }
}

/// The upper `len` bits.
const fn mask6(len: u8) -> u128 {
    match len {
        0 => 0,
        len => u128::MAX << (128 - len),
    }
}

impl Eam {
    /// Maps `v4`/`v4_len` to `v6`/`v6_len`.
    ///
    /// # Errors
    ///
    /// Lengths out of range, bits behind a length, or an IPv4 suffix longer than the IPv6 one.
    pub const fn new(v6: Ipv6Addr, v6_len: u8, v4: Ipv4Addr, v4_len: u8) -> Result<Self, EamError> {
        let (v6, v4) = (v6.to_bits(), v4.to_bits());
        if v6_len > 128 || v4_len > 32 {
            return Err(EamError::Length);
        }
        if v6 & !mask6(v6_len) != 0 || v4 & !mask4(v4_len) != 0 {
            return Err(EamError::HostBits);
        }
        if 32 - v4_len > 128 - v6_len {
            return Err(EamError::SuffixTooLong);
        }
        Ok(Eam { v6, v6_len, v4, v4_len })
    }

    const fn contains4(&self, address: u32) -> bool {
        address & mask4(self.v4_len) == self.v4
    }

    const fn contains6(&self, address: u128) -> bool {
        address & mask6(self.v6_len) == self.v6
    }

    /// Where the IPv4 suffix's lowest bit is: the suffix directly follows the IPv6 prefix, the rest is zero.
    const fn shift(&self) -> u32 {
        // Between 0 and 128 by construction; 128 only for an empty suffix behind an empty prefix.
        128 - self.v6_len as u32 - (32 - self.v4_len as u32)
    }

    fn to_v6(self, address: u32) -> u128 {
        let suffix = u128::from(address & !mask4(self.v4_len));
        self.v6 | suffix.checked_shl(self.shift()).unwrap_or(0)
    }

    /// IPv6 bits behind the suffix are ignored (RFC 7757 3.3.2).
    fn to_v4(self, address: u128) -> u32 {
        let suffix = (address & !mask6(self.v6_len)).checked_shr(self.shift()).unwrap_or(0);
        self.v4 | suffix as u32
    }

    /// True when some IPv4 address that belongs to `self` gets an IPv6 address that `inner` reads as another one.
    /// `inner`'s IPv6 prefix is the longer one and lies within that of `self`.
    fn is_misread_by(&self, inner: &Eam) -> bool {
        let deeper = inner.v6_len - self.v6_len;
        let suffix_len = 32 - self.v4_len;
        // Those IPv4 addresses of `self` whose IPv6 addresses are in `inner`: a prefix, or one address, or none.
        let shared_len = self.v4_len + deeper.min(suffix_len);
        let shared = self.to_v4(inner.v6);
        if !inner.contains6(self.to_v6(shared)) {
            return false;
        }
        // Fine if they are `inner`'s own, by the longer match; or if `inner` says the same.
        let inners_own = inner.v4_len > self.v4_len && inner.v4_len <= shared_len && inner.contains4(shared);
        let says_the_same = inner.v4_len == shared_len && inner.v4 == shared;
        !(inners_own || says_the_same)
    }
}

/// A checked table over the caller's slice. A look-up walks the slice: tables are short, or sorted out by routing.
#[derive(Clone, Copy, Debug, Default)]
pub struct EamTable<'a>(&'a [Eam]);

impl<'a> EamTable<'a> {
    /// Checks `entries` pair by pair. Overlaps are legal as long as no two IPv4 addresses share an IPv6 address.
    ///
    /// # Errors
    ///
    /// The first pair that contradicts itself.
    pub fn new(entries: &'a [Eam]) -> Result<Self, EamError> {
        for (i, a) in entries.iter().enumerate() {
            for (j, b) in entries.iter().enumerate().skip(i + 1) {
                if (a.v4, a.v4_len) == (b.v4, b.v4_len) {
                    return Err(EamError::SameV4(i, j));
                }
                if (a.v6, a.v6_len) == (b.v6, b.v6_len) {
                    return Err(EamError::SameV6(i, j));
                }
                let (outer, inner) = if a.v6_len <= b.v6_len { (a, b) } else { (b, a) };
                if outer.contains6(inner.v6) && outer.is_misread_by(inner) {
                    return Err(EamError::SharedV6(i, j));
                }
            }
        }
        Ok(EamTable(entries))
    }

    /// The IPv6 address for `address`, by the longest IPv4 prefix.
    pub fn to_v6(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let bits = address.to_bits();
        let entry = self.0.iter().filter(|entry| entry.contains4(bits)).max_by_key(|entry| entry.v4_len)?;
        Some(Ipv6Addr::from_bits(entry.to_v6(bits)))
    }

    /// The IPv4 address for `address`, by the longest IPv6 prefix.
    pub fn to_v4(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let bits = address.to_bits();
        let entry = self.0.iter().filter(|entry| entry.contains6(bits)).max_by_key(|entry| entry.v6_len)?;
        Some(Ipv4Addr::from_bits(entry.to_v4(bits)))
    }

    /// True when a mapping's IPv6 prefix overlaps the one given.
    pub(crate) fn overlaps_v6(&self, prefix: Ipv6Addr, len: u8) -> bool {
        let bits = prefix.to_bits();
        self.0.iter().any(|entry| (entry.v6 ^ bits) & mask6(entry.v6_len.min(len)) == 0)
    }
}
