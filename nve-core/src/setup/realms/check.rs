//! The checks of tasks, aliases and rules, against each other and against the networks.
//!
//! What must stay true: a task's address is of type 1 and has one holder; an alias is an address that nobody of its network has, and an
//! endpoint has one alias there, so that what goes out under it comes back under it; a rule is between two realms that exist.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::{HashMap, HashSet};

use smoltcp::wire::{IpCidr, Ipv4Cidr, Ipv6Cidr};

use super::{Alias, Aliased, Crossing, Protocol, Realm, Task};
use crate::addr::{Identifier, Kind, SirAddress, SirPrefix};
use crate::setup::check::{Held, SetupError, check_address, check_locator, gateways, refuse};
use crate::setup::domains::check_realms;
use crate::setup::further::{Behind, NOBODYS};
use crate::setup::{Network, Setup};

/// By name.
type Networks<'a> = HashMap<&'a str, &'a Network>;

/// Checks what realms add to `setup`; `held` and `behind` say who of each network has which addresses and prefixes.
pub(in crate::setup) fn check(
    setup: &Setup,
    networks: &Networks<'_>,
    held: &Held<'_>,
    behind: &Behind<'_>,
) -> Result<(), SetupError> {
    check_tasks(setup, networks)?;
    if let Some(prefix) = setup.fabric.iter().find(|prefix| has_bits_behind(prefix)) {
        let reason = format!("fabric {prefix} has bits behind its length");
        return Err(refuse("host", reason, format!("did you mean {}?", first_of(prefix))));
    }
    for network in &setup.networks {
        check_outside(network, setup)?;
    }
    check_aliases(setup, networks, held, behind)?;
    for crossing in &setup.crossings {
        check_crossing(crossing, setup, networks)?;
    }
    Ok(())
}

/// The identifier of a task's address.
pub(crate) fn task_identifier(sir: SirPrefix, address: Ipv6Addr) -> Option<Identifier> {
    let (upper, low) = ((address.to_bits() >> 64) as u64, address.to_bits() as u64);
    let identifier = Identifier::from_bits(low).ok().filter(|_| upper == sir.upper())?;
    matches!(identifier.kind(), Kind::Local(_)).then_some(identifier)
}

/// A task's address: its identifier, in the domain that its SIR prefix says.
pub(in crate::setup) fn task_name(setup: &Setup, address: Ipv6Addr) -> Option<SirAddress> {
    let domain = setup.domain_of_sir((address.to_bits() >> 64) as u64)?;
    Some(domain.sir.address(task_identifier(domain.sir, address)?))
}

fn refuse_task(object: &str, address: Ipv6Addr, setup: &Setup) -> SetupError {
    let domain = setup.domain_of_sir((address.to_bits() >> 64) as u64);
    let sir = domain.map_or(setup.host.sir, |domain| domain.sir);
    let why = match Identifier::from_bits(address.to_bits() as u64) {
        _ if domain.is_none() => format!("it is not under SIR prefix {sir}"),
        Ok(identifier) => {
            format!("its identifier has type {}, and tasks have type 1", identifier.type_number())
        }
        Err(error) => error.to_string(),
    };
    let reason = format!("{address} is no task's: {why}");
    // Type 1 and C = 0.
    let first = sir.prefix().to_bits() | 1 << 61;
    refuse(object, reason, format!("choose one of {}/68", Ipv6Addr::from_bits(first)))
}

fn check_tasks(setup: &Setup, networks: &Networks<'_>) -> Result<(), SetupError> {
    let mut names: HashSet<&str> = setup.attachments.iter().map(|a| a.name.as_str()).collect();
    let mut held: HashMap<Ipv6Addr, String> = HashMap::new();
    for Task { name, addresses } in &setup.tasks {
        let object = format!("attachment.{name}");
        if !names.insert(name) {
            return Err(refuse(object, "there are two of this name", "rename one"));
        }
        if addresses.is_empty() {
            return Err(refuse(object, "it has no addresses", "list at least one"));
        }
        for address in addresses {
            let Some(name) = task_name(setup, *address) else {
                return Err(refuse_task(&object, *address, setup));
            };
            if let Some(first) = addresses.first().and_then(|first| task_name(setup, *first))
                && first.prefix() != name.prefix()
            {
                let reason =
                    format!("{address} is under SIR prefix {}, and {} is not", name.prefix(), first.ipv6());
                return Err(refuse(object, reason, "a task is of one domain: make another for the other"));
            }
            if let Some(other) = held.insert(*address, object.clone()) {
                let reason = format!("{address} is already {other}'s");
                return Err(refuse(object, reason, "an address has one holder"));
            }
        }
    }
    let ports = setup.attachments.len() + setup.tasks.len();
    if ports > crate::pipeline::MAX_PORTS {
        let remedy = format!("one host serves up to {}", crate::pipeline::MAX_PORTS);
        return Err(refuse("host", format!("{ports} attachments"), remedy));
    }
    for mapping in &setup.task_mappings {
        let object = format!("mapping {}", mapping.address);
        if task_name(setup, mapping.address).is_none() {
            return Err(refuse_task(&object, mapping.address, setup));
        }
        check_locator(&object, mapping.locator, setup, networks)?;
        // As for tenants: it repeats what an attachment says already.
        match (setup.is_own_locator(mapping.locator), held.contains_key(&mapping.address)) {
            (true, true) => continue,
            (true, false) => {
                let reason = "it says the address is here, and no attachment has it";
                return Err(refuse(object, reason, "add one"));
            }
            (false, _) => {}
        }
        if let Some(other) = held.insert(mapping.address, object.clone()) {
            return Err(refuse(
                object,
                format!("the address is already {other}'s"),
                "an address has one holder",
            ));
        }
    }
    Ok(())
}

/// What a network says of the outside.
fn check_outside(network: &Network, setup: &Setup) -> Result<(), SetupError> {
    let object = format!("network.{}", network.name);
    if let Some(prefix) = network.outside_deny.iter().find(|prefix| has_bits_behind(prefix)) {
        let reason = format!("outside_deny {prefix} has bits behind its length");
        return Err(refuse(object, reason, format!("did you mean {}?", first_of(prefix))));
    }
    let Some(nat64) = network.nat64 else { return Ok(()) };
    let nat64 = Ipv6Cidr::new(nat64.address(), nat64.len());
    if network.ipv4.is_none() {
        return Err(refuse(object, "nat64 without ipv4", "add ipv4 or remove it"));
    }
    let domains = setup.domains().flat_map(|domain| [domain.locator.prefix(), domain.sir.prefix()]);
    let locators = setup.locators().map(|locator| locator.prefix());
    let own = locators.chain(domains).map(|prefix| Ipv6Cidr::new(prefix, 64));
    let vnets = setup.networks.iter().filter_map(|n| n.ipv6).map(|vnet| Ipv6Cidr::new(vnet.prefix(), 96));
    let fabric = setup.fabric.iter().copied();
    match own.chain(vnets).chain(fabric).find(|other| overlap(other, &nat64)) {
        Some(other) => {
            let reason = format!("nat64 {nat64} overlaps {other}, which is not outside");
            Err(refuse(object, reason, "name the prefix that the fabric routes to its NAT64"))
        }
        None => Ok(()),
    }
}

fn has_bits_behind(prefix: &Ipv6Cidr) -> bool {
    first_of(prefix) != *prefix
}

fn first_of(prefix: &Ipv6Cidr) -> Ipv6Cidr {
    let behind = u128::MAX.checked_shr(prefix.prefix_len().into()).unwrap_or(0);
    Ipv6Cidr::new(Ipv6Addr::from_bits(prefix.address().to_bits() & !behind), prefix.prefix_len())
}

fn overlap(a: &Ipv6Cidr, b: &Ipv6Cidr) -> bool {
    a.contains_addr(&b.address()) || b.contains_addr(&a.address())
}

fn overlap4(a: &Ipv4Cidr, b: &Ipv4Cidr) -> bool {
    a.contains_subnet(b) || b.contains_subnet(a)
}

fn check_aliases(
    setup: &Setup,
    networks: &Networks<'_>,
    held: &Held<'_>,
    behind: &Behind<'_>,
) -> Result<(), SetupError> {
    for (number, alias) in setup.aliases.iter().enumerate() {
        let object = alias.name();
        let Some(network) = networks.get(alias.network.as_str()) else {
            return Err(unknown_network(&object, &alias.network));
        };
        check_alias_address(&object, alias, network, held, behind)?;
        check_aliased(&object, alias, setup, networks)?;
        let earlier = setup.aliases.iter().take(number).filter(|other| other.network == alias.network);
        for other in earlier {
            if overlap4(&other.address, &alias.address) {
                let reason = format!("it overlaps {}", other.name());
                return Err(refuse(object, reason, "an address stands for one endpoint: remove one"));
            }
            if overlap_aliased(&other.of, &alias.of) {
                let reason = format!("{} stands for the same endpoint", other.name());
                return Err(refuse(object, reason, "an endpoint has one alias in a network: remove one"));
            }
        }
    }
    Ok(())
}

fn unknown_network(object: &str, name: &str) -> SetupError {
    let reason = format!("network {name:?} is not defined");
    refuse(object, reason, format!("define [network.{name}]"))
}

/// Whether nobody of `network` has the alias, or part of it.
fn check_alias_address(
    object: &str,
    alias: &Alias,
    network: &Network,
    held: &Held<'_>,
    behind: &Behind<'_>,
) -> Result<(), SetupError> {
    let address = alias.address;
    let say = |reason: String, remedy: &str| Err(refuse(object, reason, remedy));
    if address.network() != address {
        let remedy = format!("did you mean {}?", address.network());
        return say(format!("{address} has bits behind its length"), &remedy);
    }
    let Some(own) = network.ipv4 else {
        return say(format!("network.{} has no ipv4", network.name), "only IPv4 tenants need an alias");
    };
    if let Some(nobodys) = NOBODYS.iter().find(|nobodys| overlap4(nobodys, &address)) {
        return say(format!("it overlaps {nobodys}, where no host is"), "choose a unicast address");
    }
    let edges = [gateways(network).0, Some(own.network().address()), own.broadcast()];
    if let Some(edge) = edges.into_iter().flatten().find(|edge| address.contains_addr(edge)) {
        let reason =
            format!("{edge} is the gateway, network or broadcast address of network.{}", network.name);
        return say(reason, "choose another address");
    }
    let of_network = held.iter().filter(|((name, _), _)| *name == network.name);
    let mut tenants = of_network.filter_map(|((_, held), holder)| match held {
        IpAddr::V4(held) => Some((*held, holder)),
        IpAddr::V6(_) => None,
    });
    if let Some((tenant, holder)) = tenants.find(|(tenant, _)| address.contains_addr(tenant)) {
        return say(format!("{tenant} is {holder}'s"), "choose an address that nobody of the network has");
    }
    let mut prefixes = behind.iter().filter(|((name, _), _)| *name == network.name);
    let inside = prefixes.find(|((_, prefix), _)| match prefix {
        IpCidr::Ipv4(prefix) => address.contains_subnet(prefix),
        IpCidr::Ipv6(_) => false,
    });
    if let Some(((_, prefix), holder)) = inside {
        return say(format!("prefix {prefix} is behind {holder}"), "choose an address outside of it");
    }
    Ok(())
}

/// Whether there is somebody elsewhere for the alias to stand for.
fn check_aliased(
    object: &str,
    alias: &Alias,
    setup: &Setup,
    networks: &Networks<'_>,
) -> Result<(), SetupError> {
    let own = |of: &dyn core::fmt::Display, name: &str| {
        let reason = format!("{of} is of network.{name} itself");
        Err(refuse(object, reason, "tenants of one network call each other by their own addresses"))
    };
    let between = |of: Realm| check_realms(object, setup, &Realm::Network(alias.network.clone()), &of);
    match &alias.of {
        Aliased::Ipv6(of) => {
            if alias.address.prefix_len() != 32 {
                let reason = format!("a prefix cannot stand for {of}, which is one endpoint");
                return Err(refuse(object, reason, "write one address"));
            }
            if let Some(domain) = setup.domain_of_sir((of.to_bits() >> 64) as u64) {
                if task_name(setup, *of).is_none() {
                    return Err(refuse_task(object, *of, setup));
                }
                return between(Realm::Tasks(domain.name.map(str::to_owned)));
            }
            let holder = networks.values().find(|network| network.ipv6.is_some_and(|v| v.contains(*of)));
            match holder {
                Some(holder) if holder.name == alias.network => own(of, &holder.name),
                Some(holder) => {
                    between(Realm::Network(holder.name.clone()))?;
                    check_address(object, IpAddr::V6(*of), holder)
                }
                None => {
                    let reason = format!("{of} is neither a task's nor a tenant's");
                    let remedy =
                        "name an address of the SIR prefix or of a network's /96; the outside has nat64";
                    Err(refuse(object, reason, remedy))
                }
            }
        }
        Aliased::Ipv4 { network, prefix } => {
            let Some(other) = networks.get(network.as_str()) else {
                return Err(unknown_network(object, network));
            };
            if *network == alias.network {
                return own(prefix, network);
            }
            between(Realm::Network(network.clone()))?;
            if prefix.prefix_len() != alias.address.prefix_len() {
                let reason = format!("{prefix} has not as many addresses as the alias");
                return Err(refuse(object, reason, "write two prefixes of one length"));
            }
            if prefix.network() != *prefix {
                let reason = format!("{prefix} has bits behind its length");
                return Err(refuse(object, reason, format!("did you mean {}?", prefix.network())));
            }
            if prefix.prefix_len() == 32 {
                return check_address(object, IpAddr::V4(prefix.address()), other);
            }
            if other.ipv4.is_some_and(|ipv4| ipv4.contains_subnet(prefix)) {
                return Ok(());
            }
            let reason = format!("{prefix} is not inside the ipv4 of network.{network}");
            Err(refuse(object, reason, "write a part of it"))
        }
    }
}

fn overlap_aliased(a: &Aliased, b: &Aliased) -> bool {
    match (a, b) {
        (Aliased::Ipv6(a), Aliased::Ipv6(b)) => a == b,
        (Aliased::Ipv4 { network: a, prefix: p }, Aliased::Ipv4 { network: b, prefix: q }) => {
            a == b && overlap4(p, q)
        }
        _ => false,
    }
}

fn check_crossing(crossing: &Crossing, setup: &Setup, networks: &Networks<'_>) -> Result<(), SetupError> {
    let object = crossing.name.as_str();
    for realm in [&crossing.from, &crossing.to] {
        if let Realm::Network(name) = realm
            && !networks.contains_key(name.as_str())
        {
            return Err(unknown_network(object, name));
        }
        if let Realm::Tasks(Some(name)) = realm
            && setup.domain_named(Some(name)).is_none()
        {
            let reason = format!("domain {name:?} is not defined");
            return Err(refuse(object, reason, format!("define [domain.{name}] with sir and locator")));
        }
    }
    check_realms(object, setup, &crossing.from, &crossing.to)?;
    if crossing.from == crossing.to {
        let reason = format!("it is between {0} and {0}", crossing.from.name());
        let remedy = match crossing.from {
            Realm::Outside => "the fabric carries that without us: remove it",
            _ => "everything is allowed there already: remove it",
        };
        return Err(refuse(object, reason, remedy));
    }
    if !crossing.ports.is_empty() && !crossing.protocol.has_ports() {
        let name = Protocol::NAMED.iter().find(|(_, known)| *known == crossing.protocol);
        let reason = format!("protocol {:?} has no ports to tell apart", name.map_or("", |(name, _)| *name));
        return Err(refuse(object, reason, "write protocol = \"tcp\", \"udp\" or \"sctp\", or remove ports"));
    }
    if let Some(ports) = crossing.ports.iter().find(|ports| ports.is_empty() || *ports.start() == 0) {
        let reason = format!("{}-{} are no ports", ports.start(), ports.end());
        return Err(refuse(object, reason, "write FIRST-LAST, from 1 to 65535"));
    }
    let ends = [(&crossing.from, &crossing.from_addresses), (&crossing.to, &crossing.to_addresses)];
    for (realm, addresses) in ends {
        for address in addresses {
            check_narrowed(object, realm, address, setup, networks)?;
        }
    }
    Ok(())
}

/// Whether `address` is one of `realm`.
fn check_narrowed(
    object: &str,
    realm: &Realm,
    address: &IpCidr,
    setup: &Setup,
    networks: &Networks<'_>,
) -> Result<(), SetupError> {
    let say = |reason: String, remedy: &str| Err(refuse(object, reason, remedy));
    match (realm, address) {
        (Realm::Network(name), address) => {
            let Some(network) = networks.get(name.as_str()) else {
                return Err(unknown_network(object, name));
            };
            let inside = match address {
                IpCidr::Ipv4(prefix) => network.ipv4.is_some_and(|ipv4| ipv4.contains_subnet(prefix)),
                IpCidr::Ipv6(prefix) => {
                    prefix.prefix_len() >= 96 && network.ipv6.is_some_and(|v| v.contains(prefix.address()))
                }
            };
            match inside {
                true => Ok(()),
                false => say(
                    format!("{address} is not in network.{name}"),
                    "write addresses as its tenants have them",
                ),
            }
        }
        (Realm::Tasks(domain), IpCidr::Ipv6(prefix)) if prefix.prefix_len() == 128 => {
            match task_name(setup, prefix.address()) {
                Some(name)
                    if setup.domain_named(domain.as_deref()).map(|own| own.sir) == Some(name.prefix()) =>
                {
                    Ok(())
                }
                Some(_) => say(
                    format!("{} is of another domain than {}", prefix.address(), realm.name()),
                    "nothing passes between domains: remove it",
                ),
                None => Err(refuse_task(object, prefix.address(), setup)),
            }
        }
        (Realm::Tasks(_), address) => say(format!("{address} is no task's"), "write each task's own address"),
        (Realm::Outside, IpCidr::Ipv6(_)) => Ok(()),
        (Realm::Outside, IpCidr::Ipv4(prefix)) => {
            let example = Ipv6Addr::from_bits(0x0064_ff9b << 96 | u128::from(prefix.address().to_bits()));
            let remedy =
                format!("write what its NAT64 calls it, such as {example}/{}", 96 + prefix.prefix_len());
            say(format!("{prefix} is IPv4, which the fabric does not carry"), &remedy)
        }
    }
}
