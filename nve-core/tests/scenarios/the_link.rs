//! What an ordinary guest finds on its link: addresses, neighbours, a gateway that answers, and honest refusals.

use core::net::Ipv4Addr;
use core::time::Duration;

use nve_core::DropReason;
use nve_core::gateway::GATEWAY_MAC;
use nve_core::packet::Offload;
use nve_core::testkit::dissect::Dissected;
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{GuestPlan, Record, World};

use crate::{GATEWAY, VM1, VM2, address, endpoint, two_hosts, two_hosts_by_hand, two_hosts_in};
use nve_core::addr::ChecksumMode::Neutral;

#[test]
fn smoltcps_dhcp_client_gets_its_address_and_talks_with_it() {
    let mut world = two_hosts_in(Neutral, Neutral)
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).by_dhcp())
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2).by_dhcp())
        .start();
    let both =
        |world: &mut World| world.guest("vm1").lease().is_some() && world.guest("vm2").lease().is_some();
    assert!(world.run_until(Duration::from_secs(10), both), "no lease in ten seconds");
    let lease = world.guest("vm2").lease().expect("a lease").clone();
    assert_eq!(lease.address, (Ipv4Addr::new(10, 1, 0, 2), 16));
    assert_eq!(lease.router, Some(Ipv4Addr::new(10, 1, 255, 254)));
    assert_eq!(world.pings("vm1", VM2[0], 3, 56), 3);
    // Half of an hour's lease is over: renewed, by the same client, without a gap.
    world.run_for(Duration::from_secs(2400));
    assert_eq!(world.guest("vm2").lease(), Some(&lease));
    assert_eq!(world.pings("vm1", VM2[0], 3, 56), 3);
}

fn is_arp(record: &&&Record) -> bool {
    record.bytes[12..14] == [0x08, 0x06]
}

fn is_advertisement(record: &&&Record) -> bool {
    record.ip().is_some_and(|ip| ip.icmp() == Some((136, 0)))
}

#[test]
fn smoltcp_resolves_its_neighbours_to_the_gateways_mac() {
    let mut world = two_hosts_in(Neutral, Neutral)
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).on_link())
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2).on_link())
        .start();
    for to in VM2 {
        assert_eq!(world.pings("vm1", to, 2, 56), 2, "{to}");
    }
    let received = world.received("vm1", 0);
    let arp = received.iter().find(is_arp).expect("an ARP reply");
    assert_eq!(arp.bytes[22..28], *GATEWAY_MAC.as_bytes(), "the neighbour's address is at the gateway's MAC");
    assert_eq!(arp.bytes[28..32], [10, 1, 0, 2]);
    let advertisement = received.iter().find(is_advertisement).expect("a neighbour advertisement");
    let transport = advertisement.ip().expect("an IPv6 packet").transport;
    assert_eq!(
        transport[8..24],
        "2001:db8:b1:e::2".parse::<core::net::Ipv6Addr>().expect("an address").octets()
    );
    assert_eq!(transport[26..32], *GATEWAY_MAC.as_bytes());
    assert!(
        world
            .sent_on_link("hv1", 0)
            .iter()
            .all(|r| r.ip().is_some_and(|ip| !matches!(ip.icmp(), Some((133..=137, _)))))
    );
}

#[test]
fn the_gateway_answers_echo_at_each_of_its_addresses() {
    let mut world = two_hosts().start();
    for to in [GATEWAY[0], GATEWAY[1], "fe80::1"] {
        for len in [0, 56, 1400] {
            assert_eq!(world.pings("vm1", to, 3, len), 3, "{to}, {len} bytes");
        }
    }
    assert_eq!(world.sent_on_link("hv1", 0).len(), 0, "none of it concerns the fabric");
}

#[test]
fn an_unknown_destination_is_told_unreachable_and_counted() {
    let plan = two_hosts_by_hand().without_mapping("hv1", VM2[0]).without_mapping("hv1", VM2[1]);
    let mut world = plan.start();
    for (family, expected) in [(0, (3, 1)), (1, (1, 3))] {
        let mark = world.mark();
        let packet =
            frames::udp(Header::default(), endpoint(VM1[family], 1), endpoint(VM2[family], 2), b"anyone?");
        world.send("vm1", &packet, Offload::NONE);
        world.run_for(Duration::from_secs(1));
        let received = world.received("vm1", mark);
        assert_eq!(received.len(), 1, "family {family}");
        let error = received[0].ip().expect("a packet");
        assert_eq!((error.icmp(), error.source), (Some(expected), address(GATEWAY[family])));
        let quote = error.icmp_error().expect("an error").quote;
        assert_eq!(quote, packet, "the packet as it was sent");
        assert_eq!(Dissected::of_ip(quote).and_then(|quote| quote.ports()), Some((1, 2)));
        assert_eq!(world.sent_on_link("hv1", mark).len(), 0);
    }
    assert_eq!(world.counters("vm1").dropped(DropReason::NoMapping), 2);
}

#[test]
fn a_flood_towards_nowhere_brings_few_errors_and_a_count_of_all() {
    let mut world = two_hosts_by_hand().without_mapping("hv1", VM2[0]).without_mapping("hv1", VM2[1]).start();
    for family in [0, 1] {
        let packet =
            frames::udp(Header::default(), endpoint(VM1[family], 1), endpoint(VM2[family], 2), b"flood");
        (0..1000).for_each(|_| world.send("vm1", &packet, Offload::NONE));
    }
    world.run_for(Duration::from_secs(1));
    let errors = world.received("vm1", 0).len();
    assert!((1..=100).contains(&errors), "{errors} errors for 2000 packets at once");
    assert_eq!(world.counters("vm1").dropped(DropReason::NoMapping), 2000);
}

#[test]
fn a_guest_that_is_down_gets_nothing_and_all_of_it_once_it_is_up_again() {
    let mut world = two_hosts().start();
    assert_eq!(world.pings("vm1", VM2[1], 3, 56), 3);
    world.set_up("vm2", false);
    let mark = world.mark();
    assert_eq!(world.pings("vm1", VM2[1], 3, 56), 0);
    assert_eq!(world.received("vm2", mark).len(), 0);
    assert!(world.nve("hv2").counters().uplink.dropped(DropReason::ReceiverDown) >= 3);
    world.set_up("vm2", true);
    assert_eq!(world.pings("vm1", VM2[1], 3, 56), 3);
}

#[test]
fn a_reload_changes_what_is_reachable_and_a_refused_one_changes_nothing() {
    let mut world = two_hosts().start();
    assert_eq!(world.pings("vm1", VM2[1], 3, 56), 3);
    let mappings = |world: &World| world.nve("hv1").mappings();
    let before = mappings(&world);
    let refused = world.reload("hv1", |setup| {
        setup.mappings.clear();
        setup.attachments[0].addresses.clear();
    });
    assert!(refused.is_err_and(|error| error.object == "attachment.vm1"));
    assert_eq!(mappings(&world), before);
    assert_eq!(world.pings("vm1", VM2[1], 3, 56), 3, "nothing has changed");

    let mut withdrawn = Vec::new();
    world
        .reload("hv1", |setup| withdrawn = core::mem::take(&mut setup.mappings))
        .expect("no mappings are legal");
    assert_eq!(world.pings("vm1", VM2[1], 3, 56), 0, "withdrawn");
    world.reload("hv1", |setup| setup.mappings = withdrawn).expect("they were legal before");
    assert_eq!(world.pings("vm1", VM2[1], 3, 56), 3, "and back");
}

fn is_router_advertisement(record: &&&Record) -> bool {
    record.ip().is_some_and(|ip| ip.icmp() == Some((134, 0)))
}

/// The MTU that a router advertisement told.
fn told_mtu(record: &Record) -> u32 {
    let transport = record.ip().expect("a packet").transport;
    assert_eq!(transport[24..26], [5, 1], "the MTU option is behind the link-layer address");
    u32::from_be_bytes([transport[28], transport[29], transport[30], transport[31]])
}

#[test]
fn a_guest_is_told_unasked_what_has_changed_and_every_half_hour_what_has_not() {
    let mut world = two_hosts_by_hand().start();
    let mark = world.mark();
    let advertisements = |world: &mut World| {
        world.tick("hv1");
        world.run_for(Duration::from_millis(1));
        let received = world.received("vm1", mark);
        received.iter().filter(is_router_advertisement).map(|record| told_mtu(record)).collect::<Vec<_>>()
    };
    assert_eq!(advertisements(&mut world), [0; 0], "it asks by itself when it boots");
    world.run_for(Duration::from_secs(60));
    assert_eq!(advertisements(&mut world), [1480]);
    world.run_for(Duration::from_secs(1790));
    assert_eq!(advertisements(&mut world).len(), 1);
    world.run_for(Duration::from_secs(10));
    assert_eq!(advertisements(&mut world).len(), 2);

    world.reload("hv1", |setup| setup.networks[0].search = vec!["blue.example".into()]).expect("legal");
    assert_eq!(advertisements(&mut world).len(), 3, "at once");
    world.reload("hv1", |setup| setup.mappings.clear()).expect("legal");
    assert_eq!(advertisements(&mut world).len(), 3, "not what a router would say");
    world.reload("hv1", |setup| setup.host.uplink_mtu = 1400).expect("legal");
    assert_eq!(advertisements(&mut world).last(), Some(&1380));
    world.set_up("vm1", false);
    world.run_for(Duration::from_secs(7200));
    assert_eq!(advertisements(&mut world).len(), 4, "a guest that is down is told nothing");
}

#[test]
fn the_outside_is_refused_with_a_reason_the_guest_can_read() {
    let mut world = two_hosts_by_hand().start();
    for (source, outside, expected) in [(VM1[0], "192.0.2.1", (3, 13)), (VM1[1], "2001:db8:ffff::1", (1, 1))]
    {
        let mark = world.mark();
        let packet = frames::udp(Header::default(), endpoint(source, 1), endpoint(outside, 2), b"out");
        world.send("vm1", &packet, Offload::NONE);
        world.run_for(Duration::from_secs(1));
        let received = world.received("vm1", mark);
        assert_eq!(received[0].ip().expect("a packet").icmp(), Some(expected), "{outside}");
        assert_eq!(world.sent_on_link("hv1", mark).len(), 0);
    }
    assert_eq!(world.counters("vm1").dropped(DropReason::Outside), 2);
}
