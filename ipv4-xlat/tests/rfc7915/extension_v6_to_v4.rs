//! IPv6 extension headers, fragments and packets too big for IPv4: checklist G (RFC 7915 5.1, 5.1.1; RFC 8200).

use ipv4_xlat::Reason;

use crate::lab::*;

fn with(extensions: Vec<(u8, Vec<u8>)>) -> V6 {
    v6(17, udp(&data(40))).with(|p| p.extensions = extensions)
}

fn fragment(offset: usize, more: bool, protocol: u8, payload: Vec<u8>) -> V6 {
    let l4 = if offset == 0 && payload.len() >= 8 { seal6(a6(), b6(), protocol, payload) } else { payload };
    v6(255, l4)
        .with(|p| (p.protocol, p.extensions) = (protocol, vec![fragment_header(offset, more, 0xdead_1234)]))
}

#[test]
fn extension_headers_are_skipped() {
    let (hop, dest, route) = (options_header(0, 8), options_header(60, 24), routing_header(0));
    for extensions in [
        vec![hop.clone()],
        vec![dest.clone()],
        vec![route.clone()],
        vec![hop.clone(), dest.clone()],
        vec![hop.clone(), route.clone(), dest.clone()],
        vec![hop, dest.clone(), route, dest],
        vec![options_header(60, 2048)],
    ] {
        let packet = to_v4(&with(extensions), &config(|s| (s.mtu4, s.mtu6) = (9000, 9000)));
        assert_eq!((packet.len(), packet[9], u16_at(&packet, 4)), (20 + 48, 17, ID));
    }
}

#[test]
fn segments_left_are_answered_with_a_pointer_to_the_field() {
    assert_eq!(answered(run64(&with(vec![routing_header(1)]).bytes(), &defaults())), (4, 0, 43));
    let behind = with(vec![options_header(0, 8), routing_header(255)]);
    assert_eq!(answered(run64(&behind.bytes(), &defaults())), (4, 0, 51));
    let behind_fragment = with(vec![routing_header(2), fragment_header(0, false, 1)]);
    assert_eq!(answered(run64(&behind_fragment.bytes(), &defaults())), (4, 0, 43));
}

#[test]
fn a_fragment_keeps_offset_flag_and_the_low_half_of_its_identification() {
    for (offset, more, len) in [(0, true, 1400), (0, true, 64), (1400, true, 1400), (2800, false, 13)] {
        let sent = run64(&fragment(offset, more, 17, udp(&data(len - 8))).bytes(), &defaults()).unwrap();
        let packet = &sent[0];
        assert_sound(packet);
        assert_eq!(packet.len(), 20 + len);
        assert_eq!(u16_at(packet, 4), 0x1234);
        assert_eq!(
            u16_at(packet, 6),
            u16::from(more) << 13 | (offset / 8) as u16,
            "DF is 0 whatever the size"
        );
    }
    // Behind another header, which does not count.
    let packet =
        v6(132, data(64)).with(|p| p.extensions = vec![options_header(60, 16), fragment_header(64, true, 7)]);
    assert_eq!(to_v4(&packet, &defaults()).len(), 20 + 64);
}

#[test]
fn extension_headers_behind_a_fragment_header_are_dropped() {
    for next in [0, 43, 51, 60, 135, 139, 140] {
        for offset in [0, 80] {
            let outcome = run64(&fragment(offset, true, next, data(64)).bytes(), &defaults());
            assert_eq!(silent(outcome), Reason::ExtensionBehindFragment, "{next} at {offset}");
        }
    }
    assert!(run64(&fragment(0, true, 50, data(64)).bytes(), &defaults()).is_ok(), "ESP passes");
}

#[test]
fn an_atomic_fragment_keeps_its_identification_and_may_be_fragmented() {
    for len in [100, 1400] {
        let sent = run64(&fragment(0, false, 17, udp(&data(len))).bytes(), &defaults()).unwrap();
        assert_sound(&sent[0]);
        assert_eq!((u16_at(&sent[0], 4), u16_at(&sent[0], 6)), (0x1234, 0));
    }
    // Echo in one, too: it is whole.
    let echo = fragment(0, false, 58, echo(128, &data(30)));
    assert_eq!(transport_sum(&run64(&echo.bytes(), &defaults()).unwrap()[0]), 0xffff);
}

#[test]
fn chains_that_lie_are_dropped() {
    // 31 * 8 + 8 = 256 does not fit an octet.
    let long = with(vec![options_header(60, 256)]);
    assert_eq!(to_v4(&long, &defaults()).len(), 20 + 48);
    // A header that reaches past the packet, by its last byte or by far.
    for len in [7, 8, 255] {
        let mut packet = with(vec![options_header(60, 8)]).bytes();
        packet[41] = len;
        assert_eq!(silent(run64(&packet, &defaults())), Reason::Truncated, "{len}");
    }
    // Too many.
    let many = |n| with(vec![options_header(60, 8); n]).bytes();
    assert!(run64(&many(8), &defaults()).is_ok());
    assert_eq!(silent(run64(&many(9), &defaults())), Reason::ExtensionChain);
    // Two Fragment Headers.
    let two = with(vec![fragment_header(0, false, 1), fragment_header(0, false, 2)]);
    assert_eq!(silent(run64(&two.bytes(), &defaults())), Reason::ExtensionChain);
    // Cut within a header.
    for len in 0..8 {
        let mut packet = v6(60, vec![17; len]).bytes();
        packet[6] = 60;
        assert_eq!(silent(run64(&packet, &defaults())), Reason::Truncated);
    }
}

#[test]
fn a_packet_too_big_for_ipv4_is_answered_with_the_mtu_plus_20_or_28() {
    let config = config(|s| s.mtu4 = 1400);
    to_v4(&v6(17, udp(&data(1372))), &config);
    assert_eq!(answered(run64(&v6(17, udp(&data(1373))).bytes(), &config)), (2, 0, 1420));
    let first = fragment(0, true, 17, udp(&data(1400 - 8)));
    assert_eq!(answered(run64(&first.bytes(), &config)), (2, 0, 1428));
    // Nobody would know what a later fragment belonged to.
    let later = fragment(1400, false, 17, data(1400));
    assert_eq!(silent(run64(&later.bytes(), &config)), Reason::PacketTooBig);
}

#[test]
fn a_packet_that_cannot_be_smaller_is_not_answered_but_left_to_be_fragmented() {
    // The sender will not go below 1280 and has not; the IPv4 side may fragment it.
    let config = config(|s| s.mtu4 = 1000);
    let packet = to_v4(&v6(17, udp(&data(1200))), &config);
    assert_eq!((packet.len(), u16_at(&packet, 6)), (1228, 0));
    let largest = to_v4(&v6(17, udp(&data(1232))), &config);
    assert_eq!((largest.len(), u16_at(&largest, 6)), (1260, 0));
    assert_eq!(answered(run64(&v6(17, udp(&data(1233))).bytes(), &config)), (2, 0, 1280));
}

#[test]
fn a_jumbogram_is_dropped() {
    let mut packet = with(vec![options_header(0, 8)]).bytes();
    packet[4..6].fill(0);
    assert_eq!(silent(run64(&packet, &defaults())), Reason::Jumbogram);
}

#[test]
fn impossible_fragments_are_dropped() {
    for len in 1..8 {
        let odd = fragment(8, true, 17, data(16 + len));
        assert_eq!(silent(run64(&odd.bytes(), &defaults())), Reason::FragmentAlignment);
    }
    assert_eq!(
        silent(run64(&fragment(65528, false, 17, data(8)).bytes(), &defaults())),
        Reason::FragmentBeyondEnd
    );
    // IPv4 counts its header too.
    assert_eq!(
        silent(run64(&fragment(65512, false, 17, data(4)).bytes(), &defaults())),
        Reason::ResultTooLong
    );
    assert!(run64(&fragment(65512, false, 17, data(3)).bytes(), &defaults()).is_ok());
}

#[test]
fn a_first_fragment_must_hold_the_whole_transport_header() {
    for (protocol, l4, header) in [(17, udp(&data(64)), 8), (6, tcp(&data(64)), 24), (136, udp(&data(64)), 8)]
    {
        for len in (0..=64).step_by(8) {
            let mut packet = fragment(0, true, protocol, l4.clone());
            packet.payload.truncate(len);
            let outcome = run64(&packet.bytes(), &defaults());
            if len < header {
                assert_eq!(silent(outcome), Reason::ShortTransport, "{protocol} {len}");
            } else {
                assert!(outcome.is_ok(), "{protocol} {len}");
            }
        }
    }
}
