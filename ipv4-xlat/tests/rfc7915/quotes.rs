//! Packets quoted in ICMP errors: checklist E (RFC 7915 4.3, 5.3).

use ipv4_xlat::{Reason, TrafficClass};

use crate::lab::*;

/// An IPv4 error (time exceeded) that quotes `quote`.
fn error4(quote: &[u8]) -> V4 {
    v4(1, icmp(11, 0, [0; 4], quote))
}

/// The same in IPv6.
fn error6(quote: &[u8]) -> V6 {
    v6(58, icmp(3, 0, [0; 4], quote))
}

/// What our side sent, as the IPv4 side quotes it.
fn inner4(protocol: u8, l4: Vec<u8>) -> V4 {
    v4_between(B4, A4, protocol, l4)
}

/// What our side sent, as the IPv6 side quotes it.
fn inner6(protocol: u8, l4: Vec<u8>) -> V6 {
    v6_between(b6(), a6(), protocol, l4)
}

#[test]
fn the_quoted_packet_is_translated_but_its_hop_count_is_not_spent() {
    for (protocol, l4) in [(17, udp(&data(20))), (6, tcp(&data(20))), (132, data(30))] {
        for hops in [0, 1, 64] {
            let quote = inner4(protocol, l4.clone()).with(|p| (p.ttl, p.tos) = (hops, 0xa3)).bytes();
            let packet = to_v6(&error4(&quote), &defaults());
            let quote = quoted(&packet);
            assert_sound(quote);
            assert_eq!((quote[6], quote[7], u32_at(quote, 0)), (protocol, hops, 0x6a30_0000));

            let quote = inner6(protocol, l4.clone()).with(|p| (p.hops, p.tc) = (hops, 0xa3)).bytes();
            let packet = to_v4(&error6(&quote), &defaults());
            let quote = quoted(&packet);
            assert_sound(quote);
            assert_eq!((quote[9], quote[8], quote[1]), (protocol, hops, 0xa3));
        }
    }
}

#[test]
fn the_quoted_traffic_class_follows_the_configuration() {
    let config = config(|s| s.traffic_class = TrafficClass::Set(0));
    let packet = to_v6(&error4(&inner4(17, udp(b"x")).with(|p| p.tos = 0xa3).bytes()), &config);
    assert_eq!(u32_at(quoted(&packet), 0), 6 << 28);
}

#[test]
fn each_quoted_address_must_be_mapped() {
    for (src, dst) in [(UNMAPPED4, A4), (B4, UNMAPPED4)] {
        let quote = v4_between(src, dst, 17, udp(b"x")).bytes();
        assert_eq!(silent(run46(&error4(&quote).bytes(), &defaults())), Reason::UnmappedQuote);
    }
    for (src, dst) in [(UNMAPPED6, a6()), (b6(), UNMAPPED6)] {
        let quote = v6_between(src, dst, 17, udp(b"x")).bytes();
        assert_eq!(silent(run64(&error6(&quote).bytes(), &defaults())), Reason::UnmappedQuote);
    }
}

#[test]
fn quoted_echo_is_translated_and_a_quoted_error_is_not() {
    let packet = to_v6(&error4(&inner4(1, echo(8, &data(20))).bytes()), &defaults());
    assert_sound(quoted(&packet));
    assert_eq!(l4(quoted(&packet))[0], 128);
    let packet = to_v4(&error6(&inner6(58, echo(129, &data(20))).bytes()), &defaults());
    assert_sound(quoted(&packet));
    assert_eq!(l4(quoted(&packet))[0], 0);

    for icmp_type in [3, 4, 5, 11, 12] {
        let quote = inner4(1, icmp(icmp_type, 0, [0; 4], &data(28))).bytes();
        assert_eq!(silent(run46(&error4(&quote).bytes(), &defaults())), Reason::QuotedError);
    }
    for icmp_type in [1, 2, 3, 4, 100] {
        let quote = inner6(58, icmp(icmp_type, 0, [0; 4], &data(48))).bytes();
        assert_eq!(silent(run64(&error6(&quote).bytes(), &defaults())), Reason::QuotedError);
    }
    let quote = inner4(1, icmp(13, 0, [0; 4], &data(12))).bytes();
    assert_eq!(silent(run46(&error4(&quote).bytes(), &defaults())), Reason::UntranslatableIcmp);
    let quote = inner6(58, icmp(135, 0, [0; 4], &data(16))).bytes();
    assert_eq!(silent(run64(&error6(&quote).bytes(), &defaults())), Reason::UntranslatableIcmp);
}

#[test]
fn a_quoted_length_is_the_originals_not_the_quotes() {
    let mut quote = inner4(17, udp(&data(1400))).bytes();
    quote.truncate(28);
    let packet = to_v6(&error4(&quote), &defaults());
    assert_eq!(u16_at(quoted(&packet), 4), 1408);
    let mut quote = inner6(17, udp(&data(1400))).bytes();
    quote.truncate(48);
    let packet = to_v4(&error6(&quote), &defaults());
    assert_eq!(u16_at(quoted(&packet), 2), 1428);
}

#[test]
fn any_quoted_length_field_is_carried_without_underflow() {
    for len in (0..=60).chain([65515, 65535]) {
        let mut quote = inner4(17, udp(b"12345678")).with(|p| p.options = vec![1; 8]).bytes();
        quote[2..4].copy_from_slice(&u16::to_be_bytes(len));
        let packet = to_v6(&error4(&quote), &defaults());
        assert_eq!(u16_at(quoted(&packet), 4), len.saturating_sub(28), "{len}");

        let mut quote =
            inner6(17, udp(b"12345678")).with(|p| p.extensions = vec![options_header(60, 16)]).bytes();
        quote[4..6].copy_from_slice(&u16::to_be_bytes(len));
        let packet = to_v4(&error6(&quote), &defaults());
        assert_eq!(u16_at(quoted(&packet), 2), 20_u16.saturating_add(len.saturating_sub(16)), "{len}");
    }
}

#[test]
fn a_quoted_checksum_is_carried_as_far_as_the_quote_reaches() {
    for (protocol, l4, at) in [(6, tcp(&data(30)), 16), (17, udp(&data(30)), 6), (1, echo(8, &data(30)), 2)] {
        let full = inner4(protocol, l4).bytes();
        let expected = l4_of(quoted(&to_v6(&error4(&full), &defaults())));
        for len in 21..full.len() {
            let packet = to_v6(&error4(&full[..len]), &defaults());
            let cut = l4_of(quoted(&packet));
            let kept = cut.len().min(at);
            assert_eq!(cut[..kept], expected[..kept]);
            if cut.len() >= at + 2 {
                assert_eq!(cut, expected[..cut.len()]);
            } else if protocol != 1 {
                assert_eq!(cut, full[20..len], "cut before the checksum: as it was");
            }
        }
    }
}

fn l4_of(packet: &[u8]) -> Vec<u8> {
    l4(packet).to_vec()
}

#[test]
fn a_quote_of_eight_tcp_bytes_keeps_ports_and_sequence_number() {
    let full = inner4(6, tcp(&data(30))).bytes();
    let packet = to_v6(&error4(&full[..28]), &defaults());
    assert_eq!(l4(quoted(&packet)), &full[20..28]);
    let full = inner6(6, tcp(&data(30))).bytes();
    let packet = to_v4(&error6(&full[..48]), &defaults());
    assert_eq!(l4(quoted(&packet)), &full[40..48]);
}

#[test]
fn a_quoted_udp_checksum_of_0_stays_0() {
    let mut quote = inner4(17, udp(&data(20))).bytes();
    quote[26..28].fill(0);
    let packet = to_v6(&error4(&quote), &defaults());
    assert_eq!(u16_at(l4(quoted(&packet)), 6), 0);
    let mut quote = inner6(17, udp(&data(20))).bytes();
    quote[46..48].fill(0);
    let packet = to_v4(&error6(&quote), &defaults());
    assert_eq!(u16_at(l4(quoted(&packet)), 6), 0);
}

#[test]
fn a_quoted_ipv4_header_checksum_is_not_judged() {
    for checksum in [[0, 0], [0xff, 0xff], [0x12, 0x34]] {
        let mut quote = inner4(17, udp(&data(20))).bytes();
        quote[10..12].copy_from_slice(&checksum);
        assert_sound(quoted(&to_v6(&error4(&quote), &defaults())));
    }
}

#[test]
fn quoted_fragments_gain_and_lose_their_fragment_header() {
    for (offset, more) in [(0, true), (64, true), (640, false)] {
        let l4 = if offset == 0 { udp(&data(56)) } else { data(64) };
        let quote = inner4(17, l4.clone()).with(|p| (p.df, p.mf, p.offset) = (false, more, offset));
        let quote = if offset == 0 { quote } else { quote.with(|p| p.payload = l4.clone()) }.bytes();
        let packet = to_v6(&error4(&quote), &defaults());
        let six = quoted(&packet).to_vec();
        assert_eq!((six[6], six[40], u16_at(&six, 4)), (44, 17, 8 + 64));
        assert_eq!((u16_at(&six, 42), u32_at(&six, 44)), (offset as u16 | u16::from(more), 0x1234));
        if offset > 0 {
            assert_eq!(six[48..], l4, "no transport header to touch");
        }

        let packet = to_v4(&error6(&six), &defaults());
        let four = quoted(&packet);
        assert_eq!(four[..8], quote[..8], "and back: DF 0, same identification and offset");
        assert_eq!(four[20..], quote[20..]);
    }
}

#[test]
fn quoted_extension_headers_are_skipped_and_must_be_whole() {
    for extension in [options_header(0, 8), options_header(60, 64), routing_header(0)] {
        let quote = inner6(17, udp(&data(20))).with(|p| p.extensions = vec![extension.clone()]).bytes();
        let packet = to_v4(&error6(&quote), &defaults());
        assert_eq!((quoted(&packet)[9], quoted(&packet).len()), (17, 20 + 28));
        // Its length points past the quote.
        let mut lies = quote.clone();
        lies[41] = 200;
        if extension.0 != 43 {
            assert_eq!(silent(run64(&error6(&lies).bytes(), &defaults())), Reason::BadQuote);
        }
        for len in 40..40 + extension.1.len() {
            let outcome = run64(&error6(&quote[..len]).bytes(), &defaults());
            assert_eq!(silent(outcome), Reason::BadQuote, "cut at {len}");
        }
    }
    let quote = inner6(17, udp(&data(20))).with(|p| p.extensions = vec![routing_header(1)]).bytes();
    assert_eq!(silent(run64(&error6(&quote).bytes(), &defaults())), Reason::BadQuote);
    let quote = inner6(60, data(20)).with(|p| p.extensions = vec![fragment_header(8, true, 1)]).bytes();
    assert_eq!(silent(run64(&error6(&quote).bytes(), &defaults())), Reason::ExtensionBehindFragment);
}

#[test]
fn an_error_with_a_wrong_checksum_is_dropped_not_laundered() {
    let mut packet = error4(&inner4(17, udp(&data(20))).bytes()).bytes();
    packet[22] ^= 1;
    assert_eq!(silent(run46(&packet, &defaults())), Reason::IcmpChecksum);
    let mut packet = error6(&inner6(17, udp(&data(20))).bytes()).bytes();
    packet[42] ^= 1;
    assert_eq!(silent(run64(&packet, &defaults())), Reason::IcmpChecksum);
}

#[test]
fn a_translated_error_stays_within_the_smallest_mtu() {
    let quote = inner4(17, udp(&data(1400))).bytes();
    let packet = to_v6(&error4(&quote), &config(|s| s.lowest_ipv6_mtu = 1500));
    assert_eq!(packet.len(), 1280, "whatever lowest-ipv6-mtu is");
    assert_eq!(quoted(&packet)[48..], quote[28..28 + 1280 - 96]);

    let quote = inner6(17, udp(&data(1100))).bytes();
    let packet = to_v4(&error6(&quote), &defaults());
    assert_eq!(packet.len(), 576);
    assert_eq!(quoted(&packet)[28..], quote[48..48 + 576 - 56]);
}

#[test]
fn an_error_is_never_fragmented() {
    let quote = inner4(17, udp(&data(1460))).bytes();
    let packet = error4(&quote[..1472]).with(|p| p.df = false);
    assert_eq!(to_v6(&packet, &defaults()).len(), 1280);
}

#[test]
fn lengths_and_checksum_are_right_whatever_the_inner_growth() {
    for options in [0, 4, 20, 40] {
        for fragment in [false, true] {
            let quote = inner4(17, udp(&data(56)))
                .with(|p| (p.options, p.mf, p.df) = (vec![1; options], fragment, false))
                .bytes();
            let packet = to_v6(&error4(&quote), &defaults());
            assert_eq!(packet.len(), 48 + 40 + if fragment { 8 } else { 0 } + 64);
        }
    }
}

#[test]
fn a_quote_that_is_no_packet_is_dropped() {
    for first in [0x00, 0x44, 0x40, 0x65, 0xf5] {
        let mut quote = inner4(17, udp(&data(20))).bytes();
        quote[0] = first;
        assert_eq!(silent(run46(&error4(&quote).bytes(), &defaults())), Reason::BadQuote, "{first:02x}");
    }
    for first in [0x00, 0x45, 0x50, 0xf0] {
        let mut quote = inner6(17, udp(&data(20))).bytes();
        quote[0] = first;
        assert_eq!(silent(run64(&error6(&quote).bytes(), &defaults())), Reason::BadQuote, "{first:02x}");
    }
    // The header reaches past the quote.
    let quote = inner4(17, udp(b"")).with(|p| p.options = vec![1; 40]).bytes();
    for len in 20..60 {
        assert_eq!(silent(run46(&error4(&quote[..len]).bytes(), &defaults())), Reason::BadQuote);
    }
    to_v6(&error4(&quote[..60]), &defaults());
}
