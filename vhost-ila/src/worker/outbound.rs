//! Frames that leave: the first of a batch, as long as what is kept of their sender (`nve-core/src/pipeline/outbound.rs`) takes them to a fabric
//! with one ring. They go from ring to ring in place; the first that does not is left to `batch.rs`, with all behind it.
//!
//! ```text
//!   copy     chunk n   n + 1 ...  all of the batch
//!   ask      chunk n   n + 1 ...  the table's lines are asked for
//!   look     chunk      n + 1     where the table is large: those lines have come, the ones behind them are asked for
//!   leave    chunk      n         looked up and rewritten where it is
//!   deliver  chunk          n     its buffers were asked for a chunk before
//! ```
//!
//! What must stay true: as in `train.rs`: a frame is delivered before the one behind it is judged for another way.

use std::ops::Range;

use nve_core::packet::{ETHERNET_LEN, HEAD_LEN, MAX_FRAME};
use nve_core::pipeline::{Origin, Outbound, PortId, ROOM};

use super::batch::{Batch, CHUNK};
use super::delivery::Outlets;
use super::sender::Sender;
use super::train::{Gone, Lengths};
use crate::device::cpu;
use crate::device::net_header::{LEN, NetHeader, WireHeader};
use crate::device::ring::BATCH;

/// The ring of the fabric.
const FABRIC: u16 = PortId::FABRIC.0;

/// IPv4, and IPv6, in front of the transport header.
const HEADERS4: usize = LEN + ETHERNET_LEN + 20;
const HEADERS6: usize = HEADERS4 + ROOM;

/// What is kept of a sender, and what stands before its packets.
struct Road {
    outbound: Outbound,
    /// A virtio-net header, and the link's.
    front: [u8; LEN + ETHERNET_LEN],
}

impl Batch {
    /// Sends the frames that the batch from `port` begins with.
    pub(super) fn outbound(
        &mut self,
        out: &mut Outlets,
        port: PortId,
        next: &mut Option<&mut Sender>,
    ) -> Gone {
        let Some((outbound, link)) = out.walker.outbound(port).zip(out.link_header()) else {
            return Gone::default();
        };
        if out.spread(FABRIC) || out.ring(FABRIC, 0).is_none() {
            return Gone::default();
        }
        let mut front = [0; LEN + ETHERNET_LEN];
        WireHeader::PLAIN.write(&mut front);
        front[LEN..].copy_from_slice(&link);
        let road = Road { outbound, front };
        out.expect(FABRIC, 0);
        let count = self.chains.len().min(BATCH);
        let (mut copied, mut asked) = (0, 0);
        while copied < count && asked == copied {
            copied = self.copy_heads(copied);
            asked = self.ask(out, &road, asked..copied.min(count));
            if copied == CHUNK {
                out.look(FABRIC, 0, count);
            }
        }
        if let Some(next) = next {
            next.queue.ring.look();
        }
        out.prepare(FABRIC, 0, asked.min(CHUNK));
        let far = out.walker.is_far();
        if far {
            self.look(out, 0..asked.min(CHUNK));
        }
        let (mut done, mut bytes) = (0, 0);
        while done < asked {
            let end = asked.min(done + CHUNK);
            if far {
                self.look(out, end..asked.min(end + CHUNK));
            }
            let mut lengths = [0; BATCH];
            let (left, taken) = self.leave(out, &road, done..end, &mut lengths);
            out.prepare(FABRIC, 0, asked.min(end + CHUNK) - done);
            self.deliver_outbound(out, port, done..left, &lengths);
            (done, bytes) = (left, bytes + taken);
            if left < end {
                break;
            }
        }
        out.walker.took(Origin::Port(port), done as u64, bytes);
        Gone { done, copied: copied.min(BATCH) }
    }

    /// Asks about these frames, up to the first that does not leave so: its place.
    #[inline]
    fn ask(&mut self, out: &Outlets, road: &Road, which: Range<usize>) -> usize {
        let frames =
            self.slots.get(which.clone()).into_iter().flatten().zip(self.chains.lengths(which.clone()));
        let asked = self.asked.get_mut(which.clone()).into_iter().flatten();
        for (i, ((slot, len), asked)) in which.clone().zip(frames.zip(asked)) {
            let (taken, len) = (slot.taken(), len.saturating_sub(LEN));
            if !NetHeader::is_plain(taken) || len > MAX_FRAME {
                return i;
            }
            let question = taken.last_chunk().and_then(|head| out.walker.ask(&road.outbound, head, len));
            let Some(question) = question else { return i };
            cpu::prefetch(out.walker.line_of(&question));
            *asked = Some(question);
        }
        which.end
    }

    /// Looks at the lines that were asked for.
    #[inline]
    fn look(&mut self, out: &Outlets, which: Range<usize>) {
        for asked in self.asked.get_mut(which).into_iter().flatten().flatten() {
            if let Some(behind) = out.walker.look(asked) {
                cpu::prefetch(behind);
            }
        }
    }

    /// Rewrites these frames, up to the first that goes another way: its place, and the bytes that those before it had.
    #[inline]
    fn leave(
        &mut self,
        out: &Outlets,
        road: &Road,
        which: Range<usize>,
        lengths: &mut Lengths,
    ) -> (usize, u64) {
        let mut bytes = 0;
        let slots = self.slots.get_mut(which.clone()).into_iter().flatten();
        let asked = self.asked.get(which.clone()).into_iter().flatten();
        let lengths = lengths.get_mut(which.clone()).into_iter().flatten();
        let lengths = lengths.zip(self.chains.lengths(which.clone()));
        for (i, ((slot, asked), (length, len))) in which.clone().zip(slots.zip(asked).zip(lengths)) {
            let leaves = asked.as_ref().and_then(|asked| {
                let whole = out.walker.leave(&road.outbound, asked, slot.last_mut())?;
                Some(ETHERNET_LEN + whole)
            });
            let Some(leaves) = leaves else { return (i, bytes) };
            let frame: &mut [u8; ROOM + LEN + HEAD_LEN] = slot.last_mut();
            frame[..LEN + ETHERNET_LEN].copy_from_slice(&road.front);
            *length = leaves as u32;
            bytes += (len - LEN) as u64;
        }
        (which.end, bytes)
    }

    /// Delivers these frames, which were rewritten.
    #[inline]
    fn deliver_outbound(&mut self, out: &mut Outlets, port: PortId, which: Range<usize>, lengths: &Lengths) {
        let mut at = which.start;
        while at < which.end {
            let slots = self.slots.get(at..which.end).unwrap_or_default();
            let frames = slots.iter().zip(lengths.get(at..).unwrap_or_default());
            let frames = frames
                .map(|(slot, length)| (slot.last::<{ ROOM + LEN + HEAD_LEN }>(), LEN + *length as usize));
            let written = out.ring(FABRIC, 0).map_or(0, |ring| ring.queue.ring.deliver_short(frames));
            let lengths_of = lengths.iter().skip(at).take(written);
            let bytes = lengths_of.map(|length| *length as usize - ETHERNET_LEN).sum();
            out.wrote((FABRIC, 0), written as u16, bytes);
            at += written;
            if at < which.end {
                self.deliver_long_outbound(out, port, at, lengths[at] as usize);
                at += 1;
            }
        }
    }

    /// The same of one that is longer than what was copied of it, or finds no buffer that takes it whole.
    #[inline(never)]
    fn deliver_long_outbound(&mut self, out: &mut Outlets, port: PortId, index: usize, len: usize) {
        let Some(slot) = self.slots.get(index) else { return };
        let frame: &[u8; ROOM + LEN + HEAD_LEN] = slot.last();
        let behind = HEADERS4..HEADERS4 + (LEN + len).saturating_sub(HEADERS6);
        let tail = self.chains.payload(index, slot.taken(), behind);
        out.give_framed(Origin::Port(port), &frame[LEN..HEADERS6], tail);
    }
}
