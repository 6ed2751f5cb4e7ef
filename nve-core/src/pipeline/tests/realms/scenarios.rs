//! The thirteen scenarios that leave their network, and their replies: addresses at the sender, on the wire and at the receiver.

use super::*;

/// One row of the table: name; sender, its packet's addresses; the source on the wire; network and address of whom it is for; the receiver,
/// what it sees.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) sender: &'static str,
    pub(super) sent: (&'static str, &'static str),
    wire_source: IpAddr,
    to: (&'static str, &'static str),
    pub(super) receiver: &'static str,
    pub(super) seen: (IpAddr, IpAddr),
}

const VA1: &str = "2001:db8:b1:e::1";
const VA4: &str = "2001:db8:b1:e:0:1:0:4";
const T1: &str = "2001:db8:51:0:2000::a1";
const T2: &str = "2001:db8:51:0:2000::a2";
const T4: &str = "2001:db8:51:0:2000::a4";

fn sir4(network: &str, address: &str) -> &'static str {
    sir_in(network, address).to_string().leak()
}

pub(super) fn rows() -> Vec<Row> {
    let plain = |name, sender, from, to, network, receiver| Row {
        name,
        sender,
        sent: (from, to),
        wire_source: addr(from),
        to: (network, to),
        receiver,
        seen: (addr(from), addr(to)),
    };
    vec![
        plain("1", "t1", T1, T2, "tasks", "t2"),
        plain("4", "va1", VA1, T4, "tasks", "t4"),
        plain("4r", "t4", T4, VA1, "blue", "va1"),
        plain("5", "t2", T2, VA4, "red", "va4"),
        plain("11", "va4", VA4, VA1, "blue", "va1"),
        Row {
            name: "8",
            sender: "va1",
            sent: ("10.1.0.1", "192.168.53.53"),
            wire_source: sir_in("blue", "10.1.0.1"),
            to: ("tasks", T4),
            receiver: "t4",
            seen: (sir_in("blue", "10.1.0.1"), addr(T4)),
        },
        Row {
            name: "8r",
            sender: "t4",
            sent: (T4, sir4("blue", "10.1.0.1")),
            wire_source: addr(T4),
            to: ("blue", "10.1.0.1"),
            receiver: "va1",
            seen: (addr("192.168.53.53"), addr("10.1.0.1")),
        },
        Row {
            name: "12",
            sender: "va4",
            sent: ("10.1.0.4", "10.1.201.1"),
            wire_source: sir_in("red", "10.1.0.4"),
            to: ("blue", "10.1.0.1"),
            receiver: "va1",
            seen: (addr("10.1.200.4"), addr("10.1.0.1")),
        },
        Row {
            name: "12r",
            sender: "va1",
            sent: ("10.1.0.1", "10.1.200.4"),
            wire_source: sir_in("blue", "10.1.0.1"),
            to: ("red", "10.1.0.4"),
            receiver: "va4",
            seen: (addr("10.1.201.1"), addr("10.1.0.4")),
        },
        Row {
            name: "13",
            sender: "va4",
            sent: ("10.1.0.4", "10.1.201.61"),
            wire_source: sir_in("red", "10.1.0.4"),
            to: ("blue", VA1),
            receiver: "va1",
            seen: (sir_in("red", "10.1.0.4"), addr(VA1)),
        },
        Row {
            name: "13r",
            sender: "va1",
            sent: (VA1, sir4("red", "10.1.0.4")),
            wire_source: addr(VA1),
            to: ("red", "10.1.0.4"),
            receiver: "va4",
            seen: (addr("10.1.201.61"), addr("10.1.0.4")),
        },
    ]
}

type Make = fn(&str, &str) -> Vec<u8>;

/// What is sent: two protocols with ports, and echo.
const KINDS: [(&str, Make); 3] = [
    ("udp", |from, to| udp(from, to, 100)),
    ("tcp", |from, to| tcp(from, to, 1000)),
    ("echo", |from, to| echo(from, to, 56)),
];

/// What arrives is for the receiver, verifies, and has `hops` left.
fn check_seen(out: &Out, row: &Row, what: &str, hops: u8) {
    let Out::Local(name, frame, _) = out else { panic!("{what}: {out:?}") };
    assert_eq!(name, row.receiver, "{what}");
    assert_eq!(&frame[6..12], GATEWAY_MAC.as_bytes(), "{what}");
    let view = out.ip();
    assert_eq!((view.source, view.destination), row.seen, "{what}");
    assert_eq!(verify(&view, view.source, view.destination), Verdict::Good, "{what}");
    assert!(view.header_checksum_good && view.total_len + 14 == frame.len(), "{what}");
    assert_eq!(view.hop_limit, hops, "{what}");
}

/// One hop is spent between realms, none between tasks.
fn hops_spent(row: &Row) -> u8 {
    u8::from(row.name != "1")
}

#[test]
fn on_four_hosts_every_scenario_has_the_drafts_addresses() {
    for row in rows() {
        for checksum in [ChecksumMode::Neutral, ChecksumMode::Unmodified] {
            let spread = Spread::FourHosts;
            let lab = |name| Lab::of(reference(spread.host_of(name), spread, open(), checksum));
            let (mut ingress, mut egress) = (lab(row.sender), lab(row.receiver));
            for (kind, make) in KINDS {
                let what = format!("scenario {}, {kind}, {checksum:?}", row.name);
                let sent = make(row.sent.0, row.sent.1);
                let wire = ingress.send(row.sender, &sent);
                assert!(matches!(wire, Out::Uplink(..)), "{what}: {wire:?}");
                let view = wire.ip();
                let to = on_wire(spread.host_of(row.receiver), row.to.0, row.to.1, checksum);
                assert_eq!((view.source, view.destination), (row.wire_source, to), "{what}");
                // One more, which the kernel behind the TUN spends.
                assert_eq!(view.hop_limit, 64 - hops_spent(&row) + 1, "{what}");
                if checksum == ChecksumMode::Neutral {
                    assert_eq!(verify(&view, view.source, view.destination), Verdict::Good, "{what}: wire");
                }
                let mut bytes = wire.packet().to_vec();
                // Two kernels.
                bytes[7] -= 2;
                check_seen(&egress.receive(&bytes), &row, &what, 64 - hops_spent(&row));
            }
        }
    }
}

#[test]
fn on_one_host_every_scenario_arrives_as_through_the_wire() {
    for row in rows() {
        for checksum in [ChecksumMode::Neutral, ChecksumMode::Unmodified] {
            let one = || Lab::of(reference(1, Spread::OneHost, open(), checksum));
            let spread = Spread::FourHosts;
            let lab = |name| Lab::of(reference(spread.host_of(name), spread, open(), checksum));
            for (kind, make) in KINDS {
                let what = format!("scenario {} on one host, {kind}, {checksum:?}", row.name);
                let sent = make(row.sent.0, row.sent.1);
                let local = one().send(row.sender, &sent);
                check_seen(&local, &row, &what, 64 - hops_spent(&row));
                let wire = lab(row.sender).send(row.sender, &sent);
                let mut bytes = wire.packet().to_vec();
                bytes[7] -= 2;
                let distant = lab(row.receiver).receive(&bytes);
                assert_eq!(distant.packet(), local.packet(), "{what}");
            }
        }
    }
}

#[test]
fn every_low_word_of_a_receiver_verifies_on_the_wire_and_arrives() {
    for (low, neutral) in [("0", false), ("ffff", false), ("1", true), ("fffe", true), ("8000", true)] {
        let task: &str = format!("2001:db8:51:0:2000::1:{low}").leak();
        let with = |host| {
            let mut setup = reference(host, Spread::FourHosts, open(), ChecksumMode::Neutral);
            match host {
                3 => setup.tasks.push(Task { name: "low".into(), addresses: vec![v6(task)] }),
                _ => setup.task_mappings.push(TaskMapping { address: v6(task), locator: locator(3) }),
            }
            Lab::of(setup)
        };
        let (mut hv1, mut hv3) = (with(1), with(3));
        let wire = hv1.send("t1", &udp(T1, task, 10));
        let view = wire.ip();
        let IpAddr::V6(to) = view.destination else { panic!("IPv6 only") };
        assert_eq!(to.to_bits() >> 60 & 1 == 1, neutral, "type 1 peers read 0 and ffff alike: {task}");
        if neutral {
            assert_eq!(verify(&view, view.source, view.destination), Verdict::Good, "{task}");
        }
        let seen = hv3.receive(wire.packet());
        let view = seen.ip();
        assert_eq!((view.source, view.destination), (addr(T1), addr(task)));
        assert_eq!(verify(&view, view.source, view.destination), Verdict::Good, "{task}");
    }
}

/// Scenarios 2 and 6.
#[test]
fn to_the_outside_packets_leave_as_they_are_but_for_one_hop() {
    for (sender, source) in [("t1", T1), ("va1", VA1)] {
        let mut hv1 = host(1, Spread::FourHosts, &open());
        for (kind, make) in KINDS {
            let sent = make(source, INTERNET);
            let out = hv1.send(sender, &sent);
            let Out::Uplink(packet, _) = &out else { panic!("{sender}, {kind}: {out:?}") };
            let mut expected = sent.clone();
            // Spent here, and the kernel's given back.
            assert_eq!(packet[7], 64, "{sender}, {kind}");
            expected[7] = 64;
            assert_eq!(*packet, expected, "{sender}, {kind}");
        }
    }
}

/// Scenarios 3 and 7, behind the gateway.
#[test]
fn from_the_outside_packets_arrive_where_a_crossing_lets_them() {
    for (receiver, network, address) in [("t3", "tasks", TASKS[1].2), ("va4", "red", VA4)] {
        let number = Spread::FourHosts.host_of(receiver);
        let mut packet = udp(INTERNET, address, 40);
        let IpAddr::V6(to) = on_wire(number, network, address, ChecksumMode::Neutral) else { panic!() };
        packet[24..40].copy_from_slice(&to.octets());
        let out = host(number, Spread::FourHosts, &open()).receive(&packet);
        assert!(matches!(&out, Out::Local(name, ..) if name == receiver), "{out:?}");
        assert_eq!((out.ip().source, out.ip().destination), (addr(INTERNET), addr(address)));
        assert_eq!(verify(&out.ip(), addr(INTERNET), addr(address)), Verdict::Good);
        let closed = host(number, Spread::FourHosts, &[]).receive(&packet);
        assert_eq!(closed.reason(), Some(DropReason::OutsideSource));
        // The router role on its way in: the same, with one hop spent.
        let mut other = host(2, Spread::FourHosts, &open());
        let passed = other.receive(&udp(INTERNET, address, 40));
        assert_eq!((passed.ip().source, passed.ip().destination), (addr(INTERNET), to.into()), "{receiver}");
        assert_eq!(passed.ip().hop_limit, 63);
        let refused = host(2, Spread::FourHosts, &[]).receive(&udp(INTERNET, address, 40));
        assert_eq!(refused.reason(), Some(DropReason::OutsideSource));
    }
}

#[test]
fn ipv4_tenants_reach_ipv4_outside_through_rfc_6052_and_are_answered() {
    let mut hv1 = host(1, Spread::FourHosts, &open());
    for (kind, make) in KINDS {
        let out = hv1.send("va1", &make("10.1.0.1", "198.51.100.7"));
        assert!(matches!(out, Out::Uplink(..)), "{kind}: {out:?}");
        let view = out.ip();
        let nat64 = addr("2001:db8:64::c633:6407");
        assert_eq!((view.source, view.destination), (sir_in("blue", "10.1.0.1"), nat64), "{kind}");
        assert_eq!(verify(&view, view.source, view.destination), Verdict::Good, "{kind}");
    }
    let from_nat64 = |source: &str, answers: bool| {
        let IpAddr::V6(to) = on_wire(1, "blue", "10.1.0.1", ChecksumMode::Neutral) else { panic!() };
        let flags = if answers { frames::flags::ACK } else { 2 };
        let (from, sir) = (socket(source, 443), SocketAddr::new(sir_in("blue", "10.1.0.1"), 4000));
        let mut packet = frames::tcp(Header::default(), from, sir, flags, b"answer");
        packet[24..40].copy_from_slice(&to.octets());
        packet
    };
    let out = hv1.receive(&from_nat64("2001:db8:64::c633:6407", true));
    let view = out.ip();
    assert_eq!((view.source, view.destination), (addr("198.51.100.7"), addr("10.1.0.1")));
    assert_eq!(verify(&view, view.source, view.destination), Verdict::Good);
    // Nobody outside speaks for a neighbour, the gateway or an alias.
    for own in ["10.1.0.2", "10.1.255.254", "192.168.53.53", "127.0.0.1", "224.0.0.1"] {
        let low = own.parse::<core::net::Ipv4Addr>().unwrap().to_bits();
        let source = Ipv6Addr::from_bits(v6("2001:db8:64::").to_bits() | u128::from(low)).to_string();
        let out = hv1.receive(&from_nat64(&source, true));
        assert_eq!(out.reason(), Some(DropReason::NoAlias), "{own}");
    }
}

#[test]
fn what_a_network_denies_of_the_outside_is_neither_reached_nor_heard() {
    let mut denying = reference(1, Spread::FourHosts, open(), ChecksumMode::Neutral);
    denying.networks[0].outside_deny = vec!["2001:db8:f::/48".parse().unwrap()];
    let mut hv1 = Lab::of(denying);
    let IpAddr::V6(to) = on_wire(1, "blue", VA1, ChecksumMode::Neutral) else { panic!("IPv6 only") };
    for (outside, denied) in [("2001:db8:f::7", true), (INTERNET, false)] {
        let expected = denied.then_some(DropReason::OutsideDenied);
        assert_eq!(hv1.send("va1", &udp(VA1, outside, 9)).reason(), expected, "to {outside}");
        let mut packet = udp(outside, VA1, 9);
        packet[24..40].copy_from_slice(&to.octets());
        assert_eq!(hv1.receive(&packet).reason(), expected, "from {outside}");
    }
    assert_eq!(hv1.send("t1", &udp(T1, "2001:db8:f::7", 9)).reason(), None, "a task's way is not blue's");
}
