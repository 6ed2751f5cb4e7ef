use proptest::prelude::*;

use super::*;
use crate::addr::Neutral;
use crate::policy::LocatorId;

fn locator(n: u16) -> Locator {
    format!("2001:db8:0:{n:x}::/64").parse().unwrap()
}

/// Distinct targets, told apart by number.
fn several(locators: &[u16]) -> Several {
    let place = |n: &u16| (locator(*n), Target::Remote(LocatorId((*n).into()), None));
    Several::new(Key::first(Identifier::local(7).unwrap()), locators.iter().map(place).collect()).unwrap()
}

fn chosen(several: &Several, flow: Flow) -> u32 {
    match several.choose(flow) {
        Some(Target::Remote(LocatorId(n), _)) => n,
        other => panic!("{other:?}"),
    }
}

fn flows(count: u64) -> impl Iterator<Item = Flow> {
    (0..count).map(|n| {
        let source = Ipv6Addr::from_bits(0x2001_0db8_0051_0000_4000_03e9_0a01_0000 + u128::from(n / 2));
        Flow::new(source, Identifier::local(7).unwrap(), if n % 2 == 0 { 6 } else { 17 })
    })
}

/// Computed by a script that was written from the module's text alone:
///
/// ```python
/// import ipaddress as ip
/// M = (1 << 64) - 1
/// def mix(x):
///     x = (x + 0x9e3779b97f4a7c15) & M
///     x = ((x ^ (x >> 30)) * 0xbf58476d1ce4e5b9) & M
///     x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) & M
///     return x ^ (x >> 31)
/// def flow(source, identifier, protocol):
///     source, f = int(ip.IPv6Address(source)), 0
///     for word in (source >> 64, source & M, identifier, protocol): f = mix(f ^ word)
///     return f
/// def choose(f, locators): return max(locators, key=lambda l: mix(f ^ mix(int(ip.IPv6Address(l)) >> 64)))
/// ```
#[test]
fn the_hash_is_the_documented_one() {
    for (source, destination, protocol, hash, at) in [
        (
            "2001:db8:51:0:4000:3e9:a01:1",
            0x4000_03e9_0a01_0007,
            17,
            0x08da_e084_d7fd_1872,
            "2001:db8:0:4::/64",
        ),
        ("2001:db8:b1:e::1", 0x6000_03e9_0000_0007, 6, 0x681a_be4d_faef_d1ff, "2001:db8:0:4::/64"),
        ("2001:db8:51:0:2000::11", 0x2000_0000_0000_0012, 58, 0x9e9a_8cfa_a3b2_dbaf, "2001:db8:0:3::/64"),
        ("2001:db8:ffff::1", 0x2000_0000_0000_0012, 6, 0x1a09_5ebe_1b5b_af1c, "2001:db8:0:4::/64"),
    ] {
        let flow = Flow::new(source.parse().unwrap(), Identifier::from_bits(destination).unwrap(), protocol);
        assert_eq!(flow, Flow(hash), "{source}");
        let at: Locator = at.parse().unwrap();
        let place = |n: &u16| (locator(*n), Target::Remote(LocatorId((*n).into()), None));
        let of_three =
            Several::new(Key::first(Identifier::local(7).unwrap()), [2, 3, 4].iter().map(place).collect())
                .unwrap();
        assert_eq!(of_three.choose(flow), of_three.at(at.upper()), "{source}");
    }
}

#[test]
fn flows_spread_evenly() {
    let of_four = several(&[1, 2, 3, 4]);
    let mut count = [0; 5];
    flows(8000).for_each(|flow| count[chosen(&of_four, flow) as usize] += 1);
    assert!(count[1..].iter().all(|n| (1800..=2200).contains(n)), "{count:?}");
}

#[test]
fn a_locator_that_goes_moves_its_own_flows_and_no_other() {
    let (before, after) = (several(&[1, 2, 3, 4]), several(&[1, 2, 4]));
    let mut moved = 0;
    for flow in flows(8000) {
        match chosen(&before, flow) {
            3 => moved += 1,
            stays => assert_eq!(chosen(&after, flow), stays),
        }
    }
    assert!(moved > 1000, "{moved} had something to move");
}

#[test]
fn a_set_of_one_is_that_one() {
    let alone = several(&[9]);
    assert!(flows(100).all(|flow| chosen(&alone, flow) == 9));
    assert_eq!(Several::new(Key::first(Identifier::local(7).unwrap()), vec![]), None);
}

proptest! {
    /// Whatever the locators, whichever of them goes or comes, and in whatever order each host lists them.
    #[test]
    fn hosts_agree_and_a_change_moves_no_flow_between_those_that_stay(
        locators in prop::collection::btree_set(1u16..2000, 2..12), which in any::<prop::sample::Index>(),
    ) {
        let mut locators: Vec<u16> = locators.into_iter().collect();
        let here = several(&locators);
        locators.reverse();
        let there = several(&locators);
        let gone = locators.remove(which.index(locators.len()));
        let without = several(&locators);
        for flow in flows(2000) {
            let with = chosen(&here, flow);
            prop_assert_eq!(with, chosen(&there, flow));
            if with != u32::from(gone) {
                prop_assert_eq!(with, chosen(&without, flow));
            }
        }
    }
}

#[test]
fn the_place_here_and_the_others_are_told_apart() {
    let far = Target::Remote(LocatorId(5), Some(Neutral::from_saved(1)));
    let places = vec![(locator(1), Target::Local(PortId(3))), (locator(2), far)];
    let several = Several::new(Key::first(Identifier::local(7).unwrap()), places).unwrap();
    assert_eq!(several.here(), Some(PortId(3)));
    assert_eq!(several.places().collect::<Vec<_>>(), [far, Target::Local(PortId(3))]);
    assert_eq!(several.at(locator(2).upper()), Some(far));
    assert_eq!(several.at(locator(9).upper()), None);
}
