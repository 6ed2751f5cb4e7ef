//! Work left to hardware: checklist N (virtio 1.2 section 5.1.6).

use ipv4_xlat::{ChecksumState, Gso, GsoKind, Offload, Packet, Reason, Refusal, SCRATCH_LEN, v4_to_v6};

use crate::lab::*;

/// The packet with the field holding the pseudo-header's sum, as a sender leaves it to hardware.
fn seeded4(protocol: u8, l4: Vec<u8>) -> V4 {
    v4(protocol, l4).with(|p| {
        let seed = ones_complement(&pseudo4(p.src, p.dst, protocol, p.payload.len()));
        let at = if protocol == 6 { 16 } else { 6 };
        p.payload[at..at + 2].copy_from_slice(&seed.to_be_bytes());
    })
}

fn seeded6(protocol: u8, l4: Vec<u8>) -> V6 {
    v6(protocol, l4).with(|p| {
        let seed = ones_complement(&pseudo6(p.src, p.dst, protocol, p.payload.len()));
        let at = if protocol == 6 { 16 } else { 6 };
        p.payload[at..at + 2].copy_from_slice(&seed.to_be_bytes());
    })
}

/// What hardware does.
fn complete(packet: &[u8], offload: Offload) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if let ChecksumState::Partial { start, offset } = offload.checksum {
        let (start, at) = (usize::from(start), usize::from(start + offset));
        let mut checksum = !ones_complement(&packet[start..]);
        if checksum == 0 && offset == 6 {
            checksum = 0xffff;
        }
        packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

fn offset(protocol: u8) -> u16 {
    if protocol == 6 { 16 } else { 6 }
}

fn gso(offload: Offload, kind: GsoKind, size: u16) -> Offload {
    Offload { gso: Some(Gso { kind, size }), ..offload }
}

#[test]
fn a_partial_checksum_completes_right_after_translation() {
    for (protocol, l4) in [(6, tcp as fn(&[u8]) -> Vec<u8>), (17, udp)] {
        for len in [0, 1, 500, 1400] {
            let packet = seeded4(protocol, l4(&data(len))).bytes();
            let (sent, moved) = run46_offload(&packet, &defaults(), partial(20, offset(protocol)));
            assert_eq!(moved, partial(40, offset(protocol)));
            assert_eq!(complete(&sent.unwrap()[0], moved)[40..], seal6(a6(), b6(), protocol, l4(&data(len))));

            let packet = seeded6(protocol, l4(&data(len))).bytes();
            let (sent, moved) = run64_offload(&packet, &defaults(), partial(40, offset(protocol)));
            assert_eq!(moved, partial(20, offset(protocol)));
            assert_eq!(complete(&sent.unwrap()[0], moved)[20..], seal4(A4, B4, protocol, l4(&data(len))));
        }
    }
}

#[test]
fn a_seed_of_0_is_no_missing_checksum() {
    // Any two bytes are a legal seed, as far as one's complement goes; 0 is one that a hostile sender picks.
    for seed in [0, 0xffff] {
        let packet = v4(17, udp(b"abcd")).with(|p| p.payload[6..8].copy_from_slice(&u16::to_be_bytes(seed)));
        let (sent, moved) = run46_offload(&packet.bytes(), &defaults(), partial(20, 6));
        assert_eq!(moved, partial(40, 6));
        let expected = {
            let before = ones_complement(&pseudo4(A4, B4, 17, 12));
            let after = ones_complement(&pseudo6(a6(), b6(), 17, 12));
            ones_complement(&[seed.to_be_bytes(), (!before).to_be_bytes(), after.to_be_bytes()].concat())
        };
        assert_eq!(u16_at(&sent.unwrap()[0], 46) % 0xffff, expected % 0xffff);
    }
    // Also when the seed folds to 0 by itself: addresses and length that sum to 0xffff.
    for len in 0..=u8::MAX {
        let packet = seeded4(17, udp(&data(usize::from(len))));
        let (sent, moved) = run46_offload(&packet.bytes(), &defaults(), partial(20, 6));
        assert_sound(&complete(&sent.unwrap()[0], moved));
    }
}

#[test]
fn checksum_start_moves_with_the_headers() {
    let packet = seeded4(6, tcp(b"x")).with(|p| p.options = vec![1; 12]).bytes();
    assert_eq!(run46_offload(&packet, &defaults(), partial(32, 16)).1, partial(40, 16));
    let packet = seeded6(6, tcp(b"x")).with(|p| p.extensions = vec![options_header(60, 24)]).bytes();
    assert_eq!(run64_offload(&packet, &defaults(), partial(64, 16)).1, partial(20, 16));
}

#[test]
fn a_checksum_that_is_not_the_transport_headers_is_refused() {
    let (tcp4, udp4) = (seeded4(6, tcp(b"x")).bytes(), seeded4(17, udp(b"x")).bytes());
    for (packet, start, offset) in [
        (&tcp4, 0, 16),
        (&tcp4, 18, 16),
        (&tcp4, 22, 16),
        (&tcp4, 65535, 16),
        (&tcp4, 20, 6),
        (&tcp4, 20, 0),
        (&tcp4, 20, 65535),
        (&udp4, 20, 16),
        (&udp4, 40, 6),
    ] {
        let (sent, _) = run46_offload(packet, &defaults(), partial(start, offset));
        assert_eq!(silent(sent), Reason::BadOffload, "{start} {offset}");
    }
    let udp6 = seeded6(17, udp(b"x")).bytes();
    for (start, offset) in [(0, 6), (20, 6), (38, 6), (42, 6), (65535, 6), (40, 16)] {
        let (sent, _) = run64_offload(&udp6, &defaults(), partial(start, offset));
        assert_eq!(silent(sent), Reason::BadOffload, "{start} {offset}");
    }
    // No other protocol has one.
    for protocol in [1, 132, 136] {
        let l4 = if protocol == 1 { echo(8, b"x") } else { udp(b"x") };
        let (sent, _) = run46_offload(&v4(protocol, l4).bytes(), &defaults(), partial(20, 2));
        assert_eq!(silent(sent), Reason::BadOffload, "{protocol}");
    }
}

#[test]
fn a_super_packets_kind_changes_family_and_keeps_ecn_and_size() {
    let config = config(|s| (s.mtu4, s.mtu6) = (1500, 1520));
    for ecn in [false, true] {
        let packet = seeded4(6, tcp(&data(5000))).bytes();
        let (sent, moved) =
            run46_offload(&packet, &config, gso(partial(20, 16), GsoKind::TcpV4 { ecn }, 1448));
        assert_eq!(moved, gso(partial(40, 16), GsoKind::TcpV6 { ecn }, 1448));
        assert_eq!(complete(&sent.unwrap()[0], moved)[40..], seal6(a6(), b6(), 6, tcp(&data(5000))));

        let packet = seeded6(6, tcp(&data(5000))).bytes();
        let (sent, moved) =
            run64_offload(&packet, &config, gso(partial(40, 16), GsoKind::TcpV6 { ecn }, 1428));
        assert_eq!(moved, gso(partial(20, 16), GsoKind::TcpV4 { ecn }, 1428));
        assert_eq!(complete(&sent.unwrap()[0], moved)[20..], seal4(A4, B4, 6, tcp(&data(5000))));
    }
    let packet = seeded4(17, udp(&data(5000))).bytes();
    let (_, moved) = run46_offload(&packet, &config, gso(partial(20, 6), GsoKind::UdpL4, 1000));
    assert_eq!(moved, gso(partial(40, 6), GsoKind::UdpL4, 1000), "a UDP segment size is never lowered");
    let packet = seeded6(17, udp(&data(5000))).bytes();
    let (_, moved) = run64_offload(&packet, &config, gso(partial(40, 6), GsoKind::UdpL4, 1000));
    assert_eq!(moved, gso(partial(20, 6), GsoKind::UdpL4, 1000));
}

#[test]
fn a_super_packet_is_measured_by_its_segments() {
    let tcp_gso = |size| gso(partial(20, 16), GsoKind::TcpV4 { ecn: false }, size);
    let packet = seeded4(6, tcp(&data(60_000))).bytes();
    // 40 + 20 + 1440 = 1500.
    assert!(run46_offload(&packet, &defaults(), tcp_gso(1440)).0.is_ok());
    for size in [1441, 1448] {
        assert_eq!(answered(run46_offload(&packet, &defaults(), tcp_gso(size)).0), (3, 4, 1480));
    }
    // The TCP header's own options count.
    let mut l4 = tcp(&data(60_000));
    l4[12] = 0x80;
    let packet = seeded4(6, l4).bytes();
    assert!(run46_offload(&packet, &defaults(), tcp_gso(1428)).0.is_ok());
    assert_eq!(answered(run46_offload(&packet, &defaults(), tcp_gso(1429)).0), (3, 4, 1480));
    // A super-packet of one short segment is that segment.
    let packet = seeded4(6, tcp(&data(100))).bytes();
    assert!(run46_offload(&packet, &defaults(), tcp_gso(9000)).0.is_ok());
    // UDP: 40 + 8 + 1452 = 1500.
    let packet = seeded4(17, udp(&data(9000))).bytes();
    assert!(run46_offload(&packet, &defaults(), gso(partial(20, 6), GsoKind::UdpL4, 1452)).0.is_ok());
    assert_eq!(
        answered(run46_offload(&packet, &defaults(), gso(partial(20, 6), GsoKind::UdpL4, 1453)).0),
        (3, 4, 1480)
    );
    // And towards IPv4.
    let packet = seeded6(6, tcp(&data(60_000))).bytes();
    let tcp_gso = |size| gso(partial(40, 16), GsoKind::TcpV6 { ecn: false }, size);
    assert!(run64_offload(&packet, &defaults(), tcp_gso(1460)).0.is_ok());
    assert_eq!(answered(run64_offload(&packet, &defaults(), tcp_gso(1461)).0), (2, 0, 1520));
}

#[test]
fn a_super_packet_that_may_be_fragmented_but_does_not_fit_must_be_segmented_first() {
    let packet = seeded4(6, tcp(&data(5000))).with(|p| p.df = false).bytes();
    let tcp_gso = |size| gso(partial(20, 16), GsoKind::TcpV4 { ecn: false }, size);
    // lowest-ipv6-mtu: 40 + 20 + 1220 = 1280.
    assert!(run46_offload(&packet, &defaults(), tcp_gso(1220)).0.is_ok());
    assert_eq!(run46_offload(&packet, &defaults(), tcp_gso(1221)).0, Err(Refusal::NeedSegments));
}

#[test]
fn df_follows_the_segment_size() {
    let packet = seeded6(6, tcp(&data(64_000))).bytes();
    for (size, flags) in [(1000, 0), (1220, 0), (1221, 0x4000), (1400, 0x4000)] {
        let (sent, _) =
            run64_offload(&packet, &defaults(), gso(partial(40, 16), GsoKind::TcpV6 { ecn: false }, size));
        assert_eq!(u16_at(&sent.unwrap()[0], 6), flags, "{size}");
    }
}

#[test]
fn the_largest_super_packets_fit_or_must_be_segmented() {
    let config = config(|s| (s.mtu4, s.mtu6) = (1500, 1520));
    // 4 -> 6: 65535 bytes of IPv4 are 65515 bytes of payload.
    let packet = seeded4(6, tcp(&data(65535 - 40))).bytes();
    let (sent, _) =
        run46_offload(&packet, &config, gso(partial(20, 16), GsoKind::TcpV4 { ecn: false }, 1448));
    assert_eq!(sent.unwrap()[0].len(), 65555);
    // 6 -> 4: one byte more than Total Length can say.
    let tcp_gso = gso(partial(40, 16), GsoKind::TcpV6 { ecn: false }, 1400);
    let packet = |len: usize| seeded6(6, tcp(&data(len - 20))).bytes();
    assert!(run64_offload(&packet(65515), &config, tcp_gso).0.is_ok());
    for len in [65516, 65535] {
        assert_eq!(run64_offload(&packet(len), &config, tcp_gso).0, Err(Refusal::NeedSegments));
    }
}

#[test]
fn a_super_packet_of_udp_says_of_its_datagrams_what_can_be() {
    let datagrams = |payload: usize, size| {
        let packet4 = seeded4(17, udp(&data(payload))).bytes();
        let packet6 = seeded6(17, udp(&data(payload))).bytes();
        let to6 = run46_offload(&packet4, &defaults(), gso(partial(20, 6), GsoKind::UdpL4, size)).0;
        let to4 = run64_offload(&packet6, &defaults(), gso(partial(40, 6), GsoKind::UdpL4, size)).0;
        let fits = to4.is_ok();
        assert_eq!(to6.is_ok(), fits, "{payload} bytes in {size}");
        if !fits {
            assert_eq!([silent(to6), silent(to4)], [Reason::BadOffload; 2], "{payload} bytes in {size}");
        }
        fits
    };
    assert!(
        [(1000, 100), (1000, 1000), (1280, 10), (1279, 10)]
            .into_iter()
            .all(|(len, size)| datagrams(len, size))
    );
    assert!(
        ![(1000, 1001), (1000, 0), (1281, 10), (0, 1)].into_iter().any(|(len, size)| datagrams(len, size))
    );
}

#[test]
fn metadata_that_contradicts_the_packet_is_refused() {
    let tcp_gso = gso(partial(20, 16), GsoKind::TcpV4 { ecn: false }, 1000);
    let fragment =
        |more, offset| seeded4(6, tcp(&data(3004))).with(|p| (p.df, p.mf, p.offset) = (false, more, offset));
    for (more, offset) in [(true, 0), (true, 8), (false, 8)] {
        let packet = fragment(more, offset).bytes();
        for offload in [partial(20, 16), tcp_gso, Offload { checksum: ChecksumState::InPacket, ..tcp_gso }] {
            assert_eq!(silent(run46_offload(&packet, &defaults(), offload).0), Reason::BadOffload);
        }
    }
    // ICMP, another family's kind, the wrong protocol, no size, no partial checksum.
    let icmp = v4(1, echo(8, &data(3000))).bytes();
    assert_eq!(
        silent(run46_offload(&icmp, &defaults(), Offload { checksum: ChecksumState::InPacket, ..tcp_gso }).0),
        Reason::BadOffload
    );
    let packet = seeded4(6, tcp(&data(3000))).bytes();
    for offload in [
        gso(partial(20, 16), GsoKind::TcpV6 { ecn: false }, 1000),
        gso(partial(20, 16), GsoKind::UdpL4, 1000),
        gso(partial(20, 16), GsoKind::TcpV4 { ecn: false }, 0),
        gso(Offload::NONE, GsoKind::TcpV4 { ecn: false }, 1000),
    ] {
        assert_eq!(silent(run46_offload(&packet, &defaults(), offload).0), Reason::BadOffload, "{offload:?}");
    }
    let packet = seeded6(6, tcp(&data(3000))).bytes();
    for offload in [
        gso(partial(40, 16), GsoKind::TcpV4 { ecn: false }, 1000),
        gso(partial(40, 16), GsoKind::UdpL4, 1000),
        gso(partial(40, 16), GsoKind::TcpV6 { ecn: false }, 0),
        gso(Offload::NONE, GsoKind::TcpV6 { ecn: false }, 1000),
    ] {
        assert_eq!(silent(run64_offload(&packet, &defaults(), offload).0), Reason::BadOffload, "{offload:?}");
    }
    for extension in [fragment_header(0, true, 1), fragment_header(0, false, 1)] {
        let packet = seeded6(6, tcp(&data(1004))).with(|p| p.extensions = vec![extension]).bytes();
        assert_eq!(silent(run64_offload(&packet, &defaults(), partial(48, 16)).0), Reason::BadOffload);
    }
}

#[test]
fn a_partial_checksum_is_finished_before_a_packet_is_cut() {
    for (protocol, l4) in [(6, tcp(&data(3000))), (17, udp(&data(3001)))] {
        let packet = seeded4(protocol, l4.clone()).with(|p| p.df = false).bytes();
        let (sent, moved) = run46_offload(&packet, &defaults(), partial(20, offset(protocol)));
        assert_eq!(moved, Offload::NONE);
        let whole: Vec<u8> = sent.unwrap().iter().flat_map(|piece| piece[48..].to_vec()).collect();
        assert_eq!(whole, seal6(a6(), b6(), protocol, l4));
    }
}

#[test]
fn a_udp_checksum_finished_as_0_is_sent_as_ffff() {
    let mut l4 = udp(&data(3000));
    l4[8..10].fill(0);
    let covered = [pseudo6(a6(), b6(), 17, l4.len()), l4.clone()].concat();
    // The word that makes all of it sum to 0xffff.
    l4[8..10].copy_from_slice(&(!ones_complement(&covered)).to_be_bytes());
    let packet = seeded4(17, l4).with(|p| p.df = false).bytes();
    let (sent, _) = run46_offload(&packet, &defaults(), partial(20, 6));
    assert_eq!(u16_at(&sent.unwrap()[0], 54), 0xffff);
}

#[test]
fn only_the_first_128_bytes_of_a_super_packet_are_needed() {
    let packet = seeded4(6, tcp(&data(60_000))).bytes();
    let head = Packet {
        head: &packet[..128],
        len: packet.len(),
        offload: gso(partial(20, 16), GsoKind::TcpV4 { ecn: false }, 1440),
    };
    let mut out = [0; SCRATCH_LEN];
    let translated = v4_to_v6::translate(&head, &LabMap, &defaults(), &mut out).unwrap();
    assert_eq!((translated.head_len, translated.tail), (60, 40..packet.len()));
}
