//! What a network has beside single addresses with one holder each: prefixes and shared addresses (docs/decisions/0013).
//!
//! ```text
//!   key ── miss in the mapping table ──> shared? ── yes ──> its holder, or nobody
//!                                                  └── no ───────> longest prefix, or nobody
//! ```
//!
//! What must stay true: asked only of keys that are nobody's own; the network's IPv4 prefix, its gateway, and what no host may have
//! are under no prefix that is not more specific.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

use smoltcp::wire::{IpCidr, Ipv4Cidr};

use super::Shared;
use super::prefixes::{Prefix, Prefixes};
use super::world::{Network, Numbers, key_in};
use crate::addr::{Key, Kind};
use crate::pipeline::PortId;
use crate::setup;
use crate::tables::Target;

/// Prefixes and shared addresses of one network.
#[derive(Clone, Debug)]
pub(crate) struct Further {
    prefixes4: Prefixes,
    /// Of the low 32 bits.
    prefixes6: Prefixes,
    /// By key.
    shared: Box<[Shared]>,
    /// As configured, by prefix.
    listed: Box<[(IpCidr, Target)]>,
}

impl Default for Further {
    fn default() -> Self {
        let none = || Prefixes::new(Vec::new());
        Self { prefixes4: none(), prefixes6: none(), shared: Box::default(), listed: Box::default() }
    }
}

impl Further {
    /// Those of `network`, which has none yet.
    pub(super) fn build(network: &Network, setup: &setup::Setup, numbers: Numbers<'_>) -> Self {
        let mut listed = Vec::new();
        // Where a route names this host, the attachment says the same, and how.
        let routes = setup
            .routes
            .iter()
            .filter(|r| r.network == network.name && r.locator != network.sir_domain.locator());
        for (route, id) in routes.filter_map(|route| Some((route, numbers.locators.get(&route.locator)?))) {
            let is_ipv4 = matches!(route.prefix, IpCidr::Ipv4(_));
            let neutral = network.neutral_to(route.locator, is_ipv4, setup.host.checksum);
            listed.push((route.prefix, Target::Remote(*id, neutral)));
        }
        let mut shared: BTreeMap<Key, Vec<PortId>> = BTreeMap::new();
        for attachment in setup.attachments.iter().filter(|a| a.network == network.name) {
            let Some(port) = numbers.ports.get(&attachment.name) else { continue };
            listed.extend(attachment.prefixes.iter().map(|prefix| (*prefix, Target::Local(*port))));
            for address in &attachment.shared {
                let Some(key) = key_in(network, *address) else { continue };
                shared.entry(key).or_default().push(*port);
            }
        }
        listed.sort_unstable_by_key(|(prefix, _)| *prefix);
        let shared = shared.into_iter().map(|(key, ports)| {
            let cell = numbers.holders.get(&key).cloned().unwrap_or_default();
            Shared::new(key, ports, cell)
        });
        let aliases = setup.aliases.iter().filter(|alias| alias.network == network.name);
        let several =
            setup.several.iter().filter(|several| several.network.as_deref() == Some(&network.name));
        let several: Vec<IpAddr> = several.map(|several| several.address).collect();
        let of_several = several.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(Ipv4Cidr::new(*address, 32)),
            IpAddr::V6(_) => None,
        });
        // Whatever is theirs leads nowhere by a prefix.
        let others4 = aliases.map(|alias| alias.address).chain(of_several).collect::<Vec<_>>();
        Self {
            prefixes4: prefixes4(network, &listed, &others4),
            prefixes6: prefixes6(network, &listed, &several),
            shared: shared.collect(),
            listed: listed.into(),
        }
    }

    /// Where a key of this network leads that the mapping table does not have.
    pub(crate) fn find(&self, key: Key) -> Option<Target> {
        match self.shared(key) {
            Some(shared) => shared.holder().map(|holder| Target::Local(holder.port)),
            None => self.by_prefix(key),
        }
    }

    /// Where the longest prefix of a key of this network leads.
    pub(crate) fn by_prefix(&self, key: Key) -> Option<Target> {
        let low = key.low();
        match key.kind() {
            Kind::Ipv4(..) => self.prefixes4.find(low),
            Kind::Ipv6(..) => self.prefixes6.find(low),
            _ => None,
        }
    }

    /// Whether `address`, which is not in the network's own prefix, is behind a router.
    pub(crate) fn leads_out4(&self, address: Ipv4Addr) -> bool {
        self.prefixes4.find(address.to_bits()).is_some()
    }

    /// The shared address of this key.
    pub(crate) fn shared(&self, key: Key) -> Option<&Shared> {
        let at = self.shared.binary_search_by_key(&key, |shared| shared.key).ok()?;
        self.shared.get(at)
    }

    /// All shared addresses, by key.
    pub(crate) fn all_shared(&self) -> &[Shared] {
        &self.shared
    }

    /// All prefixes as configured, and where each leads.
    pub(crate) fn prefixes(&self) -> &[(IpCidr, Target)] {
        &self.listed
    }
}

/// The IPv4 ones, and over them what leads to nobody: the network itself, but for its parts that are behind somebody; no host's addresses;
/// aliases of what is elsewhere.
fn prefixes4(network: &Network, listed: &[(IpCidr, Target)], others: &[Ipv4Cidr]) -> Prefixes {
    let of = |cidr: Ipv4Cidr, target| Prefix {
        first: cidr.network().address().to_bits(),
        length: cidr.prefix_len(),
        target,
    };
    let behind = listed.iter().filter_map(|(prefix, target)| match prefix {
        IpCidr::Ipv4(cidr) => Some(of(*cidr, Some(*target))),
        IpCidr::Ipv6(_) => None,
    });
    let host = |address| of(Ipv4Cidr::new(address, 32), None);
    let edges = network.ipv4.filter(|own| own.prefix_len() < 31);
    let edges = edges.into_iter().flat_map(|own| [Some(own.network().address()), own.broadcast()]).flatten();
    let hosts = network.gateway4.into_iter().chain(edges).map(host);
    let nobodys = network.ipv4.into_iter().chain(setup::NOBODYS).chain(others.iter().copied());
    let nobodys = nobodys.map(|cidr| of(cidr, None));
    Prefixes::new(behind.chain(nobodys).chain(hosts).collect())
}

/// The same of the low 32 bits of the /96; nobody has its first address (the subnet-router anycast address).
fn prefixes6(network: &Network, listed: &[(IpCidr, Target)], others: &[IpAddr]) -> Prefixes {
    let of = |address: Ipv6Addr, length: u8, target| Prefix {
        first: address.to_bits() as u32,
        length: length.saturating_sub(96),
        target,
    };
    let behind = listed.iter().filter_map(|(prefix, target)| match prefix {
        IpCidr::Ipv6(cidr) => Some(of(cidr.address(), cidr.prefix_len(), Some(*target))),
        IpCidr::Ipv4(_) => None,
    });
    let anycast = network.ipv6.map(|vnet| vnet.address(0));
    let others = others.iter().filter_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    });
    let hosts =
        network.gateway6.into_iter().chain(anycast).chain(others).map(|address| of(address, 128, None));
    Prefixes::new(behind.chain(hosts).collect())
}
