//! Plain per-worker cells, written by one thread and summed by readers.
//!
//! What must stay true: a cell has exactly one writer (its worker), so an increment is a relaxed load and a relaxed store, never
//! a read-modify-write; readers on other threads see a value that was true a moment ago. Cells of a port outlive its attachment. No
//! two workers' cells lie in one cache line, or in two that a processor fetches together.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::DropReason;
use crate::pipeline::PortId;

/// One counter.
#[derive(Default, Debug)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds `n`; only the owning worker may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }
    /// The value a moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one origin (an attachment, or the uplink) sent and received, and what was dropped of what it sent.
#[derive(Debug)]
#[repr(align(128))]
pub struct PortCounters {
    /// Packets taken from it.
    pub in_packets: Cell,
    /// Bytes taken from it (Ethernet frame, or IPv6 packet for the uplink).
    pub in_bytes: Cell,
    /// Packets given to it.
    pub out_packets: Cell,
    /// Bytes given to it.
    pub out_bytes: Cell,
    /// Of what it sent, dropped, by `DropReason as usize`.
    pub drops: [Cell; DropReason::ALL.len()],
}

impl Default for PortCounters {
    fn default() -> Self {
        Self {
            in_packets: Cell::default(),
            in_bytes: Cell::default(),
            out_packets: Cell::default(),
            out_bytes: Cell::default(),
            drops: core::array::from_fn(|_| Cell::default()),
        }
    }
}

impl PortCounters {
    /// Counts a drop; only the owning worker may call this.
    #[inline]
    pub fn dropped(&self, reason: DropReason) {
        if let Some(cell) = self.drops.get(reason as usize) {
            cell.add(1);
        }
    }
}

/// A sum over workers, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortTotals {
    /// Packets taken from it.
    pub in_packets: u64,
    /// Bytes taken from it.
    pub in_bytes: u64,
    /// Packets given to it.
    pub out_packets: u64,
    /// Bytes given to it.
    pub out_bytes: u64,
    /// Of what it sent, dropped: the reasons that occurred, in declaration order.
    pub drops: Vec<(DropReason, u64)>,
}

impl PortTotals {
    /// How often `reason` occurred.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n)
    }
    /// All drops.
    pub fn all_drops(&self) -> u64 {
        self.drops.iter().map(|(_, n)| n).sum()
    }

    fn add(&mut self, cells: &PortCounters) {
        self.in_packets += cells.in_packets.get();
        self.in_bytes += cells.in_bytes.get();
        self.out_packets += cells.out_packets.get();
        self.out_bytes += cells.out_bytes.get();
        for (reason, cell) in DropReason::ALL.iter().zip(&cells.drops) {
            let n = cell.get();
            match self.drops.iter_mut().find(|(r, _)| r == reason) {
                Some((_, total)) => *total += n,
                None if n > 0 => self.drops.push((*reason, n)),
                None => {}
            }
        }
        self.drops.sort_by_key(|(reason, _)| *reason as usize);
    }
}

/// Sums of all workers, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Each configured attachment, by name.
    pub ports: Vec<(String, PortTotals)>,
    /// The uplink.
    pub uplink: PortTotals,
    /// The outside, where this host is a gateway.
    pub outside: PortTotals,
}

/// The cells of one worker, as readers see them. The worker keeps its own list of the same cells.
#[derive(Debug, Default)]
pub(crate) struct WorkerCells {
    pub(crate) uplink: Arc<PortCounters>,
    pub(crate) outside: Arc<PortCounters>,
    ports: Mutex<Vec<Arc<PortCounters>>>,
}

impl WorkerCells {
    /// The cells of ports `0..count`, made where they do not exist yet.
    pub(crate) fn ports(&self, count: usize) -> Vec<Arc<PortCounters>> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        while ports.len() < count {
            ports.push(Arc::default());
        }
        ports.clone()
    }

    pub(crate) fn add_port(&self, port: PortId, totals: &mut PortTotals) {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cells) = ports.get(usize::from(port.0)) {
            totals.add(cells);
        }
    }

    pub(crate) fn add_uplink(&self, totals: &mut PortTotals) {
        totals.add(&self.uplink);
    }

    pub(crate) fn add_outside(&self, totals: &mut PortTotals) {
        totals.add(&self.outside);
    }
}
