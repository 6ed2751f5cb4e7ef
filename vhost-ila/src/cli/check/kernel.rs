//! What this host's kernel has, in this network namespace. Reads only.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

/// Everything the needs are judged by.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
    pub(super) rules: Vec<Rule>,
    /// net.ipv6.conf.all.forwarding
    pub(super) forwarding: bool,
    /// The conntrack module is loaded.
    pub(super) conntrack: bool,
    pub(super) ruleset: Ruleset,
}

/// A network interface.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) mtu: u32,
    /// net.ipv6.conf.NAME.accept_ra
    pub(super) accept_ra: u32,
    /// net.ipv6.conf.NAME.forwarding
    pub(super) forwarding: bool,
}

/// An IPv6 address of an interface.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) link: String,
    pub(super) address: Ipv6Addr,
    pub(super) length: u8,
    /// It came from a router advertisement and will expire.
    pub(super) learnt: bool,
}

/// An IPv6 route.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) table: u32,
    pub(super) prefix: Ipv6Addr,
    pub(super) length: u8,
    /// `None` for unreachable and the like.
    pub(super) link: Option<String>,
    pub(super) gateway: Option<Ipv6Addr>,
    /// It came from a router advertisement.
    pub(super) learnt: bool,
}

/// A routing rule that looks up a table.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) priority: u32,
    pub(super) incoming: Option<String>,
    pub(super) table: u32,
}

/// What nft lists.
#[derive(Clone, Debug, Default)]
pub(super) enum Ruleset {
    /// Its text; empty where there is no rule.
    Text(String),
    /// It could not be listed.
    Unreadable(String),
    /// There is no nft command.
    #[default]
    NoCommand,
}

/// Asks the kernel.
///
/// # Errors
/// Netlink does not answer.
pub(super) fn facts() -> Result<Facts> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(netlink()).context("the kernel does not tell its routes")
}

async fn netlink() -> Result<Facts> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    let names = links(&handle).await?;
    let link = |index: u32| names.get(&index).map(|link| link.name.clone());
    let mut addresses = Vec::new();
    let mut messages = handle.address().get().execute();
    while let Some(message) = messages.try_next().await? {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(IpAddr::V6(address)) => Some(*address),
            _ => None,
        });
        if let (Some(address), Some(link)) = (address, link(message.header.index)) {
            let learnt = !message.header.flags.contains(AddressHeaderFlags::Permanent);
            addresses.push(Address { link, address, length: message.header.prefix_len, learnt });
        }
    }
    let wanted = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let routes: Vec<_> = handle.route().get(wanted).execute().try_collect().await?;
    let rules: Vec<_> = handle.rule().get(IpVersion::V6).execute().try_collect().await?;
    let routes = routes.iter().filter_map(|message| route(message, &link)).collect();
    let rules = rules.iter().filter_map(rule).collect();
    Ok(Facts {
        links: names.values().cloned().collect(),
        addresses,
        routes,
        rules,
        forwarding: setting("net/ipv6/conf/all/forwarding") == Some(1),
        conntrack: setting("net/netfilter/nf_conntrack_max").is_some(),
        ruleset: ruleset(),
    })
}

async fn links(handle: &Handle) -> Result<BTreeMap<u32, Link>> {
    let mut links = BTreeMap::new();
    let mut messages = handle.link().get().execute();
    while let Some(message) = messages.try_next().await? {
        let up = message.header.flags.contains(LinkFlags::Up);
        let mut link = Link { up, ..Link::default() };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                _ => {}
            }
        }
        let of_link = |key: &str| setting(&format!("net/ipv6/conf/{}/{key}", link.name));
        (link.accept_ra, link.forwarding) =
            (of_link("accept_ra").unwrap_or(0), of_link("forwarding") == Some(1));
        links.insert(message.header.index, link);
    }
    Ok(links)
}

fn route(message: &RouteMessage, link: &impl Fn(u32) -> Option<String>) -> Option<Route> {
    if message.header.address_family != AddressFamily::Inet6 {
        return None;
    }
    let unicast = message.header.kind == RouteType::Unicast;
    let (mut index, mut gateway, mut prefix) = (None, None, Ipv6Addr::UNSPECIFIED);
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::MultiPath(hops) => index = index.or(hops.first().map(|hop| hop.interface_index)),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => gateway = Some(*address),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => prefix = *address,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    Some(Route {
        table,
        prefix,
        length: message.header.destination_prefix_length,
        link: index.filter(|_| unicast).and_then(link),
        gateway,
        learnt: message.header.protocol == RouteProtocol::Ra,
    })
}

fn rule(message: &RuleMessage) -> Option<Rule> {
    if message.header.action != RuleAction::ToTable {
        return None;
    }
    let mut rule = Rule { priority: 0, incoming: None, table: u32::from(message.header.table) };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Iifname(name) => rule.incoming = Some(name.clone()),
            RuleAttribute::Table(number) => rule.table = *number,
            // It holds for some packets only; this check knows none of those conditions.
            RuleAttribute::Source(_) | RuleAttribute::Destination(_) | RuleAttribute::FwMark(_) => {
                return None;
            }
            _ => {}
        }
    }
    Some(rule)
}

fn setting(key: &str) -> Option<u32> {
    std::fs::read_to_string(Path::new("/proc/sys").join(key)).ok()?.trim().parse().ok()
}

fn ruleset() -> Ruleset {
    match Command::new("nft").args(["list", "ruleset"]).output() {
        Ok(output) if output.status.success() => {
            Ruleset::Text(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Ruleset::Unreadable(said.lines().next().unwrap_or("nft fails").trim().to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ruleset::NoCommand,
        Err(error) => Ruleset::Unreadable(error.to_string()),
    }
}
