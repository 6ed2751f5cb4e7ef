//! ICMPv6 errors of fabric routers come home to the tenant whose packet they are about, in its own family and words.

use core::net::Ipv6Addr;
use core::time::Duration;

use nve_core::DropReason;
use nve_core::packet::Offload;
use nve_core::testkit::dissect::{Dissected, protocol};
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{Plan, World};

use crate::{GATEWAY, VM1, VM2, address, endpoint, two_hosts, two_hosts_by_hand};

const SIR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0);
const VNET: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 0);

/// Sends a UDP packet from `vm1` in the family (0: IPv4, 1: IPv6) and gives back what it sent.
fn send_udp(world: &mut World, family: usize, hop_limit: u8) -> Vec<u8> {
    let header = Header { hop_limit, ..Header::default() };
    let packet =
        frames::udp(header, endpoint(VM1[family], 33434), endpoint(VM2[family], 33435), b"where are you");
    world.send("vm1", &packet, Offload::NONE);
    world.run_for(Duration::from_secs(1));
    packet
}

/// Asserts that `vm1` got one error of this type and code from its gateway about `sent`, and nothing else.
fn assert_error(world: &World, mark: usize, family: usize, sent: &[u8], expected: (u8, u8)) {
    let records = world.received("vm1", mark);
    assert_eq!(records.len(), 1, "{expected:?}, family {family}");
    let view = records[0].ip().expect("an IP packet");
    assert_eq!(view.icmp(), Some(expected), "family {family}");
    assert_eq!((view.source, view.destination), (address(GATEWAY[family]), address(VM1[family])));
    let quote = Dissected::of_ip(view.icmp_error().expect("an error").quote).expect("a quote");
    let sent = Dissected::of_ip(sent).expect("a packet");
    assert_eq!((quote.source, quote.destination), (sent.source, sent.destination));
    assert_eq!((quote.protocol, quote.ports()), (protocol::UDP, Some((33434, 33435))));
    assert_eq!(quote.transport, sent.transport, "ports, length, checksum and payload as they were sent");
}

fn time_exceeded(family: usize) -> (u8, u8) {
    if family == 0 { (11, 0) } else { (3, 0) }
}

#[test]
fn each_fabric_router_in_turn_spends_the_tenants_own_hop_limit() {
    for family in [0, 1] {
        let mut world = two_hosts_by_hand().routers(3).start();
        for hop_limit in 1..=3 {
            let mark = world.mark();
            let sent = send_udp(&mut world, family, hop_limit);
            assert_error(&world, mark, family, &sent, time_exceeded(family));
            let from = world.received_on_link("hv1", mark)[0].ip().expect("an IPv6 packet").source;
            assert_eq!(from, world.routers()[usize::from(hop_limit) - 1], "the hop-th router said it");
        }
        let mark = world.mark();
        send_udp(&mut world, family, 64);
        let arrived = world.received("vm2", mark);
        assert_eq!(
            arrived[0].ip().expect("a packet").hop_limit,
            61,
            "three routers, and nothing for the NVEs"
        );
    }
}

#[test]
fn neighbours_on_one_fabric_segment_look_adjacent_and_255_cannot_be_made() {
    for family in [0, 1] {
        let mut world = two_hosts_by_hand().routers(0).start();
        for (sent, arrives) in [(64, 64), (254, 254), (255, 254), (2, 2)] {
            let mark = world.mark();
            send_udp(&mut world, family, sent);
            let arrived = world.received("vm2", mark);
            assert_eq!(arrived[0].ip().expect("a packet").hop_limit, arrives, "{sent} sent, family {family}");
        }
    }
}

/// Its kernel forwards between card and TUN, and nothing can give back a hop before that. Told, not lost.
#[test]
fn the_last_hop_is_spent_by_the_other_hosts_kernel() {
    for family in [0, 1] {
        let mut world = two_hosts_by_hand().routers(0).start();
        let mark = world.mark();
        let sent = send_udp(&mut world, family, 1);
        assert_eq!(world.received("vm2", mark).len(), 0, "family {family}");
        assert_error(&world, mark, family, &sent, time_exceeded(family));
    }
}

/// Takes away the route to `hv2` and expects both families to hear of it.
fn unreachable_comes_home(plan: Plan, change: impl Fn(&mut World)) {
    for (family, expected) in [(0, (3, 1)), (1, (1, 0))] {
        let mut world = plan.clone().start();
        change(&mut world);
        let gone = world.locator_of("hv2");
        world.unroute(gone, 64);
        let mark = world.mark();
        let sent = send_udp(&mut world, family, 64);
        assert_error(&world, mark, family, &sent, expected);
    }
}

#[test]
fn a_router_without_a_route_is_heard_by_the_tenant() {
    unreachable_comes_home(two_hosts_by_hand(), |_| {});
}

/// The fabric may route SIR and VN prefixes to any NVE: that one is the ILA router (draft, section 4.6).
#[test]
fn an_error_that_reaches_another_nve_first_is_sent_on_to_the_tenants_own() {
    unreachable_comes_home(two_hosts_by_hand().host("hv3"), |world| {
        world.route(SIR, 64, "hv3");
        world.route(VNET, 96, "hv3");
    });
}

#[test]
fn an_error_about_a_packet_the_tenant_cannot_have_sent_is_dropped_and_counted() {
    let mut world = two_hosts_by_hand().start();
    let mark = world.mark();
    let stranger = frames::udp(Header::default(), endpoint(VM2[1], 1), endpoint(VM1[1], 2), b"not yours");
    let mut transport = vec![1, 0, 0, 0, 0, 0, 0, 0];
    transport.extend(stranger);
    let error = frames::ip(
        Header::default(),
        world.routers()[0].into(),
        address(VM1[1]),
        protocol::ICMPV6,
        transport,
    );
    world.send_to_host("hv1", error);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.received("vm1", mark).len(), 0);
    assert_eq!(world.nve("hv1").counters().uplink.dropped(DropReason::QuotedPacket), 1);
}

#[test]
fn an_error_longer_than_any_router_may_send_is_dropped_and_counted() {
    let mut world = two_hosts_by_hand().start();
    let mut error = |len: usize| {
        let about =
            frames::udp(Header::default(), endpoint(VM1[1], 1), endpoint(VM2[1], 2), &vec![0; len - 96]);
        let transport = [&[1, 0, 0, 0, 0, 0, 0, 0], &about[..]].concat();
        let router = world.routers()[0].into();
        let mark = world.mark();
        let error = frames::ip(Header::default(), router, address(VM1[1]), protocol::ICMPV6, transport);
        world.send_to_host("hv1", error);
        world.run_for(Duration::from_secs(1));
        world.received("vm1", mark).len()
    };
    assert_eq!((error(1280), error(1281)), (1, 0));
    assert_eq!(world.nve("hv1").counters().uplink.dropped(DropReason::QuotedPacket), 1);
}

/// The smallest ILA router (draft, section 4.6) pays for what it sends on, so that nothing can go round for ever.
#[test]
fn what_enters_from_the_fabric_and_leaves_to_it_again_costs_a_hop() {
    for family in [0, 1] {
        let mut world = two_hosts_by_hand().host("hv3").start();
        let mark = world.mark();
        send_udp(&mut world, family, 64);
        let mut packet = world.sent_on_link("hv1", mark)[0].bytes.clone();
        let sir_or_vnet = ["2001:db8:51:0:4000:3e9:a01:2", VM2[1]][family];
        let core::net::IpAddr::V6(destination) = address(sir_or_vnet) else { panic!("IPv6 only") };
        packet[24..40].copy_from_slice(&destination.octets());
        let mark = world.mark();
        world.send_to_host("hv3", packet.clone());
        world.run_for(Duration::from_secs(1));
        let passed = world.sent_on_link("hv3", mark)[0].bytes[7];
        assert_eq!(passed, packet[7] - 3, "its kernel in and out, and the router in between");
        assert_eq!(world.received("vm2", mark).len(), 1);

        packet[7] = 2;
        let mark = world.mark();
        world.send_to_host("hv3", packet);
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.received("vm2", mark).len(), 0);
        assert_eq!(world.nve("hv3").counters().uplink.dropped(DropReason::HopLimit), 1);
    }
}

#[test]
fn a_closed_port_answers_in_the_peers_own_name() {
    let mut world = two_hosts().start();
    for (family, expected) in [(0, (3, 3)), (1, (1, 4))] {
        assert_eq!(world.pings("vm2", VM1[family], 1, 8), 1, "vm2 knows its gateway");
        let mark = world.mark();
        let packet =
            frames::udp(Header::default(), endpoint(VM1[family], 4000), endpoint(VM2[family], 4001), b"?");
        world.send("vm1", &packet, Offload::NONE);
        world.run_for(Duration::from_secs(1));
        let error = world.received("vm1", mark)[0].ip().expect("a packet");
        assert_eq!((error.icmp(), error.source), (Some(expected), address(VM2[family])));
        let quote = Dissected::of_ip(error.icmp_error().expect("an error").quote).expect("a quote");
        assert_eq!((quote.source, quote.destination), (address(VM1[family]), address(VM2[family])));
        assert_eq!(quote.ports(), Some((4000, 4001)));
    }
}
