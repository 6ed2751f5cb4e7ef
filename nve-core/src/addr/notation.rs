//! Addresses written and read for people: the draft's notation (section 5.1), and every field by its name.
//!
//! What must stay true: what cannot be encoded is refused with the reason; decoding never guesses a network that it was not told.
//!
//! ```text
//!   SIR:(1001:10.1.0.1)                   an endpoint of type 2     SIR:0123456789abcde   of type 1
//!   VNET:(1001:2001:db8:b1:e::1)          an endpoint of type 3
//!   [2001:db8:0:2]:(1001:10.1.0.2)        L:(VNI:VA) with the locator spelled out
//! ```

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

use super::{ChecksumMode, Identifier, IdentifierError, Kind, Locator, Neutral, SirPrefix, Vnet, Vnid};

/// What decoding and encoding need to know of a domain.
#[derive(Clone, Debug)]
pub struct Directory {
    /// The SIR prefix of the domain.
    pub sir: SirPrefix,
    /// The /96 of each network that has one.
    pub networks: Vec<(Vnid, Vnet)>,
}

/// One address, field by field. Absent is what the address does not have or the [`Directory`] did not tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// Bits 64 to 66: 0 to 4.
    pub type_number: u8,
    /// Bit 67 of the address as given.
    pub c: bool,
    /// The virtual network of types 2 to 4.
    pub vnid: Option<Vnid>,
    /// The address the tenant knows (types 2 to 4).
    pub tenant: Option<IpAddr>,
    /// The 64-bit key, C cleared and the adjustment reversed.
    pub identifier: Identifier,
    /// The locator, where the address has one.
    pub locator: Option<Locator>,
    /// `SIR:identifier`, what a task would be told (types 1 and 2).
    pub sir: Option<Ipv6Addr>,
    /// The address itself.
    pub address: Ipv6Addr,
    /// What was added to the low word: `Some` where C is set.
    pub adjustment: Option<u16>,
}

/// Why an address could not be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The identifier is not legal.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// The upper 64 bits are neither a unicast locator, nor SIR, nor a network told.
    #[error("the upper 64 bits are no unicast prefix")]
    NotUnicast,
    /// C = 1 needs the network's /96 to be reversed.
    #[error("C is set and the /96 of network {0} is not known: tell it with VNI=PREFIX96")]
    UnknownNetwork(Vnid),
    /// Type 0 with C = 1, or a SIR address with C = 1.
    #[error("the C bit is never set in a SIR address or an interface identifier")]
    StrayC,
}

/// Why an address could not be encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// The tenant's address has no identifier in this network.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// An IPv6 address in a network whose /96 is not known.
    #[error("the /96 of network {0} is not known: tell it with VNI=PREFIX96")]
    UnknownNetwork(Vnid),
}

impl Directory {
    fn vnet(&self, vnid: Vnid) -> Option<Vnet> {
        self.networks.iter().find(|(id, _)| *id == vnid).map(|(_, vnet)| *vnet)
    }

    /// The identifier of a tenant's address in network `vnid` (types 2, 3 and 4).
    ///
    /// # Errors
    /// The address lies outside the network's /96, or is a group without an encoding, or the /96 is not known.
    pub fn identifier(&self, vnid: Vnid, address: IpAddr) -> Result<Identifier, EncodeError> {
        match address {
            IpAddr::V4(v4) => Ok(Identifier::ipv4(vnid, v4)),
            IpAddr::V6(v6) if v6.is_multicast() => Ok(Identifier::multicast(vnid, v6)?),
            IpAddr::V6(v6) => {
                let vnet = self.vnet(vnid).ok_or(EncodeError::UnknownNetwork(vnid))?;
                Ok(Identifier::ipv6_address(vnid, vnet, v6)?)
            }
        }
    }

    /// The adjustment towards `locator`; `None` for type 0, or type 3 of a network not told.
    fn neutral(&self, locator: Locator, identifier: Identifier) -> Option<Neutral> {
        match identifier.kind() {
            Kind::Interface(_) => None,
            Kind::Local(_) | Kind::Ipv4(..) => Some(Neutral::sir(locator, self.sir)),
            Kind::Ipv6(vnid, _) => Some(Neutral::vnet(locator, vnid, self.vnet(vnid)?)),
            Kind::Multicast(vnid, scope, _) => Some(Neutral::multicast(locator, vnid, scope)),
        }
    }

    fn tenant(&self, identifier: Identifier) -> Option<IpAddr> {
        match identifier.kind() {
            Kind::Interface(_) | Kind::Local(_) => None,
            Kind::Ipv4(_, address) => Some(address.into()),
            Kind::Ipv6(vnid, low) => Some(self.vnet(vnid)?.address(low).into()),
            Kind::Multicast(_, scope, group) => Some(Identifier::group_address(scope, group).into()),
        }
    }
}

/// Reads an address of any of the three forms: `L:I`, `SIR:I` or `VNET:VA`.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(address: Ipv6Addr, directory: &Directory) -> Result<Decoded, DecodeError> {
    let (upper, low) = ((address.to_bits() >> 64) as u64, address.to_bits() as u64);
    let decoded = |identifier: Identifier, locator, adjustment: Option<Neutral>| Decoded {
        type_number: identifier.type_number(),
        c: adjustment.is_some(),
        vnid: identifier.vnid(),
        tenant: directory.tenant(identifier),
        identifier,
        locator,
        sir: matches!(identifier.type_number(), 1 | 2).then(|| directory.sir.address(identifier).ipv6()),
        address,
        adjustment: adjustment.map(Neutral::get),
    };
    if let Some((vnid, _)) = directory.networks.iter().find(|(_, vnet)| vnet.contains(address)) {
        return Ok(decoded(Identifier::ipv6(*vnid, low as u32), None, None));
    }
    if upper == directory.sir.upper() {
        return match Identifier::from_bits(low) {
            Err(IdentifierError::Adjusted) => Err(DecodeError::StrayC),
            other => Ok(decoded(other?, None, None)),
        };
    }
    let prefix = Ipv6Addr::from_bits((upper as u128) << 64);
    let locator = Locator::new(prefix).map_err(|_| DecodeError::NotUnicast)?;
    let wire = Identifier::from_bits(low & !Identifier::C_BIT)?;
    if low & Identifier::C_BIT == 0 {
        return Ok(decoded(wire, Some(locator), None));
    }
    let neutral = directory.neutral(locator, wire).ok_or(match wire.vnid() {
        Some(vnid) => DecodeError::UnknownNetwork(vnid),
        None => DecodeError::StrayC,
    })?;
    let word = neutral.reverse(low as u16);
    let identifier = Identifier::from_bits(wire.bits() & !0xffff | word as u64)?;
    Ok(decoded(identifier, Some(locator), Some(neutral)))
}

/// Writes `identifier` at `locator` as it goes on the wire, and says what it wrote.
///
/// # Errors
/// [`EncodeError::UnknownNetwork`] where the adjustment needs a /96 that `directory` does not have.
pub fn encode(
    identifier: Identifier,
    locator: Locator,
    mode: ChecksumMode,
    directory: &Directory,
) -> Result<Decoded, EncodeError> {
    let neutral = match (mode, identifier.kind()) {
        (ChecksumMode::Unmodified, _) | (_, Kind::Interface(_)) => None,
        _ => Some(directory.neutral(locator, identifier).ok_or(match identifier.vnid() {
            Some(vnid) => EncodeError::UnknownNetwork(vnid),
            None => EncodeError::Identifier(IdentifierError::NoNetwork),
        })?),
    };
    let address = match neutral {
        Some(neutral) => locator.neutral(identifier, neutral),
        None => locator.unmodified(identifier),
    };
    Ok(Decoded {
        type_number: identifier.type_number(),
        c: address.is_neutral(),
        vnid: identifier.vnid(),
        tenant: directory.tenant(identifier),
        identifier,
        locator: Some(locator),
        sir: matches!(identifier.type_number(), 1 | 2).then(|| directory.sir.address(identifier).ipv6()),
        address: address.ipv6(),
        adjustment: neutral.filter(|_| address.is_neutral()).map(Neutral::get),
    })
}

/// The draft's notation (section 5.1).
impl fmt::Display for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.locator, self.type_number) {
            (Some(locator), _) => {
                let words = locator.prefix().segments();
                write!(f, "[{:x}:{:x}:{:x}:{:x}]:", words[0], words[1], words[2], words[3])?;
            }
            (None, 3) if self.sir_form() => f.write_str("SIR:")?,
            (None, 3) => f.write_str("VNET:")?,
            (None, _) => f.write_str("SIR:")?,
        }
        match (self.identifier.kind(), self.tenant) {
            (Kind::Interface(bits), _) | (Kind::Local(bits), _) => write!(f, "{bits:015x}"),
            (Kind::Ipv6(vnid, low), None) => write!(f, "({vnid}:{low:08x})"),
            (Kind::Ipv4(vnid, _) | Kind::Ipv6(vnid, _) | Kind::Multicast(vnid, ..), Some(tenant)) => {
                write!(f, "({vnid}:{tenant})")
            }
            (Kind::Ipv4(vnid, address), None) => write!(f, "({vnid}:{address})"),
            (Kind::Multicast(vnid, scope, group), None) => write!(f, "({vnid}:{scope:x}:{group:07x})"),
        }
    }
}

impl Decoded {
    /// Whether a type 3 address without a locator is `SIR:(VNI:VAX)` and not the tenant's own.
    fn sir_form(&self) -> bool {
        self.address.to_bits() as u64 == self.identifier.bits()
    }
}
