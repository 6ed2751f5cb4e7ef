//! What a guest sends: chains taken in batches, given back when the worker has copied them on.

use std::ops::Range;
use std::sync::Arc;

use super::chain::{Chain, Direction, Walk};
use super::{
    BATCH, BATCH_BYTES, Either, MAX_PIECES, PackedRing, Ring, RingFault, RingSpec, SplitRing, either,
};
use crate::device::cpu;
use crate::device::memory::{GuestMemory, Payload, SHORT, Segment, copy_out};

/// Pieces a whole batch may come to; a batch ends early when the next chain might not fit.
const ARENA: usize = 2 * MAX_PIECES;

/// A batch of chains, as pieces of guest memory; the worker has one and uses it again and again.
#[derive(Debug)]
pub struct Chains {
    chains: Vec<Chain>,
    segments: Vec<Segment>,
    /// Keeps the pieces mapped.
    memory: Option<Arc<GuestMemory>>,
}

impl Default for Chains {
    fn default() -> Self {
        Self { chains: Vec::with_capacity(BATCH), segments: Vec::with_capacity(ARENA), memory: None }
    }
}

impl Chains {
    /// How many chains.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.chains.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// Bytes of chain `index`, the virtio-net header included; saturating.
    #[inline]
    #[must_use]
    pub fn bytes(&self, index: usize) -> usize {
        self.chains.get(index).map_or(0, |c| c.len() as usize)
    }

    /// The same of each of these.
    #[inline]
    pub fn lengths(&self, which: Range<usize>) -> impl Iterator<Item = usize> {
        self.chains.get(which).unwrap_or_default().iter().map(|chain| chain.len() as usize)
    }

    /// Copies bytes `skip ..` of chain `index` into `to`; returns how many there were.
    #[inline]
    pub fn copy(&self, index: usize, skip: usize, to: &mut [u8]) -> usize {
        copy_out(self.pieces(index), skip, to)
    }

    /// Brings in what [`Chains::copy_heads`] will read of these chains.
    #[inline]
    pub fn prefetch(&self, which: Range<usize>) {
        let last = which.end.min(self.chains.len());
        for chain in self.chains.get(which.start..last).unwrap_or_default() {
            if let Some(first) = self.segments.get(chain.first()) {
                let at = first.address() as usize;
                cpu::prefetch(at);
                cpu::prefetch(at.wrapping_add(64));
            }
        }
    }

    /// Copies the first bytes of the chains from number `from` on into the places of `to`, one each.
    #[inline(always)]
    pub fn copy_heads<'a, const N: usize>(&self, from: usize, to: impl Iterator<Item = &'a mut [u8; N]>) {
        for (chain, to) in self.chains.get(from..).unwrap_or_default().iter().zip(to) {
            match self.segments.get(chain.pieces()).unwrap_or_default() {
                [alone] => alone.copy_head(to),
                pieces => copy_pieces(pieces, to),
            };
        }
    }

    /// Bytes `range` of chain `index`: those that are in `taken`, the first of the chain, from there; the others left where they are. The range is
    /// cut to the chain.
    #[inline]
    #[must_use]
    pub fn payload<'a>(&'a self, index: usize, taken: &'a [u8], range: Range<usize>) -> Payload<'a> {
        let copied = taken.get(range.start..range.end.min(taken.len())).unwrap_or_default();
        if copied.len() == range.len() {
            return Payload::own(copied);
        }
        let start = range.start + copied.len();
        let end = range.end.min(self.bytes(index));
        Payload::guest(copied, self.pieces(index), start, end.saturating_sub(start))
    }

    /// Lets go of the guest's memory.
    pub fn clear(&mut self) {
        self.chains.clear();
        self.segments.clear();
        self.memory = None;
    }

    #[inline]
    fn pieces(&self, index: usize) -> &[Segment] {
        let range = self.chains.get(index).map_or(0..0, |c| c.pieces());
        self.segments.get(range).unwrap_or_default()
    }
}

/// The first bytes of a chain of several pieces.
#[inline(never)]
fn copy_pieces(pieces: &[Segment], to: &mut [u8]) -> usize {
    copy_out(pieces, 0, to)
}

/// A guest's transmit ring.
#[derive(Debug)]
pub struct TransmitRing(Either<Transmit<SplitRing>, Transmit<PackedRing>>);

/// One over a ring of this kind.
#[derive(Debug)]
struct Transmit<R: Ring> {
    ring: R,
    walk: Walk,
    found: R::Found,
    /// How many of those found were not taken yet.
    looked: usize,
}

impl<R: Ring> Transmit<R> {
    fn new(spec: &RingSpec) -> Result<Self, RingFault> {
        let ring = R::new(spec, Direction::Readable)?;
        ring.must_be_whole()?;
        Ok(Self {
            ring,
            walk: Walk::new(Direction::Readable, spec.indirect),
            found: R::Found::default(),
            looked: 0,
        })
    }

    #[inline]
    fn take(&mut self, taken: &mut Chains) -> Result<(), RingFault> {
        let Chains { chains, segments, memory } = taken;
        chains.clear();
        segments.clear();
        // In stages, so that the lines the other core wrote arrive while the previous stage works.
        let count = match std::mem::take(&mut self.looked) {
            0 => self.ring.look(BATCH, &mut self.found)?,
            looked => looked,
        };
        if count == 0 {
            return Ok(());
        }
        if !memory.as_ref().is_some_and(|m| Arc::ptr_eq(m, self.ring.memory())) {
            *memory = Some(Arc::clone(self.ring.memory()));
        }
        let (mut bytes, mut index) = (0, 0);
        while index < count {
            if segments.len() + MAX_PIECES > ARENA || bytes >= BATCH_BYTES {
                break;
            }
            // No more than reach the limit, whatever they are.
            let most = (BATCH_BYTES - bytes).div_ceil(SHORT as usize).min(count - index);
            if most >= 4 {
                let to = (&mut *segments, &mut *chains);
                let (taken, more) = self.ring.fours(&self.found, index..index + most, &self.walk, to);
                if taken > 0 {
                    (index, bytes) = (index + taken, bytes + more);
                    continue;
                }
            }
            let Some(len) = self.ring.chain(&self.found, index, &mut self.walk, (segments, chains))? else {
                break;
            };
            bytes += len as usize;
            index += 1;
        }
        Ok(())
    }

    #[inline]
    fn look(&mut self) {
        if self.looked == 0 {
            // A fault is found again when they are taken.
            self.looked = self.ring.look(BATCH, &mut self.found).unwrap_or(0);
        }
    }

    #[inline]
    fn fetch(&self, index: usize) {
        if index < self.looked
            && let Some(at) = self.ring.first_byte(&self.found, index)
        {
            cpu::prefetch(at);
            cpu::prefetch(at.wrapping_add(64));
        }
    }

    fn leave(&mut self, chains: &mut Chains, keep: usize) {
        // What was found lies behind them.
        self.looked = 0;
        self.ring.leave(chains.chains.get(keep..).unwrap_or_default());
        chains.chains.truncate(keep);
    }
}

impl TransmitRing {
    /// # Errors
    /// [`RingFault::Size`], [`RingFault::Address`], [`RingFault::Base`], [`RingFault::Log`] or [`RingFault::Memory`].
    pub fn new(spec: &RingSpec) -> Result<Self, RingFault> {
        Ok(Self(match spec.packed {
            false => Either::Split(Transmit::new(spec)?),
            true => Either::Packed(Transmit::new(spec)?),
        }))
    }

    /// Brings in what [`TransmitRing::look`] will read.
    #[inline]
    pub fn expect(&self) {
        either!(&self.0, transmit => transmit.ring.expect());
    }

    /// Asks for what publishing writes, where its ring is no longer in the cache by then.
    #[inline]
    pub fn expect_to_publish(&self) {
        either!(&self.0, transmit => transmit.ring.expect_to_publish());
    }

    /// Finds the chains that [`TransmitRing::take`] will take next, and asks for their descriptors.
    #[inline]
    pub fn look(&mut self) {
        either!(&mut self.0, transmit => transmit.look());
    }

    /// Asks for the first bytes of chain `index` of those that [`TransmitRing::look`] found a while ago.
    #[inline]
    pub fn fetch(&self, index: usize) {
        either!(&self.0, transmit => transmit.fetch(index));
    }

    /// Takes up to [`BATCH`] chains, fewer where they are large ([`BATCH_BYTES`]); `chains` holds them afterwards, none if the ring is
    /// empty.
    ///
    /// # Errors
    /// The first fault found; chains before it are in `chains` and still to be served.
    #[inline]
    pub fn take(&mut self, chains: &mut Chains) -> Result<(), RingFault> {
        either!(&mut self.0, transmit => transmit.take(chains))
    }

    /// Leaves all but the first `keep` chains of a batch in the ring, to be taken anew, whatever they are by then.
    pub fn leave(&mut self, chains: &mut Chains, keep: usize) {
        either!(&mut self.0, transmit => transmit.leave(chains, keep));
    }

    /// Gives a taken batch back to the driver.
    #[inline]
    pub fn finish(&mut self, chains: &Chains) {
        either!(&mut self.0, transmit => transmit.ring.finish_unwritten(&chains.chains));
    }

    /// Shows the driver what was given back; true if it wants an interrupt.
    #[inline]
    pub fn publish(&mut self) -> bool {
        either!(&mut self.0, transmit => transmit.ring.publish())
    }

    /// Chains that came by an indirect table since this was asked last.
    #[inline]
    pub fn take_tables(&mut self) -> u64 {
        either!(&mut self.0, transmit => std::mem::take(&mut transmit.walk.tables))
    }

    /// Asks for kicks before sleeping; true if there is work already.
    ///
    /// # Errors
    /// [`RingFault::AvailableIndex`].
    pub fn want_kicks(&mut self) -> Result<bool, RingFault> {
        either!(&mut self.0, transmit => transmit.ring.want_kicks())
    }

    /// Asks for no kicks while polling.
    pub fn refuse_kicks(&mut self) {
        either!(&mut self.0, transmit => transmit.ring.refuse_kicks());
    }

    /// Whether the memory under it, or the dirty log, was cut off.
    #[must_use]
    pub fn memory_is_poisoned(&self) -> bool {
        either!(&self.0, transmit => transmit.ring.is_poisoned())
    }

    /// Where another owner of this ring goes on: what GET_VRING_BASE answers.
    #[must_use]
    pub fn base(&self) -> u32 {
        either!(&self.0, transmit => transmit.ring.base())
    }
}
