//! The shell's loop without rings: takes a whole frame in memory through the walk and hands over whole packets.
//!
//! What must stay true: a frame goes through the door at most three times (as it came, whole, finished in software), so a packet
//! cannot loop here; whatever the walk says is carried out as the contract of [`Fate`] demands, and counted as delivered.
//!
//! For whoever has no rings to save copies for: replaying captures, and the world in memory. The worker does the same with
//! guest memory in place of buffers.

use super::{Again, Desk, Fate, Origin, PortId, Scratch, Walker};
use crate::DropReason;
use crate::packet::finish::{Segments, complete_checksum};
use crate::packet::{Frame, HEAD_LEN, Offload};

/// What came of a frame; one frame can come to several (segments, fragments, copies).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome<'a> {
    /// An Ethernet frame for an attachment of this host.
    Local(PortId, &'a [u8], Offload),
    /// An IPv6 packet for the fabric.
    Uplink(&'a [u8], Offload),
    /// An answer to where the frame came from: an Ethernet frame to an attachment, an IPv6 packet to the uplink. The frame itself
    /// may have been dropped for the reason given.
    Reply(&'a [u8], Option<DropReason>),
    /// The slow path's: this frame, whole and finished.
    Punted(Desk, &'a [u8]),
    /// Nothing: dropped and counted.
    Dropped(DropReason),
}

/// Buffers for the loop; one per [`Walker`].
#[derive(Default)]
pub struct CarryOut {
    scratch: Scratch,
    finished: Vec<u8>,
    joined: Vec<u8>,
}

impl CarryOut {
    /// Walks `bytes` (an Ethernet frame from a port, an IPv6 packet from the uplink) and tells every outcome, in order.
    ///
    /// The walk first sees [`HEAD_LEN`] bytes only, as it would of a frame in guest memory. [`Walker::begin`] is the caller's.
    pub fn carry_out(
        &mut self,
        walker: &mut Walker,
        origin: Origin,
        bytes: &[u8],
        offload: Offload,
        tell: &mut dyn FnMut(Outcome<'_>),
    ) {
        let head = bytes.get(..HEAD_LEN).unwrap_or(bytes);
        let mut frame = Frame { head, len: bytes.len(), offload };
        let mut fate = walker.walk(origin, &frame, &mut self.scratch);
        if fate == Fate::Again(Again::Whole) {
            frame.head = bytes;
            fate = walker.walk(origin, &frame, &mut self.scratch);
        }
        match fate {
            Fate::Again(again) => {
                frame.head = bytes;
                self.finish(walker, origin, &frame, again, tell);
            }
            fate => self.perform(walker, origin, bytes, &frame, fate, tell),
        }
    }

    /// Does in software what the receiver, or a C = 0 destination, leaves no hardware to do, and walks the result.
    fn finish(
        &mut self,
        walker: &mut Walker,
        origin: Origin,
        frame: &Frame<'_>,
        again: Again,
        tell: &mut dyn FnMut(Outcome<'_>),
    ) {
        let mut finished = core::mem::take(&mut self.finished);
        let done = match again {
            Again::Segments => self.segment(walker, origin, frame, &mut finished, tell),
            Again::Checksum => self.complete(walker, origin, frame, &mut finished, tell),
            // The frame was whole already.
            Again::Whole => Err(DropReason::BadOffload),
        };
        self.finished = finished;
        if let Err(reason) = done {
            walker.dropped(origin, reason);
            tell(Outcome::Dropped(reason));
        }
    }

    fn complete(
        &mut self,
        walker: &mut Walker,
        origin: Origin,
        frame: &Frame<'_>,
        finished: &mut Vec<u8>,
        tell: &mut dyn FnMut(Outcome<'_>),
    ) -> Result<(), DropReason> {
        finished.clear();
        finished.extend_from_slice(frame.head);
        let offload = complete_checksum(finished, origin.ip_offset(), frame.offload)?;
        let frame = Frame { head: finished, len: finished.len(), offload };
        let fate = walker.walk(origin, &frame, &mut self.scratch);
        self.perform(walker, origin, finished, &frame, fate, tell);
        Ok(())
    }

    fn segment(
        &mut self,
        walker: &mut Walker,
        origin: Origin,
        frame: &Frame<'_>,
        finished: &mut Vec<u8>,
        tell: &mut dyn FnMut(Outcome<'_>),
    ) -> Result<(), DropReason> {
        let mut segments = Segments::new(frame.head, origin.ip_offset(), frame.offload)?;
        finished.resize(frame.head.len(), 0);
        while let Some(len) = segments.next_into(finished) {
            let bytes = finished.get(..len).unwrap_or_default();
            let segment = Frame::whole(bytes);
            let fate = walker.walk(origin, &segment, &mut self.scratch);
            self.perform(walker, origin, bytes, &segment, fate, tell);
        }
        Ok(())
    }

    fn perform(
        &mut self,
        walker: &mut Walker,
        origin: Origin,
        bytes: &[u8],
        frame: &Frame<'_>,
        fate: Fate,
        tell: &mut dyn FnMut(Outcome<'_>),
    ) {
        match fate {
            Fate::Local(_, ref first) | Fate::Uplink(ref first) => {
                let mut more = first.more;
                self.deliver(walker, origin, bytes, &fate, tell);
                while more {
                    let Some(next) = walker.next_copy(frame, &mut self.scratch) else { return };
                    more = matches!(&next, Fate::Local(_, copy) | Fate::Uplink(copy) if copy.more);
                    self.deliver(walker, origin, bytes, &next, tell);
                }
            }
            Fate::Reply(..) => self.deliver(walker, origin, bytes, &fate, tell),
            Fate::Punt(desk) => tell(Outcome::Punted(desk, bytes)),
            Fate::Drop(reason) => tell(Outcome::Dropped(reason)),
            // The frame is whole and finished: the walk has nothing left to ask for.
            Fate::Again(_) => {
                walker.dropped(origin, DropReason::BadOffload);
                tell(Outcome::Dropped(DropReason::BadOffload));
            }
        }
    }

    /// The new head and the untouched tail as one.
    fn deliver(
        &mut self,
        walker: &mut Walker,
        origin: Origin,
        bytes: &[u8],
        fate: &Fate,
        tell: &mut dyn FnMut(Outcome<'_>),
    ) {
        let (to, piece) = match fate {
            Fate::Local(port, piece) => (Origin::Port(*port), piece),
            Fate::Uplink(piece) => (Origin::Uplink, piece),
            Fate::Reply(piece, _) => (origin, piece),
            Fate::Drop(_) | Fate::Again(_) | Fate::Punt(_) => return,
        };
        self.joined.clear();
        self.joined.extend_from_slice(self.scratch.head.get(piece.head.clone()).unwrap_or_default());
        self.joined.extend_from_slice(bytes.get(piece.tail.clone()).unwrap_or_default());
        walker.delivered(to, 1, self.joined.len() as u64);
        tell(match fate {
            Fate::Local(port, _) => Outcome::Local(*port, &self.joined, piece.offload),
            Fate::Uplink(_) => Outcome::Uplink(&self.joined, piece.offload),
            Fate::Reply(_, reason) => Outcome::Reply(&self.joined, *reason),
            Fate::Drop(_) | Fate::Again(_) | Fate::Punt(_) => return,
        });
    }
}
