//! What may pass between realms, and how endpoints elsewhere are called: `[service.X]`, `[[alias]]`, `[[crossing]]`, and a network's
//! `outside` keys.
//!
//! What must stay true: a service is nothing but rules that could be written as crossings; each rule has an
//! [`super::across::Item`], so that what nve-core says of it is brought back to its line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use nve_core::setup::{Alias, Aliased, Crossing, FurtherDomain, Protocol, Realm};
use smoltcp::wire::{IpCidr, Ipv4Cidr, Ipv6Cidr};

use super::raw::{RawAlias, RawCrossing, RawNetwork, RawService, Text};
use super::value::Judge;

/// A network's way to the outside, where it has one.
pub(super) fn outside(name: &str, raw: &RawNetwork) -> Option<Crossing> {
    raw.outside.unwrap_or(false).then(|| Crossing {
        name: format!("network.{name}"),
        replies: true,
        ..Crossing::between(Realm::of(name), Realm::Outside)
    })
}

/// The rules of `[service.NAME]`: from each network to the task, and answers back. The task's SIR prefix says in which domain.
pub(super) fn service(
    judge: &mut Judge<'_>,
    name: &str,
    raw: &RawService,
    further: &[FurtherDomain],
) -> Option<Vec<Crossing>> {
    let at = |key: &str| format!("service.{name}.{key}");
    let remedy = "write the SIR address of a task";
    let address = judge.parse::<Ipv6Addr>(&at("address"), &raw.address, remedy);
    if raw.from.get_ref().is_empty() {
        let what = format!("{}: a service for nobody", at("from"));
        judge.refuse(raw.from.span(), what, "name the networks that may use it".into());
    }
    if raw.ports.get_ref().is_empty() {
        let what = format!("{}: a service without ports", at("ports"));
        judge.refuse(raw.ports.span(), what, "write what it serves, such as [\"udp 53\", \"tcp 53\"]".into());
    }
    let served = raw.ports.get_ref().iter().map(|text| service_port(judge, &at("ports"), text));
    let served: Vec<Option<_>> = served.collect();
    let served: Vec<_> = served.into_iter().collect::<Option<_>>()?;
    let upper = (address?.to_bits() >> 64) as u64;
    let domain = further.iter().find(|domain| domain.sir.upper() == upper).map(|domain| domain.name.clone());
    let address = IpCidr::Ipv6(Ipv6Cidr::new(address?, 128));
    let rule = |from: &Text, protocol, ports| Crossing {
        name: format!("service.{name}"),
        protocol,
        ports,
        replies: true,
        to_addresses: vec![address],
        ..Crossing::between(Realm::of(from.get_ref()), Realm::Tasks(domain.clone()))
    };
    let rules = raw.from.get_ref().iter().flat_map(|from| {
        served.iter().map(move |(protocol, ports)| rule(from, *protocol, ports.clone().into_iter().collect()))
    });
    Some(rules.collect())
}

/// `PROTOCOL PORTS`, or `icmp` alone.
fn service_port(
    judge: &mut Judge<'_>,
    item: &str,
    text: &Text,
) -> Option<(Protocol, Option<RangeInclusive<u16>>)> {
    let written = text.get_ref();
    let (word, ports) = match written.split_once(' ') {
        Some((word, ports)) => (word, Some(ports.trim())),
        None => (written.as_str(), None),
    };
    let protocol = Protocol::NAMED.iter().find(|(name, _)| *name == word).map(|(_, protocol)| *protocol);
    let served = match (protocol, ports.map(parse_ports)) {
        (Some(protocol), Some(Some(ports))) if protocol.has_ports() => Some((protocol, Some(ports))),
        (Some(Protocol::Icmp), None) => Some((Protocol::Icmp, None)),
        _ => None,
    };
    if served.is_none() {
        let what = format!("{item}: \"{written}\" is nothing that can be served");
        let remedy = "write \"tcp PORT\", \"udp PORT\" or \"sctp PORT\", a PORT or FIRST-LAST, or \"icmp\"";
        judge.refuse(text.span(), what, remedy.into());
    }
    served
}

/// `PORT` or `FIRST-LAST`.
fn parse_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match text.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            (first <= last).then_some(first..=last)
        }
        None => port(text).map(|port| port..=port),
    }
}

/// `[[crossing]]`.
pub(super) fn crossing(judge: &mut Judge<'_>, raw: &RawCrossing) -> Option<Crossing> {
    let protocol = match &raw.protocol {
        Some(text) => judge.keyword("crossing.protocol", text, &Protocol::NAMED),
        None => Some(Protocol::default()),
    };
    let mut ports = Vec::new();
    for text in &raw.ports {
        let range = parse_ports(text.get_ref());
        if range.is_none() {
            let what = format!("crossing.ports: \"{}\" is neither a port nor a range", text.get_ref());
            judge.refuse(text.span(), what, "write \"443\" or \"8000-8080\", from 1 to 65535".into());
        }
        ports.push(range);
    }
    let from_addresses = addresses(judge, "crossing.from_addresses", &raw.from_addresses);
    let to_addresses = addresses(judge, "crossing.to_addresses", &raw.to_addresses);
    let between = Crossing::between(Realm::of(raw.from.get_ref()), Realm::of(raw.to.get_ref()));
    Some(Crossing {
        protocol: protocol?,
        ports: ports.into_iter().collect::<Option<_>>()?,
        replies: raw.replies.unwrap_or(false),
        from_addresses: from_addresses?,
        to_addresses: to_addresses?,
        ..between
    })
}

/// Addresses or prefixes.
fn addresses(judge: &mut Judge<'_>, item: &str, texts: &[Text]) -> Option<Vec<IpCidr>> {
    let parsed: Vec<Option<IpCidr>> = texts
        .iter()
        .map(|text| {
            let written = text.get_ref();
            let host = written.parse::<IpAddr>().map(|address| match address {
                IpAddr::V4(address) => IpCidr::Ipv4(Ipv4Cidr::new(address, 32)),
                IpAddr::V6(address) => IpCidr::Ipv6(Ipv6Cidr::new(address, 128)),
            });
            let cidr = host.ok().or_else(|| written.parse().ok());
            if cidr.is_none() {
                let what = format!("{item}: \"{written}\" is neither an address nor a prefix");
                judge.refuse(text.span(), what, "write ADDRESS or ADDRESS/LENGTH".into());
            }
            cidr
        })
        .collect();
    parsed.into_iter().collect()
}

/// `[[alias]]`.
pub(super) fn alias(judge: &mut Judge<'_>, raw: &RawAlias) -> Option<Alias> {
    let address = ipv4(judge, "alias.address", &raw.address);
    let of = match &raw.of_network {
        Some(network) => ipv4(judge, "alias.of", &raw.of)
            .map(|prefix| Aliased::Ipv4 { network: network.get_ref().clone(), prefix }),
        None => {
            let remedy =
                "write a task's SIR address or a tenant's IPv6 address; of IPv4 tenants, of_network too";
            judge.parse::<Ipv6Addr>("alias.of", &raw.of, remedy).map(Aliased::Ipv6)
        }
    };
    Some(Alias { network: raw.network.get_ref().clone(), address: address?, of: of? })
}

/// An IPv4 address or prefix.
fn ipv4(judge: &mut Judge<'_>, item: &str, text: &Text) -> Option<Ipv4Cidr> {
    let written = text.get_ref();
    let host = written.parse::<Ipv4Addr>().map(|address| Ipv4Cidr::new(address, 32));
    let cidr = host.ok().or_else(|| written.parse().ok());
    if cidr.is_none() {
        let what = format!("{item}: \"{written}\" is neither an IPv4 address nor a prefix");
        judge.refuse(text.span(), what, "write ADDRESS, such as 10.1.200.53, or ADDRESS/LENGTH".into());
    }
    cidr
}
