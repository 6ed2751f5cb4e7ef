//! A fabric narrower than the uplink promises: one packet finds out, every tenant of the host is told, and ten minutes later it is
//! tried again. Whoever lies about it changes nothing.

use core::time::Duration;

use nve_core::packet::Offload;
use nve_core::testkit::dissect::{Dissected, protocol};
use nve_core::testkit::frames::{self, Header, flags};
use nve_core::testkit::{GuestPlan, Plan, World};

use crate::{GATEWAY, VM1, VM2, address, endpoint, two_hosts_by_hand};

const NARROW: u16 = 1400;
/// A neighbour of `vm1`.
const VM3: [&str; 2] = ["10.1.0.3", "2001:db8:b1:e::3"];

fn with_a_neighbour() -> Plan {
    two_hosts_by_hand().guest(GuestPlan::new("vm3", "hv1", "blue", &VM3).by_hand())
}

/// A world whose link to `hv2` carries 1400 bytes, which nobody knows yet.
fn narrow(plan: Plan) -> World {
    let mut world = plan.start();
    world.link("hv2").mtu = usize::from(NARROW);
    world
}

/// UDP in an IP packet of `len` bytes.
fn udp(from: &str, to: &str, len: usize, dont_fragment: bool) -> Vec<u8> {
    let header = Header { dont_fragment, ..Header::default() };
    let headers = if from.contains(':') { 48 } else { 28 };
    let payload: Vec<u8> = (0..len - headers).map(|i| i as u8).collect();
    frames::udp(header, endpoint(from, 1), endpoint(to, 2), &payload)
}

fn send(world: &mut World, from: &str, packet: &[u8], offload: Offload) -> usize {
    let mark = world.mark();
    world.send(from, packet, offload);
    world.run_for(Duration::from_millis(100));
    mark
}

/// The MTU of the path from `host` to its only peer, and whether it was learned.
fn path(world: &World, host: &str) -> (u16, bool) {
    let paths = world.nve(host).paths(world.now());
    assert_eq!(paths.len(), 1, "{paths:?}");
    (paths[0].mtu, paths[0].learned.is_some())
}

/// Lets `vm1` find out.
fn learn(world: &mut World) {
    send(world, "vm1", &udp(VM1[1], VM2[1], 1500, true), Offload::NONE);
    assert_eq!(path(world, "hv1"), (NARROW, true));
}

/// What `guest` heard since `mark`: an error from its gateway, its type, code and MTU.
fn told(world: &World, guest: &str, family: usize, mark: usize) -> (u8, u8, u32) {
    let received = world.received(guest, mark);
    assert_eq!(received.len(), 1, "{received:?}");
    let view = received[0].ip().expect("a packet");
    assert_eq!(view.source, address(GATEWAY[family]));
    let error = view.icmp_error().expect("an error");
    (error.kind, error.code, error.word)
}

#[test]
fn what_one_tenant_finds_out_every_tenant_of_the_host_is_told_in_its_own_family() {
    let mut world = narrow(with_a_neighbour());
    assert_eq!(path(&world, "hv1"), (1500, false));
    learn(&mut world);
    for (family, too_big, expected) in [(0, 1381, (3, 4, 1380)), (1, 1401, (2, 0, 1400))] {
        let mark = send(&mut world, "vm3", &udp(VM3[family], VM2[family], too_big, true), Offload::NONE);
        assert_eq!(told(&world, "vm3", family, mark), expected);
        let error = world.received("vm3", mark)[0].bytes.len() - 14;
        assert_eq!(error, [576, 1280][family], "it quotes all that it may");
        assert_eq!(world.sent_on_link("hv1", mark).len(), 0, "told by its own host, at once");
        let mark = send(&mut world, "vm3", &udp(VM3[family], VM2[family], too_big - 1, true), Offload::NONE);
        assert_eq!(world.received("vm2", mark).len(), 1, "what fits passes");
    }
}

#[test]
fn ten_minutes_later_the_whole_uplink_is_tried_again() {
    let mut world = narrow(with_a_neighbour());
    learn(&mut world);
    world.run_for(Duration::from_secs(590));
    assert_eq!(path(&world, "hv1"), (NARROW, true));
    let age = world.nve("hv1").paths(world.now())[0].learned.expect("learned");
    assert!((589..=591).contains(&age.as_secs()), "{age:?}");
    world.run_for(Duration::from_secs(11));
    assert_eq!(path(&world, "hv1"), (1500, false));
    world.link("hv2").mtu = 1500;
    let mark = send(&mut world, "vm1", &udp(VM1[1], VM2[1], 1500, true), Offload::NONE);
    assert_eq!(world.received("vm2", mark).len(), 1, "the fabric is wide again");
}

#[test]
fn ipv4_that_may_be_fragmented_leaves_in_pieces_that_fit() {
    let mut world = narrow(with_a_neighbour());
    // Nobody knows yet: lost, and found out by it.
    let mark = send(&mut world, "vm1", &udp(VM1[0], VM2[0], 1480, false), Offload::NONE);
    assert_eq!(world.received("vm2", mark).len(), 0);
    for len in [1372, 1373, 1380, 1381, 1400, 1480] {
        let packet = udp(VM1[0], VM2[0], len, false);
        let mark = send(&mut world, "vm1", &packet, Offload::NONE);
        let sizes: Vec<_> = world.sent_on_link("hv1", mark).iter().map(|record| record.bytes.len()).collect();
        assert!(sizes.iter().all(|size| *size <= usize::from(NARROW)), "{len}: {sizes:?}");
        assert_eq!(sizes.len(), if len <= 1380 { 1 } else { 2 }, "{len}: {sizes:?}");
        let mut whole = vec![0; len - 20];
        for record in world.received("vm2", mark) {
            let piece = record.ip().expect("a packet");
            whole[piece.fragment_offset..piece.fragment_offset + piece.transport.len()]
                .copy_from_slice(piece.transport);
        }
        assert_eq!(whole, packet[20..], "{len}");
    }
}

#[test]
fn a_super_packet_is_judged_by_its_segments() {
    let plan = two_hosts_by_hand().fabric_offloads();
    for family in [0, 1] {
        let mut world = narrow(plan.clone());
        learn(&mut world);
        let room = NARROW - 60;
        for (size, passes) in [(room, true), (room + 1, false)] {
            let header = Header::default();
            let (from, to) = (endpoint(VM1[family], 1), endpoint(VM2[family], 2));
            let mut packet = frames::tcp(header, from, to, flags::ACK, &[7; 20_000]);
            let offload = frames::leave_segmentation(&mut packet, size);
            let mark = send(&mut world, "vm1", &packet, offload);
            assert_eq!(world.sent_on_link("hv1", mark).len(), usize::from(passes), "{size}, family {family}");
            if !passes {
                let expected = if family == 0 { (3, 4, 1380) } else { (2, 0, 1400) };
                assert_eq!(told(&world, "vm1", family, mark), expected);
            }
        }
    }
}

#[test]
fn neighbours_on_one_host_do_not_care() {
    let mut world = narrow(with_a_neighbour());
    learn(&mut world);
    for (family, len) in [(0, 1480), (1, 1500)] {
        let mark = send(&mut world, "vm1", &udp(VM1[family], VM3[family], len, true), Offload::NONE);
        assert_eq!(world.received("vm3", mark).len(), 1, "family {family}");
    }
}

/// The fabric routes SIR and VN prefixes to `hv1`, so errors about what `hv2`'s tenants send come there first.
#[test]
fn the_host_that_sent_it_learns_and_not_the_one_that_passes_the_error_on() {
    for family in [0, 1] {
        let mut world = two_hosts_by_hand().start();
        world.link("hv1").mtu = usize::from(NARROW);
        let len = [1480, 1500][family];
        let mark = send(&mut world, "vm2", &udp(VM2[family], VM1[family], len, true), Offload::NONE);
        assert_eq!(told(&world, "vm2", family, mark).2, u32::from(NARROW) - [20, 0][family]);
        assert_eq!((path(&world, "hv1"), path(&world, "hv2")), ((1500, false), (NARROW, true)));
    }
}

/// A packet too big about `about`, said by `from` to `to`.
fn too_big(from: &str, to: &str, mtu: u32, about: &[u8]) -> Vec<u8> {
    let transport = [&[2, 0, 0, 0], &mtu.to_be_bytes()[..], &about[..about.len().min(1232)]].concat();
    frames::ip(Header::default(), address(from), address(to), protocol::ICMPV6, transport)
}

#[test]
fn neither_forged_nor_too_small_messages_lower_it() {
    const ROUTER: &str = "2001:db8:fab::1";
    let mut world = with_a_neighbour().start();
    world.expect_bad_checksums();
    let mark = send(&mut world, "vm1", &udp(VM1[1], VM2[1], 1500, true), Offload::NONE);
    let sent = world.sent_on_link("hv1", mark)[0].bytes.clone();
    let changed = |at: usize, by: u8| {
        let mut packet = sent.clone();
        packet[at] ^= by;
        packet
    };
    let mut spoiled = too_big(ROUTER, VM1[1], 1300, &sent);
    spoiled[200] ^= 1;
    let forgeries = [
        ("less than IPv6's minimum", too_big(ROUTER, VM1[1], 1279, &sent)),
        ("nothing", too_big(ROUTER, VM1[1], 0, &sent)),
        ("more than the uplink takes", too_big(ROUTER, VM1[1], 9000, &sent)),
        ("more than 16 bits hold", too_big(ROUTER, VM1[1], 0x1_0000 + 1300, &sent)),
        ("a quoted packet that is not too big", too_big(ROUTER, VM1[1], 1300, &changed(4, 4))),
        ("another locator than we send it to", too_big(ROUTER, VM1[1], 1300, &changed(31, 3))),
        ("not translated", too_big(ROUTER, VM1[1], 1300, &udp(VM1[1], VM2[1], 1500, true))),
        ("another tenant's packet", too_big(ROUTER, VM1[1], 1300, &changed(23, 2))),
        ("a spoiled checksum", spoiled),
        ("from a tenant's address", too_big(VM2[1], VM1[1], 1300, &sent)),
        ("from a free address of the network", too_big("2001:db8:b1:e::77", VM1[1], 1300, &sent)),
        ("from a SIR address", too_big("2001:db8:51:0:4000:3e9:a01:2", VM1[1], 1300, &sent)),
    ];
    for (what, forged) in forgeries {
        world.send_to_host("hv1", forged);
        world.run_for(Duration::from_millis(100));
        assert_eq!(path(&world, "hv1"), (1500, false), "{what}");
    }
    // vm2 means it, and vm1 hears it; but others would suffer.
    let about = world.received("vm2", mark)[0].bytes[14..].to_vec();
    let mark = send(&mut world, "vm2", &too_big(VM2[1], VM1[1], 1300, &about), Offload::NONE);
    assert_eq!(world.received("vm1", mark)[0].ip().and_then(|ip| ip.icmp()), Some((2, 0)));
    assert_eq!(path(&world, "hv1"), (1500, false), "a tenant's own word");

    world.send_to_host("hv1", too_big(ROUTER, VM1[1], 1300, &sent));
    world.run_for(Duration::from_millis(100));
    assert_eq!(path(&world, "hv1"), (1300, true), "control: a router's word");
}

#[test]
fn a_tenant_is_never_told_less_than_every_link_carries() {
    for (family, least) in [(0, 1260), (1, 1280)] {
        let mut world = two_hosts_by_hand().start();
        let len = [1480, 1500][family];
        let mark = send(&mut world, "vm1", &udp(VM1[family], VM2[family], len, true), Offload::NONE);
        let sent = world.sent_on_link("hv1", mark)[0].bytes.clone();
        let source = Dissected::of_ip(&sent).expect("a packet").source.to_string();
        for mtu in [0, 68, 1279, 1280] {
            let mark = world.mark();
            world.send_to_host("hv1", too_big("2001:db8:fab::1", &source, mtu, &sent));
            world.run_for(Duration::from_millis(100));
            assert_eq!(told(&world, "vm1", family, mark).2, least, "{mtu}, family {family}");
        }
    }
}
