//! Hosts whose ILA is not ours, as the operator writes them (docs/linux-ila.md).
//!
//! What must stay true: such a host has tasks only, and none that its mode cannot reach.

use std::collections::HashSet;

use super::check::{SetupError, check_locator, refuse};
use super::{Network, Setup};
use crate::addr::{Locator, PeerChecksum};

/// A host whose ILA is the Linux kernel's, and how it has its checksums. A host that is in no list has them as ours does.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The /64 routed to it.
    pub locator: Locator,
    /// What it is sent, and sends.
    pub checksum: PeerChecksum,
}

/// Checks the peers of `setup` against its other objects.
pub(super) fn check(
    setup: &Setup,
    networks: &std::collections::HashMap<&str, &Network>,
) -> Result<(), SetupError> {
    let mut known = HashSet::new();
    for peer in &setup.peers {
        let object = format!("peer {}", peer.locator);
        check_locator(&object, peer.locator, setup, networks)?;
        if setup.is_own_locator(peer.locator) {
            return Err(refuse(object, "it is this host", "write [host] checksum for what this host sends"));
        }
        if !known.insert(peer.locator) {
            return Err(refuse(object, "there are two of this locator", "keep one"));
        }
        let mappings = setup.mappings.iter().map(|mapping| (mapping.locator, &mapping.network));
        let routes = setup.routes.iter().map(|route| (route.locator, &route.network));
        let listeners = setup.listeners.iter().map(|listener| (listener.locator, &listener.network));
        let bulk = setup.bulk.hosts().iter().map(|host| (host.locator, &host.network));
        let mut tenants = mappings.chain(routes).chain(listeners).chain(bulk);
        if let Some((_, network)) = tenants.find(|(locator, _)| *locator == peer.locator) {
            let reason = format!("a mapping says that network.{network} has something there");
            let remedy = "the Linux kernel has tasks only: remove the mapping, or the peer";
            return Err(refuse(object, reason, remedy));
        }
        if let Some(several) = setup.several.iter().find(|several| several.locators.contains(&peer.locator)) {
            let reason = format!("it is one of several locators of {}", several.address);
            let remedy = "give it one locator: what such a host sends is read by where its sender is";
            return Err(refuse(object, reason, remedy));
        }
        let zero = |address: &core::net::Ipv6Addr| address.to_bits() as u16 == 0;
        let mut tasks = setup.task_mappings.iter().filter(|mapping| mapping.locator == peer.locator);
        if peer.checksum == PeerChecksum::NeutralAuto
            && let Some(mapping) = tasks.find(|mapping| zero(&mapping.address))
        {
            let reason = format!("its task {} ends in 0x0000, which it takes for 0xffff", mapping.address);
            return Err(refuse(object, reason, "give the task another identifier, or the peer another mode"));
        }
    }
    Ok(())
}
