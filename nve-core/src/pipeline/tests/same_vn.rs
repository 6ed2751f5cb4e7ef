//! Scenarios 9 and 10 of the draft, byte by byte, and the same on one host.

use super::*;
use crate::testkit::checksum::{Verdict, verify};

const A6: &str = "2001:db8:b1:e::1";
const B6: &str = "2001:db8:b1:e::2";

#[test]
fn scenario_9_changes_the_destination_and_gives_back_a_hop() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    let sent = tcp(A6, B6, 300);
    let out = hv1.send("vm1", &sent);
    let Out::Uplink(wire, Offload::NONE) = &out else { panic!("{out:?}") };
    // L2:(1001:VAX2) by hand: type 3 with C is 7, VNI 1001 is 3e9. Words that leave: 2001 + db8 + b1 + e = 2e78; that come:
    // 2001 + db8 + 0 + 2 + 7000 + 3e9 = a1a4; the low word: 2 + 2e78 - a1a4 = 8cd5 in one's complement.
    let by_hand = "2001:db8:0:2:7000:3e9:0:8cd5";
    assert_eq!(out.ip().destination, addr(by_hand));
    let mut expected = sent.clone();
    expected[7] = 65;
    expected[24..40].copy_from_slice(&v6(by_hand).octets());
    assert_eq!(wire, &expected);
    assert_eq!(verify(&out.ip(), addr(A6), addr(by_hand)), Verdict::Good, "on the wire as it is");

    let mut arrived = wire.clone();
    arrived[7] = 62;
    let Out::Local(name, frame, _) = hv2.receive(&arrived) else { panic!() };
    assert_eq!(name, "vm2");
    let mut expected = frames::ethernet(GATEWAY_MAC, mac(2), &sent);
    expected[14 + 7] = 63;
    assert_eq!(frame, expected);
}

#[test]
fn scenario_10_translates_and_back() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    for sent in
        [tcp("10.1.0.1", "10.1.0.2", 300), udp("10.1.0.1", "10.1.0.2", 100), echo("10.1.0.1", "10.1.0.2", 56)]
    {
        let out = hv1.send("vm1", &sent);
        let wire = out.ip();
        assert_eq!((wire.source, wire.destination), (sir_of("10.1.0.1"), ila_of(2, "10.1.0.2")));
        assert_eq!(wire.hop_limit, 65);
        assert_eq!(verify(&wire, wire.source, wire.destination), Verdict::Good);

        let back = hv2.receive(out.packet());
        let (got, sent) = (back.ip(), Dissected::of_ip(&sent).unwrap());
        assert_eq!((got.source, got.destination), (sent.source, sent.destination));
        assert_eq!((got.hop_limit, got.transport), (66, sent.transport));
        assert!(got.header_checksum_good);
    }
}

/// The fields that may differ between one host and two: hops, and an identification that nobody needs (RFC 6864).
const EXCEPTED: [&str; 2] = ["ip.hop-limit", "ip.identification"];

#[test]
fn delivery_on_one_host_looks_like_delivery_over_the_wire() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    let mut with_options = tcp("10.1.0.1", "10.1.0.2", 40);
    with_options.splice(20..20, [1, 1, 1, 0]);
    with_options[0] = 0x46;
    with_options[3] += 4;
    frames::seal_ipv4(&mut with_options);
    let mut zero_udp = udp("10.1.0.1", "10.1.0.2", 40);
    zero_udp[26..28].fill(0);
    let fragmentable = Header { dont_fragment: false, ..Header::default() };
    let packets: Vec<(&str, Vec<u8>)> = vec![
        ("tcp", tcp("10.1.0.1", "10.1.0.2", 40)),
        ("udp without a checksum", zero_udp),
        ("echo", echo("10.1.0.1", "10.1.0.2", 1400)),
        ("options", with_options),
        ("large without DF", udp_with(fragmentable, "10.1.0.1", "10.1.0.2", 4000)),
        ("IPv6 tcp", tcp(A6, B6, 40)),
        ("IPv6 echo", echo(A6, B6, 40)),
    ];
    for (name, packet) in packets {
        let near = readdressed(&packet, 3);
        let local: Vec<Out> = hv1.send_with("vm1", &near, Offload::NONE);
        let wire = hv1.send_with("vm1", &packet, Offload::NONE);
        let remote: Vec<Out> = wire.iter().map(|out| hv2.receive(out.packet())).collect();
        assert_eq!(local.len(), remote.len(), "{name}");
        for (local, remote) in local.iter().zip(&remote) {
            let moved = readdressed(local.packet(), 2);
            let (mut near, mut far) = (Dissected::of_ip(&moved).unwrap().fields(), remote.ip().fields());
            for field in EXCEPTED {
                near.remove(field);
                far.remove(field);
            }
            assert_eq!(near, far, "{name}");
        }
    }
    let [(_, vm3), (_, vm2)] = [(&hv1, "vm3"), (&hv2, "vm2")].map(|(lab, name)| {
        let totals = lab.nve.counters();
        totals.ports.into_iter().find(|(n, _)| n == name).unwrap()
    });
    assert_eq!((vm3.out_packets, vm3.out_bytes), (vm2.out_packets, vm2.out_bytes));
}

/// The packet with host number `last` in its destination, checksums updated.
fn readdressed(packet: &[u8], last: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let view = Dissected::of_ip(&packet).unwrap();
    let (at, protocol, is_v4) = (view.transport_at, view.protocol, view.version == 4);
    let first = view.fragment_offset == 0;
    let to = if is_v4 { 19 } else { 39 };
    let field = match protocol {
        6 => Some(at + 16),
        17 => Some(at + 6),
        58 => Some(at + 2),
        _ => None,
    };
    let old = packet[to];
    packet[to] = last;
    if let Some(field) = field.filter(|_| first).filter(|at| packet[*at..*at + 2] != [0, 0]) {
        let value = u16::from_be_bytes([packet[field], packet[field + 1]]);
        let sum = u32::from(!value) + u32::from(!u16::from(old)) + u32::from(last);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        packet[field..field + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
    if is_v4 {
        frames::seal_ipv4(&mut packet);
    }
    packet
}

#[test]
fn unmodified_mode_sends_c_0_and_checksums_for_the_endpoints() {
    let mut hv1 = Lab::of(setup(1, ChecksumMode::Unmodified));
    let mut hv2 = Lab::new(2);
    for (sent, source, endpoint) in [
        (tcp(A6, B6, 10), addr(A6), addr(B6)),
        (tcp("10.1.0.1", "10.1.0.2", 10), sir_of("10.1.0.1"), sir_of("10.1.0.2")),
    ] {
        let out = hv1.send("vm1", &sent);
        let wire = out.ip();
        let IpAddr::V6(destination) = wire.destination else { panic!() };
        assert_eq!(destination.to_bits() as u64 & Identifier::C_BIT, 0);
        assert_eq!(verify(&wire, source, wire.destination), Verdict::Bad, "with the wire's addresses");
        assert_eq!(verify(&wire, source, endpoint), Verdict::Good, "with the endpoints'");
        let back = hv2.receive(out.packet());
        assert_eq!(back.ip().transport, Dissected::of_ip(&sent).unwrap().transport);
    }
}

#[test]
fn x_y_0_0_and_x_y_255_255_are_never_confused() {
    let with_edges = |host: u8| {
        let mut setup = setup(host, ChecksumMode::Neutral);
        for network in &mut setup.networks {
            network.ipv4 = Some("10.0.0.0/8".parse().unwrap());
        }
        let edges = ["10.2.0.0", "10.2.255.255"].map(addr);
        match setup.attachments.iter_mut().find(|a| a.name == "vm2") {
            Some(vm2) => vm2.addresses.extend(edges),
            None => setup.mappings.extend(edges.map(|address| setup::Mapping {
                network: "blue".into(),
                address,
                locator: locator(2),
            })),
        }
        Lab::of(setup)
    };
    let (mut hv1, mut hv2) = (with_edges(1), with_edges(2));
    for (edge, c) in [("10.2.0.0", true), ("10.2.255.255", false)] {
        let out = hv1.send("vm1", &udp("10.1.0.1", edge, 10));
        let IpAddr::V6(wire) = out.ip().destination else { panic!() };
        assert_eq!(wire.to_bits() as u64 & Identifier::C_BIT != 0, c);
        assert_eq!(hv2.receive(out.packet()).ip().destination, addr(edge));
    }
}

#[test]
fn a_hop_limit_of_255_stays_before_the_tun_and_cannot_be_made_behind_it() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    for (sent, wire) in [(255, 255), (254, 255), (1, 2)] {
        let header = Header { hop_limit: sent, ..Header::default() };
        assert_eq!(hv1.send("vm1", &udp_with(header, A6, B6, 1)).ip().hop_limit, wire);
        assert_eq!(hv1.send("vm1", &udp_with(header, "10.1.0.1", "10.1.0.2", 1)).ip().hop_limit, wire);
    }
    let IpAddr::V6(_) = ila_of(2, B6) else { panic!() };
    for (wire, got) in [(255, 254), (254, 254), (253, 254), (1, 2)] {
        let header = Header { hop_limit: wire, ..Header::default() };
        let packet = udp_with(header, A6, &ila_of(2, B6).to_string(), 1);
        assert_eq!(hv2.receive(&packet).ip().hop_limit, got);
    }
}

#[test]
fn where_no_kernel_spends_a_hop_none_is_given_back_and_neighbours_are_as_near() {
    let on_the_link = |host| Lab::of(Setup { uplink_hops: 0, ..setup(host, ChecksumMode::Neutral) });
    let (mut hv1, mut hv2) = (on_the_link(1), on_the_link(2));
    for (source, destination) in [(A6, B6), ("10.1.0.1", "10.1.0.2")] {
        for (sent, wire, got) in [(255, 254, 254), (254, 254, 254), (64, 64, 64), (1, 1, 1)] {
            let header = Header { hop_limit: sent, ..Header::default() };
            let out = hv1.send("vm1", &udp_with(header, source, destination, 1));
            assert_eq!(out.ip().hop_limit, wire);
            assert_eq!(hv2.receive(out.packet()).ip().hop_limit, got);
        }
    }
}

#[test]
fn a_reload_moves_an_address_without_touching_the_others() {
    let mut hv1 = Lab::new(1);
    let port = hv1.port("vm3");
    let mut moved = setup(1, ChecksumMode::Neutral);
    moved.attachments.retain(|a| a.name != "vm1");
    moved.mappings.push(setup::Mapping {
        network: "blue".into(),
        address: addr("10.1.0.1"),
        locator: locator(3),
    });
    hv1.nve.apply(moved.check().unwrap()).unwrap();
    hv1.walker.begin(Duration::from_secs(2));
    assert_eq!(hv1.port("vm3"), port);
    assert_eq!(hv1.nve.port("vm1"), None);
    let out = hv1.send("vm3", &udp("10.1.0.3", "10.1.0.1", 1));
    assert_eq!(out.ip().destination, ila_of(3, "10.1.0.1"));
    assert!(matches!(hv1.send("vm3", &udp("10.1.0.3", "10.1.0.2", 1)), Out::Uplink(..)));
    let gone = hv1.send("vm3", &udp("2001:db8:b1:e::3", A6, 1));
    assert_eq!(gone.reason(), Some(DropReason::NoMapping));
}

/// As a worker may see it while a reload moves an address: the table is ahead of the world, or behind.
#[test]
fn nothing_is_delivered_under_an_address_the_attachment_does_not_hold() {
    let mut hv1 = Lab::new(1);
    let key = crate::addr::Key::first(Identifier::ipv4(vnid("blue"), [10, 1, 0, 77].into()));
    hv1.nve.table.insert(key, crate::tables::Target::Local(hv1.port("vm3"))).unwrap();
    let out = hv1.send("vm1", &udp("10.1.0.1", "10.1.0.77", 1));
    assert_eq!(out.reason(), Some(DropReason::NoMapping));
    let from_wire =
        hv1.receive(&udp(&sir_of("10.1.0.2").to_string(), &ila_of(1, "10.1.0.77").to_string(), 1));
    assert_eq!(from_wire.reason(), Some(DropReason::NoMapping));
}

#[test]
fn fragments_cross_in_both_families() {
    let (mut hv1, mut hv2) = (Lab::new(1), Lab::new(2));
    // Two halves of an echo request of 2000 bytes, as a guest cuts it.
    let whole = echo("10.1.0.1", "10.1.0.2", 2000);
    for (offset, range, more) in [(0_u16, 20..1396, true), (1376, 1396..2028, false)] {
        let mut piece = whole[..20].to_vec();
        piece.extend(&whole[range.clone()]);
        let field = (offset / 8) | if more { 0x2000 } else { 0 };
        piece[2..4].copy_from_slice(&(20 + range.len() as u16).to_be_bytes());
        piece[6..8].copy_from_slice(&field.to_be_bytes());
        frames::seal_ipv4(&mut piece);
        let out = hv1.send("vm1", &piece);
        let got = hv2.receive(out.packet());
        assert_eq!(got.ip().transport, &piece[20..], "reversed exactly");
        assert_eq!((got.ip().fragment_offset, got.ip().more_fragments), (usize::from(offset), more));
        let near = readdressed(&piece, 3);
        assert_eq!(hv1.send("vm1", &near).ip().transport, &piece[20..], "on one host too");
    }
    for (field, len) in [(1_u16, 16), (16, 5)] {
        let mut body = vec![17, 0];
        body.extend(field.to_be_bytes());
        body.extend([0, 0, 0, 9]);
        body.extend(vec![0x33; len]);
        let piece = frames::ip(Header::default(), addr(A6), addr(B6), 44, body);
        let out = hv1.send("vm1", &piece);
        assert_eq!(hv2.receive(out.packet()).packet()[40..], piece[40..]);
    }
}
