//! The checks across objects, each refused with the object, the reason and a remedy.
//!
//! What must stay true: a [`CheckedSetup`] is only made by [`Setup::check`], and the core takes nothing else.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::{HashMap, HashSet};

use smoltcp::wire::Ipv4Cidr;

use super::{
    Attachment, Host, Instance, Listener, Mapping, Moves, Network, Realm, Setup, bulk, domains, further,
    moves, peer, realms, several,
};
use crate::addr::{Locator, Vnet};
use crate::gateway::dns::MAX_SERVERS;
use crate::gateway::names::{LONGEST_LIST, wire_len};
use crate::gateway::{METADATA4, METADATA6};
use crate::tables::group_in;

/// A [`Setup`] in which everything fits together.
#[derive(Clone, Debug)]
pub struct CheckedSetup(Setup);

impl CheckedSetup {
    /// What was checked.
    pub fn setup(&self) -> &Setup {
        &self.0
    }
}

/// What does not fit. `object` names the offender as the configuration does, such as `attachment.vm1`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{object}: {reason}; {remedy}")]
pub struct SetupError {
    /// `host`, `network.NAME`, `attachment.NAME` or `mapping ADDRESS in NAME`.
    pub object: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

pub(super) fn refuse(
    object: impl Into<String>,
    reason: impl Into<String>,
    remedy: impl Into<String>,
) -> SetupError {
    SetupError { object: object.into(), reason: reason.into(), remedy: remedy.into() }
}

/// The last usable address of `prefix`; `None` where it has no two usable addresses (/31, /32).
pub fn default_gateway4(prefix: Ipv4Cidr) -> Option<Ipv4Addr> {
    if prefix.prefix_len() > 30 {
        return None;
    }
    prefix.broadcast().map(|broadcast| Ipv4Addr::from_bits(broadcast.to_bits().wrapping_sub(1)))
}

/// `VNET:ffff:fffe`.
pub fn default_gateway6(vnet: Vnet) -> Ipv6Addr {
    vnet.address(0xffff_fffe)
}

/// Whether `address` is one that a tenant of `prefix` may have: neither network nor broadcast.
fn usable4(prefix: Ipv4Cidr, address: Ipv4Addr) -> bool {
    prefix.contains_addr(&address)
        && (prefix.prefix_len() > 30
            || (address != prefix.network().address() && Some(address) != prefix.broadcast()))
}

impl Setup {
    /// Checks everything against everything.
    ///
    /// # Errors
    /// The first object that does not fit, with a remedy.
    pub fn check(self) -> Result<CheckedSetup, SetupError> {
        check_host(&self.host)?;
        domains::check(&self)?;
        check_networks(&self)?;
        let networks: HashMap<&str, &Network> = self.networks.iter().map(|n| (n.name.as_str(), n)).collect();
        let mut held = check_attachments(&self.attachments, &networks, &self.moves)?;
        let mut behind = further::check_attachments(&self.attachments, &networks, &mut held)?;
        // Whoever waits has nothing yet: its guest is elsewhere, and mappings say where.
        let waits =
            |object: &str| object.strip_prefix("attachment.").is_some_and(|name| self.moves.waits(name));
        held.retain(|_, holder| !waits(holder));
        for mapping in &self.mappings {
            check_mapping(mapping, &self, &networks, &mut held)?;
        }
        for listener in &self.listeners {
            check_listener(listener, &self, &networks)?;
        }
        for route in &self.routes {
            further::check_route(route, &self, &networks, &mut behind)?;
        }
        several::check(&self, &networks, &held)?;
        bulk::check(&self, &networks, &held)?;
        realms::check(&self, &networks, &held, &behind)?;
        peer::check(&self, &networks)?;
        domains::check_locators(&self)?;
        Ok(CheckedSetup(self))
    }
}

pub(super) fn check_host(host: &Host) -> Result<(), SetupError> {
    if host.uplink_mtu < 1280 {
        return Err(refuse(
            "uplink",
            format!("mtu {} is below 1280", host.uplink_mtu),
            "IPv6 needs links of 1280 bytes or more (RFC 8200, section 5)",
        ));
    }
    Ok(())
}

/// Networks of one host at most: their numbers have 16 bits, one of which is nobody's.
const MOST_NETWORKS: usize = 65535;

pub(super) fn check_networks(setup: &Setup) -> Result<(), SetupError> {
    let networks = &*setup.networks;
    if networks.len() > MOST_NETWORKS {
        let reason = format!("there are {} of them", networks.len());
        return Err(refuse("network", reason, format!("a host serves {MOST_NETWORKS} at most")));
    }
    let (mut names, mut vnids, mut vnets) = (HashSet::new(), HashMap::new(), HashMap::new());
    for network in networks {
        let object = format!("network.{}", network.name);
        if !names.insert(network.name.as_str()) {
            return Err(refuse(object, "there are two of this name", "rename one"));
        }
        if !matches!(Realm::of(&network.name), Realm::Network(_)) {
            let reason = format!("\"{}\" is what crossings call a realm that is no network", network.name);
            return Err(refuse(object, reason, "rename it"));
        }
        if let Some(other) = vnids.insert((&network.sir_domain, network.vnid), &network.name) {
            let reason = format!("vni {} is already network.{other}'s", network.vnid);
            return Err(refuse(object, reason, "each network of a domain needs its own VNI"));
        }
        if network.ipv4.is_none() && network.ipv6.is_none() {
            return Err(refuse(object, "it has neither ipv4 nor ipv6", "give it at least one prefix"));
        }
        if let Some(vnet) = network.ipv6 {
            if let Some(other) = vnets.insert(vnet, &network.name) {
                let reason = format!("{vnet} is already network.{other}'s");
                return Err(refuse(object, reason, "networks may overlap in IPv4, never in IPv6"));
            }
            let upper = (vnet.prefix().to_bits() >> 64) as u64;
            if setup.domains().any(|domain| upper == domain.sir.upper() || upper == domain.locator.upper()) {
                let reason = format!("{vnet} lies in a locator or SIR prefix of this host");
                return Err(refuse(object, reason, "choose a /96 outside of both"));
            }
        }
        check_search(&object, network)?;
        check_metadata(&object, network)?;
        check_servers(&object, setup, network)?;
        check_gateways(&object, network)?;
    }
    Ok(())
}

fn check_metadata(object: &str, network: &Network) -> Result<(), SetupError> {
    let inside4 = network.ipv4.is_some_and(|prefix| prefix.contains_addr(&METADATA4));
    let inside6 = network.ipv6.is_some_and(|vnet| vnet.contains(METADATA6));
    if network.metadata && (inside4 || inside6) {
        let reason = format!("its prefix contains {METADATA4} or {METADATA6}, where metadata is served");
        return Err(refuse(object, reason, "choose another prefix, or write metadata = false"));
    }
    Ok(())
}

fn check_search(object: &str, network: &Network) -> Result<(), SetupError> {
    let domains = || network.domain.iter().chain(&network.search);
    if let Some(domain) = domains().find(|domain| wire_len(domain).is_none()) {
        let reason = format!("{domain:?} is no domain name");
        return Err(refuse(object, reason, "write labels of 1 to 63 bytes, 255 in all, joined by dots"));
    }
    let len: usize = network.search.iter().filter_map(|domain| wire_len(domain)).sum();
    if len > LONGEST_LIST {
        let reason = format!("its search list has {len} bytes as DNS writes it");
        return Err(refuse(object, reason, format!("one option holds {LONGEST_LIST}: name fewer domains")));
    }
    Ok(())
}

/// `dns_forward`: servers that a socket of this host can be connected to, and that are no tenant's.
fn check_servers(object: &str, setup: &Setup, network: &Network) -> Result<(), SetupError> {
    let servers = &network.dns_forward;
    if servers.len() > MAX_SERVERS {
        let reason = format!("dns_forward names {} servers", servers.len());
        return Err(refuse(object, reason, format!("name at most {MAX_SERVERS}: no more are asked in time")));
    }
    for server in servers {
        if let Some(why) = unreachable(setup, *server) {
            let reason = format!("dns_forward: {server} {why}");
            return Err(refuse(object, reason, "name a resolver that this host itself can reach"));
        }
    }
    Ok(())
}

/// Why no answer could come from `server`.
fn unreachable(setup: &Setup, server: SocketAddr) -> Option<String> {
    let address = server.ip();
    if server.port() == 0 || address.is_unspecified() || address.is_multicast() {
        return Some("is no server's address".into());
    }
    match address {
        IpAddr::V4(v4) => v4.is_broadcast().then(|| "is no server's address".into()),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("is link-local, without a link".into()),
        IpAddr::V6(v6) => {
            let holder = setup.networks.iter().find(|n| n.ipv6.is_some_and(|vnet| vnet.contains(v6)));
            let of_tenants = setup.domain_of_sir((v6.to_bits() >> 64) as u64).is_some();
            holder
                .map(|holder| format!("is a tenant's of network.{}", holder.name))
                .or_else(|| of_tenants.then(|| "lies in a SIR prefix".into()))
        }
    }
}

fn check_gateways(object: &str, network: &Network) -> Result<(), SetupError> {
    match (network.ipv4, network.gateway4) {
        (Some(prefix), Some(gateway)) if !usable4(prefix, gateway) => Err(refuse(
            object,
            format!("gateway4 {gateway} is no usable address of {prefix}"),
            "leave it out for the last usable address",
        )),
        (None, Some(gateway)) => {
            Err(refuse(object, format!("gateway4 {gateway} without ipv4"), "add ipv4 or remove it"))
        }
        (Some(prefix), None) if default_gateway4(prefix).is_none() => {
            Err(refuse(object, format!("{prefix} has no room for a gateway"), "tell gateway4"))
        }
        _ => Ok(()),
    }?;
    match (network.ipv6, network.gateway6) {
        (Some(vnet), Some(gateway)) if !vnet.contains(gateway) => Err(refuse(
            object,
            format!("gateway6 {gateway} is not in {vnet}"),
            "leave it out for the prefix's ffff:fffe",
        )),
        (None, Some(gateway)) => {
            Err(refuse(object, format!("gateway6 {gateway} without ipv6"), "add ipv6 or remove it"))
        }
        _ => Ok(()),
    }
}

/// Who holds an address: the object's name by (network, address).
pub(super) type Held<'a> = HashMap<(&'a str, IpAddr), String>;

fn check_attachments<'a>(
    attachments: &'a [Attachment],
    networks: &HashMap<&str, &'a Network>,
    moves: &Moves,
) -> Result<Held<'a>, SetupError> {
    let (mut names, mut macs, mut held) = (HashSet::new(), HashMap::new(), HashMap::new());
    for attachment in attachments {
        let object = format!("attachment.{}", attachment.name);
        if !names.insert(attachment.name.as_str()) {
            return Err(refuse(object, "there are two of this name", "rename one"));
        }
        let Some(network) = networks.get(attachment.network.as_str()) else {
            let reason = format!("network {:?} is not defined", attachment.network);
            return Err(refuse(object, reason, format!("define [network.{}]", attachment.network)));
        };
        if !attachment.mac.is_unicast() || attachment.mac == crate::gateway::GATEWAY_MAC {
            let reason = format!("mac {} is a group, zero or the gateway's", attachment.mac);
            return Err(refuse(object, reason, "use a unicast address such as 52:54:00:00:00:01"));
        }
        if let Some(other) = macs.insert((&network.name, attachment.mac), &attachment.name) {
            let reason = format!("mac {} is already attachment.{other}'s", attachment.mac);
            return Err(refuse(object, reason, "each NIC of a network needs its own"));
        }
        if !network.metadata && attachment.instance != Instance::default() {
            let reason = format!("network.{} serves no metadata, and this is some", network.name);
            let remedy = "remove instance_id, ssh_keys and user_data, or the network's metadata = false";
            return Err(refuse(object, reason, remedy));
        }
        if attachment.addresses.is_empty() {
            return Err(refuse(object, "it has no addresses", "list at least one"));
        }
        if moves.waits(&attachment.name) {
            moves::check_waiting(&object, attachment)?;
        }
        for address in &attachment.addresses {
            check_address(&object, *address, network)?;
            if let Some(other) = held.insert((network.name.as_str(), *address), object.clone()) {
                let reason = format!("{address} is already {other}'s");
                return Err(refuse(object, reason, "an address has one holder"));
            }
        }
    }
    if attachments.len() > crate::pipeline::MAX_PORTS {
        let reason = format!("{} attachments", attachments.len());
        return Err(refuse("host", reason, format!("one host serves up to {}", crate::pipeline::MAX_PORTS)));
    }
    Ok(held)
}

/// The network's gateway in each family.
pub(super) fn gateways(network: &Network) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let gateway4 = network.gateway4.or_else(|| network.ipv4.and_then(default_gateway4));
    (gateway4, network.gateway6.or_else(|| network.ipv6.map(default_gateway6)))
}

pub(super) fn check_address(object: &str, address: IpAddr, network: &Network) -> Result<(), SetupError> {
    let (gateway4, gateway6) = gateways(network);
    let fits = match address {
        IpAddr::V4(v4) => network.ipv4.is_some_and(|prefix| usable4(prefix, v4)) && Some(v4) != gateway4,
        IpAddr::V6(v6) => {
            network.ipv6.is_some_and(|vnet| vnet.contains(v6) && v6.to_bits() as u32 != 0)
                && Some(v6) != gateway6
        }
    };
    if fits {
        return Ok(());
    }
    Err(refuse(
        object,
        format!("{address} is no free address of network.{}", network.name),
        "use one inside its ipv4 or ipv6 prefix that is neither network, broadcast nor gateway",
    ))
}

fn check_mapping<'a>(
    mapping: &'a Mapping,
    setup: &Setup,
    networks: &HashMap<&str, &'a Network>,
    held: &mut Held<'a>,
) -> Result<(), SetupError> {
    let object = format!("mapping {} in {}", mapping.address, mapping.network);
    let Some(network) = networks.get(mapping.network.as_str()) else {
        let reason = format!("network {:?} is not defined", mapping.network);
        return Err(refuse(object, reason, format!("define [network.{}]", mapping.network)));
    };
    check_address(&object, mapping.address, network)?;
    check_locator(&object, mapping.locator, setup, networks)?;
    // A mapping to ourselves repeats what an attachment says already; written by a tool that lists every host's, it does no harm.
    if setup.is_own_locator(mapping.locator) {
        return match held.get(&(network.name.as_str(), mapping.address)) {
            Some(holder) if is_here(holder) => Ok(()),
            Some(other) => Err(taken(object, other)),
            None => Err(nobody_here(object)),
        };
    }
    match held.insert((network.name.as_str(), mapping.address), object.clone()) {
        Some(other) => Err(taken(object, &other)),
        None => Ok(()),
    }
}

/// Whether `holder`, of those in [`Held`], is of this host: an attachment, or those that share the address.
pub(super) fn is_here(holder: &str) -> bool {
    holder.starts_with("attachment.") || holder.starts_with("shared by")
}

/// Of a mapping to this host that repeats nothing.
pub(super) fn nobody_here(object: String) -> SetupError {
    let remedy = "add one, or take standby from the one that waits for it";
    refuse(object, "it says the address is here, and no attachment has it", remedy)
}

/// Of a mapping of an address that `other` has.
pub(super) fn taken(object: String, other: &str) -> SetupError {
    let (reason, remedy) = match other.starts_with("shared by") {
        // Nobody would tell the other host when it moves (docs/decisions/0013).
        true => {
            (format!("the address is {other}"), "a shared address moves within one host: list it on that one")
        }
        false => (format!("the address is already {other}'s"), "an address has one holder"),
    };
    refuse(object, reason, remedy)
}

/// Whether `locator` can be a host's.
pub(super) fn check_locator(
    object: &str,
    locator: Locator,
    setup: &Setup,
    networks: &HashMap<&str, &Network>,
) -> Result<(), SetupError> {
    if let Some(domain) = setup.domain_of_sir(locator.upper()) {
        let remedy = "tell the locator of the host that has it";
        let reason = match domain.name {
            Some(name) => format!("its locator is the SIR prefix of domain {name:?}"),
            None => "its locator is the SIR prefix".to_owned(),
        };
        return Err(refuse(object, reason, remedy));
    }
    let mut vnets = networks.values().filter_map(|n| n.ipv6);
    if vnets.any(|vnet| (vnet.prefix().to_bits() >> 64) as u64 == locator.upper()) {
        let reason = format!("its locator {locator} contains a network's /96");
        return Err(refuse(object, reason, "locators and tenant prefixes must not overlap"));
    }
    Ok(())
}

fn check_listener(
    listener: &Listener,
    setup: &Setup,
    networks: &HashMap<&str, &Network>,
) -> Result<(), SetupError> {
    let object = format!("listener {} in {}", listener.group, listener.network);
    let Some(network) = networks.get(listener.network.as_str()) else {
        let reason = format!("network {:?} is not defined", listener.network);
        return Err(refuse(object, reason, format!("define [network.{}]", listener.network)));
    };
    let has_family = match listener.group {
        IpAddr::V4(_) => network.ipv4.is_some(),
        IpAddr::V6(_) => network.ipv6.is_some(),
    };
    if !has_family || group_in(network.vnid, listener.group).is_none() {
        let reason = format!("{} is no group that network.{} carries", listener.group, network.name);
        let remedy = "name one of 224.0.0.0/4, or of ff02::0 to ff0f::fff:ffff (docs/ila-02.md)";
        return Err(refuse(object, reason, remedy));
    }
    check_locator(&object, listener.locator, setup, networks)
}
