//! Who an endpoint is: the low 64 bits of an ILA or SIR address (draft, sections 3.2 to 3.7; reading notes, section 1).
//!
//! What must stay true: an [`Identifier`] has C = 0, a type of 0 to 4, and a non-zero [`Vnid`] where its type has one. With its domain
//! it is the key of the mapping table ([`super::Key`]); no two endpoints of a domain share it.
//!
//! ```text
//!   63  60 59            32 31              0
//!   │ 0 0│ site-defined                     │  interface identifier: an ordinary address
//!   │ 1 0│ 60-bit identifier                │  locally unique
//!   │ 2 0│ VNID          │ IPv4 address     │  IPv4, unicast or multicast
//!   │ 3 0│ VNID          │ VADDR6L          │  IPv6 unicast: the upper 96 bits follow from the VNID
//!   │ 4 0│ VNID          │scope│ MADDR6L    │  IPv6 multicast ff0S::0 .. ff0S::0fff:ffff
//! ```

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::{Vnet, Vnid};

/// The low 64 bits of an ILA address with the C bit zero: type, and what the type says (draft, section 3.2). Host byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Identifier(u64);

/// What an identifier says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Type 0: an ordinary address under the same prefix.
    Interface(u64),
    /// Type 1: 60 bits, unique in the domain.
    Local(u64),
    /// Type 2: an IPv4 address in a VN.
    Ipv4(Vnid, Ipv4Addr),
    /// Type 3: the low 32 bits of an IPv6 unicast address in a VN, host byte order.
    Ipv6(Vnid, u32),
    /// Type 4: scope (4 bits) and group (28 bits) of an IPv6 multicast address in a VN.
    Multicast(Vnid, u8, u32),
}

/// Why 64 bits are no identifier, or an address has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentifierError {
    /// Types 5, 6 and 7 are reserved (draft, section 3.3).
    #[error("identifier type {0} is reserved")]
    Reserved(u8),
    /// C is set: the low word holds an adjustment, which must be reversed first.
    #[error("the C bit is set, so the low word is an adjustment and not part of the identifier")]
    Adjusted,
    /// The VNID bits are zero.
    #[error("VNID zero is not a virtual network")]
    NoNetwork,
    /// More than 60 bits.
    #[error("a locally unique identifier has 60 bits")]
    TooWide,
    /// The tenant's address is outside the /96 of its VN.
    #[error("the address is not in the virtual network's prefix")]
    OutsideVnet,
    /// Only ff0S::0 .. ff0S::0fff:ffff have an encoding.
    #[error("only multicast groups ff0S::0 to ff0S::fff:ffff can be encoded")]
    GroupForm,
}

impl Identifier {
    /// The C bit (bit 67 of the address): set where the low word is adjusted.
    pub const C_BIT: u64 = 1 << 60;

    /// Any 64 bits with C = 0, checked; host byte order.
    #[inline]
    pub const fn from_bits(bits: u64) -> Result<Self, IdentifierError> {
        if bits & Self::C_BIT != 0 {
            return Err(IdentifierError::Adjusted);
        }
        match (bits >> 61) as u8 {
            0 | 1 => Ok(Self(bits)),
            2..=4 if vnid_bits(bits) == 0 => Err(IdentifierError::NoNetwork),
            2..=4 => Ok(Self(bits)),
            reserved => Err(IdentifierError::Reserved(reserved)),
        }
    }
    /// Type 1 from its 60 bits.
    pub const fn local(bits: u64) -> Result<Self, IdentifierError> {
        if bits >> 60 != 0 { Err(IdentifierError::TooWide) } else { Ok(Self((1 << 61) | bits)) }
    }
    /// Type 2: any IPv4 address in a VN.
    #[inline]
    pub const fn ipv4(vnid: Vnid, address: Ipv4Addr) -> Self {
        Self((2 << 61) | (vnid.get() as u64) << 32 | address.to_bits() as u64)
    }
    /// Type 3 from the low 32 bits of the tenant's address, host byte order.
    #[inline]
    pub const fn ipv6(vnid: Vnid, low: u32) -> Self {
        Self((3 << 61) | (vnid.get() as u64) << 32 | low as u64)
    }
    /// Type 3 of a tenant's address, which must lie in its VN's /96.
    pub const fn ipv6_address(vnid: Vnid, vnet: Vnet, address: Ipv6Addr) -> Result<Self, IdentifierError> {
        if vnet.contains(address) {
            Ok(Self::ipv6(vnid, address.to_bits() as u32))
        } else {
            Err(IdentifierError::OutsideVnet)
        }
    }
    /// Type 4 of a group: ff0S::0 .. ff0S::0fff:ffff only (reading notes, section 1).
    pub const fn multicast(vnid: Vnid, group: Ipv6Addr) -> Result<Self, IdentifierError> {
        let bits = group.to_bits();
        let (head, low) = ((bits >> 112) as u16, bits as u32);
        if head & 0xfff0 != 0xff00 || (bits << 16) >> 44 != 0 {
            return Err(IdentifierError::GroupForm);
        }
        Ok(Self((4 << 61) | (vnid.get() as u64) << 32 | ((head & 0xf) as u64) << 28 | low as u64))
    }
    /// The group that scope and MADDR6L of a type 4 stand for: `ff0S::MADDR6L`.
    pub const fn group_address(scope: u8, group: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits((0xff00 | scope as u128) << 112 | group as u128)
    }
    /// Of a [`super::Key`], the fold of its domain undone: it was checked before it was folded.
    #[inline]
    pub(super) const fn unfolded(bits: u64) -> Self {
        Self(bits)
    }
    /// All of it, host byte order; C is zero.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }
    /// Bits 64 to 66 of the address: 0 to 4.
    #[inline]
    pub const fn type_number(self) -> u8 {
        (self.0 >> 61) as u8
    }
    /// Whether it may be sent with C = 1 (reading notes, section 2, "Trap"): a low word of 0xffff cannot be told from 0x0000 once
    /// adjusted, and a type 1 peer may be a Linux host, which reads both back as 0xffff.
    #[inline]
    pub const fn has_neutral_form(self) -> bool {
        match self.0 as u16 {
            0xffff => false,
            0 => self.type_number() != 1,
            _ => true,
        }
    }
    /// The virtual network of types 2 to 4.
    #[inline]
    pub const fn vnid(self) -> Option<Vnid> {
        if self.type_number() < 2 { None } else { Vnid::new(vnid_bits(self.0)) }
    }
    /// What it says.
    pub const fn kind(self) -> Kind {
        let low = self.0 as u32;
        match (self.type_number(), self.vnid()) {
            (2, Some(vnid)) => Kind::Ipv4(vnid, Ipv4Addr::from_bits(low)),
            (3, Some(vnid)) => Kind::Ipv6(vnid, low),
            (4, Some(vnid)) => Kind::Multicast(vnid, (low >> 28) as u8, low & 0x0fff_ffff),
            (1, _) => Kind::Local(self.0 & (Self::C_BIT - 1)),
            _ => Kind::Interface(self.0),
        }
    }
}

/// The 28 bits where types 2 to 4 keep their VNID.
const fn vnid_bits(bits: u64) -> u32 {
    (bits >> 32) as u32 & 0x0fff_ffff
}

impl fmt::LowerHex for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
