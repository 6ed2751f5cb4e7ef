//! Plain per-worker cells, written by one thread and summed by readers.
//!
//! What must stay true: a cell has exactly one writer (its worker), so an increment is a relaxed load and a relaxed store, never
//! a read-modify-write; readers on other threads see a value that was true a moment ago.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::DropReason;

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
