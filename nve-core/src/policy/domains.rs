//! The SIR domains that a host serves, and whose an address, a key or a locator is (docs/decisions/0016).
//!
//! ```text
//!   from a tenant   its network's      (Network::sir_domain: nothing is compared)
//!   from a task     its attachment's
//!   from the wire   the one whose locator, or SIR prefix, the destination has; whose a /96 is, its network says
//! ```
//!
//! What must stay true: a locator, of this host or of another, is of one domain; so is a network; nothing passes from one to another.

use core::net::Ipv6Addr;

use super::{Network, NetworkId, World};
use crate::addr::{Domain, DomainId, Key, Kind, Locator, SirAddress, Vnid};
use crate::setup::Setup;

impl Setup {
    /// Its domains as the data path reads them: the host's own is the first, and each has the number of its place.
    pub(crate) fn numbered_domains(&self) -> impl Iterator<Item = Domain> {
        DomainId::ALL
            .into_iter()
            .zip(self.domains())
            .map(|(id, said)| Domain::new(id, said.sir, said.locator))
    }
    /// The one of this name; `None`: the host's own.
    pub(crate) fn numbered_domain(&self, name: Option<&str>) -> Option<Domain> {
        let at = self.domains().position(|domain| domain.name == name)?;
        self.numbered_domains().nth(at)
    }
    /// The one that a SIR address is in.
    pub(crate) fn domain_called(&self, address: Ipv6Addr) -> Option<Domain> {
        let upper = (address.to_bits() >> 64) as u64;
        self.numbered_domains().find(|domain| domain.sir().upper() == upper)
    }
}

/// What networks are found by: their number, and before it that of their domain.
pub(crate) const fn numbered(domain: DomainId, vnid: Vnid) -> u32 {
    (domain.get() as u32) << 28 | vnid.get()
}

impl World {
    /// All domains; the host's own is the first.
    #[inline]
    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }
    /// The domain of this number.
    #[inline]
    pub fn domain(&self, id: DomainId) -> Option<&Domain> {
        self.domains.get(usize::from(id.get()))
    }
    /// The name of a domain; the host's own has none.
    pub fn domain_name(&self, id: DomainId) -> Option<&str> {
        self.domain_names.get(usize::from(id.get()))?.as_deref()
    }
    /// The domain in which this host's locator has these upper 64 bits.
    #[inline]
    pub(crate) fn domain_here(&self, upper: u64) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.locator().upper() == upper)
    }
    /// The domain whose SIR prefix has these upper 64 bits.
    #[inline]
    pub(crate) fn domain_called(&self, upper: u64) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.sir().upper() == upper)
    }
    /// Whether `locator` is one of this host's.
    #[inline]
    pub(crate) fn is_own_locator(&self, locator: Locator) -> bool {
        self.domain_here(locator.upper()).is_some()
    }
    /// The key of whoever is called so in all the fabric, if his domain is served here.
    pub fn key(&self, name: SirAddress) -> Option<Key> {
        self.domain_called(name.prefix().upper())?.key(name.identifier())
    }
    /// What `key` is called in all the fabric.
    pub fn name_of(&self, key: Key) -> Option<SirAddress> {
        Some(self.domain(key.domain())?.sir().address(key.identifier()))
    }
    /// The network of `key`, in the key's domain.
    #[inline]
    pub(crate) fn network_of(&self, key: Key) -> Option<(NetworkId, &Network)> {
        self.network_of_vnid(key.domain(), key.vnid()?)
    }
    /// As other realms call `key`: `SIR:T`, `SIR:(VNI:VA)` or `VNET:VA`.
    pub(crate) fn address_of(&self, key: Key) -> Option<Ipv6Addr> {
        match key.kind() {
            Kind::Ipv6(_, low) => Some(self.network_of(key)?.1.ipv6?.address(low)),
            _ => Some(self.domain(key.domain())?.address(key.identifier())),
        }
    }
}
