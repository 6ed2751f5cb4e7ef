//! Rules by themselves: which packet passes which way; each refusal beside what passes.

use core::net::Ipv6Addr;
use std::sync::Arc;

use super::*;
use crate::addr::{ChecksumMode, Vnid};
use crate::setup::{Crossing, Host, Network as RawNetwork, Realm as Name, Setup};

const BLUE: Realm = Realm::Network(NetworkId(0));
const GREEN: Realm = Realm::Network(NetworkId(1));

fn setup(crossings: Vec<Crossing>) -> Setup {
    let network = |name: &str, vni, ipv4: &str, ipv6: &str| RawNetwork {
        ipv4: ipv4.parse().ok(),
        ipv6: ipv6.parse().ok(),
        ..RawNetwork::named(name, Vnid::new(vni).unwrap())
    };
    let host = Host {
        name: "hv1".into(),
        locator: "2001:db8:0:1::/64".parse().unwrap(),
        sir: "2001:db8:51::/64".parse().unwrap(),
        checksum: ChecksumMode::Neutral,
        uplink_mtu: 1500,
        unknown: Default::default(),
    };
    Setup {
        networks: vec![
            network("blue", 1001, "10.1.0.0/16", "2001:db8:b1:e::/96"),
            network("green", 1002, "10.2.0.0/16", "2001:db8:b1:e:0:1::/96"),
        ],
        crossings,
        ..Setup::of(host)
    }
}

fn rules_of(setup: Setup) -> Arc<Rules> {
    let nve = crate::pipeline::Nve::new(setup.check().unwrap(), 10);
    nve.world().rules.clone()
}

fn rules(crossings: Vec<Crossing>) -> Arc<Rules> {
    rules_of(setup(crossings))
}

fn blue_to_green() -> Crossing {
    Crossing::between(Name::of("blue"), Name::of("green"))
}

fn endpoint(realm: Realm, address: &str) -> Endpoint {
    let address: Ipv6Addr = address.parse().unwrap();
    Endpoint { realm, address, key: None }
}

fn blue() -> Endpoint {
    endpoint(BLUE, "2001:db8:b1:e::1")
}

fn green() -> Endpoint {
    endpoint(GREEN, "2001:db8:b1:e:0:1::4")
}

fn tcp(source: u16, destination: u16, answers: bool) -> Traffic {
    Traffic { protocol: TCP, shown: Shown::Ports { source, destination, answers } }
}

fn udp(source: u16, destination: u16) -> Traffic {
    Traffic { protocol: UDP, shown: Shown::Ports { source, destination, answers: false } }
}

fn icmp(kind: u8) -> Traffic {
    Traffic { protocol: ICMPV6, shown: Shown::Icmp(kind) }
}

fn later(protocol: u8) -> Traffic {
    Traffic { protocol, shown: Shown::Nothing }
}

const NO_RULE: Result<(), Unruled> = Err(Unruled::NoRule);
const FRAGMENT: Result<(), Unruled> = Err(Unruled::Fragment);

#[track_caller]
fn there(rules: &Rules, traffic: Traffic, expected: Result<(), Unruled>) {
    assert_eq!(rules.judge(&blue(), &green(), traffic).map(|_| ()), expected, "there: {traffic:?}");
}

#[track_caller]
fn back(rules: &Rules, traffic: Traffic, expected: Result<(), Unruled>) {
    assert_eq!(rules.judge(&green(), &blue(), traffic).map(|_| ()), expected, "back: {traffic:?}");
}

#[test]
fn without_a_rule_nothing_passes_but_inside_a_realm() {
    let none = rules(vec![]);
    for traffic in [tcp(1, 443, false), tcp(443, 1, true), udp(1, 53), icmp(128), icmp(129), later(UDP)] {
        there(&none, traffic, NO_RULE);
        back(&none, traffic, NO_RULE);
        assert!(none.judge(&blue(), &blue(), traffic).is_ok(), "inside a network: {traffic:?}");
        let task = endpoint(Realm::Tasks(crate::addr::DomainId::ALL[0]), "2001:db8:51:0:2000::1");
        assert!(none.judge(&task, &task, traffic).is_ok(), "between tasks: {traffic:?}");
        let outside = endpoint(Realm::Outside, "2001:db8:99::1");
        assert_eq!(none.judge(&outside, &outside, traffic).map(|_| ()), NO_RULE, "through us: {traffic:?}");
    }
}

#[test]
fn tcp_passes_to_its_ports_and_comes_back_from_them_only_as_an_answer() {
    let ports = vec![443..=443, 8000..=8080];
    let https = rules(vec![Crossing { protocol: Protocol::Tcp, ports, ..blue_to_green() }]);
    for port in [443, 8000, 8040, 8080] {
        there(&https, tcp(50_000, port, false), Ok(()));
        there(&https, tcp(50_000, port, true), Ok(()));
        back(&https, tcp(port, 50_000, true), Ok(()));
        back(&https, tcp(port, 50_000, false), NO_RULE);
        back(&https, tcp(50_000, port, true), NO_RULE);
        there(&https, udp(50_000, port), NO_RULE);
        back(&https, udp(port, 50_000), NO_RULE);
    }
    for port in [0, 1, 442, 444, 7999, 8081, 65535] {
        there(&https, tcp(443, port, true), NO_RULE);
        back(&https, tcp(port, 443, true), NO_RULE);
    }
    there(&https, later(TCP), FRAGMENT);
    back(&https, later(TCP), FRAGMENT);
    there(&https, later(UDP), NO_RULE);
}

#[test]
fn other_protocols_come_back_only_with_replies() {
    for (protocol, number) in [(Protocol::Udp, UDP), (Protocol::Sctp, SCTP)] {
        let traffic = |source, destination| Traffic { protocol: number, ..udp(source, destination) };
        let one_way = Crossing { protocol, ports: vec![53..=53], ..blue_to_green() };
        let both = Crossing { replies: true, ..one_way.clone() };
        for (rule, replies) in [(one_way, NO_RULE), (both, Ok(()))] {
            let rules = rules(vec![rule]);
            there(&rules, traffic(40_000, 53), Ok(()));
            there(&rules, traffic(53, 40_000), NO_RULE);
            back(&rules, traffic(53, 40_000), replies);
            back(&rules, traffic(40_000, 53), NO_RULE);
            there(&rules, later(number), FRAGMENT);
        }
    }
    let all = rules(vec![Crossing { protocol: Protocol::Udp, replies: true, ..blue_to_green() }]);
    there(&all, later(UDP), Ok(()));
    back(&all, later(UDP), Ok(()));
}

#[test]
fn echo_goes_one_way_and_its_replies_the_other() {
    let ping = rules(vec![Crossing { protocol: Protocol::Icmp, ..blue_to_green() }]);
    there(&ping, icmp(128), Ok(()));
    back(&ping, icmp(129), Ok(()));
    there(&ping, icmp(129), NO_RULE);
    back(&ping, icmp(128), NO_RULE);
    for kind in [130, 135, 139, 255] {
        there(&ping, icmp(kind), NO_RULE);
        back(&ping, icmp(kind), NO_RULE);
    }
    there(&ping, later(ICMPV6), FRAGMENT);
    back(&ping, later(ICMPV6), FRAGMENT);
}

#[test]
fn any_protocol_passes_one_way_and_only_answers_the_other() {
    let any = rules(vec![blue_to_green()]);
    let other = Traffic { protocol: 47, shown: Shown::Other };
    for traffic in [tcp(1, 2, false), udp(1, 2), icmp(128), later(TCP), later(47), other] {
        there(&any, traffic, Ok(()));
    }
    back(&any, tcp(1, 2, true), Ok(()));
    back(&any, icmp(129), Ok(()));
    for traffic in [tcp(1, 2, false), udp(1, 2), icmp(128), other, later(47)] {
        back(&any, traffic, NO_RULE);
    }
    back(&any, later(TCP), FRAGMENT);
    back(&any, later(ICMPV6), FRAGMENT);
    let with_replies = rules(vec![Crossing { replies: true, ..blue_to_green() }]);
    for traffic in [tcp(1, 2, true), udp(1, 2), other, later(47), icmp(129)] {
        back(&with_replies, traffic, Ok(()));
    }
    for traffic in [tcp(1, 2, false), icmp(128)] {
        back(&with_replies, traffic, NO_RULE);
    }
}

#[test]
fn addresses_narrow_a_rule_at_both_ends_and_both_ways() {
    let narrow = Crossing {
        from_addresses: vec!["10.1.0.0/24".parse().unwrap(), "2001:db8:b1:e::1/128".parse().unwrap()],
        to_addresses: vec!["10.2.0.4/32".parse().unwrap()],
        protocol: Protocol::Tcp,
        ..blue_to_green()
    };
    let rules = rules(vec![narrow]);
    let sir = |realm, vnid: u32, low: &str| endpoint(realm, &format!("2001:db8:51:0:4000:{vnid:x}:{low}"));
    let server = sir(GREEN, 1002, "a02:4");
    let judge =
        |from: &Endpoint, to: &Endpoint, answers| rules.judge(from, to, tcp(1, 2, answers)).map(|_| ());
    for client in [sir(BLUE, 1001, "a01:7"), blue()] {
        assert_eq!(judge(&client, &server, false), Ok(()), "{client:?}");
        assert_eq!(judge(&server, &client, true), Ok(()), "{client:?}");
        assert_eq!(judge(&client, &sir(GREEN, 1002, "a02:5"), false), NO_RULE, "another server");
        assert_eq!(judge(&sir(GREEN, 1002, "a02:5"), &client, true), NO_RULE, "another server's answer");
    }
    assert_eq!(judge(&sir(BLUE, 1001, "a01:107"), &server, false), NO_RULE, "beyond the /24");
    assert_eq!(judge(&endpoint(BLUE, "2001:db8:b1:e::2"), &server, false), NO_RULE, "another IPv6 address");
}

#[test]
fn what_a_network_denies_of_the_outside_no_rule_admits() {
    let out = Crossing::between(Name::of("blue"), Name::Outside);
    let into = Crossing::between(Name::Outside, Name::of("blue"));
    let mut denying = setup(vec![out, into, Crossing::between(Name::of("green"), Name::Outside)]);
    denying.networks[0].outside_deny = vec!["2001:db8:f::/48".parse().unwrap()];
    let rules = rules_of(denying);
    let (denied, allowed) =
        (endpoint(Realm::Outside, "2001:db8:f::1"), endpoint(Realm::Outside, "2001:db8:e::1"));
    let judge = |from: &Endpoint, to: &Endpoint| rules.judge(from, to, tcp(1, 2, false)).map(|_| ());
    assert_eq!(judge(&blue(), &denied), Err(Unruled::Denied));
    assert_eq!(judge(&denied, &blue()), Err(Unruled::Denied));
    assert_eq!(judge(&blue(), &allowed), Ok(()));
    assert_eq!(judge(&allowed, &blue()), Ok(()));
    assert_eq!(judge(&green(), &denied), Ok(()), "another network's list");
}

#[test]
fn several_rules_between_the_same_realms_each_admit_what_they_say() {
    let rule = |protocol, port: u16| Crossing { protocol, ports: vec![port..=port], ..blue_to_green() };
    let rules = rules(vec![rule(Protocol::Tcp, 443), rule(Protocol::Udp, 53)]);
    there(&rules, tcp(1, 443, false), Ok(()));
    there(&rules, udp(1, 53), Ok(()));
    there(&rules, udp(1, 443), NO_RULE);
    there(&rules, tcp(1, 53, false), NO_RULE);
    back(&rules, tcp(1, 443, false), NO_RULE);
}
