//! Addresses: which IPv6 address stands for an IPv4 address, and back.
//!
//! The translator knows nothing about addresses but this trait. Provided maps: RFC 6052 prefixes ([`rfc6052`]),
//! RFC 7757 tables ([`eam`]) and both together with RFC 6791 sources ([`siit`]). Maps must be injective where they
//! answer, or replies go astray.

pub mod eam;
pub mod rfc6052;
pub mod siit;

use core::net::{Ipv4Addr, Ipv6Addr};

/// What an address is in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Source of a packet that is not an ICMP error.
    Source,
    /// Destination of a packet.
    Destination,
    /// Source of an ICMP error: a router that perhaps has no counterpart (RFC 6791).
    ErrorSource,
    /// Source of the packet quoted in an ICMP error: the error's receiver sent it.
    QuotedSource,
    /// Destination of the packet quoted in an ICMP error.
    QuotedDestination,
}

/// Maps addresses between the families; `None` refuses, and what that means depends on the role: a
/// [`Role::Destination`] is [`crate::Reason::NotForUs`], a source [`crate::Reason::UnmappedSource`], a quoted address
/// [`crate::Reason::UnmappedQuote`].
///
/// The transport checksum is made for the addresses returned here. A caller that rewrites them afterwards (as ILA
/// does) does so checksum-neutrally or updates the checksum itself.
pub trait AddressMap {
    /// The IPv6 address that stands for `address`.
    fn v4_to_v6(&self, address: Ipv4Addr, role: Role) -> Option<Ipv6Addr>;

    /// The IPv4 address that stands for `address`.
    fn v6_to_v4(&self, address: Ipv6Addr, role: Role) -> Option<Ipv4Addr>;
}

impl<M: AddressMap + ?Sized> AddressMap for &M {
    fn v4_to_v6(&self, address: Ipv4Addr, role: Role) -> Option<Ipv6Addr> {
        (**self).v4_to_v6(address, role)
    }

    fn v6_to_v4(&self, address: Ipv6Addr, role: Role) -> Option<Ipv4Addr> {
        (**self).v6_to_v4(address, role)
    }
}

/// True for sources that a router must not forward (RFC 1812 5.3.7): 0/8, 127/8, multicast, class E and broadcast.
#[inline]
pub const fn illegal_source_v4(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first == 0 || first == 127 || first >= 224
}

/// True for sources that a router must not forward: unspecified, loopback, multicast and v4-mapped.
#[inline]
pub const fn illegal_source_v6(address: Ipv6Addr) -> bool {
    let bits = address.to_bits();
    bits <= 1 || bits >> 120 == 0xff || bits >> 32 == 0xffff
}
