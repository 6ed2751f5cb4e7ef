//! Addresses that carry their meaning in their type (draft, section 3; reading notes, section 1).
//!
//! What must stay true: every type here has private fields and a fallible constructor, so that a value of it *is* the proof
//! that the check was made. No function that needs a [`Locator`] takes an `Ipv6Addr`. Reserved types are refused, never guessed.
//!
//! ```text
//!   0               64  67 68              96              128
//!   ┌────────────────┬───┬─┬───────────────┬────────────────┐
//!   │ locator.rs     │typ│C│ identifier.rs                  │   what the fabric sees
//!   └────────────────┴───┴─┴───────────────┴────────────────┘
//!   │ sir.rs         │typ│0│ identifier.rs                  │   what an endpoint of types 1 and 2 sees
//!   │ vnid.rs: Vnet (96 bits)              │ low 32 bits    │   what an endpoint of type 3 sees
//! ```
//!
//! `domain.rs` makes an identifier of one domain the key of every table. `neutral.rs` is the checksum arithmetic between the first row and the others; `notation.rs` writes all of them for people.

mod domain;
mod identifier;
mod locator;
mod neutral;
mod notation;
mod sir;
mod vnid;

pub use domain::{Domain, DomainId, Key, Keys};
pub use identifier::{Identifier, IdentifierError, Kind};
pub use locator::{IlaAddress, Locator};
pub use neutral::{ChecksumMode, Neutral, PeerChecksum};
pub use notation::{DecodeError, Decoded, Directory, EncodeError, decode, encode};
pub use sir::{SirAddress, SirPrefix};
pub use vnid::{Vnet, Vnid};

/// Why a prefix cannot be what it is meant to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrefixError {
    /// Not `ADDRESS/LENGTH`.
    #[error("expected an IPv6 prefix such as 2001:db8:0:1::/64")]
    Syntax,
    /// Another length than the one its kind has.
    #[error("the prefix length must be /{0}")]
    Length(u8),
    /// Bits are set behind the prefix.
    #[error("bits are set behind the /{0}")]
    HostBits(u8),
    /// Multicast, link-local, loopback, unspecified or IPv4-mapped.
    #[error("not a global or unique local unicast prefix")]
    NotUnicast,
}

/// The upper `length` bits of `text`, which must be written `ADDRESS/length` with nothing behind them.
fn parse_prefix(text: &str, length: u8) -> Result<u128, PrefixError> {
    let (address, given) = text.split_once('/').ok_or(PrefixError::Syntax)?;
    let address: core::net::Ipv6Addr = address.parse().map_err(|_| PrefixError::Syntax)?;
    if given.parse::<u8>() != Ok(length) {
        return Err(PrefixError::Length(length));
    }
    let bits = address.to_bits();
    if bits << length != 0 {
        return Err(PrefixError::HostBits(length));
    }
    Ok(bits)
}

/// Whether unicast routing may carry an address that starts with these 64 bits.
const fn is_routable(upper: u64) -> bool {
    let first = (upper >> 48) as u16;
    upper != 0 && first != 0xffff && first & 0xff00 != 0xff00 && first & 0xffc0 != 0xfe80
}

#[cfg(test)]
mod tests;
