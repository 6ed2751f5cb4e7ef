//! Delivering on one host is observably the same as through the wire (design, section 3): every case is done both ways, and what the
//! receiver gets, what the sender hears back and what is counted must be equal.
//!
//! Fields compared: Ethernet destination, source and type; every IP field of `testkit::dissect` (version, addresses, traffic class,
//! flow label, DF, MF, offset, protocol, total and header length, header checksum good or not); the transport checksum's verdict; all
//! transport bytes. Excepted: the hop limit; and the identification of IPv4 packets that are no fragments, which the egress makes anew.

use core::time::Duration;
use std::collections::BTreeMap;

use nve_core::packet::Offload;
use nve_core::testkit::dissect::{Dissected, protocol};
use nve_core::testkit::frames::{self, Header, flags};
use nve_core::testkit::{Dice, GuestPlan, Record, World};

use crate::{VM1, VM2, address, endpoint, two_hosts_in};
use nve_core::addr::ChecksumMode::Neutral;

/// A name and the frame's IP packet.
type Case = (String, Vec<u8>);

fn world(second_host: &str) -> World {
    let mut world = two_hosts_in(Neutral, Neutral)
        .routers(0)
        .guest(GuestPlan::new("vm1", "hv1", "blue", &VM1).by_hand())
        .guest(GuestPlan::new("vm2", second_host, "blue", &VM2).by_hand())
        .start();
    world.expect_bad_checksums();
    world
}

fn both_families() -> Vec<Case> {
    let mut cases = Vec::new();
    for (family, name) in [(0, "IPv4"), (1, "IPv6")] {
        let (from, to) = (endpoint(VM1[family], 1000), endpoint(VM2[family], 2000));
        let mut add = |what: &str, packet: Vec<u8>| cases.push((format!("{name} {what}"), packet));
        let plain = Header::default();
        for len in [0, 1, 100, 1300] {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            add(&format!("UDP of {len}"), frames::udp(plain, from, to, &payload));
            add(&format!("TCP of {len}"), frames::tcp(plain, from, to, flags::ACK, &payload));
            add(&format!("echo of {len}"), frames::echo_request(plain, from.ip(), to.ip(), 1, &payload));
        }
        for traffic_class in [0x01, 0x02, 0x03, 0xb8, 0xff] {
            let header = Header { traffic_class, ..plain };
            add(&format!("traffic class {traffic_class:#x}"), frames::udp(header, from, to, b"marked"));
        }
        for hop_limit in [3, 64, 128, 254, 255] {
            let header = Header { hop_limit, ..plain };
            add(&format!("hop limit {hop_limit}"), frames::udp(header, from, to, b"far"));
        }
        for number in [0, 2, 4, 33, 41, 47, 50, 51, 58, 59, 89, 132, 136, 253] {
            let packet = frames::ip(plain, from.ip(), to.ip(), number, vec![0; 24]);
            add(&format!("protocol {number}"), packet);
        }
        let mut wrong = frames::udp(plain, from, to, b"wrong");
        *wrong.last_mut().expect("a byte") ^= 0xff;
        add("UDP with a bad checksum", wrong);
        let mut zero = frames::udp(plain, from, to, b"no checksum");
        let at = zero.len() - 11 - 2;
        zero[at..at + 2].fill(0);
        add("UDP without a checksum", zero);
        let too_big = frames::udp(plain, from, to, &[0; 1480]);
        add("larger than the MTU", too_big);
    }
    cases
}

fn icmp() -> Vec<Case> {
    let mut cases = Vec::new();
    let icmp = |number, from: &str, to: &str, body: &[u8]| {
        frames::ip(Header::default(), address(from), address(to), number, body.to_vec())
    };
    let quote = |family: usize| {
        frames::udp(Header::default(), endpoint(VM2[family], 7), endpoint(VM1[family], 8), b"quoted bytes")
    };
    // About a packet that the receiver cannot have sent: from another, to another, or not at all.
    for (family, stranger) in [(0, "10.1.0.9"), (1, "2001:db8:b1:e::9")] {
        let (number, kind) = if family == 0 { (protocol::ICMP, 3) } else { (protocol::ICMPV6, 1) };
        for (from, to) in [(stranger, VM1[family]), (VM2[family], stranger), (VM1[family], VM2[family])] {
            let about = frames::udp(Header::default(), endpoint(from, 7), endpoint(to, 8), b"quoted bytes");
            let body = [&[kind, 0, 0, 0, 0, 0, 0, 0], &about[..]].concat();
            cases.push((
                format!("ICMP error about {from} > {to}"),
                icmp(number, VM1[family], VM2[family], &body),
            ));
        }
    }
    // Found by damage: behind the packet's end, Ethernet padding that would be a fine quote.
    let about = frames::udp(Header::default(), endpoint(VM2[1], 7), endpoint(VM1[1], 8), b"quoted bytes");
    let body = [&[2, 0, 0, 0, 0, 0, 5, 0xdc], &about[..]].concat();
    let mut padded = icmp(protocol::ICMPV6, VM1[1], VM2[1], &body);
    padded[4..6].copy_from_slice(&[0, 35]);
    cases.push(("ICMPv6 error with its quote in the padding".to_owned(), padded));
    for kind in 0..=43_u8 {
        for code in [0, 1, 3, 4] {
            let body = [&[kind, code, 0, 0, 0, 0, 5, 0xdc], &quote(0)[..]].concat();
            cases.push((format!("ICMP {kind}/{code}"), icmp(protocol::ICMP, VM1[0], VM2[0], &body)));
        }
    }
    // Neighbour discovery (133 to 137) is the link's own.
    for kind in (0..=5_u8).chain(126..=132).chain(138..=145) {
        for code in [0, 1, 4] {
            let body = [&[kind, code, 0, 0, 0, 0, 5, 0xdc], &quote(1)[..]].concat();
            cases.push((format!("ICMPv6 {kind}/{code}"), icmp(protocol::ICMPV6, VM1[1], VM2[1], &body)));
        }
    }
    cases
}

fn ipv4_only() -> Vec<Case> {
    let (from, to) = (endpoint(VM1[0], 1000), endpoint(VM2[0], 2000));
    let may_fragment = Header { dont_fragment: false, ..Header::default() };
    let mut cases = vec![
        ("IPv4 DF = 0".to_owned(), frames::udp(may_fragment, from, to, b"free")),
        ("IPv4 DF = 0, full size".to_owned(), frames::udp(may_fragment, from, to, &[7; 1452])),
        ("IPv4 DF = 0, larger than the MTU".to_owned(), frames::udp(may_fragment, from, to, &[7; 1472])),
        ("IPv4 DF = 0, two times the MTU".to_owned(), frames::udp(may_fragment, from, to, &[7; 3000])),
        (
            "IPv4 DF = 0 echo, larger than the MTU".to_owned(),
            frames::echo_request(may_fragment, from.ip(), to.ip(), 1, &[7; 1472]),
        ),
    ];
    let whole = frames::udp(may_fragment, from, to, &[9; 2000]);
    for (name, range, flags) in
        [("first", 20..1220, 0x2000_u16), ("middle", 1220..1620, 0x2096), ("last", 1620..2028, 150 + 50)]
    {
        let mut piece = [&whole[..20], &whole[range]].concat();
        let len = piece.len() as u16;
        piece[2..4].copy_from_slice(&len.to_be_bytes());
        piece[6..8].copy_from_slice(&flags.to_be_bytes());
        frames::seal_ipv4(&mut piece);
        cases.push((format!("IPv4 {name} fragment"), piece));
    }
    let mut options = frames::udp(Header::default(), from, to, b"options");
    options.splice(20..20, [1, 1, 1, 0]);
    options[0] = 0x46;
    let len = options.len() as u16;
    options[2..4].copy_from_slice(&len.to_be_bytes());
    frames::seal_ipv4(&mut options);
    cases.push(("IPv4 options".to_owned(), options));
    let mut routed = frames::udp(Header::default(), from, to, b"routed");
    routed.splice(20..20, [131, 7, 4, 10, 1, 0, 9, 0]);
    routed[0] = 0x47;
    let len = routed.len() as u16;
    routed[2..4].copy_from_slice(&len.to_be_bytes());
    frames::seal_ipv4(&mut routed);
    cases.push(("IPv4 source route".to_owned(), routed));
    let mut bad = frames::udp(Header::default(), from, to, b"bad header");
    bad[10] ^= 1;
    cases.push(("IPv4 header checksum wrong".to_owned(), bad));
    cases
}

fn ipv6_only() -> Vec<Case> {
    let (from, to) = (endpoint(VM1[1], 1000), endpoint(VM2[1], 2000));
    let plain = frames::udp(Header::default(), from, to, b"behind headers");
    let behind = |number: u8, extension: &[u8]| {
        let mut packet = [&plain[..40], extension, &plain[40..]].concat();
        packet[6] = number;
        let len = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        packet
    };
    let mut label = plain.clone();
    label[1..4].copy_from_slice(&[0x0a, 0xbc, 0xde]);
    let cases = [
        ("flow label", label),
        (
            "larger than the MTU told, smaller than the fabric's",
            frames::udp(Header::default(), from, to, &[1; 1452]),
        ),
        ("destination options", behind(60, &[17, 0, 1, 4, 0, 0, 0, 0])),
        ("hop-by-hop options", behind(0, &[17, 0, 1, 4, 0, 0, 0, 0])),
        ("routing header, none left", behind(43, &[17, 0, 0, 0, 0, 0, 0, 0])),
        (
            "routing header, one left",
            behind(43, &[17, 2, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]),
        ),
        ("atomic fragment", behind(44, &[17, 0, 0, 0, 1, 2, 3, 4])),
        ("first fragment", behind(44, &[17, 0, 0, 1, 1, 2, 3, 4])),
        ("later fragment", behind(44, &[17, 0, 0, 0x50, 1, 2, 3, 4])),
    ];
    cases.into_iter().map(|(name, packet)| (format!("IPv6 {name}"), packet)).collect()
}

/// Broadcasts, and groups of every scope.
fn to_many() -> Vec<Case> {
    let mut cases = Vec::new();
    let groups =
        ["255.255.255.255", "10.1.255.255", "224.0.0.1", "224.0.0.251", "239.1.2.3", "ff02::1", "ff05::2"];
    for group in groups {
        let from = endpoint(VM1[usize::from(group.contains(':'))], 1000);
        let plain = Header::default();
        for len in [0, 100, 1400] {
            let payload = vec![7; len];
            cases.push((
                format!("UDP of {len} to {group}"),
                frames::udp(plain, from, endpoint(group, 5353), &payload),
            ));
            let echo = frames::echo_request(plain, from.ip(), address(group), 1, &payload);
            cases.push((format!("echo of {len} to {group}"), echo));
        }
        for (traffic_class, hop_limit) in [(0xb8, 64), (0, 255), (0, 3)] {
            let header = Header { traffic_class, hop_limit, ..plain };
            let packet = frames::udp(header, from, endpoint(group, 1), b"marked, near or far");
            cases.push((
                format!("traffic class {traffic_class:#x}, hop limit {hop_limit} to {group}"),
                packet,
            ));
        }
        let free = Header { dont_fragment: false, ..plain };
        cases.push((
            format!("larger than the MTU to {group}"),
            frames::udp(free, from, endpoint(group, 1), &[0; 1480]),
        ));
    }
    cases
}

/// One packet by field, without what may differ.
fn comparable(record: &Record) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::from([("ethernet".to_owned(), format!("{:02x?}", &record.bytes[..14]))]);
    if let Some(ip) = record.ip() {
        fields.extend(ip.fields().into_iter().map(|(name, value)| (name.to_owned(), value)));
        if ip.version == 4 && !ip.is_fragment() {
            fields.remove("ip.identification");
        }
        if let Some(quote) = ip.icmp_error().and_then(|error| Dissected::of_ip(error.quote)) {
            let quoted = quote.fields().into_iter().map(|(name, value)| (format!("quoted {name}"), value));
            fields.extend(quoted);
            fields.remove("quoted ip.hop-limit");
            fields.remove("quoted ip.identification");
            fields.remove("quoted ip.header-checksum");
            // Its bytes are there by field already; the excepted ones are among them.
            fields.remove("transport.bytes");
        }
    }
    fields.remove("ip.hop-limit");
    fields
}

/// What came of a packet: frames at the receiver, frames back at the sender, and the names of drops.
type Observed = (Vec<BTreeMap<String, String>>, Vec<BTreeMap<String, String>>, Vec<String>);

fn observe(world: &mut World, packet: &[u8]) -> Observed {
    let drops = |world: &World| -> BTreeMap<String, u64> {
        let uplink = world.nve("hv2").counters().uplink.drops;
        let all = world.counters("vm1").drops.into_iter().chain(uplink);
        all.fold(BTreeMap::new(), |mut sums, (reason, n)| {
            *sums.entry(reason.name().to_owned()).or_insert(0) += n;
            sums
        })
    };
    let (mark, before) = (world.mark(), drops(world));
    world.send("vm1", packet, Offload::NONE);
    world.run_for(Duration::from_secs(1));
    let all = |records: Vec<&Record>| records.into_iter().map(comparable).collect();
    let dropped = drops(world)
        .into_iter()
        .filter(|(name, n)| before.get(name) != Some(n))
        .map(|(name, _)| name)
        .collect();
    (all(world.received("vm2", mark)), all(world.received("vm1", mark)), dropped)
}

/// Asserts that the cases come out equal both ways, and that at least so many of them are delivered and refused.
fn assert_equal_both_ways(cases: Vec<Case>, delivered: usize, refused: usize) {
    let (mut local, mut remote) = (world("hv1"), world("hv2"));
    let (mut arrived, mut dropped) = (0, 0);
    let mut differing = Vec::new();
    for (name, packet) in cases {
        let (here, there) = (observe(&mut local, &packet), observe(&mut remote, &packet));
        arrived += usize::from(!here.0.is_empty());
        dropped += usize::from(!here.2.is_empty());
        if here != there {
            differing.push(format!("{name}:\n  one host: {here:?}\n  the wire: {there:?}"));
        }
    }
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
    assert!(arrived >= delivered && dropped >= refused, "{arrived} delivered, {dropped} refused");
}

#[test]
fn both_families_are_the_same_on_one_host_and_through_the_wire() {
    assert_equal_both_ways(both_families(), 50, 6);
}

#[test]
fn icmp_is_the_same_on_one_host_and_through_the_wire() {
    assert_equal_both_ways(icmp(), 10, 100);
}

#[test]
fn what_only_ipv4_has_is_the_same_on_one_host_and_through_the_wire() {
    assert_equal_both_ways(ipv4_only(), 6, 2);
}

#[test]
fn what_only_ipv6_has_is_the_same_on_one_host_and_through_the_wire() {
    assert_equal_both_ways(ipv6_only(), 5, 2);
}

#[test]
fn what_is_sent_to_many_is_the_same_on_one_host_and_through_the_wire() {
    assert_equal_both_ways(to_many(), 60, 2);
}

/// Packets of every kind above with bytes changed by chance: whatever it is, both ways agree about it.
#[test]
fn damaged_packets_are_the_same_on_one_host_and_through_the_wire() {
    let mut dice = Dice::new(11);
    let originals = [both_families(), icmp(), ipv4_only(), ipv6_only()].concat();
    let mut cases = Vec::new();
    for round in 0..6000 {
        let (name, packet) = &originals[dice.roll() as usize % originals.len()];
        let mut packet = packet.clone();
        for _ in 0..=dice.roll() % 3 {
            // Mostly headers.
            let at = dice.roll() as usize % packet.len().min(if dice.chance(800) { 60 } else { 2000 });
            packet[at] = dice.roll() as u8;
        }
        if dice.chance(100) {
            packet.truncate(dice.roll() as usize % packet.len() + 1);
        }
        // A hop limit of 1 is used up by the receiving host's kernel before its NVE could give it back.
        let hop_limit = if packet[0] >> 4 == 4 { 8 } else { 7 };
        if let Some(one) = packet.get_mut(hop_limit).filter(|hop_limit| **hop_limit == 1) {
            *one = 2;
        }
        if packet[0] >> 4 == 4 && packet.len() >= 60 && dice.chance(800) {
            frames::seal_ipv4(&mut packet);
        }
        let damaged: Vec<String> = packet.iter().take(80).map(|byte| format!("{byte:02x}")).collect();
        cases.push((format!("round {round}, {name}, damaged: {}", damaged.concat()), packet));
    }
    assert_equal_both_ways(cases, 100, 500);
}
