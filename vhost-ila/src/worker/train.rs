//! A train: the first frames of a batch, as long as they go the way of the last one to an attachment of this host with one ring, and
//! leave nothing to finish. They go from ring to ring in one pass; the first that does not is left to `batch.rs`, with all behind it.
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

use super::batch::{Batch, CHUNK, Slot};
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

/// Frames whose heads were rewritten: bytes that go on, by their place in the batch.
type Lengths = [u32; BATCH];

impl Batch {
    /// Sends the train that the batch from `port` begins with.
    #[inline]
    pub(super) fn train(
        &mut self,
        out: &mut Outlets,
        port: PortId,
        next: &mut Option<&mut Sender>,
        towards: &mut Towards,
    ) -> Gone {
        let Some(track) = out.walker.track(port) else { return Gone::default() };
        let to = track.to().0;
        if out.only_ring(to).is_none() {
            return Gone::default();
        }
        *towards = Towards { port: to, rings: 1 };
        let count = self.chains.len().min(BATCH);
        out.expect(to, 0);
        let mut copied = self.copy_heads(0);
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
            let (rewritten, taken) = self.follow(out, &track, done..end, &mut lengths);
            out.prepare(to, 0, count.min(end + CHUNK) - done);
            self.deliver_train(out, (port, &track), done..rewritten, &lengths);
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
    fn follow(
        &mut self,
        out: &mut Outlets,
        track: &Track,
        which: Range<usize>,
        lengths: &mut Lengths,
    ) -> (usize, u64) {
        let mut bytes = 0;
        for i in which.clone() {
            let (Some(Slot { taken }), Some(length)) = (self.slots.get_mut(i), lengths.get_mut(i)) else {
                return (i, bytes);
            };
            let len = self.chains.bytes(i).saturating_sub(LEN);
            if !NetHeader::is_plain(taken) || len > MAX_FRAME {
                return (i, bytes);
            }
            let head = taken.last_chunk_mut::<HEAD_LEN>();
            let Some(on) = head.and_then(|head| out.walker.follow(track, head, len)) else {
                return (i, bytes);
            };
            WireHeader::PLAIN.write(taken);
            *length = on as u32;
            bytes += len as u64;
        }
        (which.end, bytes)
    }

    /// Delivers these frames, which were rewritten.
    #[inline]
    fn deliver_train(
        &mut self,
        out: &mut Outlets,
        (port, track): (PortId, &Track),
        which: Range<usize>,
        lengths: &Lengths,
    ) {
        let to = track.to();
        let mut at = which.start;
        while at < which.end {
            let frames = self.slots.iter().zip(lengths).take(which.end).skip(at);
            let frames = frames.map(|(slot, length)| (&slot.taken, LEN + *length as usize));
            let written = out.only_ring(to.0).map_or(0, |ring| ring.queue.ring.deliver_short(frames));
            let bytes = lengths.iter().skip(at).take(written).map(|length| *length as usize).sum();
            out.wrote(to.0, written as u16, bytes);
            at += written;
            if at < which.end {
                self.deliver_long(out, (Origin::Port(port), to), at, lengths[at] as usize);
                at += 1;
            }
        }
    }

    /// The same of one that is longer than what was copied of it, or finds no buffer that takes it whole.
    #[inline(never)]
    fn deliver_long(&mut self, out: &mut Outlets, (origin, to): (Origin, PortId), index: usize, len: usize) {
        let (Some(Slot { taken }), Some(scratch)) = (self.slots.get(index), self.scratch.first()) else {
            return;
        };
        let source = Source::Chain { chains: &self.chains, index, front: LEN, taken };
        let whole = Rewritten { head: 0..0, tail: 0..len, offload: Offload::NONE, more: false };
        out.perform(origin, &Fate::Local(to, whole), || 0, scratch, source);
    }
}
