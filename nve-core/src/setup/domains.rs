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
    /// The domain that `address` is in by its SIR prefix, a locator that the setup names, or its network; where there is but one, that.
    pub fn domain_of_address(&self, address: Ipv6Addr) -> Option<Domain<'_>> {
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
        let only = || self.domains().next().filter(|_| self.further_domains.is_empty());
        own.or_else(network).or_else(named).or_else(only)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Vnid;
    use crate::setup::tests::good;
    use crate::setup::{Alias, Aliased, Crossing, Network};

    fn lab(number: u8) -> FurtherDomain {
        FurtherDomain {
            name: format!("lab{number}"),
            sir: format!("2001:db8:5a{number}::/64").parse().unwrap(),
            locator: format!("2001:db8:{number}:1::/64").parse().unwrap(),
        }
    }

    /// The good setup and a domain lab1 with a network of the first's VNI, a task of it here and one elsewhere.
    fn two() -> Setup {
        let mut setup = good();
        setup.further_domains = vec![lab(1)];
        setup.networks.push(Network {
            sir_domain: Some("lab1".into()),
            ipv4: Some("10.1.0.0/16".parse().unwrap()),
            ..Network::named("bench", Vnid::new(1001).unwrap())
        });
        setup.tasks.push(Task { name: "web".into(), addresses: vec![task("5a1", 1)] });
        setup
            .task_mappings
            .push(TaskMapping { address: task("5a1", 2), locator: prefix("2001:db8:1:2::/64") });
        let address = "10.1.0.2".parse().unwrap();
        setup.mappings.push(Mapping {
            network: "bench".into(),
            address,
            locator: prefix("2001:db8:1:2::/64"),
        });
        setup
    }

    fn task(domain: &str, last: u8) -> Ipv6Addr {
        format!("2001:db8:{domain}:0:2000::{last}").parse().unwrap()
    }
    fn prefix(text: &str) -> Locator {
        text.parse().unwrap()
    }

    #[test]
    fn two_domains_may_use_one_vni_and_the_same_identifiers() {
        let mut setup = two();
        setup.tasks.push(Task { name: "own".into(), addresses: vec![task("51", 1)] });
        setup.further_domains.extend([lab(2), lab(3)]);
        let all: Vec<_> = setup.check().unwrap().residences().iter().map(|said| said.identifier).collect();
        let of = |sir: &str| all.iter().filter(|name| name.prefix() == sir.parse().unwrap()).count();
        assert!(of("2001:db8:51::/64") > 2 && of("2001:db8:5a1::/64") == 3, "{all:?}");
    }

    /// What is done to the good setup of two domains, the object blamed, and a word of the reason.
    type Spoil = (fn(&mut Setup), &'static str, &'static str);

    #[test]
    fn what_two_domains_would_share_is_refused_by_name() {
        let spoils: [Spoil; 19] = [
            (|s| s.further_domains.extend([lab(2), lab(3), lab(4)]), "domain", "there are 5"),
            (
                |s| s.further_domains.push(FurtherDomain { name: "lab1".into(), ..lab(2) }),
                "domain.lab1",
                "two of",
            ),
            (
                |s| s.further_domains[0].sir = s.host.sir,
                "domain.lab1",
                "already that of the host's own domain",
            ),
            (|s| s.further_domains[0].locator = s.host.locator, "domain.lab1", "would have two SIR prefixes"),
            (|s| s.further_domains[0].locator = prefix("2001:db8:5a1::/64"), "domain.lab1", "are both"),
            (
                |s| s.further_domains[0].locator = prefix("2001:db8:51::/64"),
                "domain.lab1",
                "is the SIR prefix of",
            ),
            (|s| s.host.locator = prefix("2001:db8:5a1::/64"), "domain.lab1", "is this host's locator in"),
            (|s| s.networks[0].sir_domain = Some("lab9".into()), "network.blue", "\"lab9\" is not defined"),
            (|s| s.networks[0].domain = Some("lab1".into()), "network.blue", "a SIR domain"),
            (
                |s| s.networks[1].ipv6 = Some("2001:db8:5a1::/96".parse().unwrap()),
                "network.red",
                "in a locator or SIR prefix",
            ),
            (|s| s.networks[1].vnid = s.networks[0].vnid, "network.red", "already network.blue's"),
            // Mappings: one host's locator in two domains, the SIR prefix of another one.
            (
                |s| s.mappings[2].locator = prefix("2001:db8:0:2::/64"),
                "mapping 10.1.0.2 in bench",
                "would have two SIR prefixes",
            ),
            (
                |s| s.task_mappings[0].locator = prefix("2001:db8:0:2::/64"),
                "mapping 2001:db8:5a1:0:2000::2",
                "would have two SIR prefixes",
            ),
            (
                |s| s.mappings[0].locator = prefix("2001:db8:5a1::/64"),
                "mapping 10.1.0.2 in blue",
                "the SIR prefix of domain \"lab1\"",
            ),
            (|s| s.tasks[0].addresses.push(task("51", 1)), "attachment.web", "is under SIR prefix"),
            (|s| s.tasks[0].addresses = vec![task("5a9", 1)], "attachment.web", "not under SIR prefix"),
            // Nothing passes.
            (
                |s| s.crossings.push(Crossing::between(Realm::of("blue"), Realm::of("bench"))),
                "crossing from blue to bench",
                "is of the host's own domain, and bench of domain \"lab1\"",
            ),
            (
                |s| s.crossings.push(Crossing::between(Realm::of("bench"), Realm::of("tasks"))),
                "crossing from bench to tasks",
                "and tasks of the host's own domain",
            ),
            (
                |s| s.crossings.push(Crossing::between(Realm::of("blue"), Realm::of("tasks@lab9"))),
                "crossing from blue to tasks@lab9",
                "\"lab9\" is not defined",
            ),
        ];
        for (spoil, object, why) in spoils {
            let mut setup = two();
            assert!(setup.clone().check().is_ok(), "control");
            spoil(&mut setup);
            let refused = setup.check().expect_err(why);
            assert!(refused.object == object && refused.reason.contains(why), "{why}: {refused}");
        }
    }

    #[test]
    fn an_alias_is_of_somebody_of_its_own_domain() {
        let alias = |of: Aliased| {
            let mut setup = two();
            setup.aliases.push(Alias {
                network: "blue".into(),
                address: "10.1.200.1/32".parse().unwrap(),
                of,
            });
            setup.check().map(drop).map_err(|error| error.reason)
        };
        assert_eq!(alias(Aliased::Ipv6(task("51", 7))), Ok(()), "control");
        assert!(alias(Aliased::Ipv6(task("5a1", 1))).unwrap_err().contains("of domain \"lab1\""));
        let prefix = "10.1.0.7/32".parse().unwrap();
        let of_bench = Aliased::Ipv4 { network: "bench".into(), prefix };
        assert!(alias(of_bench).unwrap_err().contains("of domain \"lab1\""));
    }

    #[test]
    fn an_address_says_its_domain() {
        let setup = two();
        let of = |address: &str| setup.domain_of_address(address.parse().unwrap()).map(|domain| domain.name);
        assert_eq!(of("2001:db8:5a1::1"), Some(Some("lab1")));
        assert_eq!(of("2001:db8:1:1::1"), Some(Some("lab1")), "this host's locator in it");
        assert_eq!(of("2001:db8:1:2::1"), Some(Some("lab1")), "another host's");
        assert_eq!((of("2001:db8:51::1"), of("2001:db8:0:2::1")), (Some(None), Some(None)));
        let stranger = "2001:db8:99::1";
        assert_eq!(of(stranger), None, "any");
        let one = good().domain_of_address(stranger.parse().unwrap()).map(|domain| domain.sir);
        assert_eq!(one, Some(good().host.sir), "there is no other");
    }
}
