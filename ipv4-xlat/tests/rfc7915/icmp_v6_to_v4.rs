//! ICMPv6 into ICMPv4: checklist H (RFC 7915 5.2).

use ipv4_xlat::Reason;
use ipv4_xlat::mtu::fragmentation_needed_v4;

use crate::lab::*;

/// An error about a packet that came from IPv4: type, code, second word.
fn error(icmp_type: u8, code: u8, word: u32) -> V6 {
    let quote = v6_between(b6(), a6(), 17, udp(&data(12))).bytes();
    v6(58, icmp(icmp_type, code, word.to_be_bytes(), &quote))
}

/// Type, code and second word of what it becomes.
fn becomes(icmp_type: u8, code: u8, word: u32) -> Result<(u8, u8, u32), Reason> {
    match run64(&error(icmp_type, code, word).bytes(), &defaults()) {
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
    for (from, to) in [(128, 8), (129, 0)] {
        for len in [0, 1, 56, 1000] {
            let packet = to_v4(&v6(58, echo(from, &data(len))), &defaults());
            assert_eq!((packet[9], packet[20], packet[21]), (1, to, 0));
            assert_eq!(packet[24..], echo(from, &data(len))[4..]);
        }
    }
}

#[test]
fn an_echo_reply_of_nothing_but_zeros_has_checksum_ffff() {
    // Found by fuzzing: ICMPv4 sums no pseudo-header, so an update cannot tell which zero is right.
    for len in [0, 2, 8, 500] {
        let packet = to_v4(&v6(58, icmp(129, 0, [0; 4], &vec![0; len])), &defaults());
        assert_eq!(u16_at(l4(&packet), 2), 0xffff);
        let quote = v6_between(b6(), a6(), 58, icmp(129, 0, [0; 4], &vec![0; len])).bytes();
        let packet = to_v4(&v6(58, icmp(3, 0, [0; 4], &quote)), &defaults());
        assert_eq!(u16_at(l4(quoted(&packet)), 2), 0xffff);
    }
    // And 0 where something is summed.
    let packet = to_v4(&v6(58, icmp(129, 0, [0; 4], &[0xff; 2])), &defaults());
    assert_eq!(u16_at(l4(&packet), 2), 0);
}

#[test]
fn messages_without_counterpart_are_dropped() {
    for icmp_type in (0..=255).filter(|t| !matches!(t, 1..=4 | 128 | 129)) {
        assert_eq!(becomes(icmp_type, 0, 0), Err(Reason::UntranslatableIcmp), "type {icmp_type}");
    }
}

#[test]
fn every_unreachable_code_has_its_counterpart_or_none() {
    for code in 0..=255 {
        let expected = match code {
            0 | 2 | 3 => Ok((3, 1, 0)),
            1 => Ok((3, 10, 0)),
            4 => Ok((3, 3, 0)),
            _ => Err(Reason::UntranslatableIcmp),
        };
        assert_eq!(becomes(1, code, 0), expected, "code {code}");
    }
}

#[test]
fn the_mtu_shrinks_by_20_or_by_28_behind_a_fragment_header() {
    assert_eq!(becomes(2, 0, 1500), Ok((3, 4, 1480)));
    assert_eq!(becomes(2, 0, 1280), Ok((3, 4, 1260)));
    let quote = v6_between(b6(), a6(), 17, udp(&data(24)))
        .with(|p| p.extensions = vec![fragment_header(0, true, 5)])
        .bytes();
    let packet = to_v4(&v6(58, icmp(2, 0, 1500_u32.to_be_bytes(), &quote)), &defaults());
    assert_eq!(u32_at(l4(&packet), 4), 1472);
    // Within the next hops' MTUs.
    assert_eq!(fragmentation_needed_v4(9000, false, 1400, 9000), 1400);
    assert_eq!(fragmentation_needed_v4(9000, false, 9000, 1400), 1380);
    assert_eq!(fragmentation_needed_v4(9000, true, 9000, 1400), 1372);
}

#[test]
fn the_mtu_field_saturates_at_both_ends() {
    assert_eq!(fragmentation_needed_v4(78_000, false, u32::MAX, u32::MAX), 65535);
    assert_eq!(fragmentation_needed_v4(u32::MAX, true, u32::MAX, u32::MAX), 65535);
    for mtu in 0..=87 {
        assert_eq!(becomes(2, 0, mtu), Ok((3, 4, 68)), "{mtu}");
    }
    assert_eq!(becomes(2, 0, 89), Ok((3, 4, 69)));
}

#[test]
fn time_exceeded_keeps_its_code() {
    for code in 0..=255 {
        let expected = if code < 2 { Ok((11, code, 0)) } else { Err(Reason::UntranslatableIcmp) };
        assert_eq!(becomes(3, code, 0), expected);
    }
}

#[test]
fn every_parameter_problem_pointer_finds_its_field_or_none() {
    for pointer in (0..=64).chain([255, 256, 0x0600_0000, u32::MAX]) {
        let expected = match pointer {
            0 => Ok(0),
            1 => Ok(1),
            4 | 5 => Ok(2),
            6 => Ok(9),
            7 => Ok(8),
            8..=23 => Ok(12),
            24..=39 => Ok(16),
            _ => Err(Reason::UntranslatableIcmp),
        };
        assert_eq!(becomes(4, 0, pointer), expected.map(|field| (12, 0, field << 24)), "pointer {pointer}");
    }
    assert_eq!(becomes(4, 1, 6), Ok((3, 2, 0)));
    for code in 2..=255 {
        assert_eq!(becomes(4, code, 6), Err(Reason::UntranslatableIcmp));
    }
}

#[test]
fn unused_words_are_written_as_0() {
    assert_eq!(becomes(1, 0, 0x00ff_ffff), Ok((3, 1, 0)));
    assert_eq!(becomes(3, 0, 0x00ff_ffff), Ok((11, 0, 0)));
    assert_eq!(becomes(4, 1, 0xffff_ffff), Ok((3, 2, 0)));
}

#[test]
fn the_checksum_is_for_next_header_58_behind_any_extension_header() {
    for extension in
        [options_header(0, 8), options_header(60, 16), routing_header(0), fragment_header(0, false, 3)]
    {
        for message in [error(1, 0, 0), v6(58, echo(128, &data(10)))] {
            let packet = message.with(|p| p.extensions = vec![extension.clone()]);
            to_v4(&packet, &defaults());
        }
    }
}

#[test]
fn a_message_cut_anywhere_before_its_quotes_end_of_header_is_dropped() {
    let whole = icmp(3, 0, [0; 4], &v6_between(b6(), a6(), 17, udp(b"")).bytes());
    for len in 1..8 + 40 {
        let l4 = if len >= 4 { seal6(a6(), b6(), 58, whole[..len].to_vec()) } else { whole[..len].to_vec() };
        let packet = v6(255, l4).with(|p| p.protocol = 58);
        let reason = silent(run64(&packet.bytes(), &defaults()));
        assert_eq!(reason, if len < 8 { Reason::ShortTransport } else { Reason::BadQuote }, "{len}");
    }
    for len in 0..8 {
        let packet = v6(255, echo(128, b"")[..len].to_vec()).with(|p| p.protocol = 58);
        assert_eq!(silent(run64(&packet.bytes(), &defaults())), Reason::ShortTransport);
    }
}
