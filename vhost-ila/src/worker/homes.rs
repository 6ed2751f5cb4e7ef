//! Receive rings that several workers write to: at home, or with the worker that writes just now (docs/decisions/0021).
//!
//! What must stay true:
//!
//! * The receive rings of a port have one owner at a time. A worker has them from the first frame of a batch for that port until it has
//!   published the batch; then they are at home, and whoever finds them there may take them, to write or to stop one of them.
//! * Who waits for a port's rings has no other port's: so no two workers wait for each other, and nobody waits for longer than a batch.
//! * A worker that ends, by a panic too, gives back what it has ([`Outlets`] is dropped).
//! * With one worker there are no homes and no locks: the rings of its ports are its own.
//!
//! ```text
//!   prepare, deliver ── not here? ──> take: free ──> the worker's `ports[n].receivers` ──> deliver ... ──> publish ──> back home
//!                                      └─ with another worker ──> publish and give back all, then wait for it
//! ```

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use nve_core::pipeline::MAX_PORTS;

use super::delivery::Outlets;
use super::receivers::Receivers;

/// Looks at a home before the kernel is asked to wait there: some microseconds, in which a batch is mostly over.
const LOOKS: usize = 64;
/// Pauses of the processor between two of them.
const PAUSES: usize = 16;

/// One port's.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Home {
    inside: Mutex<Inside>,
    back: Condvar,
}

#[derive(Debug)]
struct Inside {
    /// None: some worker has them.
    receivers: Option<Receivers>,
    /// Workers that wait for them in the kernel.
    waiting: usize,
}

impl Default for Inside {
    fn default() -> Self {
        Self { receivers: Some(Receivers::default()), waiting: 0 }
    }
}

impl Home {
    fn open(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Receivers> {
        self.open().receivers.take()
    }

    #[cold]
    fn wait(&self) -> Receivers {
        for _ in 0..LOOKS {
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
            if let Some(receivers) = self.take() {
                return receivers;
            }
        }
        let mut inside = self.open();
        inside.waiting += 1;
        loop {
            if let Some(receivers) = inside.receivers.take() {
                inside.waiting -= 1;
                return receivers;
            }
            inside = self.back.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, receivers: Receivers) {
        let mut inside = self.open();
        inside.receivers = Some(receivers);
        // All may ask again: each takes them for one batch.
        if inside.waiting > 0 {
            self.back.notify_one();
        }
    }
}

/// Those of all ports, by number; none where there is one worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Homes(Option<Arc<[Home]>>);

impl Homes {
    /// For so many workers.
    pub(super) fn of(workers: u16) -> Self {
        Self((workers > 1).then(|| (0..MAX_PORTS).map(|_| Home::default()).collect()))
    }

    /// Ports that have one.
    pub(super) fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |homes| homes.len())
    }

    fn of_port(&self, index: u16) -> Option<&Home> {
        self.0.as_ref()?.get(usize::from(index))
    }
}

impl Outlets {
    /// Makes the receive rings of port `index` ours until [`Self::let_go`], if nobody has them; whether they were not, and are now.
    #[cold]
    pub(super) fn take_if_free(&mut self, index: u16) -> bool {
        let Some((slot, home)) = self.ports.get_mut(usize::from(index)).zip(self.homes.of_port(index)) else {
            return false;
        };
        if slot.borrowed {
            return false;
        }
        let Some(receivers) = home.take() else { return false };
        self.borrow(index, receivers);
        true
    }

    /// The same, waiting for another worker that has them.
    #[cold]
    pub(super) fn take(&mut self, index: u16) -> bool {
        if self.take_if_free(index) {
            return true;
        }
        if self.homes.count() == 0 || self.ports.get(usize::from(index)).is_none_or(|slot| slot.borrowed) {
            return false;
        }
        self.let_go();
        self.counters.waits.add(1);
        let Some(receivers) = self.homes.of_port(index).map(Home::wait) else { return false };
        self.borrow(index, receivers);
        true
    }

    fn borrow(&mut self, index: u16, receivers: Receivers) {
        let Some(slot) = self.ports.get_mut(usize::from(index)) else { return };
        (slot.receivers, slot.borrowed) = (receivers, true);
        self.borrowed.push(index);
    }

    /// Shows every receiver what was written, and gives back the rings that are not ours alone.
    pub(super) fn let_go(&mut self) {
        self.publish();
        self.give_back();
    }

    /// The same at the end of a batch, where there are such.
    #[inline]
    pub(super) fn end_batch(&mut self) {
        if !self.borrowed.is_empty() {
            self.let_go();
        }
    }

    fn give_back(&mut self) {
        while let Some(index) = self.borrowed.pop() {
            let slot = self.ports.get_mut(usize::from(index));
            let Some((slot, home)) = slot.zip(self.homes.of_port(index)) else { continue };
            slot.borrowed = false;
            home.give_back(std::mem::take(&mut slot.receivers));
        }
    }
}

impl Drop for Outlets {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ports_rings_are_with_one_worker_at_a_time_and_whoever_waits_gets_them() {
        let homes = Homes::of(2);
        let turns = 2000;
        let count = std::sync::atomic::AtomicU64::new(0);
        let inside = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for turn in 0..turns {
                        let home = homes.of_port(7).unwrap();
                        let receivers = home.take().unwrap_or_else(|| home.wait());
                        assert!(!inside.swap(true, std::sync::atomic::Ordering::Relaxed), "two have them");
                        if turn % 100 == 0 {
                            // Longer than others spin.
                            std::thread::sleep(std::time::Duration::from_micros(300));
                        }
                        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        inside.store(false, std::sync::atomic::Ordering::Relaxed);
                        home.give_back(receivers);
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 3 * turns);
        assert_eq!(homes.of_port(7).unwrap().open().waiting, 0);
    }

    #[test]
    fn one_worker_has_no_homes() {
        assert_eq!((Homes::of(1).count(), Homes::of(2).count()), (0, MAX_PORTS));
    }
}
