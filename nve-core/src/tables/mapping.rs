//! Identifier -> where it lives: one 64-bit key, one 64-bit value, one cache line per probe.
//!
//! What must stay true:
//!
//! * One writer at a time (the writer's methods take a lock the data path never touches); readers take none.
//! * A reader that finds a key returns a value that was stored for *that* key. A slot's key changes in the order value := 0,
//!   key := new, `changes` += 1, value := new; a reader that sees `changes` move starts over. So a reader repeats only when the writer has
//!   completed a change in that very bucket, and never waits for one that stopped half-way.
//! * Updating a key is a single store of its value.
//!
//! ```text
//!   hash(key) ──> bucket: 64 bytes, aligned          overflow buckets, from the same array
//!                 │changes│next│k v│k v│k v│ ──next──> │changes│next│k v│k v│k v│
//! ```

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::addr::{Identifier, Neutral};
use crate::pipeline::PortId;
use crate::policy::LocatorId;

/// Entries per bucket: what fits a cache line beside `changes` and `next`.
const WAYS: usize = 3;

/// A chain that long cannot come about with a seeded hash; it bounds the walk.
const LONGEST_CHAIN: usize = 64;

/// Where an identifier lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// On this host.
    Local(PortId),
    /// On another, reached with C = 1 and this adjustment, or with C = 0 where it is `None`.
    Remote(LocatorId, Option<Neutral>),
}

impl Target {
    const PRESENT: u64 = 1 << 63;
    const LOCAL: u64 = 1 << 62;
    const NEUTRAL: u64 = 1 << 61;

    /// `present local neutral - - - - - | target: 32 bits from 16 | adjustment: 16 bits`
    fn pack(self) -> u64 {
        match self {
            Self::Local(port) => Self::PRESENT | Self::LOCAL | u64::from(port.0) << 16,
            Self::Remote(locator, None) => Self::PRESENT | u64::from(locator.0) << 16,
            Self::Remote(locator, Some(neutral)) => {
                Self::PRESENT | Self::NEUTRAL | u64::from(locator.0) << 16 | u64::from(neutral.get())
            }
        }
    }

    #[inline]
    fn unpack(value: u64) -> Option<Self> {
        let target = (value >> 16) as u32;
        if value & Self::PRESENT == 0 {
            None
        } else if value & Self::LOCAL != 0 {
            Some(Self::Local(PortId(target as u16)))
        } else {
            let neutral = (value & Self::NEUTRAL != 0).then(|| Neutral::from_saved(value as u16));
            Some(Self::Remote(LocatorId(target), neutral))
        }
    }
}

/// There is no room for another identifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the mapping table is full")]
pub struct TableFull;

#[derive(Default)]
#[repr(align(64))]
struct Bucket {
    /// How often a slot's key has changed.
    changes: AtomicU64,
    /// Index of the next bucket of the chain, or zero.
    next: AtomicU64,
    slots: [Slot; WAYS],
}

#[derive(Default)]
struct Slot {
    /// An identifier's bits; zero where no key has ever been.
    key: AtomicU64,
    /// A packed [`Target`], or zero where the key is absent.
    value: AtomicU64,
}

/// What only the writer touches.
struct Writer {
    /// Overflow buckets that no chain holds.
    spare: Vec<u64>,
    entries: usize,
}

/// The table; shared by all workers and the control side.
pub struct MappingTable {
    buckets: Box<[Bucket]>,
    /// Primary buckets minus one; their number is a power of two.
    mask: u64,
    seed: u64,
    capacity: usize,
    writer: Mutex<Writer>,
}

impl core::fmt::Debug for MappingTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MappingTable").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl MappingTable {
    /// Room for `capacity` identifiers, about 60 bytes each.
    pub fn with_capacity(capacity: usize) -> Self {
        let primary = (capacity / 2).next_power_of_two().max(8);
        let overflow = capacity / WAYS + 1;
        let buckets = (0..primary + overflow).map(|_| Bucket::default()).collect();
        let spare = (primary as u64..(primary + overflow) as u64).rev().collect();
        Self {
            buckets,
            mask: primary as u64 - 1,
            seed: RandomState::new().build_hasher().finish() | 1,
            capacity,
            writer: Mutex::new(Writer { spare, entries: 0 }),
        }
    }

    #[inline]
    fn index(&self, key: u64) -> u64 {
        // Multiply, fold, multiply: every bit of a VNID and of an address reaches the index; the seed is unknown to tenants.
        let wide = u128::from(key ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let folded = (wide >> 64) as u64 ^ wide as u64;
        (folded ^ folded >> 32) & self.mask
    }

    #[inline]
    fn bucket(&self, index: u64) -> Option<&Bucket> {
        self.buckets.get(index as usize)
    }

    /// Address of the bucket where `identifier` would be, for a prefetch. Never dereferenced here.
    #[inline]
    pub fn slot(&self, identifier: Identifier) -> usize {
        self.bucket(self.index(identifier.bits())).map_or(0, |bucket| core::ptr::from_ref(bucket) as usize)
    }

    /// Where `identifier` lives.
    #[inline]
    pub fn get(&self, identifier: Identifier) -> Option<Target> {
        let key = identifier.bits();
        let mut index = self.index(key);
        for _ in 0..LONGEST_CHAIN {
            let bucket = self.bucket(index)?;
            if let Some(value) = bucket.get(key) {
                return Target::unpack(value);
            }
            index = bucket.next.load(Acquire);
            if index == 0 {
                return None;
            }
        }
        None
    }

    /// Makes `identifier` live at `target`, wherever it lived before; gives back the latter.
    ///
    /// # Errors
    /// [`TableFull`], and nothing has changed.
    pub fn insert(&self, identifier: Identifier, target: Target) -> Result<Option<Target>, TableFull> {
        let key = identifier.bits();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.index(key);
        let mut free = None;
        let mut last = None;
        for _ in 0..LONGEST_CHAIN {
            let Some(bucket) = self.bucket(index) else { break };
            for slot in &bucket.slots {
                let old = slot.value.load(Relaxed);
                if slot.key.load(Relaxed) == key && old != 0 {
                    slot.value.store(target.pack(), Release);
                    return Ok(Target::unpack(old));
                }
                if old == 0 && free.is_none() {
                    free = Some((bucket, slot));
                }
            }
            last = Some(bucket);
            index = bucket.next.load(Relaxed);
            if index == 0 {
                break;
            }
        }
        if writer.entries >= self.capacity {
            return Err(TableFull);
        }
        let (bucket, slot) = match (free, last) {
            (Some(free), _) => free,
            (None, Some(last)) if index == 0 => {
                let fresh = writer.spare.pop().ok_or(TableFull)?;
                let bucket = self.bucket(fresh).ok_or(TableFull)?;
                bucket.next.store(0, Relaxed);
                last.next.store(fresh, Release);
                (bucket, &bucket.slots[0])
            }
            _ => return Err(TableFull),
        };
        bucket.replace(slot, key, target.pack());
        writer.entries += 1;
        Ok(None)
    }

    /// Forgets `identifier`; gives back where it lived.
    pub fn remove(&self, identifier: Identifier) -> Option<Target> {
        let key = identifier.bits();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.index(key);
        let mut previous: Option<&Bucket> = None;
        for _ in 0..LONGEST_CHAIN {
            let bucket = self.bucket(index)?;
            let next = bucket.next.load(Relaxed);
            for slot in &bucket.slots {
                let old = slot.value.load(Relaxed);
                if slot.key.load(Relaxed) != key || old == 0 {
                    continue;
                }
                slot.value.store(0, Release);
                writer.entries -= 1;
                // An empty last bucket goes back to the spares. A reader still in it finds keys of another chain there, or none.
                if let Some(previous) = previous
                    && next == 0
                    && bucket.slots.iter().all(|slot| slot.value.load(Relaxed) == 0)
                {
                    previous.next.store(0, Release);
                    writer.spare.push(index);
                }
                return Target::unpack(old);
            }
            if next == 0 {
                return None;
            }
            previous = Some(bucket);
            index = next;
        }
        None
    }

    /// Every identifier and where it lives, in no order. Changes made meanwhile may or may not be seen.
    pub fn iter(&self) -> impl Iterator<Item = (Identifier, Target)> {
        let slots =
            self.buckets.iter().flat_map(|bucket| bucket.slots.iter().map(move |slot| (bucket, slot)));
        slots.filter(|(_, slot)| slot.value.load(Acquire) != 0).filter_map(|(bucket, slot)| {
            let key = slot.key.load(Acquire);
            Some((Identifier::from_bits(key).ok()?, Target::unpack(bucket.get(key)?)?))
        })
    }

    /// Identifiers in it.
    pub fn len(&self) -> usize {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).entries
    }
    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Identifiers it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Bucket {
    /// The value of `key`, or `None` where this bucket does not have it.
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        // A repeat needs a completed change of a key in this bucket meanwhile; 64 in a row are given up, as an absent key.
        for _ in 0..64 {
            let before = self.changes.load(Acquire);
            let found = self.slots.iter().find_map(|slot| {
                let found = slot.key.load(Acquire) == key;
                let value = if found { slot.value.load(Acquire) } else { 0 };
                (value != 0).then_some(value)
            });
            if self.changes.load(Acquire) == before {
                return found;
            }
        }
        None
    }

    /// Gives `slot`, which is empty, to `key`; in the order the module promises.
    fn replace(&self, slot: &Slot, key: u64, value: u64) {
        slot.key.store(key, Release);
        self.changes.store(self.changes.load(Relaxed) + 1, Release);
        slot.value.store(value, Release);
    }
}
