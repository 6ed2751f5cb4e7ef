//! Addresses: checklist K (RFC 6052, 7757, 6791).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipv4_xlat::address::eam::{Eam, EamError, EamTable};
use ipv4_xlat::address::rfc6052::{Prefix, PrefixError};
use ipv4_xlat::address::siit::{Hairpin, PoolOverlap, Siit};
use ipv4_xlat::{AddressMap, HopChange, Packet, Reason, Refusal, Role, SCRATCH_LEN, v4_to_v6, v6_to_v4};
use proptest::prelude::*;

use crate::lab::*;

fn ip4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn ip6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').unwrap();
    Prefix::new(ip6(address), len.parse().unwrap()).unwrap()
}

fn eam(v6: &str, v4: &str) -> Eam {
    let (v6, v6_len) = v6.split_once('/').unwrap_or((v6, "128"));
    let (v4, v4_len) = v4.split_once('/').unwrap_or((v4, "32"));
    Eam::new(ip6(v6), v6_len.parse().unwrap(), ip4(v4), v4_len.parse().unwrap()).unwrap()
}

/// RFC 6052 section 2.4.
const EMBEDDED: [(&str, &str); 6] = [
    ("2001:db8::/32", "2001:db8:c000:221::"),
    ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
];

#[test]
fn the_six_rows_of_rfc_6052_hold_both_ways() {
    for (pool, address) in EMBEDDED {
        let pool = prefix(pool);
        assert_eq!(pool.embed(ip4("192.0.2.33")), ip6(address));
        assert_eq!(pool.extract(ip6(address)), Some(ip4("192.0.2.33")));
    }
}

#[test]
fn other_prefix_lengths_and_stray_bits_are_refused() {
    for len in (0..=128).filter(|len| ![32, 40, 48, 56, 64, 96].contains(len)) {
        assert_eq!(Prefix::new(Ipv6Addr::UNSPECIFIED, len), Err(PrefixError::Length(len)));
    }
    assert_eq!(Prefix::new(ip6("2001:db8::1"), 64), Err(PrefixError::HostBits));
    assert_eq!(Prefix::new(ip6("2001:db8:0:0:100::"), 96), Err(PrefixError::UOctet));
}

#[test]
fn the_suffix_is_written_as_0_and_ignored_when_read_but_the_u_octet_must_be_0() {
    let pool = prefix("2001:db8:122::/48");
    assert_eq!(pool.extract(ip6("2001:db8:122:c000:2:21ff:ffff:ffff")), Some(ip4("192.0.2.33")));
    assert_eq!(pool.extract(ip6("2001:db8:122:c000:102:2100::")), None);
    assert_eq!(pool.extract(ip6("2001:db8:123:c000:2:2100::")), None);
}

#[test]
fn the_well_known_prefix_does_not_carry_local_addresses() {
    let strict = Siit { pool6: Some(Prefix::WELL_KNOWN), ..Siit::default() };
    assert_eq!(prefix("64:ff9b::/96"), Prefix::WELL_KNOWN);
    for local in [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "192.0.0.1",
    ] {
        let six = Prefix::WELL_KNOWN.embed(ip4(local));
        assert_eq!(strict.v4_to_v6(ip4(local), Role::Destination), None, "{local}");
        assert_eq!(strict.v6_to_v4(six, Role::Source), None, "{local}");
        let lax = Siit { local_in_well_known: true, ..strict };
        assert_eq!(lax.v6_to_v4(six, Role::Source), Some(ip4(local)));
        let other = Siit { pool6: Some(prefix("64:ff9b:1::/48")), ..Siit::default() };
        assert!(other.v4_to_v6(ip4(local), Role::Destination).is_some());
    }
    for global in [
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.32.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "8.8.8.8",
    ] {
        assert_eq!(
            strict.v4_to_v6(ip4(global), Role::Destination),
            Some(Prefix::WELL_KNOWN.embed(ip4(global)))
        );
    }
}

#[test]
fn explicit_mappings_of_rfc_7757_hold_both_ways() {
    // RFC 7757 section 3.2's table and the addresses worked out there.
    let entries = [
        eam("2001:db8:aaaa::", "192.0.2.1"),
        eam("2001:db8:bbbb::b/128", "192.0.2.2/32"),
        eam("2001:db8:cccc::/124", "192.0.2.16/28"),
        eam("2001:db8:dddd::/64", "192.0.2.128/26"),
        eam("2001:db8:eeee:8::/62", "192.0.2.192/29"),
        eam("64:ff9b::/127", "192.0.2.224/31"),
    ];
    let table = EamTable::new(&entries).unwrap();
    for (v4, v6) in [
        ("192.0.2.1", "2001:db8:aaaa::"),
        ("192.0.2.2", "2001:db8:bbbb::b"),
        ("192.0.2.16", "2001:db8:cccc::"),
        ("192.0.2.24", "2001:db8:cccc::8"),
        ("192.0.2.31", "2001:db8:cccc::f"),
        ("192.0.2.128", "2001:db8:dddd::"),
        ("192.0.2.152", "2001:db8:dddd:0:6000::"),
        ("192.0.2.183", "2001:db8:dddd:0:dc00::"),
        ("192.0.2.191", "2001:db8:dddd:0:fc00::"),
        ("192.0.2.193", "2001:db8:eeee:8:8000::"),
        ("192.0.2.199", "2001:db8:eeee:b:8000::"),
        ("192.0.2.225", "64:ff9b::1"),
    ] {
        assert_eq!(table.to_v6(ip4(v4)), Some(ip6(v6)), "{v4}");
        assert_eq!(table.to_v4(ip6(v6)), Some(ip4(v4)), "{v6}");
    }
    assert_eq!(table.to_v6(ip4("192.0.2.3")), None);
    assert_eq!(table.to_v4(ip6("2001:db8:aaaa::1")), None);
    assert_eq!(
        table.to_v4(ip6("2001:db8:dddd:0:dc12:3456:789a:bcde")),
        Some(ip4("192.0.2.183")),
        "bits behind the suffix"
    );
}

#[test]
fn the_longest_prefix_wins_in_each_direction() {
    let entries = [
        eam("2001:db8:1::/120", "192.0.2.0/24"),
        eam("2001:db8:2::9", "192.0.2.9"),
        eam("2001:db8:3::/124", "192.0.2.16/28"),
    ];
    let table = EamTable::new(&entries).unwrap();
    assert_eq!(table.to_v6(ip4("192.0.2.8")), Some(ip6("2001:db8:1::8")));
    assert_eq!(table.to_v6(ip4("192.0.2.9")), Some(ip6("2001:db8:2::9")));
    assert_eq!(table.to_v6(ip4("192.0.2.17")), Some(ip6("2001:db8:3::1")));
    let nested = [eam("2001:db8::/96", "0.0.0.0/0"), eam("2001:db8::c000:207", "192.0.2.7")];
    let table = EamTable::new(&nested).unwrap();
    assert_eq!(table.to_v4(ip6("2001:db8::c000:207")), Some(ip4("192.0.2.7")));
    assert_eq!(table.to_v4(ip6("2001:db8::a00:1")), Some(ip4("10.0.0.1")));
}

#[test]
fn mappings_that_cannot_be_right_are_refused() {
    let new = |v6, v6_len, v4, v4_len| Eam::new(ip6(v6), v6_len, ip4(v4), v4_len);
    assert_eq!(new("::", 129, "0.0.0.0", 32), Err(EamError::Length));
    assert_eq!(new("::", 128, "0.0.0.0", 33), Err(EamError::Length));
    assert_eq!(new("2001:db8::1", 64, "192.0.2.0", 24), Err(EamError::HostBits));
    assert_eq!(new("2001:db8::", 64, "192.0.2.1", 24), Err(EamError::HostBits));
    assert_eq!(new("2001:db8::", 121, "192.0.2.0", 24), Err(EamError::SuffixTooLong));
    assert!(new("2001:db8::", 120, "192.0.2.0", 24).is_ok());
    assert!(new("::", 0, "1.2.3.4", 32).is_ok());
}

#[test]
fn mappings_that_share_an_address_are_refused() {
    let table = |entries: &[Eam]| EamTable::new(entries).map(|_| ());
    assert_eq!(
        table(&[eam("2001:db8::1", "192.0.2.1"), eam("2001:db8::2", "192.0.2.1")]),
        Err(EamError::SameV4(0, 1))
    );
    assert_eq!(
        table(&[eam("2001:db8::1", "192.0.2.1"), eam("2001:db8::1", "192.0.2.2")]),
        Err(EamError::SameV6(0, 1))
    );
    // 192.0.2.5 and 198.51.100.1 would both be 2001:db8::5.
    assert_eq!(
        table(&[eam("2001:db8::/120", "192.0.2.0/24"), eam("2001:db8::5", "198.51.100.1")]),
        Err(EamError::SharedV6(0, 1))
    );
    let entries = [eam("2001:db8:100:1::/96", "10.0.0.0/8")];
    assert!(EamTable::new(&entries).is_ok());
    let inside = [eam("2001:db8:1c0:2:21::", "10.0.0.1")];
    let map = Siit {
        eams: EamTable::new(&inside).unwrap(),
        pool6: Some(prefix("2001:db8:100::/40")),
        ..Siit::default()
    };
    assert_eq!(map.check(), Err(PoolOverlap));
    assert_eq!(Siit { pool6: None, ..map }.check(), Ok(()));
}

proptest! {
    #[test]
    fn every_accepted_table_is_the_identity_from_ipv4_and_back(
        raw in prop::collection::vec((0_u8..=8, any::<u8>(), 0_u8..=8, any::<u8>()), 1..5),
        addresses in prop::collection::vec(any::<u8>(), 64),
    ) {
        // Mappings within 8 bits of each family, so that overlaps are common.
        let mut entries = Vec::new();
        for (v4_bits, v4, v6_extra, v6) in raw {
            let (v4_len, v6_len) = (24 + v4_bits, 120 + v4_bits.min(v6_extra));
            let v4 = u32::from(v4) & (u32::MAX.checked_shl(32 - u32::from(v4_len)).unwrap_or(0)) | 0xc000_0200;
            let v6 = u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(v6_len)).unwrap_or(0) | 0x2001_0db8 << 96;
            entries.push(Eam::new(Ipv6Addr::from_bits(v6), v6_len, Ipv4Addr::from_bits(v4), v4_len).unwrap());
        }
        if let Ok(table) = EamTable::new(&entries) {
            for low in addresses {
                let v4 = Ipv4Addr::from_bits(0xc000_0200 | u32::from(low));
                if let Some(v6) = table.to_v6(v4) {
                    prop_assert_eq!(table.to_v4(v6), Some(v4));
                }
            }
        }
    }

    #[test]
    fn every_prefix_is_the_identity_from_ipv4_and_back(v4: u32, which in 0..6_usize) {
        let pool = prefix(EMBEDDED[which].0);
        let v4 = Ipv4Addr::from_bits(v4);
        let v6 = pool.embed(v4);
        prop_assert_eq!(pool.extract(v6), Some(v4));
        prop_assert_eq!(v6.octets()[8], 0);
    }
}

#[test]
fn explicit_mappings_come_before_the_prefix() {
    let entries = [eam("2001:db8:3::/120", "1.0.0.0/24")];
    let map = Siit {
        eams: EamTable::new(&entries).unwrap(),
        pool6: Some(prefix("2001:db8:100::/40")),
        ..Siit::default()
    };
    assert_eq!(map.v4_to_v6(ip4("1.0.0.4"), Role::Source), Some(ip6("2001:db8:3::4")));
    assert_eq!(map.v4_to_v6(ip4("1.0.1.4"), Role::Source), Some(ip6("2001:db8:101:1:4::")));
}

#[test]
fn multicast_and_other_odd_destinations_are_not_mapped_by_the_unicast_rule() {
    let map = Siit { pool6: Some(prefix("2001:db8:100::/40")), ..Siit::default() };
    for odd in ["224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1", "127.0.0.1", "0.0.0.0"] {
        assert_eq!(map.v4_to_v6(ip4(odd), Role::Destination), None, "{odd}");
        assert_eq!(
            map.v6_to_v4(prefix("2001:db8:100::/40").embed(ip4(odd)), Role::Destination),
            None,
            "{odd}"
        );
    }
    assert_eq!(map.v6_to_v4(ip6("ff02::1"), Role::Destination), None);
}

// ---- RFC 6791 ----------------------------------------------------------------------------------------------------

#[test]
fn an_error_from_a_router_without_counterpart_gets_a_source_from_the_pool() {
    let (pool, sources) =
        (prefix("2001:db8:100::/40"), [ip4("203.0.113.8"), ip4("203.0.113.9"), ip4("203.0.113.10")]);
    let map = Siit { pool6: Some(pool), error_sources_v4: &sources, ..Siit::default() };
    let quote = v6_between(pool.embed(B4), pool.embed(A4), 17, udp(b"x")).bytes();
    let mut seen = std::collections::BTreeSet::new();
    for router in 0..100_u128 {
        let router = Ipv6Addr::from_bits(0x2001_0db8_0bad << 80 | router);
        let error = v6_between(router, pool.embed(B4), 58, icmp(3, 0, [0; 4], &quote)).bytes();
        let source = || {
            let mut out = [0; SCRATCH_LEN];
            v6_to_v4::translate(&Packet::whole(&error), &map, &defaults(), ID, &mut out).unwrap();
            Ipv4Addr::from_bits(u32_at(&out, 12))
        };
        assert_eq!(source(), source(), "one router is one address");
        seen.insert(source());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), sources);

    // A mapped router keeps its own; other packets than errors get none.
    assert_eq!(map.v6_to_v4(pool.embed(A4), Role::ErrorSource), Some(A4));
    assert_eq!(map.v6_to_v4(UNMAPPED6, Role::Source), None);
    assert_eq!(Siit { error_sources_v4: &[], ..map }.v6_to_v4(UNMAPPED6, Role::ErrorSource), None);
}

#[test]
fn an_error_from_an_ipv4_router_without_counterpart_gets_the_configured_source() {
    let entries = [eam("2001:db8:3::/120", "1.0.0.0/24")];
    let map = Siit {
        eams: EamTable::new(&entries).unwrap(),
        error_source_v6: Some(ip6("2001:db8::6791")),
        ..Siit::default()
    };
    let quote = v4_between(ip4("1.0.0.1"), ip4("1.0.0.2"), 17, udp(b"x")).bytes();
    let error = v4_between(ip4("8.8.8.8"), ip4("1.0.0.1"), 1, icmp(11, 0, [0; 4], &quote)).bytes();
    let mut out = [0; SCRATCH_LEN];
    v4_to_v6::translate(&Packet::whole(&error), &map, &defaults(), &mut out).unwrap();
    assert_eq!(out[8..24], ip6("2001:db8::6791").octets());
    let silent = Siit { error_source_v6: None, ..map };
    let outcome = v4_to_v6::translate(&Packet::whole(&error), &silent, &defaults(), &mut out);
    assert_eq!(outcome, Err(Refusal::Silent(Reason::UnmappedSource)));
}

// ---- hairpinning (RFC 7757 4) ------------------------------------------------------------------------------------

/// Through the translator and straight back, as one hop.
fn turn_back(map: &Siit<'_>, packet: &[u8]) -> Vec<u8> {
    let mut out = [0; SCRATCH_LEN];
    let there = v6_to_v4::translate(&Packet::whole(packet), map, &defaults(), ID, &mut out).unwrap();
    let four = send(&there, &mut out, packet).remove(0);
    assert_sound(&four);
    assert!(map.turns_back(Ipv4Addr::from_bits(u32_at(&four, 16))));
    let back = v4_to_v6::translate(
        &Packet::whole(&four),
        map,
        &defaults().with_hop_change(HopChange::Keep),
        &mut out,
    )
    .unwrap();
    let six = send(&back, &mut out, &four).remove(0);
    assert_sound(&six);
    six
}

#[test]
fn two_nodes_with_explicit_mappings_reach_each_other_by_their_ipv4_addresses() {
    let entries = [eam("2001:db8:a::1", "192.0.2.1"), eam("2001:db8:b::1", "192.0.2.2")];
    let pool = prefix("2001:db8:100::/40");
    let map = Siit {
        eams: EamTable::new(&entries).unwrap(),
        pool6: Some(pool),
        hairpin: Hairpin::On,
        ..Siit::default()
    };
    map.check().unwrap();
    let (a, b) = (ip6("2001:db8:a::1"), ip6("2001:db8:b::1"));
    let (a_as_four, b_as_four) = (pool.embed(ip4("192.0.2.1")), pool.embed(ip4("192.0.2.2")));

    let arrived = turn_back(&map, &v6_between(a, b_as_four, 17, udp(b"ping")).bytes());
    assert_eq!((&arrived[8..24], &arrived[24..40]), (&a_as_four.octets()[..], &b.octets()[..]));
    assert_eq!(arrived[7], 63, "one hop");
    let answer = turn_back(&map, &v6_between(b, a_as_four, 17, udp(b"pong")).bytes());
    assert_eq!((&answer[8..24], &answer[24..40]), (&b_as_four.octets()[..], &a.octets()[..]));

    // B's error about A's packet quotes what A sent.
    let error = turn_back(&map, &v6_between(b, a_as_four, 58, icmp(1, 4, [0; 4], &arrived)).bytes());
    assert_eq!((&error[8..24], &error[24..40]), (&b_as_four.octets()[..], &a.octets()[..]));
    let quote = quoted(&error);
    assert_eq!((&quote[8..24], &quote[24..40]), (&a.octets()[..], &b_as_four.octets()[..]));
    assert_sound(quote);
}

#[test]
fn without_hairpinning_nothing_turns_back() {
    let entries = [eam("2001:db8:a::1", "192.0.2.1")];
    let map = Siit { eams: EamTable::new(&entries).unwrap(), ..Siit::default() };
    assert!(!map.turns_back(ip4("192.0.2.1")));
    assert!(!Siit { hairpin: Hairpin::On, ..map }.turns_back(ip4("192.0.2.2")));
}

// ---- ILA: roles --------------------------------------------------------------------------------------------------

/// A tenant's map: SIR:(VNI:VA) on the IPv6 side; quoted destinations may carry a locator.
struct Ila;

const SIR: u128 = 0x2001_0db8_0051_0000 << 64;
const LOCATOR: u128 = 0x2001_0db8_0000_0002 << 64;
const VNI: u128 = 2 << 61 | 1001 << 32;

impl AddressMap for Ila {
    fn v4_to_v6(&self, address: Ipv4Addr, _: Role) -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from_bits(SIR | VNI | u128::from(address.to_bits())))
    }
    fn v6_to_v4(&self, address: Ipv6Addr, role: Role) -> Option<Ipv4Addr> {
        let (upper, lower) = (address.to_bits() >> 64 << 64, address.to_bits() & u128::from(u64::MAX));
        let known = match role {
            Role::ErrorSource => return Some(Ipv4Addr::new(10, 1, 255, 254)),
            Role::QuotedDestination => upper == LOCATOR || upper == SIR,
            _ => upper == SIR,
        };
        (known && lower >> 32 == VNI >> 32).then_some(Ipv4Addr::from_bits(lower as u32))
    }
}

#[test]
fn a_map_can_keep_another_network_out_before_a_hop_is_spent() {
    let foreign = Ipv6Addr::from_bits(SIR | 2 << 61 | 1002 << 32 | 0x0a01_0001);
    let own = Ila.v4_to_v6(ip4("10.1.0.2"), Role::Destination).unwrap();
    let packet = v6_between(foreign, own, 17, udp(b"x")).with(|p| p.hops = 1).bytes();
    let outcome = v6_to_v4::translate(&Packet::whole(&packet), &Ila, &defaults(), ID, &mut [0; SCRATCH_LEN]);
    assert!(matches!(outcome, Err(Refusal::Icmp(Reason::UnmappedSource, _))));
}

#[test]
fn an_underlay_routers_packet_too_big_reaches_the_tenant_as_its_own_packet_quoted() {
    let (va1, va2) = (ip4("10.1.0.1"), ip4("10.1.0.2"));
    let mut quote = v4_between(va1, va2, 17, udp(&data(1472))).bytes();
    let on_wire = {
        let mut out = [0; SCRATCH_LEN];
        let translated =
            v4_to_v6::translate(&Packet::whole(&quote), &Ila, &defaults().with_mtu6(1520), &mut out).unwrap();
        let mut packet = send(&translated, &mut out, &quote).remove(0);
        packet[24..32].copy_from_slice(&(LOCATOR >> 64).to_be_bytes()[8..]);
        packet
    };
    let sir_va1 = Ila.v4_to_v6(va1, Role::Destination).unwrap();
    let router = ip6("2001:db8:ffff::1");
    let error = v6_between(router, sir_va1, 58, icmp(2, 0, 1500_u32.to_be_bytes(), &on_wire[..1232])).bytes();
    let mut out = [0; SCRATCH_LEN];
    let translated = v6_to_v4::translate(&Packet::whole(&error), &Ila, &defaults(), ID, &mut out).unwrap();
    let packet = send(&translated, &mut out, &error).remove(0);
    assert_sound(&packet);
    assert_eq!((&packet[12..16], &packet[16..20]), (&[10, 1, 255, 254][..], &va1.octets()[..]));
    assert_eq!((l4(&packet)[0], l4(&packet)[1], u32_at(l4(&packet), 4)), (3, 4, 1480));
    // But for identification and hop count, the quote is what the tenant sent.
    let seen = quoted(&packet);
    quote[4..6].copy_from_slice(&seen[4..6]);
    quote[8] -= 1;
    fix_header(&mut quote[..20]);
    assert_eq!(seen[..26], quote[..26]);
}
