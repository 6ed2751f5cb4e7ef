//! Transport checksums: checklist M (RFC 7915 4.5, 5.5; RFC 768, 1071, 1624, 6936, 8200).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipv4_xlat::checksum::{Delta, Sum};
use ipv4_xlat::{
    AddressMap, ChecksumState, Offload, Packet, Reason, Role, SCRATCH_LEN, ZeroUdpChecksum, v4_to_v6,
};

use crate::lab::*;

/// One's complement equality: 0x0000 and 0xffff are the same number.
fn same(a: u16, b: u16) -> bool {
    a % 0xffff == b % 0xffff
}

#[test]
fn a_changed_word_changes_the_checksum_as_summing_again_would() {
    // Every old word with every new one, sampled by a stride that is coprime to 2^16; every checksum of a message.
    let rest = 0x1234_u16;
    for m in 0..=u16::MAX {
        for n in (0..=u16::MAX).step_by(4099).chain([0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff, m, !m]) {
            let before = Sum::ZERO.word(rest).word(m).checksum();
            let after = Sum::ZERO.word(rest).word(n).checksum();
            let updated = Delta::between(Sum::ZERO.word(m), Sum::ZERO.word(n)).apply(before);
            assert!(updated == after, "{m:04x} -> {n:04x}: {updated:04x}, not {after:04x}");
        }
    }
}

#[test]
fn every_checksum_moves_by_every_kind_of_change() {
    // All 65536 field values, wrong ones included: the error stays what it was.
    for (old, new) in [(0, 0), (0, 1), (1, 0), (0xffff, 0), (0, 0xffff), (0x1234, 0xfedc), (0x8000, 0x7fff)] {
        let delta = Delta::between(Sum::ZERO.word(old), Sum::ZERO.word(new));
        for field in 0..=u16::MAX {
            let moved = delta.apply(field);
            let slow =
                !ones_complement(&[(!field).to_be_bytes(), (!old).to_be_bytes(), new.to_be_bytes()].concat());
            assert!(same(moved, slow), "{field:04x}");
            let seed = delta.apply_to_seed(field);
            assert!(same(
                seed,
                ones_complement(&[field.to_be_bytes(), (!old).to_be_bytes(), new.to_be_bytes()].concat())
            ));
        }
    }
}

#[test]
fn rfc_1624_gives_the_right_zero_where_rfc_1141_does_not() {
    // The example of RFC 1624 section 4.
    let delta = Delta::between(Sum::ZERO.word(0x5555), Sum::ZERO.word(0x3285));
    assert_eq!(delta.apply(0xdd2f), 0x0000);
}

#[test]
fn sums_are_those_of_the_slow_way() {
    let bytes = data(70_001);
    for len in (0..300).chain([65535, 70_000, 70_001]) {
        assert_eq!(Sum::ZERO.bytes(&bytes[..len]).fold(), ones_complement(&bytes[..len]), "{len}");
    }
    let mut sum = Sum::ZERO;
    for _ in 0..100_000 {
        sum = sum.dword(u32::MAX).word(u16::MAX);
    }
    assert_eq!(sum.fold(), 0xffff);
    assert_eq!(Sum::ZERO.fold(), 0);
    // A carry out of every half, wherever it comes from.
    for ones in 1..20 {
        for word in 0..=300 {
            let sum = (0..ones).fold(Sum::ZERO, |sum, _| sum.dword(u32::MAX)).word(word);
            let bytes = [vec![0xff; ones * 4], word.to_be_bytes().to_vec()].concat();
            assert_eq!(sum.fold(), ones_complement(&bytes), "{ones} times ffffffff and {word}");
        }
    }
}

#[test]
fn tcp_udp_and_icmp_are_updated_for_every_word_of_an_address() {
    for word in 0..=u16::MAX {
        let src = Ipv4Addr::from_bits(0x0a00_0000 | u32::from(word));
        let packet = v4_between(
            src,
            B4,
            if word % 2 == 0 { 6 } else { 17 },
            if word % 2 == 0 { tcp(b"abc") } else { udp(b"abc") },
        );
        let six = to_v6(&packet, &defaults());
        if word % 64 == 0 {
            assert_eq!(&to_v4_bytes(&six, &defaults())[20..], &packet.payload, "and back to the same bytes");
        }
    }
}

#[test]
fn a_wrong_checksum_stays_wrong_by_as_much() {
    for error in [1, 0x0100, 0x8000, 0xfffe] {
        for (protocol, l4, at) in
            [(6, tcp(&data(33)), 16), (17, udp(&data(33)), 6), (1, echo(8, &data(33)), 2)]
        {
            let mut packet = v4(protocol, l4.clone());
            let wrong = ones_complement(
                &[u16_at(&packet.payload, at).to_be_bytes(), u16::to_be_bytes(error)].concat(),
            );
            packet.payload[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
            let sum = transport_sum(&packet.bytes());
            let six = run46(&packet.bytes(), &defaults()).unwrap().remove(0);
            assert!(same(transport_sum(&six), sum) && !same(sum, 0xffff), "{protocol} {error:04x}");
            let four = run64(&six, &defaults()).unwrap().remove(0);
            assert!(same(transport_sum(&four), sum), "{protocol} {error:04x}");
        }
    }
}

/// A UDP or TCP packet whose IPv6 checksum comes out as `wanted`, by solving one payload word.
fn solved(protocol: u8, wanted: u16) -> V4 {
    for word in 0..=u16::MAX {
        let payload = word.to_be_bytes();
        let l4 = if protocol == 17 { udp(&payload) } else { tcp(&payload) };
        let at = if protocol == 17 { 6 } else { 16 };
        let six = seal6(a6(), b6(), 255, l4.clone());
        let mut covered = pseudo6(a6(), b6(), protocol, six.len());
        covered.extend(&six);
        if !ones_complement(&covered) == wanted {
            let packet = v4(protocol, l4);
            assert_ne!(u16_at(&packet.payload, at), 0);
            return packet;
        }
    }
    panic!("one word solves it");
}

#[test]
fn udp_that_comes_out_as_0_is_sent_as_ffff_and_tcp_as_0() {
    let six = to_v6(&solved(17, 0), &defaults());
    assert_eq!(u16_at(&six, 46), 0xffff);
    let six = to_v6(&solved(6, 0), &defaults());
    assert_eq!(u16_at(&six, 56), 0);
    // And towards IPv4.
    for word in 0..=u16::MAX {
        let l4 = udp(&word.to_be_bytes());
        if u16_at(&seal4(A4, B4, 17, l4.clone()), 6) == 0xffff {
            let four = to_v4(&v6(17, l4), &defaults());
            assert_eq!(u16_at(&four, 26), 0xffff);
            return;
        }
    }
    panic!("one word gives 0xffff");
}

/// IPv4 and IPv6 addresses of the same sum: the checksum does not change.
struct Neutral;

impl AddressMap for Neutral {
    fn v4_to_v6(&self, address: Ipv4Addr, _: Role) -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from_bits(0x0001_fffe << 96 | u128::from(address.to_bits())))
    }
    fn v6_to_v4(&self, address: Ipv6Addr, _: Role) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::from_bits(address.to_bits() as u32))
    }
}

#[test]
fn a_udp_checksum_of_ffff_is_real_and_never_becomes_none() {
    let mut packet = v4(17, udp(b"abcd"));
    packet.payload[6..8].fill(0xff);
    for (map_is_neutral, six) in [
        (false, run46(&packet.bytes(), &defaults()).unwrap().remove(0)),
        (true, {
            let (bytes, mut out) = (packet.bytes(), [0; SCRATCH_LEN]);
            let translated =
                v4_to_v6::translate(&Packet::whole(&bytes), &Neutral, &defaults(), &mut out).unwrap();
            send(&translated, &mut out, &bytes).remove(0)
        }),
    ] {
        let field = u16_at(&six, 46);
        assert_ne!(field, 0);
        assert!(!map_is_neutral || field == 0xffff);
    }
}

fn without_checksum4(len: usize) -> V4 {
    v4(17, udp(&data(len))).with(|p| p.payload[6..8].fill(0))
}

fn policy(policy: ZeroUdpChecksum) -> ipv4_xlat::Config {
    config(|s| s.zero_udp_checksum = policy)
}

#[test]
fn an_ipv4_datagram_without_checksum_is_dropped_computed_or_forwarded() {
    for len in [0, 1, 2, 100, 101, 1400] {
        let packet = without_checksum4(len).bytes();
        assert_eq!(silent(run46(&packet, &policy(ZeroUdpChecksum::Drop))), Reason::ZeroUdpChecksum);
        let six = to_v6_bytes(&packet, &policy(ZeroUdpChecksum::Compute));
        assert_eq!(six[40..], seal6(a6(), b6(), 17, udp(&data(len))));
        let six = to_v6_bytes(&packet, &policy(ZeroUdpChecksum::Forward));
        assert_eq!(six[40..], udp(&data(len)));
    }
    // Also where the packet leaves in pieces.
    let large = without_checksum4(3000).with(|p| p.df = false).bytes();
    let pieces = run46(&large, &policy(ZeroUdpChecksum::Compute)).unwrap();
    let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece[48..].to_vec()).collect();
    assert_eq!(whole, seal6(a6(), b6(), 17, udp(&data(3000))));
}

#[test]
fn a_computed_checksum_of_0_is_sent_as_ffff() {
    let packet = solved(17, 0).with(|p| p.payload[6..8].fill(0));
    let six = to_v6(&packet, &policy(ZeroUdpChecksum::Compute));
    assert_eq!(u16_at(&six, 46), 0xffff);
}

#[test]
fn a_first_fragment_without_checksum_passes_only_when_forwarded() {
    let first = without_checksum4(56).with(|p| (p.df, p.mf) = (false, true)).bytes();
    for refusing in [ZeroUdpChecksum::Drop, ZeroUdpChecksum::Compute] {
        assert_eq!(silent(run46(&first, &policy(refusing))), Reason::ZeroUdpChecksumFragment);
    }
    let six = run46(&first, &policy(ZeroUdpChecksum::Forward)).unwrap().remove(0);
    assert_eq!(u16_at(&six, 54), 0);
}

#[test]
fn an_ipv6_datagram_without_checksum_is_dropped_or_passes_as_it_is() {
    let packet = v6(17, udp(&data(10))).with(|p| p.payload[6..8].fill(0));
    for refusing in [ZeroUdpChecksum::Drop, ZeroUdpChecksum::Compute] {
        assert_eq!(silent(run64(&packet.bytes(), &policy(refusing))), Reason::ZeroUdpChecksum);
    }
    let four = to_v4(&packet, &policy(ZeroUdpChecksum::Forward));
    assert_eq!(four[20..], udp(&data(10)));
    let first = packet.with(|p| {
        p.extensions = vec![fragment_header(0, true, 1)];
        p.payload.truncate(16);
    });
    assert_eq!(silent(run64(&first.bytes(), &defaults())), Reason::ZeroUdpChecksumFragment);
}

#[test]
fn a_udp_length_that_disagrees_with_ip_is_not_indexed_with() {
    for stated in [0, 1, 7, 8, 9, 27, 28, 29, 1000, 65535_u16] {
        let mut l4 = udp(&data(20));
        l4[4..6].copy_from_slice(&stated.to_be_bytes());
        // The update does not need it.
        let packet = v4(17, l4.clone());
        assert_eq!(run46(&packet.bytes(), &defaults()).unwrap()[0].len(), 68, "{stated}");
        assert_eq!(run64(&v6(17, l4).bytes(), &defaults()).unwrap()[0].len(), 48, "{stated}");
        // Computing does: a length that is not there cannot be summed.
        let none = packet.with(|p| p.payload[6..8].fill(0)).bytes();
        let outcome = run46(&none, &policy(ZeroUdpChecksum::Compute));
        if (8..=28).contains(&stated) {
            assert!(outcome.is_ok(), "{stated}");
        } else {
            assert_eq!(silent(outcome), Reason::ZeroUdpChecksum, "{stated}");
        }
    }
}

#[test]
fn udp_lite_and_dccp_are_updated_and_sctp_is_left_alone() {
    for protocol in [136, 33] {
        let six = to_v6(&v4(protocol, udp(&data(20))), &defaults());
        assert_eq!(six[40..], seal6(a6(), b6(), protocol, udp(&data(20))));
        let four = to_v4(&v6(protocol, udp(&data(20))), &defaults());
        assert_eq!(four[20..], seal4(A4, B4, protocol, udp(&data(20))));
    }
    assert_eq!(to_v6(&v4(132, data(40)), &defaults())[40..], data(40));
    assert_eq!(to_v6(&v4(50, data(40)), &defaults())[40..], data(40));
}

#[test]
fn a_verified_checksum_stays_verified_only_where_it_was_carried_over() {
    let verified = Offload { checksum: ChecksumState::Verified, gso: None };
    for (protocol, l4) in [(6, tcp(b"x")), (17, udp(b"x")), (1, echo(8, b"x")), (132, data(20))] {
        let (_, moved) = run46_offload(&v4(protocol, l4).bytes(), &defaults(), verified);
        assert_eq!(moved, verified);
    }
    // Cut into pieces, or made anew: nobody has verified what leaves.
    let large = v4(17, udp(&data(3000))).with(|p| p.df = false).bytes();
    assert_eq!(run46_offload(&large, &defaults(), verified).1, Offload::NONE);
    // A fragment has no checksum of its own, whatever its payload happens to look like (found by fuzzing).
    let later = v4(17, data(24)).with(|p| (p.df, p.offset) = (false, 80)).bytes();
    assert_eq!(run46_offload(&later, &defaults(), verified).1, Offload::NONE);
    let quote = v4_between(B4, A4, 17, udp(b"x")).bytes();
    let error = v4(1, icmp(11, 0, [0; 4], &quote)).bytes();
    assert_eq!(run46_offload(&error, &defaults(), verified).1, Offload::NONE);
    let none = without_checksum4(20).bytes();
    assert_eq!(run46_offload(&none, &policy(ZeroUdpChecksum::Compute), verified).1, Offload::NONE);
}
