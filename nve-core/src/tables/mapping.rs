//! Key (an identifier in its domain) -> where it lives: one 64-bit key, one 64-bit value, one cache line per probe.
//!
//! What must stay true:
//!
//! * One writer at a time (the writer's methods take a lock the data path never touches); readers take none.
//! * A reader that finds a key returns a value that was stored for *that* key. A slot's key changes in the order value := 0,
//!   key := new, `changes` += 1, value := new; a reader that sees `changes` move starts over. So a reader repeats only when the writer has
//!   completed a change in that very bucket, and never waits for one that stopped half-way.
//! * Updating a key is a single store of its value.
//! * All buckets of a chain but the last are full: what leaves one is replaced from the last. Such a key is in both places first, then the
//!   first bucket's `changes` += 1, then it leaves the last; so a reader that misses a key and sees those `changes` move starts over.
//!
//! ```text
//!   hash(key) ──> bucket: 64 bytes, aligned          overflow buckets, from the same array
//!                 │changes│next│k v│k v│k v│ ──next──> │changes│next│k v│k v│k v│
//! ```

use core::ops::Range;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU64};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::addr::{Key, Neutral};
use crate::pipeline::PortId;
use crate::policy::LocatorId;

/// Entries per bucket: what fits a cache line beside `changes` and `next`.
const WAYS: usize = 3;

/// Identifiers to a bucket that hashes lead to, when the table is full: 5 to 2. The denser, the more chains are longer than one bucket: one
/// key in six lies behind its first bucket at full load, one in twenty-five at half.
const LOAD: (usize, usize) = (5, 2);

/// Entries whose lines a core keeps beside its packets: about a megabyte.
const FAR: usize = 1 << 15;

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

/// What one line of the table tells of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Where it lives.
    Found(Target),
    /// Nothing yet: this is the bucket behind it.
    Behind(u32),
    /// Nothing, and there is no other line; perhaps because it is changing ([`MappingTable::get`] tells).
    Nowhere,
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
    /// A key's bits; zero where no key has ever been.
    key: AtomicU64,
    /// A packed [`Target`], or zero where the key is absent.
    value: AtomicU64,
}

/// What only the writer touches: on lines of its own, as readers need the table's address and seed for every packet.
#[repr(align(128))]
struct Writer {
    /// Overflow buckets that no chain has held yet.
    fresh: Range<u64>,
    /// Those that no chain holds any more.
    spare: Vec<u64>,
    entries: usize,
}

/// The table; shared by all workers and the control side.
pub struct MappingTable {
    buckets: Box<[Bucket]>,
    /// Buckets that hashes lead to; the others are for overflow.
    primary: u64,
    seed: u64,
    capacity: usize,
    /// It has more than [`FAR`] entries. Stored when that changes, so that its line is the readers'.
    far: AtomicBool,
    /// How often a key was given another home, or lost it; counted once it can be seen.
    updates: AtomicU64,
    writer: Mutex<Writer>,
}

impl core::fmt::Debug for MappingTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MappingTable").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// Overflow buckets for so many primary ones. A random hash at full load takes 0.257 for each (Poisson, at [`LOAD`]), give or take the
/// square root of their number; small tables, whose luck varies more, have one for each.
fn overflow(primary: usize) -> usize {
    primary * 27 / 100 + primary.min(1024)
}

impl MappingTable {
    /// Room for `capacity` identifiers, 33 bytes each where there are many.
    pub fn with_capacity(capacity: usize) -> Self {
        let primary = capacity.saturating_mul(LOAD.1) / LOAD.0 + 8;
        Self::with_buckets(primary, overflow(primary), capacity)
    }

    /// Of so many buckets that hashes lead to, and so many for overflow.
    pub(super) fn with_buckets(primary: usize, overflow: usize, capacity: usize) -> Self {
        let fresh = primary as u64..(primary + overflow) as u64;
        Self {
            buckets: (0..fresh.end).map(|_| Bucket::default()).collect(),
            primary: fresh.start,
            seed: RandomState::new().build_hasher().finish() | 1,
            capacity,
            far: AtomicBool::new(false),
            updates: AtomicU64::new(0),
            writer: Mutex::new(Writer { fresh, spare: Vec::new(), entries: 0 }),
        }
    }

    #[inline]
    fn index(&self, key: u64) -> u64 {
        // Twice, so that addresses one after the other, or any other pattern of VNIDs and addresses, spread like random ones, as `overflow` takes
        // for granted: after one multiplication they are a lattice, which for some seeds is denser in places. What comes out is taken as a fraction
        // of all hashes, of the buckets; the seed is unknown to tenants.
        let once = (key ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (once ^ once >> 32).wrapping_mul(0xf39c_c060_5ced_c835);
        ((u128::from(hash) * u128::from(self.primary)) >> 64) as u64
    }

    #[inline]
    fn bucket(&self, index: u64) -> Option<&Bucket> {
        self.buckets.get(index as usize)
    }

    /// Number of the bucket where `key` would be.
    #[inline]
    pub fn bucket_of(&self, key: Key) -> u32 {
        self.index(key.bits()) as u32
    }

    /// Address of that bucket, for a prefetch. Never dereferenced here.
    #[inline]
    pub fn address_of(&self, bucket: u32) -> usize {
        self.bucket(bucket.into()).map_or(0, Bucket::address)
    }

    /// Address of the bucket behind that one, for a prefetch, where the first does not have `key`. Reads the first.
    #[inline]
    pub fn address_behind(&self, bucket: u32, key: Key) -> Option<usize> {
        let (first, key) = (self.bucket(bucket.into())?, key.bits());
        let next = first.next.load(Relaxed);
        let has = |slot: &Slot| slot.key.load(Relaxed) == key;
        if next == 0 || first.slots.iter().any(has) {
            return None;
        }
        self.bucket(next).map(Bucket::address)
    }

    /// How often anything in it had changed. Who has the same number twice may go on believing what was read in between.
    #[inline]
    pub fn updates(&self) -> u64 {
        self.updates.load(Acquire)
    }

    /// Where `key` lives.
    #[inline]
    pub fn get(&self, key: Key) -> Option<Target> {
        self.get_in(self.bucket_of(key), key)
    }

    /// What one line, the bucket where `key` would be or one behind that, tells of it.
    #[inline(always)]
    pub fn look(&self, bucket: u32, key: Key) -> Place {
        let Some(bucket) = self.bucket(bucket.into()) else { return Place::Nowhere };
        if let Some(target) = bucket.get(key.bits()).and_then(Target::unpack) {
            return Place::Found(target);
        }
        match bucket.next.load(Relaxed) {
            0 => Place::Nowhere,
            next => Place::Behind(next as u32),
        }
    }

    /// Where `key` lives, whose bucket this is.
    #[inline(always)]
    pub fn get_in(&self, bucket: u32, key: Key) -> Option<Target> {
        let key = key.bits();
        let first = self.bucket(bucket.into())?;
        let before = first.changes.load(Acquire);
        if let Some(value) = first.get(key) {
            return Target::unpack(value);
        }
        if first.next.load(Acquire) == 0 && first.changes.load(Acquire) == before {
            return None;
        }
        self.get_behind(first, key, before)
    }

    /// Of a key that the first bucket of its chain did not have, when that had changed so often.
    fn get_behind(&self, first: &Bucket, key: u64, mut before: u64) -> Option<Target> {
        // A repeat needs a key of this chain to have come or moved meanwhile; 64 in a row are given up, as an absent key.
        for _ in 0..64 {
            let mut bucket = first;
            for _ in 0..LONGEST_CHAIN {
                if let Some(value) = bucket.get(key) {
                    return Target::unpack(value);
                }
                match bucket.next.load(Acquire) {
                    0 => break,
                    next => bucket = self.bucket(next)?,
                }
            }
            let now = first.changes.load(Acquire);
            if now == before {
                return None;
            }
            before = now;
        }
        None
    }

    /// Makes `key` live at `target`, wherever it lived before; gives back the latter.
    ///
    /// # Errors
    /// [`TableFull`], and nothing has changed.
    pub fn insert(&self, key: Key, target: Target) -> Result<Option<Target>, TableFull> {
        let before = self.put(key.bits(), target)?;
        self.updates.fetch_add(1, Release);
        Ok(before)
    }

    fn put(&self, key: u64, target: Target) -> Result<Option<Target>, TableFull> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.index(key);
        let mut free = None;
        let mut last = None;
        for _ in 0..LONGEST_CHAIN {
            let Some(bucket) = self.bucket(index) else { break };
            for slot in &bucket.slots {
                let old = slot.value.load(Relaxed);
                if slot.key.load(Relaxed) == key && old != 0 {
                    // A reload says again what is so: its lines stay with the readers.
                    if old != target.pack() {
                        slot.value.store(target.pack(), Release);
                    }
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
                let fresh = writer.spare.pop().or_else(|| writer.fresh.next()).ok_or(TableFull)?;
                let bucket = self.bucket(fresh).ok_or(TableFull)?;
                bucket.next.store(0, Relaxed);
                last.next.store(fresh, Release);
                (bucket, &bucket.slots[0])
            }
            _ => return Err(TableFull),
        };
        bucket.replace(slot, key, target.pack());
        writer.entries += 1;
        self.far_or_not(&writer);
        Ok(None)
    }

    /// Forgets `key`; gives back where it lived.
    pub fn remove(&self, key: Key) -> Option<Target> {
        let before = self.take(key.bits())?;
        self.updates.fetch_add(1, Release);
        Some(before)
    }

    fn take(&self, key: u64) -> Option<Target> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.bucket(self.index(key))?;
        let (mut found, mut before_last, mut last) = (None, None, (0, first));
        for _ in 0..LONGEST_CHAIN {
            found = found.or_else(|| last.1.slot_of(key).map(|slot| (last.1, slot)));
            match last.1.next.load(Relaxed) {
                0 => break,
                next => {
                    before_last = Some(last.1);
                    last = (next, self.bucket(next)?);
                }
            }
        }
        let (bucket, slot) = found?;
        let old = slot.value.load(Relaxed);
        slot.value.store(0, Release);
        writer.entries -= 1;
        self.far_or_not(&writer);
        let (index, last) = last;
        let mut rest = last.slots.iter().filter(|slot| slot.value.load(Relaxed) != 0);
        let moved = rest.next().filter(|_| !core::ptr::eq(bucket, last));
        if let Some(moved) = moved {
            bucket.replace(slot, moved.key.load(Relaxed), moved.value.load(Relaxed));
            first.changed();
            moved.value.store(0, Release);
        }
        // An empty last bucket goes back to the spares. A reader still in it finds keys of another chain there, or none.
        if let Some(before_last) = before_last
            && last.slots.iter().all(|slot| slot.value.load(Relaxed) == 0)
        {
            before_last.next.store(0, Release);
            writer.spare.push(index);
        }
        Target::unpack(old)
    }

    fn far_or_not(&self, writer: &Writer) {
        let far = writer.entries > FAR;
        if self.far.load(Relaxed) != far {
            self.far.store(far, Relaxed);
        }
    }

    /// Whether [`Self::address_behind`] is worth its asking: what is looked up lies outside the core's own cache.
    #[inline]
    pub fn is_far(&self) -> bool {
        self.far.load(Relaxed)
    }

    /// Every key and where it lives, in no order. Changes made meanwhile may or may not be seen.
    pub fn iter(&self) -> impl Iterator<Item = (Key, Target)> {
        let slots =
            self.buckets.iter().flat_map(|bucket| bucket.slots.iter().map(move |slot| (bucket, slot)));
        slots.filter(|(_, slot)| slot.value.load(Acquire) != 0).filter_map(|(bucket, slot)| {
            let key = slot.key.load(Acquire);
            Some((Key::from_bits(key)?, Target::unpack(bucket.get(key)?)?))
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
    /// Memory that its buckets take.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }
    /// Where its buckets lie: from their first byte to behind their last.
    pub fn memory(&self) -> Range<usize> {
        let first = self.buckets.as_ptr() as usize;
        first..first + self.bytes()
    }
    /// Identifiers it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Bucket {
    /// Its address, for a prefetch.
    #[inline]
    fn address(&self) -> usize {
        core::ptr::from_ref(self) as usize
    }

    /// The value of `key`, or `None` where this bucket does not have it.
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        // A repeat needs a completed change of a key in this bucket meanwhile; 64 in a row are given up, as an absent key.
        for _ in 0..64 {
            let before = self.changes.load(Acquire);
            // No branch for each slot, as nobody can foretell which one it is. No two have a value for the same key.
            let found = self.slots.iter().fold(0, |found, slot| {
                let is_it = u64::from(slot.key.load(Acquire) == key);
                found | slot.value.load(Acquire) & is_it.wrapping_neg()
            });
            if self.changes.load(Acquire) == before {
                return (found != 0).then_some(found);
            }
        }
        None
    }

    /// The slot of `key`, where this bucket has it; for the writer.
    fn slot_of(&self, key: u64) -> Option<&Slot> {
        let has = |slot: &&Slot| slot.key.load(Relaxed) == key && slot.value.load(Relaxed) != 0;
        self.slots.iter().find(has)
    }

    /// Gives `slot`, which is empty, to `key`; in the order the module promises.
    fn replace(&self, slot: &Slot, key: u64, value: u64) {
        slot.key.store(key, Release);
        self.changed();
        slot.value.store(value, Release);
    }

    fn changed(&self) {
        self.changes.store(self.changes.load(Relaxed) + 1, Release);
    }
}
