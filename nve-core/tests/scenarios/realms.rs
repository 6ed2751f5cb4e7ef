//! The draft's reference network with stacks of their own in it: tasks, services, crossings between networks, and edges that disagree.

use core::time::Duration;

use nve_core::DropReason;
use nve_core::packet::Offload;
use nve_core::setup::{Alias, Aliased, Crossing, Protocol, Realm};
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{GuestPlan, Plan, Sends, World};

use crate::{address, endpoint};

const BLUE1: [&str; 2] = ["10.1.0.1", "2001:db8:b1:e::1"];
const BLUE2: [&str; 2] = ["10.1.0.2", "2001:db8:b1:e::2"];
const GREEN1: [&str; 2] = ["10.1.0.1", "2001:db8:b1:e:0:1:0:1"];
const T1: &str = "2001:db8:51:0:2000::a1";
const SERVICE: &str = "2001:db8:51:0:2000::a4";

/// What blue's IPv4 tenants call the service, and green1; what green's call blue1 and blue2.
const SERVICE4: &str = "192.168.53.53";
const GREEN1_IN_BLUE: &str = "10.1.200.1";
const BLUE1_IN_GREEN: &str = "10.1.201.1";
const BLUE2_IN_GREEN: &str = "10.1.201.2";

fn alias(network: &str, address: &str, of: Aliased) -> Alias {
    Alias { network: network.into(), address: format!("{address}/32").parse().unwrap(), of }
}

fn ipv4_of(network: &str, address: &str) -> Aliased {
    Aliased::Ipv4 { network: network.into(), prefix: format!("{address}/32").parse().unwrap() }
}

fn rule(from: &str, to: &str) -> Crossing {
    Crossing::between(Realm::of(from), Realm::of(to))
}

/// The service for blue; blue begins connections to green.
fn rules() -> [Crossing; 3] {
    [
        Crossing { replies: true, ..rule("blue", "tasks") },
        Crossing { protocol: Protocol::Tcp, ports: vec![4000..=9000], ..rule("blue", "green") },
        Crossing { protocol: Protocol::Icmp, ..rule("blue", "green") },
    ]
}

/// blue1 and green1 on `hosts`, the service and T1 on the last of them.
fn plan(hosts: [&str; 3]) -> Plan {
    let plan = Plan::new(14)
        .network("blue", 1001, "10.1.0.0/16", "2001:db8:b1:e::/96")
        .network("green", 1002, "10.1.0.0/16", "2001:db8:b1:e:0:1::/96")
        .host("hv1")
        .host("hv2")
        .host("hv3")
        .guest(GuestPlan::new("blue1", hosts[0], "blue", &BLUE1))
        .guest(GuestPlan::new("green1", hosts[1], "green", &GREEN1))
        .guest(GuestPlan::task("t1", hosts[0], &[T1]).with_stack())
        .guest(GuestPlan::task("service", hosts[2], &[SERVICE]).with_stack())
        .alias(alias("blue", SERVICE4, Aliased::Ipv6(SERVICE.parse().unwrap())))
        .alias(alias("blue", GREEN1_IN_BLUE, ipv4_of("green", GREEN1[0])))
        .alias(alias("green", BLUE1_IN_GREEN, ipv4_of("blue", BLUE1[0])))
        .alias(alias("green", BLUE2_IN_GREEN, ipv4_of("blue", BLUE2[0])));
    rules().into_iter().fold(plan, Plan::crossing)
}

const APART: [&str; 3] = ["hv1", "hv2", "hv3"];
const TOGETHER: [&str; 3] = ["hv1"; 3];

fn drops(world: &World, host: &str, reason: DropReason) -> u64 {
    let totals = world.nve(host).counters();
    let ports: u64 = totals.ports.iter().map(|(_, port)| port.dropped(reason)).sum();
    ports + totals.uplink.dropped(reason)
}

#[test]
fn tenants_reach_a_service_and_tasks_each_other_in_both_families_on_one_host_and_on_three() {
    for hosts in [APART, TOGETHER] {
        let mut world = plan(hosts).start();
        for (from, to) in [("blue1", SERVICE), ("blue1", SERVICE4), ("t1", SERVICE), ("service", T1)] {
            assert_eq!(world.pings(from, to, 3, 56), 3, "{from} to {to} on {hosts:?}");
            assert_eq!(world.pings(from, to, 3, 1300), 3, "{from} to {to} on {hosts:?}");
        }
        for (from, to, at) in
            [("blue1", "service", SERVICE), ("blue1", "service", SERVICE4), ("t1", "service", SERVICE)]
        {
            let sent = world.transfer(from, to, at, 200_000);
            assert!(sent.is_ok(), "{from} to {at} on {hosts:?}: {sent:?}");
        }
        // The service does not begin, and green is not served.
        assert_eq!(world.pings("service", BLUE1[1], 2, 56), 0, "control: {hosts:?}");
        assert_eq!(world.pings("green1", SERVICE, 2, 56), 0, "control: {hosts:?}");
    }
}

#[test]
fn connections_cross_between_networks_with_the_same_ipv4_addresses_one_way_only() {
    for hosts in [APART, TOGETHER] {
        let mut world = plan(hosts).start();
        for at in [GREEN1_IN_BLUE, GREEN1[1]] {
            assert_eq!(world.pings("blue1", at, 3, 56), 3, "{at} on {hosts:?}");
            let sent = world.transfer("blue1", "green1", at, 200_000);
            assert!(sent.is_ok(), "{at} on {hosts:?}: {sent:?}");
        }
        world.run_for(Duration::from_secs(60));
        for at in [BLUE1_IN_GREEN, BLUE1[1]] {
            let mark = world.mark();
            assert_eq!(world.pings("green1", at, 2, 56), 0, "{at} on {hosts:?}");
            let sent = world.transfer("green1", "blue1", at, 100);
            assert!(sent.is_err(), "{at} on {hosts:?}");
            assert_eq!(world.received("blue1", mark).len(), 0, "{at} on {hosts:?}");
        }
    }
}

#[test]
fn a_connection_crosses_with_super_packets_through_a_lossy_fabric() {
    let mut plan = plan(APART);
    plan =
        plan.guest(GuestPlan::new("blue2", "hv1", "blue", &BLUE2).sends(Sends::LargeSends).takes_offloads());
    let mut world = plan.start();
    world.link("hv2").loss_per_mille = 5;
    world.link("hv3").loss_per_mille = 5;
    for (to, at) in [("green1", GREEN1_IN_BLUE), ("service", SERVICE), ("service", SERVICE4)] {
        let sent = world.transfer("blue2", to, at, 300_000);
        assert!(sent.is_ok(), "{at}: {sent:?}");
    }
}

/// Both edges judge: a host whose rules allow, facing one whose rules do not.
#[test]
fn either_edge_alone_keeps_what_its_own_rules_do_not_admit() {
    for (closed, by, reason) in
        [("hv2", "hv2", DropReason::ForeignNetwork), ("hv1", "hv1", DropReason::ForeignNetwork)]
    {
        let mut world = plan(APART).start();
        assert_eq!(world.pings("blue1", GREEN1[1], 2, 56), 2, "control");
        let rules = core::cell::RefCell::new(Vec::new());
        world.reload(closed, |setup| rules.replace(core::mem::take(&mut setup.crossings)).clear()).unwrap();
        let mark = world.mark();
        assert_eq!(world.pings("blue1", GREEN1[1], 2, 56), 0, "{closed} is closed");
        assert_eq!(world.received("green1", mark).len(), 0, "{closed} is closed");
        assert!(drops(&world, by, reason) >= 2, "{by} says so");
        let sent = world.sent_on_link("hv1", mark).len();
        assert_eq!(sent > 0, closed == "hv2", "what the first edge refuses is not on the wire");
        world.reload(closed, |setup| setup.crossings = rules.take()).unwrap();
        assert_eq!(world.pings("blue1", GREEN1[1], 2, 56), 2, "a reload opens it again");
    }
}

/// No route leads outside here: the fabric's router says so, to the very tenant or task.
#[test]
fn the_outsides_errors_come_home_and_only_where_the_outside_is_reached() {
    let world = || {
        plan(APART)
            .crossing(Crossing { replies: true, ..rule("blue", "outside") })
            .crossing(Crossing { replies: true, ..rule("tasks", "outside") })
            .start()
    };
    let mut world = world();
    for (from, source) in [("blue1", BLUE1[1]), ("t1", T1)] {
        let mark = world.mark();
        let packet =
            frames::udp(Header::default(), endpoint(source, 5), endpoint("2001:db8:1234::7", 6), b"far");
        let frame = frames::ethernet(world.guest(from).mac, nve_core::gateway::GATEWAY_MAC, &packet);
        world.send_frame(from, frame, Offload::NONE);
        world.run_for(Duration::from_secs(1));
        let sent = world.sent_on_link("hv1", mark);
        assert_eq!(sent[0].bytes[8..40], packet[8..40], "{from}: it leaves untranslated");
        let heard = world.received(from, mark);
        assert!(!heard.is_empty(), "{from} hears of it");
        let said = nve_core::testkit::dissect::Dissected::of_frame(&heard[0].bytes).unwrap();
        assert_eq!(said.icmp_error().unwrap().kind, 1, "{from}: destination unreachable");
        assert_eq!(said.destination, address(source));
    }
    assert_eq!(drops(&world, "hv1", DropReason::Outside), 0);
}
