//! ICMPv4 into ICMPv6: checklist D (RFC 7915 4.2).

use ipv4_xlat::Reason;

use crate::lab::*;

/// An error about a packet that came from IPv6: type, code, second word.
fn error(icmp_type: u8, code: u8, word: [u8; 4]) -> Vec<u8> {
    let quote = v4_between(B4, A4, 17, udp(&data(12))).bytes();
    v4(1, icmp(icmp_type, code, word, &quote)).bytes()
}

/// Type, code and second word of what it becomes.
fn becomes(icmp_type: u8, code: u8, word: [u8; 4]) -> Result<(u8, u8, u32), Reason> {
    match run46(&error(icmp_type, code, word), &defaults()) {
        Ok(sent) => {
            assert_sound(&sent[0]);
            let l4 = l4(&sent[0]);
            Ok((l4[0], l4[1], u32_at(l4, 4)))
        }
        dropped => Err(silent(dropped)),
    }
}

#[test]
fn echo_keeps_identifier_sequence_and_data() {
    for (from, to) in [(8, 128), (0, 129)] {
        for len in [0, 1, 56, 1000] {
            let packet = to_v6(&v4(1, echo(from, &data(len))), &defaults());
            assert_eq!((packet[6], packet[40], packet[41]), (58, to, 0));
            assert_eq!(packet[44..], echo(from, &data(len))[4..]);
        }
    }
}

#[test]
fn messages_without_counterpart_are_dropped() {
    for icmp_type in (0..=255).filter(|t| !matches!(t, 0 | 3 | 8 | 11 | 12)) {
        assert_eq!(becomes(icmp_type, 0, [0; 4]), Err(Reason::UntranslatableIcmp), "type {icmp_type}");
    }
}

#[test]
fn igmp_is_dropped() {
    assert_eq!(silent(run46(&v4(2, data(8)).bytes(), &defaults())), Reason::ForbiddenProtocol);
}

#[test]
fn every_unreachable_code_has_its_counterpart_or_none() {
    for code in 0..=255 {
        let expected = match code {
            0 | 1 | 5 | 6 | 7 | 8 | 11 | 12 => Ok((1, 0, 0)),
            2 => Ok((4, 1, 6)),
            3 => Ok((1, 4, 0)),
            4 => Ok((2, 0, 1280)),
            9 | 10 | 13 | 15 => Ok((1, 1, 0)),
            _ => Err(Reason::UntranslatableIcmp),
        };
        assert_eq!(becomes(3, code, [0; 4]), expected, "code {code}");
    }
}

#[test]
fn the_mtu_grows_by_20_within_the_next_hops_and_not_below_1280() {
    let told = |mtu: u16, mtu4, mtu6| {
        let config = config(|s| (s.mtu4, s.mtu6) = (mtu4, mtu6));
        let [high, low] = mtu.to_be_bytes();
        u32_at(l4(&to_v6_bytes(&error(3, 4, [0, 0, high, low]), &config)), 4)
    };
    assert_eq!(told(1261, 1500, 1500), 1281);
    assert_eq!(told(1260, 1500, 1500), 1280);
    assert_eq!(told(1259, 1500, 1500), 1280);
    assert_eq!(told(1, 1500, 1500), 1280);
    assert_eq!(told(9000, 9000, 1500), 1500);
    assert_eq!(told(9000, 1400, 9000), 1420);
    assert_eq!(told(65535, 100_000, 100_000), 65555);
}

#[test]
fn an_mtu_of_0_is_guessed_from_the_plateaus() {
    for (len, expected) in [(1500, 1500), (1493, 1500), (1492, 1280), (1000, 1280), (576, 1280)] {
        let quote = v4_between(B4, A4, 17, udp(&data(len - 28))).bytes();
        let packet = v4(1, icmp(3, 4, [0; 4], &quote[..60])).bytes();
        let config = config(|s| (s.mtu4, s.mtu6) = (9000, 1500));
        assert_eq!(u32_at(l4(&to_v6_bytes(&packet, &config)), 4), expected, "quoted length {len}");
    }
    use ipv4_xlat::mtu::packet_too_big_v6;
    for (len, expected) in
        [(65535, 32020), (32001, 32020), (32000, 17934), (8167, 8186), (2003, 2022), (2002, 1512)]
    {
        assert_eq!(packet_too_big_v6(0, len, 100_000, 100_000), expected);
    }
}

#[test]
fn time_exceeded_keeps_its_code() {
    for code in 0..=255 {
        let expected = if code < 2 { Ok((3, code, 0)) } else { Err(Reason::UntranslatableIcmp) };
        assert_eq!(becomes(11, code, [0; 4]), expected);
    }
}

#[test]
fn every_parameter_problem_pointer_finds_its_field_or_none() {
    for code in 0..4 {
        for pointer in 0..=255 {
            let field = match pointer {
                0 => Some(0),
                1 => Some(1),
                2 | 3 => Some(4),
                8 => Some(7),
                9 => Some(6),
                12..=15 => Some(8),
                16..=19 => Some(24),
                _ => None,
            };
            let expected = match (code, field) {
                (0 | 2, Some(field)) => Ok((4, 0, field)),
                _ => Err(Reason::UntranslatableIcmp),
            };
            assert_eq!(becomes(12, code, [pointer, 0, 0, 0]), expected, "code {code} pointer {pointer}");
        }
    }
}

#[test]
fn a_message_cut_anywhere_before_its_quotes_end_of_header_is_dropped() {
    let whole = icmp(11, 0, [0; 4], &v4_between(B4, A4, 17, udp(b"")).bytes());
    for len in 1..8 + 20 {
        let mut l4 = whole[..len].to_vec();
        if len >= 4 {
            l4 = seal4(A4, B4, 1, l4);
        }
        let packet = v4(255, l4).with(|p| p.protocol = 1);
        let reason = silent(run46(&packet.bytes(), &defaults()));
        assert_eq!(reason, if len < 8 { Reason::ShortTransport } else { Reason::BadQuote }, "{len}");
    }
    for len in 0..8 {
        let packet = v4(255, echo(8, b"")[..len].to_vec()).with(|p| p.protocol = 1);
        assert_eq!(silent(run46(&packet.bytes(), &defaults())), Reason::ShortTransport);
    }
}

#[test]
fn unused_words_are_written_as_0() {
    assert_eq!(becomes(3, 1, [0xff, 0, 0xff, 0xff]), Ok((1, 0, 0)));
    assert_eq!(becomes(3, 2, [0xff, 0, 0xff, 0xff]), Ok((4, 1, 6)));
    assert_eq!(becomes(3, 4, [0xff, 0, 5, 220]), Ok((2, 0, 1500)));
    assert_eq!(becomes(11, 0, [0xff, 0, 0xff, 0xff]), Ok((3, 0, 0)));
    assert_eq!(becomes(12, 0, [8, 0, 0xff, 0xff]), Ok((4, 0, 7)));
}
