//! What a worker costs: cycles per packet is a number an operator can read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nve_core::counters::Cell;
use serde::Serialize;

/// One worker's cells; it alone writes them, and nothing of another's is in their lines.
#[derive(Default, Debug)]
#[repr(align(128))]
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
    /// Times it waited for receive rings that another worker wrote to.
    pub waits: Cell,
    /// Turns that moved packets, by how long they took: below 10 us, 100 us, 1 ms, 10 ms, 100 ms, and the rest.
    pub turns: [Cell; 6],
    /// The same, finer: see [`fine_step`].
    pub fine_turns: FineTurns,
    /// Nanoseconds of the longest of them.
    pub longest_turn: AtomicU64,
    /// The uplink failed for good.
    pub uplink_lost: AtomicBool,
    /// So did the gateway's TUN.
    pub gateway_lost: AtomicBool,
}

/// Where [`WorkerCounters::turns`] are divided, in nanoseconds.
const STEPS: [u64; 5] = [10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// Steps of [`WorkerCounters::fine_turns`].
const FINE: usize = 48;

/// A cell for each of [`FINE`] steps.
#[derive(Debug)]
pub struct FineTurns([Cell; FINE]);

impl Default for FineTurns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Cell::default()))
    }
}

/// Which of [`FINE`] steps a time belongs to: four to each doubling, from a quarter of a microsecond to two milliseconds and more. The first
/// four are of a quarter of a microsecond each.
#[inline]
fn fine_step(nanos: u64) -> usize {
    let quarters = nanos / 250;
    let doublings = quarters.checked_ilog2().unwrap_or(0).saturating_sub(2);
    let step = 4 * u64::from(doublings) + (quarters >> doublings);
    usize::try_from(step).unwrap_or(FINE).min(FINE - 1)
}

impl WorkerCounters {
    /// A turn moved packets in such a time, the time others had the processor included.
    #[inline]
    pub(super) fn took(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let step = STEPS.iter().take_while(|step| nanos >= **step).count();
        if let Some(cell) = self.turns.get(step) {
            cell.add(1);
        }
        if let Some(cell) = self.fine_turns.0.get(fine_step(nanos)) {
            cell.add(1);
        }
        if nanos > self.longest_turn.load(Relaxed) {
            self.longest_turn.store(nanos, Relaxed);
        }
    }

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
            waits: self.waits.get(),
            turns: self.turns.each_ref().map(Cell::get),
            fine_turns: self.fine_turns.0.iter().map(Cell::get).collect(),
            longest_turn_us: self.longest_turn.load(Relaxed) / 1000,
            uplink_lost: self.uplink_lost.load(Relaxed),
            gateway_lost: self.gateway_lost.load(Relaxed),
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
    /// Times it waited for receive rings that another worker wrote to.
    pub waits: u64,
    /// Turns that moved packets, by how long they took: below 10 us, 100 us, 1 ms, 10 ms, 100 ms, and the rest.
    pub turns: [u64; 6],
    /// The same, finer: four steps of a quarter of a microsecond, then four to each doubling, the last for all that is longer. What was
    /// between two answers is their difference.
    pub fine_turns: Vec<u64>,
    /// The longest of them, microseconds, the time others had the processor included.
    pub longest_turn_us: u64,
    /// The uplink failed and is looked at no more; a restart opens it again.
    pub uplink_lost: bool,
    /// The gateway's TUN failed and is looked at no more; a restart opens it again.
    pub gateway_lost: bool,
    /// `busy_cycles / packets`, since the start.
    pub cycles_per_packet: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fine_steps_are_a_fifth_apart_and_the_last_has_the_rest() {
        let steps = [0, 250, 999, 1000, 1999, 2000, 2499, 2500, 3999, 4000, 1_900_000, u64::MAX];
        assert_eq!(steps.map(fine_step), [0, 1, 3, 4, 7, 8, 8, 9, 11, 12, 47, 47]);
        let mut last = 0;
        for nanos in (0..3_000_000).step_by(50) {
            assert!((last..=last + 1).contains(&fine_step(nanos)), "{nanos}");
            last = fine_step(nanos);
        }
    }

    #[test]
    fn turns_are_sorted_by_how_long_they_took() {
        let counters = WorkerCounters::default();
        for micros in [0, 9, 10, 99, 100, 5_000, 2_000_000] {
            counters.took(Duration::from_micros(micros));
        }
        let report = counters.report();
        assert_eq!((report.turns, report.longest_turn_us), ([2, 2, 1, 1, 0, 1], 2_000_000));
    }
}
