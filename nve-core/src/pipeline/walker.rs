//! One worker's walk: pins the world for a batch, owns its counter cells, allowances and identification.

use core::time::Duration;
use std::sync::Arc;

use super::{Fate, Nve, Origin, Question, Rewritten, Scratch};
use crate::DropReason;
use crate::counters::{PortCounters, WorkerCells};
use crate::packet::Frame;
use crate::policy::World;

use super::question::Form;

/// One worker's side of an [`Nve`].
#[derive(Debug)]
pub struct Walker {
    nve: Arc<Nve>,
    world: Arc<World>,
    cells: Arc<WorkerCells>,
    ports: Vec<Arc<PortCounters>>,
    now: Duration,
}

impl Walker {
    /// A walker for one worker thread.
    pub fn new(nve: Arc<Nve>) -> Self {
        let cells = nve.register_worker();
        let world = nve.world();
        let ports = cells.ports(super::MAX_PORTS);
        Self { nve, world, cells, ports, now: Duration::ZERO }
    }

    /// Starts a batch: pins the world as it is now, and sets the time (since any epoch, the same at every call).
    pub fn begin(&mut self, now: Duration) {
        self.now = now;
        self.world = self.nve.world();
    }

    /// Parses a frame (Ethernet from a port, IPv6 from the uplink).
    #[inline]
    pub fn classify(&self, origin: Origin, _frame: &Frame<'_>) -> Question {
        Question { origin, form: Form::Refused(DropReason::NoMapping) }
    }

    /// Address of the table line that [`Walker::decide`] will read first, to be prefetched; `None` where it reads none.
    #[inline]
    pub fn slot(&self, _question: &Question) -> Option<usize> {
        None
    }

    /// What becomes of the frame that `question` was made of, in the same batch.
    pub fn decide(&mut self, question: Question, frame: &Frame<'_>, _scratch: &mut Scratch) -> Fate {
        let Form::Refused(reason) = question.form;
        let cells = self.counters(question.origin);
        cells.in_packets.add(1);
        cells.in_bytes.add(frame.len as u64);
        cells.dropped(reason);
        Fate::Drop(reason)
    }

    /// [`Walker::classify`] and [`Walker::decide`] in one.
    pub fn walk(&mut self, origin: Origin, frame: &Frame<'_>, scratch: &mut Scratch) -> Fate {
        let question = self.classify(origin, frame);
        self.decide(question, frame, scratch)
    }

    /// The next piece of the packet whose last piece said `more`; goes where that one went.
    pub fn next_piece(&mut self, _frame: &Frame<'_>, _scratch: &mut Scratch) -> Option<Rewritten> {
        None
    }

    /// The shell delivered `bytes` bytes (one frame or packet) that came from `origin` to `to`.
    #[inline]
    pub fn delivered(&mut self, _origin: Origin, to: Origin, bytes: usize) {
        let cells = self.counters(to);
        cells.out_packets.add(1);
        cells.out_bytes.add(bytes as u64);
    }

    /// The shell could not deliver a packet that came from `origin`.
    pub fn dropped(&mut self, origin: Origin, reason: DropReason) {
        self.counters(origin).dropped(reason);
    }

    fn counters(&self, origin: Origin) -> &PortCounters {
        match origin {
            Origin::Port(port) => self.ports.get(usize::from(port.0)).unwrap_or(&self.cells.uplink),
            Origin::Uplink => &self.cells.uplink,
        }
    }
}
