//! What an attachment may use beside its addresses: prefixes, shared addresses, further MACs; and prefixes behind other hosts.
//!
//! What must stay true: of a network, a prefix is behind one attachment or host; none covers the gateway but one that covers the whole
//! network; a shared address is nobody's own, and all who list it are on this host.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::collections::{HashMap, HashSet};

use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr, Ipv6Cidr};

use super::check::{Held, SetupError, check_address, check_locator, gateways, refuse};
use super::{Attachment, Network, Route, Setup};
use crate::addr::Vnet;

/// What no prefix may be part of: "this network", loopback, link-local (RFC 6890), groups and class E.
pub(crate) const NOBODYS: [Ipv4Cidr; 4] = [
    Ipv4Cidr::new(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Cidr::new(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Cidr::new(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Cidr::new(Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Who has a prefix: the object's name by (network, prefix).
pub(super) type Behind<'a> = HashMap<(&'a str, IpCidr), String>;

/// Checks what each attachment has beside its addresses; `held` says whose addresses are whose own.
pub(super) fn check_attachments<'a>(
    attachments: &'a [Attachment],
    networks: &HashMap<&str, &'a Network>,
    held: &mut Held<'a>,
) -> Result<Behind<'a>, SetupError> {
    let own: HashSet<_> = attachments.iter().map(|a| (a.network.as_str(), a.mac)).collect();
    let mut behind = HashMap::new();
    let mut shared: Held<'a> = HashMap::new();
    for attachment in attachments {
        let Some(network) = networks.get(attachment.network.as_str()) else { continue };
        let object = format!("attachment.{}", attachment.name);
        check_macs(&object, attachment, &own)?;
        for prefix in &attachment.prefixes {
            check_prefix(&object, *prefix, network)?;
            if let Some(other) = behind.insert((network.name.as_str(), *prefix), object.clone()) {
                return Err(refuse(object, format!("prefix {prefix} is already behind {other}"), ONE_WAY));
            }
        }
        check_shared(&object, attachment, network, held)?;
        let of_network = attachment.shared.iter().map(|address| (network.name.as_str(), *address));
        shared.extend(of_network.map(|key| (key, format!("shared by {object}"))));
    }
    held.extend(shared);
    Ok(behind)
}

const ONE_WAY: &str = "a prefix leads one way: to move it, claim shared addresses instead";

fn check_macs(
    object: &str,
    attachment: &Attachment,
    own: &HashSet<(&str, EthernetAddress)>,
) -> Result<(), SetupError> {
    let mut seen = HashSet::new();
    for mac in &attachment.macs {
        // As the configuration writes it.
        let written = mac.0.map(|byte| format!("{byte:02x}")).join(":");
        if !mac.is_unicast() || *mac == crate::gateway::GATEWAY_MAC {
            let reason = format!("mac {written} of macs is a group, zero or the gateway's");
            return Err(refuse(object, reason, "use a unicast address such as 00:00:5e:00:01:0a"));
        }
        if own.contains(&(attachment.network.as_str(), *mac)) {
            let reason = format!("mac {written} of macs is an attachment's own");
            return Err(refuse(object, reason, "list virtual MACs only; its own is always allowed"));
        }
        if !seen.insert(*mac) {
            return Err(refuse(object, format!("mac {written} is twice in macs"), "list it once"));
        }
    }
    Ok(())
}

fn check_shared<'a>(
    object: &str,
    attachment: &'a Attachment,
    network: &'a Network,
    held: &Held<'a>,
) -> Result<(), SetupError> {
    let mut seen = HashSet::new();
    for address in &attachment.shared {
        check_address(object, *address, network)?;
        if let Some(other) = held.get(&(network.name.as_str(), *address)) {
            let reason = format!("shared {address} is {other}'s own");
            return Err(refuse(
                object,
                reason,
                "list it under shared only, at every attachment that may hold it",
            ));
        }
        if !seen.insert(*address) {
            return Err(refuse(object, format!("{address} is twice in shared"), "list it once"));
        }
    }
    Ok(())
}

/// Whether `prefix` may be behind somebody of `network`.
fn check_prefix(object: &str, prefix: IpCidr, network: &Network) -> Result<(), SetupError> {
    match prefix {
        IpCidr::Ipv4(prefix) => check_prefix4(object, prefix, network),
        IpCidr::Ipv6(prefix) => check_prefix6(object, prefix, network),
    }
}

fn check_prefix4(object: &str, prefix: Ipv4Cidr, network: &Network) -> Result<(), SetupError> {
    if prefix.network() != prefix {
        let reason = format!("prefix {prefix} has bits behind its length");
        return Err(refuse(object, reason, format!("did you mean {}?", prefix.network())));
    }
    let Some(own) = network.ipv4 else {
        let reason = format!("prefix {prefix} is IPv4, and network.{} has none", network.name);
        return Err(refuse(object, reason, "give the network an ipv4 prefix: its gateway is the way there"));
    };
    if let Some(nobodys) = NOBODYS.iter().find(|nobodys| nobodys.contains_subnet(&prefix)) {
        let reason = format!("prefix {prefix} lies in {nobodys}, which is never behind a router");
        return Err(refuse(object, reason, "choose a unicast prefix"));
    }
    if own.contains_subnet(&prefix) {
        let gateway = gateways(network).0;
        if gateway.is_some_and(|gateway| prefix.contains_addr(&gateway)) {
            let reason = format!("prefix {prefix} covers the gateway of network.{}", network.name);
            return Err(refuse(object, reason, "choose a part of the network without its gateway"));
        }
        if prefix.prefix_len() == 32 {
            let reason = format!("prefix {prefix} is one address of network.{}", network.name);
            return Err(refuse(object, reason, "list it under addresses"));
        }
    }
    Ok(())
}

fn check_prefix6(object: &str, prefix: Ipv6Cidr, network: &Network) -> Result<(), SetupError> {
    let within = |vnet: &Vnet| vnet.contains(prefix.address()) && prefix.prefix_len() > 96;
    let Some(vnet) = network.ipv6.filter(within) else {
        let reason = format!("prefix {prefix} is not inside the /96 of network.{}", network.name);
        return Err(refuse(
            object,
            reason,
            "an IPv6 address has an identifier only there: /97 to /127 of it",
        ));
    };
    if prefix.prefix_len() == 128 {
        let reason = format!("prefix {prefix} is one address");
        return Err(refuse(object, reason, "list it under addresses"));
    }
    let first = prefix.address().to_bits() & !(u128::MAX >> prefix.prefix_len());
    if first != prefix.address().to_bits() {
        let reason = format!("prefix {prefix} has bits behind its length");
        let remedy = format!("did you mean {}/{}?", Ipv6Addr::from_bits(first), prefix.prefix_len());
        return Err(refuse(object, reason, remedy));
    }
    if gateways(network).1.is_some_and(|gateway| prefix.contains_addr(&gateway)) {
        let reason = format!("prefix {prefix} covers the gateway of {vnet}");
        return Err(refuse(object, reason, "choose a part of the /96 without its gateway"));
    }
    Ok(())
}

/// Checks a prefix behind another host.
pub(super) fn check_route<'a>(
    route: &'a Route,
    setup: &Setup,
    networks: &HashMap<&str, &'a Network>,
    behind: &mut Behind<'a>,
) -> Result<(), SetupError> {
    let object = format!("mapping {} in {}", route.prefix, route.network);
    let Some(network) = networks.get(route.network.as_str()) else {
        let reason = format!("network {:?} is not defined", route.network);
        return Err(refuse(object, reason, format!("define [network.{}]", route.network)));
    };
    check_prefix(&object, route.prefix, network)?;
    check_locator(&object, route.locator, setup, networks)?;
    let key = (network.name.as_str(), route.prefix);
    // As for addresses: it repeats what an attachment says already.
    if setup.is_own_locator(route.locator) {
        return match behind.contains_key(&key) {
            true => Ok(()),
            false => Err(refuse(object, "it says the prefix is here, and no attachment has it", "add one")),
        };
    }
    if let Some(other) = behind.insert(key, object.clone()) {
        let reason = format!("prefix {} is already behind {other}", route.prefix);
        return Err(refuse(object, reason, ONE_WAY));
    }
    Ok(())
}
