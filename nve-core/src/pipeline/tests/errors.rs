//! ICMP errors: those we owe, and those of the fabric that come home.

use super::*;
use crate::testkit::checksum::{Verdict, verify};
use crate::testkit::dissect::protocol;

const A6: &str = "2001:db8:b1:e::1";
const B6: &str = "2001:db8:b1:e::2";
const ROUTER: &str = "2001:db8:ffff::1";

/// An ICMPv6 error of a fabric router about `quoted`, addressed to its source.
pub(super) fn error(kind: u8, code: u8, word: u32, source: &str, quoted: &[u8]) -> Vec<u8> {
    let to = Dissected::of_ip(quoted).unwrap().source;
    let mut transport = vec![kind, code, 0, 0];
    transport.extend(word.to_be_bytes());
    transport.extend(&quoted[..quoted.len().min(1232)]);
    frames::ip(Header::default(), addr(source), to, protocol::ICMPV6, transport)
}

#[test]
fn a_routers_error_comes_home_in_the_senders_family_with_the_senders_quote() {
    for checksum in [ChecksumMode::Neutral, ChecksumMode::Unmodified] {
        let mut hv1 = Lab::of(setup(1, checksum));
        let sent = udp(A6, B6, 1400);
        let wire = hv1.send("vm1", &sent);
        let home = hv1.receive(&error(2, 0, 1400, ROUTER, wire.packet()));
        let view = home.ip();
        assert!(matches!(&home, Out::Local(name, ..) if name == "vm1"));
        assert_eq!(view.source, addr("2001:db8:b1:e::ffff:fffe"), "the VN's gateway");
        assert_eq!(view.destination, addr(A6));
        assert_eq!(verify(&view, view.source, view.destination), Verdict::Good);
        let said = view.icmp_error().unwrap();
        assert_eq!((said.kind, said.code, said.word), (2, 0, 1400));
        let quoted = Dissected::of_ip(said.quote).unwrap();
        assert_eq!((quoted.source, quoted.destination), (addr(A6), addr(B6)));
        assert_eq!(quoted.transport, &Dissected::of_ip(&sent).unwrap().transport[..quoted.transport.len()]);

        // One that knows nothing of the path yet.
        let mut hv1 = Lab::of(setup(1, checksum));
        let sent = udp("10.1.0.1", "10.1.0.2", 1400);
        let wire = hv1.send("vm1", &sent);
        let home = hv1.receive(&error(2, 0, 1400, ROUTER, wire.packet()));
        let view = home.ip();
        assert_eq!((view.source, view.destination), (addr("10.1.255.254"), addr("10.1.0.1")));
        assert!(view.header_checksum_good);
        assert_eq!(verify(&view, view.source, view.destination), Verdict::Good);
        let said = view.icmp_error().unwrap();
        assert_eq!((said.kind, said.code, said.word), (3, 4, 1380));
        let quoted = Dissected::of_ip(said.quote).unwrap();
        assert_eq!((quoted.source, quoted.destination), (addr("10.1.0.1"), addr("10.1.0.2")));
    }
}

/// Another host's router role translated the error to our locator on its way.
#[test]
fn an_error_comes_home_through_another_hosts_router_role() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    for (a, b) in [(A6, B6), ("10.1.0.1", "10.1.0.2")] {
        let wire = hv1.send("vm1", &udp(a, b, 1400));
        let passed_on = hv2.receive(&error(3, 0, 0, ROUTER, wire.packet()));
        assert!(matches!(passed_on, Out::Uplink(..)));
        let passed = passed_on.ip();
        assert_eq!((passed.destination, passed.hop_limit), (ila_of(1, a), 63));
        let home = hv1.receive(passed_on.packet());
        assert_eq!(home.ip().destination, addr(a));
        assert_eq!(verify(&home.ip(), home.ip().source, home.ip().destination), Verdict::Good);
        assert_eq!(home.ip().icmp_error().unwrap().kind, if a == A6 { 3 } else { 11 });
    }
}

#[test]
fn a_peers_error_shows_the_peer() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    let got = hv2.receive(hv1.send("vm1", &udp(A6, B6, 20)).packet());
    let unreachable = error(1, 4, 0, B6, got.packet());
    let home = hv1.receive(hv2.send("vm2", &unreachable).packet());
    assert_eq!((home.ip().source, home.ip().destination), (addr(B6), addr(A6)));

    let sent = udp("10.1.0.1", "10.1.0.2", 20);
    let mut transport = vec![3, 3, 0, 0, 0, 0, 0, 0];
    transport.extend(&sent);
    let source = addr("10.1.0.2");
    let unreachable = frames::ip(Header::default(), source, addr("10.1.0.1"), protocol::ICMP, transport);
    let home = hv1.receive(hv2.send("vm2", &unreachable).packet());
    assert_eq!((home.ip().source, home.ip().icmp()), (source, Some((3, 3))));
    // Identification and DF of the quoted packet are not carried (RFC 7915); ports and addresses are what a sender looks for.
    let quoted = Dissected::of_ip(home.ip().icmp_error().unwrap().quote).unwrap();
    assert_eq!((quoted.source, quoted.destination), (addr("10.1.0.1"), source));
    assert_eq!(quoted.transport, &sent[20..]);
}

/// Whoever may not speak to the receiver is a router to it, whatever address it claims.
#[test]
fn only_a_registered_peer_is_shown_as_the_source_of_an_error() {
    let mut hv1 = Lab::new(1);
    for (a, b, free, gateway) in [
        (A6, B6, "2001:db8:b1:e::77", "2001:db8:b1:e::ffff:fffe"),
        ("10.1.0.1", "10.1.0.2", &sir_of("10.1.0.77").to_string(), "10.1.255.254"),
    ] {
        let wire = hv1.send("vm1", &udp(a, b, 20));
        let home = hv1.receive(&error(1, 4, 0, free, wire.packet()));
        let view = home.ip();
        assert_eq!((view.source, view.destination), (addr(gateway), addr(a)));
        assert_eq!(verify(&view, view.source, view.destination), Verdict::Good);
    }
}

#[test]
fn forged_quotes_are_dropped() {
    let mut hv1 = Lab::new(1);
    let ila = |host: u8, address: &str| ila_of(host, address).to_string();
    for (why, quoted) in [
        ("another's packet", udp("2001:db8:b1:e::3", &ila(2, B6), 20)),
        ("to an address without a mapping", udp(A6, &ila(2, "2001:db8:b1:e::77"), 20)),
        ("to an unknown locator", udp(A6, &ila(9, B6), 20)),
        ("to another network", udp(A6, "2001:db8:b1:e:0:1:0:2", 20)),
        ("from a locator", udp(&ila(1, A6), &ila(2, B6), 20)),
        ("of its other family", udp(&sir_of("10.1.0.1").to_string(), &ila(2, "10.1.0.2"), 20)),
    ] {
        let mut packet = error(2, 0, 1300, ROUTER, &quoted);
        packet[24..40].copy_from_slice(&v6(A6).octets());
        assert_eq!(hv1.receive(&packet).reason(), Some(DropReason::QuotedPacket), "{why}");
    }
    let honest = udp(A6, &ila(2, B6), 20);
    assert!(matches!(hv1.receive(&error(2, 0, 1300, ROUTER, &honest)), Out::Local(..)), "positive control");
}

/// The same rule on one host: a neighbour's error must quote what the receiver sent.
#[test]
fn a_neighbour_cannot_forge_an_error() {
    let mut hv1 = Lab::new(1);
    let honest = error(1, 4, 0, "2001:db8:b1:e::3", &udp(A6, "2001:db8:b1:e::3", 20));
    assert!(matches!(hv1.send("vm3", &honest), Out::Local(..)));
    let mut forged = error(1, 4, 0, "2001:db8:b1:e::3", &udp("2001:db8:b1:e::9", B6, 20));
    forged[24..40].copy_from_slice(&v6(A6).octets());
    assert_eq!(hv1.send("vm3", &forged).reason(), Some(DropReason::QuotedPacket));
    let mut transport = vec![3, 3, 0, 0, 0, 0, 0, 0];
    transport.extend(udp("10.1.0.9", "10.1.0.3", 20));
    let forged = frames::ip(Header::default(), addr("10.1.0.3"), addr("10.1.0.1"), protocol::ICMP, transport);
    assert_eq!(hv1.send("vm3", &forged).reason(), Some(DropReason::QuotedPacket));
}

#[test]
fn a_peer_that_floods_errors_silences_neither_the_fabric_nor_the_gateway() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    let near = error(1, 4, 0, "2001:db8:b1:e::3", &udp(A6, "2001:db8:b1:e::3", 20));
    let far = hv2.send("vm2", &error(1, 4, 0, B6, &udp(A6, B6, 20)));
    let mut reasons: Vec<_> = (0..200).map(|_| hv1.send("vm3", &near).reason()).collect();
    reasons.extend((0..200).map(|_| hv1.receive(far.packet()).reason()));
    assert!(reasons.contains(&None) && reasons.contains(&Some(DropReason::RateLimited)));
    let wire = hv1.send("vm1", &udp(A6, B6, 1400));
    assert_eq!(hv1.receive(&error(2, 0, 1400, ROUTER, wire.packet())).reason(), None);
    assert!(matches!(hv1.send("vm1", &udp(A6, "2001:db8:b1:e::99", 1)), Out::Reply(..)));
}

#[test]
fn too_big_is_told_with_the_mtu_that_fits() {
    let mut hv1 = Lab::new(1);
    for (packet, kind, word) in [
        (udp(A6, B6, 1500), (2, 0), 1500),
        (udp("10.1.0.1", "10.1.0.2", 1473), (3, 4), 1480),
        (udp(A6, "2001:db8:b1:e::3", 1500), (2, 0), 1500),
        (udp("10.1.0.1", "10.1.0.3", 1473), (3, 4), 1480),
    ] {
        let out = hv1.send("vm1", &packet);
        assert_eq!(out.reason(), Some(DropReason::TooBig));
        let said = out.ip();
        assert_eq!(said.icmp(), Some(kind));
        assert_eq!(said.icmp_error().unwrap().word & 0xffff, word);
        assert_eq!(verify(&said, said.source, said.destination), Verdict::Good);
    }
    assert!(matches!(hv1.send("vm1", &udp(A6, B6, 1452)), Out::Uplink(..)), "1500 bytes fit");
    assert!(matches!(hv1.send("vm1", &udp("10.1.0.1", "10.1.0.2", 1452)), Out::Uplink(..)));
}

#[test]
fn a_guest_with_ipv6_is_never_told_less_than_ipv6_needs() {
    for (uplink, ipv6, told) in
        [(1500, true, 1480), (1280, true, 1280), (1299, true, 1280), (1280, false, 1260)]
    {
        let mut setup = setup(1, ChecksumMode::Neutral);
        setup.host.uplink_mtu = uplink;
        if !ipv6 {
            setup.networks.iter_mut().for_each(|network| network.ipv6 = None);
            setup.attachments.iter_mut().for_each(|a| a.addresses.retain(|address| address.is_ipv4()));
            setup.mappings.retain(|mapping| mapping.address.is_ipv4());
        }
        let hv1 = Lab::of(setup);
        assert_eq!(hv1.nve.mtu(hv1.port("vm1")), told, "uplink {uplink}, IPv6 {ipv6}");
    }
}

#[test]
fn the_unreachable_is_told_at_a_bounded_rate() {
    let mut hv1 = Lab::new(1);
    let told = |hv1: &mut Lab| {
        let outs: Vec<_> = (0..1000).map(|_| hv1.send("vm1", &udp(A6, "2001:db8:b1:e::99", 1))).collect();
        assert!(outs.iter().all(|out| out.reason() == Some(DropReason::NoMapping)));
        outs.iter().filter(|out| matches!(out, Out::Reply(..))).count()
    };
    let first = told(&mut hv1);
    assert!((1..=100).contains(&first), "{first}");
    hv1.walker.begin(Duration::from_secs(60));
    assert_eq!(told(&mut hv1), first, "the allowance comes back");
    let out = hv1.send("vm3", &udp("2001:db8:b1:e::3", "2001:db8:b1:e::99", 1));
    assert_eq!(out.ip().icmp(), Some((1, 3)), "another attachment has its own allowance");
    let out = hv1.send("vm3", &udp("10.1.0.3", "10.1.0.99", 1));
    assert_eq!((out.ip().icmp(), out.ip().source), (Some((3, 1)), addr("10.1.255.254")));
}

#[test]
fn an_error_is_never_answered_with_an_error() {
    let mut hv1 = Lab::new(1);
    let quoted = udp("2001:db8:b1:e::99", A6, 1);
    let out = hv1.send("vm1", &error(1, 4, 0, A6, &quoted));
    assert_eq!(out, Out::Dropped(DropReason::NoMapping));
}

#[test]
fn fragments_leave_in_pieces_that_fit_and_come_together_again() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    let header = Header { dont_fragment: false, ..Header::default() };
    let sent = udp_with(header, "10.1.0.1", "10.1.0.2", 4000);
    let pieces = hv1.send_with("vm1", &sent, Offload::NONE);
    assert!(pieces.len() >= 3 && pieces.iter().all(|piece| piece.packet().len() <= 1500));
    let mut datagram = vec![0; 4008];
    let mut identifications = vec![];
    for piece in &pieces {
        let got = hv2.receive(piece.packet());
        let view = got.ip();
        datagram[view.fragment_offset..][..view.transport.len()].copy_from_slice(view.transport);
        identifications.push(view.identification);
    }
    assert_eq!(datagram, sent[20..]);
    identifications.dedup();
    assert_eq!(identifications, [Some(0x4711)]);
}

/// A packet that a host with larger links sent: its sender is told, through the fabric, in the wire's terms.
#[test]
fn what_is_too_big_for_the_receiver_is_told_across_the_fabric() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    let large = udp(&sir_of("10.1.0.1").to_string(), &ila_of(2, "10.1.0.2").to_string(), 1600);
    let told = hv2.receive(&large);
    assert_eq!(told.reason(), Some(DropReason::TooBig));
    assert_eq!((told.ip().source, told.ip().destination), (addr("2001:db8:0:2::1"), sir_of("10.1.0.1")));
    let home = hv1.receive(told.packet());
    assert_eq!(home.ip().destination, addr("10.1.0.1"));
    let said = home.ip().icmp_error().unwrap();
    assert_eq!((said.kind, said.code, said.word), (3, 4, 1480));
}

#[test]
fn a_receiver_that_goes_down_between_two_pieces_is_counted() {
    let mut hv1 = Lab::new(1);
    let header = Header { dont_fragment: false, ..Header::default() };
    let sent = frames::ethernet(mac(1), GATEWAY_MAC, &udp_with(header, "10.1.0.1", "10.1.0.3", 4000));
    let (frame, mut scratch) = (Frame::whole(&sent), Scratch::default());
    let fate = hv1.walker.walk(Origin::Port(hv1.port("vm1")), &frame, &mut scratch);
    assert!(matches!(fate, Fate::Local(_, piece) if piece.more));
    assert!(hv1.walker.next_copy(&frame, &mut scratch).is_some());
    hv1.nve.set_receiver(hv1.port("vm3"), Receiver::default());
    assert_eq!(hv1.walker.next_copy(&frame, &mut scratch), None);
    assert_eq!(hv1.walker.next_copy(&frame, &mut scratch), None);
    assert_eq!(hv1.drops("vm1", DropReason::ReceiverDown), 1);
}
