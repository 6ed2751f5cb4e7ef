//! Addresses that carry their meaning in their type (draft, section 3; reading notes, section 1).
//!
//! What must stay true: every type here has private fields and one fallible constructor, so that a value of it *is* the proof
//! that the check was made. No function that needs a [`Locator`] takes an `Ipv6Addr`.

use core::net::Ipv6Addr;

/// Virtual network identifier: 28 bits (draft, section 3.6). Zero is refused: it would make an all-zero identifier legal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Vnid(u32);

impl Vnid {
    /// `None` unless 1 <= `value` < 2^28.
    pub const fn new(value: u32) -> Option<Self> {
        if value == 0 || value >> 28 != 0 { None } else { Some(Self(value)) }
    }
    /// The number, host byte order.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The upper 64 bits of an ILA address: where a host is (draft, section 3.9).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Locator(u64);

/// The upper 64 bits of a SIR address: one identifier space, a *domain* (draft, section 3.8).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SirPrefix(u64);

/// The low 64 bits of an ILA address with the C bit zero: type, and what the type says (draft, section 3.2). Host byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Identifier(u64);

/// The /96 that a VN's IPv6 addresses share; one per [`Vnid`], both ways unique (draft, section 3.7.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Vnet(Ipv6Addr);

/// How a sender treats the transport checksum (draft, section 4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChecksumMode {
    /// 4.4.1: the identifier's low word absorbs the change; checksums on the wire verify.
    #[default]
    Neutral,
    /// 4.4.2: the checksum travels as the endpoints made it.
    Unmodified,
}
