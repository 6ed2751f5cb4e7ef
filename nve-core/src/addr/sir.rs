//! Standard identifier representation: what endpoints of types 1 and 2 are called (draft, section 3.8).
//!
//! What must stay true: the C bit of a [`SirAddress`] is zero, always.

use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

use super::{Identifier, PrefixError, is_routable, parse_prefix};

/// The upper 64 bits of a SIR address: one identifier space, a *domain* (draft, section 3.8).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SirPrefix(u64);

impl SirPrefix {
    /// The /64 that starts at `prefix`; its low 64 bits must be zero, and it must be a unicast prefix.
    pub const fn new(prefix: Ipv6Addr) -> Result<Self, PrefixError> {
        let bits = prefix.to_bits();
        if bits as u64 != 0 {
            return Err(PrefixError::HostBits(64));
        }
        let upper = (bits >> 64) as u64;
        if is_routable(upper) { Ok(Self(upper)) } else { Err(PrefixError::NotUnicast) }
    }
    /// The upper 64 bits, host byte order.
    #[inline]
    pub const fn upper(self) -> u64 {
        self.0
    }
    /// The prefix with its low 64 bits zero.
    pub const fn prefix(self) -> Ipv6Addr {
        Ipv6Addr::from_bits((self.0 as u128) << 64)
    }
    /// `SIR:identifier`.
    #[inline]
    pub const fn address(self, identifier: Identifier) -> SirAddress {
        SirAddress(((self.0 as u128) << 64) | identifier.bits() as u128)
    }
}

impl FromStr for SirPrefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        Self::new(Ipv6Addr::from_bits(parse_prefix(text, 64)?))
    }
}

impl fmt::Display for SirPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/64", self.prefix())
    }
}

/// A SIR prefix and a legal identifier with C = 0: an endpoint's name in all the fabric. Of types 3 and 4 it is no address that anybody is
/// called by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SirAddress(u128);

impl SirAddress {
    /// The address on the wire.
    #[inline]
    pub const fn ipv6(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.0)
    }
    /// The domain.
    pub const fn prefix(self) -> SirPrefix {
        SirPrefix((self.0 >> 64) as u64)
    }
    /// Who it is there.
    pub const fn identifier(self) -> Identifier {
        Identifier::unfolded(self.0 as u64)
    }
}
