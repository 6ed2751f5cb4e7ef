//! What the uplink needs of its host, one function each (design, section 5, "The host").
//!
//! What must stay true: a verdict rests on facts alone; a remedy, pasted, makes its need met.

use std::net::Ipv6Addr;

use super::firewall;
use super::kernel::{Facts, Route, Ruleset};
use crate::config::{Config, GatewayConfig, UplinkConfig};

/// Routing tables of the kernel.
const MAIN: u32 = 254;
/// The table that a remedy makes for packets out of the TUN.
const REMEDY_TABLE: u32 = 100;
/// The same for packets from outside.
const GATEWAY_TABLE: u32 = 101;
/// Priority of the rule that looks up the main table.
const MAIN_PRIORITY: u32 = 32766;

/// One need and whether it is met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) need: String,
    pub(super) verdict: Verdict,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Met,
    /// What was found instead, and commands to paste.
    Unmet {
        found: String,
        remedy: Vec<String>,
    },
    /// It could not be found out; what to do if it is not met.
    Unknown {
        why: String,
        remedy: Vec<String>,
    },
}

/// What the config says of this host's place.
pub(super) struct Site {
    tun: String,
    mtu: u16,
    /// This host's, in each SIR domain.
    locators: Vec<Ipv6Addr>,
    /// SIR prefixes and VNETs: prefix, length.
    routed: Vec<(Ipv6Addr, u8)>,
    gateway: Option<GatewayConfig>,
}

impl Site {
    /// `None` where there is no uplink that goes by the kernel.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let UplinkConfig::Tun { name, mtu } = &config.uplink else { return None };
        let setup = config.setup.setup();
        let vnets = setup.networks.iter().filter_map(|network| network.ipv6);
        Some(Self {
            tun: name.clone(),
            mtu: *mtu,
            locators: setup.domains().map(|domain| domain.locator.prefix()).collect(),
            routed: setup
                .domains()
                .map(|domain| (domain.sir.prefix(), 64))
                .chain(vnets.map(|vnet| (vnet.prefix(), 96)))
                .collect(),
            gateway: config.gateway.clone(),
        })
    }
}

/// A host's own address under `locator`.
fn control_address_of(locator: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(locator.to_bits() | 1)
}

/// Judges every need, in the order in which remedies are best applied.
pub(super) fn verify(site: &Site, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![tun(site, facts), forwarding(site, facts)];
    findings.extend(advertisements(facts));
    for locator in site.locators.iter().copied() {
        findings.extend([
            locator_to_tun(site, locator, facts),
            locator_not_on_link(site, locator, facts),
            control_address(locator, facts),
        ]);
    }
    findings.extend(site.routed.iter().map(|prefix| routed_to_tun(site, facts, *prefix)));
    if let Some(gateway) = &site.gateway {
        findings.push(tun_is_up("the gateway's TUN", &gateway.tun, site.mtu, facts));
        findings.push(from_outside(site, gateway, facts));
    }
    findings.extend([rule(site, facts), conntrack(site, facts), reverse_path(site, facts)]);
    findings
}

fn finding(need: impl Into<String>, found: Option<String>, remedy: Vec<String>) -> Finding {
    let verdict = found.map_or(Verdict::Met, |found| Verdict::Unmet { found, remedy });
    Finding { need: need.into(), verdict }
}

fn tun(Site { tun, mtu, .. }: &Site, facts: &Facts) -> Finding {
    tun_is_up("the TUN", tun, *mtu, facts)
}

fn tun_is_up(what: &str, tun: &str, mtu: u16, facts: &Facts) -> Finding {
    let up = format!("ip link set dev {tun} mtu {mtu} up");
    let (found, remedy) = match facts.links.iter().find(|link| link.name == tun) {
        None => {
            let make = format!("ip tuntap add dev {tun} mode tun vnet_hdr");
            (Some("there is none; the daemon makes it, or".to_owned()), vec![make, up])
        }
        Some(link) if !link.up => (Some("it is down".to_owned()), vec![up]),
        Some(link) if link.mtu != u32::from(mtu) => (Some(format!("its MTU is {}", link.mtu)), vec![up]),
        Some(_) => (None, Vec::new()),
    };
    finding(format!("{what} {tun} is up with an MTU of {mtu}"), found, remedy)
}

/// What comes in from outside for the SIR prefix and the VNETs goes by the gateway's TUN, which the daemon takes to be from outside. Elsewhere
/// the main table leads it to the uplink's, as if the fabric had sent it.
fn from_outside(site: &Site, gateway: &GatewayConfig, facts: &Facts) -> Finding {
    let need = format!("what comes from outside is routed to {}", gateway.tun);
    let Some(outside) = &gateway.interface else {
        let why = "gateway.interface does not say which interface faces outside".into();
        return Finding { need, verdict: Verdict::Unknown { why, remedy: Vec::new() } };
    };
    let rules = facts.rules.iter().filter(|rule| rule.incoming.as_ref() == Some(outside));
    let rule = rules.filter(|rule| rule.priority < MAIN_PRIORITY).min_by_key(|rule| rule.priority);
    let table = rule.map_or(GATEWAY_TABLE, |rule| rule.table);
    let (mut found, mut remedy) = (Vec::new(), Vec::new());
    if rule.is_none() {
        found.push(format!("there is no rule `iif {outside}`"));
        remedy.push(format!("ip -6 rule add iif {outside} lookup {table} pref {table}"));
    }
    // Locators too: the daemon drops by name what nobody outside has any business with.
    let locators = site.locators.iter().map(|locator| (*locator, 64));
    for (prefix, length) in site.routed.iter().copied().chain(locators) {
        let route = longest(facts, table, prefix, length);
        if route.is_none_or(|route| route.link.as_ref() != Some(&gateway.tun)) {
            if rule.is_some() {
                found.push(format!("table {table} does not lead {prefix}/{length} to it"));
            }
            remedy.push(format!("ip -6 route replace {prefix}/{length} dev {} table {table}", gateway.tun));
        }
    }
    let found = (!found.is_empty()).then(|| found.join("; "));
    finding(need, found, remedy)
}

fn forwarding(site: &Site, facts: &Facts) -> Finding {
    let tun = facts.links.iter().find(|link| link.name == site.tun);
    let key = match tun {
        _ if !facts.forwarding => Some("all"),
        Some(link) if !link.forwarding => Some(site.tun.as_str()),
        _ => None,
    };
    let remedy = key.map(|key| format!("sysctl -w net/ipv6/conf/{key}/forwarding=1"));
    finding("IPv6 forwarding is on", key.map(|key| format!("it is off for {key}")), Vec::from_iter(remedy))
}

/// Forwarding turns off what is learnt from router advertisements, unless accept_ra is 2.
fn advertisements(facts: &Facts) -> Option<Finding> {
    let learns = |name: &str| {
        facts.routes.iter().any(|route| route.learnt && route.link.as_deref() == Some(name))
            || facts.addresses.iter().any(|address| address.learnt && address.link == name)
    };
    let learning: Vec<_> = facts.links.iter().filter(|link| learns(&link.name)).collect();
    if learning.is_empty() {
        return None;
    }
    // Zero: somebody else than the kernel listens to advertisements, and keeps on.
    let deaf: Vec<_> =
        learning.iter().filter(|link| link.accept_ra == 1).map(|link| link.name.as_str()).collect();
    let found = (!deaf.is_empty()).then(|| format!("accept_ra is 1 on {}", deaf.join(", ")));
    let remedy = deaf.iter().map(|name| format!("sysctl -w net/ipv6/conf/{name}/accept_ra=2"));
    Some(finding("what is learnt from routers stays while forwarding is on", found, remedy.collect()))
}

fn locator_to_tun(site: &Site, locator: Ipv6Addr, facts: &Facts) -> Finding {
    let prefix = format!("{locator}/64");
    let exact = |route: &&Route| route.table == MAIN && route.prefix == locator && route.length == 64;
    let to_tun = facts.routes.iter().filter(exact).any(|route| route.link.as_ref() == Some(&site.tun));
    let found = (!to_tun).then(|| leads_to(facts, MAIN, locator, 64));
    let remedy = vec![format!("ip -6 route replace {prefix} dev {}", site.tun)];
    finding(format!("the locator {prefix} is routed to the TUN"), found, remedy)
}

/// On-link, or an address of the kernel's own choosing in it, would take identifiers for neighbours.
fn locator_not_on_link(site: &Site, locator: Ipv6Addr, facts: &Facts) -> Finding {
    let inside = |address: Ipv6Addr| address.to_bits() >> 64 == locator.to_bits() >> 64;
    let strangers = facts.addresses.iter().filter(|address| {
        let ours =
            address.address == control_address_of(locator) && address.link == "lo" && address.length == 128;
        inside(address.address) && !ours
    });
    let (mut found, mut remedy) = (Vec::new(), Vec::new());
    for address in strangers {
        found.push(format!("{}/{} is on {}", address.address, address.length, address.link));
        if address.learnt {
            remedy.push(format!("sysctl -w net/ipv6/conf/{}/autoconf=0", address.link));
        }
        remedy.push(format!("ip -6 addr del {}/{} dev {}", address.address, address.length, address.link));
    }
    let on_link = facts.routes.iter().filter(|route| {
        route.table == MAIN && route.prefix == locator && route.length == 64 && route.gateway.is_none()
    });
    // The route that came with an address goes with it.
    let by_address = |link: &String| facts.addresses.iter().any(|a| a.link == *link && inside(a.address));
    let links = on_link.filter_map(|route| route.link.as_ref());
    for link in links.filter(|link| **link != site.tun && !by_address(link)) {
        found.push(format!("it is on-link on {link}"));
        remedy.push(format!("ip -6 route del {locator}/64 dev {link}"));
    }
    let found = (!found.is_empty()).then(|| found.join("; "));
    finding("the locator is on no link, and no interface takes an address from it", found, remedy)
}

fn control_address(locator: Ipv6Addr, facts: &Facts) -> Finding {
    let address = control_address_of(locator);
    let there = facts.addresses.iter().any(|a| a.address == address && a.link == "lo");
    let up = facts.links.iter().any(|link| link.name == "lo" && link.up);
    let mut remedy = Vec::new();
    if !up {
        remedy.push("ip link set dev lo up".to_owned());
    }
    if !there {
        remedy.push(format!("ip -6 addr add {address}/128 dev lo"));
    }
    let found = match (up, there) {
        (true, true) => None,
        (false, _) => Some("lo is down".to_owned()),
        (true, false) => Some("it is not there".to_owned()),
    };
    finding(format!("the host's own {address} is on lo"), found, remedy)
}

fn routed_to_tun(site: &Site, facts: &Facts, (prefix, length): (Ipv6Addr, u8)) -> Finding {
    let route = longest(facts, MAIN, prefix, length);
    let to_tun = route.is_some_and(|route| route.link.as_ref() == Some(&site.tun));
    let found = (!to_tun).then(|| leads_to(facts, MAIN, prefix, length));
    let remedy = vec![format!("ip -6 route replace {prefix}/{length} dev {}", site.tun)];
    let what = if length == 64 { "the SIR prefix" } else { "the VNET" };
    finding(format!("{what} {prefix}/{length} is routed to the TUN"), found, remedy)
}

/// What comes out of the TUN looks up another table, or what the NVE sends to a router would come back to it.
fn rule(site: &Site, facts: &Facts) -> Finding {
    let need = "what comes out of the TUN is not routed back into it";
    let rules = facts.rules.iter().filter(|rule| rule.incoming.as_ref() == Some(&site.tun));
    let rule = rules.filter(|rule| rule.priority < MAIN_PRIORITY).min_by_key(|rule| rule.priority);
    let table = rule.map_or(REMEDY_TABLE, |rule| rule.table);
    let mut found = Vec::new();
    let mut remedy = Vec::new();
    if rule.is_none() {
        found.push(format!("there is no rule `iif {}`", site.tun));
        remedy.push(format!("ip -6 rule add iif {} lookup {table} pref {table}", site.tun));
    }
    for (prefix, length) in &site.routed {
        match longest(facts, table, *prefix, *length) {
            Some(route) if route.link.as_ref() == Some(&site.tun) => {
                found.push(format!("table {table} leads {prefix}/{length} into it"));
                remedy.push(format!("ip -6 route del {}/{} table {table}", route.prefix, route.length));
            }
            Some(_) => {}
            // The lookup would go on to the main table.
            None if rule.is_some() => found.push(format!("table {table} has no way for {prefix}/{length}")),
            None => {}
        }
    }
    if !found.is_empty() && longest(facts, table, Ipv6Addr::UNSPECIFIED, 0).is_none() {
        remedy.push(default_route(facts, table));
    }
    let found = (!found.is_empty()).then(|| found.join("; "));
    finding(need, found, remedy)
}

/// The main table's default route again, in `table`.
fn default_route(facts: &Facts, table: u32) -> String {
    let default =
        facts.routes.iter().find(|route| route.table == MAIN && route.length == 0 && route.link.is_some());
    match default {
        Some(Route { gateway: Some(gateway), link: Some(link), .. }) => {
            format!("ip -6 route replace default via {gateway} dev {link} table {table}")
        }
        Some(Route { link: Some(link), .. }) => {
            format!("ip -6 route replace default dev {link} table {table}")
        }
        // Without a way to a router, nothing for one may loop meanwhile.
        _ => format!("ip -6 route replace unreachable default table {table}"),
    }
}

/// A SYN and its SYN-ACK look unrelated on the wire: tracked, the second would be invalid.
fn conntrack(site: &Site, facts: &Facts) -> Finding {
    let need = "connections of the TUN and the locator are not tracked".to_owned();
    let prefixes: Vec<_> = site.routed.iter().map(|(prefix, length)| format!("{prefix}/{length}")).collect();
    let locators: Vec<_> = site.locators.iter().map(|locator| format!("{locator}/64")).collect();
    let remedy = vec![
        "nft add table ip6 vhost_ila".to_owned(),
        "nft add chain ip6 vhost_ila prerouting '{ type filter hook prerouting priority raw; }'".to_owned(),
        format!("nft add rule ip6 vhost_ila prerouting iifname {} notrack", site.tun),
        format!(
            "nft add rule ip6 vhost_ila prerouting ip6 daddr '{{ {}, {} }}' notrack",
            locators.join(", "),
            prefixes.join(", ")
        ),
    ];
    let verdict = match &facts.ruleset {
        _ if !facts.conntrack => Verdict::Met,
        Ruleset::Text(text) => {
            let interface = format!("iifname \"{}\"", site.tun);
            let exempt = firewall::exempts(text, &[&interface])
                && locators.iter().all(|locator| firewall::exempts(text, &["ip6 daddr", locator]));
            if exempt || !firewall::tracks(text) {
                Verdict::Met
            } else {
                Verdict::Unmet { found: "the firewall's rules track connections".into(), remedy }
            }
        }
        Ruleset::Unreadable(why) => Verdict::Unknown { why: why.clone(), remedy },
        Ruleset::NoCommand => {
            Verdict::Unknown { why: "there is no nft command to list rules".into(), remedy }
        }
    };
    Finding { need, verdict }
}

/// Sources in SIR and VNETs arrive from the fabric, while the routes to them lead to the TUN.
fn reverse_path(site: &Site, facts: &Facts) -> Finding {
    let need = "no reverse-path filter drops SIR and VNET sources".to_owned();
    let prefixes: Vec<_> = site.routed.iter().map(|(prefix, length)| format!("{prefix}/{length}")).collect();
    let verdict = match &facts.ruleset {
        Ruleset::Text(text) => {
            let filter = prefixes.iter().find_map(|prefix| firewall::filters_reverse_path(text, prefix));
            match filter {
                None => Verdict::Met,
                Some(firewall::Chain { table, chain }) => Verdict::Unmet {
                    found: format!("chain {chain} of table {table} filters them"),
                    remedy: vec![format!(
                        "nft insert rule {table} {chain} ip6 saddr '{{ {} }}' accept",
                        prefixes.join(", ")
                    )],
                },
            }
        }
        Ruleset::Unreadable(why) => Verdict::Unknown { why: why.clone(), remedy: Vec::new() },
        Ruleset::NoCommand => {
            Verdict::Unknown { why: "there is no nft command to list rules".into(), remedy: Vec::new() }
        }
    };
    Finding { need, verdict }
}

/// The route of `table` that a packet to anywhere in the prefix takes, if it is one for all of it.
fn longest(facts: &Facts, table: u32, prefix: Ipv6Addr, length: u8) -> Option<&Route> {
    let covers = |route: &&Route| {
        let shift = 128 - u32::from(route.length);
        let upper = |address: Ipv6Addr| address.to_bits().checked_shr(shift).unwrap_or(0);
        route.table == table && route.length <= length && upper(route.prefix) == upper(prefix)
    };
    facts.routes.iter().filter(covers).max_by_key(|route| route.length)
}

fn leads_to(facts: &Facts, table: u32, prefix: Ipv6Addr, length: u8) -> String {
    match longest(facts, table, prefix, length) {
        None => "there is no route".to_owned(),
        Some(Route { link: Some(link), .. }) => format!("it leads to {link}"),
        Some(_) => "it is unreachable".to_owned(),
    }
}
