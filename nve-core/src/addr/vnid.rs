//! A virtual network's number and the IPv6 prefix that stands for it.
//!
//! What must stay true: a [`Vnid`] fits 28 bits and is not zero; a [`Vnet`] is a unicast /96. One stands for the other, both ways
//! uniquely, in a checked [`crate::setup::Setup`].

use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

use super::{PrefixError, is_routable, parse_prefix};

/// Virtual network identifier: 28 bits (draft, section 3.6). Zero is refused: it would make an all-zero identifier legal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Vnid(u32);

impl Vnid {
    /// `None` unless 1 <= `value` < 2^28.
    #[inline]
    pub const fn new(value: u32) -> Option<Self> {
        if value == 0 || value >> 28 != 0 { None } else { Some(Self(value)) }
    }
    /// The number, host byte order.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vnid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The /96 that a VN's IPv6 addresses share; one per [`Vnid`], both ways unique (draft, section 3.7.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Vnet(u128);

impl Vnet {
    /// The /96 that starts at `prefix`; its low 32 bits must be zero, and it must be a unicast prefix.
    pub const fn new(prefix: Ipv6Addr) -> Result<Self, PrefixError> {
        let bits = prefix.to_bits();
        if bits as u32 != 0 {
            return Err(PrefixError::HostBits(96));
        }
        if !is_routable((bits >> 64) as u64) {
            return Err(PrefixError::NotUnicast);
        }
        Ok(Self(bits))
    }
    /// The upper 96 bits of any address of the VN, shifted down.
    #[inline]
    pub const fn upper(self) -> u128 {
        self.0 >> 32
    }
    /// Whether `address` lies in it.
    #[inline]
    pub const fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() >> 32 == self.0 >> 32
    }
    /// `VNET:VADDR6L`: the tenant's address with these low 32 bits (host byte order).
    #[inline]
    pub const fn address(self, low: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.0 | low as u128)
    }
    /// The prefix with its low 32 bits zero.
    pub const fn prefix(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.0)
    }
}

impl FromStr for Vnet {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        Self::new(Ipv6Addr::from_bits(parse_prefix(text, 96)?))
    }
}

impl fmt::Display for Vnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/96", self.prefix())
    }
}
