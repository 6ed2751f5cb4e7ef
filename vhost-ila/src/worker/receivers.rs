//! The receive rings of one attachment, and which of them a frame goes to.
//!
//! What must stay true: frames go only to rings that run, are whole, and are among the pairs the guest uses; a flow goes to one ring as
//! long as those do not change, so that its order is kept. A receiver with one such ring is never asked for a flow.
//! Where there are several workers these move between them (`homes.rs`), whole.

use crate::device::cpu;
use crate::device::handover::ReceiveQueue;

/// One running ring.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) queue: Box<ReceiveQueue>,
    /// Frames written in this turn and not shown yet.
    pub(super) written: u16,
    /// Those among them that are the core's, and their bytes: not counted yet.
    pub(super) given: (u64, u64),
}

impl Receiving {
    /// A packet of so many bytes was given to it.
    #[inline]
    pub(super) fn note(&mut self, bytes: usize) {
        self.given.0 += 1;
        self.given.1 += bytes as u64;
    }
}

/// The running receive rings of an attachment.
#[derive(Default, Debug)]
pub(super) struct Receivers {
    /// Those that frames go to, by pair; then the others.
    rings: Vec<Receiving>,
    /// How many frames go to.
    usable: usize,
    /// Rings of the attachment's that run beside these: transmit rings and a control queue, whoever serves them.
    beside: usize,
    /// Pairs the guest uses, where it said so on a control queue of ours.
    pairs: Option<u8>,
}

impl Receivers {
    /// Whether it matters which flow a frame belongs to.
    #[inline]
    pub(super) fn spread(&self) -> bool {
        self.usable > 1
    }

    /// Whether there is a ring that frames go to.
    pub(super) fn is_up(&self) -> bool {
        self.usable > 0
    }

    /// The place of the ring for a frame of `flow`.
    #[inline]
    pub(super) fn place(&self, flow: u32) -> usize {
        // Evenly: the flow as a fraction of all flows, of the rings.
        ((u64::from(flow) * self.usable as u64) >> 32) as usize
    }

    /// The ring for a frame of `flow`.
    #[inline]
    pub(super) fn choose(&mut self, flow: u32) -> Option<&mut Receiving> {
        self.at(if self.usable == 1 { 0 } else { self.place(flow) })
    }

    /// The ring at this place, of those that frames go to.
    #[inline]
    pub(super) fn at(&mut self, place: usize) -> Option<&mut Receiving> {
        self.rings.get_mut(..self.usable)?.get_mut(place)
    }

    /// Asks for the lines of the ring at this place.
    #[inline]
    pub(super) fn fetch(&self, place: usize) {
        if let Some(ring) = self.rings.get(place) {
            cpu::prefetch_all(&*ring.queue);
        }
    }

    /// Every ring that runs, those that frames do not go to included.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Receiving> {
        self.rings.iter_mut()
    }

    /// The ring of `pair`.
    pub(super) fn of_pair(&mut self, pair: u8) -> Option<&mut Receiving> {
        self.rings.iter_mut().find(|ring| ring.queue.pair == pair)
    }

    pub(super) fn add(&mut self, queue: Box<ReceiveQueue>) {
        self.rings.push(Receiving { queue, written: 0, given: (0, 0) });
        self.settle();
    }

    pub(super) fn remove(&mut self, pair: u8) -> Option<Box<ReceiveQueue>> {
        let at = self.rings.iter().position(|ring| ring.queue.pair == pair)?;
        let ring = self.rings.swap_remove(at);
        self.settle();
        Some(ring.queue)
    }

    /// A transmit ring or a control queue of the attachment runs.
    pub(super) fn joined(&mut self) {
        self.beside += 1;
    }

    /// One of those has stopped.
    pub(super) fn left(&mut self) {
        self.beside = self.beside.saturating_sub(1);
    }

    /// Whether nothing of the attachment's runs.
    pub(super) fn is_silent(&self) -> bool {
        self.rings.is_empty() && self.beside == 0
    }

    /// The guest uses the first `pairs`; None: all that run.
    pub(super) fn use_pairs(&mut self, pairs: Option<u8>) {
        self.pairs = pairs;
        self.settle();
    }

    /// Sorts the rings anew, after one came, went or broke. Flows move.
    pub(super) fn settle(&mut self) {
        let limit = self.pairs.unwrap_or(u8::MAX);
        let idle = |ring: &Receiving| ring.queue.fault.is_some() || ring.queue.pair >= limit;
        self.rings.sort_unstable_by_key(|ring| (idle(ring), ring.queue.pair));
        self.usable = self.rings.iter().filter(|ring| !idle(ring)).count();
    }
}
