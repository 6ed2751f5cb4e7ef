//! Prefixes behind a router VM: reached from the same host and across, a default route included, and never a licence to speak as
//! somebody else (docs/decisions/0013).

use core::net::IpAddr;
use core::time::Duration;

use nve_core::DropReason;
use nve_core::addr::ChecksumMode::{self, Neutral, Unmodified};
use nve_core::packet::Offload;
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{GuestPlan, Plan, World};

use crate::{GATEWAY, VM1, VM2, address, endpoint, two_hosts_in};

const ROUTER: [&str; 2] = ["10.1.0.50", "2001:db8:b1:e::50"];
/// Off the link, with a low word of ffff in it; on the link; IPv6.
const BEHIND: [&str; 3] = ["192.168.0.0/16", "10.1.8.0/24", "2001:db8:b1:e::8000:0/112"];
/// Addresses there.
const CLIENTS: [&str; 5] =
    ["192.168.7.1", "192.168.255.255", "10.1.8.1", "2001:db8:b1:e::8000:1", "2001:db8:b1:e::8000:ffff"];

fn with_router(first: ChecksumMode, second: ChecksumMode) -> Plan {
    two_hosts_in(first, second)
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1))
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2))
        .guest(GuestPlan::new("router", "hv1", "blue", &ROUTER).before(&BEHIND).answering(&CLIENTS))
}

#[test]
fn clients_behind_a_router_vm_answer_on_the_same_host_and_across() {
    for (first, second) in [(Neutral, Neutral), (Unmodified, Unmodified)] {
        let mut world = with_router(first, second).start();
        for from in ["vm1", "vm2"] {
            for client in CLIENTS {
                assert_eq!(world.pings(from, client, 3, 56), 3, "{from} to {client}, {first:?}");
            }
            let took = world.transfer(from, "router", CLIENTS[0], 100_000);
            assert!(took.is_ok(), "{from}: {took:?}");
        }
        assert_eq!(world.counters("router").all_drops(), 0, "it answers from its clients' addresses");
    }
}

/// As an IPv4 address behind a router has an identifier like any other, a low word of ffff goes with C = 0.
#[test]
fn what_is_behind_a_router_is_type_2_on_the_wire() {
    let mut world = with_router(Neutral, Neutral).start();
    for (client, c, words) in [("192.168.7.1", 5, [0x03e9, 0xc0a8]), ("192.168.255.255", 4, [0x03e9, 0xc0a8])]
    {
        let mark = world.mark();
        let packet = frames::udp(Header::default(), endpoint(VM2[0], 1), endpoint(client, 2), b"to a client");
        world.send("vm2", &packet, Offload::NONE);
        world.run_for(Duration::from_millis(50));
        let sent = &world.sent_on_link("hv2", mark)[0];
        let IpAddr::V6(to) = sent.ip().expect("IPv6").destination else { panic!() };
        let [_, _, _, _, kind, vnid, high, _] = to.segments();
        assert_eq!((kind >> 12, [vnid, high]), (c, words), "{to}");
        let arrived = world.received("router", mark);
        let udp = arrived.iter().filter(|record| record.ip().is_some_and(|ip| ip.protocol == 17));
        assert_eq!(udp.count(), 1, "{client}");
    }
}

fn with_default_route() -> World {
    two_hosts_in(Neutral, Neutral)
        .network("red", 1002, "10.1.0.0/16", "2001:db8:b1:f::/96")
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2).by_hand())
        .guest(GuestPlan::new("router", "hv1", "blue", &ROUTER).before(&["0.0.0.0/0"]).by_hand())
        .guest(GuestPlan::new("other", "hv2", "blue", &["10.1.0.51"]).before(&["198.51.100.0/24"]).by_hand())
        .guest(GuestPlan::new("red1", "hv1", "red", &["10.1.0.1", "2001:db8:b1:f::1"]).by_hand())
        .start()
}

/// Sends one UDP packet and says who got it.
fn heard(world: &mut World, from: &str, source: &str, destination: &str) -> Vec<&'static str> {
    let mark = world.mark();
    let packet =
        frames::udp(Header::default(), endpoint(source, 1), endpoint(destination, 2), b"who is there");
    world.send(from, &packet, Offload::NONE);
    world.run_for(Duration::from_millis(50));
    let udp =
        |name: &&str| world.received(name, mark).iter().any(|r| r.ip().is_some_and(|ip| ip.protocol == 17));
    ["vm1", "vm2", "router", "other", "red1"].into_iter().filter(udp).collect()
}

#[test]
fn a_default_route_takes_everything_but_what_is_somebodys_or_nobodys() {
    let mut world = with_default_route();
    for (from, source) in [("vm1", VM1[0]), ("vm2", VM2[0])] {
        for outside in ["203.0.113.9", "8.8.8.8", "10.0.0.1", "10.2.0.0", "223.255.255.255", "1.0.0.0"] {
            assert_eq!(heard(&mut world, from, source, outside), ["router"], "{from} to {outside}");
        }
        assert_eq!(heard(&mut world, from, source, "198.51.100.1"), ["other"], "the longer prefix");
        assert_eq!(heard(&mut world, from, source, ROUTER[0]), ["router"]);
        // But for groups and broadcasts, which everybody may hear.
        let never = [
            "10.1.0.99", // in the network, nobody's
            "10.1.0.0",
            GATEWAY[0],
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "240.0.0.1",
        ];
        for destination in never {
            let to = heard(&mut world, from, source, destination);
            assert!(!to.contains(&"router") && !to.contains(&"other"), "{from} to {destination}: {to:?}");
        }
    }
    // Another network has no such route, whatever its addresses are.
    assert_eq!(heard(&mut world, "red1", "10.1.0.1", "203.0.113.9"), [""; 0]);
    assert_eq!(world.counters("red1").dropped(DropReason::Outside), 1);
}

#[test]
fn a_router_vm_speaks_only_for_what_leads_back_to_it() {
    let mut world = with_default_route();
    for (to, name) in [(VM1[0], "vm1"), (VM2[0], "vm2")] {
        for own in [ROUTER[0], "203.0.113.9", "8.8.8.8", "10.2.0.1"] {
            assert_eq!(heard(&mut world, "router", own, to), [name], "control: from {own}");
        }
        let before = world.counters("router").dropped(DropReason::SpoofedAddress);
        let spoofed = [
            VM1[0],
            VM2[0],
            "10.1.0.99",
            GATEWAY[0],     // its neighbours', nobody's, the gateway's
            "198.51.100.1", // another router's
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "0.0.0.0",
            "0.1.1.1",
            "255.255.255.255",
            "240.0.0.1",
        ];
        for source in spoofed {
            assert_eq!(heard(&mut world, "router", source, to), [""; 0], "from {source}");
        }
        let after = world.counters("router").dropped(DropReason::SpoofedAddress);
        assert_eq!(after - before, spoofed.len() as u64);
        // Nor may anybody else speak for what is behind it.
        let other = if name == "vm1" { ("vm2", VM2[0]) } else { ("vm1", VM1[0]) };
        assert_eq!(heard(&mut world, other.0, "203.0.113.9", to), [""; 0]);
        assert_eq!(heard(&mut world, other.0, other.1, to), [name], "control");
    }
}

#[test]
fn a_prefix_that_covers_a_neighbours_own_address_is_no_licence_to_use_it() {
    let mut world = two_hosts_in(Neutral, Neutral)
        .network("red", 1002, "10.1.0.0/16", "2001:db8:b1:f::/96")
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", "hv2", "blue", &VM2).by_hand())
        .guest(
            GuestPlan::new("router", "hv1", "blue", &ROUTER)
                .before(&["10.1.0.0/24", "2001:db8:b1:e::/112"])
                .by_hand(),
        )
        .guest(GuestPlan::new("other", "hv2", "blue", &["10.1.0.51"]).by_hand())
        .guest(GuestPlan::new("red1", "hv1", "red", &["10.1.0.1", "2001:db8:b1:f::1"]).by_hand())
        .start();
    for (family, nobodys) in [(0, "10.1.0.99"), (1, "2001:db8:b1:e::99")] {
        assert_eq!(
            heard(&mut world, "vm1", VM1[family], VM2[family]),
            ["vm2"],
            "its own address comes first"
        );
        assert_eq!(heard(&mut world, "vm2", VM2[family], VM1[family]), ["vm1"]);
        assert_eq!(heard(&mut world, "vm2", VM2[family], nobodys), ["router"]);
        assert_eq!(heard(&mut world, "router", VM1[family], VM2[family]), [""; 0], "as its neighbour here");
        assert_eq!(heard(&mut world, "router", VM2[family], VM1[family]), [""; 0], "as its neighbour there");
        assert_eq!(heard(&mut world, "router", nobodys, VM2[family]), ["vm2"], "control");
    }
}

#[test]
fn the_wire_takes_a_source_in_a_prefix_only_from_where_it_is_behind() {
    let mut world = with_default_route();
    // To vm2, as hv1 sends it for its router VM.
    let mark = world.mark();
    assert_eq!(heard(&mut world, "router", "203.0.113.9", VM2[0]), ["vm2"]);
    let good = world.sent_on_link("hv1", mark)[0].bytes.clone();
    let cases: [(&[u8], DropReason); 4] = [
        (&[198, 51, 100, 1], DropReason::UnregisteredSource), // behind hv2's own router
        (&[10, 1, 0, 99], DropReason::UnregisteredSource),    // nobody's
        (&[127, 0, 0, 1], DropReason::UnregisteredSource),
        (&[224, 0, 0, 1], DropReason::UnregisteredSource),
    ];
    for (source, reason) in cases {
        let mark = world.mark();
        let before = world.nve("hv2").counters().uplink.dropped(reason);
        let mut forged = good.clone();
        forged[20..24].copy_from_slice(source);
        world.send_to_host("hv2", forged);
        world.run_for(Duration::from_millis(50));
        assert_eq!(world.received("vm2", mark).len(), 0, "{source:?}");
        assert_eq!(world.nve("hv2").counters().uplink.dropped(reason), before + 1, "{source:?}");
    }
    let mark = world.mark();
    world.send_to_host("hv2", good);
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.received("vm2", mark).len(), 1, "control: as it was");
}

#[test]
fn two_networks_with_the_same_prefix_reach_each_its_own_router() {
    let red = ["10.1.0.50", "2001:db8:b1:f::50"];
    let mut world = with_router(Neutral, Neutral)
        .network("red", 1002, "10.1.0.0/16", "2001:db8:b1:f::/96")
        .guest(GuestPlan::new("red1", "hv1", "red", &["10.1.0.1", "2001:db8:b1:f::1"]))
        .guest(
            GuestPlan::new("red2", "hv2", "red", &red).before(&["192.168.0.0/16"]).answering(&CLIENTS[..2]),
        )
        .guest(GuestPlan::new("green", "hv1", "green", &["10.1.0.1"]).by_hand())
        .network("green", 1003, "10.1.0.0/16", "")
        .start();
    for (from, own, others) in [("vm2", "router", "red2"), ("red1", "red2", "router")] {
        let mark = world.mark();
        assert_eq!(world.pings(from, CLIENTS[0], 3, 56), 3, "{from}");
        assert!(world.received(own, mark).len() >= 3);
        assert_eq!(world.received(others, mark).len(), 0, "{others} hears nothing of {from}");
    }
    // A network without it has no way there.
    let packet = frames::udp(Header::default(), endpoint("10.1.0.1", 1), endpoint(CLIENTS[0], 2), b"green");
    world.send("green", &packet, Offload::NONE);
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.counters("green").dropped(DropReason::Outside), 1);
    // Nor has the other one to an IPv6 prefix, which it can name.
    let mark = world.mark();
    assert_eq!(world.pings("red1", CLIENTS[3], 1, 56), 0);
    assert_eq!(world.received("router", mark).len(), 0);
}

#[test]
fn nothing_is_sent_back_to_the_router_it_comes_from() {
    let mut world = with_default_route();
    for destination in ["203.0.113.9", "8.8.8.8"] {
        for source in [ROUTER[0], "203.0.113.1"] {
            let before = world.counters("router").dropped(DropReason::NoMapping);
            assert_eq!(
                heard(&mut world, "router", source, destination),
                [""; 0],
                "{source} to {destination}"
            );
            assert_eq!(world.counters("router").dropped(DropReason::NoMapping), before + 1);
        }
    }
    assert_eq!(heard(&mut world, "vm1", VM1[0], "203.0.113.9"), ["router"], "control");
}

/// A router behind the router VM answers a traceroute: the error's source is in the prefix and in no mapping.
#[test]
fn errors_from_behind_a_router_vm_reach_who_asked() {
    let mut world = with_default_route();
    for (name, vm) in [("vm1", VM1[0]), ("vm2", VM2[0])] {
        let mark = world.mark();
        let asked = frames::udp(Header::default(), endpoint(vm, 7), endpoint("203.0.113.9", 33434), b"probe");
        world.send(name, &asked, Offload::NONE);
        world.run_for(Duration::from_millis(50));
        let arrived = world.received("router", mark)[0].bytes[14..].to_vec();
        let error = |source: &str| {
            let body = [&[11, 0, 0, 0, 0, 0, 0, 0], &arrived[..]].concat();
            frames::ip(Header::default(), address(source), address(vm), 1, body)
        };
        for (source, passes) in [("198.18.0.1", true), (ROUTER[0], true), ("10.1.0.99", false)] {
            let mark = world.mark();
            world.send("router", &error(source), Offload::NONE);
            world.run_for(Duration::from_millis(50));
            let got = world.received(name, mark);
            assert_eq!(got.len(), usize::from(passes), "{source} to {name}");
            for record in got {
                let ip = record.ip().expect("IPv4");
                assert_eq!((ip.source, ip.protocol), (address(source), 1));
                assert_eq!(record.bytes[34], 11, "time exceeded");
                assert_eq!(
                    record.bytes[14 + 20 + 8 + 12..][..8],
                    asked[12..20],
                    "the quoted addresses are the sender's"
                );
            }
        }
    }
}

#[test]
fn the_gateway_answers_a_router_vm_under_the_addresses_behind_it() {
    let mut world = with_router(Neutral, Neutral).start();
    for (source, gateway) in [(CLIENTS[0], GATEWAY[0]), (CLIENTS[3], GATEWAY[1])] {
        let mark = world.mark();
        let echo = frames::echo_request(Header::default(), address(source), address(gateway), 1, b"hello");
        world.send("router", &echo, Offload::NONE);
        world.run_for(Duration::from_millis(50));
        assert_eq!(world.received("router", mark).len(), 1, "{source}");
    }
}

#[test]
fn a_prefix_moves_with_a_reload() {
    let mut world = with_default_route();
    assert_eq!(heard(&mut world, "vm1", VM1[0], "203.0.113.9"), ["router"]);
    let everything: Vec<_> = ["0.0.0.0/0".parse().expect("a prefix")].into();
    let take = |name: &str, prefixes: Vec<_>| {
        let name = name.to_owned();
        move |setup: &mut nve_core::setup::Setup| {
            setup.attachments.iter_mut().find(|a| a.name == name).expect("there").prefixes = prefixes;
        }
    };
    world.reload("hv1", take("router", vec![])).expect("accepted");
    assert_eq!(heard(&mut world, "vm1", VM1[0], "203.0.113.9"), [""; 0]);
    assert_eq!(heard(&mut world, "router", "203.0.113.9", VM1[0]), [""; 0]);
    world.reload("hv1", take("router", everything)).expect("accepted");
    assert_eq!(heard(&mut world, "vm1", VM1[0], "203.0.113.9"), ["router"]);
    let refused = world.reload("hv1", take("vm1", vec!["0.0.0.0/0".parse().expect("a prefix")]));
    assert!(refused.is_err_and(|error| error.reason.contains("is already behind attachment.vm1")));
}
