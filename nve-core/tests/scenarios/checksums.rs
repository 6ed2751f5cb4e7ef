//! Transport checksums through the draft's scenarios (section 5): in both modes, to identifiers whose low word is 0x0000, 0xffff or ordinary,
//! whatever is in flight, and in the errors that routers of the fabric send about it.
//!
//! ```text
//!   way of a scenario ─┐                                            every packet on a link: audit.rs, by the endpoints' addresses
//!   kind of packet ────┴──> sender ──> NVE ──> fabric ──> NVE ──> receiver: every byte of the payload, and a good checksum
//! ```
//!
//! What judges is `testkit::audit` and `testkit::checksum`, which share nothing with what computes; fragments are put together first.

use core::time::Duration;

use nve_core::addr::ChecksumMode::{self, Neutral, Unmodified};
use nve_core::packet::Offload;
use nve_core::setup::{Alias, Aliased, Crossing, Realm};
use nve_core::testkit::checksum::{self, Verdict};
use nve_core::testkit::dissect::{Dissected, protocol};
use nve_core::testkit::frames::{self, Header};
use nve_core::testkit::{GuestPlan, Plan, World};

use crate::{address, endpoint};

/// One direction of a scenario, as its endpoints see it.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// The draft's number, `r` for the reply: what a failure says.
    #[expect(dead_code, reason = "read by Debug only")]
    scenario: &'static str,
    /// Who sends, from which address.
    from: (&'static str, &'static str),
    /// Who receives, and how the sender calls him.
    to: (&'static str, &'static str),
    /// Source and destination as the receiver sees them.
    seen: (&'static str, &'static str),
}

const fn seen(
    scenario: &'static str,
    from: (&'static str, &'static str),
    to: (&'static str, &'static str),
    seen: (&'static str, &'static str),
) -> Way {
    Way { scenario, from, to, seen }
}

const fn same(
    scenario: &'static str,
    from: (&'static str, &'static str),
    to: (&'static str, &'static str),
) -> Way {
    Way { scenario, from, to, seen: (from.1, to.1) }
}

/// Each to identifiers with an ordinary low word, 0x0000 and 0xffff.
const WAYS: [Way; 45] = [
    same("1", ("t1", T1), ("t4", T4)),
    same("1", ("t1", T1), ("t4", T4_ZERO)),
    same("1", ("t1", "2001:db8:51:0:2000::1:ffff"), ("t4", T4_ONES)),
    same("2", ("t1", T1), (INTERNET, IADDR)),
    same("2", ("t4", T4_ONES), (INTERNET, IADDR)),
    same("3", (INTERNET, IADDR), ("t4", T4)),
    same("3", (INTERNET, IADDR), ("t4", T4_ZERO)),
    same("3", (INTERNET, IADDR), ("t4", T4_ONES)),
    same("4", ("va1", VNET1_VA1), ("t4", T4)),
    same("4", ("va1", VNET1_VA1), ("t4", T4_ZERO)),
    same("4", ("va1", VNET1_VA1), ("t4", T4_ONES)),
    same("4r", ("t4", T4), ("va2", "2001:db8:b1:e::2")),
    same("4r", ("t4", T4_ZERO), ("va2", "2001:db8:b1:e::2:0")),
    same("4r", ("t4", T4_ONES), ("va2", "2001:db8:b1:e::2:ffff")),
    same("5", ("t1", T1), ("va4", VNET2_VA4)),
    same("5", ("t1", T1), ("va4", "2001:db8:b1:f::4:0")),
    same("5", ("t1", T1), ("va4", "2001:db8:b1:f::4:ffff")),
    same("6", ("va4", VNET2_VA4), (INTERNET, IADDR)),
    same("7", (INTERNET, IADDR), ("va4", VNET2_VA4)),
    same("7", (INTERNET, IADDR), ("va4", "2001:db8:b1:f::4:0")),
    same("7", (INTERNET, IADDR), ("va4", "2001:db8:b1:f::4:ffff")),
    seen("8", ("va1", "10.1.0.1"), ("t4", "10.240.0.1"), ("2001:db8:51:0:4000:3e9:a01:1", T4)),
    seen("8", ("va1", "10.1.0.1"), ("t4", "10.240.0.2"), ("2001:db8:51:0:4000:3e9:a01:1", T4_ZERO)),
    seen("8", ("va1", "10.1.255.255"), ("t4", "10.240.0.3"), ("2001:db8:51:0:4000:3e9:a01:ffff", T4_ONES)),
    seen("8r", ("t4", T4), ("va2", "2001:db8:51:0:4000:3e9:a02:9"), ("10.240.0.1", "10.2.0.9")),
    seen("8r", ("t4", T4_ZERO), ("va2", "2001:db8:51:0:4000:3e9:a02:0"), ("10.240.0.2", "10.2.0.0")),
    seen("8r", ("t4", T4_ONES), ("va2", "2001:db8:51:0:4000:3e9:a02:ffff"), ("10.240.0.3", "10.2.255.255")),
    same("9", ("va1", VNET1_VA1), ("va2", "2001:db8:b1:e::2")),
    same("9", ("va1", VNET1_VA1), ("va2", "2001:db8:b1:e::2:0")),
    same("9", ("va1", "2001:db8:b1:e::1:ffff"), ("va2", "2001:db8:b1:e::2:ffff")),
    same("10", ("va1", "10.1.0.1"), ("va2", "10.2.0.9")),
    same("10", ("va1", "10.1.0.1"), ("va2", "10.2.0.0")),
    same("10", ("va1", "10.1.255.255"), ("va2", "10.2.255.255")),
    same("11", ("va4", VNET2_VA4), ("va2", "2001:db8:b1:e::2")),
    same("11", ("va4", VNET2_VA4), ("va2", "2001:db8:b1:e::2:0")),
    same("11", ("va4", VNET2_VA4), ("va2", "2001:db8:b1:e::2:ffff")),
    seen("12", ("va4", "10.4.0.4"), ("va2", "10.210.0.9"), ("10.220.0.4", "10.2.0.9")),
    seen("12", ("va4", "10.4.0.0"), ("va2", "10.210.0.0"), ("10.220.0.0", "10.2.0.0")),
    seen("12r", ("va2", "10.2.255.255"), ("va4", "10.220.255.255"), ("10.210.255.255", "10.4.255.255")),
    seen("13", ("va4", "10.4.0.4"), ("va2", "10.230.0.1"), (SIR_VA4, "2001:db8:b1:e::2")),
    seen("13", ("va4", "10.4.0.4"), ("va2", "10.230.0.2"), (SIR_VA4, "2001:db8:b1:e::2:0")),
    seen("13", ("va4", "10.4.0.4"), ("va2", "10.230.0.3"), (SIR_VA4, "2001:db8:b1:e::2:ffff")),
    seen("13r", ("va2", "2001:db8:b1:e::2"), ("va4", SIR_VA4), ("10.230.0.1", "10.4.0.4")),
    seen(
        "13r",
        ("va2", "2001:db8:b1:e::2"),
        ("va4", "2001:db8:51:0:4000:3ea:a04:0"),
        ("10.230.0.1", "10.4.0.0"),
    ),
    seen(
        "13r",
        ("va2", "2001:db8:b1:e::2"),
        ("va4", "2001:db8:51:0:4000:3ea:a04:ffff"),
        ("10.230.0.1", "10.4.255.255"),
    ),
];

/// A host of the Internet, behind the fabric: a place where packets are looked at. What it sends comes in by `l2`.
const INTERNET: &str = "internet";
const IADDR: &str = "2001:db8:1234::80";
const T1: &str = "2001:db8:51:0:2000::11";
const T4: &str = "2001:db8:51:0:2000::14";
const T4_ZERO: &str = "2001:db8:51:0:2000::4:0";
const T4_ONES: &str = "2001:db8:51:0:2000::4:ffff";
const VNET1_VA1: &str = "2001:db8:b1:e::1";
const VNET2_VA4: &str = "2001:db8:b1:f::4";
/// `SIR:(VNI2:VA4)`.
const SIR_VA4: &str = "2001:db8:51:0:4000:3ea:a04:4";

/// Of a network: its tenants' names for tasks, tenants of the other by IPv6, and those by IPv4.
const ALIASES: [(&str, &str, &str); 6] = [
    ("vni1", "10.240.0.1", T4),
    ("vni1", "10.240.0.2", T4_ZERO),
    ("vni1", "10.240.0.3", T4_ONES),
    ("vni2", "10.230.0.1", "2001:db8:b1:e::2"),
    ("vni2", "10.230.0.2", "2001:db8:b1:e::2:0"),
    ("vni2", "10.230.0.3", "2001:db8:b1:e::2:ffff"),
];

/// The draft's reference network (section 5.3), with more addresses, where everybody may speak to everybody.
fn reference(mode: ChecksumMode, takes_offloads: bool) -> Plan {
    let offloads = |guest: GuestPlan| if takes_offloads { guest.takes_offloads() } else { guest };
    let tenant = |name, host, network, addresses: &[&str]| {
        offloads(GuestPlan::new(name, host, network, addresses).by_hand())
    };
    let plan = ["l1", "l2", "l3", "l4", INTERNET]
        .into_iter()
        .fold(Plan::new(6), |plan, host| plan.host_in(host, mode));
    let plan = plan
        .network("vni1", 1001, "10.0.0.0/8", "2001:db8:b1:e::/96")
        .network("vni2", 1002, "10.0.0.0/8", "2001:db8:b1:f::/96")
        .guest(tenant("va1", "l1", "vni1", &["10.1.0.1", "10.1.255.255", VNET1_VA1, "2001:db8:b1:e::1:ffff"]))
        .guest(tenant(
            "va2",
            "l2",
            "vni1",
            &[
                "10.2.0.9",
                "10.2.0.0",
                "10.2.255.255",
                "2001:db8:b1:e::2",
                "2001:db8:b1:e::2:0",
                "2001:db8:b1:e::2:ffff",
            ],
        ))
        .guest(tenant(
            "va4",
            "l4",
            "vni2",
            &[
                "10.4.0.4",
                "10.4.0.0",
                "10.4.255.255",
                VNET2_VA4,
                "2001:db8:b1:f::4:0",
                "2001:db8:b1:f::4:ffff",
            ],
        ))
        .guest(offloads(GuestPlan::task("t1", "l1", &[T1, "2001:db8:51:0:2000::1:ffff"])))
        .guest(offloads(GuestPlan::task("t4", "l3", &[T4, T4_ZERO, T4_ONES])));
    let realms = ["vni1", "vni2", "tasks", "outside"];
    let pairs = realms.iter().flat_map(|from| realms.map(|to| (*from, to))).filter(|(from, to)| from != to);
    let plan =
        pairs.fold(plan, |plan, (from, to)| plan.crossing(Crossing::between(Realm::of(from), Realm::of(to))));
    let one = |address: &str| format!("{address}/32").parse().expect("an address");
    let plan = ALIASES.iter().fold(plan, |plan, (network, address, of)| {
        let of = Aliased::Ipv6(of.parse().expect("an address"));
        plan.alias(Alias { network: (*network).to_owned(), address: one(address), of })
    });
    let prefix = |text: &str| text.parse().expect("a prefix");
    let of = |network: &str, text| Aliased::Ipv4 { network: network.to_owned(), prefix: prefix(text) };
    plan.alias(Alias {
        network: "vni2".into(),
        address: prefix("10.210.0.0/16"),
        of: of("vni1", "10.2.0.0/16"),
    })
    .alias(Alias {
        network: "vni1".into(),
        address: prefix("10.220.0.0/16"),
        of: of("vni2", "10.4.0.0/16"),
    })
}

/// What is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flight {
    Plain,
    /// A partial checksum (NEEDS_CSUM).
    Partial,
    /// A super-packet (TSO, USO).
    Super,
    Fragments,
}

const FLIGHTS: [Flight; 4] = [Flight::Plain, Flight::Partial, Flight::Super, Flight::Fragments];

const PORTS: (u16, u16) = (1000, 2000);

/// Bytes of transport payload in each segment of a super-packet.
const SEGMENT: u16 = 1000;

fn transport(way: Way, protocol: u8, header: Header, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (endpoint(way.from.1, PORTS.0), endpoint(way.to.1, PORTS.1));
    match protocol {
        protocol::UDP => frames::udp(header, from, to, payload),
        // What a rule for a port lets pass in either direction.
        _ => frames::tcp(header, from, to, frames::flags::ACK, payload),
    }
}

/// Sends and gives back what arrived: the payloads one behind the other.
fn crosses(world: &mut World, way: Way, protocol: u8, flight: Flight, payload: &[u8]) -> Vec<u8> {
    let may_be_cut = Header { dont_fragment: flight != Flight::Fragments, ..Header::default() };
    let mut packet = transport(way, protocol, may_be_cut, payload);
    let offload = match flight {
        Flight::Partial => frames::leave_checksum(&mut packet),
        Flight::Super => frames::leave_segmentation(&mut packet, SEGMENT),
        Flight::Plain | Flight::Fragments => Offload::NONE,
    };
    let mark = world.mark();
    if flight == Flight::Fragments {
        frames::fragments(&packet, 800).iter().for_each(|piece| way.send(world, piece, Offload::NONE));
    } else {
        way.send(world, &packet, offload);
    }
    world.run_for(Duration::from_secs(1));
    if flight == Flight::Fragments {
        for host in ["l1", "l2", "l3", "l4"] {
            let on_link: Vec<_> = world.sent_on_link(host, mark).iter().map(|r| r.bytes.clone()).collect();
            if !on_link.is_empty() {
                let whole = frames::reassembled(&on_link.iter().map(Vec::as_slice).collect::<Vec<_>>());
                world
                    .judge_on_link(&whole)
                    .unwrap_or_else(|fault| panic!("{way:?}, {protocol}, {flight:?}: {fault}"));
            }
        }
        let received = way.received(world, mark);
        let pieces: Vec<_> = received.iter().map(|(packet, _)| *packet).collect();
        assert!(!pieces.is_empty(), "{way:?}, {protocol}, {flight:?}: nothing arrived");
        return arrived(way, &frames::reassembled(&pieces));
    }
    let received = way.received(world, mark);
    received
        .iter()
        .flat_map(|(packet, offload)| match *offload {
            Offload::NONE => arrived(way, packet),
            // The seed was judged on arrival.
            _ => Dissected::of_ip(packet).expect("an IP packet").payload().to_vec(),
        })
        .collect()
}

impl Way {
    fn send(&self, world: &mut World, packet: &[u8], offload: Offload) {
        match self.from.0 {
            INTERNET => world.send_to_host("l2", packet.to_vec()),
            guest => world.send(guest, packet, offload),
        }
    }
    /// What arrived since `mark`, from the IP header on.
    fn received<'w>(&self, world: &'w World, mark: usize) -> Vec<(&'w [u8], Offload)> {
        match self.to.0 {
            INTERNET => {
                let records = world.received_on_link(INTERNET, mark);
                records.into_iter().map(|record| (&record.bytes[..], record.offload)).collect()
            }
            guest => {
                let records = world.received(guest, mark);
                records.into_iter().map(|record| (&record.bytes[14..], record.offload)).collect()
            }
        }
    }
    /// Nobody on the Internet leaves anything to others.
    fn takes(&self, flight: Flight) -> bool {
        self.from.0 != INTERNET || matches!(flight, Flight::Plain | Flight::Fragments)
    }
    /// Routers speak to the Internet without an NVE between.
    fn hears_errors(&self) -> bool {
        self.from.0 != INTERNET
    }
}

/// The world, the Internet behind it.
fn start(plan: Plan) -> World {
    let mut world = plan.start();
    world.route("2001:db8:1234::".parse().expect("an address"), 48, INTERNET);
    world
}

/// The payload of a packet as the receiver got it, its checksum being good.
fn arrived(way: Way, packet: &[u8]) -> Vec<u8> {
    let view = Dissected::of_ip(packet).expect("an IP packet");
    assert_eq!((view.source, view.destination), (address(way.seen.0), address(way.seen.1)), "{way:?}");
    assert_eq!(view.ports(), Some(PORTS), "{way:?}");
    assert_eq!(checksum::verify(&view, view.source, view.destination), Verdict::Good, "{way:?}: {view:?}");
    view.payload().to_vec()
}

#[test]
fn whatever_is_in_flight_arrives_with_a_good_checksum_through_every_scenario() {
    for mode in [Neutral, Unmodified] {
        for takes_offloads in [false, true] {
            let mut world = start(reference(mode, takes_offloads));
            for way in WAYS {
                for protocol in [protocol::UDP, protocol::TCP] {
                    for flight in FLIGHTS.into_iter().filter(|flight| way.takes(*flight)) {
                        // An odd length, and sums of every kind.
                        let len =
                            if flight == Flight::Plain || flight == Flight::Partial { 777 } else { 3001 };
                        let payload: Vec<u8> = (0..len).map(|n| (n * n / 7) as u8).collect();
                        let got = crosses(&mut world, way, protocol, flight, &payload);
                        assert!(
                            got == payload,
                            "{mode:?}, {way:?}, {protocol}, {flight:?}: {} bytes",
                            got.len()
                        );
                    }
                }
            }
            let verified = world.verified();
            let (usual, other) = match mode {
                Neutral => (verified.neutral, verified.unmodified),
                Unmodified => (verified.unmodified, verified.neutral),
            };
            assert!(usual > 20, "{mode:?}: {verified:?}");
            // To 0xffff, always with C = 0.
            assert_eq!(other > 0, mode == Neutral, "{mode:?}: {verified:?}");
        }
    }
}

#[test]
fn each_router_on_the_way_is_heard_of_through_every_scenario() {
    for mode in [Neutral, Unmodified] {
        let mut world = start(reference(mode, false).routers(3));
        for way in WAYS.into_iter().filter(Way::hears_errors) {
            for hop_limit in 1..=3 {
                let header = Header { hop_limit, ..Header::default() };
                let sent = transport(way, protocol::UDP, header, b"where are you");
                assert_told(&mut world, way, &sent, [(11, 0), (3, 0)]);
            }
            // Behind them is the receiver.
            let mark = world.mark();
            let sent = transport(way, protocol::UDP, Header { hop_limit: 8, ..Header::default() }, b"there");
            world.send(way.from.0, &sent, Offload::NONE);
            world.run_for(Duration::from_secs(1));
            assert_eq!(way.received(&world, mark).len(), 1, "{mode:?}, {way:?}");
        }
    }
}

#[test]
fn what_is_too_big_for_the_way_is_told_to_its_sender_through_every_scenario() {
    for mode in [Neutral, Unmodified] {
        for way in WAYS.into_iter().filter(Way::hears_errors) {
            let mut world = start(reference(mode, false));
            // Towards the receiver, whoever that is, and not back.
            let host = match way.to.0 {
                "t4" => "l3",
                "va4" => "l4",
                INTERNET => INTERNET,
                _ => "l2",
            };
            world.link(host).mtu = 1300;
            let sent = transport(way, protocol::UDP, Header::default(), &[7; 1350]);
            assert_told(&mut world, way, &sent, [(3, 4), (2, 0)]);
        }
    }
}

/// Sends `sent`, and the sender is told by an error (of ICMP, of ICMPv6) that quotes what it sent. Its checksum was judged on arrival.
fn assert_told(world: &mut World, way: Way, sent: &[u8], expected: [(u8, u8); 2]) {
    let mark = world.mark();
    world.send(way.from.0, sent, Offload::NONE);
    world.run_for(Duration::from_secs(2));
    let records = world.received(way.from.0, mark);
    assert_eq!(records.len(), 1, "{way:?}");
    let told = records[0].ip().expect("an IP packet");
    assert_eq!(told.icmp(), Some(expected[usize::from(told.version == 6)]), "{way:?}");
    let quote = Dissected::of_ip(told.icmp_error().expect("an error").quote).expect("a quote");
    let sent = Dissected::of_ip(sent).expect("a packet");
    assert_eq!((quote.source, quote.destination), (sent.source, sent.destination), "{way:?}");
    assert_eq!((quote.protocol, quote.ports()), (sent.protocol, Some(PORTS)), "{way:?}");
    let shown = quote.transport.len().min(sent.transport.len());
    assert_eq!(
        quote.transport[..shown],
        sent.transport[..shown],
        "{way:?}: as it was sent, checksum and all"
    );
}

/// Types 2 and 3 over all low words. `va2` is a router before them all; what does not verify on a link fails there and then.
#[test]
fn every_low_word_of_types_2_and_3_verifies_on_the_wire_and_reaches_its_own() {
    const BEHIND: [(&str, &str, &str); 2] = [
        ("10.1.0.1", "10.3.0.0/16", "10.3."),
        ("2001:db8:b1:e::1", "2001:db8:b1:e::3:0/112", "2001:db8:b1:e::3:"),
    ];
    for mode in [Neutral, Unmodified] {
        let (from, prefixes) = (BEHIND.map(|(from, ..)| from), BEHIND.map(|(_, prefix, _)| prefix));
        let mut world = Plan::new(8)
            .network("vni1", 1001, "10.0.0.0/8", "2001:db8:b1:e::/96")
            .host_in("l1", mode)
            .host_in("l2", mode)
            .guest(GuestPlan::new("va1", "l1", "vni1", &from).by_hand())
            .guest(
                GuestPlan::new("va2", "l2", "vni1", &["10.1.0.2", "2001:db8:b1:e::2"])
                    .before(&prefixes)
                    .by_hand(),
            )
            .start();
        for words in 0..0x10000_usize / 1024 {
            let mark = world.mark();
            let words = words * 1024..words * 1024 + 1024;
            let mut sent = Vec::new();
            // Nothing depends on the word in the other mode: its edges, and some.
            for word in words.filter(|word| mode == Neutral || [0, 15].contains(&(word % 16))) {
                for (from, _, stem) in BEHIND {
                    let to = match from.contains(':') {
                        true => format!("{stem}{word:x}"),
                        false => format!("{stem}{}.{}", word >> 8, word & 0xff),
                    };
                    let (source, to) = (endpoint(from, PORTS.0), endpoint(&to, PORTS.1));
                    let packet = frames::udp(Header::default(), source, to, &word.to_be_bytes());
                    world.send("va1", &packet, Offload::NONE);
                    sent.push((to.ip(), word.to_be_bytes()));
                }
            }
            world.run_for(Duration::from_millis(10));
            let received = world.received("va2", mark);
            let got = received.iter().filter_map(|record| record.ip());
            let got: Vec<_> = got.map(|ip| (ip.destination, ip.payload().try_into().unwrap())).collect();
            assert!(got == sent, "{mode:?}: {} of {} arrived as they were sent", got.len(), sent.len());
        }
        // A link is looked at from both ends, and only one word of each family is never sent with C = 1.
        let verified = world.verified();
        match mode {
            Neutral => assert_eq!((verified.neutral, verified.unmodified), (4 * 0xffff, 4)),
            Unmodified => assert_eq!((verified.neutral, verified.unmodified), (0, 4 * 0x2000)),
        }
    }
}

/// Type 2 with a group's address, and type 4.
#[test]
fn groups_of_any_low_word_verify_on_the_wire() {
    for mode in [Neutral, Unmodified] {
        let mut world = reference(mode, false).start();
        for word in [0, 1, 2, 0x1234, 0x7fff, 0x8000, 0xfffe, 0xffff_u16] {
            let [high, low] = word.to_be_bytes();
            for (from, group) in [
                ("10.1.0.1", format!("239.7.{high}.{low}")),
                ("2001:db8:b1:e::1", format!("ff05::7:{word:x}")),
                ("2001:db8:b1:e::1", format!("ff0e::{word:x}")),
            ] {
                let (mark, before) = (world.mark(), world.verified());
                let to = endpoint(&group, PORTS.1);
                let packet = frames::udp(Header::default(), endpoint(from, PORTS.0), to, b"to many");
                world.send("va1", &packet, Offload::NONE);
                world.run_for(Duration::from_secs(1));
                let received = world.received("va2", mark);
                assert_eq!(received.len(), 1, "{mode:?}, {group}");
                assert_eq!(received[0].ip().expect("an IP packet").destination, to.ip(), "{mode:?}, {group}");
                let after = world.verified();
                let neutral = mode == Neutral && word != 0xffff;
                assert_eq!(after.neutral - before.neutral, if neutral { 2 } else { 0 }, "{mode:?}, {group}");
            }
        }
    }
}

/// Type 1: the edges, and every word that ends in six zeros or ones. All 65536 are added up in `nve-core/src/addr/tests.rs`.
#[test]
fn low_words_of_type_1_verify_on_the_wire_and_reach_their_own() {
    let words = (0..=0xffff_u16).filter(|word| [0, 63].contains(&(word % 64)));
    let addresses: Vec<String> = words.map(|word| format!("2001:db8:51:0:2000::9:{word:x}")).collect();
    let held: Vec<&str> = addresses.iter().map(String::as_str).collect();
    for mode in [Neutral, Unmodified] {
        let mut world = Plan::new(9)
            .host_in("l1", mode)
            .host_in("l2", mode)
            .guest(GuestPlan::task("t1", "l1", &[T1]))
            .guest(GuestPlan::task("t2", "l2", &held))
            .start();
        for to in &held {
            let (source, to) = (endpoint(T1, PORTS.0), endpoint(to, PORTS.1));
            world.send("t1", &frames::udp(Header::default(), source, to, b"which one"), Offload::NONE);
        }
        world.run_for(Duration::from_millis(10));
        let received = world.received("t2", 0);
        let got: Vec<_> = received.iter().filter_map(|record| Some(record.ip()?.destination)).collect();
        let sent: Vec<_> = held.iter().map(|to| address(to)).collect();
        assert!(got == sent, "{mode:?}: {} of {} arrived as they were sent", got.len(), sent.len());
        // Neither zero goes with C = 1: a Linux host could not tell them apart. Each is seen on both links.
        let (all, verified) = (2 * held.len(), world.verified());
        let neutral = if mode == Neutral { all - 4 } else { 0 };
        assert_eq!((verified.neutral, verified.unmodified), (neutral, all - neutral), "{mode:?}");
    }
}
