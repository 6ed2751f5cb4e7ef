//! What a worker costs: cycles per packet is a number an operator can read.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nve_core::counters::Cell;
use serde::Serialize;

/// One worker's cells; it alone writes them.
#[derive(Default, Debug)]
pub struct WorkerCounters {
    /// Cycles of the turns that moved packets.
    pub busy_cycles: Cell,
    /// Packets taken, from rings and uplink.
    pub packets: Cell,
    /// Rings looked at.
    pub polls: Cell,
    /// Rings looked at that had something.
    pub busy_polls: Cell,
    /// Times it went to sleep.
    pub sleeps: Cell,
    /// Interrupts sent to guests.
    pub signals: Cell,
    /// The uplink failed for good.
    pub uplink_lost: AtomicBool,
}

impl WorkerCounters {
    /// A copy, with the quotient.
    #[must_use]
    pub fn report(&self) -> WorkerReport {
        let (cycles, packets) = (self.busy_cycles.get(), self.packets.get());
        WorkerReport {
            busy_cycles: cycles,
            packets,
            polls: self.polls.get(),
            busy_polls: self.busy_polls.get(),
            sleeps: self.sleeps.get(),
            signals: self.signals.get(),
            uplink_lost: self.uplink_lost.load(Relaxed),
            cycles_per_packet: cycles.checked_div(packets).unwrap_or(0),
        }
    }
}

/// A worker at one moment.
#[derive(Clone, Serialize, Debug)]
pub struct WorkerReport {
    /// Cycles of the turns that moved packets (x86-64: of the time stamp counter).
    pub busy_cycles: u64,
    /// Packets taken, from rings and uplink.
    pub packets: u64,
    /// Rings looked at.
    pub polls: u64,
    /// Rings looked at that had something.
    pub busy_polls: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Interrupts sent to guests.
    pub signals: u64,
    /// The uplink failed and is looked at no more; a restart opens it again.
    pub uplink_lost: bool,
    /// `busy_cycles / packets`, since the start.
    pub cycles_per_packet: u64,
}
