//! Where a host is, and the address that says so on the wire (draft, sections 3.1 and 3.9).
//!
//! What must stay true: an [`IlaAddress`] is only made of a locator and a legal identifier, with C and the low word agreeing.

use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

use super::{Identifier, Neutral, PrefixError, is_routable, parse_prefix};

/// The upper 64 bits of an ILA address: where a host is (draft, section 3.9).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Locator(u64);

impl Locator {
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
    /// `locator::1`: the one ordinary address (type 0) an NVE keeps for its own control traffic (reading notes, section 1).
    pub const fn control_address(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(((self.0 as u128) << 64) | 1)
    }
    /// `L:I` with C = 0: the transport checksum travels as the endpoints made it (draft, section 4.4.2).
    #[inline]
    pub const fn unmodified(self, identifier: Identifier) -> IlaAddress {
        IlaAddress(((self.0 as u128) << 64) | identifier.bits() as u128)
    }
    /// `L:I` with C = 1 and the low word adjusted (draft, section 4.4.1); C = 0 where [`Identifier::has_neutral_form`] says no.
    /// `neutral` must be the one made for this locator.
    #[inline]
    pub const fn neutral(self, identifier: Identifier, neutral: Neutral) -> IlaAddress {
        let bits = identifier.bits();
        match neutral.apply(bits as u16) {
            Some(word) if identifier.has_neutral_form() => {
                let low = bits & !0xffff | word as u64 | Identifier::C_BIT;
                IlaAddress(((self.0 as u128) << 64) | low as u128)
            }
            _ => self.unmodified(identifier),
        }
    }
    /// `L:I` with the low word adjusted and C = 0, for a peer in [`crate::addr::PeerChecksum::NeutralAuto`]; `neutral` must be
    /// [`Neutral::without_c`] of this locator. `None` for a low word of 0x0000: such a peer reads both zeros back as 0xffff.
    pub const fn neutral_without_c(self, identifier: Identifier, neutral: Neutral) -> Option<IlaAddress> {
        let bits = identifier.bits();
        // What is left of 0xffff is the adjustment itself, as of 0x0000.
        let word = match bits as u16 {
            0 => return None,
            0xffff => neutral.apply(0),
            low => neutral.apply(low),
        };
        match word {
            Some(word) => Some(IlaAddress((self.0 as u128) << 64 | (bits & !0xffff | word as u64) as u128)),
            None => None,
        }
    }
}

impl FromStr for Locator {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        Self::new(Ipv6Addr::from_bits(parse_prefix(text, 64)?))
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/64", self.prefix())
    }
}

/// `L:I` as the fabric sees it, C and the adjustment in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IlaAddress(u128);

impl IlaAddress {
    /// The address on the wire.
    #[inline]
    pub const fn ipv6(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.0)
    }
    /// Whether the C bit is set: checksums verify on the wire as it is.
    #[inline]
    pub const fn is_neutral(self) -> bool {
        self.0 as u64 & Identifier::C_BIT != 0
    }
}
