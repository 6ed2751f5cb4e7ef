//! The draft's reference network (reading notes, section 3): every scenario between realms, byte by byte, on four hosts and on one.
//!
//! ```text
//!   hv1  L1   VA1 (blue)  T1 T3        hv3  L3   VA3 (green)  T2 T4
//!   hv2  L2   VA2 (blue)               hv4  L4   VA4 (green)
//! ```
//!
//! blue is VNI1, green VNI2, and both have the same IPv4 prefix. T4 is the service.

use super::*;
use crate::setup::{Alias, Aliased, Crossing, Protocol, Realm, Task, TaskMapping};
use crate::testkit::checksum::{Verdict, verify};

mod damage;
mod errors;
mod fragments;
mod matrix;
mod outside;
mod scenarios;

/// A tenant: name, host, network, IPv4 and IPv6 address.
type Tenant = (&'static str, u8, &'static str, &'static str, &'static str);

pub(super) const TENANTS: [Tenant; 4] = [
    ("va1", 1, "blue", "10.1.0.1", "2001:db8:b1:e::1"),
    ("va2", 2, "blue", "10.1.0.2", "2001:db8:b1:e::2"),
    ("va3", 3, "red", "10.1.0.3", "2001:db8:b1:e:0:1:0:3"),
    ("va4", 4, "red", "10.1.0.4", "2001:db8:b1:e:0:1:0:4"),
];

/// A task: name, host and address.
pub(super) const TASKS: [(&str, u8, &str); 4] = [
    ("t1", 1, "2001:db8:51:0:2000::a1"),
    ("t3", 1, "2001:db8:51:0:2000::a3"),
    ("t2", 3, "2001:db8:51:0:2000::a2"),
    ("t4", 3, "2001:db8:51:0:2000::a4"),
];

/// What blue calls VA4, VA3, T4, and VA4's IPv6 address; what red calls VA1, and VA1's IPv6 address.
pub(super) const ALIASES: [(&str, &str, &str, Option<&str>); 7] = [
    ("blue", "10.1.200.4", "10.1.0.4", Some("red")),
    ("blue", "10.1.200.3", "10.1.0.3", Some("red")),
    ("blue", "192.168.53.53", "2001:db8:51:0:2000::a4", None),
    ("blue", "10.1.200.64", "2001:db8:b1:e:0:1:0:4", None),
    ("red", "10.1.201.1", "10.1.0.1", Some("blue")),
    ("red", "10.1.201.61", "2001:db8:b1:e::1", None),
    ("red", "10.1.201.54", "2001:db8:51:0:2000::a4", None),
];

pub(super) const INTERNET: &str = "2001:db8:1234::7";

/// Which host each attachment is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spread {
    /// As in the picture.
    FourHosts,
    /// All on hv1.
    OneHost,
}

impl Spread {
    fn host(self, host: u8) -> u8 {
        match self {
            Self::FourHosts => host,
            Self::OneHost => 1,
        }
    }
    pub(super) fn host_of(self, name: &str) -> u8 {
        let tenant = TENANTS.iter().find(|tenant| tenant.0 == name).map(|tenant| tenant.1);
        let task = TASKS.iter().find(|task| task.0 == name).map(|task| task.1);
        self.host(tenant.or(task).unwrap())
    }
}

/// Everything to everybody, but UDP: to port 4001 with answers.
pub(super) fn open() -> Vec<Crossing> {
    let realms = ["blue", "red", "tasks", "outside"];
    let pairs = realms.iter().flat_map(|from| realms.iter().map(move |to| (*from, *to)));
    let pairs = pairs.filter(|(from, to)| from != to);
    pairs.map(|(from, to)| Crossing::between(Realm::of(from), Realm::of(to))).collect()
}

/// The setup of `host` with these rules.
pub(super) fn reference(host: u8, spread: Spread, crossings: Vec<Crossing>, checksum: ChecksumMode) -> Setup {
    let here = |at: u8| spread.host(at) == host;
    let base = setup(host, checksum);
    let attachment = |(number, tenant): (usize, &Tenant)| setup::Attachment {
        name: tenant.0.into(),
        network: tenant.2.into(),
        mac: mac(number as u8 + 1),
        addresses: vec![addr(tenant.3), addr(tenant.4)],
        hostname: None,
        instance: Instance::default(),
        macs: vec![],
        prefixes: vec![],
        shared: vec![],
    };
    let mapping = |tenant: &Tenant| {
        [tenant.3, tenant.4].map(|address| setup::Mapping {
            network: tenant.2.into(),
            address: addr(address),
            locator: locator(spread.host(tenant.1)),
        })
    };
    let alias = |(network, address, of, of_network): &(&str, &str, &str, Option<&str>)| Alias {
        network: (*network).into(),
        address: format!("{address}/32").parse().unwrap(),
        of: match of_network {
            Some(of_network) => {
                Aliased::Ipv4 { network: (*of_network).into(), prefix: format!("{of}/32").parse().unwrap() }
            }
            None => Aliased::Ipv6(v6(of)),
        },
    };
    let task = |task: &(&str, u8, &str)| Task { name: task.0.into(), addresses: vec![v6(task.2)] };
    let elsewhere = TASKS.iter().filter(|task| !here(task.1));
    let mut networks = base.networks.clone();
    for network in &mut networks {
        network.nat64 = ipv4_xlat::address::rfc6052::Prefix::new(v6("2001:db8:64::"), 96).ok();
    }
    Setup {
        networks,
        attachments: TENANTS.iter().enumerate().filter(|(_, t)| here(t.1)).map(attachment).collect(),
        mappings: TENANTS.iter().filter(|tenant| !here(tenant.1)).flat_map(mapping).collect(),
        tasks: TASKS.iter().filter(|t| here(t.1)).map(task).collect(),
        task_mappings: elsewhere
            .map(|t| TaskMapping { address: v6(t.2), locator: locator(spread.host(t.1)) })
            .collect(),
        aliases: ALIASES.iter().map(alias).collect(),
        crossings,
        ..Setup::of(base.host)
    }
}

/// A host of the reference network.
pub(super) fn host(number: u8, spread: Spread, crossings: &[Crossing]) -> Lab {
    Lab::of(reference(number, spread, crossings.to_vec(), ChecksumMode::Neutral))
}

/// `SIR:(network:address)`.
pub(super) fn sir_in(network: &str, address: &str) -> IpAddr {
    sir().address(Identifier::ipv4(vnid(network), address.parse().unwrap())).ipv6().into()
}

/// What is on the wire for an endpoint on `host`: `name` of a tenant in the family of `address`, or of a task.
pub(super) fn on_wire(at: u8, network: &str, address: &str, checksum: ChecksumMode) -> IpAddr {
    let (identifier, neutral) = match (network, addr(address)) {
        ("tasks", IpAddr::V6(v6)) => {
            (Identifier::from_bits(v6.to_bits() as u64).unwrap(), Neutral::sir(locator(at), sir()))
        }
        (_, IpAddr::V4(v4)) => (Identifier::ipv4(vnid(network), v4), Neutral::sir(locator(at), sir())),
        (_, IpAddr::V6(v6)) => (
            Identifier::ipv6(vnid(network), v6.to_bits() as u32),
            Neutral::vnet(locator(at), vnid(network), vnet(network)),
        ),
    };
    match checksum {
        ChecksumMode::Neutral => locator(at).neutral(identifier, neutral).ipv6().into(),
        ChecksumMode::Unmodified => locator(at).unmodified(identifier).ipv6().into(),
    }
}

#[test]
fn mappings_are_listed_with_the_tasks_among_them() {
    let lines = host(1, Spread::FourHosts, &[]).nve.mappings();
    let task = |address: &str| lines.iter().find(|line| line.address == addr(address)).unwrap();
    let (here, elsewhere) = (task(TASKS[0].2), task(TASKS[3].2));
    assert_eq!((here.network.as_str(), here.attachment.as_deref()), (Realm::TASKS, Some("t1")));
    assert_eq!((elsewhere.locator, elsewhere.attachment.as_deref()), (locator(3), None));
    assert_eq!(IpAddr::V6(elsewhere.wire), on_wire(3, "tasks", TASKS[3].2, ChecksumMode::Neutral));
    let mut hv1 = host(1, Spread::FourHosts, &[]);
    assert_eq!(hv1.nve.mtu(hv1.port("t1")), 1500, "nothing is translated towards a task");
    let out = hv1.send("t1", &udp(TASKS[0].2, TASKS[3].2, 1452));
    assert!(matches!(out, Out::Uplink(..)), "and that fits");
}
