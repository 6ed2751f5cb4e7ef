//! Tasks, services, aliases and crossings: what is understood, and what is refused at which line.

use nve_core::setup::{Aliased, Protocol, Realm};

use super::{BLUE, HOST, load, only, refusals_of};

/// Begins at line 15.
const REALMS: &str = r#"[network.green]
vni = 1002
ipv4 = "10.2.0.0/16"
ipv6 = "2001:db8:b1:e:0:1::/96"
outside = true
outside_deny = ["2001:db8:f::/48"]
nat64 = "64:ff9b::/96"
[attachment.web]
kind = "tun"
addresses = ["2001:db8:51:0:2000::11"]
[[mapping]]
address = "2001:db8:51:0:2000::12"
locator = "2001:db8:0:3::/64"
[service.dns]
address = "2001:db8:51:0:2000::53"
from = ["blue", "green"]
ports = ["udp 53", "tcp 53", "icmp"]
[[alias]]
network = "blue"
address = "10.1.200.53"
of = "2001:db8:51:0:2000::53"
[[alias]]
network = "blue"
address = "10.1.201.0/24"
of = "10.2.7.0/24"
of_network = "green"
[[crossing]]
from = "blue"
to = "green"
protocol = "tcp"
ports = ["443", "8000-8080"]
to_addresses = ["10.2.0.4", "2001:db8:b1:e:0:1::4"]
[[crossing]]
from = "tasks"
to = "blue"
replies = true
"#;

fn whole() -> String {
    format!("{HOST}{BLUE}{REALMS}")
}

#[track_caller]
fn refused(from: &str, to: &str, line: usize, what: &str, remedy: &str) {
    only(&refusals_of(&whole(), from, to), line, what, remedy);
}

#[test]
fn realms_are_understood() {
    let config = load(&whole()).unwrap_or_else(|refused| panic!("{refused}"));
    let setup = config.setup.setup();
    assert_eq!(setup.tasks.len(), 1);
    assert_eq!((setup.tasks[0].name.as_str(), setup.tasks[0].addresses.len()), ("web", 1));
    assert_eq!(setup.task_mappings[0].address.to_string(), "2001:db8:51:0:2000::12");
    assert_eq!(config.devices.len(), 1, "a task has no socket");
    assert_eq!(setup.networks[1].outside_deny.len(), 1);
    assert_eq!(setup.networks[1].nat64.map(|prefix| prefix.len()), Some(96));
    assert_eq!(setup.aliases[0].of, Aliased::Ipv6("2001:db8:51:0:2000::53".parse().unwrap()));
    let green = Aliased::Ipv4 { network: "green".into(), prefix: "10.2.7.0/24".parse().unwrap() };
    assert_eq!(setup.aliases[1].of, green);
    let rules: Vec<_> = setup.crossings.iter().map(|c| (c.name.as_str(), c.protocol, c.replies)).collect();
    let expected = [
        ("network.green", Protocol::Any, true),
        ("service.dns", Protocol::Udp, true),
        ("service.dns", Protocol::Tcp, true),
        ("service.dns", Protocol::Icmp, true),
        ("service.dns", Protocol::Udp, true),
        ("service.dns", Protocol::Tcp, true),
        ("service.dns", Protocol::Icmp, true),
        ("crossing 1 (blue to green)", Protocol::Tcp, false),
        ("crossing 2 (tasks to blue)", Protocol::Any, true),
    ];
    assert_eq!(rules, expected);
    let crossing = &setup.crossings[7];
    assert_eq!(crossing.ports, [443..=443, 8000..=8080]);
    assert_eq!(crossing.to_addresses.len(), 2);
    assert_eq!((&setup.crossings[8].from, &setup.crossings[8].to), (&Realm::Tasks(None), &Realm::of("blue")));
}

#[test]
fn tasks_are_refused_what_only_virtual_machines_have_and_every_address_but_their_own_kind() {
    let tun = "kind = \"tun\"\naddresses";
    for line in [
        "mac = \"52:54:00:00:00:09\"",
        "network = \"blue\"",
        "socket = \"x\"",
        "user = \"root\"",
        "queues = 2",
    ] {
        refused(tun, &format!("{line}\n{tun}"), 23, "of kind \"tun\" has none", "remove the line");
    }
    refused(tun, "kind = \"tap\"\naddresses", 23, "attachment.web.kind", "\"tun\"");
    refused(
        "kind = \"tun\"\naddresses",
        "mac = \"52:54:00:00:00:09\"\naddresses",
        22,
        "missing field `network`",
        "network = ...",
    );
    refused("2000::11", "4000:3e9:a01:1", 24, "is no task's", "2001:db8:51:0:2000::/68");
    refused("2000::11", "3000::11", 24, "is no task's", "2000::/68");
    refused("2000::11", "2000::12", 26, "already attachment.web's", "one holder");
    refused("db8:51:0:2000::12", "db8:52:0:2000::12", 26, "is no task's", "2000::/68");
    refused("[\"2001:db8:51:0:2000::11\"]", "[]", 24, "could send nothing", "at least one");
}

#[test]
fn a_service_is_a_task_that_known_networks_may_use() {
    refused("51:0:2000::53\"\nfrom", "51::53\"\nfrom", 29, "is no task's", "2000::/68");
    refused("51:0:2000::53\"\nfrom", "b1:e::53\"\nfrom", 29, "SIR prefix 2001:db8:51::/64", "2000::/68");
    refused(
        "[\"blue\", \"green\"]",
        "[\"blue\", \"gren\"]",
        30,
        "no network \"gren\"",
        "did you mean \"green\"?",
    );
    refused("[\"blue\", \"green\"]", "[]", 30, "a service for nobody", "name the networks");
    refused("\"udp 53\"", "\"udp\"", 31, "nothing that can be served", "udp PORT");
    refused("\"udp 53\"", "\"dns 53\"", 31, "nothing that can be served", "udp PORT");
    refused("\"udp 53\"", "\"icmp 53\"", 31, "nothing that can be served", "\"icmp\"");
    refused("[\"udp 53\", \"tcp 53\", \"icmp\"]", "[]", 31, "without ports", "udp 53");
}

#[test]
fn an_alias_is_nobodys_address_and_stands_for_one_endpoint_elsewhere() {
    refused("\"10.1.200.53\"", "\"10.1.0.1\"", 34, "10.1.0.1 is attachment.vm1's", "nobody of the network");
    refused("\"10.1.200.53\"", "\"10.1.255.254\"", 34, "the gateway", "another address");
    refused("\"10.1.200.53\"", "\"127.0.0.1\"", 34, "where no host is", "unicast");
    refused("\"10.1.200.53\"", "\"10.1.201.9\"", 38, "overlaps alias 10.1.201.9", "remove one");
    refused("\"10.1.200.53\"", "\"10.1.200.x\"", 34, "alias.address", "ADDRESS/LENGTH");
    refused("2000::53\"\n[[alias]]", "1::53\"\n[[alias]]", 35, "is no task's", "2000::/68");
    refused(
        "51:0:2000::53\"\n[[alias]]",
        "99::53\"\n[[alias]]",
        35,
        "neither a task's nor a tenant's",
        "nat64",
    );
    refused(
        "51:0:2000::53\"\n[[alias]]",
        "b1:e::5\"\n[[alias]]",
        35,
        "network.blue itself",
        "their own addresses",
    );
    refused("\"10.2.7.0/24\"", "\"10.2.7.0/25\"", 39, "not as many addresses", "one length");
    refused("\"10.2.7.0/24\"", "\"10.3.7.0/24\"", 39, "not inside the ipv4 of network.green", "a part of it");
    refused(
        "of_network = \"green\"",
        "of_network = \"gren\"",
        40,
        "no network \"gren\"",
        "did you mean \"green\"?",
    );
    refused(
        "of_network = \"green\"",
        "of_network = \"blue\"",
        39,
        "network.blue itself",
        "their own addresses",
    );
}

#[test]
fn a_crossing_is_between_two_realms_that_exist() {
    refused("to = \"green\"", "to = \"gren\"", 43, "no network \"gren\"", "did you mean \"green\"?");
    refused("to = \"green\"", "to = \"blue\"", 41, "between blue and blue", "allowed there already");
    refused(
        "from = \"tasks\"\nto = \"blue\"",
        "from = \"tasks\"\nto = \"tasks\"",
        47,
        "between tasks",
        "already",
    );
    refused("protocol = \"tcp\"", "protocol = \"tpc\"", 44, "crossing.protocol", "did you mean \"tcp\"?");
    refused("protocol = \"tcp\"", "protocol = \"icmp\"", 41, "has no ports", "remove ports");
    for ports in ["0", "443-", "8080-8000", "65536", "https"] {
        refused("\"443\"", &format!("\"{ports}\""), 45, "neither a port nor a range", "8000-8080");
    }
    refused("\"10.2.0.4\"", "\"10.1.0.4\"", 46, "10.1.0.4/32 is not in network.green", "as its tenants");
    refused("\"10.2.0.4\"", "\"2001:db8:b1:e::4\"", 46, "not in network.green", "as its tenants");
    refused("\"10.2.0.4\"", "\"server\"", 46, "neither an address nor a prefix", "ADDRESS/LENGTH");
}

#[test]
fn the_outside_keys_of_a_network_are_judged() {
    refused("2001:db8:f::/48", "2001:db8:f::1/48", 20, "bits behind its length", "2001:db8:f::/48");
    refused("2001:db8:f::/48", "10.0.0.0/8", 20, "no IPv6 prefix", "2001:db8:f::/48");
    refused("64:ff9b::/96", "64:ff9b::/95", 21, "network.green.nat64", "64:ff9b::/96");
    refused("64:ff9b::/96", "2001:db8:51::/96", 21, "overlaps 2001:db8:51::/64", "its NAT64");
    refused("64:ff9b::/96", "2001:db8:b1:e::/96", 21, "overlaps", "its NAT64");
    for name in ["tasks", "outside"] {
        refused(
            "[network.green]\nvni = 1002",
            &format!("[network.{name}]\nvni = 1003\nipv4 = \"10.9.0.0/16\"\n[network.green]\nvni = 1002"),
            15,
            "a realm that is no network",
            "rename",
        );
    }
}

#[test]
fn what_is_the_fabrics_is_understood_and_refused_at_its_line() {
    let with = |fabric: &str| whole().replacen("[uplink]", &format!("fabric = [{fabric}]\n[uplink]"), 1);
    let config = load(&with(r#""2001:db8::/56", "2001:db8:b1:e::/64""#)).unwrap_or_else(|r| panic!("{r}"));
    assert_eq!(config.setup.setup().fabric.len(), 2);
    assert!(load(&whole()).expect("it needs none").setup.setup().fabric.is_empty());
    for (fabric, line, what) in [
        (r#""2001:db8::""#, 5, "host.fabric: \"2001:db8::\" is no IPv6 prefix"),
        (r#""10.0.0.0/8""#, 5, "host.fabric"),
        (r#""2001:db8::1/48""#, 5, "has bits behind its length"),
        (r#""64::/16""#, 22, "nat64 64:ff9b::/96 overlaps 64::/16"),
    ] {
        let refused = load(&with(fabric)).expect_err("refused");
        let [problem] = refused.problems() else { panic!("{:?}", refused.problems()) };
        assert!(problem.what.contains(what), "{:?}", problem.what);
        assert_eq!(problem.place.line, line, "{}", problem.what);
    }
}
