//! The translator as a whole: checklist A (RFC 7915 1.2, 1.3, 1.4), and the settings for links between two of us.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipv4_xlat::{
    ChecksumState, FragmentedIcmp, HopChange, Offload, Packet, Reason, Refusal, SCRATCH_LEN, TrafficClass,
    ZeroUdpChecksum, v4_to_v6, v6_to_v4,
};
use proptest::prelude::*;

use crate::lab::*;

#[test]
fn the_same_packet_gives_the_same_bytes_whatever_came_before() {
    let (four, six) = (v4(17, udp(&data(100))).bytes(), v6(6, tcp(&data(100))).bytes());
    let first = (run46(&four, &defaults()), run64(&six, &defaults()));
    for noise in 0..100 {
        let _ = run46(&v4(6, tcp(&data(noise * 30))).with(|p| p.df = noise % 2 == 0).bytes(), &defaults());
        let _ = run64(&v6(58, echo(128, &data(noise))).bytes(), &defaults());
    }
    assert_eq!((run46(&four, &defaults()), run64(&six, &defaults())), first);
}

#[test]
fn packets_leave_in_the_order_they_came_also_when_some_are_cut() {
    let mut sequence = Vec::new();
    for number in 0..1000_u32 {
        let payload = [&number.to_be_bytes()[..], &data(if number % 7 == 0 { 2000 } else { 10 })].concat();
        let packet = v4(17, udp(&payload)).with(|p| (p.df, p.id) = (false, number as u16));
        for piece in run46(&packet.bytes(), &defaults()).unwrap() {
            let (at, fragment) = if piece[6] == 44 { (48, u16_at(&piece, 42) & !7) } else { (40, 0) };
            let number = if fragment == 0 { u32_at(&piece, at + 8) } else { u32_at(&piece, 44) };
            sequence.push((number, fragment));
        }
    }
    assert_eq!(sequence.len(), 1000 + 143);
    assert!(sequence.is_sorted());
}

#[test]
fn length_fields_decide_not_the_buffer() {
    // Bytes behind the packet are not passed on.
    let four = v4(17, udp(&data(30))).bytes();
    let six = v6(17, udp(&data(30))).bytes();
    let expected = (run46(&four, &defaults()), run64(&six, &defaults()));
    for extra in 1..50 {
        let padded = |bytes: &[u8]| [bytes, &vec![0xee; extra]].concat();
        assert_eq!((run46(&padded(&four), &defaults()), run64(&padded(&six), &defaults())), expected);
    }
    // Nor are bytes that are not there.
    for len in 0..four.len() {
        assert_eq!(silent(run46(&four[..len], &defaults())), Reason::Truncated, "{len}");
    }
    for len in 0..six.len() {
        assert_eq!(silent(run64(&six[..len], &defaults())), Reason::Truncated, "{len}");
    }
}

#[test]
fn a_header_field_that_is_off_is_named() {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = v4(17, udp(&data(30))).bytes();
        change(&mut bytes);
        fix_header(&mut bytes);
        silent(run46(&bytes, &defaults()))
    };
    for version in (0..16).filter(|version| *version != 4) {
        assert_eq!(with(&|b| b[0] = version << 4 | 5), Reason::WrongVersion);
    }
    for ihl in 0..5 {
        assert_eq!(with(&|b| b[0] = 0x40 | ihl), Reason::HeaderLength);
    }
    for len in 0..20 {
        assert_eq!(with(&|b| b[2..4].copy_from_slice(&u16::to_be_bytes(len))), Reason::HeaderLength);
    }
    for len in [59, 60, 1000, 65535] {
        assert_eq!(with(&|b| b[2..4].copy_from_slice(&u16::to_be_bytes(len))), Reason::Truncated);
    }
    // Shorter by one: the byte that is not counted is not sent.
    let mut shorter = v4(17, udp(&data(30))).bytes();
    shorter[3] -= 1;
    fix_header(&mut shorter);
    assert_eq!(run46(&shorter, &defaults()).unwrap()[0].len(), 40 + 37);

    for version in (0..16).filter(|version| *version != 6) {
        let mut bytes = v6(17, udp(&data(30))).bytes();
        bytes[0] = version << 4;
        assert_eq!(silent(run64(&bytes, &defaults())), Reason::WrongVersion);
    }
    for (len, reason) in [
        (0, Reason::ShortTransport),
        (7, Reason::ShortTransport),
        (39, Reason::Truncated),
        (65535, Reason::Truncated),
    ] {
        let mut bytes = v6(17, udp(&data(30))).bytes();
        bytes[4..6].copy_from_slice(&u16::to_be_bytes(len));
        assert_eq!(silent(run64(&bytes, &defaults())), reason, "{len}");
    }
}

#[test]
fn a_wrong_ipv4_header_checksum_is_dropped_silently() {
    let good = v4(17, udp(b"x")).bytes();
    for bit in 0..160 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        let outcome = run46(&bytes, &defaults());
        assert!(matches!(outcome, Err(Refusal::Silent(_))), "bit {bit}");
        if bit >= 32 {
            assert_eq!(silent(outcome), Reason::HeaderChecksum, "bit {bit}");
        }
    }
    // 0 and 0xffff are both right where the sum says so: a header checksum of 0 is no "none".
    for id in 0..=u16::MAX {
        let bytes = v4(17, udp(b"x")).with(|p| p.id = id).bytes();
        if u16_at(&bytes, 10) == 0 {
            assert!(run46(&bytes, &defaults()).is_ok());
            return;
        }
    }
    panic!("one identification gives 0");
}

#[test]
fn what_is_not_mapped_is_not_for_us() {
    for unmapped in [UNMAPPED4, Ipv4Addr::new(224, 0, 0, 1)] {
        let packet = v4_between(A4, unmapped, 17, udp(b"x")).bytes();
        assert_eq!(silent(run46(&packet, &defaults())), Reason::NotForUs);
    }
    for unmapped in [UNMAPPED6, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)] {
        let packet = v6_between(a6(), unmapped, 17, udp(b"x")).bytes();
        assert_eq!(silent(run64(&packet, &defaults())), Reason::NotForUs);
    }
    // Before anything else is held against it.
    let spent = v4_between(A4, UNMAPPED4, 17, udp(b"x")).with(|p| p.ttl = 0).bytes();
    assert_eq!(silent(run46(&spent, &defaults())), Reason::NotForUs);
}

#[test]
fn too_big_is_fragmented_or_signalled_but_never_lost_in_silence() {
    for len in (1200..1600).chain([3000, 9000]) {
        for df in [false, true] {
            match run46(&v4(17, udp(&data(len))).with(|p| p.df = df).bytes(), &defaults()) {
                Ok(sent) => assert!(sent.iter().all(|packet| packet.len() <= if df { 1500 } else { 1280 })),
                refused => assert!(df && answered(refused) == (3, 4, 1480)),
            }
        }
        match run64(&v6(17, udp(&data(len))).bytes(), &defaults()) {
            Ok(sent) => assert!(sent[0].len() <= 1500),
            refused => assert_eq!(answered(refused), (2, 0, 1520)),
        }
    }
}

// ---- links between two of us -------------------------------------------------------------------------------------

fn lossless() -> ipv4_xlat::Config {
    config(|s| {
        s.zero_udp_checksum = ZeroUdpChecksum::Forward;
        s.fragmented_icmp = FragmentedIcmp::Pass;
        s.hop_change = HopChange::Keep;
    })
}

#[test]
fn a_zero_udp_checksum_returns_as_zero() {
    let packet = v4(17, udp(&data(20))).with(|p| p.payload[6..8].fill(0));
    let six = run46(&packet.bytes(), &lossless()).unwrap().remove(0);
    let four = run64(&six, &lossless()).unwrap().remove(0);
    assert_eq!(four[20..], packet.payload);
}

#[test]
fn a_fragmented_ping_arrives_as_it_was_sent() {
    for icmp_type in [0, 8] {
        let datagram = v4(1, echo(icmp_type, &data(3000)));
        let end = datagram.payload.len();
        for (from, to) in [(0, 1480), (1480, 2960), (2960, end)] {
            let fragment = datagram.clone().with(|p| {
                (p.df, p.mf, p.offset) = (false, to < end, from);
                p.payload = p.payload[from..to].to_vec();
            });
            let bytes = fragment.bytes();
            let sent = run46(
                &bytes,
                &lossless()
                    .with_lowest_ipv6_mtu(ipv4_xlat::LowestIpv6Mtu::new(1528).unwrap())
                    .with_mtu6(1528),
            )
            .unwrap();
            let [six] = &sent[..] else { panic!("one piece") };
            assert_eq!((six[6], six[40]), (44, 58));
            if from == 0 {
                assert_eq!(six[48], if icmp_type == 8 { 128 } else { 129 });
            }
            let four = run64(six, &lossless()).unwrap().remove(0);
            assert_eq!(four, bytes, "every byte, the header's included");
        }
    }
    // Errors are not echo.
    let quote = v4_between(B4, A4, 17, udp(b"x")).bytes();
    let error = v4(1, icmp(3, 1, [0; 4], &quote)).with(|p| (p.df, p.mf) = (false, true));
    let error = error.with(|p| p.payload.truncate(32)).bytes();
    assert_eq!(silent(run46(&error, &lossless())), Reason::FragmentedIcmp);
}

// ---- properties --------------------------------------------------------------------------------------------------

/// Packets that look like packets, with any field odd now and then.
fn any_v4() -> impl Strategy<Value = Vec<u8>> {
    let l4 = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|d| (17, udp(&d))),
        prop::collection::vec(any::<u8>(), 0..3000).prop_map(|d| (6, tcp(&d))),
        (prop_oneof![Just(0_u8), Just(8), any::<u8>()], prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(t, d)| (1, echo(t, &d))),
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..100)),
        (
            prop_oneof![Just(3_u8), Just(11), Just(12)],
            0..16_u8,
            any::<[u8; 4]>(),
            prop::collection::vec(any::<u8>(), 0..700),
            any::<bool>(),
            0..60_usize
        )
            .prop_map(|(t, c, word, d, options, cut)| {
                let inner = v4_between(B4, A4, 17, udp(&d))
                    .with(|p| p.options = vec![1; if options { 8 } else { 0 }]);
                let mut quote = inner.bytes();
                quote.truncate(quote.len().saturating_sub(cut));
                (1, icmp(t, c, word, &quote))
            }),
    ];
    let head = (
        any::<u8>(),
        any::<u16>(),
        0..8_u8,
        0..4_usize,
        prop::collection::vec(any::<u8>(), 0..10),
        any::<u8>(),
    );
    (l4, head).prop_map(|((protocol, l4), (tos, id, flags, offset, options, ttl))| {
        let mut options = options;
        options.resize(options.len().next_multiple_of(4), 0);
        v4(protocol, l4)
            .with(|p| {
                (p.tos, p.id, p.options, p.ttl) = (tos, id, options, ttl.max(1));
                (p.df, p.mf, p.offset) =
                    (flags & 1 == 1, flags == 6, if flags & 4 == 4 { offset * 8 } else { 0 });
            })
            .bytes()
    })
}

fn any_v6() -> impl Strategy<Value = Vec<u8>> {
    let l4 = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|d| (17, udp(&d))),
        prop::collection::vec(any::<u8>(), 0..1500).prop_map(|d| (6, tcp(&d))),
        (128..=130_u8, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(t, d)| (58, echo(t, &d))),
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..100)),
        (
            1..5_u8,
            0..8_u8,
            any::<[u8; 4]>(),
            prop::collection::vec(any::<u8>(), 0..1100),
            any::<bool>(),
            0..60_usize
        )
            .prop_map(|(t, c, word, d, fragment, cut)| {
                let inner = v6_between(b6(), a6(), 17, udp(&d)).with(|p| {
                    p.extensions = if fragment { vec![fragment_header(0, true, 7)] } else { vec![] }
                });
                let mut quote = inner.bytes();
                quote.truncate(quote.len().saturating_sub(cut));
                (58, icmp(t, c, word, &quote))
            }),
    ];
    let extension = prop_oneof![
        (1..4_usize).prop_map(|n| options_header(60, n * 8)),
        Just(options_header(0, 8)),
        (0..2_u8).prop_map(routing_header),
        (0..4_usize, any::<bool>(), any::<u32>()).prop_map(|(o, m, id)| fragment_header(o * 8, m, id)),
    ];
    let head = (any::<u8>(), 0..0x10_0000_u32, 1..=255_u8, prop::collection::vec(extension, 0..3));
    (l4, head).prop_map(|((protocol, l4), (tc, flow, hops, extensions))| {
        v6(protocol, l4).with(|p| (p.tc, p.flow, p.hops, p.extensions) = (tc, flow, hops, extensions)).bytes()
    })
}

/// What must hold of every result; `grows` is the most one packet may gain.
fn assert_bounded(input: &[u8], sent: &[Vec<u8>], grows: usize) {
    for packet in sent {
        assert!(packet.len() <= input.len() + grows);
        if packet[0] >> 4 == 4 {
            smoltcp::wire::Ipv4Packet::new_checked(&packet[..]).expect("parses");
            assert_eq!(ones_complement(&packet[..20]), 0xffff);
        } else {
            smoltcp::wire::Ipv6Packet::new_checked(&packet[..]).expect("parses");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_translated_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = run46(&bytes, &defaults());
        let _ = run64(&bytes, &defaults());
    }

    #[test]
    fn whatever_comes_out_parses_and_has_not_grown_past_its_bound(four in any_v4(), six in any_v6()) {
        // IPv6's header is 20 bytes longer, and again in a quote; Fragment Headers cost 8 each; RFC 4884 pads to 128.
        if let Ok(sent) = run46(&four, &defaults()) {
            assert_bounded(&four, &sent, 20 + 20 + 8 + 128);
        }
        if let Ok(sent) = run64(&six, &defaults()) {
            assert_bounded(&six, &sent, 128);
        }
    }

    #[test]
    fn the_straight_line_is_the_general_path(four in any_v4(), six in any_v6(), limits in (68..2000_u32, 1280..2000_u32, 1280..2000_u32), hops: bool, class: bool) {
        // A verified checksum changes nothing but itself, and keeps a packet off the straight line.
        let verified = Offload { checksum: ChecksumState::Verified, gso: None };
        let config = config(|s| {
            (s.mtu4, s.mtu6, s.lowest_ipv6_mtu) = limits;
            s.hop_change = if hops { HopChange::SpendOne } else { HopChange::Keep };
            s.traffic_class = if class { TrafficClass::Keep } else { TrafficClass::Set(0x2e) };
        });
        prop_assert_eq!(run46(&four, &config), run46_offload(&four, &config, verified).0);
        prop_assert_eq!(run64(&six, &config), run64_offload(&six, &config, verified).0);
    }

    #[test]
    fn a_flipped_bit_or_a_cut_is_no_harm(four in any_v4(), six in any_v6(), at: prop::sample::Index, bit in 0..8_u8, cut: prop::sample::Index) {
        for (mut bytes, is_four) in [(four, true), (six, false)] {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if is_four {
                fix_header(&mut bytes);
            }
            let cut = cut.index(bytes.len());
            for bytes in [&bytes[..], &bytes[..cut]] {
                let _ = if is_four { run46(bytes, &defaults()) } else { run64(bytes, &defaults()) };
            }
        }
    }

    #[test]
    fn data_behind_the_transport_header_is_unchanged(payload in prop::collection::vec(any::<u8>(), 0..1200), tcp_not_udp: bool) {
        let (protocol, l4) = if tcp_not_udp { (6, tcp(&payload)) } else { (17, udp(&payload)) };
        let at = l4.len() - payload.len();
        prop_assert_eq!(&to_v6(&v4(protocol, l4.clone()), &defaults())[40 + at..], &payload[..]);
        prop_assert_eq!(&to_v4(&v6(protocol, l4), &defaults())[20 + at..], &payload[..]);
    }

    #[test]
    fn there_and_back_is_the_packet_that_was_sent(payload in prop::collection::vec(any::<u8>(), 0..1200), kind in 0..3, tos: u8, ttl in 3..=255_u8) {
        let (protocol, l4) = [(6, tcp(&payload)), (17, udp(&payload)), (1, echo(8, &payload))][kind as usize].clone();
        let packet = v4(protocol, l4).with(|p| (p.tos, p.ttl, p.id) = (tos, ttl, ID));
        let four = to_v4_bytes(&to_v6(&packet, &defaults()), &defaults());
        // DF is remade from the length.
        let expected = packet.clone().with(|p| (p.ttl, p.df) = (ttl - 2, p.payload.len() + 20 > 1260)).bytes();
        prop_assert_eq!(four, expected);
    }

    #[test]
    fn fragments_come_back_as_they_were(payload in prop::collection::vec(any::<u8>(), 8..160), offset in 1..100_usize, id: u16) {
        let len = payload.len() / 8 * 8;
        let packet = v4(132, payload[..len].to_vec()).with(|p| (p.df, p.mf, p.offset, p.id) = (false, true, offset * 8, id));
        let six = run46(&packet.bytes(), &lossless()).unwrap().remove(0);
        prop_assert_eq!(run64(&six, &lossless()).unwrap().remove(0), packet.bytes());
    }

    #[test]
    fn a_head_of_any_length_gives_the_same_answer_or_asks_for_more(four in any_v4(), six in any_v6(), head: prop::sample::Index, scratch in 0..1400_usize) {
        let mut full = [0; SCRATCH_LEN];
        let mut part = vec![0; scratch];
        let head_len = head.index(four.len() + 1);
        let whole = v4_to_v6::translate(&Packet::whole(&four), &LabMap, &defaults(), &mut full);
        let packet = Packet { head: &four[..head_len], ..Packet::whole(&four) };
        match v4_to_v6::translate(&packet, &LabMap, &defaults(), &mut part) {
            Err(Refusal::NeedWhole) => {}
            // An ICMP error is withheld when the copied bytes do not show that it may be sent.
            Err(Refusal::Silent(reason)) => prop_assert!(matches!(whole, Err(Refusal::Silent(r) | Refusal::Icmp(r, _)) if r == reason)),
            other => prop_assert_eq!(other, whole),
        }
        let head_len = head.index(six.len() + 1);
        let whole = v6_to_v4::translate(&Packet::whole(&six), &LabMap, &defaults(), ID, &mut full);
        let packet = Packet { head: &six[..head_len], ..Packet::whole(&six) };
        match v6_to_v4::translate(&packet, &LabMap, &defaults(), ID, &mut part) {
            Err(Refusal::NeedWhole) => {}
            Err(Refusal::Silent(reason)) => prop_assert!(matches!(whole, Err(Refusal::Silent(r) | Refusal::Icmp(r, _)) if r == reason)),
            other => prop_assert_eq!(other, whole),
        }
    }
}
