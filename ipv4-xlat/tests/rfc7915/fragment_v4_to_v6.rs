//! IPv4 fragments into IPv6, and packets too big for it: checklist C (RFC 7915 4, 4.1).

use ipv4_xlat::{ConfigError, LowestIpv6Mtu, Reason, Settings};

use crate::lab::*;

/// One fragment of a datagram.
fn fragment(offset: usize, more: bool, payload: Vec<u8>) -> V4 {
    v4(17, udp(b"")).with(|p| (p.df, p.mf, p.offset, p.payload) = (false, more, offset, payload))
}

/// Offset in bytes, M, identification and payload of each piece.
fn pieces(sent: &[Vec<u8>]) -> Vec<(usize, bool, u32, Vec<u8>)> {
    let piece = |packet: &Vec<u8>| {
        assert_sound(packet);
        assert_eq!((packet[6], packet[41]), (44, 0));
        let offset = u16_at(packet, 42);
        assert_eq!(offset & 6, 0, "reserved bits");
        (usize::from(offset & !7), offset & 1 == 1, u32_at(packet, 44), packet[48..].to_vec())
    };
    sent.iter().map(piece).collect()
}

#[test]
fn a_fragment_gets_a_fragment_header_with_its_offset_flag_and_identification() {
    for (offset, more, len) in [(0, true, 64), (64, true, 800), (1480, false, 13), (65528, false, 7)] {
        let l4 = if offset == 0 { seal4(A4, B4, 17, udp(&data(len - 8))) } else { data(len) };
        let sent = run46(&fragment(offset, more, l4).bytes(), &defaults()).unwrap();
        let [(o, m, id, payload)] = &pieces(&sent)[..] else { panic!("one piece") };
        assert_eq!((*o, *m, *id, payload.len()), (offset, more, 0x1234, len));
        assert_eq!(sent[0][40], 17);
    }
}

#[test]
fn a_large_packet_that_may_be_fragmented_leaves_in_pieces_that_fit() {
    for (limit, step) in [(1280, 1232), (1281, 1232), (1402, 1352), (1500, 1448)] {
        let config = config(|s| s.lowest_ipv6_mtu = limit);
        let packet = v4(17, udp(&data(4000))).with(|p| p.df = false);
        let sent = run46(&packet.bytes(), &config).unwrap();
        assert!(sent.iter().all(|piece| piece.len() <= limit as usize));
        let pieces = pieces(&sent);
        let mut whole: Vec<u8> = Vec::new();
        for (i, (offset, more, id, payload)) in pieces.iter().enumerate() {
            assert_eq!((*offset, *more, *id), (i * step, i + 1 < pieces.len(), 0x1234));
            whole.extend(payload);
        }
        assert_eq!(whole, seal6(a6(), b6(), 17, udp(&data(4000))));
    }
}

#[test]
fn the_limit_is_met_to_the_byte() {
    let packet = |len: usize| v4(17, udp(&data(len - 28))).with(|p| p.df = false).bytes();
    assert_eq!(run46(&packet(1260), &defaults()).unwrap()[0].len(), 1280);
    assert_eq!(run46(&packet(1261), &defaults()).unwrap().len(), 2);
}

#[test]
fn pieces_never_exceed_the_next_hop_even_if_the_limit_does() {
    let config = config(|s| (s.mtu6, s.lowest_ipv6_mtu) = (1400, 9000));
    let sent = run46(&v4(17, udp(&data(3000))).with(|p| p.df = false).bytes(), &config).unwrap();
    assert!(sent.len() == 3 && sent.iter().all(|piece| piece.len() <= 1400));
}

#[test]
fn a_large_fragment_is_cut_again_relative_to_the_original() {
    for more in [false, true] {
        let sent = run46(&fragment(2960, more, data(1480)).bytes(), &defaults()).unwrap();
        let pieces = pieces(&sent);
        let seen: Vec<_> = pieces.iter().map(|(offset, m, id, p)| (*offset, *m, *id, p.len())).collect();
        assert_eq!(seen, [(2960, true, 0x1234, 1232), (2960 + 1232, more, 0x1234, 248)]);
        assert_eq!([&pieces[0].3[..], &pieces[1].3].concat(), data(1480));
    }
}

#[test]
fn identification_0_is_carried_over_for_each_datagram() {
    // Legal on input with DF = 0 only if the sender keeps it unique (RFC 6864); we add no state to mend it.
    for payload in [data(2000), data(3000)] {
        let packet = v4(17, udp(&payload)).with(|p| (p.df, p.id) = (false, 0));
        let sent = run46(&packet.bytes(), &defaults()).unwrap();
        assert!(pieces(&sent).iter().all(|piece| piece.2 == 0));
    }
}

#[test]
fn the_first_fragments_checksum_is_updated_and_later_ones_are_untouched() {
    for (protocol, l4) in [(17, udp(&data(3000))), (6, tcp(&data(3000)))] {
        let datagram = v4(protocol, l4.clone());
        let cut = |offset: usize, end: usize| {
            datagram.clone().with(|p| {
                (p.df, p.mf, p.offset) = (false, end < p.payload.len(), offset);
                p.payload = p.payload[offset..end].to_vec();
            })
        };
        let end = datagram.payload.len();
        let mut whole: Vec<u8> = Vec::new();
        for (from, to) in [(0, 1024), (1024, 2048), (2048, end)] {
            let sent = run46(&cut(from, to).bytes(), &defaults()).unwrap();
            whole.extend(&pieces(&sent)[0].3);
        }
        assert_eq!(whole, seal6(a6(), b6(), protocol, l4));
    }
}

#[test]
fn a_packet_too_big_that_may_not_be_fragmented_is_answered_with_the_mtu_less_20() {
    let config = config(|s| s.mtu6 = 1400);
    let packet = |len: usize| v4(17, udp(&data(len - 28))).bytes();
    to_v6_bytes(&packet(1380), &config);
    assert_eq!(answered(run46(&packet(1381), &config)), (3, 4, 1380));
}

#[test]
fn options_count_for_what_they_become() {
    // 40 bytes of options vanish: 1420 bytes of IPv4 are 1400 of IPv6.
    let config = config(|s| s.mtu6 = 1400);
    let packet = |len: usize| v4(17, udp(&data(len - 68))).with(|p| p.options = vec![1; 40]).bytes();
    to_v6_bytes(&packet(1420), &config);
    assert_eq!(answered(run46(&packet(1421), &config)), (3, 4, 1380));
}

#[test]
fn a_fragment_that_may_not_be_fragmented_costs_28() {
    let packet =
        |len: usize| fragment(0, true, seal4(A4, B4, 17, udp(&data(len - 8)))).with(|p| p.df = true).bytes();
    // 48 + 1448 = 1496 fits, 48 + 1456 = 1504 does not.
    assert_eq!(run46(&packet(1448), &defaults()).unwrap()[0].len(), 1496);
    assert_eq!(answered(run46(&packet(1456), &defaults())), (3, 4, 1472));
}

#[test]
fn df_packets_are_not_limited_by_lowest_ipv6_mtu() {
    assert_eq!(to_v6(&v4(17, udp(&data(1452))), &defaults()).len(), 1500);
}

#[test]
fn a_lowest_ipv6_mtu_below_1280_is_refused() {
    let refused = |settings| ipv4_xlat::Config::new(settings).map(|_| ()).unwrap_err();
    assert_eq!(
        refused(Settings { lowest_ipv6_mtu: 1279, ..Settings::default() }),
        ConfigError::LowestIpv6Mtu(1279)
    );
    assert_eq!(refused(Settings { mtu6: 1279, ..Settings::default() }), ConfigError::Mtu6(1279));
    assert_eq!(refused(Settings { mtu4: 67, ..Settings::default() }), ConfigError::Mtu4(67));
    assert_eq!(LowestIpv6Mtu::new(1279), Err(ConfigError::LowestIpv6Mtu(1279)));
    assert_eq!(LowestIpv6Mtu::new(1280).map(LowestIpv6Mtu::get), Ok(1280));
}

#[test]
fn fragmented_icmp_is_not_translated() {
    for (offset, more) in [(0, true), (8, true), (16, false)] {
        let packet = v4(1, echo(8, &data(8))).with(|p| (p.df, p.mf, p.offset) = (false, more, offset));
        assert_eq!(silent(run46(&packet.bytes(), &defaults())), Reason::FragmentedIcmp);
        let (offset, more) = (offset, more);
        let packet =
            v6(58, echo(128, &data(8))).with(|p| p.extensions = vec![fragment_header(offset, more, 9)]);
        assert_eq!(silent(run64(&packet.bytes(), &defaults())), Reason::FragmentedIcmp);
    }
}

#[test]
fn impossible_fragments_are_dropped() {
    for len in 1..8 {
        let odd = fragment(8, true, data(16 + len));
        assert_eq!(silent(run46(&odd.bytes(), &defaults())), Reason::FragmentAlignment);
    }
    assert_eq!(
        silent(run46(&fragment(65528, false, data(8)).bytes(), &defaults())),
        Reason::FragmentBeyondEnd
    );
    assert!(run46(&fragment(65528, false, data(7)).bytes(), &defaults()).is_ok());
}

#[test]
fn a_first_fragment_must_hold_the_whole_transport_header() {
    let with_options = {
        let mut l4 = tcp(&data(100));
        l4[12] = 0xa0; // 40 bytes of header
        l4
    };
    for (protocol, l4, header) in
        [(17, udp(&data(64)), 8), (6, tcp(&data(64)), 24), (6, with_options, 40), (136, udp(&data(64)), 8)]
    {
        for len in (8..=64).step_by(8) {
            let packet = v4(protocol, l4.clone()).with(|p| {
                (p.df, p.mf) = (false, true);
                p.payload.truncate(len);
            });
            let outcome = run46(&packet.bytes(), &defaults());
            if len < header {
                assert_eq!(silent(outcome), Reason::ShortTransport, "{protocol} {len}");
            } else {
                assert!(outcome.is_ok(), "{protocol} {len}");
            }
        }
    }
}
