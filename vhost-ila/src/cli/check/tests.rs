//! The needs, one broken at a time. That the remedies work is tested in a namespace of its own, end to end.

use std::net::Ipv6Addr;
use std::path::Path;

use super::firewall;
use super::kernel::{Address, Facts, Link, Route, Rule, Ruleset};
use super::needs::{Finding, Site, Verdict, verify};
use crate::config::{Config, GatewayConfig};

fn site() -> Site {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-hosts/hv1");
    Site::new(&Config::load(&example).expect("accepted")).expect("it has an uplink")
}

fn address(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

fn link(name: &str) -> Link {
    Link { name: name.into(), up: true, mtu: 1500, accept_ra: 2, forwarding: true }
}

fn route(table: u32, prefix: &str, link: &str) -> Route {
    let (prefix, length) = prefix.split_once('/').expect("a prefix");
    let (prefix, length) = (address(prefix), length.parse().expect("a length"));
    Route { table, prefix, length, link: Some(link.into()), gateway: None, learnt: false }
}

/// A host of the example that has all it needs.
fn good() -> Facts {
    let gateway = Some(address("fe80::1"));
    Facts {
        links: vec![link("lo"), link("eth0"), link("ila0")],
        addresses: vec![
            Address { link: "lo".into(), address: address("2001:db8:0:1::1"), length: 128, learnt: false },
            Address { link: "eth0".into(), address: address("2001:db8:f:1::2"), length: 64, learnt: true },
        ],
        routes: vec![
            route(254, "2001:db8:0:1::/64", "ila0"),
            route(254, "2001:db8:51::/64", "ila0"),
            route(254, "2001:db8:b1:e::/96", "ila0"),
            Route { gateway, learnt: true, ..route(254, "::/0", "eth0") },
            Route { gateway, ..route(100, "::/0", "eth0") },
        ],
        rules: vec![
            Rule { priority: 100, incoming: Some("ila0".into()), table: 100 },
            Rule { priority: 32766, incoming: None, table: 254 },
        ],
        forwarding: true,
        conntrack: true,
        ruleset: Ruleset::Text(String::new()),
    }
}

/// What `spoil` breaks, and the remedy.
fn unmet(spoil: impl FnOnce(&mut Facts)) -> (String, Vec<String>) {
    let mut facts = good();
    spoil(&mut facts);
    let findings = verify(&site(), &facts);
    let mut unmet = findings.into_iter().filter(|finding| finding.verdict != Verdict::Met);
    let (first, more) = (unmet.next().expect("something is unmet"), unmet.count());
    assert_eq!(more, 0, "one need only: {first:?}");
    let Finding { verdict: Verdict::Unmet { found, remedy }, .. } = first else { panic!("{first:?}") };
    (found, remedy)
}

#[test]
fn a_host_that_has_all_it_needs_is_well() {
    for finding in verify(&site(), &good()) {
        assert_eq!(finding.verdict, Verdict::Met, "{}", finding.need);
    }
}

#[test]
fn the_tun_must_be_up_with_the_mtu() {
    let up = "ip link set dev ila0 mtu 1500 up".to_owned();
    assert_eq!(unmet(|facts| facts.links[2].up = false), ("it is down".into(), vec![up.clone()]));
    assert_eq!(unmet(|facts| facts.links[2].mtu = 1400), ("its MTU is 1400".into(), vec![up.clone()]));
    let (_, remedy) = unmet(|facts| drop(facts.links.remove(2)));
    assert_eq!(remedy, ["ip tuntap add dev ila0 mode tun vnet_hdr".to_owned(), up]);
}

#[test]
fn forwarding_must_be_on_everywhere_and_on_the_tun() {
    let (_, remedy) = unmet(|facts| facts.forwarding = false);
    assert_eq!(remedy, ["sysctl -w net/ipv6/conf/all/forwarding=1"]);
    let (_, remedy) = unmet(|facts| facts.links[2].forwarding = false);
    assert_eq!(remedy, ["sysctl -w net/ipv6/conf/ila0/forwarding=1"]);
}

#[test]
fn a_nic_that_learns_from_routers_needs_accept_ra_2() {
    let (found, remedy) = unmet(|facts| facts.links[1].accept_ra = 1);
    assert_eq!(found, "accept_ra is 1 on eth0");
    assert_eq!(remedy, ["sysctl -w net/ipv6/conf/eth0/accept_ra=2"]);
    // One that learns nothing, or whose advertisements a network manager reads, does not.
    let mut facts = good();
    facts.links[0].accept_ra = 1;
    facts.links[1].accept_ra = 0;
    assert!(verify(&site(), &facts).iter().all(|finding| finding.verdict == Verdict::Met));
}

#[test]
fn the_locator_the_sir_prefix_and_the_vnets_lead_to_the_tun() {
    for (index, prefix) in ["2001:db8:0:1::/64", "2001:db8:51::/64", "2001:db8:b1:e::/96"].iter().enumerate()
    {
        let (found, remedy) = unmet(|facts| drop(facts.routes.remove(index)));
        assert_eq!(found, "it leads to eth0", "{prefix}");
        assert_eq!(remedy, [format!("ip -6 route replace {prefix} dev ila0")]);
    }
    // For the locator a wider route is not enough: the exact one could still come up on a link.
    let (found, _) = unmet(|facts| facts.routes[0] = route(254, "2001:db8:0::/48", "ila0"));
    assert_eq!(found, "it leads to ila0");
    let (found, _) = unmet(|facts| facts.routes[0] = route(254, "2001:db8:0:1::/96", "ila0"));
    assert_eq!(found, "it leads to eth0", "a part of the locator is not the locator");
}

#[test]
fn the_locator_is_on_no_link_and_nobody_takes_an_address_from_it() {
    let (found, remedy) = unmet(|facts| facts.routes.push(route(254, "2001:db8:0:1::/64", "eth0")));
    assert_eq!(found, "it is on-link on eth0");
    assert_eq!(remedy, ["ip -6 route del 2001:db8:0:1::/64 dev eth0"]);
    let slaac =
        Address { link: "eth0".into(), address: address("2001:db8:0:1::7"), length: 64, learnt: true };
    let (found, remedy) = unmet(|facts| facts.addresses.push(slaac));
    assert_eq!(found, "2001:db8:0:1::7/64 is on eth0");
    assert_eq!(
        remedy,
        ["sysctl -w net/ipv6/conf/eth0/autoconf=0", "ip -6 addr del 2001:db8:0:1::7/64 dev eth0"]
    );
    let (found, _) = unmet(|facts| facts.addresses[0].length = 64);
    assert_eq!(found, "2001:db8:0:1::1/64 is on lo", "it would put the whole locator on lo");
}

#[test]
fn the_host_s_own_address_is_on_lo() {
    let (_, remedy) = unmet(|facts| drop(facts.addresses.remove(0)));
    assert_eq!(remedy, ["ip -6 addr add 2001:db8:0:1::1/128 dev lo"]);
    let (found, _) = unmet(|facts| facts.links[0].up = false);
    assert_eq!(found, "lo is down");
}

#[test]
fn what_comes_out_of_the_tun_must_not_go_back_in() {
    let rule = "ip -6 rule add iif ila0 lookup 100 pref 100";
    let default = "ip -6 route replace default via fe80::1 dev eth0 table 100";
    let (found, remedy) = unmet(|facts| drop(facts.rules.remove(0)));
    assert_eq!((found.as_str(), remedy.as_slice()), ("there is no rule `iif ila0`", &[rule.to_owned()][..]));
    let (_, remedy) = unmet(|facts| {
        facts.rules.remove(0);
        facts.routes.remove(4);
    });
    assert_eq!(remedy, [rule, default]);
    // A table that says nothing of the SIR prefix hands the lookup on to the main table, which leads into the TUN.
    let (found, remedy) = unmet(|facts| drop(facts.routes.remove(4)));
    assert!(found.contains("table 100 has no way for 2001:db8:51::/64"), "{found}");
    assert_eq!(remedy, [default]);
    let (found, remedy) = unmet(|facts| facts.routes.push(route(100, "2001:db8:51::/64", "ila0")));
    assert_eq!(found, "table 100 leads 2001:db8:51::/64 into it");
    assert_eq!(remedy, ["ip -6 route del 2001:db8:51::/64 table 100"]);
    // A rule behind the main table's comes too late.
    let (found, _) = unmet(|facts| facts.rules[0].priority = 40000);
    assert_eq!(found, "there is no rule `iif ila0`");
}

const TRACKING: &str = "table inet filter {
	chain input {
		type filter hook input priority filter; policy accept;
		ct state established,related accept
	}
}
";

const EXEMPT: &str = "table ip6 vhost_ila {
	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		iifname \"ila0\" notrack
		ip6 daddr { 2001:db8:0:1::/64, 2001:db8:51::/64 } notrack
	}
}
";

const REVERSE_PATH: &str = "table inet firewalld {
	chain filter_PREROUTING {
		type filter hook prerouting priority filter + 10; policy accept;
		meta nfproto ipv6 fib saddr . mark . iif oif missing drop
	}
}
";

#[test]
fn tracked_connections_need_an_exemption() {
    let text = |text: &str| Ruleset::Text(text.into());
    let (found, remedy) = unmet(|facts| facts.ruleset = text(TRACKING));
    assert_eq!(found, "the firewall's rules track connections");
    assert_eq!(remedy.len(), 4);
    assert!(!firewall::exempts(EXEMPT, &["iifname \"ila1\""]));
    for ruleset in [format!("{TRACKING}{EXEMPT}"), EXEMPT.to_owned()] {
        let mut facts = good();
        facts.ruleset = text(&ruleset);
        assert!(verify(&site(), &facts).iter().all(|finding| finding.verdict == Verdict::Met));
    }
    assert!(!firewall::tracks("table ip nat {\n\tchain post {\n\t\tmasquerade\n\t}\n}\n"), "IPv4 only");
}

#[test]
fn a_reverse_path_filter_needs_an_exception_before_it() {
    let (found, remedy) = unmet(|facts| facts.ruleset = Ruleset::Text(REVERSE_PATH.into()));
    assert_eq!(found, "chain filter_PREROUTING of table inet firewalld filters them");
    assert_eq!(
        remedy,
        [
            "nft insert rule inet firewalld filter_PREROUTING ip6 saddr '{ 2001:db8:51::/64, 2001:db8:b1:e::/96 }' accept"
        ]
    );
    let exception = "ip6 saddr { 2001:db8:51::/64, 2001:db8:b1:e::/96 } accept\n\t\tmeta nfproto";
    let excepted = REVERSE_PATH.replace("meta nfproto", exception);
    for prefix in ["2001:db8:51::/64", "2001:db8:b1:e::/96"] {
        assert_eq!(firewall::filters_reverse_path(&excepted, prefix), None);
    }
    assert!(firewall::filters_reverse_path(&excepted, "2001:db8:52::/64").is_some());
}

#[test]
fn what_comes_from_outside_leads_to_the_gateway_s_tun() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-hosts/hv1");
    let mut config = Config::load(&example).expect("accepted");
    config.gateway = Some(GatewayConfig { tun: "ila-in0".into(), interface: Some("eth1".into()) });
    let mut facts = good();
    facts.links.extend([link("eth1"), link("ila-in0")]);
    let judged = |config: &Config, facts: &Facts| {
        let site = Site::new(config).expect("it has an uplink");
        verify(&site, facts).into_iter().find(|finding| finding.verdict != Verdict::Met)
    };
    let Some(Finding { verdict: Verdict::Unmet { found, remedy }, .. }) = judged(&config, &facts) else {
        panic!("nothing is there yet")
    };
    assert_eq!(found, "there is no rule `iif eth1`");
    assert_eq!(
        remedy,
        [
            "ip -6 rule add iif eth1 lookup 101 pref 101",
            "ip -6 route replace 2001:db8:51::/64 dev ila-in0 table 101",
            "ip -6 route replace 2001:db8:b1:e::/96 dev ila-in0 table 101",
            "ip -6 route replace 2001:db8:0:1::/64 dev ila-in0 table 101",
        ]
    );
    facts.rules.push(Rule { priority: 101, incoming: Some("eth1".into()), table: 101 });
    for prefix in ["2001:db8:51::/64", "2001:db8:b1:e::/96", "2001:db8:0:1::/64"] {
        assert!(judged(&config, &facts).is_some());
        facts.routes.push(route(101, prefix, "ila-in0"));
    }
    assert_eq!(judged(&config, &facts), None);
    config.gateway = Some(GatewayConfig { tun: "ila-in0".into(), interface: None });
    assert!(matches!(judged(&config, &facts), Some(Finding { verdict: Verdict::Unknown { .. }, .. })));
}

#[test]
fn what_cannot_be_found_out_is_said_and_is_no_failure() {
    let mut facts = good();
    facts.ruleset = Ruleset::Unreadable("Operation not permitted".into());
    let unknown = |finding: &&Finding| matches!(finding.verdict, Verdict::Unknown { .. });
    assert_eq!(verify(&site(), &facts).iter().filter(unknown).count(), 2);
    facts.conntrack = false;
    assert_eq!(
        verify(&site(), &facts).iter().filter(unknown).count(),
        1,
        "nothing tracks without the module"
    );
}
