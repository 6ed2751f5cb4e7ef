//! Captures made here, sent through the example of two hosts, and read back with another reader than the one under test.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgBlock as _, PcapNgReader, PcapNgWriter};
use pcap_file::{DataLink, TsResolution};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol,
    Ipv4Packet, Ipv4Repr, Ipv6Packet, UdpPacket, UdpRepr,
};

use super::*;
use crate::config::Config;

const VM1: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 1]);
const GATEWAY: EthernetAddress = EthernetAddress([0x02, 0x49, 0x4c, 0x41, 0, 1]);
const AT: Duration = Duration::new(1_700_000_000, 123_456_000);

/// A packet of the output.
#[derive(Debug)]
struct Written {
    interface: String,
    time: Duration,
    comment: Option<String>,
    bytes: Vec<u8>,
}

struct Bench {
    directory: tempfile::TempDir,
    nve: Arc<Nve>,
}

impl Bench {
    /// Host hv1 of the example: vm1 is here, vm2 (10.1.0.2) on 2001:db8:0:2::/64.
    fn new() -> Self {
        Self::of("two-hosts/hv1")
    }

    fn of(example: &str) -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(example);
        let config = Config::load(&example).expect("accepted");
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory, nve: Nve::new(config.setup, 100) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn vm1(&self) -> Origin {
        Origin::Port(self.nve.port("vm1").expect("configured"))
    }

    fn pcap(&self, link: DataLink, packets: &[&[u8]]) -> PathBuf {
        let whole: Vec<_> = packets.iter().map(|bytes| (bytes.len(), *bytes)).collect();
        self.pcap_of(link, &whole)
    }

    /// Packets with the length they had on the network.
    fn pcap_of(&self, link: DataLink, packets: &[(usize, &[u8])]) -> PathBuf {
        let path = self.path("in.pcap");
        let header =
            PcapHeader { datalink: link, ts_resolution: TsResolution::NanoSecond, ..PcapHeader::default() };
        let mut writer =
            PcapWriter::with_header(File::create(&path).expect("made"), header).expect("written");
        for (length, bytes) in packets {
            let length = u32::try_from(*length).expect("small");
            writer.write_packet(&PcapPacket::new(AT, length, bytes)).expect("written");
        }
        path
    }

    fn replay(&self, origin: Origin, input: &Path) -> Result<(Summary, Vec<Written>)> {
        let output = self.path("out.pcapng");
        let summary = replay(&self.nve, origin, input, &output)?;
        Ok((summary, read(&output)))
    }
}

fn read(path: &Path) -> Vec<Written> {
    let mut reader = PcapNgReader::new(File::open(path).expect("opened")).expect("pcapng");
    let mut written = Vec::new();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.expect("a block").into_owned() else { continue };
        let options = &reader.interfaces()[packet.interface_id as usize].options;
        let name = options.iter().find_map(|option| match option {
            InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
            _ => None,
        });
        let comment = packet.options.iter().find_map(|option| match option {
            EnhancedPacketOption::Comment(text) => Some(text.to_string()),
            _ => None,
        });
        let (time, bytes) = (packet.timestamp, packet.data.into_owned());
        written.push(Written { interface: name.expect("named"), time, comment, bytes });
    }
    written
}

fn ethernet(protocol: EthernetProtocol, payload: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(VM1);
    frame.set_dst_addr(GATEWAY);
    frame.set_ethertype(protocol);
    fill(frame.payload_mut());
    bytes
}

/// Eight bytes of UDP from `source` to 10.1.0.2.
fn udp_from(source: Ipv4Addr) -> Vec<u8> {
    let destination = Ipv4Addr::new(10, 1, 0, 2);
    let udp = UdpRepr { src_port: 4000, dst_port: 5000 };
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Udp,
        payload_len: 16,
        hop_limit: 64,
    };
    ethernet(EthernetProtocol::Ipv4, 36, |bytes| {
        let checksums = ChecksumCapabilities::default();
        let mut packet = Ipv4Packet::new_unchecked(bytes);
        ip.emit(&mut packet, &checksums);
        let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
        let fill = |payload: &mut [u8]| payload.copy_from_slice(b"datagram");
        udp.emit(&mut datagram, &source.into(), &destination.into(), 8, fill, &checksums);
    })
}

fn arp_for(target: Ipv4Addr) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: VM1,
        source_protocol_addr: Ipv4Addr::new(10, 1, 0, 1),
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut frame = ethernet(EthernetProtocol::Arp, arp.buffer_len(), |bytes| {
        arp.emit(&mut ArpPacket::new_unchecked(bytes));
    });
    EthernetFrame::new_unchecked(&mut frame).set_dst_addr(EthernetAddress::BROADCAST);
    frame
}

#[test]
fn a_frame_from_an_attachment_leaves_by_the_uplink_as_the_pipeline_sends_it() {
    let bench = Bench::new();
    let input = bench.pcap(DataLink::ETHERNET, &[&udp_from(Ipv4Addr::new(10, 1, 0, 1))]);
    let (summary, written) = bench.replay(bench.vm1(), &input).expect("replayed");
    assert_eq!((summary.packets, summary.uplink), (1, 1));
    let [packet] = written.as_slice() else { panic!("one packet, not {written:?}") };
    assert_eq!((packet.interface.as_str(), packet.time, &packet.comment), ("uplink", AT, &None));
    let ip = Ipv6Packet::new_checked(&packet.bytes).expect("IPv6");
    // SIR:(1001:10.1.0.1) and L2:(1001:10.1.0.2), as the script of tests/commands/addr.rs computes it.
    assert_eq!(ip.src_addr(), "2001:db8:51:0:4000:3e9:a01:1".parse::<Ipv6Addr>().expect("an address"));
    assert_eq!(ip.dst_addr(), "2001:db8:0:2:5000:3e9:a01:f050".parse::<Ipv6Addr>().expect("an address"));
    let udp = UdpPacket::new_checked(ip.payload()).expect("UDP");
    assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    assert_eq!(udp.payload(), b"datagram");
}

#[test]
fn what_left_one_host_arrives_at_the_other() {
    let (hv1, hv2) = (Bench::new(), Bench::of("two-hosts/hv2"));
    let input = hv1.pcap(DataLink::ETHERNET, &[&udp_from(Ipv4Addr::new(10, 1, 0, 1))]);
    let (_, written) = hv1.replay(hv1.vm1(), &input).expect("replayed");
    for link in [DataLink::RAW, DataLink::IPV6] {
        let input = hv2.pcap(link, &[&written[0].bytes]);
        let (summary, arrived) = hv2.replay(Origin::Uplink, &input).expect("replayed");
        assert_eq!(summary.local.get("vm2"), Some(&1), "{summary}");
        assert_eq!(arrived[0].interface, "vm2");
        let ip = Ipv4Packet::new_checked(&arrived[0].bytes[14..]).expect("IPv4");
        assert_eq!((ip.src_addr(), ip.dst_addr()), (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2)));
        assert_eq!(&ip.payload()[8..], b"datagram");
    }
}

#[test]
fn a_dropped_packet_is_written_as_it_came_with_the_reason() {
    let bench = Bench::new();
    let spoofed = udp_from(Ipv4Addr::new(10, 1, 0, 77));
    let input = bench.pcap(DataLink::ETHERNET, &[&spoofed]);
    let (summary, written) = bench.replay(bench.vm1(), &input).expect("replayed");
    assert_eq!(summary.drops.get("spoofed-address"), Some(&1), "{summary}");
    let [packet] = written.as_slice() else { panic!("one packet, not {written:?}") };
    assert_eq!(packet.interface, "vm1");
    assert_eq!(packet.comment.as_deref(), Some("drop=spoofed-address"));
    assert_eq!(packet.bytes, spoofed);
}

#[test]
fn an_answer_is_written_where_the_question_came_from() {
    let bench = Bench::new();
    let input = bench.pcap(DataLink::ETHERNET, &[&arp_for(Ipv4Addr::new(10, 1, 0, 2))]);
    let (summary, written) = bench.replay(bench.vm1(), &input).expect("replayed");
    assert_eq!((summary.replies, written.len()), (1, 1), "{summary}");
    assert_eq!((written[0].interface.as_str(), &written[0].comment), ("vm1", &None));
    let frame = EthernetFrame::new_checked(&written[0].bytes).expect("a frame");
    assert_eq!((frame.src_addr(), frame.dst_addr()), (GATEWAY, VM1));
}

#[test]
fn the_output_describes_every_interface_even_unused_ones() {
    let bench = Bench::new();
    let input = bench.pcap(DataLink::ETHERNET, &[]);
    bench.replay(bench.vm1(), &input).expect("replayed");
    let mut reader =
        PcapNgReader::new(File::open(bench.path("out.pcapng")).expect("opened")).expect("pcapng");
    while reader.next_block().is_some() {}
    let links: Vec<_> = reader.interfaces().iter().map(|interface| interface.linktype).collect();
    assert_eq!(links, [DataLink::ETHERNET, DataLink::RAW]);
}

/// A pcapng of one spoofed frame whose clock ticks as `options` say, at `ticks`.
fn pcapng(bench: &Bench, options: Vec<InterfaceDescriptionOption<'static>>, ticks: u64) -> PathBuf {
    let path = bench.path("in.pcapng");
    let mut writer = PcapNgWriter::new(File::create(&path).expect("made")).expect("written");
    let interface = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options };
    writer.write_block(&interface.into_block()).expect("written");
    let data = udp_from(Ipv4Addr::new(10, 1, 0, 77)).into();
    let timestamp = Duration::from_nanos(ticks);
    let packet =
        EnhancedPacketBlock { interface_id: 0, timestamp, original_len: 50, data, options: Vec::new() };
    writer.write_block(&packet.into_block()).expect("written");
    path
}

#[test]
fn times_are_read_in_the_unit_their_interface_says() {
    use InterfaceDescriptionOption::{IfTsOffset, IfTsResol};
    for (options, ticks, expected) in [
        (vec![], 1_500_000, Duration::from_millis(1500)),
        (vec![IfTsResol(9)], 1_500_000, Duration::from_micros(1500)),
        (vec![IfTsResol(0x81)], 3, Duration::from_millis(1500)),
        (vec![IfTsResol(3), IfTsOffset(10)], 500, Duration::from_millis(10_500)),
    ] {
        let bench = Bench::new();
        let input = pcapng(&bench, options, ticks);
        let (_, written) = bench.replay(bench.vm1(), &input).expect("replayed");
        assert_eq!(written[0].time, expected);
    }
}

#[test]
fn a_packet_captured_in_part_is_refused_by_number() {
    let bench = Bench::new();
    let whole = udp_from(Ipv4Addr::new(10, 1, 0, 1));
    for length in [0, 13, 14, 20, 33, 49] {
        let input = bench.pcap_of(DataLink::ETHERNET, &[(whole.len(), &whole[..length])]);
        let refused = bench.replay(bench.vm1(), &input).expect_err("refused").to_string();
        let expected =
            format!("packet 1: {length} of 50 bytes were captured; capture again without a snap length");
        assert_eq!(refused, expected);
    }
}

#[test]
fn a_packet_that_lost_its_link_header_is_whole() {
    let bench = Bench::new();
    let input = bench.pcap(DataLink::ETHERNET, &[&udp_from(Ipv4Addr::new(10, 1, 0, 1))]);
    let (_, written) = bench.replay(bench.vm1(), &input).expect("replayed");
    let packet = &written[0].bytes;
    let other = Bench::of("two-hosts/hv2");
    let input = other.pcap_of(DataLink::RAW, &[(packet.len() + 14, packet)]);
    let (summary, _) = other.replay(Origin::Uplink, &input).expect("replayed");
    assert_eq!(summary.local.get("vm2"), Some(&1), "{summary}");
}

#[test]
fn a_capture_of_another_link_is_refused() {
    let bench = Bench::new();
    let input = bench.pcap(DataLink::RAW, &[]);
    let refused = format!("{:#}", bench.replay(bench.vm1(), &input).expect_err("refused"));
    assert!(refused.contains("link type is 101, not Ethernet (link type 1)"), "{refused}");
    let input = bench.pcap(DataLink::ETHERNET, &[]);
    let refused = format!("{:#}", bench.replay(Origin::Uplink, &input).expect_err("refused"));
    assert!(refused.contains("link type is 1, not raw IPv6"), "{refused}");
}

#[test]
fn what_is_no_capture_is_refused() {
    let bench = Bench::new();
    for bytes in [&b""[..], b"abc", b"not a capture at all, but long enough", &[0x0a, 0x0d, 0x0d, 0x0a, 1]] {
        std::fs::write(bench.path("x"), bytes).expect("written");
        assert!(bench.replay(bench.vm1(), &bench.path("x")).is_err(), "{bytes:?}");
    }
}
