//! A train: the first frames of a batch, as long as they go the way of the last one to an attachment of this host, and leave nothing to
//! finish. They go from ring to ring in one pass; the first that does not is left to `batch.rs`, with all behind it. An attachment with several
//! rings: `fan.rs`.
//!
//! ```text
//!   copy     chunk n + 2   n + 3                     its lines were asked for two chunks before
//!   follow   chunk         n            n + 1        judged and rewritten in the copy
//!   deliver  chunk            n            n + 1     its buffers were asked for a chunk before
//! ```
//!
//! What must stay true: a frame is delivered before the one behind it is judged for another way, so their order is kept. A head is put
//! together by small stores and copied on by large loads: a chunk's other frames lie in between, or each load would wait for its stores.

use std::ops::Range;

use nve_core::packet::{HEAD_LEN, MAX_FRAME, Offload};
use nve_core::pipeline::{Fate, Origin, PortId, Rewritten, Track};

use super::batch::{Batch, CHUNK};
use super::delivery::{Outlets, Source};
use super::run::Towards;
use super::sender::Sender;
use crate::device::net_header::{LEN, NetHeader, WireHeader};
use crate::device::ring::BATCH;

/// How far a train went.
#[derive(Clone, Copy, Default)]
pub(super) struct Gone {
    /// Frames of the batch that are done.
    pub(super) done: usize,
    /// Those whose heads were copied, a chunk's end.
    pub(super) copied: usize,
}

/// Where a train goes.
pub(super) struct Line {
    pub(super) from: PortId,
    pub(super) track: Track,
}

impl Line {
    pub(super) fn to(&self) -> u16 {
        self.track.to().0
    }
}

/// Frames whose heads were rewritten: bytes that go on, by their place in the batch.
pub(super) type Lengths = [u32; BATCH];

impl Batch {
    /// Sends the train that the batch from `port` begins with; where it went.
    #[inline]
    pub(super) fn train(
        &mut self,
        out: &mut Outlets,
        port: PortId,
        next: &mut Option<&mut Sender>,
        towards: &mut Towards,
    ) -> Gone {
        let Some(track) = out.walker.track(port) else { return Gone::default() };
        let line = Line { from: port, track };
        let to = line.to();
        if out.spread(to) {
            return self.fan(out, &line, next, towards);
        }
        if out.ring(to, 0).is_none() {
            return Gone::default();
        }
        *towards = Towards { port: to, rings: 1 };
        out.expect(to, 0);
        let mut copied = self.copy_heads(0);
        let count = self.chains.len().min(BATCH);
        out.look(to, 0, count);
        copied = self.copy_heads(copied);
        if let Some(next) = next {
            next.queue.ring.look();
        }
        out.prepare(to, 0, count.min(CHUNK));
        let (mut done, mut bytes) = (0, 0);
        while done < count {
            if copied < count {
                copied = self.copy_heads(copied);
            }
            let end = count.min(done + CHUNK);
            let mut lengths = [0; BATCH];
            let (rewritten, taken) = self.follow(out, &line, done..end, &mut lengths);
            out.prepare(to, 0, count.min(end + CHUNK) - done);
            self.deliver_train(out, &line, (0, done..rewritten), &lengths);
            self.fetch_next(next, done..end);
            (done, bytes) = (rewritten, bytes + taken);
            if rewritten < end {
                break;
            }
        }
        out.walker.took(Origin::Port(port), done as u64, bytes);
        Gone { done, copied: copied.min(BATCH) }
    }

    /// Rewrites these frames, up to the first that does not go this way: its place, and the bytes that those before it had.
    #[inline]
    pub(super) fn follow(
        &mut self,
        out: &mut Outlets,
        line: &Line,
        which: Range<usize>,
        lengths: &mut Lengths,
    ) -> (usize, u64) {
        let slots = self.slots.get_mut(which.clone()).unwrap_or_default();
        let lengths = lengths.get_mut(which.clone()).unwrap_or_default();
        let (mut done, mut bytes) = (which.start, 0);
        for ((slot, length), chain) in slots.iter_mut().zip(lengths).zip(self.chains.lengths(which)) {
            let (taken, len) = (slot.taken_mut(), chain.saturating_sub(LEN));
            let (plain, Some(head)) = (NetHeader::is_plain(taken), taken.last_chunk_mut::<HEAD_LEN>()) else {
                break;
            };
            if !plain || len > MAX_FRAME {
                break;
            }
            let Some(on) = out.walker.follow(&line.track, head, len) else { break };
            WireHeader::PLAIN.write(taken);
            *length = on as u32;
            bytes += len as u64;
            done += 1;
        }
        (done, bytes)
    }

    /// Delivers these frames, which were rewritten, to the ring at `place`.
    #[inline]
    pub(super) fn deliver_train(
        &mut self,
        out: &mut Outlets,
        line: &Line,
        (place, which): (usize, Range<usize>),
        lengths: &Lengths,
    ) {
        let to = (line.to(), place);
        let mut at = which.start;
        while at < which.end {
            let slots = self.slots.get(at..which.end).unwrap_or_default();
            let frames = slots.iter().zip(lengths.get(at..).unwrap_or_default());
            let frames = frames.map(|(slot, length)| (slot.taken(), LEN + *length as usize));
            let written = out.ring(to.0, to.1).map_or(0, |ring| ring.queue.ring.deliver_short(frames));
            let bytes = lengths.iter().skip(at).take(written).map(|length| *length as usize).sum();
            out.wrote(to, written as u16, bytes);
            at += written;
            if at < which.end {
                self.deliver_long(out, line, at, lengths[at] as usize);
                at += 1;
            }
        }
    }

    /// The same of one that is longer than what was copied of it, or finds no buffer that takes it whole.
    #[inline(never)]
    fn deliver_long(&mut self, out: &mut Outlets, line: &Line, index: usize, len: usize) {
        let (Some(slot), Some(scratch)) = (self.slots.get(index), self.scratch.first()) else { return };
        let taken = slot.taken();
        let flow = || taken.last_chunk().map_or(0, |head| line.track.flow(head));
        let source = Source::Chain { chains: &self.chains, index, front: LEN, taken };
        let whole = Rewritten { head: 0..0, tail: 0..len, offload: Offload::NONE, more: false };
        out.perform(Origin::Port(line.from), &Fate::Local(line.track.to(), whole), flow, scratch, source);
    }
}
