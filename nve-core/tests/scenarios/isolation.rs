//! Nothing crosses between virtual networks, and nobody speaks for another; each with a positive control in the same world.

use core::time::Duration;

use nve_core::DropReason;
use nve_core::packet::Offload;
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{Dice, GuestPlan, Plan, World};

use crate::{VM1, VM2, address, endpoint, two_hosts_by_hand};

/// `red` has the same IPv4 addresses as `blue`, and the /96 next to it.
const RED1: [&str; 2] = ["10.1.0.1", "2001:db8:b1:e:0:1:0:1"];
const RED2: [&str; 2] = ["10.1.0.2", "2001:db8:b1:e:0:1:0:2"];

fn two_networks() -> Plan {
    Plan::new(1)
        .network("blue", 1001, "10.1.0.0/16", "2001:db8:b1:e::/96")
        .network("red", 1002, "10.1.0.0/16", "2001:db8:b1:e:0:1::/96")
        .host("hv1")
        .host("hv2")
}

#[test]
fn networks_with_the_same_ipv4_and_neighbouring_ipv6_prefixes_do_not_meet() {
    let mut world = two_networks()
        .guest(GuestPlan::new("blue1", "hv1", "blue", &VM1))
        .guest(GuestPlan::new("blue2", "hv2", "blue", &VM2))
        .guest(GuestPlan::new("red1", "hv1", "red", &RED1))
        .guest(GuestPlan::new("red2", "hv2", "red", &RED2))
        .start();
    let pairs = [("blue1", VM2, ["red1", "red2"]), ("red1", RED2, ["blue1", "blue2"])];
    for (from, to, others) in pairs {
        for address in to {
            let mark = world.mark();
            assert_eq!(world.pings(from, address, 3, 56), 3, "control: {from} to {address}");
            for other in others {
                assert_eq!(world.received(other, mark).len(), 0, "{other} heard {from} talk to {address}");
            }
        }
    }
    // The only way to name the other network is its IPv6 address.
    for (from, to) in [("blue1", RED2[1]), ("blue1", RED1[1]), ("red1", VM2[1]), ("red1", VM1[1])] {
        let mark = world.mark();
        assert_eq!(world.pings(from, to, 2, 56), 0, "{from} to {to}");
        for other in ["blue1", "blue2", "red1", "red2"].into_iter().filter(|name| *name != from) {
            assert_eq!(world.received(other, mark).len(), 0, "{other} heard {from}");
        }
    }
    assert!(world.counters("blue1").dropped(DropReason::ForeignNetwork) >= 4);
    assert!(world.counters("red1").dropped(DropReason::ForeignNetwork) >= 4);
}

/// The first packet that `vm1` sends to `vm2` on the wire.
fn wire_packet(world: &mut World, from: &str, family: usize) -> Vec<u8> {
    let mark = world.mark();
    let packet = frames::udp(Header::default(), endpoint(VM1[family], 1), endpoint(VM2[family], 2), b"wire");
    world.send(from, &packet, Offload::NONE);
    world.run_for(Duration::from_millis(10));
    world.sent_on_link("hv1", mark)[0].bytes.clone()
}

#[test]
fn a_packet_from_the_wire_is_delivered_only_if_its_source_may_reach_its_destination() {
    let mut world = two_networks()
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2).by_hand())
        .guest(GuestPlan::new("red2", "hv2", "red", &RED2).by_hand())
        .guest(GuestPlan::new("red1", "hv1", "red", &RED1).by_hand())
        .start();
    for family in [0, 1] {
        let good = wire_packet(&mut world, "vm1", family);
        let unregistered = if family == 0 { "2001:db8:51:0:4000:3e9:a01:63" } else { "2001:db8:b1:e::63" };
        let own = if family == 0 { "2001:db8:51:0:4000:3e9:a01:2" } else { VM2[1] };
        let sources = [
            ("2001:db8:0:1:4000:3e9:a01:1", DropReason::IllegalSource), // a locator
            ("2001:db8:51:0:5000:3e9:a01:1", DropReason::IllegalSource), // C = 1
            ("2001:db8:51:0:4000:3ea:a01:1", DropReason::ForeignNetwork), // red's IPv4
            (RED1[1], DropReason::ForeignNetwork),
            ("2001:db8:9999::1", DropReason::OutsideSource),
            (unregistered, DropReason::UnregisteredSource),
            (own, DropReason::UnregisteredSource),
        ];
        for (source, reason) in sources {
            let mark = world.mark();
            let before = world.nve("hv2").counters().uplink.dropped(reason);
            let mut forged = good.clone();
            let core::net::IpAddr::V6(v6) = address(source) else { panic!("IPv6 only") };
            forged[8..24].copy_from_slice(&v6.octets());
            world.send_to_host("hv2", forged);
            world.run_for(Duration::from_secs(1));
            assert_eq!(world.received("vm2", mark).len() + world.received("red2", mark).len(), 0, "{source}");
            assert_eq!(world.nve("hv2").counters().uplink.dropped(reason), before + 1, "{source}");
        }
        let mark = world.mark();
        world.send_to_host("hv2", good);
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.received("vm2", mark).len(), 1, "control: the packet as it was is delivered");
    }
}

/// Any byte from the fabric: dropped and named, or delivered to whom it is for (which every guest insists on), never a panic.
#[test]
fn damaged_packets_from_the_wire_hurt_nobody() {
    let mut world = two_networks()
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2).by_hand())
        .guest(GuestPlan::new("red1", "hv1", "red", &RED1).by_hand())
        .guest(GuestPlan::new("red2", "hv2", "red", &RED2).by_hand())
        .start();
    world.expect_bad_checksums();
    let good = [wire_packet(&mut world, "vm1", 0), wire_packet(&mut world, "vm1", 1)];
    let mut dice = Dice::new(6);
    let mark = world.mark();
    for round in 0..6000 {
        let mut packet = good[round % 2].clone();
        for _ in 0..=dice.roll() % 4 {
            let at = dice.roll() as usize % packet.len();
            packet[at] = dice.roll() as u8;
        }
        if dice.chance(50) {
            packet.truncate(dice.roll() as usize % packet.len());
        }
        world.send_to_host("hv2", packet);
    }
    world.run_for(Duration::from_secs(1));
    assert!(world.received("vm2", mark).len() > 500, "damage to payloads and flow labels does no harm");
    assert_eq!(world.received("red2", mark).len(), 0, "no damage makes a packet another network's");
    let uplink = world.nve("hv2").counters().uplink;
    assert!(uplink.drops.len() > 8, "{:?}", uplink.drops);
}

#[test]
fn a_guest_cannot_send_from_its_neighbours_address_or_mac() {
    let mut world = two_hosts_by_hand().start();
    let vm1 = world.guest("vm1").mac;
    let vm2 = world.guest("vm2").mac;
    let gateway = nve_core::gateway::GATEWAY_MAC;
    for family in [0, 1] {
        let packet = |source: &str| {
            frames::udp(Header::default(), endpoint(source, 1), endpoint(VM2[family], 2), b"it is me")
        };
        let neighbour = if family == 0 { "10.1.0.7" } else { "2001:db8:b1:e::7" };
        let cases = [
            (vm1, neighbour, Some(DropReason::SpoofedAddress)),
            (vm1, VM2[family], Some(DropReason::SpoofedAddress)),
            (vm2, VM1[family], Some(DropReason::SpoofedMac)),
            (vm1, VM1[family], None),
        ];
        for (mac, source, expected) in cases {
            let mark = world.mark();
            let before = world.counters("vm1");
            world.send_frame("vm1", frames::ethernet(mac, gateway, &packet(source)), Offload::NONE);
            world.run_for(Duration::from_secs(1));
            let arrived = usize::from(expected.is_none());
            assert_eq!(world.received("vm2", mark).len(), arrived, "{mac} {source}");
            assert_eq!(world.sent_on_link("hv1", mark).len(), arrived, "{mac} {source}");
            if let Some(reason) = expected {
                assert_eq!(
                    world.counters("vm1").dropped(reason),
                    before.dropped(reason) + 1,
                    "{mac} {source}"
                );
            }
        }
    }
}
