//! What a guest receives: its buffers are looked at ahead of need, so that their descriptors and first lines are there when
//! a frame comes, and consumed only as frames are written.
//!
//! What must stay true: a frame is written whole or not at all; buffers fetched ahead but not written are still the next ones
//! after a restart.

use std::ops::Range;

use super::chain::{Chain, Direction, Walk};
use super::{BATCH, Either, MAX_CHAIN, MAX_PIECES, PackedRing, Ring, RingFault, RingSpec, SplitRing, either};
use crate::device::cpu;
use crate::device::memory::{Cursor, Payload, Segment};
use crate::device::net_header::{LEN, WireHeader};

/// Chains fetched ahead: a batch, and what one frame of many small buffers may need.
const AHEAD: usize = BATCH + MAX_CHAIN as usize;
/// Their pieces.
const ARENA: usize = 2 * MAX_PIECES;

/// Why a frame was not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoRoom {
    /// The guest has not offered enough buffers, or (without mergeable buffers) the next one is too small.
    Full,
    /// The ring is broken.
    Broken(RingFault),
}

/// A guest's receive ring.
#[derive(Debug)]
pub struct ReceiveRing(Either<Receive<SplitRing>, Receive<PackedRing>>);

/// One over a ring of this kind.
#[derive(Debug)]
struct Receive<R: Ring> {
    ring: R,
    walk: Walk,
    found: R::Found,
    /// Those of the found that were not fetched yet.
    looked: Range<usize>,
    mergeable: bool,
    /// Fetched, from `done` on not yet written.
    ahead: Vec<Chain>,
    done: usize,
    segments: Vec<Segment>,
}

impl<R: Ring> Receive<R> {
    fn new(spec: &RingSpec, mergeable: bool) -> Result<Self, RingFault> {
        let mut ring = R::new(spec, Direction::Writable)?;
        // A frame that finds no buffer is dropped at once, so news of buffers is never waited for.
        ring.refuse_kicks();
        ring.must_be_whole()?;
        Ok(Self {
            ring,
            walk: Walk::new(Direction::Writable, spec.indirect),
            found: R::Found::default(),
            looked: 0..0,
            mergeable,
            ahead: Vec::with_capacity(AHEAD),
            done: 0,
            segments: Vec::with_capacity(ARENA),
        })
    }

    #[inline]
    fn prepare(&mut self, frames: usize) -> Result<(), RingFault> {
        let have = self.ahead.len() - self.done;
        if have < frames {
            self.fetch((frames - have).min(BATCH))?;
        }
        Ok(())
    }

    #[inline]
    fn look(&mut self, frames: usize) {
        let have = self.ahead.len() - self.done;
        if have < frames && self.looked.is_empty() {
            // A fault is found again when they are fetched.
            self.looked = 0..self.ring.look((frames - have).min(BATCH), &mut self.found).unwrap_or(0);
        }
    }

    /// Fetches up to `want` chains more.
    fn fetch(&mut self, want: usize) -> Result<usize, RingFault> {
        if self.done == self.ahead.len() {
            self.ahead.clear();
            self.segments.clear();
            self.done = 0;
        }
        let want = want.min(AHEAD - self.ahead.len());
        if self.looked.is_empty() {
            self.looked = 0..self.ring.look(want, &mut self.found)?;
        }
        let from = self.looked.start;
        let count = self.looked.len().min(want);
        let mut index = 0;
        while index < count {
            if self.segments.len() + MAX_PIECES > ARENA {
                return Ok(index);
            }
            let first = self.segments.len();
            if count - index >= 4 {
                let to = (&mut self.segments, &mut self.ahead);
                let (taken, _) = self.ring.fours(&self.found, from + index..from + count, &self.walk, to);
                if taken > 0 {
                    index += taken;
                    self.looked.start += taken;
                    self.segments.get(first..).unwrap_or_default().iter().for_each(expect_to_write);
                    continue;
                }
            }
            let to = (&mut self.segments, &mut self.ahead);
            if self.ring.chain(&self.found, from + index, &mut self.walk, to)?.is_none() {
                self.looked = 0..0;
                return Ok(index);
            }
            index += 1;
            self.looked.start += 1;
            self.segments.get(first).into_iter().for_each(expect_to_write);
        }
        Ok(count)
    }

    #[inline(always)]
    fn deliver(&mut self, header: WireHeader, head: &[u8], tail: Payload<'_>) -> Result<u16, NoRoom> {
        // Mostly the next buffer is one piece that takes the frame whole; a header says one buffer unless it is told more.
        if let Some(chain) = self.ahead.get(self.done)
            && self.ring.log().is_none()
            && let Some(buffer) = self.segments.get(chain.first())
            && buffer.write_frame(header, head, tail)
        {
            let need = LEN + head.len() + tail.len();
            self.ring.finish(chain, need as u32);
            self.done += 1;
            return Ok(1);
        }
        self.deliver_in_pieces(header, head, tail)
    }

    /// Writes frames as long as the next buffer is one piece that takes the next frame whole; how many.
    #[inline(always)]
    fn deliver_short<'a, const N: usize>(
        &mut self,
        frames: impl Iterator<Item = (&'a [u8; N], usize)>,
    ) -> usize {
        if self.ring.log().is_some() {
            return 0;
        }
        let Self { ring, ahead, segments, done, .. } = self;
        let mut written = 0;
        for (chain, (frame, len)) in ahead.get(*done..).unwrap_or_default().iter().zip(frames) {
            let Some(buffer) = segments.get(chain.first()) else { break };
            if !buffer.write_short(frame, len) {
                break;
            }
            ring.finish(chain, len as u32);
            written += 1;
        }
        *done += written;
        written
    }

    /// The same in as many buffers, and pieces of them, as it takes.
    #[inline(never)]
    fn deliver_in_pieces(
        &mut self,
        mut header: WireHeader,
        head: &[u8],
        tail: Payload<'_>,
    ) -> Result<u16, NoRoom> {
        let need = LEN + head.len() + tail.len();
        let buffers = self.gather(need)?;
        if self.mergeable {
            header = header.with_buffers(buffers);
        }
        let chains = &self.ahead[self.done..self.done + usize::from(buffers)];
        let start = chains.first().map_or(0, |c| c.first());
        let pieces = self.segments.get(start..).unwrap_or_default();
        let mut to = Cursor::new(pieces);
        to.put_header(header);
        to.put(head);
        to.put_payload(tail);
        if let Some((log, memory)) = self.ring.log() {
            log.wrote(memory, pieces, need).map_err(NoRoom::Broken)?;
        }
        let mut left = need as u32;
        for chain in chains {
            let written = left.min(chain.len());
            self.ring.finish(chain, written);
            left -= written;
        }
        self.done += usize::from(buffers);
        Ok(buffers)
    }

    /// How many of the next chains hold `need` bytes.
    #[inline]
    fn gather(&mut self, need: usize) -> Result<u16, NoRoom> {
        let mut room = 0;
        let mut count = 0;
        loop {
            let Some(chain) = self.ahead.get(self.done + count) else {
                self.make_space();
                match self.fetch(BATCH) {
                    Ok(0) => return Err(NoRoom::Full),
                    Ok(_) => continue,
                    Err(fault) => return Err(NoRoom::Broken(fault)),
                }
            };
            room += chain.len() as usize;
            count += 1;
            if room >= need {
                return Ok(count as u16);
            }
            if !self.mergeable || count >= usize::from(MAX_CHAIN) {
                return Err(NoRoom::Full);
            }
        }
    }

    /// Forgets what was written, where fetching more would not fit behind it.
    fn make_space(&mut self) {
        if self.done == 0 || (self.ahead.len() + BATCH <= AHEAD && self.segments.len() + MAX_PIECES <= ARENA)
        {
            return;
        }
        let first = self.ahead.get(self.done).map_or(self.segments.len(), |c| c.first());
        self.segments.drain(..first);
        self.ahead.drain(..self.done);
        for chain in &mut self.ahead {
            chain.moves_by(first);
        }
        self.done = 0;
    }
}

/// Asks for what a short frame takes of a buffer.
#[inline]
fn expect_to_write(buffer: &Segment) {
    let at = buffer.address() as usize;
    cpu::prefetch_to_write(at);
    cpu::prefetch_to_write(at.wrapping_add(64));
}

impl ReceiveRing {
    /// `mergeable`: VIRTIO_NET_F_MRG_RXBUF was negotiated.
    ///
    /// # Errors
    /// [`RingFault::Size`], [`RingFault::Address`], [`RingFault::Base`], [`RingFault::Log`] or [`RingFault::Memory`].
    pub fn new(spec: &RingSpec, mergeable: bool) -> Result<Self, RingFault> {
        Ok(Self(match spec.packed {
            false => Either::Split(Receive::new(spec, mergeable)?),
            true => Either::Packed(Receive::new(spec, mergeable)?),
        }))
    }

    /// Brings in what [`ReceiveRing::look`] will read.
    #[inline]
    pub fn expect(&self) {
        either!(&self.0, receive => receive.ring.expect());
    }

    /// Asks for what publishing writes, where its ring is no longer in the cache by then.
    #[inline]
    pub fn expect_to_publish(&self) {
        either!(&self.0, receive => receive.ring.expect_to_publish());
    }

    /// Finds the chains that [`ReceiveRing::prepare`] will fetch for so many frames, and asks for their descriptors.
    #[inline]
    pub fn look(&mut self, frames: usize) {
        either!(&mut self.0, receive => receive.look(frames));
    }

    /// Fetches ahead so that `frames` single-buffer frames can be written without waiting for lines, if the guest offers that many.
    ///
    /// # Errors
    /// A fault found in a chain; what was fetched before it stays good.
    #[inline]
    pub fn prepare(&mut self, frames: usize) -> Result<(), RingFault> {
        either!(&mut self.0, receive => receive.prepare(frames))
    }

    /// Writes one frame: virtio-net header, `head`, `tail`; into several buffers where those are mergeable. How many it took.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing was consumed then.
    #[inline(always)]
    pub fn deliver(&mut self, header: WireHeader, head: &[u8], tail: Payload<'_>) -> Result<u16, NoRoom> {
        either!(&mut self.0, receive => receive.deliver(header, head, tail))
    }

    /// Writes frames, the first `len` bytes of each (virtio-net header included, which says one buffer), as long as each is no longer than
    /// what it lies in and fits the next buffer; how many. The next one after those is for [`ReceiveRing::deliver`].
    #[inline(always)]
    pub fn deliver_short<'a, const N: usize>(
        &mut self,
        frames: impl Iterator<Item = (&'a [u8; N], usize)>,
    ) -> usize {
        either!(&mut self.0, receive => receive.deliver_short(frames))
    }

    /// Shows the driver what was written; true if it wants an interrupt.
    #[inline]
    pub fn publish(&mut self) -> bool {
        either!(&mut self.0, receive => receive.ring.publish())
    }

    /// Chains that came by an indirect table since this was asked last.
    #[inline]
    pub fn take_tables(&mut self) -> u64 {
        either!(&mut self.0, receive => std::mem::take(&mut receive.walk.tables))
    }

    /// Whether the memory under it, or the dirty log, was cut off.
    #[must_use]
    pub fn memory_is_poisoned(&self) -> bool {
        either!(&self.0, receive => receive.ring.is_poisoned())
    }

    /// Where another owner of this ring goes on: what GET_VRING_BASE answers.
    #[must_use]
    pub fn base(&self) -> u32 {
        either!(&self.0, receive => receive.ring.base())
    }
}
