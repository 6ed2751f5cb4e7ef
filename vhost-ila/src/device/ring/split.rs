//! A split ring (virtio 1.2, 2.7): its indices and notifications.
//!
//! What must stay true: chains are finished in the order they were taken, so that a chain's place in the used ring is the one it had in
//! the available ring.

use std::ops::Range;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::chain::{Chain, Direction, KIND, Single, Singles, Walk};
use super::layout::{Descriptor, Layout};
use super::{BATCH, Ring, RingFault, RingSpec};
use crate::device::dirty_log::RingLog;
use crate::device::memory::{GuestMemory, Segment};

/// Indices and notifications of one split ring, both directions.
#[derive(Debug)]
pub(super) struct SplitRing {
    layout: Layout,
    event_idx: bool,
    /// The next available entry to take.
    next_available: u16,
    /// The next used entry to write: what lies between the two was taken and is not finished.
    next_used: u16,
    /// `used.idx` as last published.
    published: u16,
    /// `used.idx` when the driver was last considered for a signal; None until then, which asks for one unconditionally: what a
    /// previous life of this ring signalled is unknown.
    considered: Option<u16>,
    /// Where what we write is marked, while that is wanted.
    log: Option<Box<RingLog>>,
}

/// The heads of chains whose descriptors were asked for.
#[derive(Debug)]
pub(super) struct Heads([u16; BATCH]);

impl Default for Heads {
    fn default() -> Self {
        Self([0; BATCH])
    }
}

/// Heads that are taken.
struct Taken<'a> {
    layout: &'a Layout,
    heads: slice::Iter<'a, [u16; 4]>,
    kind: u16,
}

impl Taken<'_> {
    #[inline(always)]
    fn one(&self, head: u16) -> Option<(Single, u16)> {
        let Descriptor { address, len, flags, .. } = self.layout.descriptor(head)?;
        Some((Single { address, what: u64::from(head) << 32 | u64::from(len) }, flags ^ self.kind))
    }
}

impl Singles for Taken<'_> {
    #[inline(always)]
    fn four(&mut self, _: usize) -> Option<[Single; 4]> {
        let [a, b, c, d] = *self.heads.next()?;
        let [(a, in_a), (b, in_b), (c, in_c), (d, in_d)] =
            [self.one(a)?, self.one(b)?, self.one(c)?, self.one(d)?];
        ((in_a | in_b | in_c | in_d) & KIND == 0).then_some([a, b, c, d])
    }
}

impl SplitRing {
    /// How many entries the driver has made available that were not taken.
    #[inline]
    fn waiting(&self) -> Result<u16, RingFault> {
        let count = self.layout.available_index().wrapping_sub(self.next_used);
        if count > self.layout.size {
            return Err(RingFault::AvailableIndex);
        }
        // The index may have gone back behind what was taken.
        Ok(count.saturating_sub(self.next_available.wrapping_sub(self.next_used)))
    }

    /// Marks the used elements that are about to be published, and what frames left waiting.
    #[cold]
    fn mark_elements(&mut self) {
        let Some(log) = &mut self.log else { return };
        let size = self.layout.size;
        let first = self.published & (size - 1);
        let count = self.next_used.wrapping_sub(self.published).min(size);
        // Up to the ring's end, and from its beginning again.
        let straight = count.min(size - first);
        log.wrote_used(4 + 8 * u64::from(first), 8 * u64::from(straight));
        if count > straight {
            log.wrote_used(4, 8 * u64::from(count - straight));
        }
    }

    /// Marks `avail_event` or `used.flags`, whichever says whether kicks are wanted.
    fn mark_wish(&mut self) {
        if let Some(log) = &mut self.log {
            let offset = if self.event_idx { 4 + 8 * u64::from(self.layout.size) } else { 0 };
            log.wrote_used(offset, 2);
        }
    }
}

impl Ring for SplitRing {
    type Found = Heads;

    fn new(spec: &RingSpec, _: Direction) -> Result<Self, RingFault> {
        let layout = Layout::new(Arc::clone(&spec.memory), spec.addresses, spec.size)?;
        let index = layout.used_index();
        let (used, len) = layout.used_range();
        let log = spec.log.as_ref().map(|log| RingLog::new(log, &layout.memory, used, len).map(Box::new));
        Ok(Self {
            log: log.transpose()?,
            layout,
            event_idx: spec.event_idx,
            next_available: index,
            next_used: index,
            published: index,
            considered: None,
        })
    }

    #[inline]
    fn memory(&self) -> &Arc<GuestMemory> {
        &self.layout.memory
    }

    #[inline]
    fn log(&mut self) -> Option<(&mut RingLog, &GuestMemory)> {
        Some((self.log.as_deref_mut()?, &self.layout.memory))
    }

    #[inline]
    fn expect(&self) {
        self.layout.prefetch_available(self.next_available);
    }

    #[inline]
    fn expect_to_publish(&self) {
        self.layout.prefetch_used_index();
    }

    #[inline]
    fn look(&self, want: usize, found: &mut Heads) -> Result<usize, RingFault> {
        let count = usize::from(self.waiting()?).min(want).min(BATCH);
        for (i, head) in found.0[..count].iter_mut().enumerate() {
            *head = self.layout.available_head(self.next_available.wrapping_add(i as u16));
            self.layout.prefetch_descriptor(*head);
        }
        self.layout.prefetch_used(self.next_available, count);
        Ok(count)
    }

    #[inline]
    fn first_byte(&self, found: &Heads, index: usize) -> Option<usize> {
        let descriptor = self.layout.descriptor(*found.0.get(index)?)?;
        let piece = self.layout.memory.piece(descriptor.address, descriptor.len, &mut 0)?;
        Some(piece.address() as usize)
    }

    #[inline(always)]
    fn chain(
        &mut self,
        found: &Heads,
        index: usize,
        walk: &mut Walk,
        (arena, chains): (&mut Vec<Segment>, &mut Vec<Chain>),
    ) -> Result<Option<u32>, RingFault> {
        let Some(head) = found.0.get(index) else { return Ok(None) };
        let len = walk.chain(&self.layout, *head, arena, chains)?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(len))
    }

    #[inline(always)]
    fn fours(
        &mut self,
        found: &Heads,
        which: Range<usize>,
        walk: &Walk,
        to: (&mut Vec<Segment>, &mut Vec<Chain>),
    ) -> (usize, usize) {
        let (heads, _) = found.0.get(which.clone()).unwrap_or_default().as_chunks();
        let heads = Taken { layout: &self.layout, heads: heads.iter(), kind: walk.kind() };
        let (count, bytes) = walk.fours(&self.layout.memory, which.len(), to, heads);
        self.next_available = self.next_available.wrapping_add(count as u16);
        (count, bytes)
    }

    #[inline]
    fn leave(&mut self, chains: &[Chain]) {
        self.next_available = self.next_available.wrapping_sub(chains.len() as u16);
    }

    #[inline]
    fn finish(&mut self, chain: &Chain, len: u32) {
        self.layout.write_used(self.next_used, chain.id(), len);
        self.next_used = self.next_used.wrapping_add(1);
    }

    #[inline]
    fn finish_unwritten(&mut self, chains: &[Chain]) {
        for chain in chains {
            self.finish(chain, 0);
        }
    }

    #[inline]
    fn publish(&mut self) -> bool {
        if self.next_used == self.published {
            return false;
        }
        if self.log.is_some() {
            self.mark_elements();
        }
        self.layout.publish_used(self.next_used);
        self.published = self.next_used;
        if let Some(log) = &mut self.log {
            log.wrote_used(2, 2);
        }
        // Our index must be out before the driver's wish is read, or both sides wait (2.7.7.2, 2.7.10).
        fence(Ordering::SeqCst);
        if !self.event_idx {
            return !self.layout.interrupts_unwanted();
        }
        let before = self.considered.replace(self.published);
        before.is_none_or(|before| passed(self.layout.used_event(), self.published, before))
    }

    fn want_kicks(&mut self) -> Result<bool, RingFault> {
        if self.event_idx {
            self.layout.set_available_event(self.next_available);
        } else {
            self.layout.set_kicks_unwanted(false);
        }
        self.mark_wish();
        fence(Ordering::SeqCst);
        Ok(self.waiting()? > 0)
    }

    /// With EVENT_IDX there is nothing to say: the driver kicks once, as it passes the old index.
    fn refuse_kicks(&mut self) {
        if !self.event_idx {
            self.layout.set_kicks_unwanted(true);
            self.mark_wish();
        }
    }

    fn is_poisoned(&self) -> bool {
        self.layout.memory.is_poisoned() || self.log.as_ref().is_some_and(|log| log.is_poisoned())
    }

    fn base(&self) -> u32 {
        self.next_used.into()
    }
}

/// Whether going from `old` to `new` passes `event` (virtio 1.2, 2.7.10: `vring_need_event`).
#[inline]
fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
