//! IPv4 headers into IPv6 headers: checklist B (RFC 7915 4.1).

use ipv4_xlat::{HopChange, Reason, TrafficClass};

use crate::lab::*;

#[test]
fn version_is_6_and_flow_label_0() {
    for (protocol, l4) in [(6, tcp(b"hello")), (17, udp(b"hello")), (1, echo(8, b"hello")), (132, data(20))] {
        let packet = to_v6(&v4(protocol, l4), &defaults());
        assert_eq!(u32_at(&packet, 0), 6 << 28);
        assert_eq!((&packet[8..24], &packet[24..40]), (&a6().octets()[..], &b6().octets()[..]));
    }
}

#[test]
fn all_eight_bits_of_tos_become_the_traffic_class() {
    for tos in 0..=255 {
        let packet = to_v6(&v4(17, udp(b"x")).with(|p| p.tos = tos), &defaults());
        assert_eq!(u32_at(&packet, 0), 6 << 28 | u32::from(tos) << 20);
    }
}

#[test]
fn the_traffic_class_can_be_forced_to_0() {
    let config = config(|s| s.traffic_class = TrafficClass::Set(0));
    let packet = to_v6(&v4(17, udp(b"x")).with(|p| p.tos = 0xa3), &config);
    assert_eq!(u32_at(&packet, 0), 6 << 28);
}

#[test]
fn payload_length_leaves_out_the_ipv4_header_with_its_options() {
    for words in 0..=10 {
        let packet = v4(17, udp(&data(33))).with(|p| p.options = vec![1; words * 4]);
        assert_eq!(u16_at(&to_v6(&packet, &defaults()), 4), 8 + 33);
    }
}

#[test]
fn the_protocol_is_copied_and_icmp_becomes_58() {
    for protocol in 0..=255 {
        let l4 = match protocol {
            1 => echo(8, b""),
            6 => tcp(b""),
            17 => udp(b""),
            _ => data(24),
        };
        let outcome = run46(&v4(protocol, l4).bytes(), &defaults());
        match protocol {
            0 | 2 | 43 | 44 | 58 | 60 | 135 | 140 => {
                assert_eq!(silent(outcome), Reason::ForbiddenProtocol, "{protocol}")
            }
            1 => assert_eq!(outcome.unwrap()[0][6], 58),
            other => assert_eq!(outcome.unwrap()[0][6], other),
        }
    }
}

#[test]
fn a_sender_cannot_smuggle_an_ipv6_extension_header() {
    // A Fragment Header of the sender's making, with TCP behind it.
    let smuggled = [&[6, 0, 0, 0, 0, 0, 0, 1][..], &tcp(b"")].concat();
    assert_eq!(silent(run46(&v4(44, smuggled).bytes(), &defaults())), Reason::ForbiddenProtocol);
}

#[test]
fn ttl_is_spent_and_the_sender_told_when_none_is_left() {
    let packet = |ttl| v4(17, udp(b"x")).with(|p| p.ttl = ttl);
    assert_eq!(to_v6(&packet(255), &defaults())[7], 254);
    assert_eq!(to_v6(&packet(2), &defaults())[7], 1);
    for ttl in [0, 1] {
        assert_eq!(answered(run46(&packet(ttl).bytes(), &defaults())), (11, 0, 0));
    }
}

#[test]
fn ttl_is_kept_where_the_translator_is_no_hop() {
    let config = config(|s| s.hop_change = HopChange::Keep);
    let packet = |ttl| v4(17, udp(b"x")).with(|p| p.ttl = ttl);
    assert_eq!(to_v6(&packet(255), &config)[7], 255);
    assert_eq!(to_v6(&packet(1), &config)[7], 1);
    assert_eq!(answered(run46(&packet(0).bytes(), &config)), (11, 0, 0));
}

#[test]
fn options_are_ignored() {
    // Record route, timestamp, router alert, and an unknown one.
    for options in [
        vec![7, 7, 4, 0, 0, 0, 0, 0],
        vec![68, 8, 5, 0, 0, 0, 0, 0],
        vec![148, 4, 0, 0],
        vec![0xde, 4, 1, 2],
        vec![1; 40],
    ] {
        let packet = to_v6(&v4(6, tcp(&data(9))).with(|p| p.options = options), &defaults());
        assert_eq!(packet.len(), 40 + 20 + 9);
    }
}

#[test]
fn an_unexpired_source_route_is_refused_and_the_sender_told() {
    for kind in [131, 137] {
        let route = |pointer| {
            let mut options = vec![kind, 15, pointer];
            options.resize(16, 0);
            v4(17, udp(b"x")).with(|p| p.options = options).bytes()
        };
        // 15 is odd, and yet not beyond the end.
        for pointer in [4, 8, 12, 15] {
            assert_eq!(answered(run46(&route(pointer), &defaults())), (3, 5, 0));
        }
        assert_eq!(to_v6_bytes(&route(16), &defaults()).len(), 40 + 9);
        // Behind other options too.
        let hidden = v4(17, udp(b"x")).with(|p| p.options = vec![1, 7, 3, 4, 1, kind, 7, 4, 1, 2, 3, 4]);
        assert_eq!(answered(run46(&hidden.bytes(), &defaults())), (3, 5, 0));
    }
}

#[test]
fn malformed_options_end_the_scan() {
    for options in [
        vec![0x83, 0, 0, 0],
        vec![0x83, 1, 0, 0],
        vec![0x83, 2, 4, 0],
        vec![1, 1, 1, 0x83],
        vec![1, 1, 0x83, 7],
        vec![7, 0, 7, 0],
        vec![7, 1, 0x83, 7],
        vec![7, 41, 4, 0],
        vec![0, 0x83, 7, 4],
    ] {
        let packet = v4(17, udp(b"x")).with(|p| p.options = options.clone());
        assert_eq!(run46(&packet.bytes(), &defaults()).map(|sent| sent.len()), Ok(1), "{options:02x?}");
    }
}

#[test]
fn no_four_option_bytes_loop_or_overread() {
    // The first two in full, the others at their edges.
    let mut packet = v4(17, udp(b"x")).with(|p| p.options = vec![0; 4]).bytes();
    for first in 0..=255 {
        for second in 0..=255 {
            for (third, fourth) in [(0, 0), (4, 0), (255, 255), (0x83, 3)] {
                packet[20..24].copy_from_slice(&[first, second, third, fourth]);
                fix_header(&mut packet);
                let _ = run46(&packet, &defaults());
            }
        }
    }
}

#[test]
fn a_source_that_may_not_be_on_a_wire_is_dropped_silently() {
    for source in
        ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"]
    {
        let packet = v4_between(source.parse().unwrap(), B4, 17, udp(b"x"));
        assert_eq!(silent(run46(&packet.bytes(), &defaults())), Reason::IllegalSource, "{source}");
    }
    for source in ["1.0.0.1", "126.255.255.255", "128.0.0.1", "223.255.255.255", "10.0.0.1"] {
        to_v6(&v4_between(source.parse().unwrap(), B4, 17, udp(b"x")), &defaults());
    }
}

#[test]
fn the_source_of_an_icmp_error_is_translated_however_odd() {
    let quote = v4_between(B4, A4, 17, udp(b"x")).bytes();
    for source in ["0.0.0.0", "127.0.0.1", "240.0.0.1"] {
        let source = source.parse().unwrap();
        let packet = to_v6(&v4_between(source, B4, 1, icmp(3, 1, [0; 4], &quote)), &defaults());
        assert_eq!(packet[8..24], six(source).octets());
    }
}

#[test]
fn an_unfragmented_packet_gets_no_fragment_header_whatever_df() {
    for df in [false, true] {
        let packet = to_v6(&v4(17, udp(&data(1000))).with(|p| p.df = df), &defaults());
        assert_eq!((packet[6], packet.len()), (17, 40 + 8 + 1000));
    }
}
