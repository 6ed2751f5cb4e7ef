//! A train to an attachment with several rings: as in `train.rs`, in one pass, but each frame's conversation tells its ring.
//!
//! ```text
//!   copy, sort   chunk n + 2      which rings, by conversation: their available entries are asked for
//!   look         chunk n + 1      which buffers: their descriptors are asked for
//!   follow       chunk n          judged and rewritten in the copy
//!   prepare      chunk n + 1      the buffers themselves are asked for
//!   deliver      chunk n          frames in a row of one ring at once
//! ```
//!
//! What must stay true: a conversation's frames go to the ring that the walk would choose for it, in their order. Sorting reads frames that
//! nobody has judged yet: what it finds is used for those alone that are judged to go this way.

use std::ops::Range;

use nve_core::packet::HEAD_LEN;
use nve_core::pipeline::{Origin, Track};

use super::batch::{Batch, CHUNK};
use super::delivery::Outlets;
use super::run::{RINGS, Towards};
use super::sender::Sender;
use super::train::{Gone, Line};
use crate::device::ring::BATCH;

const CHUNKS: usize = BATCH.div_ceil(CHUNK);

/// Rings that a sender's frames went to lately, and whose state is asked for together with its own, at most.
const LATELY: u32 = 4;

/// The rings of one attachment that a batch's frames go to.
struct Fan {
    to: u16,
    /// By frame: the place of its ring.
    places: [u8; BATCH],
    /// By chunk: frames of each ring, and the rings that have any.
    counts: [[u8; RINGS]; CHUNKS],
    rings: [u32; CHUNKS],
    /// The last frame's conversation, and its place: frames of one come in a row.
    last: (u64, u8),
    /// Rings take turns so seldom that what is shown of them has left the cache by then.
    many: bool,
}

impl Fan {
    fn new(to: u16, many: bool) -> Self {
        let (counts, rings) = ([[0; RINGS]; CHUNKS], [0; CHUNKS]);
        // No word that tells conversations apart has all bits.
        Self { to, places: [0; BATCH], counts, rings, last: (u64::MAX, 0), many }
    }

    fn all_rings(&self) -> u32 {
        self.rings.iter().fold(0, |all, rings| all | rings)
    }

    /// Another frame of `chunk`, which begins with `head`.
    #[inline(always)]
    fn sort(&mut self, out: &mut Outlets, track: &Track, (chunk, at): (usize, usize), head: &[u8; HEAD_LEN]) {
        let conversation = track.conversation(head);
        if conversation != self.last.0 {
            let place = out.place(self.to, track.flow(head));
            self.last = (conversation, place as u8);
            if self.all_rings() & 1 << (place % RINGS) == 0 {
                out.expect(self.to, place);
                if self.many {
                    out.expect_to_publish(self.to, place);
                }
            }
        }
        let place = self.last.1;
        let (Some(counts), Some(rings)) = (self.counts.get_mut(chunk), self.rings.get_mut(chunk)) else {
            return;
        };
        if let (Some(of), Some(count)) = (self.places.get_mut(at), counts.get_mut(usize::from(place))) {
            *of = place;
            *count += 1;
            *rings |= 1 << place;
        }
    }

    /// The rings of `chunk`, each with the frames that it needs buffers for when none of the chunk before was delivered yet.
    fn wanted(&self, chunk: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let rings = self.rings.get(chunk).copied().unwrap_or_default();
        let of = |chunk: usize| self.counts.get(chunk).copied().unwrap_or([0; RINGS]);
        let (now, before) = (of(chunk), chunk.checked_sub(1).map_or([0; RINGS], of));
        let frames = move |place: usize| usize::from(now[place % RINGS]) + usize::from(before[place % RINGS]);
        Towards { port: 0, rings }.places().map(move |place| (place, frames(place)))
    }

    #[inline]
    fn look(&self, out: &mut Outlets, chunk: usize) {
        self.wanted(chunk).for_each(|(place, frames)| out.look(self.to, place, frames));
    }

    #[inline]
    fn prepare(&self, out: &mut Outlets, chunk: usize) {
        self.wanted(chunk).for_each(|(place, frames)| out.prepare(self.to, place, frames));
    }

    /// How many of these frames, from the first on, go to the ring of the first, and its place.
    #[inline]
    fn row(&self, which: Range<usize>) -> (usize, usize) {
        let places = self.places.get(which).unwrap_or_default();
        let first = places.first().copied().unwrap_or_default();
        (places.iter().take_while(|place| **place == first).count(), first.into())
    }
}

impl Batch {
    /// Sends the train that the batch begins with, which goes to an attachment with several rings.
    pub(super) fn fan(
        &mut self,
        out: &mut Outlets,
        line: &Line,
        next: &mut Option<&mut Sender>,
        towards: &mut Towards,
    ) -> Gone {
        let count = self.chains.len().min(BATCH);
        let mut fan = Fan::new(line.to(), self.many);
        let mut copied = 0;
        for chunk in 0..2 {
            copied = self.copy_heads(copied);
            self.sort(out, &line.track, &mut fan, chunk);
        }
        fan.look(out, 0);
        if let Some(next) = next {
            next.queue.ring.look();
        }
        fan.prepare(out, 0);
        let (mut done, mut bytes) = (0, 0);
        for chunk in 0..CHUNKS {
            if done >= count {
                break;
            }
            if copied < count {
                copied = self.copy_heads(copied);
                self.sort(out, &line.track, &mut fan, chunk + 2);
            }
            fan.look(out, chunk + 1);
            let end = count.min(done + CHUNK);
            self.fetch_next(next, done..end);
            let mut lengths = [0; BATCH];
            let (rewritten, taken) = self.follow(out, line, done..end, &mut lengths);
            fan.prepare(out, chunk + 1);
            while done < rewritten {
                let (frames, place) = fan.row(done..rewritten);
                let row = done..done + frames.max(1);
                self.deliver_train(out, line, (place, row.clone()), &lengths);
                done = row.end;
            }
            bytes += taken;
            if rewritten < end {
                break;
            }
        }
        towards.add(line.to(), fan.all_rings(), LATELY);
        out.walker.took(Origin::Port(line.from), done as u64, bytes);
        Gone { done, copied: copied.min(BATCH) }
    }

    /// Sorts the frames of `chunk`, whose heads were copied.
    #[inline]
    fn sort(&self, out: &mut Outlets, track: &Track, fan: &mut Fan, chunk: usize) {
        let end = (CHUNK * (chunk + 1)).min(self.chains.len());
        for (at, slot) in self.slots.iter().enumerate().take(end).skip(CHUNK * chunk) {
            if let Some(head) = slot.taken().last_chunk() {
                fan.sort(out, track, (chunk, at), head);
            }
        }
    }

    /// Asks for these frames of the next sender, where it takes turns with many.
    #[inline]
    pub(super) fn fetch_next(&self, next: &Option<&mut Sender>, which: Range<usize>) {
        if let Some(next) = next.as_ref().filter(|_| self.many) {
            which.for_each(|at| next.queue.ring.fetch(at));
        }
    }
}
