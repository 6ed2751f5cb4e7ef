//! Shared addresses: one holder or none, moved by whoever says that it has it, if it may (docs/decisions/0013).

use core::net::IpAddr;
use core::time::Duration;

use nve_core::DropReason;
use nve_core::addr::ChecksumMode::Neutral;
use nve_core::gateway::GATEWAY_MAC;
use nve_core::packet::Offload;
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{Dice, GuestPlan, Record, World};
use smoltcp::wire::EthernetAddress;

use crate::{VM1, VM2, address, endpoint, two_hosts_in};

const A: [&str; 2] = ["10.1.0.11", "2001:db8:b1:e::11"];
const B: [&str; 2] = ["10.1.0.12", "2001:db8:b1:e::12"];
const STRANGER: [&str; 2] = ["10.1.0.13", "2001:db8:b1:e::13"];
const SHARED: [&str; 2] = ["10.1.0.100", "2001:db8:b1:e::100"];
const RED: [&str; 2] = ["10.1.0.100", "2001:db8:b1:f::100"];
/// VRRP's, of router 10.
const VIRTUAL: EthernetAddress = EthernetAddress([0, 0, 0x5e, 0, 1, 10]);

fn world() -> World {
    let member =
        |name, own: &[&str]| GuestPlan::new(name, "hv1", "blue", own).sharing(&SHARED, &[VIRTUAL]).by_hand();
    two_hosts_in(Neutral, Neutral)
        .network("red", 1002, "10.1.0.0/16", "2001:db8:b1:f::/96")
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2).by_hand())
        .guest(member("a", &A))
        .guest(member("b", &B))
        .guest(GuestPlan::new("stranger", "hv1", "blue", &STRANGER).by_hand())
        .guest(GuestPlan::new("red1", "hv1", "red", &RED).by_hand())
        .start()
}

/// An ARP frame.
fn arp(mac: EthernetAddress, operation: u8, hardware: EthernetAddress, from: &str, to: &str) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (address(from), address(to)) else { panic!("IPv4 only") };
    let mut frame = [&[0xff; 6], mac.as_bytes(), &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
    frame.extend([hardware.as_bytes(), &from.octets(), &[0xff; 6], &to.octets()].concat());
    frame
}

/// A neighbour advertisement to all nodes, from its target.
fn advertisement(mac: EthernetAddress, named: EthernetAddress, flags: u8, target: &str) -> Vec<u8> {
    let IpAddr::V6(octets) = address(target) else { panic!("IPv6 only") };
    let body = [&[136, 0, 0, 0, flags, 0, 0, 0], &octets.octets()[..], &[2, 1], named.as_bytes()].concat();
    let header = Header { hop_limit: 255, ..Header::default() };
    let packet = frames::ip(header, address(target), address("ff02::1"), 58, body);
    frames::ethernet(mac, EthernetAddress([0x33, 0x33, 0, 0, 0, 1]), &packet)
}

const OVERRIDE: u8 = 0x20;
const SOLICITED: u8 = 0x40;

/// The claim of `target` in its family, as keepalived makes it.
fn claim(mac: EthernetAddress, target: &str) -> Vec<u8> {
    match address(target) {
        IpAddr::V4(_) => arp(mac, 1, mac, target, target),
        IpAddr::V6(_) => advertisement(mac, mac, OVERRIDE, target),
    }
}

fn send(world: &mut World, from: &str, frame: Vec<u8>) {
    world.send_frame(from, frame, Offload::NONE);
    world.run_for(Duration::from_millis(20));
}

fn mac(world: &World, guest: &str) -> EthernetAddress {
    world.guest(guest).mac
}

/// Frames with UDP in them that `guest` got since `mark`.
fn udp<'w>(world: &'w World, guest: &str, mark: usize) -> Vec<&'w Record> {
    let records = world.received(guest, mark);
    records.into_iter().filter(|r| r.ip().is_some_and(|ip| ip.protocol == 17)).collect()
}

/// Who gets what is sent to the shared address of this family, from this host and from the other.
fn reached(world: &mut World, family: usize) -> Vec<&'static str> {
    let mut who = Vec::new();
    for (from, own) in [("vm1", VM1[family]), ("vm2", VM2[family])] {
        let mark = world.mark();
        let packet = frames::udp(Header::default(), endpoint(own, 1), endpoint(SHARED[family], 2), b"to it");
        world.send(from, &packet, Offload::NONE);
        world.run_for(Duration::from_millis(50));
        let got = |name: &&str| !udp(world, name, mark).is_empty();
        who.extend(["vm1", "vm2", "a", "b", "stranger", "red1"].into_iter().filter(got));
    }
    who
}

/// Whether `vm1` gets what `from` sends under the shared address.
fn speaks(world: &mut World, from: &str, family: usize) -> bool {
    let mark = world.mark();
    let packet =
        frames::udp(Header::default(), endpoint(SHARED[family], 1), endpoint(VM1[family], 2), b"from it");
    world.send(from, &packet, Offload::NONE);
    world.run_for(Duration::from_millis(20));
    !udp(world, "vm1", mark).is_empty()
}

fn holder(world: &World, family: usize) -> Option<String> {
    let lines = world.nve("hv1").mappings();
    let line = lines.into_iter().find(|line| line.shared && line.address == address(SHARED[family]));
    line.expect("it is listed").attachment
}

#[test]
fn nobody_has_a_shared_address_until_somebody_uses_or_claims_it() {
    for family in [0, 1] {
        let mut world = world();
        assert_eq!((reached(&mut world, family), holder(&world, family)), (vec![], None));
        assert!(!speaks(&mut world, "stranger", family), "who is not listed takes nothing");
        assert_eq!(holder(&world, family), None);
        assert!(speaks(&mut world, "a", family), "the first to use it has it");
        assert_eq!(reached(&mut world, family), ["a", "a"]);
        assert!(!speaks(&mut world, "b", family));
        assert_eq!(world.counters("b").dropped(DropReason::NotHolder), 1);
        assert_eq!(holder(&world, family), Some("a".into()));
    }
}

#[test]
fn a_gratuitous_arp_or_an_unsolicited_advertisement_moves_a_shared_address() {
    let mut world = world();
    let (a, b) = (mac(&world, "a"), mac(&world, "b"));
    let moves: [(usize, &str, Vec<u8>); 6] = [
        (0, "a", arp(a, 1, a, SHARED[0], SHARED[0])),
        (0, "b", arp(b, 2, b, SHARED[0], SHARED[0])),
        (0, "a", arp(VIRTUAL, 1, VIRTUAL, SHARED[0], SHARED[0])),
        (1, "b", advertisement(b, b, OVERRIDE, SHARED[1])),
        (1, "a", advertisement(VIRTUAL, VIRTUAL, OVERRIDE, SHARED[1])),
        (1, "b", advertisement(b, b, OVERRIDE | 0x80, SHARED[1])),
    ];
    for (number, (family, who, frame)) in moves.into_iter().enumerate() {
        let claimed = EthernetAddress::from_bytes(&frame[6..12]);
        send(&mut world, who, frame);
        let mark = world.mark();
        assert_eq!(reached(&mut world, family), [who, who], "move {number}");
        for record in udp(&world, who, mark) {
            assert_eq!(
                record.bytes[..6],
                *claimed.as_bytes(),
                "move {number}: frames go where it was claimed"
            );
        }
        let loser = if who == "a" { "b" } else { "a" };
        assert!(speaks(&mut world, who, family) && !speaks(&mut world, loser, family), "move {number}");
    }
    // Its own addresses keep its own MAC.
    let mark = world.mark();
    let packet = frames::udp(Header::default(), endpoint(VM1[0], 1), endpoint(A[0], 2), b"own");
    world.send("vm1", &packet, Offload::NONE);
    world.run_for(Duration::from_millis(20));
    assert_eq!(world.received("a", mark)[0].bytes[..6], *a.as_bytes());
}

#[test]
fn nobody_moves_what_is_not_its_to_move() {
    let mut world = world();
    let (a, b) = (mac(&world, "a"), mac(&world, "b"));
    let (stranger, red) = (mac(&world, "stranger"), mac(&world, "red1"));
    let foreign = EthernetAddress([0x52, 0x54, 0, 9, 9, 9]);
    for family in [0, 1] {
        send(&mut world, "a", claim(a, SHARED[family]));
        assert_eq!(reached(&mut world, family), ["a", "a"], "control");
    }
    let attempts = [
        (0, "stranger", claim(stranger, SHARED[0]), "an unlisted attachment", DropReason::SpoofedAddress),
        (1, "stranger", claim(stranger, SHARED[1]), "an unlisted attachment", DropReason::SpoofedAddress),
        (0, "stranger", claim(VIRTUAL, SHARED[0]), "an unlisted virtual MAC", DropReason::SpoofedMac),
        // Its own address, and blue's shared one.
        (0, "red1", claim(red, SHARED[0]), "another network", DropReason::ArpUnanswered),
        (1, "red1", claim(red, SHARED[1]), "another network", DropReason::SpoofedAddress),
        (0, "b", claim(foreign, SHARED[0]), "a MAC that is not admitted", DropReason::SpoofedMac),
        (0, "b", arp(b, 1, a, SHARED[0], SHARED[0]), "another MAC inside", DropReason::SpoofedMac),
        (1, "b", advertisement(b, a, OVERRIDE, SHARED[1]), "another MAC inside", DropReason::SpoofedMac),
        (1, "b", advertisement(b, b, 0, SHARED[1]), "no override", DropReason::NotHolder),
        (1, "b", advertisement(b, b, SOLICITED | OVERRIDE, SHARED[1]), "solicited", DropReason::NotHolder),
        (0, "b", arp(b, 1, b, SHARED[0], VM1[0]), "no announcement", DropReason::NotHolder),
        (0, "b", claim(b, VM1[0]), "a neighbour's own address", DropReason::SpoofedAddress),
        (1, "b", claim(b, VM1[1]), "a neighbour's own address", DropReason::SpoofedAddress),
        (1, "b", claim(b, RED[1]), "another network's address", DropReason::SpoofedAddress),
    ];
    for (family, from, frame, what, reason) in attempts {
        let before = world.counters(from).dropped(reason);
        send(&mut world, from, frame);
        assert_eq!(world.counters(from).dropped(reason), before + 1, "{from}: {what}: {reason:?}");
        assert_eq!(reached(&mut world, family), ["a", "a"], "{from}: {what}");
    }
    for family in [0, 1] {
        send(&mut world, "b", claim(b, SHARED[family]));
        assert_eq!(reached(&mut world, family), ["b", "b"], "control: what b may do works");
    }
}

/// After a start of the daemon the guest that has the address need not say so: it is asked.
#[test]
fn who_has_an_address_that_nobody_holds_is_asked_and_its_answer_is_enough() {
    let guest = |name, own: &[&str]| GuestPlan::new(name, "hv1", "blue", own).sharing(&SHARED, &[]);
    let mut world = two_hosts_in(Neutral, Neutral)
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1))
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2))
        .guest(guest("a", &A).answering(&SHARED))
        .guest(guest("b", &B))
        .start();
    world.run_for(Duration::from_secs(3));
    for family in [0, 1] {
        assert_eq!(holder(&world, family), Some("a".into()), "b does not have it, and does not answer");
        for from in ["vm1", "vm2"] {
            assert_eq!(world.pings(from, SHARED[family], 3, 56), 3, "{from} to {}", SHARED[family]);
        }
    }
    // Who holds it is not asked.
    let mark = world.mark();
    world.run_for(Duration::from_secs(60));
    let questions = world.received("a", mark).iter().filter(|record| record.bytes[12..14] == [8, 6]).count();
    assert_eq!(questions, 0);
}

/// In any order of claims and packets, each packet goes to whoever claimed last.
#[test]
fn no_packet_of_a_moved_address_reaches_the_old_holder() {
    let mut world = world();
    let mut dice = Dice::new(7);
    let mut holder = "a";
    let first = mac(&world, "a");
    send(&mut world, "a", claim(first, SHARED[0]));
    for round in 0..300 {
        if dice.chance(20) {
            holder = if holder == "a" { "b" } else { "a" };
            let by = if dice.chance(50) { VIRTUAL } else { mac(&world, holder) };
            world.send_frame(holder, claim(by, SHARED[0]), Offload::NONE);
            // The bucket for moves fills again.
            world.run_for(Duration::from_millis(500));
        }
        let mark = world.mark();
        for (from, own) in [("vm1", VM1[0]), ("vm2", VM2[0])] {
            let packet = frames::udp(Header::default(), endpoint(own, 1), endpoint(SHARED[0], 2), b"to it");
            world.send(from, &packet, Offload::NONE);
        }
        world.run_for(Duration::from_millis(20));
        let old = if holder == "a" { "b" } else { "a" };
        let got = (udp(&world, holder, mark).len(), udp(&world, old, mark).len());
        assert_eq!(got, (2, 0), "round {round}, {holder} holds it");
    }
}

#[test]
fn an_address_is_not_moved_more_often_than_its_claimants_may() {
    let mut world = world();
    let (a, b) = (mac(&world, "a"), mac(&world, "b"));
    for _ in 0..200 {
        world.send_frame("a", claim(a, SHARED[0]), Offload::NONE);
        world.run_for(Duration::from_micros(100));
        world.send_frame("b", claim(b, SHARED[0]), Offload::NONE);
        world.run_for(Duration::from_micros(100));
    }
    let refused = |world: &World, name| world.counters(name).dropped(DropReason::GatewayRate);
    // Then the address stays with the other one, whose claims change nothing any more.
    let counted = [refused(&world, "a"), refused(&world, "b")];
    assert!(counted.into_iter().sum::<u64>() > 100, "64 at once, then 2 a second: {counted:?}");
    // What repeats what is so already is no move.
    world.run_for(Duration::from_secs(60));
    let before = refused(&world, "a");
    for _ in 0..200 {
        world.send_frame("a", claim(a, SHARED[0]), Offload::NONE);
    }
    world.run_for(Duration::from_secs(1));
    assert_eq!(refused(&world, "a"), before);
    assert_eq!(reached(&mut world, 0), ["a", "a"]);
}

#[test]
fn a_holder_keeps_its_address_over_a_reload_while_it_is_listed() {
    let mut world = world();
    let b = mac(&world, "b");
    send(&mut world, "b", claim(b, SHARED[0]));
    world.reload("hv1", |setup| setup.attachments[0].hostname = Some("other".into())).expect("accepted");
    assert_eq!(reached(&mut world, 0), ["b", "b"]);
    let listed = |shared: Vec<IpAddr>| {
        move |setup: &mut nve_core::setup::Setup| {
            setup.attachments.iter_mut().find(|a| a.name == "b").expect("b").shared = shared;
        }
    };
    world.reload("hv1", listed(vec![])).expect("accepted");
    assert_eq!(reached(&mut world, 0), [""; 0]);
    assert!(!speaks(&mut world, "b", 0));
    world.reload("hv1", listed(SHARED.map(address).into())).expect("accepted");
    assert_eq!(reached(&mut world, 0), [""; 0], "and it does not come back by itself");
    send(&mut world, "b", claim(b, SHARED[0]));
    assert_eq!(reached(&mut world, 0), ["b", "b"]);
}

/// A standby looks whether the address is free before it takes it: it may, whoever has it. Everybody else is told that it is taken.
#[test]
fn probes_of_a_shared_address_are_answered_but_to_who_may_take_it() {
    let mut world = world();
    let (a, stranger, vm1) = (mac(&world, "a"), mac(&world, "stranger"), mac(&world, "vm1"));
    // The gateway has asked who has it, and nobody has.
    world.run_for(Duration::from_millis(100));
    let answered = |world: &mut World, from: &str, frame: Vec<u8>| {
        let mark = world.mark();
        send(world, from, frame);
        world.received(from, mark).first().map(|record| EthernetAddress::from_bytes(&record.bytes[..6]))
    };
    for held in [false, true] {
        if held {
            let b = mac(&world, "b");
            send(&mut world, "b", claim(b, SHARED[0]));
        }
        let probe = |mac| arp(mac, 1, mac, "0.0.0.0", SHARED[0]);
        assert_eq!(answered(&mut world, "a", probe(a)), None, "held: {held}");
        assert_eq!(answered(&mut world, "stranger", probe(stranger)), Some(stranger), "held: {held}");
        assert_eq!(answered(&mut world, "vm1", arp(vm1, 1, vm1, VM1[0], SHARED[0])), Some(vm1));
    }
    // The holder asks under its virtual MAC, and hears there; never about the address itself.
    send(&mut world, "a", claim(VIRTUAL, SHARED[0]));
    let ask = |to| arp(VIRTUAL, 1, VIRTUAL, SHARED[0], to);
    assert_eq!(answered(&mut world, "a", ask(VM1[0])), Some(VIRTUAL));
    assert_eq!(answered(&mut world, "a", arp(a, 1, a, A[0], SHARED[0])), None, "its own");
    // And so does an error that a packet of it brings.
    let packet = frames::udp(Header::default(), endpoint(SHARED[0], 1), endpoint("10.1.0.99", 2), b"nobody");
    let frame = frames::ethernet(VIRTUAL, GATEWAY_MAC, &packet);
    assert_eq!(answered(&mut world, "a", frame), Some(VIRTUAL));
}
