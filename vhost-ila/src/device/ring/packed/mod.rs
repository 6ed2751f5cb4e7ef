//! A packed ring (virtio 1.2, 2.8): one table of descriptors, in which both sides write in turn.
//!
//! What must stay true:
//!
//! * Whether a descriptor is available is asked of its flags in the lap we are in; what else it says is believed only as it was copied
//!   with them. The others of a chain were written before the first one's flags, so they are read without asking.
//! * Descriptors taken and not finished are never more than the ring has: a chain that would make them more is [`RingFault::Endless`].
//! * The offset of the device area, which the driver reads only where we say so by its flags, always names what is given back next:
//!   it is to a packed ring what the used index is to a split one, and where the next daemon goes on.
//! * A chain is given back by its id at the place where its first descriptor was; its other places are skipped, so chains come back in the
//!   order they were taken. The first used descriptor of a batch is written last, which shows the whole batch; the others just before, together.
//!
//! ```text
//!   published          next_used            next_available
//!       │ finished, the first │ taken: being sent   │ the driver's
//!       │ held back           │ or written          │
//!   place.rs  offset and lap    layout.rs  the shared bytes    start.rs  where a ring goes on that somebody else has served
//!   log.rs    pages that were written
//! ```

mod layout;
mod log;
mod place;
mod start;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use layout::{LINE, Layout, Lines, Used, Wish};
use log::PackedLog;
use place::Place;

use super::chain::{Chain, Direction, Single, Singles, Walk};
use super::layout::{Descriptor, F_INDIRECT, F_NEXT};
use super::{BATCH, MAX_CHAIN, Ring, RingFault, RingSpec};
use crate::device::dirty_log::RingLog;
use crate::device::memory::{GuestMemory, Segment};

/// Descriptors asked for ahead of the one that is looked at, where the batch before was no longer: some lines, not so many that those which
/// the driver still writes are taken away from it.
const ASKED_AHEAD: u16 = 16;

/// Places and notifications of one packed ring, both directions.
#[derive(Debug)]
pub(super) struct PackedRing {
    layout: Layout,
    event_idx: bool,
    in_order: bool,
    /// The next descriptor to take.
    next_available: Place,
    /// Where the oldest chain that was taken and not given back began.
    next_used: Place,
    /// Where the first finished chain began that was not shown.
    published: Place,
    /// What shows it, once something is written behind it.
    first: Option<Used>,
    /// Finished chains of one descriptor each, from `next_used` on, which are not written yet: a batch of them is, at once.
    finished: Box<[Used; BATCH]>,
    /// How many those are.
    unwritten: usize,
    /// How many descriptors were shown last: as many are asked for before the next are looked at.
    usual: u16,
    /// Whether each descriptor is written, as it is given back; else they are read, and one of a batch is written.
    writes_all: bool,
    /// What was shown when the driver was last considered for a signal; None as in a split ring.
    considered: Option<Place>,
    /// What was said about kicks last.
    wish: Wish,
    /// Where what we write is marked, while that is wanted.
    log: Option<Box<PackedLog>>,
}

impl PackedRing {
    /// Descriptors that may be taken.
    #[inline]
    fn room(&self) -> u16 {
        let size = self.layout.size;
        size.saturating_sub(self.next_available.since(self.next_used, size))
    }

    /// A chain in the ring itself: its bytes, descriptors and id.
    #[inline]
    fn direct(
        &self,
        mut descriptor: Descriptor,
        room: u16,
        walk: &mut Walk,
        arena: &mut Vec<Segment>,
    ) -> Result<(u32, u16, u16), RingFault> {
        let mut len = 0;
        let mut place = self.next_available;
        for entries in 1..=room.min(MAX_CHAIN) {
            len = walk.buffer(&self.layout.memory, descriptor, len, arena)?;
            if descriptor.flags & F_NEXT == 0 {
                // The last one's id counts (2.8.6).
                return Ok((len, entries, descriptor.next));
            }
            place = place.after(1, self.layout.size);
            descriptor = self.layout.descriptor(place);
            if descriptor.flags & F_INDIRECT != 0 {
                return Err(RingFault::Indirect);
            }
        }
        Err(RingFault::Endless)
    }

    /// A chain in a table of its own, one entry after the other (2.8.7).
    fn indirect(
        &self,
        table: Descriptor,
        walk: &mut Walk,
        arena: &mut Vec<Segment>,
    ) -> Result<u32, RingFault> {
        let entries = walk.table(table, self.layout.size)?;
        if entries > u32::from(MAX_CHAIN) {
            return Err(RingFault::Endless);
        }
        let mut len = 0;
        for index in 0..entries {
            let entry = walk.table_entry(&self.layout.memory, table, index)?.packed();
            if entry.flags & F_INDIRECT != 0 {
                return Err(RingFault::Indirect);
            }
            len = walk.buffer(&self.layout.memory, entry, len, arena)?;
        }
        Ok(len)
    }

    /// Writes a used descriptor for chains that took `entries`.
    #[inline]
    fn use_up(&mut self, used: Used, entries: u16) {
        self.write_finished();
        if self.first.is_none() {
            self.first = Some(used);
        } else {
            self.layout.write_used(self.next_used, &[used]);
        }
        self.next_used = self.next_used.after(entries, self.layout.size);
    }

    /// A chain of several descriptors is finished, or one more than there is room for.
    #[inline(never)]
    fn finish_now(&mut self, used: Used, entries: u16) {
        self.use_up(used, entries);
    }

    /// Writes those that are finished.
    #[inline]
    fn write_finished(&mut self) {
        let Self { layout, first, finished, .. } = self;
        let mut used = finished.get(..std::mem::take(&mut self.unwritten)).unwrap_or_default();
        // They were taken, so they are no more than the ring has.
        let end = self.next_used.after(used.len() as u16, layout.size);
        let mut place = self.next_used;
        if first.is_none()
            && let Some((head, others)) = used.split_first()
        {
            (*first, used) = (Some(*head), others);
            place = place.after(1, layout.size);
        }
        let left = layout.write_used(place, used);
        // They begin again where the ring does.
        layout.write_used(end.before(left.len() as u16, layout.size), left);
        self.next_used = end;
    }

    /// A chain of another kind than one buffer in one region.
    #[inline(never)]
    fn chain_of_several(
        &self,
        head: Descriptor,
        room: u16,
        walk: &mut Walk,
        (arena, chains): (&mut Vec<Segment>, &mut Vec<Chain>),
    ) -> Result<(u32, u16), RingFault> {
        let first = arena.len();
        let (len, entries, id) = if head.flags & F_INDIRECT == 0 {
            self.direct(head, room, walk, arena)?
        } else {
            (self.indirect(head, walk, arena)?, 1, head.next)
        };
        chains.push(Chain::new(id, entries, (first, (arena.len() - first) as u16), len));
        Ok((len, entries))
    }

    fn say(&mut self, wish: Wish) {
        self.wish = wish;
        self.note();
    }

    /// Writes the device area: what we want to be told of, and where we are.
    #[inline]
    fn note(&mut self) {
        self.layout.set_device_wish(self.wish, self.next_used);
        if let Some(log) = &mut self.log {
            log.wish.wrote_used(0, 4);
        }
    }

    /// Whether the driver wants to be told that everything before `self.published` is shown.
    #[inline]
    fn is_signal_wanted(&mut self) -> bool {
        let before = self.considered.replace(self.published);
        match self.layout.driver_wish() {
            (Wish::Disable, _) => false,
            (Wish::Descriptor, word) if self.event_idx => {
                let size = self.layout.size;
                let (Some(before), Some(event)) = (before, Place::from_word(word, size)) else { return true };
                // The event is one of those shown since.
                event.since(before, size) < self.published.since(before, size)
            }
            (Wish::Enable | Wish::Descriptor, _) => true,
        }
    }
}

/// Lines that are taken, while others behind them are asked for.
struct Ahead<'a> {
    ring: &'a PackedRing,
    lines: Lines<'a>,
    /// So many descriptors were asked for already, but for those that are always.
    asked: usize,
}

impl Singles for Ahead<'_> {
    #[inline(always)]
    fn four(&mut self, done: usize) -> Option<[Single; 4]> {
        if done >= self.asked {
            let PackedRing { layout, next_available, writes_all, .. } = self.ring;
            let ahead = (done as u16 + ASKED_AHEAD).min(layout.size);
            layout.prefetch(next_available.after(ahead, layout.size), 1, *writes_all);
        }
        self.lines.next()
    }
}

impl Ring for PackedRing {
    type Found = ();

    fn new(spec: &RingSpec, direction: Direction) -> Result<Self, RingFault> {
        let layout = Layout::new(Arc::clone(&spec.memory), spec.addresses, (spec.size, direction))?;
        let said = match spec.base {
            None => Place::FIRST,
            // The upper half says where used descriptors go on: there too, as all that was taken is finished when a ring stops.
            Some(base) => Place::from_word(base as u16, spec.size).ok_or(RingFault::Base)?,
        };
        let begin = start::place(&layout, said);
        let log = spec.log.as_ref().map(|log| PackedLog::new(log, &layout).map(Box::new)).transpose()?;
        Ok(Self {
            layout,
            event_idx: spec.event_idx,
            in_order: spec.in_order,
            next_available: begin,
            next_used: begin,
            published: begin,
            first: None,
            finished: Box::new([Used::default(); BATCH]),
            unwritten: 0,
            usual: 0,
            writes_all: !spec.in_order || direction == Direction::Writable,
            considered: None,
            wish: Wish::Enable,
            log,
        })
    }

    #[inline]
    fn memory(&self) -> &Arc<GuestMemory> {
        &self.layout.memory
    }

    #[inline]
    fn log(&mut self) -> Option<(&mut RingLog, &GuestMemory)> {
        Some((&mut self.log.as_deref_mut()?.ring, &self.layout.memory))
    }

    #[inline]
    fn expect(&self) {
        self.layout.prefetch(self.next_available, self.usual.clamp(1, BATCH as u16), self.writes_all);
    }

    /// Whether there are more than one is seen as they are taken: each has flags of its own.
    #[inline]
    fn look(&self, want: usize, (): &mut ()) -> Result<usize, RingFault> {
        let room = self.room();
        if room == 0 || !self.layout.is_available(self.next_available) {
            return Ok(0);
        }
        let count = want.min(BATCH).min(room.into());
        if usize::from(self.usual) < count {
            self.layout.prefetch(self.next_available, ASKED_AHEAD.min(count as u16), self.writes_all);
        }
        Ok(count)
    }

    #[inline(always)]
    fn chain(
        &mut self,
        (): &(),
        index: usize,
        walk: &mut Walk,
        (arena, chains): (&mut Vec<Segment>, &mut Vec<Chain>),
    ) -> Result<Option<u32>, RingFault> {
        let (room, size) = (self.room(), self.layout.size);
        if room == 0 {
            return Ok(None);
        }
        let Some(head) = self.layout.available(self.next_available) else { return Ok(None) };
        let ahead = usize::from(ASKED_AHEAD);
        if index + ahead >= usize::from(self.usual) && self.next_available.offset(size).is_multiple_of(LINE) {
            let place = self.next_available.after(ASKED_AHEAD.min(size), size);
            self.layout.prefetch(place, 1, self.writes_all);
        }
        // Nearly every chain is one buffer in one region.
        if let Some(piece) = walk.alone(&self.layout.memory, &head) {
            let place = (arena.len(), 1);
            arena.push(piece);
            chains.push(Chain::new(head.next, 1, place, head.len));
            self.next_available = self.next_available.after(1, size);
            return Ok(Some(head.len));
        }
        let (len, entries) = self.chain_of_several(head, room, walk, (arena, chains))?;
        self.next_available = self.next_available.after(entries, size);
        Ok(Some(len))
    }

    #[inline(always)]
    fn fours(
        &mut self,
        (): &(),
        which: Range<usize>,
        walk: &Walk,
        to: (&mut Vec<Segment>, &mut Vec<Chain>),
    ) -> (usize, usize) {
        let (first, size) = (self.next_available, self.layout.size);
        let lines = Ahead {
            ring: self,
            lines: self.layout.lines(first, walk.kind()),
            asked: usize::from(self.usual).saturating_sub(which.start + usize::from(ASKED_AHEAD)),
        };
        let most = which.len().min(self.room().into());
        let (count, bytes) = walk.fours(&self.layout.memory, most, to, lines);
        self.next_available = first.after(count as u16, size);
        (count, bytes)
    }

    fn leave(&mut self, chains: &[Chain]) {
        for chain in chains {
            self.next_available = self.next_available.before(chain.entries(), self.layout.size);
        }
    }

    #[inline(always)]
    fn finish(&mut self, chain: &Chain, len: u32) {
        let used = Used::new(chain.id(), len);
        if chain.entries() == 1
            && let Some(last) = self.finished.get_mut(self.unwritten)
        {
            *last = used;
            self.unwritten += 1;
        } else {
            self.finish_now(used, chain.entries());
        }
    }

    /// With IN_ORDER the last one's id says it for all (2.8.9), and the lines between stay with the driver.
    #[inline]
    fn finish_unwritten(&mut self, chains: &[Chain]) {
        if self.in_order {
            if let Some(last) = chains.last() {
                // They were taken, so they are no more than the ring has.
                self.use_up(Used::new(last.id(), 0), chains.iter().map(Chain::entries).sum());
            }
            return;
        }
        for chain in chains {
            self.finish(chain, 0);
        }
    }

    #[inline]
    fn publish(&mut self) -> bool {
        self.write_finished();
        let Some(first) = self.first.take() else { return false };
        let size = self.layout.size;
        // A driver that forges flags has its descriptors taken again and again, but there are no more of them.
        let (begin, count) = (self.published, self.next_used.since(self.published, size).min(size));
        if let Some(log) = &mut self.log {
            log.wrote_descriptors(begin, count, size);
        }
        self.layout.publish_used(begin, first);
        self.published = self.next_used;
        self.usual = count;
        self.note();
        if let Some(log) = &mut self.log {
            log.wrote_descriptors(begin, 1, size);
        }
        // The flags must be out before the driver's wish is read, or both sides wait.
        fence(Ordering::SeqCst);
        self.is_signal_wanted()
    }

    fn want_kicks(&mut self) -> Result<bool, RingFault> {
        self.say(if self.event_idx { Wish::Descriptor } else { Wish::Enable });
        fence(Ordering::SeqCst);
        Ok(self.room() > 0 && self.layout.is_available(self.next_available))
    }

    fn refuse_kicks(&mut self) {
        if self.wish != Wish::Disable {
            self.say(Wish::Disable);
        }
    }

    fn is_poisoned(&self) -> bool {
        self.layout.memory.is_poisoned()
            || self.log.as_ref().is_some_and(|log| log.ring.is_poisoned() || log.wish.is_poisoned())
    }

    /// Both halves the same: where buffers are taken next, and where they are given back.
    fn base(&self) -> u32 {
        let word = u32::from(self.next_used.word(self.layout.size));
        word << 16 | word
    }
}
