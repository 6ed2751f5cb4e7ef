//! What does not fit is refused with its object's name; what fits passes, whatever order it comes in.

use super::*;
use crate::addr::ChecksumMode;

fn network(name: &str, vni: u32, ipv4: Option<&str>, ipv6: Option<&str>) -> Network {
    Network {
        ipv4: ipv4.map(|prefix| prefix.parse().unwrap()),
        ipv6: ipv6.map(|prefix| prefix.parse().unwrap()),
        ..Network::named(name, Vnid::new(vni).unwrap())
    }
}

fn attachment(name: &str, last: u8, addresses: &[&str]) -> Attachment {
    Attachment {
        name: name.into(),
        network: "blue".into(),
        mac: EthernetAddress([0x52, 0x54, 0, 0, 0, last]),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        hostname: None,
        instance: Instance::default(),
        macs: vec![],
        prefixes: vec![],
        shared: vec![],
    }
}

fn mapping(address: &str, locator: &str) -> Mapping {
    Mapping { network: "blue".into(), address: address.parse().unwrap(), locator: locator.parse().unwrap() }
}

pub(super) fn good() -> Setup {
    Setup {
        networks: vec![
            network("blue", 1001, Some("10.1.0.0/16"), Some("2001:db8:b1:e::/96")),
            network("red", 1002, Some("10.1.0.0/16"), Some("2001:db8:b1:e:0:1::/96")),
        ],
        attachments: vec![
            attachment("vm1", 1, &["10.1.0.1", "2001:db8:b1:e::1"]),
            attachment("vm3", 3, &["10.1.0.3"]),
        ],
        mappings: vec![mapping("10.1.0.2", "2001:db8:0:2::/64"), mapping("10.1.0.1", "2001:db8:0:1::/64")],
        ..Setup::of(Host {
            name: "hv1".into(),
            locator: "2001:db8:0:1::/64".parse().unwrap(),
            sir: "2001:db8:51::/64".parse().unwrap(),
            checksum: ChecksumMode::Neutral,
            uplink_mtu: 1500,
            unknown: Default::default(),
        })
    }
}

#[test]
fn a_setup_that_fits_is_accepted() {
    let checked = good().check().unwrap();
    assert_eq!(checked.setup().networks.len(), 2);
}

#[test]
fn networks_are_as_many_as_there_are_numbers_for() {
    let of = |count: u32| {
        let network = |vni: u32| network(&format!("n{vni}"), vni, Some("10.1.0.0/16"), None);
        Setup { networks: (1..=count).map(network).collect(), ..Setup::of(good().host) }.check()
    };
    assert_eq!(of(65_536).err().map(|error| error.object).as_deref(), Some("network"));
    assert!(of(65_535).is_ok());
}

#[test]
fn a_nat64_is_outside_of_the_fabric_and_the_fabrics_prefixes_have_no_bits_behind_them() {
    let with = |fabric: &str| {
        let mut setup = good();
        setup.fabric = vec![fabric.parse().unwrap()];
        setup.networks[0].nat64 = rfc6052::Prefix::new("2001:db8:64::".parse().unwrap(), 96).ok();
        setup.check()
    };
    assert!(with("2001:db8::/48").is_ok());
    let refused = with("2001:db8::/32").unwrap_err();
    assert_eq!(refused.object, "network.blue");
    assert!(refused.reason.contains("overlaps 2001:db8::/32"), "{refused}");
    let refused = with("2001:db8::1/48").unwrap_err();
    assert!(refused.object == "host" && refused.remedy.contains("2001:db8::/48"), "{refused}");
}

/// What is done to a good setup, the object blamed, and a word of the reason.
type Spoil = (fn(&mut Setup), &'static str, &'static str);

#[test]
fn whatever_does_not_fit_is_refused_with_its_objects_name() {
    let spoils: [Spoil; 31] = [
        (|s| s.host.uplink_mtu = 1279, "uplink", "below 1280"),
        (|s| s.host.sir = "2001:db8:0:1::/64".parse().unwrap(), "host", "locator and sir"),
        (|s| s.networks[1].name = "blue".into(), "network.blue", "two of this name"),
        (|s| s.networks[1].vnid = s.networks[0].vnid, "network.red", "already network.blue's"),
        (|s| s.networks[1].ipv6 = s.networks[0].ipv6, "network.red", "already network.blue's"),
        (|s| s.networks[1] = network("red", 1002, None, None), "network.red", "neither"),
        (|s| s.networks[1].ipv6 = "2001:db8:51::/96".parse().ok(), "network.red", "SIR"),
        (|s| s.networks[1].ipv6 = "2001:db8:0:1::/96".parse().ok(), "network.red", "locator"),
        (|s| s.networks[1].search = vec!["a..b".into()], "network.red", "no domain name"),
        (|s| s.networks[1].search = vec!["domain.example".into(); 17], "network.red", "272 bytes"),
        (|s| s.networks[1].gateway4 = "10.2.0.1".parse().ok(), "network.red", "no usable address"),
        (|s| s.networks[1].gateway4 = "10.1.255.255".parse().ok(), "network.red", "no usable address"),
        (|s| s.networks[1].gateway6 = "2001:db8::1".parse().ok(), "network.red", "is not in"),
        (|s| s.networks[1].ipv4 = "10.1.0.0/31".parse().ok(), "network.red", "no room for a gateway"),
        (|s| s.attachments[1].name = "vm1".into(), "attachment.vm1", "two of this name"),
        (|s| s.attachments[1].network = "green".into(), "attachment.vm3", "not defined"),
        (|s| s.attachments[1].mac = s.attachments[0].mac, "attachment.vm3", "already attachment.vm1's"),
        (|s| s.attachments[1].mac = crate::gateway::GATEWAY_MAC, "attachment.vm3", "gateway's"),
        (|s| s.attachments[1].mac = EthernetAddress::BROADCAST, "attachment.vm3", "a group"),
        (|s| s.attachments[1].addresses.clear(), "attachment.vm3", "no addresses"),
        (|s| s.attachments[1].addresses[0] = s.attachments[0].addresses[0], "attachment.vm3", "vm1's"),
        (
            |s| s.attachments[1].addresses[0] = "10.2.0.3".parse().unwrap(),
            "attachment.vm3",
            "no free address",
        ),
        (
            |s| s.attachments[1].addresses[0] = "10.1.0.0".parse().unwrap(),
            "attachment.vm3",
            "no free address",
        ),
        (|s| s.attachments[1].addresses[0] = "10.1.255.254".parse().unwrap(), "attachment.vm3", "no free"),
        (|s| s.attachments[1].addresses[0] = "2001:db8:b1:e::".parse().unwrap(), "attachment.vm3", "no free"),
        (|s| s.mappings[0].network = "green".into(), "mapping 10.1.0.2 in green", "not defined"),
        (|s| s.mappings[0].address = "192.0.2.1".parse().unwrap(), "mapping 192.0.2.1 in blue", "no free"),
        (|s| s.mappings[0].address = "10.1.0.3".parse().unwrap(), "mapping 10.1.0.3 in blue", "vm3's"),
        (|s| s.mappings[0].locator = "2001:db8:51::/64".parse().unwrap(), "mapping 10.1.0.2", "SIR prefix"),
        (|s| s.mappings[0].locator = "2001:db8:b1:e::/64".parse().unwrap(), "mapping 10.1.0.2", "/96"),
        (|s| s.mappings[0].locator = s.host.locator, "mapping 10.1.0.2", "no attachment has it"),
    ];
    for (number, (spoil, object, reason)) in spoils.into_iter().enumerate() {
        let mut setup = good();
        spoil(&mut setup);
        let error = setup.check().map(|_| ()).expect_err(&format!("spoil {number}: {object}"));
        assert!(error.object.starts_with(object), "spoil {number}: {error}");
        assert!(error.reason.contains(reason), "spoil {number}: {error}");
        assert!(!error.remedy.is_empty());
    }
}

/// What is lent to vm1, the object blamed, and a word of the reason.
type Lent = (fn(&mut Setup), &'static str, &'static str);

fn prefixes(setup: &mut Setup, at: usize, prefixes: &[&str]) {
    setup.attachments[at].prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
}

fn shared(setup: &mut Setup, at: usize, addresses: &[&str]) {
    setup.attachments[at].shared = addresses.iter().map(|address| address.parse().unwrap()).collect();
}

fn macs(setup: &mut Setup, at: usize, macs: &[[u8; 6]]) {
    setup.attachments[at].macs = macs.iter().map(|mac| EthernetAddress(*mac)).collect();
}

fn route(setup: &mut Setup, prefix: &str, locator: &str) {
    let (prefix, locator) = (prefix.parse().unwrap(), locator.parse().unwrap());
    setup.routes.push(Route { network: "blue".into(), prefix, locator });
}

#[test]
fn prefixes_shared_addresses_and_virtual_macs_that_fit_are_accepted() {
    let mut setup = good();
    let all = [
        "0.0.0.0/0",
        "192.168.7.0/24",
        "10.1.8.0/24",
        "10.0.0.0/8",
        "192.0.2.1/32",
        "2001:db8:b1:e::8000:0/113",
    ];
    prefixes(&mut setup, 0, &all);
    prefixes(&mut setup, 1, &["192.168.7.128/25", "10.1.0.0/24", "2001:db8:b1:e::/112"]);
    for at in [0, 1] {
        shared(&mut setup, at, &["10.1.0.100", "2001:db8:b1:e::100"]);
        macs(&mut setup, at, &[[0, 0, 0x5e, 0, 1, 10]]);
    }
    route(&mut setup, "192.168.8.0/24", "2001:db8:0:2::/64");
    route(&mut setup, "192.168.7.0/24", "2001:db8:0:1::/64");
    setup.mappings.push(mapping("10.1.0.100", "2001:db8:0:1::/64"));
    setup.check().unwrap();
}

#[test]
fn what_cannot_be_lent_is_refused_with_its_objects_name() {
    let spoils: &[Lent] = &[
        (|s| prefixes(s, 0, &["192.168.7.1/24"]), "attachment.vm1", "bits behind"),
        (|s| prefixes(s, 0, &["10.1.0.0/16"]), "attachment.vm1", "covers the gateway"),
        (|s| prefixes(s, 0, &["10.1.255.0/24"]), "attachment.vm1", "covers the gateway"),
        (|s| prefixes(s, 0, &["10.1.0.9/32"]), "attachment.vm1", "one address"),
        (|s| prefixes(s, 0, &["127.0.0.0/8"]), "attachment.vm1", "never behind"),
        (|s| prefixes(s, 0, &["169.254.169.254/32"]), "attachment.vm1", "never behind"),
        (|s| prefixes(s, 0, &["224.0.0.0/4"]), "attachment.vm1", "never behind"),
        (|s| prefixes(s, 0, &["255.255.255.255/32"]), "attachment.vm1", "never behind"),
        (|s| prefixes(s, 0, &["0.0.0.0/8"]), "attachment.vm1", "never behind"),
        (|s| prefixes(s, 0, &["2001:db8:b1:e::/96"]), "attachment.vm1", "not inside the /96"),
        (|s| prefixes(s, 0, &["::/0"]), "attachment.vm1", "not inside the /96"),
        (|s| prefixes(s, 0, &["2001:db8:b1:f::/112"]), "attachment.vm1", "not inside the /96"),
        (|s| prefixes(s, 0, &["2001:db8:b1:e::ffff:0/112"]), "attachment.vm1", "covers the gateway"),
        (|s| prefixes(s, 0, &["2001:db8:b1:e::9/128"]), "attachment.vm1", "one address"),
        (|s| prefixes(s, 0, &["2001:db8:b1:e::9/120"]), "attachment.vm1", "bits behind"),
        (|s| prefixes(s, 0, &["192.168.7.0/24", "192.168.7.0/24"]), "attachment.vm1", "already behind"),
        (
            |s| [0, 1].into_iter().for_each(|at| prefixes(s, at, &["192.168.7.0/24"])),
            "attachment.vm3",
            "already behind attachment.vm1",
        ),
        (
            |s| {
                s.networks[0].ipv4 = None;
                s.attachments.truncate(1);
                s.attachments[0].addresses = vec!["2001:db8:b1:e::1".parse().unwrap()];
                s.mappings.clear();
                prefixes(s, 0, &["192.168.7.0/24"]);
            },
            "attachment.vm1",
            "has none",
        ),
        (|s| shared(s, 0, &["10.2.0.1"]), "attachment.vm1", "no free address"),
        (|s| shared(s, 0, &["10.1.0.1"]), "attachment.vm1", "vm1's own"),
        (|s| shared(s, 0, &["10.1.0.3"]), "attachment.vm1", "vm3's own"),
        (|s| shared(s, 0, &["10.1.0.9", "10.1.0.9"]), "attachment.vm1", "twice"),
        (|s| shared(s, 0, &["10.1.0.2"]), "mapping 10.1.0.2", "shared by attachment.vm1"),
        (|s| macs(s, 0, &[[1, 0, 0x5e, 0, 1, 10]]), "attachment.vm1", "a group"),
        (|s| macs(s, 0, &[crate::gateway::GATEWAY_MAC.0]), "attachment.vm1", "gateway's"),
        (|s| macs(s, 0, &[s.attachments[1].mac.0]), "attachment.vm1", "own"),
        (|s| macs(s, 0, &[[0, 0, 0x5e, 0, 1, 10]; 2]), "attachment.vm1", "twice"),
        (
            |s| {
                prefixes(s, 0, &["192.168.7.0/24"]);
                route(s, "192.168.7.0/24", "2001:db8:0:2::/64");
            },
            "mapping 192.168.7.0/24 in blue",
            "already behind attachment.vm1",
        ),
        (
            |s| route(s, "192.168.7.0/24", "2001:db8:0:1::/64"),
            "mapping 192.168.7.0/24",
            "no attachment has it",
        ),
        (|s| route(s, "10.1.255.0/24", "2001:db8:0:2::/64"), "mapping 10.1.255.0/24", "covers the gateway"),
        (|s| route(s, "192.168.7.0/24", "2001:db8:51::/64"), "mapping 192.168.7.0/24", "SIR prefix"),
    ];
    for (number, (spoil, object, reason)) in spoils.iter().enumerate() {
        let mut setup = good();
        spoil(&mut setup);
        let error = setup.check().map(|_| ()).expect_err(&format!("spoil {number}: {reason}"));
        assert!(error.object.starts_with(object), "spoil {number}: {error}");
        assert!(error.reason.contains(reason), "spoil {number}: {error}");
        assert!(!error.remedy.is_empty());
    }
}

#[test]
fn only_servers_that_this_host_can_be_answered_by_are_forwarded_to() {
    let forward = |servers: &[&str]| {
        let mut setup = good();
        setup.networks[1].dns_forward = servers.iter().map(|server| server.parse().unwrap()).collect();
        setup.check().map(|_| ()).map_err(|error| error.reason)
    };
    // Its own control address is a host's, and so is the fabric's.
    let good = ["127.0.0.1:53", "192.0.2.53:53", "[2001:db8:0:1::1]:53", "[2001:db8:53::53]:5353"];
    assert_eq!(forward(&good), Ok(()));
    for (server, reason) in [
        ("192.0.2.53:0", "no server's"),
        ("0.0.0.0:53", "no server's"),
        ("224.0.0.251:53", "no server's"),
        ("255.255.255.255:53", "no server's"),
        ("[ff02::fb]:53", "no server's"),
        ("[fe80::1]:53", "link-local"),
        ("[2001:db8:b1:e::53]:53", "network.blue"),
        ("[2001:db8:51::53]:53", "SIR prefix"),
    ] {
        let refused = forward(&[server]).expect_err(server);
        assert!(refused.contains(server) && refused.contains(reason), "{refused}");
    }
    assert!(forward(&["192.0.2.53:53"; 5]).expect_err("too many").contains("5 servers"));
}

#[test]
fn gateways_default_to_the_end_of_their_prefix() {
    assert_eq!(default_gateway4("10.1.0.0/16".parse().unwrap()), "10.1.255.254".parse().ok());
    assert_eq!(default_gateway4("10.1.0.4/30".parse().unwrap()), "10.1.0.6".parse().ok());
    assert_eq!(default_gateway4("10.1.0.4/31".parse().unwrap()), None);
    let gateway6 = default_gateway6("2001:db8:b1:e::/96".parse().unwrap());
    assert_eq!(gateway6, "2001:db8:b1:e::ffff:fffe".parse::<Ipv6Addr>().unwrap());
}

#[test]
fn tasks_and_aliases_overlap_nothing() {
    let task =
        |name: &str, address: &str| Task { name: name.into(), addresses: vec![address.parse().unwrap()] };
    let alias = |address: &str, of: &str| Alias {
        network: "blue".into(),
        address: address.parse().unwrap(),
        of: Aliased::Ipv6(of.parse().unwrap()),
    };
    const T1: &str = "2001:db8:51:0:2000::1";
    let with = |tasks: Vec<Task>, aliases: Vec<Alias>| Setup { tasks, aliases, ..good() };
    assert!(with(vec![task("t1", T1)], vec![alias("10.1.9.1/32", T1)]).check().is_ok());
    let refused = |setup: Setup, object: &str, reason: &str| {
        let error = setup.check().map(|_| ()).expect_err(reason);
        assert!(error.object.starts_with(object) && error.reason.contains(reason), "{error}");
    };
    refused(with(vec![task("vm1", T1)], vec![]), "attachment.vm1", "two of this name");
    refused(with(vec![task("t1", T1), task("t2", T1)], vec![]), "attachment.t2", "already attachment.t1's");
    refused(with(vec![task("t1", "2001:db8:51::1")], vec![]), "attachment.t1", "no task's");
    refused(
        with(vec![], vec![alias("10.1.0.2/32", T1)]),
        "alias 10.1.0.2 in blue",
        "mapping 10.1.0.2 in blue's",
    );
    refused(
        with(vec![], vec![alias("10.1.9.1/32", T1), alias("10.1.9.2/32", T1)]),
        "alias 10.1.9.2 in blue",
        "stands for the same endpoint",
    );
    refused(with(vec![], vec![alias("10.1.9.0/24", T1)]), "alias 10.1.9.0/24", "one endpoint");
    let mut behind = with(vec![], vec![alias("10.9.0.1/32", T1)]);
    behind.attachments[0].prefixes = vec!["10.9.0.0/16".parse().unwrap()];
    assert!(behind.clone().check().is_ok(), "an alias in a prefix behind a router is the longer prefix");
    behind.attachments[0].prefixes = vec!["10.9.0.1/32".parse().unwrap()];
    refused(behind, "alias 10.9.0.1 in blue", "prefix 10.9.0.1/32 is behind attachment.vm1");
    let mapped = |locator: &str| Setup {
        task_mappings: vec![TaskMapping { address: T1.parse().unwrap(), locator: locator.parse().unwrap() }],
        ..good()
    };
    assert!(mapped("2001:db8:0:2::/64").check().is_ok());
    refused(mapped("2001:db8:0:1::/64"), "mapping 2001:db8:51:0:2000::1", "no attachment has it");
    refused(mapped("2001:db8:51::/64"), "mapping 2001:db8:51:0:2000::1", "SIR prefix");
}
