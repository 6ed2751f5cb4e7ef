//! Errors, from outside and about the outside: whose word they may be, and about what.

use super::errors::{ROUTER, about};
use super::*;
use crate::setup::Unknown;
use crate::testkit::dissect::protocol;

const VA1: &str = "2001:db8:b1:e::1";
const VA2: &str = "2001:db8:b1:e::2";
const VA4: &str = "2001:db8:b1:e:0:1:0:4";
/// What the NAT64 calls 198.51.100.7.
const NAT64: &str = "2001:db8:64::c633:6407";
const T1: &str = "2001:db8:51:0:2000::a1";
const T2: &str = "2001:db8:51:0:2000::a2";
const T3: &str = "2001:db8:51:0:2000::a3";

/// "Packet too big: 1280", about `packet`.
fn too_big(packet: &[u8]) -> Vec<u8> {
    about(packet, addr(ROUTER), (protocol::ICMPV6, 2, 0, 1280))
}

fn from_outside(gateway: &mut Lab, packet: &[u8]) -> Out {
    only(gateway.walk(Origin::Outside, packet, Offload::NONE))
}

/// hv1 with these rules, which asks a router for what it does not know.
fn asking(crossings: Vec<Crossing>) -> Lab {
    let mut setup = reference(1, Spread::FourHosts, crossings, ChecksumMode::Neutral);
    setup.host.unknown = Unknown::Router;
    Lab::of(setup)
}

#[test]
fn nobody_outside_says_anything_about_packets_inside() {
    let inside = [
        ("a neighbour", VA1.to_owned(), VA2.to_owned()),
        (
            "a neighbour over IPv4",
            sir_in("blue", "10.1.0.1").to_string(),
            sir_in("blue", "10.1.0.2").to_string(),
        ),
        ("a task to a task", T1.to_owned(), T2.to_owned()),
        ("another realm", VA1.to_owned(), VA4.to_owned()),
        ("a neighbour, as it was on the wire", VA1.to_owned(), ila_of(2, VA2).to_string()),
        ("who is on another host", VA4.to_owned(), "2001:db8:b1:e:0:1:0:3".to_owned()),
    ];
    for (what, from, to) in &inside {
        for rules in [open(), Vec::new()] {
            let mut gateway = host(1, Spread::FourHosts, &rules);
            let error = too_big(&udp(from, to, 1400));
            let refused = from_outside(&mut gateway, &error).reason();
            assert_eq!(refused, Some(DropReason::QuotedPacket), "{what}");
            let after = gateway.send("va1", &udp(VA1, VA2, 1400));
            assert!(matches!(after, Out::Uplink(..)), "{what}: the path is as it was: {after:?}");
        }
        // What it may speak of is what went out, where rules let it.
        let outside = if from.starts_with("2001:db8:51:0:4") { NAT64 } else { INTERNET };
        let error = too_big(&udp(from, outside, 1400));
        let told = from_outside(&mut host(1, Spread::FourHosts, &open()), &error);
        assert!(matches!(told, Out::Local(..) | Out::Uplink(..)), "{what}, control: {told:?}");
        let unasked = from_outside(&mut host(1, Spread::FourHosts, &[]), &error).reason();
        assert_eq!(unasked, Some(DropReason::QuotedPacket), "{what}: no rule lets it send there");
    }
    // From the fabric the same is believed.
    let mut gateway = host(1, Spread::FourHosts, &[]);
    let wire = gateway.send("va1", &udp(VA1, VA2, 1400));
    let told = gateway.receive(&too_big(wire.packet()));
    assert!(matches!(told, Out::Local(..)), "{told:?}");
    let after = gateway.send("va1", &udp(VA1, VA2, 1400)).reason();
    assert_eq!(after, Some(DropReason::TooBig));
}

#[test]
fn who_asks_a_router_hears_of_the_outside_under_its_own_name() {
    let odd = [
        ("t1", T1, "2001:db8:1234:0:2000::7", "like a task at a host"),
        ("t1", T1, "2001:db8:1234:0:3000::7", "like a task at a host, adjusted"),
        ("va1", VA1, "2001:db8:1234:0:4000:3e9:a01:2", "like a tenant over IPv4 at a host"),
        ("va1", VA1, "2001:db8:1234:0:6000:3ea:0:4", "like a tenant of another network at a host"),
    ];
    let to_outside = |name: &str| Crossing::between(Realm::of(name), Realm::Outside);
    for (sender, from, internet, what) in odd {
        let mut hv1 = asking(vec![to_outside("blue"), to_outside("tasks")]);
        let wire = hv1.send(sender, &udp(from, internet, 1400));
        assert!(matches!(wire, Out::Uplink(..)), "{what}: {wire:?}");
        let told = hv1.receive(&too_big(wire.packet()));
        assert!(matches!(&told, Out::Local(name, ..) if name == sender), "{what}: {told:?}");
        let view = told.ip();
        let quoted = Dissected::of_ip(view.icmp_error().unwrap().quote).unwrap();
        assert_eq!(quoted.destination, addr(internet), "{what}");
        let unasked = asking(Vec::new()).receive(&too_big(wire.packet())).reason();
        if sender == "va1" {
            assert_eq!(unasked, Some(DropReason::QuotedPacket), "{what}");
        }
    }
    // What a router passed on for us is quoted as it went on from there.
    let mut hv1 = asking(vec![to_outside("tasks")]);
    let mut passed_on = udp(VA1, "2001:db8:b1:e::77", 60);
    let IpAddr::V6(wire) = ila_of(9, "2001:db8:b1:e::77") else { panic!() };
    passed_on[24..40].copy_from_slice(&wire.octets());
    let told = hv1.receive(&too_big(&passed_on));
    let view = told.ip();
    let quoted = Dissected::of_ip(view.icmp_error().unwrap().quote).unwrap();
    assert_eq!(quoted.destination, addr("2001:db8:b1:e::77"), "control");
}

#[test]
fn errors_leave_within_their_senders_allowance_and_only_of_the_types_there_are() {
    let mut hv1 = host(1, Spread::FourHosts, &open());
    for (sender, own, peer, number) in [
        ("va1", VA1, INTERNET, protocol::ICMPV6),
        ("t1", T1, INTERNET, protocol::ICMPV6),
        ("va1", "10.1.0.1", "198.51.100.7", protocol::ICMP),
    ] {
        let unreachable = if number == protocol::ICMP { (number, 3, 3, 0) } else { (number, 1, 4, 0) };
        let error = about(&udp(peer, own, 9), addr(own), unreachable);
        let sent = (0..2000).filter(|_| match hv1.send(sender, &error) {
            Out::Uplink(..) => true,
            out => {
                assert_eq!(out.reason(), Some(DropReason::RateLimited), "{own}");
                false
            }
        });
        let sent = sent.count();
        assert!((1..2000).contains(&sent), "{own}: {sent}");
        hv1.walker.begin(Duration::from_secs(1000));
    }
    for kind in [0, 5, 100, 127] {
        let mut hv1 = host(1, Spread::FourHosts, &open());
        let error = about(&udp(INTERNET, VA1, 9), addr(VA1), (protocol::ICMPV6, kind, 0, 0));
        assert_eq!(hv1.send("va1", &error).reason(), Some(DropReason::QuotedPacket), "type {kind}");
    }
}

#[test]
fn an_errors_own_source_is_somebody_and_none_of_ours() {
    let mut hv1 = host(1, Spread::FourHosts, &open());
    let error = |about_whom: &str, from: &str| {
        let from = addr(from);
        about(&udp(T1, about_whom, 9), from, (protocol::ICMPV6, 1, 4, 0))
    };
    for nobody in ["ff02::1", "ff0e::1", "fe80::1", "::1", "::", "::ffff:10.0.0.1"] {
        let refused = hv1.receive(&error(T2, nobody)).reason();
        assert_eq!(refused, Some(DropReason::IllegalSource), "{nobody}");
    }
    // T3 is on this host: from the wire it says nothing.
    assert_eq!(hv1.receive(&error(T3, T3)).reason(), Some(DropReason::UnregisteredSource));
    for (about_whom, from) in [(T2, ROUTER), (T2, T2), (T3, ROUTER)] {
        let told = hv1.receive(&error(about_whom, from));
        assert!(matches!(&told, Out::Local(name, ..) if name == "t1"), "{from} about {about_whom}: {told:?}");
    }
    let here = hv1.send("t3", &error(T3, T3));
    assert!(matches!(&here, Out::Local(name, ..) if name == "t1"), "{here:?}");
}

#[test]
fn rules_look_at_the_packet_and_not_at_what_ethernet_pads_it_with() {
    let ports = Crossing {
        protocol: Protocol::Sctp,
        ports: vec![4001..=4001],
        ..Crossing::between(Realm::of("blue"), Realm::Tasks(None))
    };
    let mut hv1 = host(1, Spread::FourHosts, &[ports]);
    let transport = [0x0f, 0xa0, 0x0f, 0xa1, 0, 0, 0, 0, 0, 0, 0, 0];
    for (from, to) in [(VA1, "2001:db8:51:0:2000::a4"), ("10.1.0.1", "192.168.53.53")] {
        let whole = frames::ip(Header::default(), addr(from), addr(to), 132, transport.to_vec());
        let out = hv1.send("va1", &whole);
        assert!(matches!(out, Out::Uplink(..)), "{from}, control: {out:?}");
        let mut padded = frames::ip(Header::default(), addr(from), addr(to), 132, transport[..2].to_vec());
        padded.extend(&transport[2..]);
        let refused = hv1.send("va1", &padded).reason();
        assert_eq!(refused, Some(DropReason::CrossingFragment), "{from}");
    }
}

#[test]
fn an_alias_is_nobodys_address_where_a_router_is_asked_either() {
    let mut hv1 = asking(open());
    let key =
        |address: &str| crate::addr::Key::first(Identifier::ipv4(vnid("blue"), address.parse().unwrap()));
    let source = Source::Redirect;
    let learned = Learned { source, epoch: 1, since: Duration::ZERO, until: None };
    let from_fabric = |own: &str| {
        let mut packet = udp(&sir_in("blue", own).to_string(), &sir_in("blue", "10.1.0.1").to_string(), 9);
        let IpAddr::V6(to) = on_wire(1, "blue", "10.1.0.1", ChecksumMode::Neutral) else { panic!() };
        packet[24..40].copy_from_slice(&to.octets());
        packet
    };
    for (address, is_alias) in [("10.1.200.4", true), ("10.1.200.5", false)] {
        let refused = hv1.receive(&from_fabric(address)).reason();
        assert_eq!(refused, is_alias.then_some(DropReason::UnregisteredSource), "from {address}");
        let lesson = hv1.nve.learn(key(address), locator(7), learned);
        assert_eq!(lesson.err(), is_alias.then_some(NotLearned::NoEndpoint), "{address}");
    }
    // And so it still stands for VA4.
    let out = hv1.send("va1", &udp("10.1.0.1", "10.1.200.4", 9));
    assert_eq!(out.ip().destination, on_wire(4, "red", "10.1.0.4", ChecksumMode::Neutral));
}

/// hv1 with everything open, in a fabric of which it knows a part.
fn in_fabric(fabric: &[&str], unknown: Unknown) -> Lab {
    let mut setup = reference(1, Spread::FourHosts, open(), ChecksumMode::Neutral);
    setup.fabric = fabric.iter().map(|prefix| prefix.parse().unwrap()).collect();
    setup.host.unknown = unknown;
    Lab::of(setup)
}

/// All locators, all networks' /96s, the hosts' own addresses.
const FABRIC: [&str; 3] = ["2001:db8::/56", "2001:db8:b1:e::/64", "2001:db8:ffff::/48"];

/// At a host that no mapping names; in a network that is not configured here; a host's own.
const STRANGERS: [&str; 5] = [
    "2001:db8:0:9::1",
    "2001:db8:0:9:2000::a2",
    "2001:db8:0:9:7000:3e9:0:2",
    "2001:db8:b1:e:0:7:0:1",
    "2001:db8:ffff::5",
];

#[test]
fn what_is_the_fabrics_is_not_outside_however_little_is_known_of_it() {
    for stranger in STRANGERS {
        for (fabric, inside) in [(FABRIC.as_slice(), true), (&[], false)] {
            let mut hv1 = in_fabric(fabric, Unknown::Unreachable);
            let expected = |reason| inside.then_some(reason);
            for (sender, own) in [("va1", VA1), ("t1", T1)] {
                let out = hv1.send(sender, &udp(own, stranger, 9)).reason();
                assert_eq!(out, expected(DropReason::LocatorDestination), "{own} to {stranger}, {inside}");
                let came = from_outside(&mut hv1, &udp(stranger, own, 9)).reason();
                assert_eq!(came, expected(DropReason::InsideSource), "{stranger} to {own} at a gateway");
                let network = if sender == "va1" { "blue" } else { "tasks" };
                let mut packet = udp(stranger, own, 9);
                let IpAddr::V6(to) = on_wire(1, network, own, ChecksumMode::Neutral) else { panic!() };
                packet[24..40].copy_from_slice(&to.octets());
                let came = hv1.receive(&packet).reason();
                assert_eq!(came, expected(DropReason::IllegalSource), "{stranger} to {own} from the wire");
            }
        }
    }
    let mut hv1 = in_fabric(&FABRIC, Unknown::Unreachable);
    assert_eq!(hv1.send("va1", &udp(VA1, INTERNET, 9)).reason(), None, "the outside is where it was");
    assert_eq!(from_outside(&mut hv1, &udp(INTERNET, VA1, 9)).reason(), None);
    assert!(matches!(hv1.send("va1", &udp(VA1, VA2, 9)), Out::Uplink(..)), "and so are peers");
}

/// Nothing passes between domains, also where a host serves one of them: it cannot know the other's SIR prefix but by `fabric`.
#[test]
fn the_sir_prefix_of_a_domain_that_is_not_served_is_inside_where_fabric_names_it() {
    let other_domains = "2001:db8:5a:0:2000::a1";
    for (fabric, inside) in
        [(["2001:db8::/56", "2001:db8:5a::/64"], true), (["2001:db8::/56", "2001:db8:5b::/64"], false)]
    {
        let mut hv1 = in_fabric(&fabric, Unknown::Unreachable);
        for (sender, own) in [("va1", VA1), ("t1", T1)] {
            let came = from_outside(&mut hv1, &udp(other_domains, own, 9)).reason();
            assert_eq!(came, inside.then_some(DropReason::InsideSource), "to {own}, {inside}");
            let went = hv1.send(sender, &udp(own, other_domains, 9)).reason();
            assert_eq!(went, inside.then_some(DropReason::LocatorDestination), "from {own}, {inside}");
        }
    }
}

#[test]
fn where_the_fabric_is_known_no_quote_is_mistaken_for_a_locators() {
    let internet = "2001:db8:1234:0:6000:3e9:0:77";
    let quoted = |hv1: &mut Lab, destination: &str, own: &str| {
        let told = hv1.receive(&too_big(&udp(own, destination, 60)));
        let view = told.ip();
        Dissected::of_ip(view.icmp_error().unwrap().quote).unwrap().destination
    };
    let peer = ila_of(9, "2001:db8:b1:e::77").to_string();
    let mut hv1 = in_fabric(&FABRIC, Unknown::Router);
    assert_eq!(quoted(&mut hv1, internet, VA1), addr(internet));
    assert_eq!(quoted(&mut hv1, &peer, VA1), addr("2001:db8:b1:e::77"));
    assert_eq!(quoted(&mut hv1, "2001:db8:0:9:2000::b7", T1), addr("2001:db8:51:0:2000::b7"));
    let mut unbounded = in_fabric(&[], Unknown::Router);
    assert_eq!(quoted(&mut unbounded, internet, VA1), addr("2001:db8:b1:e::77"), "without, it is a guess");
}

#[test]
fn nobody_outside_is_told_a_locator() {
    let mut hv1 = host(1, Spread::FourHosts, &open());
    let own = sir_in("blue", "10.1.0.1").to_string();
    let gateway = sir_in("blue", "10.1.255.254");
    // Longer than the tenant's IPv4 link takes.
    let packet = udp(NAT64, &own, 1600);
    let mut translated = packet.clone();
    let IpAddr::V6(to) = on_wire(1, "blue", "10.1.0.1", ChecksumMode::Neutral) else { panic!() };
    translated[24..40].copy_from_slice(&to.octets());
    for (what, out) in
        [("at a gateway", from_outside(&mut hv1, &packet)), ("behind one", hv1.receive(&translated))]
    {
        assert_eq!(out.reason(), Some(DropReason::TooBig), "{what}");
        let view = out.ip();
        assert_eq!((view.icmp(), view.source), (Some((2, 0)), gateway), "{what}");
        assert_eq!(view.destination, addr(NAT64), "{what}");
        assert_eq!(verify(&view, view.source, view.destination), Verdict::Good, "{what}");
    }
}
