//! Mappings by the million, in one compact list.
//!
//! What must stay true: a list is made by a [`BulkReader`] that knows the setup's networks, and whole or not at all; it has each identifier
//! once, in order, 12 bytes each; what the setup's other objects say of the same addresses is checked with the setup
//! ([`Setup::check`]). It is shared, not copied: a setup that is cloned has the same list.
//!
//! ```text
//!   lines ──> BulkReader::add, each judged ──> finish: sorted, each once ──> Bulk ──> Setup::check ──> Nve::apply: one store each
//! ```

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::check::{
    Held, SetupError, check_address, check_host, check_locator, check_networks, is_here, nobody_here, refuse,
    taken,
};
use super::{Network, Setup, domains};
use crate::addr::{Domain, Key, Kind, Locator};
use crate::policy::numbered;

/// A host, and a network of which it has somebody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BulkHost {
    /// Name of the network.
    pub network: String,
    /// The host.
    pub locator: Locator,
}

/// Identifiers by the million, and where each lives. Tenants' addresses only; mostly of other hosts.
#[derive(Clone, Default)]
pub struct Bulk(Option<Arc<List>>);

struct List {
    hosts: Vec<BulkHost>,
    /// Sorted by key: its upper half, its lower half, and the place in `hosts`.
    entries: Vec<[u32; 3]>,
}

impl fmt::Debug for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulk").field("len", &self.len()).finish_non_exhaustive()
    }
}

fn key_of([upper, lower, _]: [u32; 3]) -> Option<Key> {
    Key::from_bits(u64::from(upper) << 32 | u64::from(lower))
}

impl Bulk {
    /// Of nobody.
    pub const NONE: Self = Self(None);

    fn entries(&self) -> &[[u32; 3]] {
        self.0.as_ref().map_or(&[], |list| &list.entries)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether there is no list, not even one of nobody.
    pub const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// The hosts it names, of each network those that have somebody in it.
    pub fn hosts(&self) -> &[BulkHost] {
        self.0.as_ref().map_or(&[], |list| &list.hosts)
    }

    /// The place in [`Bulk::hosts`] of the one that has `key`.
    pub fn host_of(&self, key: Key) -> Option<usize> {
        let bits = key.bits();
        let wanted = [(bits >> 32) as u32, bits as u32];
        let at = self.entries().binary_search_by(|[upper, lower, _]| [*upper, *lower].cmp(&wanted)).ok()?;
        self.entries().get(at).map(|entry| entry[2] as usize)
    }

    /// One that it has from `first` to `last`, both included.
    fn first_in(&self, first: Key, last: Key) -> Option<Key> {
        let before = |entry: &[u32; 3]| (u64::from(entry[0]) << 32 | u64::from(entry[1])) < first.bits();
        let at = self.entries().partition_point(before);
        let found = self.entries().get(at).copied().and_then(key_of)?;
        (found.bits() <= last.bits()).then_some(found)
    }

    /// Every key, with the place of its host in [`Bulk::hosts`].
    pub fn iter(&self) -> impl Iterator<Item = (Key, usize)> {
        self.entries().iter().filter_map(|entry| Some((key_of(*entry)?, entry[2] as usize)))
    }
}

/// Two lines of a list say where an address lives.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("mapping {address} in {network}: it is there twice")]
pub struct Twice {
    /// Name of the network.
    pub network: String,
    /// The address.
    pub address: IpAddr,
}

/// Takes the lines of a list, for the networks of one setup.
#[derive(Debug)]
pub struct BulkReader<'a> {
    setup: &'a Setup,
    networks: HashMap<&'a str, &'a Network>,
    /// The network of the last line: most have their neighbours'.
    last: Option<(&'a Network, Domain)>,
    places: HashMap<(u32, u64), u32>,
    hosts: Vec<BulkHost>,
    entries: Vec<[u32; 3]>,
}

impl<'a> BulkReader<'a> {
    /// Of a setup whose host, domains and networks are known; `lines` is a guess how many there will be.
    ///
    /// # Errors
    /// One of those does not fit, so that a line about it could not be judged.
    pub fn new(setup: &'a Setup, lines: usize) -> Result<Self, SetupError> {
        check_host(&setup.host)?;
        domains::check(setup)?;
        check_networks(setup)?;
        let networks = setup.networks.iter().map(|network| (network.name.as_str(), network)).collect();
        let (places, hosts, entries) = (HashMap::new(), Vec::new(), Vec::with_capacity(lines));
        Ok(Self { setup, networks, last: None, places, hosts, entries })
    }

    /// `address` in `network` lives at the host `locator`.
    ///
    /// # Errors
    /// There is no such network, nobody of it could have that address, or it is no host's locator.
    pub fn add(&mut self, network: &str, address: IpAddr, locator: Locator) -> Result<(), SetupError> {
        let object = || object(address, network);
        let (known, domain) = match self.last.filter(|(last, _)| last.name == network) {
            Some(last) => last,
            None => {
                let known = self.networks.get(network).copied();
                let known = known.and_then(|known| Some((known, domain_of(self.setup, known)?)));
                known.ok_or_else(|| {
                    let remedy = format!("define [network.{network}], or name one that is");
                    refuse(object(), format!("network {network:?} is not defined"), remedy)
                })?
            }
        };
        self.last = Some((known, domain));
        let named = |error| SetupError { object: object(), ..error };
        check_address("", address, known).map_err(named)?;
        let key = known.identifier(address).and_then(|identifier| domain.key(identifier));
        let key = key.ok_or_else(|| refuse(object(), "it has no identifier", "choose another"))?;
        let number = numbered(domain.id(), known.vnid);
        let next = self.hosts.len() as u32;
        let place = match self.places.get(&(number, locator.upper())) {
            Some(place) => *place,
            None => {
                check_locator("", locator, self.setup, &self.networks).map_err(named)?;
                self.places.insert((number, locator.upper()), next);
                self.hosts.push(BulkHost { network: network.to_owned(), locator });
                next
            }
        };
        let bits = key.bits();
        self.entries.push([(bits >> 32) as u32, bits as u32, place]);
        Ok(())
    }

    /// The list.
    ///
    /// # Errors
    /// [`Twice`], whichever address is the first of those.
    pub fn finish(mut self) -> Result<Bulk, Twice> {
        self.entries.sort_unstable();
        self.entries.shrink_to_fit();
        let same = |pair: &&[[u32; 3]]| matches!(pair, [one, other] if one[..2] == other[..2]);
        if let Some([entry, _]) = self.entries.windows(2).find(same) {
            let host = self.hosts.get(entry[2] as usize);
            let network = host.map_or_else(String::new, |host| host.network.clone());
            let address = key_of(*entry).and_then(|id| address_of(self.networks.get(&*network)?, id));
            return Err(Twice { network, address: address.unwrap_or(NOWHERE) });
        }
        Ok(Bulk(Some(Arc::new(List { hosts: self.hosts, entries: self.entries }))))
    }
}

fn address_of(network: &Network, key: Key) -> Option<IpAddr> {
    match key.kind() {
        Kind::Ipv4(_, address) => Some(address.into()),
        Kind::Ipv6(_, low) => Some(network.ipv6?.address(low).into()),
        _ => None,
    }
}

/// Checks the list of `setup` against its other objects; `held` says which addresses have a holder by those.
pub(super) fn check(
    setup: &Setup,
    networks: &HashMap<&str, &Network>,
    held: &Held<'_>,
) -> Result<(), SetupError> {
    let bulk = &setup.bulk;
    if bulk.is_empty() {
        return Ok(());
    }
    let is_own =
        |place: usize| bulk.hosts().get(place).is_some_and(|host| setup.is_own_locator(host.locator));
    let several = setup
        .several
        .iter()
        .filter_map(|several| Some(((several.network.as_deref()?, several.address), several.object())));
    let mut here = HashSet::new();
    for ((name, address), holder) in held.iter().map(|(at, holder)| (*at, holder.clone())).chain(several) {
        let key = networks
            .get(name)
            .and_then(|network| domain_of(setup, network)?.key(network.identifier(address)?));
        let Some(key) = key else { continue };
        let Some(place) = bulk.host_of(key) else { continue };
        // As a mapping of its own: it repeats what an attachment says already.
        if !is_own(place) || !is_here(&holder) {
            return Err(taken(object(address, name), &holder));
        }
        here.insert(key);
    }
    for alias in &setup.aliases {
        let Some(network) = networks.get(alias.network.as_str()) else { continue };
        let Some(domain) = domain_of(setup, network) else { continue };
        let first = alias.address.network().address().to_bits();
        let last = first | u32::MAX.checked_shr(alias.address.prefix_len().into()).unwrap_or(0);
        let keys = domain.keys_of_ipv4(network.vnid);
        let [first, last] = [first, last].map(|bits| keys.of(bits));
        if let Some(address) = bulk.first_in(first, last).and_then(|id| address_of(network, id)) {
            return Err(taken(object(address, &network.name), &alias.name()));
        }
    }
    if !bulk.hosts().iter().any(|host| setup.is_own_locator(host.locator)) {
        return Ok(());
    }
    let Some((key, place)) = bulk.iter().find(|(id, place)| is_own(*place) && !here.contains(id)) else {
        return Ok(());
    };
    let network = bulk.hosts().get(place).map_or("", |host| host.network.as_str());
    let address = networks.get(network).and_then(|network| address_of(network, key));
    Err(nobody_here(object(address.unwrap_or(NOWHERE), network)))
}

fn domain_of(setup: &Setup, network: &Network) -> Option<Domain> {
    setup.numbered_domain(network.sir_domain.as_deref())
}

/// Of an address that cannot be told.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn object(address: IpAddr, network: &str) -> String {
    format!("mapping {address} in {network}")
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::pipeline::{Learned, MappingLine, Nve, Source};
    use crate::setup::Mapping;
    use crate::setup::tests::good;

    fn list(lines: &[(&str, &str, &str)]) -> Result<Setup, String> {
        list_of(good(), lines)
    }

    fn list_of(setup: Setup, lines: &[(&str, &str, &str)]) -> Result<Setup, String> {
        let mut reader = BulkReader::new(&setup, 1).map_err(|error| error.to_string())?;
        for (network, address, locator) in lines {
            let (address, locator) = (address.parse().unwrap(), locator.parse().unwrap());
            reader.add(network, address, locator).map_err(|error| error.to_string())?;
        }
        let bulk = reader.finish().map_err(|error| error.to_string())?;
        let setup = Setup { bulk, ..setup };
        setup.check().map(|checked| checked.setup().clone()).map_err(|error| error.to_string())
    }

    const THERE: &str = "2001:db8:0:7::/64";

    #[test]
    fn a_list_says_where_each_of_its_addresses_lives() {
        let setup =
            list(&[("blue", "10.1.0.9", THERE), ("red", "2001:db8:b1:e:0:1:0:9", "2001:db8:0:8::/64")]);
        let bulk = setup.unwrap().bulk;
        let at = |bits| bulk.host_of(Key::from_bits(bits).unwrap()).map(|place| &bulk.hosts()[place]);
        let host = |network: &str, locator: &str| BulkHost {
            network: network.into(),
            locator: locator.parse().unwrap(),
        };
        assert_eq!(at(0x4000_03e9_0a01_0009), Some(&host("blue", THERE)));
        assert_eq!(at(0x6000_03ea_0000_0009), Some(&host("red", "2001:db8:0:8::/64")));
        assert_eq!((at(0x4000_03e9_0a01_0008), bulk.len(), bulk.iter().count()), (None, 2, 2));
    }

    #[test]
    fn what_a_list_says_is_in_force_until_another_is() {
        let nve = Nve::new(list(&[("blue", "10.1.0.9", THERE)]).unwrap().check().unwrap(), 100);
        let lives = |last: u64| {
            let residence = nve.residence(Key::from_bits(0x4000_03e9_0a01_0000 | last).unwrap());
            residence.map(|residence| residence.locator.to_string())
        };
        let apply = |lines: &[(&str, &str, &str)]| nve.apply(list(lines).unwrap().check().unwrap());
        assert_eq!((lives(9).as_deref(), lives(2).is_some()), (Some(THERE), true), "beside the mappings");
        apply(&[("blue", "10.1.0.9", "2001:db8:0:8::/64"), ("blue", "10.1.0.10", THERE)]).unwrap();
        assert_eq!((lives(9).as_deref(), lives(10).as_deref()), (Some("2001:db8:0:8::/64"), Some(THERE)));
        let bulk = list(&[("blue", "10.1.0.9", THERE)]).unwrap().bulk;
        let both = |line: &MappingLine| [9, 10].contains(&(line.identifier.bits() & 0xff));
        assert_eq!(nve.mappings().iter().filter(|line| both(line)).count(), 2);
        assert_eq!(nve.mappings_beside(&bulk).iter().filter(|line| both(line)).count(), 1);
        apply(&[]).unwrap();
        assert_eq!((lives(9), lives(10), lives(2).is_some()), (None, None, true));
    }

    /// What is learned stands before it, and when that ends the list counts again.
    #[test]
    fn what_is_learned_is_laid_over_a_list() {
        let line = [("blue", "10.1.0.9", THERE)];
        let nve = Nve::new(list(&line).unwrap().check().unwrap(), 100);
        let key = Key::from_bits(0x4000_03e9_0a01_0009).unwrap();
        let lives = || nve.residence(key).map(|residence| residence.locator.to_string());
        let learned = Learned { source: Source::Registered, epoch: 7, since: Duration::ZERO, until: None };
        nve.learn(key, "2001:db8:0:9::/64".parse().unwrap(), learned).unwrap();
        for reload in 0..2 {
            assert_eq!(lives().as_deref(), Some("2001:db8:0:9::/64"), "{reload}");
            nve.apply(list(&line).unwrap().check().unwrap()).unwrap();
        }
        assert!(nve.forget(key));
        assert_eq!(lives().as_deref(), Some(THERE));
    }

    /// A mapping in the configuration and a line of the list say the same, and are judged alike.
    #[test]
    fn a_line_may_repeat_who_shares_an_address_here() {
        let shared = || {
            let mut setup = good();
            setup.attachments[0].shared = vec!["10.1.0.50".parse().unwrap()];
            setup
        };
        for (locator, refused) in [("2001:db8:0:1::/64", None), (THERE, Some("shared by attachment.vm1"))] {
            let mapping = Mapping {
                network: "blue".into(),
                address: "10.1.0.50".parse().unwrap(),
                locator: locator.parse().unwrap(),
            };
            let mut one = shared();
            one.mappings.push(mapping);
            let one = one.check().err().map(|error| error.to_string());
            let line = list_of(shared(), &[("blue", "10.1.0.50", locator)]).err();
            assert_eq!(one, line);
            assert_eq!(line.is_some(), refused.is_some(), "{line:?}");
            assert!(line.is_none_or(|line| line.contains(refused.unwrap_or_default())));
        }
    }

    #[test]
    fn a_domain_that_is_not_defined_is_the_networks_fault_and_no_lines() {
        let mut setup = good();
        setup.networks[0].sir_domain = Some("lab9".into());
        let refused = list_of(setup, &[("blue", "10.1.0.9", THERE)]).unwrap_err();
        assert!(refused.starts_with("network.blue: sir_domain \"lab9\" is not defined"), "{refused}");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (line, why) in [
            (("green", "10.1.0.9", THERE), "not defined"),
            (("blue", "192.0.2.1", THERE), "no free address"),
            (("blue", "10.1.255.254", THERE), "no free address"),
            (("blue", "10.1.0.9", "2001:db8:51::/64"), "SIR prefix"),
            (("blue", "10.1.0.1", THERE), "already attachment.vm1's"),
            (("blue", "10.1.0.2", THERE), "already mapping 10.1.0.2 in blue's"),
            (("blue", "10.1.0.9", "2001:db8:0:1::/64"), "no attachment has it"),
        ] {
            let refused = list(&[line]).expect_err(why);
            assert!(refused.contains(why) && refused.contains(line.1), "{line:?}: {refused}");
        }
        let twice = list(&[("blue", "10.1.0.9", THERE), ("blue", "10.1.0.9", "2001:db8:0:8::/64")]);
        assert!(twice.unwrap_err().contains("mapping 10.1.0.9 in blue: it is there twice"));
        assert!(list(&[("blue", "10.1.0.1", "2001:db8:0:1::/64")]).is_ok(), "it repeats what vm1 says");
    }
}
