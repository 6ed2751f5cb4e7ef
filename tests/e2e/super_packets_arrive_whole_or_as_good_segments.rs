//! A super-packet of TCP crosses the fabric in one piece, and reaches a driver that takes it in one piece; a driver without offloads
//! gets segments as if they had been sent one by one. In unmodified mode the sender's host cuts it: no card must touch its checksum.

use std::time::Duration;

use vhost_ila_tests::capture::Running;
use vhost_ila_tests::oracle::{Kind, Oracle};
use vhost_ila_tests::ringpeer::checksum::sum;
use vhost_ila_tests::ringpeer::header::{GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, NetHeader};
use vhost_ila_tests::ringpeer::{Frame, Options, Peer};
use vhost_ila_tests::site::{Checksum, Plan, Site, VM1, VM2, Vm};

/// On the sender's host.
const HERE: Vm =
    Vm { name: "vm3", mac: "52:54:00:00:00:03", ipv4: "10.1.0.3", ipv6: "2001:db8:b1:e::3", ..VM1 };

const ETHERNET: usize = 14;
const TCP: usize = 20;
const PAYLOAD: usize = 20_000;
const SEGMENT: usize = 1400;
/// How long the first frame may take, and how long nothing must come after it before all is said to have come.
const FIRST: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(500);

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn in_neutral_mode_in_one_piece_over_the_wire() {
    let (whole, segments) = send("e2e/super-neutral", Checksum::Neutral, Options::offloads(), [1, 1]);
    assert_eq!((whole, segments), (2, 0), "one packet on the wire for each family");
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn in_neutral_mode_to_a_driver_without_offloads() {
    let (whole, _) = send("e2e/super-to-plain", Checksum::Neutral, Options::default(), [SEGMENTS, SEGMENTS]);
    assert_eq!(whole, 2, "it is the receiver's host that cuts");
}

#[test]
#[ignore = "end to end: run by cargo xtask test"]
fn in_unmodified_mode_cut_by_the_senders_host() {
    let (whole, segments) =
        send("e2e/super-unmodified", Checksum::Unmodified, Options::offloads(), [SEGMENTS, 1]);
    assert_eq!((whole, segments), (0, 2 * SEGMENTS));
}

const SEGMENTS: usize = PAYLOAD.div_ceil(SEGMENT);

/// Sends one super-packet of each family to the other host and to a neighbour; they must get so many frames of each. Returns
/// how many packets of more than one segment, and of one, were on the wire.
fn send(evidence: &str, checksum: Checksum, receiver: Options, frames: [usize; 2]) -> (usize, usize) {
    let mut site = Site::start(evidence, Plan { checksum, ..Plan::of(&[VM1, VM2, HERE]) }).unwrap();
    let oracle = Oracle::of(&site).unwrap();
    let mut one = Peer::connect(&site.socket(&VM1), Options::offloads()).unwrap();
    let mut others = [VM2, HERE].map(|vm| (vm, Peer::connect(&site.socket(&vm), receiver).unwrap()));
    others.iter_mut().for_each(|(_, peer)| drop(peer.receive_all(QUIET).unwrap()));
    let capture = Running::start(&site.fabric.router, &["hv1"], &site.evidence.join("link.pcapng")).unwrap();
    for ((vm, peer), count) in others.iter_mut().zip(frames) {
        for (from, to, ip) in [(VM1.ipv4, vm.ipv4, 20), (VM1.ipv6, vm.ipv6, 40)] {
            let sample = oracle.frame(&site.evidence, &VM1, from, to, Kind::Clean, "TCP data").unwrap();
            let sent = super_packet(&sample, ip);
            one.send_with(sent.header, &sent.bytes).unwrap();
            let came = peer.receive_burst(FIRST, QUIET).unwrap();
            assert_eq!(came.len(), count, "frames to {to}");
            check(&came, &sent, ip);
        }
    }
    let capture = capture.finish().unwrap();
    site.daemons_must_run().unwrap();
    let long = |operator: &str| capture.count(&format!("tcp.len {operator} {SEGMENT}")).unwrap();
    (long(">"), capture.count("tcp").unwrap() - long(">"))
}

/// `sample`'s headers before a payload of many segments, its checksum partial.
fn super_packet(sample: &[u8], ip: usize) -> Frame {
    let l4 = ETHERNET + ip;
    let mut bytes = sample[..l4 + TCP].to_vec();
    bytes.extend((0..PAYLOAD).map(|at| ((at * 131) >> 3) as u8));
    let segment = u16::try_from(TCP + PAYLOAD).unwrap();
    let addresses = if ip == 20 {
        bytes[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&(segment + 20).to_be_bytes());
        bytes[ETHERNET + 10..ETHERNET + 12].fill(0);
        let checksum = !sum(&bytes[ETHERNET..l4], 0);
        bytes[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum.to_be_bytes());
        l4 - 8..l4
    } else {
        bytes[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&segment.to_be_bytes());
        l4 - 32..l4
    };
    let seed = sum(&bytes[addresses], u32::from(segment) + 6);
    bytes[l4 + 16..l4 + 18].copy_from_slice(&seed.to_be_bytes());
    let header = NetHeader {
        flags: NEEDS_CSUM,
        gso_type: if ip == 20 { GSO_TCPV4 } else { GSO_TCPV6 },
        hdr_len: u16::try_from(l4 + TCP).unwrap(),
        gso_size: SEGMENT as u16,
        csum_start: l4 as u16,
        csum_offset: 16,
        num_buffers: 0,
    };
    Frame { header, bytes }
}

/// One frame is as it was sent; many are its segments, each with a good checksum, in order.
fn check(came: &[Frame], sent: &Frame, ip: usize) {
    let l4 = ETHERNET + ip;
    let data = l4 + TCP;
    if let [whole] = came {
        let NetHeader { flags, gso_type, gso_size, csum_start, csum_offset, .. } = whole.header;
        let NetHeader { gso_type: kind, csum_start: start, .. } = sent.header;
        assert_eq!(
            (flags & 1, gso_type, gso_size, csum_start, csum_offset),
            (1, kind, SEGMENT as u16, start, 16)
        );
        assert!(
            whole.bytes[l4..] == sent.bytes[l4..],
            "TCP, its partial checksum and its payload are as they were sent"
        );
        return;
    }
    let mut sequence = u32::from_be_bytes(sent.bytes[l4 + 4..l4 + 8].try_into().unwrap());
    let mut payload: Vec<u8> = Vec::new();
    for frame in came {
        let bytes = &frame.bytes;
        assert_eq!((frame.header.flags & 1, frame.header.gso_type), (0, 0), "nothing is left to do");
        assert_eq!(u32::from_be_bytes(bytes[l4 + 4..l4 + 8].try_into().unwrap()), sequence);
        let addresses = if ip == 20 { l4 - 8..l4 } else { l4 - 32..l4 };
        let pseudo = u32::from(sum(&bytes[addresses], u32::try_from(bytes.len() - l4).unwrap() + 6));
        assert_eq!(sum(&bytes[l4..], pseudo), 0xffff, "the checksum of the segment at {sequence}");
        payload.extend(&bytes[data..]);
        sequence = sequence.wrapping_add(u32::try_from(bytes.len() - data).unwrap());
    }
    assert!(payload.as_slice() == &sent.bytes[data..], "the payload");
}
