//! Software segmentation and checksums (`packet::finish`) against a card that computes everything from the addresses
//! (`testkit::nic`), which shares no code with it.

use core::net::SocketAddr;

use nve_core::packet::finish::{Segments, complete_checksum};
use nve_core::packet::{ETHERNET_LEN, Offload};
use nve_core::testkit::frames::{self, Header, flags};
use nve_core::testkit::{Dice, nic};

fn endpoints(family: u8) -> (SocketAddr, SocketAddr) {
    let parse = |text: &str| text.parse().expect("an endpoint");
    match family {
        4 => (parse("10.1.0.1:1000"), parse("10.1.0.2:2000")),
        _ => (parse("[2001:db8::1]:1000"), parse("[2001:db8::2]:2000")),
    }
}

/// The segments of `packet` behind an Ethernet header, that header taken off again.
fn segments(packet: &[u8], offload: Offload) -> Vec<Vec<u8>> {
    let frame = [&[0xee; ETHERNET_LEN], packet].concat();
    let mut segments = Segments::new(&frame, ETHERNET_LEN, offload).expect("a good super-packet");
    let mut out = vec![0; 65600];
    core::iter::from_fn(|| segments.next_into(&mut out).map(|len| out[ETHERNET_LEN..len].to_vec())).collect()
}

#[test]
fn a_completed_checksum_is_the_one_a_card_would_compute() {
    let mut dice = Dice::new(7);
    for family in [4, 6] {
        let (source, destination) = endpoints(family);
        for len in [0, 1, 2, 999, 1400] {
            let payload = dice.bytes(len);
            for complete in [
                frames::udp(Header::default(), source, destination, &payload),
                frames::tcp(Header::default(), source, destination, flags::ACK, &payload),
            ] {
                let mut frame = [&[0xee; ETHERNET_LEN], &complete[..], b"padding"].concat();
                let end = frame.len() - 7;
                let offload = frames::leave_checksum(&mut frame[ETHERNET_LEN..end]);
                complete_checksum(&mut frame, ETHERNET_LEN, offload).expect("a good offload");
                assert_eq!(frame[ETHERNET_LEN..end], complete, "IPv{family}, {len} bytes");
            }
        }
    }
}

#[test]
fn segments_are_those_a_card_would_cut() {
    let mut dice = Dice::new(8);
    for family in [4, 6] {
        let (source, destination) = endpoints(family);
        for (len, size) in [(1, 1000), (1000, 1000), (1001, 1000), (30_000, 1448), (65_000, 1379)] {
            let payload = dice.bytes(len);
            let all = flags::ACK | flags::PSH | flags::FIN | flags::CWR;
            for mut packet in [
                frames::tcp(Header::default(), source, destination, all, &payload),
                frames::udp(Header::default(), source, destination, &payload),
            ] {
                let offload = frames::leave_segmentation(&mut packet, size);
                let expected = nic::finish(&packet, offload).expect("a card takes it");
                assert_eq!(segments(&packet, offload), expected, "IPv{family}, {len} by {size}");
            }
        }
    }
}
