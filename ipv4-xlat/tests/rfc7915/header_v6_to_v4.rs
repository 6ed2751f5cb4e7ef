//! IPv6 headers into IPv4 headers: checklist F (RFC 7915 5.1).

use ipv4_xlat::{HopChange, Reason, TrafficClass};

use crate::lab::*;

#[test]
fn the_header_has_no_options_and_a_right_checksum() {
    for (protocol, l4) in
        [(6, tcp(b"hello")), (17, udp(b"hello")), (58, echo(128, b"hello")), (132, data(20))]
    {
        let packet = to_v4(&v6(protocol, l4).with(|p| p.flow = 0xabcde), &defaults());
        assert_eq!(packet[0], 0x45);
        assert_eq!(ones_complement(&packet[..20]), 0xffff);
        assert_eq!((&packet[12..16], &packet[16..20]), (&A4.octets()[..], &B4.octets()[..]));
    }
}

#[test]
fn all_eight_bits_of_the_traffic_class_become_tos() {
    for tc in 0..=255 {
        assert_eq!(to_v4(&v6(17, udp(b"x")).with(|p| (p.tc, p.flow) = (tc, 0xfffff)), &defaults())[1], tc);
    }
}

#[test]
fn tos_can_be_set_to_a_fixed_value() {
    let config = config(|s| s.traffic_class = TrafficClass::Set(0x10));
    assert_eq!(to_v4(&v6(17, udp(b"x")).with(|p| p.tc = 0xa3), &config)[1], 0x10);
}

#[test]
fn total_length_is_payload_length_plus_20_and_never_wraps() {
    let config = config(|s| (s.mtu4, s.mtu6) = (100_000, 100_000));
    assert_eq!(to_v4(&v6(17, udp(&data(100))), &config).len(), 128);
    let packet = |payload_len: usize| v6(132, data(payload_len)).bytes();
    assert_eq!(u16_at(&to_v4_bytes(&packet(65515), &config), 2), 65535);
    for payload_len in [65516, 65520, 65535] {
        assert_eq!(silent(run64(&packet(payload_len), &config)), Reason::ResultTooLong);
    }
}

#[test]
fn df_is_set_above_1260_and_the_identification_comes_from_the_caller() {
    for (len, flags) in [(28, 0), (1260, 0), (1261, 0x4000), (1500, 0x4000)] {
        let packet = to_v4(&v6(17, udp(&data(len - 28))), &defaults());
        assert_eq!((u16_at(&packet, 4), u16_at(&packet, 6)), (ID, flags), "{len}");
    }
}

#[test]
fn hop_limit_is_spent_and_the_sender_told_when_none_is_left() {
    let packet = |hops| v6(17, udp(b"x")).with(|p| p.hops = hops);
    assert_eq!(to_v4(&packet(255), &defaults())[8], 254);
    assert_eq!(to_v4(&packet(2), &defaults())[8], 1);
    for hops in [0, 1] {
        assert_eq!(answered(run64(&packet(hops).bytes(), &defaults())), (3, 0, 0));
    }
}

#[test]
fn hop_limit_is_kept_where_the_translator_is_no_hop() {
    let config = config(|s| s.hop_change = HopChange::Keep);
    let packet = |hops| v6(17, udp(b"x")).with(|p| p.hops = hops);
    assert_eq!(to_v4(&packet(255), &config)[8], 255);
    assert_eq!(to_v4(&packet(1), &config)[8], 1);
    assert_eq!(answered(run64(&packet(0).bytes(), &config)), (3, 0, 0));
}

#[test]
fn the_next_header_is_copied_and_58_becomes_icmp() {
    for protocol in 0..=255 {
        let l4 = match protocol {
            6 => tcp(b""),
            17 => udp(b""),
            58 => echo(128, b""),
            0 | 43 | 60 => continue, // extension headers, elsewhere
            44 => continue,
            _ => data(24),
        };
        let outcome = run64(&v6(protocol, l4).bytes(), &defaults());
        match protocol {
            1 | 2 => assert_eq!(silent(outcome), Reason::ForbiddenProtocol),
            58 => assert_eq!(outcome.unwrap()[0][9], 1),
            other => assert_eq!(outcome.unwrap()[0][9], other),
        }
    }
}

#[test]
fn a_source_that_may_not_be_on_a_wire_is_dropped_silently() {
    for source in ["::", "::1", "ff02::1", "ff0e::1", "::ffff:192.0.2.1"] {
        let packet = v6_between(source.parse().unwrap(), b6(), 17, udp(b"x"));
        assert_eq!(silent(run64(&packet.bytes(), &defaults())), Reason::IllegalSource, "{source}");
    }
}

#[test]
fn a_source_without_counterpart_is_answered_as_prohibited() {
    let packet = v6_between(UNMAPPED6, b6(), 17, udp(b"x")).bytes();
    assert_eq!(answered(run64(&packet, &defaults())), (1, 1, 0));
    let packet = v4_between(UNMAPPED4, B4, 17, udp(b"x")).bytes();
    assert_eq!(answered(run46(&packet, &defaults())), (3, 13, 0));
    // An error without a source for it is dropped, not answered.
    let quote = v6_between(b6(), a6(), 17, udp(b"x")).bytes();
    let error = v6_between(UNMAPPED6, b6(), 58, icmp(3, 0, [0; 4], &quote)).bytes();
    assert_eq!(silent(run64(&error, &defaults())), Reason::UnmappedSource);
}
