//! `ipv4-xlat` by itself, judged by those who share nothing with it: scapy, and a Linux kernel that receives.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use ipv4_xlat::address::rfc6052::Prefix;
use ipv4_xlat::address::siit::Siit;
use ipv4_xlat::{Config, Packet, SCRATCH_LEN, Settings, v4_to_v6, v6_to_v4};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use serde_json::Value;
use vhost_ila_tests::namespace::Namespace;
use vhost_ila_tests::oracle::{script, script_in};
use vhost_ila_tests::process::output;
use vhost_ila_tests::sandbox::{entered, evidence};

fn pool() -> Prefix {
    Prefix::new("2001:db8:64::".parse().unwrap(), 96).unwrap()
}

fn read(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        packets.push(packet.unwrap().data.into_owned());
    }
    packets
}

fn write(path: &Path, packets: &[Vec<u8>]) {
    let header = PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(File::create(path).unwrap(), header).unwrap();
    for packet in packets {
        writer.write_packet(&PcapPacket::new(Duration::ZERO, packet.len() as u32, packet)).unwrap();
    }
}

/// What `packet`, the `number`th, becomes.
fn translate(number: u16, packet: &[u8]) -> Vec<u8> {
    let map = Siit { pool6: Some(pool()), ..Siit::default() };
    let config = Config::new(Settings::default()).unwrap();
    let mut out = [0; SCRATCH_LEN];
    let translated = match packet[0] >> 4 {
        4 => v4_to_v6::translate(&Packet::whole(packet), &map, &config, &mut out),
        _ => v6_to_v4::translate(&Packet::whole(packet), &map, &config, number, &mut out),
    };
    let translated =
        translated.unwrap_or_else(|refusal| panic!("packet {number}: {refusal:?}: {packet:02x?}"));
    assert!(translated.is_one_piece());
    [&out[..translated.head_len], &packet[translated.tail]].concat()
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn scapy_translates_ten_thousand_plain_packets_to_the_same_bytes() {
    entered().unwrap();
    let directory = evidence("e2e/translation-scapy").unwrap();
    let (before, after) = (directory.join("in.pcap"), directory.join("expected.pcap"));
    let mut make = script("siit.py").unwrap();
    make.args(["make", "7915", "10000"]).args([&before, &after]);
    output(make).unwrap();
    let (before, after) = (read(&before), read(&after));
    assert_eq!((before.len(), after.len()), (10_000, 10_000));
    for ((number, packet), expected) in (1..).zip(&before).zip(&after) {
        let ours = translate(number, packet);
        assert!(
            ours == *expected,
            "packet {number}\nin    {packet:02x?}\nours  {ours:02x?}\nscapy {expected:02x?}"
        );
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn the_vectors_are_what_scapy_makes_of_their_descriptions() {
    entered().unwrap();
    let directory = evidence("e2e/translation-vectors").unwrap();
    let mut make = script("siit.py").unwrap();
    make.arg("vectors").arg(&directory);
    output(make).unwrap();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ipv4-xlat/tests/vectors");
    let mut count = 0;
    for entry in std::fs::read_dir(&kept).unwrap() {
        let kept = entry.unwrap().path();
        let made = directory.join(kept.file_name().unwrap());
        let (kept, made) = (std::fs::read_to_string(kept).unwrap(), std::fs::read_to_string(&made).unwrap());
        assert_eq!(kept, made);
        count += 1;
    }
    assert_eq!(count, std::fs::read_dir(&directory).unwrap().count());
}

/// 192.0.2.2 is the receiver's IPv4 address, and what embeds it its IPv6 one.
const RECEIVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SENDER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The sum of 16-bit words, end-around carries added.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 =
        bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn addresses6() -> (Ipv6Addr, Ipv6Addr) {
    (pool().embed(SENDER), pool().embed(RECEIVER))
}

/// A packet to the receiver with a transport checksum that is right, but for `error`.
fn packet(family: u8, protocol: u8, data: &[u8], error: u16) -> Vec<u8> {
    let mut l4 = match protocol {
        6 => [&[0x13, 0x88, 0x17, 0x70, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0], data].concat(),
        17 => [&[0x13, 0x88, 0x17, 0x70, 0, 8 + data.len() as u8, 0, 0][..], data].concat(),
        _ => [&[if family == 4 { 8 } else { 128 }, 0, 0, 0, 0x12, 0x34, 0, 1][..], data].concat(),
    };
    let (src6, dst6) = addresses6();
    let pseudo = match (family, protocol) {
        (4, 1) => Vec::new(),
        (4, _) => [&SENDER.octets()[..], &RECEIVER.octets(), &[0, protocol, 0, l4.len() as u8]].concat(),
        _ => [&src6.octets()[..], &dst6.octets(), &[0, 0, 0, l4.len() as u8, 0, 0, 0, protocol]].concat(),
    };
    let checksum = (!sum(&[&pseudo[..], &l4].concat())).wrapping_add(error);
    let at = match protocol {
        6 => 16,
        17 => 6,
        _ => 2,
    };
    l4[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    let len = l4.len() as u8;
    if family == 4 {
        let mut header = [
            &[0x45, 0, 0, 20 + len, 0, 1, 0x40, 0, 64, protocol, 0, 0][..],
            &SENDER.octets(),
            &RECEIVER.octets(),
        ]
        .concat();
        let checksum = !sum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        return [header, l4].concat();
    }
    [&[0x60, 0, 0, 0, 0, len, protocol, 64][..], &src6.octets(), &dst6.octets(), &l4].concat()
}

/// Packets of both families, every payload length from 0 to 63, translated.
fn corpus(error: u16) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for (family, icmp) in [(4, 1), (6, 58)] {
        for protocol in [6, 17, icmp] {
            for len in 0..64_u8 {
                let data: Vec<u8> = (0..len).map(|i| i.wrapping_mul(37) ^ len).collect();
                packets.push(translate(1, &packet(family, protocol, &data, error)));
            }
        }
    }
    packets
}

/// Hands `packets` to the kernel of a namespace of their own and returns what it counted.
fn received(name: &str, packets: &[Vec<u8>]) -> Value {
    let directory = evidence(format!("e2e/{name}")).unwrap();
    let file = directory.join("packets.pcap");
    write(&file, packets);
    let namespace = Namespace::new(name).unwrap();
    namespace.ip("tuntap add dev xlat0 mode tun").unwrap();
    namespace.ip(&format!("address add {RECEIVER}/24 dev xlat0")).unwrap();
    namespace.ip(&format!("address add {}/96 dev xlat0 nodad", addresses6().1)).unwrap();
    namespace.ip("link set xlat0 up").unwrap();
    let mut receive = script_in(&namespace, "receive.py").unwrap();
    receive.arg("xlat0").arg(&file);
    serde_json::from_str(&output(receive).unwrap()).unwrap()
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_linux_kernel_finds_no_wrong_checksum_in_what_was_translated() {
    entered().unwrap();
    let counted = received("xlat-good", &corpus(0));
    // 64 of each protocol in each family; all were taken in, none was counted as wrong.
    for (counter, expected) in [
        ("IpInReceives", 192),
        ("IpInHdrErrors", 0),
        ("Ip6InHdrErrors", 0),
        ("UdpNoPorts", 64),
        ("Udp6NoPorts", 64),
        ("UdpInCsumErrors", 0),
        ("Udp6InCsumErrors", 0),
        ("TcpInSegs", 128),
        ("TcpInCsumErrors", 0),
        ("IcmpInCsumErrors", 0),
        ("Icmp6InCsumErrors", 0),
    ] {
        assert_eq!(counted[counter], expected, "{counter} of {counted}");
    }
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn a_linux_kernel_finds_every_checksum_wrong_that_was_wrong_before() {
    entered().unwrap();
    let counted = received("xlat-bad", &corpus(0x0101));
    for (counter, expected) in [
        ("UdpInCsumErrors", 64),
        ("Udp6InCsumErrors", 64),
        ("TcpInCsumErrors", 128),
        ("IcmpInCsumErrors", 64),
        ("Icmp6InCsumErrors", 64),
    ] {
        assert_eq!(counted[counter], expected, "{counter} of {counted}");
    }
}
