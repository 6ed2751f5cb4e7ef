//! ICMP errors between realms: of receivers, of routers, of the edges themselves; each is judged by what it quotes.

use super::scenarios::{Row, rows};
use super::*;
use crate::testkit::dissect::protocol;

pub(super) const ROUTER: &str = "2001:db8:ffff::1";

/// "Port unreachable" from whoever received `packet`.
fn port_unreachable(packet: &[u8]) -> Vec<u8> {
    let view = Dissected::of_ip(packet).unwrap();
    let (number, kind, code) =
        if view.version == 4 { (protocol::ICMP, 3, 3) } else { (protocol::ICMPV6, 1, 4) };
    about(packet, view.destination, (number, kind, code, 0))
}

/// An error of `from` about `packet`.
pub(super) fn about(packet: &[u8], from: IpAddr, (number, kind, code, word): (u8, u8, u8, u32)) -> Vec<u8> {
    let to = Dissected::of_ip(packet).unwrap().source;
    let mut transport = vec![kind, code, 0, 0];
    transport.extend(word.to_be_bytes());
    transport.extend(&packet[..packet.len().min(512)]);
    frames::ip(Header::default(), from, to, number, transport)
}

fn labs(row: &Row, spread: Spread, checksum: ChecksumMode) -> (Lab, Lab) {
    let lab = |name| Lab::of(reference(spread.host_of(name), spread, open(), checksum));
    (lab(row.sender), lab(row.receiver))
}

/// The error that came home is about `sent`, as its sender wrote it.
fn check_home(home: &Out, row: &Row, sent: &[u8], what: &str) {
    assert!(matches!(home, Out::Local(name, ..) if name == row.sender), "{what}: {home:?}");
    let view = home.ip();
    assert_eq!(view.destination, addr(row.sent.0), "{what}");
    assert_eq!(verify(&view, view.source, view.destination), Verdict::Good, "{what}");
    let quote = view.icmp_error().unwrap().quote;
    let quoted = Dissected::of_ip(quote).unwrap();
    assert_eq!((quoted.source, quoted.destination), (addr(row.sent.0), addr(row.sent.1)), "{what}");
    let original = Dissected::of_ip(sent).unwrap();
    assert_eq!(quoted.protocol, original.protocol, "{what}");
    assert_eq!(quoted.transport, &original.transport[..quoted.transport.len()], "{what}");
    assert!(quoted.header_checksum_good, "{what}");
}

#[test]
fn a_receivers_error_comes_home_with_what_its_sender_wrote() {
    for row in rows() {
        for checksum in [ChecksumMode::Neutral, ChecksumMode::Unmodified] {
            let what = format!("scenario {}, {checksum:?}", row.name);
            let (mut ingress, mut egress) = labs(&row, Spread::FourHosts, checksum);
            for sent in [udp(row.sent.0, row.sent.1, 60), echo(row.sent.0, row.sent.1, 60)] {
                let wire = ingress.send(row.sender, &sent);
                let seen = egress.receive(wire.packet());
                let back = egress.send(row.receiver, &port_unreachable(seen.packet()));
                assert!(matches!(back, Out::Uplink(..)), "{what}: {back:?}");
                let home = ingress.receive(back.packet());
                check_home(&home, &row, &sent, &what);
                assert_eq!(home.ip().source, addr(row.sent.1), "{what}: whom it wrote to");

                let mut one = Lab::of(reference(1, Spread::OneHost, open(), checksum));
                let seen = one.send(row.sender, &sent);
                let home = one.send(row.receiver, &port_unreachable(seen.packet()));
                check_home(&home, &row, &sent, &format!("{what}, one host"));
                assert_eq!(home.ip().source, addr(row.sent.1), "{what}, one host");
            }
        }
    }
}

#[test]
fn a_routers_error_comes_home_from_the_gateway_and_to_a_task_from_the_router() {
    for row in rows() {
        for checksum in [ChecksumMode::Neutral, ChecksumMode::Unmodified] {
            let what = format!("scenario {}, {checksum:?}", row.name);
            let (mut ingress, _) = labs(&row, Spread::FourHosts, checksum);
            let sent = udp(row.sent.0, row.sent.1, 60);
            let wire = ingress.send(row.sender, &sent);
            let error = about(wire.packet(), addr(ROUTER), (protocol::ICMPV6, 3, 0, 0));
            let home = ingress.receive(&error);
            check_home(&home, &row, &sent, &what);
            let gateway = match (row.sender, row.sent.0.contains(':')) {
                ("t1" | "t2" | "t4", _) => ROUTER,
                (_, false) => "10.1.255.254",
                ("va1", true) => "2001:db8:b1:e::ffff:fffe",
                _ => "2001:db8:b1:e:0:1:ffff:fffe",
            };
            assert_eq!(home.ip().source, addr(gateway), "{what}");
        }
    }
}

#[test]
fn a_packet_too_big_is_learned_and_told_between_realms() {
    for row in rows() {
        let (mut ingress, _) = labs(&row, Spread::FourHosts, ChecksumMode::Neutral);
        let sent = udp(row.sent.0, row.sent.1, 1400);
        let wire = ingress.send(row.sender, &sent);
        let error = about(wire.packet(), addr(ROUTER), (protocol::ICMPV6, 2, 0, 1300));
        check_home(&ingress.receive(&error), &row, &sent, row.name);
        let again = ingress.send(row.sender, &sent);
        assert_eq!(again.reason(), Some(DropReason::TooBig), "scenario {}", row.name);
        let said = again.ip().icmp_error().map(|error| (error.kind, error.word)).unwrap();
        let expected = if row.sent.0.contains(':') { (2, 1300) } else { (3, 1280) };
        assert_eq!(said, expected, "scenario {}", row.name);
    }
}

#[test]
fn an_error_about_what_nobody_sent_or_no_rule_admits_is_dropped_at_both_edges() {
    for row in rows() {
        let spread = Spread::FourHosts;
        let (mut ingress, mut egress) = labs(&row, spread, ChecksumMode::Neutral);
        let sent = udp(row.sent.0, row.sent.1, 60);
        let wire = ingress.send(row.sender, &sent);
        let seen = egress.receive(wire.packet());
        let error = port_unreachable(seen.packet());
        let back = egress.send(row.receiver, &error);
        assert!(matches!(back, Out::Uplink(..)), "control, scenario {}", row.name);
        // Without rules, neither edge lets it pass. Tasks need none.
        if row.name != "1" {
            let closed = |name| host(spread.host_of(name), spread, &[]);
            let refused = closed(row.receiver).send(row.receiver, &error).reason();
            assert_eq!(refused, Some(DropReason::QuotedPacket), "scenario {}, ingress", row.name);
            let refused = closed(row.sender).receive(back.packet()).reason();
            assert_eq!(refused, Some(DropReason::QuotedPacket), "scenario {}, egress", row.name);
        }
        // About a packet that another sent, to whoever sent it not.
        let at = if row.seen.0.is_ipv4() { 20 + 8 + 15 } else { 40 + 8 + 23 };
        let mut forged = error.clone();
        forged[at] ^= 0x40;
        let number = if row.seen.0.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        let header = if row.seen.0.is_ipv4() { 20 } else { 40 };
        let view = Dissected::of_ip(&error).unwrap();
        let forged =
            frames::ip(Header::default(), view.source, view.destination, number, forged[header..].to_vec());
        let refused = egress.send(row.receiver, &forged).reason();
        assert_eq!(refused, Some(DropReason::QuotedPacket), "scenario {}, forged", row.name);
        // The same from the fabric.
        let mut forged = wire.packet().to_vec();
        forged[23] ^= 0x40;
        let mut error = about(&forged, addr(ROUTER), (protocol::ICMPV6, 1, 0, 0));
        error[24..40].copy_from_slice(&wire.packet()[8..24]);
        let refused = ingress.receive(&error).reason();
        assert_eq!(refused, Some(DropReason::QuotedPacket), "scenario {}, from the fabric", row.name);
    }
}

#[test]
fn a_last_hop_is_spent_between_realms_and_said_so_and_not_between_tasks() {
    for row in rows() {
        for spread in [Spread::FourHosts, Spread::OneHost] {
            let mut ingress = host(spread.host_of(row.sender), spread, &open());
            let sent = udp_with(Header { hop_limit: 1, ..Header::default() }, row.sent.0, row.sent.1, 9);
            let out = ingress.send(row.sender, &sent);
            if row.name == "1" {
                assert_eq!(out.reason(), None);
                continue;
            }
            assert_eq!(out.reason(), Some(DropReason::HopLimit), "scenario {}: {out:?}", row.name);
            let view = out.ip();
            let expected = if row.sent.0.contains(':') { 3 } else { 11 };
            assert_eq!(view.icmp_error().unwrap().kind, expected, "scenario {}", row.name);
            assert_eq!(view.destination, addr(row.sent.0));
            assert_eq!(verify(&view, view.source, view.destination), Verdict::Good);
            if row.sender.starts_with('t') {
                let control = locator(spread.host_of(row.sender)).control_address();
                assert_eq!(view.source, IpAddr::V6(control), "a task hears the host");
            }
            let two = udp_with(Header { hop_limit: 2, ..Header::default() }, row.sent.0, row.sent.1, 9);
            assert_eq!(ingress.send(row.sender, &two).reason(), None, "control, scenario {}", row.name);
        }
    }
}

#[test]
fn what_rules_refuse_is_answered_prohibited_within_its_rate() {
    let mut hv1 = host(1, Spread::FourHosts, &[]);
    for (sender, from, to, said) in [
        ("va1", "2001:db8:b1:e::1", "2001:db8:51:0:2000::a4", (1, 1)),
        ("va1", "2001:db8:b1:e::1", "2001:db8:b1:e:0:1:0:4", (1, 1)),
        ("va1", "2001:db8:b1:e::1", INTERNET, (1, 1)),
        ("va1", "10.1.0.1", "192.168.53.53", (3, 13)),
        ("t1", "2001:db8:51:0:2000::a1", "2001:db8:b1:e:0:1:0:4", (1, 1)),
    ] {
        let out = hv1.send(sender, &udp(from, to, 9));
        assert!(matches!(out, Out::Reply(..)), "{from} to {to}: {out:?}");
        assert_eq!(out.ip().icmp(), Some(said), "{from} to {to}");
    }
    let answers = (0..1000).filter(|_| {
        let out = hv1.send("t1", &udp("2001:db8:51:0:2000::a1", INTERNET, 9));
        matches!(out, Out::Reply(..))
    });
    assert!(answers.count() < 100, "and no more often than any error");
}
