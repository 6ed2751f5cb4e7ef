//! Groups and broadcasts: everybody who should gets one copy, on one host and through the wire alike, and nobody else any.
//!
//! Fields compared: those of `one_host.rs`, the hop limit included, for it is given anew at every receiver.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use nve_core::DropReason;
use nve_core::addr::ChecksumMode::{self, Neutral, Unmodified};
use nve_core::addr::Vnid;
use nve_core::packet::{ChecksumState, Offload};
use nve_core::setup::Setup;
use nve_core::tables::{Groups, Listeners, group_in};
use nve_core::testkit::checksum;
use nve_core::testkit::dissect::protocol;
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{GuestPlan, Plan, Record, World};

use crate::{VM1, VM2, address, endpoint};

const VM3: [&str; 2] = ["10.1.0.3", "2001:db8:b1:e::3"];
/// The same numbers in another network.
const RED: [&str; 2] = ["10.1.0.2", "2001:db8:b1:e:0:1:0:2"];
const RED_FAR: [&str; 2] = ["10.1.0.3", "2001:db8:b1:e:0:1:0:3"];

const GROUPS: [&str; 4] = ["239.1.2.3", "232.0.0.9", "ff02::fb", "ff05::1:3"];

/// vm1 on hv1, vm2 on `second`, vm3 on hv2; red ones beside them on both hosts. Nothing but frames made by hand.
fn world(second: &str, mode: ChecksumMode) -> World {
    let plan = Plan::new(7)
        .network("blue", 1001, "10.1.0.0/16", "2001:db8:b1:e::/96")
        .snooping()
        .network("red", 1002, "10.1.0.0/16", "2001:db8:b1:e:0:1::/96")
        .host_in("hv1", mode)
        .host_in("hv2", mode)
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", second, "blue", &VM2).by_hand())
        .guest(GuestPlan::new("vm3", "hv2", "blue", &VM3).by_hand())
        .guest(GuestPlan::new("red", "hv1", "red", &RED).by_hand())
        .guest(GuestPlan::new("red-far", "hv2", "red", &RED_FAR).by_hand());
    let plan = GROUPS.iter().fold(plan, |plan, group| plan.listener("blue", group, "hv2"));
    let world = plan.start();
    for (host, names) in [("hv1", ["vm1", "vm2", "red"]), ("hv2", ["vm2", "vm3", "red-far"])] {
        listen(&world, host, &names);
    }
    world
}

/// What the reports of these guests would have made of [`GROUPS`], were they all of network blue. (A red one listed there by
/// mistake must not be sent anything.)
fn listen(world: &World, host: &str, names: &[&str]) {
    let blue = Vnid::new(1001).expect("a VNID");
    let ports: Box<[_]> = names.iter().filter_map(|name| world.nve(host).port(name)).collect();
    let mut listeners = Listeners::new();
    let domain = world.nve(host).world().domains()[0];
    for group in GROUPS {
        let group = group_in(blue, address(group)).expect("a group");
        listeners.insert(domain.key(group).expect("types 2 and 4 have one"), ports.clone());
    }
    let mut groups = Groups::default();
    groups.set((domain.id(), blue), listeners);
    world.nve(host).publish_groups(groups);
}

/// Every frame that each guest got of `packet`, by field.
fn heard(
    world: &mut World,
    packet: &[u8],
    offload: Offload,
) -> BTreeMap<&'static str, Vec<BTreeMap<String, String>>> {
    let mark = world.mark();
    world.send("vm1", packet, offload);
    world.run_for(Duration::from_secs(1));
    let all = ["vm1", "vm2", "vm3", "red", "red-far"].into_iter();
    let said = |name| {
        world.received(name, mark).into_iter().filter(|record| !is_query(record)).map(fields).collect()
    };
    all.map(|name| (name, said(name))).collect()
}

/// What the gateway asks, from time to time.
fn is_query(record: &Record) -> bool {
    record.ip().is_some_and(|ip| match ip.protocol {
        2 => ip.transport.first() == Some(&0x11),
        protocol::ICMPV6 => ip.transport.first() == Some(&130),
        _ => false,
    })
}

fn fields(record: &Record) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::from([("ethernet".to_owned(), format!("{:02x?}", &record.bytes[..14]))]);
    if let Some(ip) = record.ip() {
        fields.extend(ip.fields().into_iter().map(|(name, value)| (name.to_owned(), value)));
        if ip.version == 4 && !ip.is_fragment() {
            fields.remove("ip.identification");
        }
    }
    fields
}

fn everything() -> Vec<(String, Vec<u8>)> {
    let mut cases = Vec::new();
    let to = ["255.255.255.255", "10.1.255.255", "224.0.0.251", "ff02::1"].into_iter().chain(GROUPS);
    for to in to {
        let from = if address(to).is_ipv4() { VM1[0] } else { VM1[1] };
        for hop_limit in [1, 255] {
            let header = Header { hop_limit, ..Header::default() };
            let packet = frames::udp(header, endpoint(from, 5353), endpoint(to, 5353), b"who is there?");
            cases.push((format!("UDP to {to}, hop limit {hop_limit}"), packet));
        }
        let echo = frames::echo_request(Header::default(), address(from), address(to), 1, &[7; 100]);
        cases.push((format!("echo to {to}"), echo));
        if address(to).is_ipv4() {
            let header = Header { dont_fragment: false, ..Header::default() };
            let large = frames::udp(header, endpoint(from, 1), endpoint(to, 2), &[9; 3000]);
            cases.push((format!("3000 bytes to {to}"), large));
        } else {
            let own = frames::udp(
                Header::default(),
                endpoint("fe80::5054:ff:fe00:1", 5353),
                endpoint(to, 5353),
                b"me",
            );
            cases.push((format!("from a link-local address to {to}"), own));
        }
    }
    cases
}

#[test]
fn all_of_the_network_get_one_copy_on_one_host_and_through_the_wire_alike() {
    for mode in [Neutral, Unmodified] {
        let (mut near, mut far) = (world("hv1", mode), world("hv2", mode));
        for (name, packet) in everything() {
            let (here, there) =
                (heard(&mut near, &packet, Offload::NONE), heard(&mut far, &packet, Offload::NONE));
            assert_eq!(here, there, "{name}");
            assert_eq!((here["vm1"].len(), here["red"].len(), here["red-far"].len()), (0, 0, 0), "{name}");
            assert!(!here["vm2"].is_empty(), "{name}: {:?}", near.counters("vm1").drops);
            assert_eq!(here["vm2"], here["vm3"], "{name}");
        }
        assert_eq!((near.counters("vm1").drops, far.counters("vm1").drops), (vec![], vec![]));
    }
}

#[test]
fn a_copy_bears_the_groups_mac_its_address_and_the_scopes_hop_limit() {
    let mut world = world("hv1", Neutral);
    for (to, mac, hop_limit) in [
        ("255.255.255.255", "[ff, ff, ff, ff, ff, ff", "255"),
        ("10.1.255.255", "[ff, ff, ff, ff, ff, ff", "255"),
        ("224.0.0.251", "[01, 00, 5e, 00, 00, fb", "255"),
        ("239.1.2.3", "[01, 00, 5e, 01, 02, 03", "1"),
        ("ff02::fb", "[33, 33, 00, 00, 00, fb", "255"),
        ("ff05::1:3", "[33, 33, 00, 01, 00, 03", "1"),
    ] {
        let from = if address(to).is_ipv4() { VM1[0] } else { VM1[1] };
        let packet = frames::udp(Header::default(), endpoint(from, 5353), endpoint(to, 5353), b"hello");
        let heard = heard(&mut world, &packet, Offload::NONE);
        for listener in ["vm2", "vm3"] {
            let fields = &heard[listener][0];
            assert!(fields["ethernet"].starts_with(mac), "{to}: {}", fields["ethernet"]);
            assert_eq!((fields["ip.destination"].as_str(), fields["ip.hop-limit"].as_str()), (to, hop_limit));
            assert_eq!(fields["ip.source"], from);
        }
    }
}

#[test]
fn on_the_wire_a_copy_has_the_drafts_types_and_64_hops() {
    let mut world = world("hv1", Neutral);
    let low = |vni: u64, of_type: u64, rest: u64| of_type << 61 | vni << 32 | rest;
    for (to, c, identifier) in [
        ("255.255.255.255", 0, low(1001, 2, 0xffff_ffff)),
        ("224.0.0.251", 1, low(1001, 2, 0xe000_00fb)),
        ("ff02::fb", 1, low(1001, 4, 0x2000_00fb)),
        ("ff05::1:3", 1, low(1001, 4, 0x5001_0003)),
    ] {
        let from = if address(to).is_ipv4() { VM1[0] } else { VM1[1] };
        let header = Header { hop_limit: 1, ..Header::default() };
        let packet = frames::udp(header, endpoint(from, 5353), endpoint(to, 5353), b"hello");
        let mark = world.mark();
        heard(&mut world, &packet, Offload::NONE);
        let sent = world.sent_on_link("hv1", mark);
        let [copy] = sent.as_slice() else { panic!("{to}: one copy for hv2, not {}", sent.len()) };
        assert_eq!(copy.bytes[7], 64, "{to}");
        assert_eq!(copy.bytes[24..32], world.locator_of("hv2").octets()[..8], "{to}");
        let bits = u64::from_be_bytes(copy.bytes[32..40].try_into().expect("8 bytes"));
        assert_eq!((bits >> 60 & 1, bits >> 61), (c, identifier >> 61), "{to}");
        // Of C = 1 the low word is the adjustment; the audit of the link has verified it.
        let mask = if c == 1 { !0xffff & !(1 << 60) } else { !0 };
        assert_eq!(bits & mask, identifier & mask, "{to}");
    }
}

#[test]
fn nobody_listens_and_nothing_is_sent() {
    let mut world = world("hv1", Neutral);
    for to in ["239.9.9.9", "ff02::9"] {
        let from = if address(to).is_ipv4() { VM1[0] } else { VM1[1] };
        let mark = world.mark();
        let packet = frames::udp(Header::default(), endpoint(from, 1), endpoint(to, 2), b"anybody?");
        assert!(heard(&mut world, &packet, Offload::NONE).values().all(Vec::is_empty), "{to}");
        assert!(world.sent_on_link("hv1", mark).is_empty(), "{to}");
    }
    assert_eq!(world.counters("vm1").drops, [(DropReason::NoListener, 2)]);
    // The same group where everybody hears every group.
    let mark = world.mark();
    let packet = frames::udp(Header::default(), endpoint(RED[0], 1), endpoint("239.9.9.9", 2), b"anybody?");
    world.send("red", &packet, Offload::NONE);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.received("red-far", mark).len(), 1);
}

/// One receiver takes partial checksums and super-packets, the other nothing: both get good packets (every frame to a guest and every packet
/// on the link is judged).
#[test]
fn what_one_receiver_lacks_is_finished_for_all() {
    let mut world = Plan::new(7)
        .network("blue", 1001, "10.1.0.0/16", "2001:db8:b1:e::/96")
        .host("hv1")
        .host("hv2")
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", "hv1", "blue", &VM2).by_hand().takes_offloads())
        .guest(GuestPlan::new("vm3", "hv1", "blue", &VM3).by_hand())
        .guest(GuestPlan::new("vm4", "hv2", "blue", &["10.1.0.4", "2001:db8:b1:e::4"]).by_hand())
        .start();
    for (from, to) in [(VM1[0], "224.0.0.251"), (VM1[0], "255.255.255.255"), (VM1[1], "ff02::1")] {
        for segmented in [false, true] {
            let payload = [5; 600];
            let mut packet =
                frames::udp(Header::default(), endpoint(from, 5353), endpoint(to, 5353), &payload);
            let offload = match segmented {
                true => frames::leave_segmentation(&mut packet, 200),
                false => frames::leave_checksum(&mut packet),
            };
            let mark = world.mark();
            world.send("vm1", &packet, offload);
            world.run_for(Duration::from_secs(1));
            let expected = if segmented { 3 } else { 1 };
            for name in ["vm2", "vm3", "vm4"] {
                let got: Vec<_> = world.received(name, mark).into_iter().filter(|r| !is_query(r)).collect();
                assert_eq!(got.len(), expected, "{name} of {to}, {segmented}");
                assert!(
                    got.iter()
                        .all(|record| record.offload.checksum
                            != ChecksumState::Partial { start: 0, offset: 0 })
                );
            }
        }
    }
    assert_eq!(world.counters("vm1").drops, []);
}

#[test]
fn a_flood_to_all_is_limited_in_copies_and_silences_only_its_sender() {
    let mut world = world("hv1", Neutral);
    let mark = world.mark();
    for number in 0..3000_u16 {
        let payload = number.to_be_bytes();
        let packet =
            frames::udp(Header::default(), endpoint(VM1[0], 1), endpoint("255.255.255.255", 2), &payload);
        world.send("vm1", &packet, Offload::NONE);
    }
    world.run_for(Duration::from_millis(1));
    // Two copies each, of 1000 at once and 10 000 a second.
    let got = world.received("vm2", mark).into_iter().filter(|record| !is_query(record)).count();
    assert!((400..=600).contains(&got), "{got}");
    let drops = world.counters("vm1").drops;
    assert!(matches!(drops[..], [(DropReason::GroupRate, 2400..=2600)]), "{drops:?}");
    // Its unicast, and others' groups, go on.
    let mark = world.mark();
    world.send(
        "vm1",
        &frames::udp(Header::default(), endpoint(VM1[0], 1), endpoint(VM2[0], 2), b"you"),
        Offload::NONE,
    );
    world.send(
        "vm2",
        &frames::udp(Header::default(), endpoint(VM2[0], 1), endpoint("224.0.0.251", 2), b"all"),
        Offload::NONE,
    );
    world.run_for(Duration::from_secs(1));
    let heard = |name: &str| world.received(name, mark).into_iter().filter(|r| !is_query(r)).count();
    assert_eq!((heard("vm2"), heard("vm1"), heard("vm3")), (1, 1, 1));
}

#[test]
fn copies_that_cannot_be_made_are_paid_for_too_and_large_ones_by_their_size() {
    let flood = |packet: &[u8], offload: Offload, count: usize| {
        let mut world = world("hv1", Neutral);
        (0..count).for_each(|_| world.send("vm1", packet, offload));
        world.run_for(Duration::from_millis(1));
        world.counters("vm1").drops
    };
    // Its header checksum is looked at copy by copy.
    let mut wrong =
        frames::udp(Header::default(), endpoint(VM1[0], 1), endpoint("255.255.255.255", 2), b"wrong");
    wrong[10] ^= 1;
    let drops = flood(&wrong, Offload::NONE, 3000);
    assert!(
        matches!(
            drops[..],
            [(DropReason::GroupRate, 2400..=2600), (DropReason::BadChecksum, 400..=600)]
                | [(DropReason::BadChecksum, 400..=600), (DropReason::GroupRate, 2400..=2600)]
        ),
        "{drops:?}"
    );
    // One of 60 000 bytes leaves as 41 or more packets for each of two receivers.
    let header = Header { dont_fragment: false, ..Header::default() };
    let large = frames::udp(header, endpoint(VM1[0], 1), endpoint("255.255.255.255", 2), &[0; 60_000]);
    let drops = flood(&large, Offload::NONE, 100);
    assert!(matches!(drops[..], [(DropReason::GroupRate, 80..=95)]), "{drops:?}");
}

#[test]
fn a_narrow_path_loses_only_its_own_copy() {
    let mut world = world("hv1", Neutral);
    world.link("hv2").mtu = 1400;
    let packet = frames::udp(Header::default(), endpoint(VM1[1], 1), endpoint("ff02::1", 2), &[1; 1400]);
    for _ in 0..2 {
        let heard = heard(&mut world, &packet, Offload::NONE);
        assert_eq!((heard["vm1"].len(), heard["vm2"].len()), (0, 1), "no error either");
    }
}

#[test]
fn groups_that_cannot_be_are_refused_by_the_setup() {
    let mut world = world("hv1", Neutral);
    let listener = |network: &str, group: &str| nve_core::setup::Listener {
        network: network.to_owned(),
        group: address(group),
        locator: "2001:db8:0:2::/64".parse().expect("a /64"),
    };
    for (network, group) in [
        ("blue", "10.1.0.1"),
        ("blue", "ff01::1"),
        ("blue", "ff35::1"),
        ("blue", "255.255.255.255"),
        ("green", "239.1.2.3"),
    ] {
        let add = |setup: &mut Setup| setup.listeners.push(listener(network, group));
        assert!(world.reload("hv1", add).is_err(), "{group} in {network}");
    }
    world.reload("hv1", |setup| setup.listeners.push(listener("blue", "239.9.9.9"))).expect("a group");
    let lines = world.nve("hv1").groups();
    let line = lines.iter().find(|line| line.group == address("239.9.9.9")).expect("shown");
    assert_eq!((line.network.as_str(), line.attachments.len(), line.locators.len()), ("blue", 0, 1));
    let line = lines.iter().find(|line| line.group == address("239.1.2.3")).expect("shown");
    assert_eq!(line.attachments, ["vm1", "vm2"], "not the red one");
}

/// An IGMPv3 report of one record.
fn igmp3(from: &str, kind: u8, group: &str) -> Vec<u8> {
    let IpAddr::V4(group) = address(group) else { panic!("an IPv4 group") };
    let mut message = [&[0x22, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, 0][..], &group.octets()].concat();
    let sum = !checksum::sum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let once = Header { hop_limit: 1, ..Header::default() };
    frames::ip(once, address(from), address("224.0.0.22"), 2, message)
}

/// Guests of one host that report as kernels do, through the slow path.
#[test]
fn who_reports_is_sent_the_group_until_it_leaves() {
    let mut world = world("hv1", Neutral);
    let packet = frames::udp(Header::default(), endpoint(VM1[0], 1), endpoint("239.7.7.7", 2), b"news");
    let ears = |world: &mut World| {
        let heard = heard(world, &packet, Offload::NONE);
        ["vm2", "vm3", "red"].map(|name| heard[name].len())
    };
    assert_eq!(ears(&mut world), [0, 0, 0]);
    world.send("vm2", &igmp3(VM2[0], 4, "239.7.7.7"), Offload::NONE);
    // In another network, to a group of the same address.
    world.send("red", &igmp3(RED[0], 4, "239.7.7.7"), Offload::NONE);
    world.run_for(Duration::from_millis(100));
    assert_eq!(ears(&mut world), [1, 0, 0]);
    let mark = world.mark();
    world.send("vm2", &igmp3(VM2[0], 3, "239.7.7.7"), Offload::NONE);
    world.run_for(Duration::from_millis(500));
    let asked = |world: &World| {
        let about = |record: &&Record| is_query(record) && record.bytes[30..34] == [239, 7, 7, 7];
        world.received("vm2", mark).into_iter().filter(about).count()
    };
    assert_eq!(asked(&world), 1, "asked at once whether it is so");
    assert_eq!(ears(&mut world), [1, 0, 0], "and heard until it could have answered");
    world.run_for(Duration::from_secs(2));
    assert_eq!((asked(&world), ears(&mut world)), (2, [0, 0, 0]));
    // Everybody of a network that is snooped is asked for all groups in both families, and nobody of one that floods.
    world.run_for(Duration::from_secs(300));
    let queries = |name: &str| world.received(name, 0).into_iter().filter(|record| is_query(record)).count();
    assert!(
        queries("vm1") >= 6 && queries("vm3") >= 6 && queries("red") == 0,
        "{} {}",
        queries("vm1"),
        queries("red")
    );
}

#[test]
fn a_flood_of_reports_is_limited_and_its_sender_goes_on() {
    let mut world = world("hv1", Neutral);
    for number in 0..5000_u32 {
        let group = core::net::Ipv4Addr::from_bits(0xef10_0000 | number).to_string();
        world.send("vm1", &igmp3(VM1[0], 4, &group), Offload::NONE);
    }
    world.send("vm2", &igmp3(VM2[0], 4, "239.7.7.7"), Offload::NONE);
    world.run_for(Duration::from_millis(100));
    let of =
        |name: &str| world.nve("hv1").groups().into_iter().filter(|line| line.attachments == [name]).count();
    assert_eq!((of("vm1"), of("vm2")), (64, 1));
    let drops = world.counters("vm1").drops;
    assert!(matches!(drops[..], [(DropReason::GatewayRate, 4700..)]), "{drops:?}");
}
