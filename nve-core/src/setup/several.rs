//! Identifiers that several hosts have at once (draft, section 4.5; docs/decisions/0019).
//!
//! What must stay true: it is said in one place, with all its locators, so that a mapping that is written twice is still a mistake; where
//! this host is one of them, an attachment of it has the address, and where none has, this host is none of them.

use core::net::IpAddr;
use std::collections::{HashMap, HashSet};

use super::check::{Held, SetupError, check_locator, refuse};
use super::residence;
use super::{Network, Setup};
use crate::addr::{Locator, SirAddress};

/// Where one address lives at several hosts.
#[derive(Clone, Debug)]
pub struct Several {
    /// Name of its [`Network`]; `None`: it is a task's SIR address.
    pub network: Option<String>,
    /// The tenant's address, or the task's.
    pub address: IpAddr,
    /// Every host that has it, in any order.
    pub locators: Vec<Locator>,
}

impl Several {
    /// What messages call it; as for one locator.
    pub fn object(&self) -> String {
        match &self.network {
            Some(network) => format!("mapping {} in {network}", self.address),
            None => format!("mapping {}", self.address),
        }
    }

    /// Of a setup that was checked.
    pub(crate) fn name(&self, setup: &Setup) -> Option<SirAddress> {
        residence::identifier(setup, "", self.network.as_deref(), self.address).ok()
    }
}

/// Checks those of `setup`; `held` says which addresses of networks have a holder by themselves.
pub(super) fn check(
    setup: &Setup,
    networks: &HashMap<&str, &Network>,
    held: &Held<'_>,
) -> Result<(), SetupError> {
    let mut seen = HashSet::new();
    for several in &setup.several {
        let object = several.object();
        let identifier = residence::identifier(setup, &object, several.network.as_deref(), several.address)?;
        if !seen.insert(identifier) {
            return Err(refuse(object, "there are two for this address", "list all its locators in one"));
        }
        if several.locators.is_empty() {
            return Err(refuse(object, "it has no locator", "list the locator of each host that has it"));
        }
        let mut distinct = HashSet::new();
        for locator in &several.locators {
            check_locator(&object, *locator, setup, networks)?;
            if !distinct.insert(locator) {
                return Err(refuse(object, format!("{locator} is twice in its locators"), "list it once"));
            }
        }
        let holder = holder(setup, several, held);
        match (several.locators.iter().any(|locator| setup.is_own_locator(*locator)), holder) {
            (true, None) => {
                let remedy = "add one, or remove this host's locator";
                return Err(refuse(
                    object,
                    "it says the address is here too, and no attachment has it",
                    remedy,
                ));
            }
            (_, Some(other)) if !other.starts_with("attachment.") => {
                let reason = format!("the address is already {other}'s");
                return Err(refuse(object, reason, "list all its locators in one mapping"));
            }
            (false, Some(other)) => {
                let reason = format!("the address is already {other}'s");
                return Err(refuse(
                    object,
                    reason,
                    "list this host's locator too, or take it from the attachment",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Who else has the address.
fn holder(setup: &Setup, several: &Several, held: &Held<'_>) -> Option<String> {
    let address = several.address;
    if let Some(network) = &several.network {
        return held.get(&(network.as_str(), address)).cloned();
    }
    let task = setup.tasks.iter().find(|task| task.addresses.iter().any(|own| address == *own));
    let mapping = setup.task_mappings.iter().find(|mapping| address == mapping.address);
    let task = task.map(|task| format!("attachment.{}", task.name));
    task.or_else(|| mapping.map(|mapping| format!("mapping {}", mapping.address)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::Task;
    use crate::setup::tests::good;

    fn several(network: Option<&str>, address: &str, hosts: &[u8]) -> Several {
        let locators = hosts.iter().map(|n| format!("2001:db8:0:{n}::/64").parse().unwrap()).collect();
        Several { network: network.map(str::to_owned), address: address.parse().unwrap(), locators }
    }

    fn checked(several: Vec<Several>) -> Result<crate::setup::CheckedSetup, SetupError> {
        let tasks =
            vec![Task { name: "web".into(), addresses: vec!["2001:db8:51:0:2000::11".parse().unwrap()] }];
        Setup { several, tasks, ..good() }.check()
    }

    /// Reserved types, C, other types and other prefixes, of an attachment and of a mapping.
    #[test]
    fn an_address_that_no_task_could_have_is_refused_with_the_reason() {
        for (address, why) in [
            ("2001:db8:51:0:a000::11", "identifier type 5 is reserved"),
            ("2001:db8:51:0:c000::11", "identifier type 6 is reserved"),
            ("2001:db8:51:0:e000::11", "identifier type 7 is reserved"),
            ("2001:db8:51:0:3000::11", "the C bit is set"),
            ("2001:db8:51::11", "its identifier has type 0"),
            ("2001:db8:51:0:4000:3e9:a01:1", "its identifier has type 2"),
            ("2001:db8:52:0:2000::11", "it is not under SIR prefix 2001:db8:51::/64"),
        ] {
            let address = address.parse().unwrap();
            let task = Task { name: "web".into(), addresses: vec![address] };
            let refused = Setup { tasks: vec![task], ..good() }.check().expect_err(why);
            assert!(refused.object == "attachment.web" && refused.reason.contains(why), "{refused}");
            let mapping =
                crate::setup::TaskMapping { address, locator: "2001:db8:0:2::/64".parse().unwrap() };
            let refused = Setup { task_mappings: vec![mapping], ..good() }.check().expect_err(why);
            assert!(refused.object.starts_with("mapping ") && refused.reason.contains(why), "{refused}");
        }
    }

    /// vm1 has 10.1.0.1 and the task web 2001:db8:51:0:2000::11; a mapping says where 10.1.0.2 is.
    #[test]
    fn several_locators_are_accepted_here_and_elsewhere() {
        let fits = vec![
            several(Some("blue"), "10.1.0.7", &[2, 3]),
            several(Some("blue"), "10.1.0.3", &[1, 2]),
            several(None, "2001:db8:51:0:2000::11", &[3, 1]),
            several(None, "2001:db8:51:0:2000::12", &[3]),
        ];
        checked(fits).expect("it fits");
    }

    #[test]
    fn several_locators_that_do_not_fit_are_refused_by_name() {
        for (several, object, why) in [
            (several(Some("green"), "10.1.0.7", &[2]), "mapping 10.1.0.7 in green", "not defined"),
            (several(Some("blue"), "192.0.2.1", &[2]), "mapping 192.0.2.1 in blue", "no free address"),
            (several(Some("blue"), "10.1.0.7", &[]), "mapping 10.1.0.7 in blue", "no locator"),
            (
                several(Some("blue"), "10.1.0.7", &[2, 3, 2]),
                "mapping 10.1.0.7 in blue",
                "twice in its locators",
            ),
            (several(Some("blue"), "10.1.0.7", &[1, 2]), "mapping 10.1.0.7 in blue", "no attachment has it"),
            (
                several(Some("blue"), "10.1.0.3", &[2, 3]),
                "mapping 10.1.0.3 in blue",
                "already attachment.vm3's",
            ),
            (
                several(Some("blue"), "10.1.0.2", &[2, 3]),
                "mapping 10.1.0.2 in blue",
                "already mapping 10.1.0.2",
            ),
            (
                several(None, "2001:db8:51:0:2000::11", &[2]),
                "mapping 2001:db8:51:0:2000::11",
                "attachment.web",
            ),
            (
                several(None, "2001:db8:51:0:a000::11", &[2]),
                "mapping 2001:db8:51:0:a000::11",
                "type 5 is reserved",
            ),
            (several(None, "2001:db8:51:0:3000::11", &[2]), "mapping 2001:db8:51:0:3000::11", "C bit is set"),
        ] {
            let refused = checked(vec![several]).expect_err(why);
            assert!(refused.object == object && refused.reason.contains(why), "{refused}");
        }
        let twice = || several(Some("blue"), "10.1.0.7", &[2, 3]);
        assert!(
            checked(vec![twice(), twice()]).expect_err("refused").reason.contains("two for this address")
        );
        let sir = Several { locators: vec!["2001:db8:51::/64".parse().unwrap()], ..twice() };
        assert!(checked(vec![sir]).expect_err("refused").reason.contains("SIR prefix"));
    }
}
