use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::addr::{Identifier, Key, Neutral, Vnid};
use crate::pipeline::PortId;
use crate::policy::LocatorId;

fn key(n: u32) -> Key {
    Key::first(Identifier::ipv4(Vnid::new(1001).unwrap(), n.into()))
}

/// A target that tells the key it was stored for.
fn target_of(n: u32, version: u16) -> Target {
    Target::Remote(LocatorId(n), Some(Neutral::from_saved(version)))
}

#[test]
fn what_was_inserted_is_found_until_it_is_removed() {
    let table = MappingTable::with_capacity(100);
    let local = Target::Local(PortId(7));
    let plain = Target::Remote(LocatorId(u32::MAX), None);
    assert_eq!(table.insert(key(1), local), Ok(None));
    assert_eq!(table.insert(key(2), plain), Ok(None));
    assert_eq!(table.insert(key(1), target_of(1, 0xffff)), Ok(Some(local)));
    assert_eq!(table.get(key(1)), Some(target_of(1, 0xffff)));
    assert_eq!(table.get(key(2)), Some(plain));
    assert_eq!(table.get(key(3)), None);
    assert_eq!(table.remove(key(1)), Some(target_of(1, 0xffff)));
    assert_eq!((table.get(key(1)), table.remove(key(1)), table.len()), (None, None, 1));
}

#[test]
fn line_by_line_every_key_is_found_and_no_other() {
    let table = MappingTable::with_buckets(3, 20, 60);
    for n in 0..60 {
        table.insert(key(n), target_of(n, 1)).unwrap();
    }
    let find = |n| {
        let (mut bucket, mut lines) = (table.bucket_of(key(n)), 1);
        loop {
            match table.look(bucket, key(n)) {
                Place::Found(target) => return (Some(target), lines),
                Place::Behind(next) => (bucket, lines) = (next, lines + 1),
                Place::Nowhere => return (None, lines),
            }
        }
    };
    assert!((0..60).all(|n| find(n).0 == Some(target_of(n, 1))));
    assert!((0..60).any(|n| find(n).1 == 1) && (0..60).any(|n| find(n).1 > 2));
    assert!((60..100).all(|n| find(n).0.is_none()));
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let table = MappingTable::with_capacity(1000);
    for n in 0..1000 {
        table.insert(key(n), target_of(n, 1)).unwrap();
    }
    assert_eq!(table.insert(key(1000), target_of(1000, 1)), Err(TableFull));
    assert!((0..1000).all(|n| table.get(key(n)) == Some(target_of(n, 1))));
    assert_eq!(table.iter().count(), 1000);
}

/// Whatever the seed, and however regular their addresses: the room that is promised is there.
#[test]
fn a_table_takes_as_many_as_it_was_made_for() {
    const FULL: u32 = 500_000;
    let patterns: [fn(u32) -> u32; 4] =
        [|n| n, |n| 0x0a00_0000 + n, |n| n << 8, |n| (n & 0xff) | (n >> 8) << 16];
    for of in patterns {
        let table = MappingTable::with_capacity(FULL as usize);
        let taken = (0..FULL).take_while(|n| table.insert(key(of(*n)), target_of(*n, 1)).is_ok()).count();
        assert_eq!(taken, FULL as usize);
    }
}

/// A year of churn: overflow buckets come back, so a table that is never over its capacity never fills up.
#[test]
fn churn_leaks_no_room() {
    let table = MappingTable::with_capacity(64);
    let mut model = HashMap::new();
    for round in 0..200_000_u32 {
        let n = round.wrapping_mul(2_654_435_761) % 500;
        if model.remove(&n).is_some() {
            assert!(table.remove(key(n)).is_some());
        } else if model.len() < 64 {
            table.insert(key(n), target_of(n, round as u16)).unwrap();
            model.insert(n, round as u16);
        }
    }
    for n in 0..500 {
        assert_eq!(table.get(key(n)), model.get(&n).map(|version| target_of(n, *version)));
    }
    assert_eq!(table.iter().count(), model.len());
}

/// At full load, whatever the churn, there is a bucket for every chain that needs one.
#[test]
fn a_table_at_its_capacity_takes_a_new_key_for_every_one_that_leaves() {
    const FULL: u32 = 30_000;
    let table = MappingTable::with_capacity(FULL as usize);
    (0..FULL).for_each(|n| assert_eq!(table.insert(key(n), target_of(n, 1)), Ok(None)));
    for n in 0..10 * FULL {
        assert!(table.remove(key(n)).is_some(), "key {n}");
        assert_eq!(table.insert(key(n + FULL), target_of(n + FULL, 1)), Ok(None), "after {n} moves");
    }
    assert!((10 * FULL..11 * FULL).all(|n| table.get(key(n)) == Some(target_of(n, 1))));
    assert_eq!((table.len(), table.iter().count()), (FULL as usize, FULL as usize));
}

/// Every key in one chain: what leaves from its middle is replaced from its end, and its buckets come back.
#[test]
fn keys_that_collide_are_all_found_and_their_chain_shrinks_with_them() {
    let table = MappingTable::with_buckets(1, 40, 120);
    for round in 0..20 {
        (0..120).for_each(|n| assert_eq!(table.insert(key(n), target_of(n, round)), Ok(None)));
        assert_eq!(table.insert(key(120), target_of(120, 0)), Err(TableFull));
        for n in (0..120).filter(|n| n % 7 != 0) {
            assert_eq!(table.remove(key(n)), Some(target_of(n, round)));
            let left = (0..120).filter(|other| other % 7 == 0 || *other > n);
            assert!(left.clone().all(|other| table.get(key(other)) == Some(target_of(other, round))), "{n}");
        }
        for n in (0..120).filter(|n| n % 7 == 0) {
            table.remove(key(n));
        }
        assert!(table.is_empty() && (0..120).all(|n| table.get(key(n)).is_none()));
    }
}

#[test]
fn a_table_of_many_takes_33_bytes_for_each() {
    let bytes = MappingTable::with_capacity(1_000_000).bytes();
    assert!((32_000_000..33_500_000).contains(&bytes), "{bytes}");
}

#[test]
fn a_bucket_is_one_aligned_cache_line() {
    let table = MappingTable::with_capacity(10);
    assert!((0..100).all(|n| table.address_of(table.bucket_of(key(n))).is_multiple_of(64)
        && table.address_of(table.bucket_of(key(n))) != 0));
}

/// One writer moves keys in and out of the same few buckets as fast as it can; readers must never see a value stored for another key,
/// nor miss a key that is always there.
#[test]
fn readers_never_see_half_a_change() {
    readers_find_what_is_there(MappingTable::with_capacity(16));
}

/// The same in long chains, whose keys move as others leave.
#[test]
fn readers_find_keys_that_move_within_their_chain() {
    readers_find_what_is_there(MappingTable::with_buckets(2, 20, 40));
}

fn readers_find_what_is_there(table: MappingTable) {
    let table = Arc::new(table);
    for n in 0..4 {
        table.insert(key(n), target_of(n, 0)).unwrap();
    }
    let (done, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (table, done, seen) = (table.clone(), done.clone(), seen.clone());
            thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    for n in 0..40 {
                        match table.get(key(n)) {
                            Some(Target::Remote(LocatorId(stored), _)) => {
                                assert_eq!(stored, n, "a value of another key");
                                seen.fetch_add(1, Ordering::Relaxed);
                            }
                            Some(Target::Local(_)) => panic!("nobody stored that"),
                            None => assert!(n >= 4, "key {n} is always there"),
                        }
                    }
                }
            })
        })
        .collect();
    for round in 0..300_000_u32 {
        let n = 4 + round % 36;
        table.insert(key(n), target_of(n, round as u16)).unwrap();
        table.insert(key(round % 4), target_of(round % 4, round as u16)).unwrap();
        table.remove(key(4 + (round + 30) % 36));
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    assert!(seen.load(Ordering::Relaxed) > 0);
}
