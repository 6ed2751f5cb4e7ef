//! What a guest sends: chains taken in batches, given back when the worker has copied them on.

use std::ops::Range;
use std::sync::Arc;

use super::chain::{Chain, Direction, Walk};
use super::{BATCH, BATCH_BYTES, MAX_PIECES, RingFault, RingSpec, SplitRing};
use crate::device::cpu;
use crate::device::memory::{GuestMemory, Payload, Segment, copy_out};

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
        self.chains.get(index).map_or(0, |c| c.len as usize)
    }

    /// Copies bytes `skip ..` of chain `index` into `to`; returns how many there were.
    #[inline]
    pub fn copy(&self, index: usize, skip: usize, to: &mut [u8]) -> usize {
        copy_out(self.pieces(index), skip, to)
    }

    /// Bytes `range` of chain `index`, left where they are. The range is cut to the chain.
    #[inline]
    #[must_use]
    pub fn payload(&self, index: usize, range: Range<usize>) -> Payload<'_> {
        let end = range.end.min(self.bytes(index));
        Payload::guest(self.pieces(index), range.start, end.saturating_sub(range.start))
    }

    /// Lets go of the guest's memory.
    pub fn clear(&mut self) {
        self.chains.clear();
        self.segments.clear();
        self.memory = None;
    }

    #[inline]
    fn pieces(&self, index: usize) -> &[Segment] {
        let range =
            self.chains.get(index).map_or(0..0, |c| usize::from(c.first)..usize::from(c.first + c.count));
        self.segments.get(range).unwrap_or_default()
    }
}

/// A guest's transmit ring.
#[derive(Debug)]
pub struct TransmitRing {
    ring: SplitRing,
    walk: Walk,
}

impl TransmitRing {
    /// # Errors
    /// [`RingFault::Size`], [`RingFault::Address`], [`RingFault::Log`] or [`RingFault::Memory`].
    pub fn new(spec: &RingSpec) -> Result<Self, RingFault> {
        let ring = SplitRing::new(spec)?;
        ring.must_be_whole()?;
        Ok(Self { ring, walk: Walk::new(Direction::Readable, spec.indirect) })
    }

    /// Takes up to [`BATCH`] chains, fewer where they are large ([`BATCH_BYTES`]); `chains` holds them afterwards, none if the ring is
    /// empty.
    ///
    /// # Errors
    /// The first fault found; chains before it are in `chains` and still to be served.
    #[inline]
    pub fn take(&mut self, chains: &mut Chains) -> Result<(), RingFault> {
        chains.chains.clear();
        chains.segments.clear();
        let ring = &mut self.ring;
        let count = usize::from(ring.available_after(ring.next_available)?).min(BATCH);
        if count == 0 {
            return Ok(());
        }
        let layout = &ring.layout;
        if !chains.memory.as_ref().is_some_and(|m| Arc::ptr_eq(m, &layout.memory)) {
            chains.memory = Some(Arc::clone(&layout.memory));
        }
        // In stages, so that the lines the other core wrote arrive while the previous stage works.
        let mut heads = [0u16; BATCH];
        for (i, head) in heads[..count].iter_mut().enumerate() {
            *head = layout.available_head(ring.next_available.wrapping_add(i as u16));
            layout.prefetch_descriptor(*head);
        }
        layout.prefetch_used(ring.next_used, count);
        let mut bytes = 0;
        for head in &heads[..count] {
            if chains.segments.len() + MAX_PIECES > ARENA || bytes >= BATCH_BYTES {
                break;
            }
            let first = chains.segments.len();
            let len = self.walk.chain(layout, *head, &mut chains.segments, &mut chains.chains)?;
            if let Some(first) = chains.segments.get(first) {
                let at = first.address() as usize;
                cpu::prefetch(at);
                cpu::prefetch(at.wrapping_add(64));
            }
            bytes += len as usize;
            ring.next_available = ring.next_available.wrapping_add(1);
        }
        Ok(())
    }

    /// Leaves all but the first `keep` chains of a batch in the ring, to be taken anew, whatever they are by then.
    pub fn leave(&mut self, chains: &mut Chains, keep: usize) {
        let left = chains.chains.len().saturating_sub(keep);
        chains.chains.truncate(keep);
        self.ring.next_available = self.ring.next_available.wrapping_sub(left as u16);
    }

    /// Gives a taken batch back to the driver.
    #[inline]
    pub fn finish(&mut self, chains: &Chains) {
        for chain in &chains.chains {
            self.ring.finish(chain.head, 0);
        }
    }

    /// Shows the driver what was given back; true if it wants an interrupt.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Chains that came by an indirect table since this was asked last.
    #[inline]
    pub fn take_tables(&mut self) -> u64 {
        std::mem::take(&mut self.walk.tables)
    }

    /// Asks for kicks before sleeping; true if there is work already.
    ///
    /// # Errors
    /// [`RingFault::AvailableIndex`].
    pub fn want_kicks(&mut self) -> Result<bool, RingFault> {
        self.ring.want_kicks()
    }

    /// Asks for no kicks while polling.
    pub fn refuse_kicks(&mut self) {
        self.ring.refuse_kicks();
    }

    /// Whether the memory under it, or the dirty log, was cut off.
    #[must_use]
    pub fn memory_is_poisoned(&self) -> bool {
        self.ring.is_poisoned()
    }

    /// Where another owner of this ring goes on: what GET_VRING_BASE answers.
    #[must_use]
    pub fn base(&self) -> u16 {
        self.ring.next_available
    }
}
