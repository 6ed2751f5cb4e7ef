//! `examples/siit.rs` as a user runs it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};

/// The example, built once with the profile of this test: `cargo test --test siit` alone does not build it.
fn siit() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    Command::new(BUILT.get_or_init(|| {
        let mut path = std::env::current_exe().expect("a test has a path");
        path.pop();
        path.pop();
        let profile = match path.file_name().and_then(|name| name.to_str()) {
            None | Some("debug") => "dev",
            Some(other) => other,
        };
        let build = ["build", "--quiet", "--package", "ipv4-xlat", "--example", "siit", "--profile", profile];
        assert!(Command::new(env!("CARGO")).args(build).status().expect("cargo runs").success());
        path.join("examples/siit")
    }))
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Runs `packets` through the example; what it wrote, and what it said.
fn run(name: &str, options: &[&str], packets: &[Vec<u8>]) -> (Vec<Vec<u8>>, Output) {
    let (input, output) = (file(&format!("{name}-in.pcap")), file(&format!("{name}-out.pcap")));
    let header = PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(File::create(&input).unwrap(), header).unwrap();
    for (i, packet) in packets.iter().enumerate() {
        let time = Duration::from_secs(1_000_000 + i as u64);
        writer.write_packet(&PcapPacket::new(time, packet.len() as u32, packet)).unwrap();
    }
    drop(writer);
    let said = siit().args(options).args([&input, &output]).output().expect("the example was built");
    let mut sent = Vec::new();
    if said.status.success() {
        let mut reader = PcapReader::new(File::open(&output).unwrap()).unwrap();
        assert_eq!(reader.header().datalink, DataLink::RAW);
        while let Some(packet) = reader.next_packet() {
            sent.push(packet.unwrap().data.into_owned());
        }
    }
    (sent, said)
}

/// UDP from 192.0.2.33 to 198.51.100.7 with the checksums left right by hand: no payload.
fn udp4(ttl: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0x12, 0x34, 0x40, 0, ttl, 17, 0, 0, 192, 0, 2, 33, 198, 51, 100, 7];
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !(((sum >> 16) + (sum & 0xffff)) as u16);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend([0x13, 0x88, 0, 53, 0, 8, 0x12, 0x34]);
    packet
}

#[test]
fn translated_packets_and_errors_are_written_in_order_and_drops_are_said() {
    let mut broken = udp4(64);
    broken[10] ^= 1;
    let mut none = udp4(64);
    none[26..28].fill(0);
    let options = ["--pool6", "2001:db8:100::/40", "--icmp4", "198.51.100.1"];
    let (sent, said) = run("order", &options, &[udp4(64), udp4(1), broken, none, udp4(9)]);
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(said.status.success(), "{text}");
    assert_eq!(sent.len(), 3);
    assert_eq!((sent[0][0] >> 4, sent[0][7], sent[2][7]), (6, 63, 8));
    assert_eq!((sent[1][9], sent[1][20], &sent[1][12..16]), (1, 11, &[198, 51, 100, 1][..]));
    assert_eq!(sent[1][28..], udp4(1));
    assert!(text.contains("packet 2: dropped: HopLimit"));
    assert!(text.contains("packet 3: dropped: HeaderChecksum"));
    assert!(text.contains(
        "packet 4: dropped: ZeroUdpChecksum: UDP checksum is zero (192.0.2.33:5000 -> 198.51.100.7:53)"
    ));
}

#[test]
fn without_an_address_of_its_own_it_answers_nothing() {
    let (sent, said) = run("silent", &["--pool6", "2001:db8:100::/40"], &[udp4(1)]);
    assert!(sent.is_empty());
    assert!(String::from_utf8(said.stderr).unwrap().contains("no address to answer from"));
}

#[test]
fn what_was_translated_comes_back_through_the_same_mappings() {
    let options = ["--eam", "2001:db8:3::/120=192.0.2.0/24", "--pool6", "2001:db8:100::/40"];
    let (six, _) = run("there", &options, &[udp4(64)]);
    assert_eq!(six[0][8..24], [0x20, 1, 0x0d, 0xb8, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 33]);
    let (four, _) = run("back", &options, &six);
    assert_eq!(four[0][12..], udp4(62)[12..]);
}

#[test]
fn hairpinning_turns_a_packet_back_as_if_it_had_come_from_ipv4() {
    let (pool, a, b) = ("2001:db8:100::/40", "2001:db8:a::1=192.0.2.33", "2001:db8:b::1=198.51.100.7");
    // From A, which knows B by its IPv4 address alone.
    let (from_a, _) = run("hairpin-a", &["--pool6", pool, "--eam", a], &[udp4(64)]);
    let options = ["--pool6", pool, "--eam", a, "--eam", b];
    let (turned, _) = run("hairpin", &[&options[..], &["--hairpin"]].concat(), &from_a);
    // What B gets when 192.0.2.33 is an IPv4 node; one more hop was spent.
    let (mut expected, _) = run("hairpin-b", &["--pool6", pool, "--eam", b], &[udp4(64)]);
    expected[0][7] -= 1;
    assert_eq!(turned, expected);
    // Without hairpinning it leaves as IPv4.
    let (left, _) = run("hairpin-off", &options, &from_a);
    assert_eq!(left[0][12..], udp4(62)[12..]);
}

#[test]
fn nonsense_is_refused_with_its_name() {
    for (options, named) in [
        (&["--pool6", "2001:db8::/33"][..], "/33"),
        (&["--eam", "2001:db8::/121=192.0.2.0/24"], "suffix"),
        (&["--lowest-ipv6-mtu", "1279"], "1279"),
        (&["--zero-udp", "maybe"], "maybe"),
        (&["--frobnicate"], "--frobnicate"),
        (&["--eam", "2001:db8::1=192.0.2.1", "--eam", "2001:db8::1=192.0.2.2"], "same IPv6 prefix"),
    ] {
        let (_, said) = run("nonsense", options, &[]);
        assert!(!said.status.success());
        assert!(String::from_utf8(said.stderr).unwrap().contains(named), "{options:?}");
    }
}
