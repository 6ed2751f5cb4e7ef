//! Where a split ring's three parts lie in our address space (virtio 1.2, 2.7), and how their fields are read and written.
//!
//! What must stay true: every field shared with the guest is read or written by one volatile or atomic access at an index that
//! was reduced modulo the ring's size; values are little endian.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::RingFault;
use crate::device::cpu;
use crate::device::memory::GuestMemory;

/// Buffer continues at `next`.
pub(super) const F_NEXT: u16 = 1;
/// The device writes into the buffer.
pub(super) const F_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub(super) const F_INDIRECT: u16 = 4;
/// In `avail.flags`: the driver wants no interrupts.
const AVAIL_NO_INTERRUPT: u16 = 1;
/// In `used.flags`: the device wants no kicks.
const USED_NO_NOTIFY: u16 = 1;

/// A descriptor, copied out of guest memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    /// Where a split ring's chain goes on; the buffer id in a packed ring.
    pub(super) next: u16,
}

impl Descriptor {
    /// Bytes of one in guest memory.
    pub(super) const SIZE: u32 = 16;

    /// Reads one.
    ///
    /// # Safety
    /// `at` is readable for 16 bytes; it need not be aligned.
    #[inline]
    pub(super) unsafe fn read(at: *const u8) -> Self {
        reads::count();
        // SAFETY: the caller's. Volatile, so that each byte is fetched exactly once: a check on the copy holds for its use.
        let [low, high] = unsafe { at.cast::<[Unaligned; 2]>().read_volatile() };
        let (low, high) = (u64::from_le(low.0), u64::from_le(high.0));
        Self { address: low, len: high as u32, flags: (high >> 32) as u16, next: (high >> 48) as u16 }
    }

    /// The same 16 bytes as a packed ring's driver writes them: there the flags are last (2.8.8).
    #[inline]
    pub(super) fn packed(self) -> Self {
        Self { flags: self.next, next: self.flags, ..self }
    }
}

/// How many descriptors this thread has read: what bounded work means is measured, in tests and by fuzzing only.
#[cfg(any(test, fuzzing))]
pub(super) mod reads {
    use std::cell::Cell;

    thread_local! {
        static READS: Cell<u64> = const { Cell::new(0) };
    }

    pub(in crate::device::ring) fn count() {
        READS.set(READS.get() + 1);
    }

    pub(in crate::device::ring) fn so_far() -> u64 {
        READS.get()
    }
}

#[cfg(not(any(test, fuzzing)))]
pub(super) mod reads {
    #[inline]
    pub(in crate::device::ring) fn count() {}
}

/// An indirect table may start at any address.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned(u64);

/// What a front-end said about one ring; addresses are its own process's (vhost-user, "A vring address description").
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RingAddresses {
    /// Descriptor table.
    pub descriptors: u64,
    /// Driver area.
    pub available: u64,
    /// Device area.
    pub used: u64,
}

/// A split ring resolved to host addresses.
#[derive(Debug)]
pub(super) struct Layout {
    descriptors: *const u8,
    available: *const u16,
    used: *mut u16,
    pub(super) size: u16,
    /// Keeps every address above valid.
    pub(super) memory: Arc<GuestMemory>,
}

// SAFETY: the pointers go into `memory`, kept alive here and the same in every thread; the ring has one owner at a time.
unsafe impl Send for Layout {}

impl Layout {
    pub(super) fn new(memory: Arc<GuestMemory>, at: RingAddresses, size: u16) -> Result<Self, RingFault> {
        if !size.is_power_of_two() || size > super::MAX_SIZE {
            return Err(RingFault::Size);
        }
        let entries = u64::from(size);
        // Both rings end with an event index (2.7.6, 2.7.8), there whether it is negotiated or not.
        let descriptors = memory.ring_part(at.descriptors, 16 * entries).ok_or(RingFault::Address)?;
        let available = memory.ring_part(at.available, 6 + 2 * entries).ok_or(RingFault::Address)?;
        let used = memory.ring_part(at.used, 6 + 8 * entries).ok_or(RingFault::Address)?;
        if !(descriptors as usize).is_multiple_of(16)
            || !(available as usize).is_multiple_of(2)
            || !(used as usize).is_multiple_of(4)
        {
            return Err(RingFault::Address);
        }
        Ok(Self { descriptors, available: available.cast(), used: used.cast(), size, memory })
    }

    /// Where the device area begins here, and its bytes.
    pub(super) fn used_range(&self) -> (*const u8, u64) {
        (self.used.cast_const().cast(), 6 + 8 * u64::from(self.size))
    }

    #[inline]
    fn mask(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    /// 16-bit word number `word` of the driver area.
    #[inline]
    fn available(&self, word: usize) -> &AtomicU16 {
        // SAFETY: word <= size + 2, inside the 6 + 2 * size bytes that `new` checked, and 2-aligned; the reference does not outlive
        // self, which keeps the memory. The guest writes the same bytes, which an atomic is for.
        unsafe { AtomicU16::from_ptr(self.available.add(word).cast_mut()) }
    }

    /// 16-bit word number `word` of the device area.
    #[inline]
    fn used(&self, word: usize) -> &AtomicU16 {
        // SAFETY: as above: word <= 2 + 4 * size, inside 6 + 8 * size bytes.
        unsafe { AtomicU16::from_ptr(self.used.add(word)) }
    }

    /// `avail.idx`; what the driver wrote before it is visible after this.
    #[inline]
    pub(super) fn available_index(&self) -> u16 {
        u16::from_le(self.available(1).load(Ordering::Acquire))
    }

    /// `avail.ring[index]`.
    #[inline]
    pub(super) fn available_head(&self, index: u16) -> u16 {
        u16::from_le(self.available(2 + self.mask(index)).load(Ordering::Relaxed))
    }

    /// `avail.flags` says the driver wants no interrupts.
    #[inline]
    pub(super) fn interrupts_unwanted(&self) -> bool {
        u16::from_le(self.available(0).load(Ordering::Relaxed)) & AVAIL_NO_INTERRUPT != 0
    }

    /// `used_event`, where EVENT_IDX is negotiated.
    #[inline]
    pub(super) fn used_event(&self) -> u16 {
        u16::from_le(self.available(2 + usize::from(self.size)).load(Ordering::Relaxed))
    }

    /// `used.idx` as it lies in memory.
    pub(super) fn used_index(&self) -> u16 {
        u16::from_le(self.used(1).load(Ordering::Acquire))
    }

    /// Publishes `used.idx`: everything written before is visible to whoever reads it.
    #[inline]
    pub(super) fn publish_used(&self, index: u16) {
        self.used(1).store(index.to_le(), Ordering::Release);
    }

    /// Writes `used.ring[index]`; not visible to the driver until published.
    #[inline]
    pub(super) fn write_used(&self, index: u16, head: u16, len: u32) {
        let element = (u64::from(len) << 32 | u64::from(head)).to_le();
        // SAFETY: 4 + 8 * mask(index) + 8 <= 6 + 8 * size, inside what `new` checked; `used` is only 4-aligned.
        unsafe {
            self.used.add(2 + 4 * self.mask(index)).cast::<Unaligned>().write_volatile(Unaligned(element))
        }
    }

    /// `avail_event`, where EVENT_IDX is negotiated: a kick is wanted when the driver passes `index`.
    #[inline]
    pub(super) fn set_available_event(&self, index: u16) {
        self.used(2 + 4 * usize::from(self.size)).store(index.to_le(), Ordering::Relaxed);
    }

    /// `used.flags`, where EVENT_IDX is not negotiated.
    #[inline]
    pub(super) fn set_kicks_unwanted(&self, unwanted: bool) {
        let flags = if unwanted { USED_NO_NOTIFY } else { 0 };
        self.used(0).store(flags.to_le(), Ordering::Relaxed);
    }

    /// A descriptor of the ring's own table; None if there is no such one.
    #[inline]
    pub(super) fn descriptor(&self, index: u16) -> Option<Descriptor> {
        if index >= self.size {
            return None;
        }
        // SAFETY: index < size, and the table has 16 * size bytes, checked by `new`.
        Some(unsafe { Descriptor::read(self.descriptors.add(16 * usize::from(index))) })
    }

    /// Brings the lines in of `avail.idx` and of the entries from `index` on.
    #[inline]
    pub(super) fn prefetch_available(&self, index: u16) {
        let entry = (self.available as usize).wrapping_add(4 + 2 * self.mask(index));
        cpu::prefetch(self.available as usize);
        cpu::prefetch(entry);
        cpu::prefetch(entry.wrapping_add(64));
    }

    /// Brings the line of a descriptor in, whatever the index.
    #[inline]
    pub(super) fn prefetch_descriptor(&self, index: u16) {
        cpu::prefetch((self.descriptors as usize).wrapping_add(16 * self.mask(index)));
    }

    /// Brings the line of `used.idx` in, to be written.
    #[inline]
    pub(super) fn prefetch_used_index(&self) {
        cpu::prefetch_to_write(self.used as usize);
    }

    /// Brings the lines of `count` used elements in, to be written.
    #[inline]
    pub(super) fn prefetch_used(&self, index: u16, count: usize) {
        for at in (0..count as u16).step_by(8) {
            cpu::prefetch((self.used as usize).wrapping_add(4 + 8 * self.mask(index.wrapping_add(at))));
        }
    }
}
