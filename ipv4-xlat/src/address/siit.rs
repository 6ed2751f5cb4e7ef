//! The address map of a SIIT translator: explicit mappings, then a prefix (RFC 7915 6, RFC 7757 3.3), with
//! addresses for ICMP errors from routers that have none (RFC 6791) and hairpinning (RFC 7757 4).

use core::net::{Ipv4Addr, Ipv6Addr};

use super::eam::EamTable;
use super::rfc6052::{self, Prefix};
use super::{AddressMap, Role};

/// What addresses stand for each other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Siit<'a> {
    /// Looked at first.
    pub eams: EamTable<'a>,
    /// Everything else is embedded here.
    pub pool6: Option<Prefix>,
    /// Whether [`Prefix::WELL_KNOWN`] may carry local IPv4 addresses, against RFC 6052 3.1.
    pub local_in_well_known: bool,
    /// Sources for ICMPv6 errors whose source is not mapped; one is chosen by that source, so that a router looks like
    /// one router. Empty: such errors are dropped.
    pub error_sources_v4: &'a [Ipv4Addr],
    /// The same for ICMPv4 errors.
    pub error_source_v6: Option<Ipv6Addr>,
    /// Whether nodes with explicit mappings can reach each other by their IPv4 addresses.
    pub hairpin: Hairpin,
}

/// How a packet between two nodes with explicit mappings finds its way back into IPv6 (RFC 7757 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hairpin {
    /// It does not.
    #[default]
    Off,
    /// A router sends it back to the translator as IPv4; or the caller hands it over directly (see [`Siit::turns_back`]).
    /// Either way the source becomes the prefix's address for it, so that the reply returns the same way, and so does
    /// the destination of the packet quoted in an error.
    On,
}

/// A map that contradicts itself: an explicit mapping lies in the prefix, or around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOverlap;

impl core::fmt::Display for PoolOverlap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("an explicit mapping's IPv6 prefix overlaps the pool prefix: two IPv4 addresses would share one IPv6 address")
    }
}

impl core::error::Error for PoolOverlap {}

impl Siit<'_> {
    /// Checks what the parts cannot check alone.
    ///
    /// # Errors
    ///
    /// When explicit mappings and the prefix overlap in IPv6.
    pub fn check(&self) -> Result<(), PoolOverlap> {
        match self.pool6 {
            Some(pool) if self.eams.overlaps_v6(pool.address(), pool.len()) => Err(PoolOverlap),
            _ => Ok(()),
        }
    }

    /// True when a packet that was translated to IPv4 with this `destination` is for a node with an explicit mapping,
    /// so that it must be translated straight back (RFC 7757 4.2.2), spending no further hop.
    pub fn turns_back(&self, destination: Ipv4Addr) -> bool {
        self.hairpin == Hairpin::On && self.eams.to_v6(destination).is_some()
    }

    /// The prefix's address; none for what is no unicast address.
    fn embed(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let pool = self.pool6?;
        self.allowed(pool, address).then(|| pool.embed(address))
    }

    /// The same for an ICMP error's source, which may be no unicast address.
    fn embed_any(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let pool = self.pool6?;
        (pool != Prefix::WELL_KNOWN || self.local_in_well_known).then(|| pool.embed(address))
    }

    fn extract(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let pool = self.pool6?;
        pool.extract(address).filter(|v4| self.allowed(pool, *v4))
    }

    fn allowed(&self, pool: Prefix, address: Ipv4Addr) -> bool {
        let first = address.octets()[0];
        let unicast = first != 0 && first != 127 && first < 224;
        unicast && (pool != Prefix::WELL_KNOWN || self.local_in_well_known || !rfc6052::is_local(address))
    }
}

impl AddressMap for Siit<'_> {
    fn v4_to_v6(&self, address: Ipv4Addr, role: Role) -> Option<Ipv6Addr> {
        let turned = matches!(role, Role::Source | Role::ErrorSource | Role::QuotedDestination);
        let explicit = || self.eams.to_v6(address);
        let mapped = match self.hairpin {
            // Who comes from IPv4 with an address of ours has been turned back.
            Hairpin::On if turned => self.embed(address).or_else(explicit),
            _ => explicit().or_else(|| self.embed(address)),
        };
        match role {
            // However odd: an error is worth more than its source (RFC 7915 4.1).
            Role::ErrorSource => mapped.or_else(|| self.embed_any(address)).or(self.error_source_v6),
            _ => mapped,
        }
    }

    fn v6_to_v4(&self, address: Ipv6Addr, role: Role) -> Option<Ipv4Addr> {
        let mapped = self.eams.to_v4(address).or_else(|| self.extract(address));
        match role {
            Role::ErrorSource => mapped.or_else(|| choose(self.error_sources_v4, address)),
            _ => mapped,
        }
    }
}

/// One of `pool`, always the same for `address` (RFC 6791 4 recommends a random one; a hash keeps the translator
/// stateless and a traceroute readable).
fn choose(pool: &[Ipv4Addr], address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    // Fibonacci hashing of the folded address.
    let hash = ((bits >> 64) as u64 ^ bits as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let len = u64::try_from(pool.len()).ok().filter(|&len| len > 0)?;
    pool.get(usize::try_from(hash % len).ok()?).copied()
}
