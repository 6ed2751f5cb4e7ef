//! Which identifiers a setup speaks of, and where it says they live: what a registry is compared with (draft, section 4.7).
//!
//! What must stay true: an address that has no identifier a single endpoint could hold is refused with the reason, never guessed.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashMap;

use super::check::{check_address, check_locator, refuse};
use super::domains;
use super::realms::task_name;
use super::{CheckedSetup, Network, Setup, SetupError};
use crate::addr::{Identifier, IdentifierError, Kind, Locator, SirAddress};

/// An identifier that a setup gives to somebody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// Who, in which domain.
    pub identifier: SirAddress,
    /// The host that has it: this one, for those of attachments.
    pub locator: Locator,
    /// What says so, as refusals name it: `attachment.NAME` or `mapping ADDRESS in NAME`.
    pub object: String,
}

impl CheckedSetup {
    /// Every identifier that the setup gives to somebody, and where.
    pub fn residences(&self) -> Vec<Said> {
        let setup = self.setup();
        let networks: HashMap<&str, &Network> = setup.networks.iter().map(|n| (n.name.as_str(), n)).collect();
        let of = |network: &str, address: IpAddr| identifier_of(setup, networks.get(network)?, address).ok();
        let here_in = |network: &str| {
            let network = networks.get(network)?;
            setup.domain_named(network.sir_domain.as_deref()).map(|domain| domain.locator)
        };
        // One that waits has nothing yet: it is where a mapping says, if one does.
        let here = setup.attachments.iter().filter(|attachment| !setup.moves.waits(&attachment.name));
        let own = here.flat_map(|attachment| {
            let addresses = attachment.addresses.iter().chain(&attachment.shared);
            let object = format!("attachment.{}", attachment.name);
            let locator = here_in(&attachment.network).unwrap_or(setup.host.locator);
            addresses.map(move |address| (of(&attachment.network, *address), locator, object.clone()))
        });
        let others = setup.mappings.iter().filter(|mapping| !setup.is_own_locator(mapping.locator));
        let others = others.map(|mapping| {
            let object = format!("mapping {} in {}", mapping.address, mapping.network);
            (of(&mapping.network, mapping.address), mapping.locator, object)
        });
        let task = |address: &Ipv6Addr| task_name(setup, *address);
        let own_tasks = setup.tasks.iter().flat_map(|own| {
            let object = format!("attachment.{}", own.name);
            own.addresses.iter().filter_map(move |address| {
                let name = task(address)?;
                let domain = setup.domain_of_sir(name.prefix().upper())?;
                Some((Some(name), domain.locator, object.clone()))
            })
        });
        let tasks = setup.task_mappings.iter().filter(|mapping| !setup.is_own_locator(mapping.locator));
        let tasks = tasks
            .map(|mapping| (task(&mapping.address), mapping.locator, format!("mapping {}", mapping.address)));
        let several = setup.several.iter().flat_map(|several| {
            let others = several.locators.iter().filter(|locator| !setup.is_own_locator(**locator));
            others.map(|locator| (several.name(setup), *locator, several.object()))
        });
        let all = own.chain(others).chain(own_tasks).chain(tasks).chain(several);
        all.filter_map(|(identifier, locator, object)| {
            Some(Said { identifier: identifier?, locator, object })
        })
        .collect()
    }

    /// The host that has `name` by [`Setup::bulk`].
    pub fn listed(&self, name: SirAddress) -> Option<Locator> {
        let setup = self.setup();
        let key = setup.domain_called(name.ipv6())?.key(name.identifier())?;
        setup.bulk.hosts().get(setup.bulk.host_of(key)?).map(|host| host.locator)
    }

    /// What `name` is called: its network's name and address there, or its SIR address.
    pub fn named(&self, name: SirAddress) -> (Option<&str>, IpAddr) {
        let (setup, identifier) = (self.setup(), name.identifier());
        let domain = setup.domain_of_sir(name.prefix().upper());
        let is_it = |network: &&Network| {
            Some(network.vnid) == identifier.vnid()
                && domain.is_some_and(|domain| domain.name == network.sir_domain.as_deref())
        };
        let network = setup.networks.iter().find(is_it);
        let vnet = network.and_then(|network| network.ipv6);
        let network = network.map(|network| network.name.as_str());
        match (identifier.kind(), vnet) {
            (Kind::Ipv4(_, address), _) if network.is_some() => (network, address.into()),
            (Kind::Ipv6(_, low), Some(vnet)) => (network, vnet.address(low).into()),
            _ => (None, name.ipv6().into()),
        }
    }

    /// The identifier of `address` in `network`, or, without one, of a task's `SIR:T`; `object` is what messages call it.
    ///
    /// # Errors
    /// Nobody could have that address: why, and what to write.
    pub fn identifier(
        &self,
        object: &str,
        network: Option<&str>,
        address: IpAddr,
    ) -> Result<SirAddress, SetupError> {
        identifier(self.setup(), object, network, address)
    }

    /// Whether `locator` can be a host's that has `name`; `object` is what messages call the mapping.
    ///
    /// # Errors
    /// It is a SIR prefix, contains tenants, or is of another domain.
    pub fn judge_locator(&self, object: &str, name: SirAddress, locator: Locator) -> Result<(), SetupError> {
        let setup = self.setup();
        let networks = setup.networks.iter().map(|network| (network.name.as_str(), network)).collect();
        check_locator(object, locator, setup, &networks)?;
        domains::judge_locator(object, setup, name.prefix(), locator)
    }
}

/// As [`CheckedSetup::identifier`], of a setup that is being checked.
pub(super) fn identifier(
    setup: &Setup,
    object: &str,
    network: Option<&str>,
    address: IpAddr,
) -> Result<SirAddress, SetupError> {
    let Some(name) = network else { return task(object, setup, address) };
    let Some(network) = setup.networks.iter().find(|network| network.name == name) else {
        let remedy = format!("define [network.{name}], or name one that is");
        return Err(refuse(object, format!("network {name:?} is not defined"), remedy));
    };
    check_address(object, address, network)?;
    identifier_of(setup, network, address)
        .map_err(|error| refuse(object, error.to_string(), "choose another"))
}

fn identifier_of(setup: &Setup, network: &Network, address: IpAddr) -> Result<SirAddress, IdentifierError> {
    let identifier = match (address, network.ipv6) {
        (IpAddr::V4(address), _) => Identifier::ipv4(network.vnid, address),
        (IpAddr::V6(address), Some(vnet)) => Identifier::ipv6_address(network.vnid, vnet, address)?,
        (IpAddr::V6(_), None) => return Err(IdentifierError::OutsideVnet),
    };
    let domain = setup.domain_named(network.sir_domain.as_deref());
    Ok(domain.map_or(setup.host.sir, |domain| domain.sir).address(identifier))
}

/// Of `SIR:T`: type 1, C = 0.
fn task(object: &str, setup: &Setup, address: IpAddr) -> Result<SirAddress, SetupError> {
    let IpAddr::V6(address) = address else {
        return Err(refuse(object, "IPv4 addresses belong to a network", "name the network"));
    };
    let Some(domain) = setup.domain_of_sir((address.to_bits() >> 64) as u64) else {
        let holder =
            setup.networks.iter().find(|network| network.ipv6.is_some_and(|vnet| vnet.contains(address)));
        let (reason, remedy) = match holder {
            Some(network) => ("it is a tenant's".to_owned(), format!("name network {}", network.name)),
            None => {
                let prefixes: Vec<_> = setup.domains().map(|domain| domain.sir.to_string()).collect();
                let reason = format!("it is not under {}", prefixes.join(" or "));
                (reason, "name a task by its SIR address, or a network".into())
            }
        };
        return Err(refuse(object, reason, remedy));
    };
    let identifier = Identifier::from_bits(address.to_bits() as u64).map_err(|error| {
        refuse(object, error.to_string(), "a task has a SIR address of type 1 with C = 0")
    })?;
    match identifier.kind() {
        Kind::Local(_) => Ok(domain.sir.address(identifier)),
        _ => {
            let reason = format!("type {} is no task's", identifier.type_number());
            Err(refuse(object, reason, "a task has a SIR address of type 1; name a tenant by its network"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::tests::good;
    use crate::setup::{Task, TaskMapping};

    const OBJECT: &str = "it";

    fn identifier(network: Option<&str>, address: &str) -> Result<SirAddress, SetupError> {
        good().check().unwrap().identifier(OBJECT, network, address.parse().unwrap())
    }

    #[test]
    fn an_address_that_somebody_could_have_has_an_identifier() {
        let bits = |network, address| identifier(network, address).unwrap().identifier().bits();
        assert_eq!(bits(Some("blue"), "10.1.0.7"), 0x4000_03e9_0a01_0007);
        assert_eq!(bits(Some("red"), "2001:db8:b1:e:0:1:0:7"), 0x6000_03ea_0000_0007);
        assert_eq!(bits(None, "2001:db8:51:0:2000::11"), 0x2000_0000_0000_0011);
    }

    #[test]
    fn an_address_that_nobody_could_have_is_refused_by_name() {
        for (network, address, why) in [
            (Some("green"), "10.1.0.7", "not defined"),
            (Some("blue"), "192.0.2.1", "no free address"),
            (Some("blue"), "10.1.255.254", "no free address"),
            (Some("blue"), "2001:db8:b1:e:0:1:0:7", "no free address"),
            (None, "10.1.0.7", "belong to a network"),
            (None, "2001:db8:b1:e::7", "it is a tenant's"),
            (None, "2001:db8:99::7", "not under 2001:db8:51::/64"),
            (None, "2001:db8:51::1", "type 0 is no task's"),
            (None, "2001:db8:51:0:4000:3e9:a01:7", "type 2 is no task's"),
            (None, "2001:db8:51:0:4000::7", "VNID zero"),
            (None, "2001:db8:51:0:a000::11", "type 5 is reserved"),
            (None, "2001:db8:51:0:c000::11", "type 6 is reserved"),
            (None, "2001:db8:51:0:e000::11", "type 7 is reserved"),
            (None, "2001:db8:51:0:3000::11", "the C bit is set"),
        ] {
            let refused = identifier(network, address).expect_err(address);
            assert!(refused.reason.contains(why), "{address}: {refused}");
            assert_eq!(refused.object, OBJECT);
        }
    }

    #[test]
    fn everybody_lives_where_the_setup_says() {
        let all = good().check().unwrap().residences();
        let of = |address: &str| {
            let wanted = identifier(Some("blue"), address).unwrap();
            let found: Vec<_> = all
                .iter()
                .filter(|said| said.identifier == wanted)
                .map(|said| said.locator.to_string())
                .collect();
            found
        };
        assert_eq!(of("10.1.0.1"), ["2001:db8:0:1::/64"], "once, though a mapping repeats it");
        assert_eq!(of("10.1.0.2"), ["2001:db8:0:2::/64"]);
    }

    #[test]
    fn tasks_live_where_the_setup_says_too() {
        let [own, other]: [Ipv6Addr; 2] =
            ["2001:db8:51:0:2000::11", "2001:db8:51:0:2000::12"].map(|address| address.parse().unwrap());
        let locator = "2001:db8:0:3::/64".parse().unwrap();
        let setup = Setup {
            tasks: vec![Task { name: "web".into(), addresses: vec![own] }],
            task_mappings: vec![TaskMapping { address: other, locator }],
            ..good()
        };
        let all = setup.check().unwrap().residences();
        let of = |address: Ipv6Addr| {
            let wanted = identifier(None, &address.to_string()).unwrap();
            all.iter().find(|said| said.identifier == wanted).map(|said| (said.locator, said.object.as_str()))
        };
        assert_eq!(of(own), Some(("2001:db8:0:1::/64".parse().unwrap(), "attachment.web")));
        assert_eq!(of(other), Some((locator, "mapping 2001:db8:51:0:2000::12")));
    }

    #[test]
    fn what_has_an_identifier_is_called_as_it_is_configured() {
        let setup = good().check().unwrap();
        for (network, address) in [
            (Some("blue"), "10.1.0.7"),
            (Some("red"), "2001:db8:b1:e:0:1:0:7"),
            (None, "2001:db8:51:0:2000::11"),
        ] {
            let identifier = identifier(network, address).unwrap();
            assert_eq!(setup.named(identifier), (network, address.parse().unwrap()));
        }
    }
}
