//! The SIR domains of a setup, and whose each locator is (docs/decisions/0016).
//!
//! What must stay true: a SIR prefix, and a locator, of this host or of another, is of one domain; no prefix is SIR prefix here and locator
//! there. So a receiver knows by the locator alone what reverses C, and nothing is in two domains.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashMap;

use super::check::{SetupError, refuse};
use super::{BulkHost, Listener, Mapping, Realm, Route, Setup, Several, Task, TaskMapping};
use crate::addr::{DomainId, Locator, SirPrefix};

/// An identifier space beside the host's own.
#[derive(Clone, Debug)]
pub struct FurtherDomain {
    /// Name in config; unique on the host.
    pub name: String,
    /// Its SIR prefix.
    pub sir: SirPrefix,
    /// The /64 of this host in it, routed to the same uplink.
    pub locator: Locator,
}

/// Any domain of a setup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Domain<'a> {
    /// `None`: the host's own.
    pub name: Option<&'a str>,
    /// Its SIR prefix.
    pub sir: SirPrefix,
    /// This host's locator in it.
    pub locator: Locator,
}

impl Domain<'_> {
    /// As refusals call it.
    fn object(&self) -> String {
        self.name.map_or_else(|| "host".to_owned(), |name| format!("domain.{name}"))
    }
}

/// As refusals say whose something is.
fn called(name: Option<&str>) -> String {
    name.map_or_else(|| "the host's own domain".to_owned(), |name| format!("domain {name:?}"))
}

impl Setup {
    /// All domains, the host's own first.
    pub fn domains(&self) -> impl Iterator<Item = Domain<'_>> {
        let own = Domain { name: None, sir: self.host.sir, locator: self.host.locator };
        let further = self.further_domains.iter();
        let further = further.map(|f| Domain { name: Some(&f.name), sir: f.sir, locator: f.locator });
        core::iter::once(own).chain(further)
    }
    /// The domain of this name; `None`: the host's own.
    pub(crate) fn domain_named(&self, name: Option<&str>) -> Option<Domain<'_>> {
        self.domains().find(|domain| domain.name == name)
    }
    /// The domain whose SIR prefix has these upper 64 bits.
    pub(crate) fn domain_of_sir(&self, upper: u64) -> Option<Domain<'_>> {
        self.domains().find(|domain| domain.sir.upper() == upper)
    }
    /// The domain that `address` is in by its SIR prefix, a locator that the setup names, or its network; else the host's own.
    pub fn domain_of_address(&self, address: Ipv6Addr) -> Domain<'_> {
        let upper = (address.to_bits() >> 64) as u64;
        let own =
            self.domains().find(|domain| domain.sir.upper() == upper || domain.locator.upper() == upper);
        let named = || {
            let (_, name) = self.named_locators().find(|(locator, _)| locator.upper() == upper)?;
            self.domain_named(name)
        };
        let network = || {
            let mut networks = self.networks.iter();
            let network = networks.find(|network| network.ipv6.is_some_and(|vnet| vnet.contains(address)))?;
            self.domain_named(network.sir_domain.as_deref())
        };
        let host = Domain { name: None, sir: self.host.sir, locator: self.host.locator };
        own.or_else(network).or_else(named).unwrap_or(host)
    }
    /// The realm of a task.
    pub fn realm_of(&self, task: &Task) -> Realm {
        let upper = task.addresses.first().map(|address| (address.to_bits() >> 64) as u64);
        let domain = upper.and_then(|upper| self.domain_of_sir(upper));
        Realm::Tasks(domain.and_then(|domain| domain.name).map(str::to_owned))
    }
    /// Whether it is a locator of this host.
    pub(crate) fn is_own_locator(&self, locator: Locator) -> bool {
        self.domains().any(|domain| domain.locator == locator)
    }
    /// The domain of the network of this name.
    fn domain_of(&self, network: &str) -> Option<Option<&str>> {
        let network = self.networks.iter().find(|known| known.name == network)?;
        Some(network.sir_domain.as_deref())
    }

    /// The hosts that mappings, routes and listeners name, and the domain that each of them is about, by name. Of what names no network, and
    /// no domain, that exists: none.
    pub(crate) fn named_locators(&self) -> impl Iterator<Item = (Locator, Option<&str>)> {
        let networks = self.networks.iter();
        let networks: HashMap<&str, Option<&str>> =
            networks.map(|network| (network.name.as_str(), network.sir_domain.as_deref())).collect();
        self.said_locators().filter_map(move |(locator, by)| {
            let domain = match by.network() {
                Ok(network) => *networks.get(network)?,
                Err(task) => self.domain_of_sir((task.to_bits() >> 64) as u64)?.name,
            };
            Some((locator, domain))
        })
    }

    fn said_locators(&self) -> impl Iterator<Item = (Locator, Sayer<'_>)> {
        let mappings = self.mappings.iter().map(|mapping| (mapping.locator, Sayer::Mapping(mapping)));
        let several = self.several.iter().flat_map(|several| {
            several.locators.iter().map(move |locator| (*locator, Sayer::Several(several)))
        });
        let routes = self.routes.iter().map(|route| (route.locator, Sayer::Route(route)));
        let tasks = self.task_mappings.iter().map(|mapping| (mapping.locator, Sayer::Task(mapping)));
        let listeners = self.listeners.iter().map(|listener| (listener.locator, Sayer::Listener(listener)));
        let bulk = self.bulk.hosts().iter().map(|host| (host.locator, Sayer::Bulk(host)));
        mappings.chain(several).chain(routes).chain(tasks).chain(listeners).chain(bulk)
    }
}

/// What names a locator.
enum Sayer<'a> {
    Mapping(&'a Mapping),
    Several(&'a Several),
    Route(&'a Route),
    Task(&'a TaskMapping),
    Listener(&'a Listener),
    Bulk(&'a BulkHost),
}

impl<'a> Sayer<'a> {
    /// The network it is about, or the task.
    fn network(&self) -> Result<&'a str, Ipv6Addr> {
        match self {
            Self::Mapping(mapping) => Ok(&mapping.network),
            Self::Several(several) => match (&several.network, several.address) {
                (Some(network), _) => Ok(network),
                (None, IpAddr::V6(task)) => Err(task),
                (None, IpAddr::V4(_)) => Err(Ipv6Addr::UNSPECIFIED),
            },
            Self::Route(route) => Ok(&route.network),
            Self::Task(mapping) => Err(mapping.address),
            Self::Listener(listener) => Ok(&listener.network),
            Self::Bulk(host) => Ok(&host.network),
        }
    }
    /// As refusals call it.
    fn object(&self) -> String {
        match self {
            Self::Mapping(mapping) => format!("mapping {} in {}", mapping.address, mapping.network),
            Self::Several(several) => several.object(),
            Self::Route(route) => format!("mapping {} in {}", route.prefix, route.network),
            Self::Task(mapping) => format!("mapping {}", mapping.address),
            Self::Listener(listener) => format!("listener {} in {}", listener.group, listener.network),
            Self::Bulk(host) => format!("the file of mappings, in {}", host.network),
        }
    }
}

/// Checks the domains of `setup` by themselves.
pub(super) fn check(setup: &Setup) -> Result<(), SetupError> {
    let most = DomainId::ALL.len();
    if setup.domains().count() > most {
        let reason = format!("there are {} with the host's own", setup.domains().count());
        return Err(refuse("domain", reason, format!("a host serves {most} at most")));
    }
    let mut names = std::collections::HashSet::new();
    for (number, domain) in setup.domains().enumerate() {
        let object = domain.object();
        if !names.insert(domain.name) {
            return Err(refuse(object, "there are two of this name", "rename one"));
        }
        if domain.locator.upper() == domain.sir.upper() {
            let reason = format!("locator and sir are both {}", domain.sir);
            return Err(refuse(object, reason, "give the domain a SIR prefix that is no host's locator"));
        }
        for earlier in setup.domains().take(number) {
            let other = called(earlier.name);
            if earlier.sir == domain.sir {
                let reason = format!("sir {} is already that of {other}", domain.sir);
                return Err(refuse(object, reason, "a SIR prefix is one domain: give this one its own"));
            }
            if earlier.locator == domain.locator {
                let reason =
                    format!("locator {} would have two SIR prefixes: it is that of {other}", domain.locator);
                let remedy =
                    "give this host a locator for each domain: C is reversed by the locator it came to";
                return Err(refuse(object, reason, remedy));
            }
            if earlier.sir.upper() == domain.locator.upper() {
                let reason = format!("its locator {} is the SIR prefix of {other}", domain.locator);
                return Err(refuse(object, reason, "a prefix is SIR prefix or locator, never both"));
            }
            if earlier.locator.upper() == domain.sir.upper() {
                let reason = format!("sir {} is this host's locator in {other}", domain.sir);
                return Err(refuse(object, reason, "a prefix is SIR prefix or locator, never both"));
            }
        }
    }
    for network in &setup.networks {
        check_network(setup, network)?;
    }
    Ok(())
}

fn check_network(setup: &Setup, network: &super::Network) -> Result<(), SetupError> {
    let object = format!("network.{}", network.name);
    if let Some(name) = &network.sir_domain
        && setup.domain_named(Some(name)).is_none()
    {
        let reason = format!("sir_domain {name:?} is not defined");
        return Err(refuse(object, reason, format!("define [domain.{name}] with sir and locator")));
    }
    if let Some(name) = &network.domain
        && setup.domain_named(Some(name)).is_some()
        && network.sir_domain.as_deref() != Some(name)
    {
        // A network that were in another domain than its operator means would be a leak.
        let reason = format!(
            "domain {name:?} is the name that DHCP tells its tenants, and [domain.{name}] a SIR domain"
        );
        return Err(refuse(
            object,
            reason,
            format!("write sir_domain = {name:?}, or another name for either"),
        ));
    }
    Ok(())
}

/// Checks that no locator is of two domains.
pub(super) fn check_locators(setup: &Setup) -> Result<(), SetupError> {
    if setup.further_domains.is_empty() {
        return Ok(());
    }
    let mut known: HashMap<Locator, Option<&str>> =
        setup.domains().map(|domain| (domain.locator, domain.name)).collect();
    for (locator, domain) in setup.named_locators() {
        let other = *known.entry(locator).or_insert(domain);
        if other != domain {
            // Whoever says it of the one domain, and whoever, or what of this host, says it of the other.
            let sayers = |of: Option<&str>| {
                let said = setup.said_locators().zip(setup.named_locators());
                let mut said = said.filter(move |((said, _), (_, domain))| *said == locator && *domain == of);
                said.next().map(|((_, by), _)| by.object())
            };
            let own = || setup.domain_named(other).map_or_else(String::new, |domain| domain.object());
            let (object, by) = (sayers(domain).unwrap_or_default(), sayers(other).unwrap_or_else(own));
            return Err(two_prefixes(&object, locator, domain, (other, &by)));
        }
    }
    Ok(())
}

/// Whether `locator` is of no other domain than that of `sir`, by what `setup` says.
pub(super) fn judge_locator(
    object: &str,
    setup: &Setup,
    sir: SirPrefix,
    locator: Locator,
) -> Result<(), SetupError> {
    let domain = setup.domain_of_sir(sir.upper()).and_then(|domain| domain.name);
    let own = setup.domains().map(|domain| (domain.locator, domain.name));
    match own.chain(setup.named_locators()).find(|(known, other)| *known == locator && *other != domain) {
        Some((_, other)) => Err(two_prefixes(object, locator, domain, (other, "the configuration"))),
        None => Ok(()),
    }
}

/// A receiver could not reverse C.
fn two_prefixes(
    object: &str,
    locator: Locator,
    domain: Option<&str>,
    (other, by): (Option<&str>, &str),
) -> SetupError {
    let (domain, other) = (called(domain), called(other));
    let reason = format!(
        "its locator {locator} would have two SIR prefixes: it is of {domain}, and {by} says {other}"
    );
    refuse(object, reason, "a host has a locator for each domain: tell the one that it has in this")
}

/// Checks that two realms that something is to pass between are of one domain; `setup` has both.
pub(super) fn check_realms(
    object: &str,
    setup: &Setup,
    one: &Realm,
    other: &Realm,
) -> Result<(), SetupError> {
    let domain_of = |realm: &Realm| match realm {
        Realm::Network(name) => setup.domain_of(name).map(|domain| domain.map(str::to_owned)),
        Realm::Tasks(domain) => Some(domain.clone()),
        Realm::Outside => None,
    };
    match (domain_of(one), domain_of(other)) {
        (Some(here), Some(there)) if here != there => {
            let (here, there) = (called(here.as_deref()), called(there.as_deref()));
            let reason = format!("{} is of {here}, and {} of {there}", one.name(), other.name());
            Err(refuse(object, reason, "nothing passes between domains: remove it"))
        }
        _ => Ok(()),
    }
}
