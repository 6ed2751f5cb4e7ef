//! IPv4-embedded IPv6 addresses (RFC 6052).
//!
//! ```text
//!       0        32      40      48      56    64  72      80      88      96     104        128
//! /32   | prefix | v4 (32 bits)               | u | suffix ...
//! /40   | prefix         | v4 (24)            | u | (8)   | suffix ...
//! /48   | prefix                 | v4 (16)    | u | (16)          | suffix ...
//! /56   | prefix                        | (8) | u | v4 (24)              | suffix ...
//! /64   | prefix                              | u | v4 (32)                      | suffix ...
//! /96   | prefix, bits 64-71 zero                                 | v4 (32)               |
//! ```
//!
//! `u` is zero and never carries address bits; the suffix is zero when written and ignored when read.

use core::net::{Ipv4Addr, Ipv6Addr};

/// A prefix that IPv4 addresses are embedded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    bits: u128,
    len: u8,
}

/// A prefix that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// Not 32, 40, 48, 56, 64 or 96 bits.
    Length(u8),
    /// Bits are set behind the prefix's length.
    HostBits,
    /// Bits 64 to 71 of a /96 are not zero (RFC 6052 2.2).
    UOctet,
}

impl core::fmt::Display for PrefixError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            PrefixError::Length(len) => {
                write!(f, "/{len} is not one of /32 /40 /48 /56 /64 /96 (RFC 6052 2.2)")
            }
            PrefixError::HostBits => f.write_str("bits are set behind the prefix length"),
            PrefixError::UOctet => f.write_str("bits 64 to 71 must be zero (RFC 6052 2.2)"),
        }
    }
}

impl core::error::Error for PrefixError {}

/// Bits 64 to 71.
const U_OCTET: u128 = 0xff << 56;

impl Prefix {
    /// 64:ff9b::/96, for global IPv4 addresses only (RFC 6052 3.1).
    pub const WELL_KNOWN: Prefix = Prefix { bits: 0x0064_ff9b << 96, len: 96 };

    /// A prefix of `len` bits.
    ///
    /// # Errors
    ///
    /// When RFC 6052 2.2 does not know it.
    pub const fn new(address: Ipv6Addr, len: u8) -> Result<Self, PrefixError> {
        let bits = address.to_bits();
        if !matches!(len, 32 | 40 | 48 | 56 | 64 | 96) {
            return Err(PrefixError::Length(len));
        }
        if bits << len != 0 {
            return Err(PrefixError::HostBits);
        }
        if bits & U_OCTET != 0 {
            return Err(PrefixError::UOctet);
        }
        Ok(Prefix { bits, len })
    }

    /// The prefix's address.
    pub const fn address(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.bits)
    }

    /// Bits: 32, 40, 48, 56, 64 or 96.
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// Never: the shortest prefix has 32 bits.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// True when `address` begins with the prefix.
    #[inline]
    pub const fn contains(&self, address: Ipv6Addr) -> bool {
        (address.to_bits() ^ self.bits) >> (128 - self.len) == 0
    }

    /// The IPv6 address that embeds `address`; the suffix is zero.
    #[inline]
    pub const fn embed(&self, address: Ipv4Addr) -> Ipv6Addr {
        let v4 = address.to_bits() as u128;
        if self.len == 96 {
            return Ipv6Addr::from_bits(self.bits | v4);
        }
        // As if there were no u octet, then everything from bit 64 on moves behind it.
        let packed = v4 << (96 - self.len);
        let (upper, lower) = (packed >> 64 << 64, packed & u64::MAX as u128);
        Ipv6Addr::from_bits(self.bits | upper | lower >> 8)
    }

    /// The IPv4 address embedded in `address`; `None` outside the prefix and when the u octet is not zero.
    #[inline]
    pub const fn extract(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let bits = address.to_bits();
        if !self.contains(address) || bits & U_OCTET != 0 {
            return None;
        }
        if self.len == 96 {
            return Some(Ipv4Addr::from_bits(bits as u32));
        }
        let (upper, lower) = (bits >> 64 << 64, bits & u64::MAX as u128);
        let packed = upper | (lower << 8 & u64::MAX as u128);
        Some(Ipv4Addr::from_bits((packed >> (96 - self.len)) as u32))
    }
}

/// True for addresses that have no meaning outside one network, which the well-known prefix must not carry (RFC 6052
/// 3.1, RFC 6890). Documentation addresses are not among them: they are on no network at all.
pub const fn is_local(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || bits >> 24 == 0
        || bits >> 22 == 0x6440_0000 >> 22 // 100.64/10, shared
        || bits >> 8 == 0x00c0_0000 // 192.0.0/24, protocol assignments
        || bits >> 17 == 0xc612_0000 >> 17 // 198.18/15, benchmarking
        || bits >> 28 >= 0xe
}
