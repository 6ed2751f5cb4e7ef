//! Where a packed ring's three parts lie in our address space (virtio 1.2, 2.8), and how they are read and written.
//!
//! What must stay true: each half of a descriptor, and each event suppression structure, is read or written by one atomic access, below the
//! ring's size; a half is read once, so that what was checked in the copy holds. Values are little endian.

use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::place::Place;
use crate::device::cpu;
use crate::device::memory::GuestMemory;
use crate::device::ring::chain::{Direction, KIND, Single};
use crate::device::ring::layout::{Descriptor, F_WRITE, reads};
use crate::device::ring::{MAX_SIZE, RingAddresses, RingFault};

/// In a descriptor's flags: compared with the wrap counter (2.8.1).
const F_AVAIL: u16 = 1 << 7;
/// As above.
const F_USED: u16 = 1 << 15;

/// Descriptors of a cache line.
pub(super) const LINE: u16 = 4;

/// A descriptor as it is shared: its address; length, id and flags.
type Halves = [AtomicU64; 2];

/// What one side wants to be told of (2.8.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// Everything.
    Enable = 0,
    /// Nothing.
    Disable = 1,
    /// When a certain descriptor is reached; with EVENT_IDX only.
    Descriptor = 2,
}

/// What has become of a descriptor in one lap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nothing yet: the driver has not come so far.
    Before,
    /// Made available; or skipped, within a chain that was given back.
    Available,
    /// Given back.
    Used,
}

/// A packed ring resolved to host addresses.
#[derive(Debug)]
pub(super) struct Layout {
    descriptors: *mut u8,
    driver: *mut u32,
    device: *mut u32,
    pub(super) size: u16,
    direction: Direction,
    /// Keeps every address above valid.
    pub(super) memory: Arc<GuestMemory>,
}

// SAFETY: the pointers go into `memory`, kept alive here and the same in every thread; the ring has one owner at a time.
unsafe impl Send for Layout {}

impl Layout {
    pub(super) fn new(
        memory: Arc<GuestMemory>,
        at: RingAddresses,
        (size, direction): (u16, Direction),
    ) -> Result<Self, RingFault> {
        if size == 0 || size > MAX_SIZE {
            return Err(RingFault::Size);
        }
        let descriptors = memory.ring_part(at.descriptors, 16 * u64::from(size)).ok_or(RingFault::Address)?;
        let driver = memory.ring_part(at.available, 4).ok_or(RingFault::Address)?;
        let device = memory.ring_part(at.used, 4).ok_or(RingFault::Address)?;
        if !(descriptors as usize).is_multiple_of(16)
            || !(driver as usize).is_multiple_of(4)
            || !(device as usize).is_multiple_of(4)
        {
            return Err(RingFault::Address);
        }
        Ok(Self { descriptors, driver: driver.cast(), device: device.cast(), size, direction, memory })
    }

    /// Where the descriptors begin here, and their bytes.
    pub(super) fn descriptor_range(&self) -> (*const u8, u64) {
        (self.descriptors, 16 * u64::from(self.size))
    }

    /// Where the device area is here, and its bytes.
    pub(super) fn device_range(&self) -> (*const u8, u64) {
        (self.device.cast(), 4)
    }

    /// All descriptors.
    #[inline(always)]
    fn table(&self) -> &[Halves] {
        // SAFETY: the 16 * size bytes that `new` checked, and 8-aligned as those are 16-aligned; the reference does not outlive self, which
        // keeps the memory. The guest writes the same bytes, which atomics are for.
        unsafe { slice::from_raw_parts(self.descriptors.cast(), self.size.into()) }
    }

    /// The descriptor at `place`.
    #[inline]
    fn entry(&self, place: Place) -> &Halves {
        // SAFETY: offset < size; otherwise as above.
        unsafe { &*self.descriptors.cast::<Halves>().add(place.offset(self.size).into()) }
    }

    /// Length, id and flags at `place`; what the driver wrote before them is visible after this.
    #[inline]
    fn tail(&self, place: Place) -> u64 {
        let [_, tail] = self.entry(place);
        u64::from_le(tail.load(Ordering::Acquire))
    }

    /// The descriptor at `place`, if the driver has made it available in that lap.
    #[inline]
    pub(super) fn available(&self, place: Place) -> Option<Descriptor> {
        let tail = self.tail(place);
        let mine = if place.wrap(self.size) { F_AVAIL } else { F_USED };
        ((tail >> 48) as u16 & (F_AVAIL | F_USED) == mine).then(|| self.whole(place, tail))
    }

    /// Whether there is one.
    #[inline]
    pub(super) fn is_available(&self, place: Place) -> bool {
        let mine = if place.wrap(self.size) { F_AVAIL } else { F_USED };
        (self.tail(place) >> 48) as u16 & (F_AVAIL | F_USED) == mine
    }

    /// The descriptor at `place`, which lies in a chain whose first one was available: the driver had written it before.
    #[inline]
    pub(super) fn descriptor(&self, place: Place) -> Descriptor {
        self.whole(place, self.tail(place))
    }

    /// The descriptors from `place` to the ring's end, by lines, of this kind.
    #[inline(always)]
    pub(super) fn lines(&self, place: Place, kind: u16) -> Lines<'_> {
        let entries = self.table().get(usize::from(place.offset(self.size))..).unwrap_or_default();
        let mine = if place.wrap(self.size) { F_AVAIL } else { F_USED };
        Lines { lines: entries.as_chunks().0.iter(), flags: u64::from(mine | kind) << 48 }
    }

    #[inline]
    fn whole(&self, place: Place, tail: u64) -> Descriptor {
        whole(self.entry(place), tail)
    }

    /// Writes used descriptors from `place` on, up to the ring's end; those behind another that was not written yet are not seen by the driver.
    /// Which are left.
    #[inline]
    pub(super) fn write_used<'a>(&self, place: Place, used: &'a [Used]) -> &'a [Used] {
        let flags = self.used_flags(place);
        let entries = self.table().get(usize::from(place.offset(self.size))..).unwrap_or_default();
        for ([_, tail], used) in entries.iter().zip(used) {
            tail.store(used.with(flags), Ordering::Relaxed);
        }
        used.get(entries.len()..).unwrap_or_default()
    }

    /// Writes the first used descriptor of a batch: everything written before is visible to whoever reads it.
    #[inline]
    pub(super) fn publish_used(&self, place: Place, used: Used) {
        let [_, tail] = self.entry(place);
        tail.store(used.with(self.used_flags(place)), Ordering::Release);
    }

    /// The flags of what is given back at `place`: its lap's, and whether something was written into it, as always or never in one ring.
    #[inline]
    fn used_flags(&self, place: Place) -> u16 {
        let lap = if place.wrap(self.size) { F_AVAIL | F_USED } else { 0 };
        let write = if self.direction == Direction::Writable { F_WRITE } else { 0 };
        lap | write
    }

    /// What the driver wants to be told of, and the offset and wrap counter it names.
    #[inline]
    pub(super) fn driver_wish(&self) -> (Wish, u16) {
        // SAFETY: 4 bytes that `new` checked, 4-aligned; otherwise as for `half`.
        let word = u32::from_le(unsafe { AtomicU32::from_ptr(self.driver) }.load(Ordering::Relaxed));
        let wish = match word >> 16 & 3 {
            1 => Wish::Disable,
            2 => Wish::Descriptor,
            _ => Wish::Enable,
        };
        (wish, word as u16)
    }

    /// The place that the device area names: the one last given to [`Self::set_device_wish`], by whoever served the ring.
    pub(super) fn noted(&self) -> Option<Place> {
        // SAFETY: as above.
        let word = u32::from_le(unsafe { AtomicU32::from_ptr(self.device) }.load(Ordering::Acquire));
        Place::from_word(word as u16, self.size)
    }

    /// What the flags at `place` say of that lap.
    pub(super) fn state(&self, place: Place) -> State {
        let flags = (self.tail(place) >> 48) as u16;
        let lap = place.wrap(self.size);
        match (flags & F_AVAIL != 0, flags & F_USED != 0) {
            (available, _) if available != lap => State::Before,
            (_, used) if used == lap => State::Used,
            _ => State::Available,
        }
    }

    /// Whether any descriptor was given back in an odd lap, and was not zeroed by its driver since.
    pub(super) fn is_used(&self) -> bool {
        (0..self.size).any(|at| self.tail(Place::FIRST.after(at, self.size)) >> 48 & u64::from(F_USED) != 0)
    }

    /// Says what we want to be told of; `place` counts for [`Wish::Descriptor`].
    #[inline]
    pub(super) fn set_device_wish(&self, wish: Wish, place: Place) {
        let word = (wish as u32) << 16 | u32::from(place.word(self.size));
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.device) }.store(word.to_le(), Ordering::Release);
    }

    /// Brings the lines of `count` descriptors from `place` on in: to be written as well, or only read.
    #[inline]
    pub(super) fn prefetch(&self, place: Place, count: u16, to_write: bool) {
        let offset = place.offset(self.size);
        let straight = count.min(self.size - offset);
        self.prefetch_straight(offset, straight, to_write);
        if straight < count {
            self.prefetch_straight(0, (count - straight).min(self.size), to_write);
        }
    }

    #[inline]
    fn prefetch_straight(&self, offset: u16, count: u16, to_write: bool) {
        let begin = (self.descriptors as usize).wrapping_add(16 * usize::from(offset));
        let end = begin.wrapping_add(16 * usize::from(count));
        let mut line = begin & !63;
        while line < end {
            if to_write {
                cpu::prefetch_to_write(line);
            } else {
                cpu::prefetch(line);
            }
            line += 64;
        }
    }
}

/// As many descriptors at a time as a line has.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    lines: slice::Iter<'a, [Halves; LINE as usize]>,
    /// What those have that are available in this lap, and of the kind that is looked for.
    flags: u64,
}

impl Lines<'_> {
    /// The next ones, if all are available and single buffers.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<[Single; LINE as usize]> {
        const ASKED: u64 = (F_AVAIL | F_USED | KIND) as u64;
        let [a, b, c, d] = self.lines.next()?;
        // All four are there before any of their first halves is read.
        let tail = |[_, tail]: &Halves| u64::from_le(tail.load(Ordering::Acquire));
        let [of_a, of_b, of_c, of_d] = [tail(a), tail(b), tail(c), tail(d)];
        let odd = of_a ^ self.flags | of_b ^ self.flags | of_c ^ self.flags | of_d ^ self.flags;
        if odd & ASKED << 48 != 0 {
            return None;
        }
        let single = |[address, _]: &Halves, what| {
            reads::count();
            Single { address: u64::from_le(address.load(Ordering::Relaxed)), what }
        };
        Some([single(a, of_a), single(b, of_b), single(c, of_c), single(d, of_d)])
    }
}

/// The descriptor whose second half was read as `tail`.
#[inline(always)]
fn whole([address, _]: &Halves, tail: u64) -> Descriptor {
    reads::count();
    let address = u64::from_le(address.load(Ordering::Relaxed));
    Descriptor { address, len: tail as u32, flags: (tail >> 48) as u16, next: (tail >> 32) as u16 }
}

/// Length and id of a used descriptor.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Used(u64);

impl Used {
    /// Buffer `id` is given back, with `len` bytes written into it.
    #[inline(always)]
    pub(super) fn new(id: u16, len: u32) -> Self {
        Self(u64::from(id) << 32 | u64::from(len))
    }

    /// What a ring has of it, with the flags of its lap and direction.
    #[inline(always)]
    fn with(self, flags: u16) -> u64 {
        (self.0 | u64::from(flags) << 48).to_le()
    }
}
