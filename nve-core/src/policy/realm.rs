//! Who an endpoint belongs to, and how endpoints of different realms call each other (docs/decisions/0014).
//!
//! ```text
//!   SIR:T ──────────> tasks            SIR:(VNI:VA) ─┐
//!                                      VNET:VA ──────┴─> a network         in no SIR, VN or locator prefix ──> outside
//! ```
//!
//! What must stay true: an address is of one realm at most; what it could be mistaken for (a locator, C = 1, a reserved type) is nobody's.

use core::net::Ipv6Addr;

use super::{NetworkId, World};
use crate::addr::{DomainId, Identifier, Key, Kind};

/// Who an endpoint belongs to. Rules are between realms.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Realm {
    /// A virtual network.
    Network(NetworkId),
    /// The tasks of a domain.
    Tasks(DomainId),
    /// Everything else.
    Outside,
}

/// Somebody with an address, as other realms call him.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    pub(crate) realm: Realm,
    /// `SIR:T`, `SIR:(VNI:VA)`, `VNET:VA`, or an address of the outside.
    pub(crate) address: Ipv6Addr,
    /// The key of the mapping table; the outside has none.
    pub(crate) key: Option<Key>,
}

/// Why an address is no endpoint's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nobody {
    /// Under a locator, or elsewhere in what is the fabric's, which only the fabric names.
    Locator,
    /// Under a SIR prefix, and neither of type 1 nor of type 2.
    Identifier,
    /// Of type 2, of a network that is not known here.
    Network,
    /// A group, link-local, loopback, unspecified, or an IPv4 address in disguise.
    NotUnicast,
}

impl Endpoint {
    /// Whether both are of the fabric, and of two domains, between which nothing passes whatever rules say.
    pub(crate) fn is_of_another_domain(&self, other: &Self) -> bool {
        matches!((self.key, other.key), (Some(one), Some(other)) if one.domain() != other.domain())
    }

    /// Whoever is called `address`.
    ///
    /// # Errors
    /// Why nobody is.
    pub(crate) fn called(world: &World, address: Ipv6Addr) -> Result<Self, Nobody> {
        let (upper, low) = ((address.to_bits() >> 64) as u64, address.to_bits() as u64);
        let some = |realm, key| Ok(Self { realm, address, key });
        if let Some(domain) = world.domain_called(upper) {
            let identifier = Identifier::from_bits(low).map_err(|_| Nobody::Identifier)?;
            return match identifier.kind() {
                Kind::Local(_) => some(Realm::Tasks(domain.id()), domain.key(identifier)),
                Kind::Ipv4(vnid, _) => {
                    let (id, _) = world.network_of_vnid(domain.id(), vnid).ok_or(Nobody::Network)?;
                    some(Realm::Network(id), domain.key(identifier))
                }
                _ => Err(Nobody::Identifier),
            };
        }
        if world.known_locator(upper).is_some() {
            return Err(Nobody::Locator);
        }
        if let Some((id, network)) = world.network_of_address(address) {
            return some(Realm::Network(id), Some(network.keys6.of(low as u32)));
        }
        let mapped = address.to_bits() >> 32 == 0xffff;
        let local = address.is_unicast_link_local() || address.is_loopback() || address.is_unspecified();
        if address.is_multicast() || local || mapped {
            return Err(Nobody::NotUnicast);
        }
        // A host or network that is not known here is no less inside for that.
        if world.is_of_fabric(address) {
            return Err(Nobody::Locator);
        }
        some(Realm::Outside, None)
    }
}
