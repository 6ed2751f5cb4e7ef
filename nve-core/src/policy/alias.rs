//! How IPv4 tenants of one network call endpoints elsewhere, and are shown them: aliases, and RFC 6052 for the outside.
//!
//! ```text
//!   10.1.200.53 ──────── alias ────> SIR:T, SIR:(VNI2:VA), VNET2:VA          and back: an endpoint has one alias in a network
//!   198.51.100.7 ── nat64 prefix ──> 64:ff9b::c633:6407
//! ```
//!
//! What must stay true: both directions agree; no alias is an address of a tenant of its network, and nobody elsewhere is shown as one.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::Network;
use crate::addr::{Identifier, Locator};
use crate::setup::{self, Aliased};

/// The aliases of one network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aliases {
    /// By [`Entry::first`]; none overlap.
    by_alias: Box<[Entry]>,
    /// By [`Entry::of`]; none overlap.
    by_endpoint: Box<[Entry]>,
}

/// Consecutive addresses that stand for as many consecutive ones.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The first alias, host byte order.
    first: u32,
    /// Whom it stands for.
    of: u128,
    /// How many there are, minus one.
    behind: u32,
}

impl Aliases {
    /// Those of `network`; `networks` has them all.
    pub(super) fn build(network: &Network, networks: &[Network], setup: &setup::Setup) -> Self {
        let entry = |alias: &setup::Alias| {
            let of = match &alias.of {
                Aliased::Ipv6(address) => *address,
                Aliased::Ipv4 { network, prefix } => {
                    let network = networks.iter().find(|known| known.name == *network)?;
                    network.sir_address(prefix.network().address())
                }
            };
            Some(Entry {
                first: alias.address.network().address().to_bits(),
                of: of.to_bits(),
                behind: u32::MAX.checked_shr(alias.address.prefix_len().into()).unwrap_or(0),
            })
        };
        let own = setup.aliases.iter().filter(|alias| alias.network == network.name);
        let mut by_alias: Vec<Entry> = own.filter_map(entry).collect();
        let mut by_endpoint = by_alias.clone();
        by_alias.sort_unstable_by_key(|entry| entry.first);
        by_endpoint.sort_unstable_by_key(|entry| entry.of);
        Self { by_alias: by_alias.into(), by_endpoint: by_endpoint.into() }
    }

    /// Whom `alias` stands for.
    pub(crate) fn endpoint(&self, alias: Ipv4Addr) -> Option<Ipv6Addr> {
        let bits = alias.to_bits();
        let at = self.by_alias.partition_point(|entry| entry.first <= bits).checked_sub(1)?;
        let entry = self.by_alias.get(at)?;
        let offset = bits.wrapping_sub(entry.first);
        (offset <= entry.behind).then(|| Ipv6Addr::from_bits(entry.of.wrapping_add(offset.into())))
    }

    /// What stands for `endpoint`.
    pub(crate) fn alias(&self, endpoint: Ipv6Addr) -> Option<Ipv4Addr> {
        let bits = endpoint.to_bits();
        let at = self.by_endpoint.partition_point(|entry| entry.of <= bits).checked_sub(1)?;
        let entry = self.by_endpoint.get(at)?;
        let offset = u32::try_from(bits.wrapping_sub(entry.of)).ok().filter(|n| *n <= entry.behind)?;
        Some(Ipv4Addr::from_bits(entry.first.wrapping_add(offset)))
    }
}

impl Network {
    /// What `address`, which an IPv4 tenant of this network writes, is called elsewhere; `None`: it stands for nobody there.
    pub(crate) fn called_elsewhere(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let outside =
            || self.nat64.filter(|_| self.may_be_outside(address)).map(|nat64| nat64.embed(address));
        self.aliases.endpoint(address).or_else(outside)
    }

    /// Whether `address` stands for somebody elsewhere, and for nobody of this network.
    pub(crate) fn has_alias(&self, address: Ipv4Addr) -> bool {
        self.aliases.endpoint(address).is_some()
    }

    /// What an IPv4 tenant of this network is shown of `address`, an endpoint's elsewhere; `None`: it has no IPv4 address here.
    pub(crate) fn shown_here(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let outside = || self.nat64?.extract(address).filter(|address| self.may_be_outside(*address));
        self.aliases.alias(address).or_else(outside)
    }

    /// Whether `address` may be one of the outside, and not of this network, one of its aliases, or nobody's.
    fn may_be_outside(&self, address: Ipv4Addr) -> bool {
        let own = self.ipv4.is_some_and(|prefix| prefix.contains_addr(&address));
        let nobodys = setup::NOBODYS.iter().any(|nobodys| nobodys.contains_addr(&address));
        let behind = self.further().leads_out4(address);
        // RFC 6052, section 3.1: the well-known prefix carries global addresses only.
        let well_known = self.nat64 == Some(ipv4_xlat::address::rfc6052::Prefix::WELL_KNOWN);
        let local = well_known && ipv4_xlat::address::rfc6052::is_local(address);
        !own && !nobodys && !behind && !local && self.aliases.endpoint(address).is_none()
    }

    /// Whether `locator` would take addresses from those of the outside that the NAT64 has.
    pub(crate) fn nat64_overlaps(&self, locator: Locator) -> bool {
        self.nat64.is_some_and(|nat64| {
            let upper = (nat64.address().to_bits() >> 64) as u64;
            nat64.contains(locator.prefix()) || upper == locator.upper()
        })
    }

    /// `SIR:(VNI:address)`.
    pub(crate) fn sir_address(&self, address: Ipv4Addr) -> Ipv6Addr {
        self.sir_domain.sir().address(Identifier::ipv4(self.vnid, address)).ipv6()
    }
}
