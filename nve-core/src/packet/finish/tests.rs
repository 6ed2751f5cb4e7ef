use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::packet::Gso;
use ipv4_xlat::checksum::{pseudo_v4, pseudo_v6};

const A4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb1, 0xe, 0, 0, 0, 2);

fn seed_of(is_v4: bool, len: usize, protocol: u8) -> u16 {
    let sum =
        if is_v4 { pseudo_v4(A4, B4, len as u16, protocol) } else { pseudo_v6(A6, B6, len as u32, protocol) };
    sum.fold()
}

/// An IP packet with `l4` (checksum field zero) behind `before` bytes of another header; its checksum partial.
fn packet(is_v4: bool, protocol: u8, mut l4: Vec<u8>, before: usize) -> Vec<u8> {
    let field = if protocol == 6 { TCP_FIELD } else { UDP_FIELD };
    let seed = seed_of(is_v4, l4.len(), protocol);
    l4[field..field + 2].copy_from_slice(&seed.to_be_bytes());
    let mut bytes = vec![0xee; before];
    if is_v4 {
        bytes.extend([0x45, 0]);
        bytes.extend((20 + l4.len() as u16).to_be_bytes());
        bytes.extend([0x12, 0xff, 0x40, 0, 64, protocol, 0, 0]);
        bytes.extend(A4.octets());
        bytes.extend(B4.octets());
    } else {
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend((l4.len() as u16).to_be_bytes());
        bytes.extend([protocol, 64]);
        bytes.extend(A6.octets());
        bytes.extend(B6.octets());
    }
    bytes.extend(l4);
    bytes
}

fn tcp(payload: usize, flags: u8) -> Vec<u8> {
    let mut l4 = vec![0; 24];
    l4[4..8].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
    l4[12] = 6 << 4;
    l4[13] = flags;
    l4.extend((0..payload).map(|i| i as u8));
    l4
}

fn udp(payload: usize) -> Vec<u8> {
    let mut l4 = vec![0x11, 0x22, 0x33, 0x44];
    l4.extend((8 + payload as u16).to_be_bytes());
    l4.extend([0, 0]);
    l4.extend((0..payload).map(|i| i as u8));
    l4
}

fn offload(start: u16, protocol: u8, gso: Option<Gso>) -> Offload {
    let offset = if protocol == 6 { 16 } else { 6 };
    Offload { checksum: ChecksumState::Partial { start, offset }, gso }
}

/// The receiver's check: everything sums to all ones.
fn verifies(is_v4: bool, l4: &[u8], protocol: u8) -> bool {
    let pseudo = if is_v4 {
        pseudo_v4(A4, B4, l4.len() as u16, protocol)
    } else {
        pseudo_v6(A6, B6, l4.len() as u32, protocol)
    };
    pseudo.bytes(l4).fold() == 0xffff
}

#[test]
fn a_partial_checksum_is_completed_and_padding_is_not_summed() {
    for (is_v4, start) in [(true, 20), (false, 40)] {
        for protocol in [6, 17] {
            let l4 = if protocol == 6 { tcp(101, 0x18) } else { udp(101) };
            let len = l4.len();
            let mut bytes = packet(is_v4, protocol, l4, 14);
            bytes.extend([0xff; 7]);
            let left = complete_checksum(&mut bytes, 14, offload(start, protocol, None));
            assert_eq!(left, Ok(Offload::NONE));
            let l4 = &bytes[14 + usize::from(start)..][..len];
            assert!(verifies(is_v4, l4, protocol), "v4 {is_v4}, protocol {protocol}");
        }
    }
}

#[test]
fn a_udp_checksum_that_comes_to_zero_is_sent_as_ffff() {
    let mut l4 = udp(2);
    l4[8..].fill(0);
    // Solve the payload's only word for a checksum of zero: everything else must sum to its complement.
    let seed = seed_of(false, l4.len(), 17);
    let rest = Sum::ZERO.word(seed).bytes(&l4).fold();
    l4[8..10].copy_from_slice(&(!rest).to_be_bytes());
    let mut bytes = packet(false, 17, l4, 0);
    complete_checksum(&mut bytes, 0, offload(40, 17, None)).unwrap();
    assert_eq!(bytes[46..48], [0xff, 0xff]);
}

#[test]
fn every_segment_of_a_super_packet_verifies_and_together_they_are_the_payload() {
    for (is_v4, start) in [(true, 20_u16), (false, 40)] {
        let kind = if is_v4 { GsoKind::TcpV4 { ecn: true } } else { GsoKind::TcpV6 { ecn: true } };
        let original = packet(is_v4, 6, tcp(5000, 0x99), 14);
        let gso = Gso { kind, size: 1448 };
        let mut segments = Segments::new(&original, 14, offload(start, 6, Some(gso))).unwrap();
        let (mut out, mut payload, mut flags, mut next) =
            (vec![0; 6000], Vec::<u8>::new(), vec![], 0xffff_ff00_u32);
        let mut identifications = vec![];
        while let Some(len) = segments.next_into(&mut out) {
            let ip = &out[14..len];
            let l4 = &ip[usize::from(start)..];
            assert!(verifies(is_v4, l4, 6));
            assert_eq!(l4[4..8], next.to_be_bytes());
            next = next.wrapping_add(l4.len() as u32 - 24);
            payload.extend(&l4[24..]);
            flags.push(l4[13]);
            if is_v4 {
                assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len());
                assert_eq!(Sum::ZERO.bytes(&ip[..20]).fold(), 0xffff, "header checksum");
                identifications.push(u16::from_be_bytes([ip[4], ip[5]]));
            } else {
                assert_eq!(usize::from(u16::from_be_bytes([ip[4], ip[5]])) + 40, ip.len());
            }
        }
        assert_eq!(payload, &original[original.len() - 5000..]);
        assert_eq!(flags, [0x90, 0x10, 0x10, 0x19], "CWR first, FIN and PSH last");
        assert!(!is_v4 || identifications == [0x12ff, 0x1300, 0x1301, 0x1302]);
    }
}

#[test]
fn udp_super_packets_become_datagrams_of_equal_size() {
    let original = packet(false, 17, udp(2500), 0);
    let gso = Gso { kind: GsoKind::UdpL4, size: 1000 };
    let mut segments = Segments::new(&original, 0, offload(40, 17, Some(gso))).unwrap();
    let mut out = vec![0; 3000];
    let mut sizes = vec![];
    while let Some(len) = segments.next_into(&mut out) {
        let l4 = &out[40..len];
        assert!(verifies(false, l4, 17));
        assert_eq!(usize::from(u16::from_be_bytes([l4[4], l4[5]])), l4.len());
        sizes.push(l4.len() - 8);
    }
    assert_eq!(sizes, [1000, 1000, 500]);
}

/// 16 KiB of extension headers, copied before each of hundreds of segments, would be megabytes of work for one frame.
#[test]
fn a_super_packet_of_headers_is_refused() {
    let kind = GsoKind::TcpV6 { ecn: false };
    for (options, fits) in [(8, true), (2048, false)] {
        let mut original = packet(false, 6, tcp(30_000, 0x10), 0);
        let mut header = vec![0; options];
        (header[0], header[1]) = (original[6], (options / 8 - 1) as u8);
        original[6] = 60;
        original.splice(40..40, header);
        let len = original.len() as u16 - 40;
        original[4..6].copy_from_slice(&len.to_be_bytes());
        let gso = Some(Gso { kind, size: 1000 });
        let segments = Segments::new(&original, 0, offload(40 + options as u16, 6, gso));
        assert_eq!(segments.is_ok(), fits, "{options} bytes");
    }
}

#[test]
fn one_frame_cannot_be_made_the_work_of_tens_of_thousands() {
    let original = packet(false, 6, tcp(60_000, 0x10), 0);
    let kind = GsoKind::TcpV6 { ecn: false };
    let count = |size| {
        let segments = Segments::new(&original, 0, offload(40, 6, Some(Gso { kind, size })));
        segments.map(|mut segments| {
            let mut out = vec![0; original.len()];
            core::iter::from_fn(|| segments.next_into(&mut out)).count()
        })
    };
    assert_eq!(count(1), Err(DropReason::BadOffload));
    assert_eq!(count(43), Err(DropReason::BadOffload));
    assert_eq!(count(48), Ok(1250));
}

proptest::proptest! {
    #[test]
    fn finishing_is_total_over_any_bytes(
        mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        version in 4..8u8, ip_at in 0..20usize, start in 0..70u16, offset in 0..20u16, size in 0..40u16, kind in 0..3,
    ) {
        if let Some(first) = bytes.get_mut(ip_at) { *first = version << 4 | 5; }
        let kind = [GsoKind::TcpV4 { ecn: false }, GsoKind::TcpV6 { ecn: true }, GsoKind::UdpL4][kind as usize];
        let checksum = ChecksumState::Partial { start, offset };
        let gso = Some(Gso { kind, size });
        if let Ok(mut segments) = Segments::new(&bytes, ip_at, Offload { checksum, gso }) {
            let mut out = vec![0; bytes.len()];
            let mut count = 0;
            while segments.next_into(&mut out).is_some() { count += 1; }
            proptest::prop_assert!(count <= bytes.len().max(1));
        }
        let _ = complete_checksum(&mut bytes, ip_at, Offload { checksum, gso: None });
    }
}
