//! A train: the first frames of a batch, as long as they go the way of the last one to one ring of an attachment of this host, and
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

use nve_core::packet::{Frame, HEAD_LEN, MAX_FRAME, Offload};
use nve_core::pipeline::{Fate, Origin, PortId, Rewritten, Track, flow_of_plain};

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
struct Line {
    from: PortId,
    track: Track,
    /// The ring's place, of those of the attachment.
    place: usize,
    /// What its frames have in common, where other frames of the track go to other rings.
    conversation: Option<u64>,
}

impl Line {
    fn to(&self) -> u16 {
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
        let (to, spread) = (track.to().0, out.spread(track.to().0));
        // Where the last one went, most likely.
        let likely = if spread && towards.port == to { towards.rings.trailing_zeros() as usize } else { 0 };
        out.expect(to, likely);
        let mut copied = self.copy_heads(0);
        let mut line = Line { from: port, track, place: 0, conversation: None };
        if spread {
            self.choose(out, &mut line);
            if line.place != likely {
                out.expect(to, line.place);
            }
        }
        if out.ring(to, line.place).is_none() {
            return Gone { done: 0, copied };
        }
        *towards = Towards { port: to, rings: 1 << line.place };
        let count = self.chains.len().min(BATCH);
        out.look(to, line.place, count);
        copied = self.copy_heads(copied);
        if let Some(next) = next {
            next.queue.ring.look();
        }
        out.prepare(to, line.place, count.min(CHUNK));
        let (mut done, mut bytes) = (0, 0);
        while done < count {
            if copied < count {
                copied = self.copy_heads(copied);
            }
            let end = count.min(done + CHUNK);
            let mut lengths = [0; BATCH];
            let (rewritten, taken) = self.follow(out, &line, done..end, &mut lengths);
            out.prepare(to, line.place, count.min(end + CHUNK) - done);
            self.deliver_train(out, &line, done..rewritten, &lengths);
            if let Some(next) = next.as_ref().filter(|_| self.many) {
                (done..end).for_each(|i| next.queue.ring.fetch(i));
            }
            (done, bytes) = (rewritten, bytes + taken);
            if rewritten < end {
                break;
            }
        }
        out.walker.took(Origin::Port(port), done as u64, bytes);
        Gone { done, copied: copied.min(BATCH) }
    }

    /// By the first frame: only those of its flow are of the train.
    fn choose(&self, out: &Outlets, line: &mut Line) {
        let Some(head) = self.slots.first().and_then(|slot| slot.taken().last_chunk::<HEAD_LEN>()) else {
            return;
        };
        let len = self.chains.bytes(0).saturating_sub(LEN).min(HEAD_LEN);
        let frame = Frame { head: head.get(..len).unwrap_or_default(), len, offload: Offload::NONE };
        line.place = out.place(line.to(), flow_of_plain(Origin::Port(line.from), &frame));
        line.conversation = Some(line.track.conversation(head));
    }

    /// Rewrites these frames, up to the first that does not go this way: its place, and the bytes that those before it had.
    #[inline]
    fn follow(
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
            let other = line.conversation.is_some_and(|own| line.track.conversation(head) != own);
            if !plain || other || len > MAX_FRAME {
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

    /// Delivers these frames, which were rewritten.
    #[inline]
    fn deliver_train(&mut self, out: &mut Outlets, line: &Line, which: Range<usize>, lengths: &Lengths) {
        let to = (line.to(), line.place);
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
        let flow = || {
            let head = &taken[LEN..];
            let (head, offload) = (head.get(..len).unwrap_or(head), Offload::NONE);
            flow_of_plain(Origin::Port(line.from), &Frame { head, len, offload })
        };
        let source = Source::Chain { chains: &self.chains, index, front: LEN, taken };
        let whole = Rewritten { head: 0..0, tail: 0..len, offload: Offload::NONE, more: false };
        out.perform(Origin::Port(line.from), &Fate::Local(line.track.to(), whole), flow, scratch, source);
    }
}
