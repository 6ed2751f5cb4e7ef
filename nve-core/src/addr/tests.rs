//! The arithmetic is proved against an independent sum over whole addresses and against Linux's, word by word.

use core::net::{IpAddr, Ipv6Addr};

use super::*;

fn locator(text: &str) -> Locator {
    text.parse().unwrap()
}

fn sir() -> SirPrefix {
    "2001:db8:51::/64".parse().unwrap()
}

fn vnet() -> Vnet {
    "2001:db8:b1:e::/96".parse().unwrap()
}

fn vnid(n: u32) -> Vnid {
    Vnid::new(n).unwrap()
}

/// The sum of an address's words modulo 0xffff, which is all that a checksum sees of it.
fn residue(address: Ipv6Addr) -> u32 {
    address.segments().iter().map(|word| u32::from(*word)).sum::<u32>() % 0xffff
}

/// Locators whose adjustment is ordinary, and at the edges: zero, all ones, one and 0xfffe.
fn edge_locators(wire: impl Fn(Locator) -> Neutral) -> Vec<Locator> {
    let ordinary =
        [locator("2001:db8:0:2::/64"), locator("fd00:1:2:3::/64"), locator("2001:ffff:ffff:ffff::/64")];
    let of = |word: u16| {
        let upper = 0x2001_0db8_0000_0000 | u64::from(word);
        Locator::new(Ipv6Addr::from_bits(u128::from(upper) << 64)).unwrap()
    };
    let edges = [0u16, 1, 0x7fff, 0x8000, 0xfffe, 0xffff];
    let found = edges.iter().filter_map(|edge| (0..=0xffff).map(of).find(|l| wire(*l).get() == *edge));
    let found: Vec<_> = found.collect();
    assert!(found.len() >= 5, "all but one of the two zeros can be had");
    ordinary.into_iter().chain(found).collect()
}

#[test]
fn a_neutral_ipv4_address_has_the_sum_of_its_sir_address_for_every_low_word() {
    for locator in edge_locators(|l| Neutral::sir(l, sir())) {
        let neutral = Neutral::sir(locator, sir());
        for low in 0..=0xffff_u32 {
            let identifier = Identifier::ipv4(vnid(1001), (0x0a01_0000 | low).into());
            let wire = locator.neutral(identifier, neutral);
            if low == 0xffff {
                assert!(!wire.is_neutral(), "0xffff has no neutral form");
                assert_eq!(wire, locator.unmodified(identifier));
                continue;
            }
            assert!(wire.is_neutral());
            let endpoint = sir().address(identifier).ipv6();
            assert_eq!(residue(wire.ipv6()), residue(endpoint), "{} for {endpoint}", wire.ipv6());
            assert_eq!(neutral.reverse(wire.ipv6().to_bits() as u16), low as u16);
        }
    }
}

#[test]
fn a_neutral_ipv6_address_has_the_sum_of_the_tenants_for_every_low_word() {
    for vni in [1, 1001, 0x0fff_ffff] {
        let neutral_for = |l| Neutral::vnet(l, vnid(vni), vnet());
        for locator in edge_locators(neutral_for) {
            let neutral = neutral_for(locator);
            for low in 0..0xffff_u32 {
                let tenant = vnet().address(0xabcd_0000 | low);
                let identifier = Identifier::ipv6_address(vnid(vni), vnet(), tenant).unwrap();
                let wire = locator.neutral(identifier, neutral);
                assert_eq!(residue(wire.ipv6()), residue(tenant));
                assert_eq!(neutral.reverse(wire.ipv6().to_bits() as u16), low as u16);
            }
        }
    }
}

#[test]
fn a_neutral_group_has_the_sum_of_the_tenants_group() {
    for scope in 1..=0xe_u8 {
        let neutral = Neutral::multicast(locator("2001:db8:0:2::/64"), vnid(1001), scope);
        for low in [0_u32, 1, 0xfb, 0xfffe, 0x0fff_1234] {
            let group = Ipv6Addr::from_bits((0xff00 | u128::from(scope)) << 112 | u128::from(low));
            let identifier = Identifier::multicast(vnid(1001), group).unwrap();
            let wire = locator("2001:db8:0:2::/64").neutral(identifier, neutral);
            assert_eq!(residue(wire.ipv6()), residue(group), "{group}");
        }
    }
}

/// The two zeros of one's complement: what reverses to 0xffff is 0x0000, because 0xffff is never sent.
#[test]
fn no_two_low_words_share_a_neutral_form() {
    for adjustment in [0, 1, 0x1234, 0x8000, 0xfffe, 0xffff] {
        let neutral = Neutral::from_saved(adjustment);
        let mut seen = vec![false; 0x10000];
        for low in 0..0xffff_u16 {
            let wire = neutral.apply(low).unwrap();
            assert!(!core::mem::replace(&mut seen[usize::from(wire)], true), "{low:#x} collides");
            assert_eq!(neutral.reverse(wire), low);
        }
        assert_eq!(neutral.apply(0xffff), None);
        for wire in 0..=0xffff {
            assert_ne!(neutral.reverse(wire), 0xffff);
        }
    }
}

/// `ila_csum_do_neutral_fmt` of Linux 6.1, net/ipv6/ila/ila_common.c, in its 32-bit arithmetic.
fn linux_neutral(old_upper: u64, new_upper: u64, low: u16) -> u16 {
    let csum_add = |a: u32, b: u32| {
        let (sum, carry) = a.overflowing_add(b);
        sum + u32::from(carry)
    };
    let halves = |upper: u64| [(upper >> 32) as u32, upper as u32];
    let old = halves(old_upper).into_iter().fold(0, csum_add);
    let diff = halves(new_upper).map(|word| !word).into_iter().fold(old, csum_add);
    let diff = csum_add(diff, !0x1000_0000);
    let value = csum_add(diff, u32::from(low));
    let folded = (value & 0xffff) + (value >> 16);
    (folded + (folded >> 16)) as u16
}

#[test]
fn type_1_agrees_with_linux() {
    for text in ["2001:db8:0:2::/64", "fd00:1:2:3::/64", "2001:ffff:ffff:fffe::/64", "3ffe::/64"] {
        let locator = locator(text);
        let neutral = Neutral::sir(locator, sir());
        for low in 1..0xffff {
            let identifier = Identifier::local(0x0123_4567_89ab_0000 | u64::from(low)).unwrap();
            let ours = locator.neutral(identifier, neutral).ipv6().to_bits() as u16;
            let linux = linux_neutral(sir().upper(), locator.upper(), low);
            assert_eq!(u32::from(ours) % 0xffff, u32::from(linux) % 0xffff, "{text} {low:#x}");
            if linux != 0 && linux != 0xffff {
                assert_eq!(ours, linux);
            }
        }
    }
}

/// The draft's steps as they are written (section 4.4.1) round-trip and are not neutral: the erratum.
#[test]
fn the_drafts_own_steps_are_off_by_0x2000() {
    let (locator, identifier) = (locator("2001:db8:0:2::/64"), Identifier::local(0x42).unwrap());
    let sum = |upper: u64| (0..4).map(|i| (upper >> (16 * i)) as u16 as u32).sum::<u32>() % 0xffff;
    let difference = (sum(locator.upper()) + 0xffff - sum(sir().upper())) % 0xffff;
    let word = (0x42 + 0xffff - (difference + 0xefff) % 0xffff) % 0xffff;
    let ours = locator.neutral(identifier, Neutral::sir(locator, sir())).ipv6().to_bits() as u16;
    assert_eq!((word + 0xffff - u32::from(ours)) % 0xffff, 0x2000);
}

#[test]
fn reserved_types_are_refused_and_never_guessed() {
    for type_number in 5..=7_u64 {
        let bits = type_number << 61 | 0x0000_03e9_0a01_0002;
        assert_eq!(Identifier::from_bits(bits), Err(IdentifierError::Reserved(type_number as u8)));
    }
    assert_eq!(Identifier::from_bits(2 << 61 | 5), Err(IdentifierError::NoNetwork));
    assert_eq!(Identifier::from_bits(Identifier::C_BIT), Err(IdentifierError::Adjusted));
    assert_eq!(Identifier::local(1 << 60), Err(IdentifierError::TooWide));
}

#[test]
fn only_the_groups_that_have_a_form_are_encoded() {
    let form = |group: &str| Identifier::multicast(vnid(1), group.parse().unwrap()).map(Identifier::kind);
    assert_eq!(form("ff02::fb"), Ok(Kind::Multicast(vnid(1), 2, 0xfb)));
    assert_eq!(form("ff05::fff:ffff"), Ok(Kind::Multicast(vnid(1), 5, 0x0fff_ffff)));
    for group in ["ff02::1:ff00:1", "ff12::1", "ff32::1", "ff02::1000:0", "ff02:1::1", "fe02::1"] {
        assert_eq!(form(group), Err(IdentifierError::GroupForm), "{group}");
    }
}

#[test]
fn prefixes_say_what_is_wrong_with_them() {
    assert_eq!("2001:db8::/48".parse::<Locator>(), Err(PrefixError::Length(64)));
    assert_eq!("2001:db8::1/64".parse::<Locator>(), Err(PrefixError::HostBits(64)));
    assert_eq!("fe80::/64".parse::<SirPrefix>(), Err(PrefixError::NotUnicast));
    assert_eq!("ff02::/96".parse::<Vnet>(), Err(PrefixError::NotUnicast));
    assert_eq!("::/96".parse::<Vnet>(), Err(PrefixError::NotUnicast));
    assert_eq!("nonsense".parse::<Vnet>(), Err(PrefixError::Syntax));
    assert_eq!("2001:db8:b1:e::/96".parse::<Vnet>().unwrap().to_string(), "2001:db8:b1:e::/96");
}

fn directory() -> Directory {
    Directory { sir: sir(), networks: vec![(vnid(1001), vnet())] }
}

#[test]
fn every_form_decodes_to_what_was_encoded() {
    let directory = directory();
    let host = locator("2001:db8:0:2::/64");
    let tenants: [IpAddr; 4] = [
        "10.1.0.2".parse().unwrap(),
        "239.1.2.3".parse().unwrap(),
        "2001:db8:b1:e::7".parse().unwrap(),
        "ff05::1234".parse().unwrap(),
    ];
    for mode in [ChecksumMode::Neutral, ChecksumMode::Unmodified] {
        for tenant in tenants {
            let identifier = directory.identifier(vnid(1001), tenant).unwrap();
            let encoded = encode(identifier, host, mode, &directory).unwrap();
            assert_eq!(encoded.tenant, Some(tenant));
            assert_eq!(encoded.c, mode == ChecksumMode::Neutral);
            assert_eq!(decode(encoded.address, &directory).unwrap(), encoded);
        }
        let lui = Identifier::local(0x0123_4567_89ab_cdef).unwrap();
        let encoded = encode(lui, host, mode, &directory).unwrap();
        assert_eq!(decode(encoded.address, &directory).unwrap(), encoded);
    }
    let broadcast = directory.identifier(vnid(1001), "10.1.255.255".parse().unwrap()).unwrap();
    let encoded = encode(broadcast, host, ChecksumMode::Neutral, &directory).unwrap();
    assert!(!encoded.c && encoded.adjustment.is_none());
}

#[test]
fn addresses_are_written_in_the_drafts_notation() {
    let directory = directory();
    let text = |address: &str| decode(address.parse().unwrap(), &directory).unwrap().to_string();
    assert_eq!(text("2001:db8:51:0:4000:3e9:a01:1"), "SIR:(1001:10.1.0.1)");
    assert_eq!(text("2001:db8:0:2:4000:3e9:a01:2"), "[2001:db8:0:2]:(1001:10.1.0.2)");
    assert_eq!(text("2001:db8:b1:e::1"), "VNET:(1001:2001:db8:b1:e::1)");
    assert_eq!(text("2001:db8:51:0:2000:0:0:42"), "SIR:000000000000042");
    assert_eq!(text("2001:db8:0:2:6000:3e9:0:2"), "[2001:db8:0:2]:(1001:2001:db8:b1:e::2)");
}

#[test]
fn what_cannot_be_decoded_says_why() {
    let directory = directory();
    let error = |address: &str| decode(address.parse().unwrap(), &directory).unwrap_err();
    assert_eq!(error("2001:db8:51:0:5000:3e9:a01:1"), DecodeError::StrayC);
    assert_eq!(error("2001:db8:0:2:a000::1"), DecodeError::Identifier(IdentifierError::Reserved(5)));
    assert_eq!(error("2001:db8:0:2:7000:7:0:2"), DecodeError::UnknownNetwork(vnid(7)));
    assert_eq!(error("2001:db8:0:2:1000::2"), DecodeError::StrayC);
    assert_eq!(error("fe80::1"), DecodeError::NotUnicast);
}

/// `ila_csum_do_neutral_nofmt` of Linux 6.1, as [`linux_neutral`].
fn linux_neutral_auto(old_upper: u64, new_upper: u64, low: u16) -> u16 {
    let csum_add = |a: u32, b: u32| {
        let (sum, carry) = a.overflowing_add(b);
        sum + u32::from(carry)
    };
    let halves = |upper: u64| [(upper >> 32) as u32, upper as u32];
    let old = halves(old_upper).into_iter().fold(0, csum_add);
    let diff = halves(new_upper).map(|word| !word).into_iter().fold(old, csum_add);
    let value = csum_add(diff, u32::from(low));
    let folded = (value & 0xffff) + (value >> 16);
    (folded + (folded >> 16)) as u16
}

#[test]
fn without_c_every_word_but_zero_comes_back_from_linux_as_it_was() {
    for text in ["2001:db8:0:2::/64", "fd00:1:2:3::/64", "2001:ffff:ffff:fffe::/64", "3ffe::/64"] {
        let locator = locator(text);
        let neutral = Neutral::without_c(locator, sir());
        for low in 0..=0xffff_u16 {
            let identifier = Identifier::local(0x0123_4567_89ab_0000 | u64::from(low)).unwrap();
            let Some(wire) = locator.neutral_without_c(identifier, neutral) else {
                assert_eq!(low, 0, "{text}");
                continue;
            };
            assert!(!wire.is_neutral());
            let endpoint = sir().address(identifier).ipv6();
            assert_eq!(residue(wire.ipv6()), residue(endpoint), "{} for {endpoint}", wire.ipv6());
            let back = linux_neutral_auto(locator.upper(), sir().upper(), wire.ipv6().to_bits() as u16);
            assert_eq!(back, low, "{text}");
        }
        // And what Linux sends, with both zeros alike, is read as the first of them.
        for low in 0..=0xffff_u16 {
            let wire = linux_neutral_auto(sir().upper(), locator.upper(), low);
            assert_eq!(neutral.reverse(wire), if low == 0xffff { 0 } else { low }, "{text}");
        }
    }
}
