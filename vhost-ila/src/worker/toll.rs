//! What the owner of a task's namespace makes the worker spend. A write to a TUN runs the receiving side of its namespace, nft and tc
//! included, within our system call; whoever owns that decides how long it takes, and neither the sender nor the fabric does.
//!
//! What must stay true:
//!
//! * What deliveries to one task take beyond the ordinary is at most one part in [`REST`] of the time in which no task holds the worker
//!   up, [`BURST`] and one delivery more at once. What comes sooner finds the task full, as a ring without room.
//! * Such a delivery is its receiver's account, not its sender's. An ordinary one is its sender's, and nothing is refused for it.
//!
//! One delivery cannot be cut short: the longest that a namespace makes of a packet is how long the others wait once.

/// Cycles that a delivery may take at its sender's expense, and more for each byte.
const ORDINARY: u64 = 1 << 16;
const PER_BYTE: u64 = 2;

/// Cycles beyond the ordinary that are let pass at once, some milliseconds: a worker that is preempted loses as much, and that is
/// nobody's fault.
const BURST: u64 = 1 << 24;

/// One held-up cycle is paid by so many others.
const REST: u64 = 4;

/// What one task owes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Toll {
    owed: u64,
    /// When that was so, by the clock of [`Tolls`].
    at: u64,
}

/// The account of all tasks of a worker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tolls {
    /// Cycles in which a task held the worker up. A clock without them lets no task's debt be paid by another's.
    held_up: u64,
    /// How much of that was in the present batch.
    of_batch: u64,
}

impl Tolls {
    /// Whether a task may be given something at `now`, in cycles.
    pub(super) fn lets_pass(&self, task: &mut Toll, now: u64) -> bool {
        let clock = now.wrapping_sub(self.held_up);
        // Processors' counters may differ by a little.
        let passed = clock.wrapping_sub(task.at).cast_signed().max(0).cast_unsigned();
        *task = Toll { owed: task.owed.saturating_sub(passed / REST), at: clock };
        task.owed <= BURST
    }

    /// A task was given so many bytes, in so many cycles.
    pub(super) fn took(&mut self, task: &mut Toll, bytes: usize, cycles: u64) {
        if cycles > ORDINARY + PER_BYTE * bytes as u64 {
            task.owed = task.owed.saturating_add(cycles);
            self.held_up = self.held_up.wrapping_add(cycles);
            self.of_batch = self.of_batch.saturating_add(cycles);
        }
    }

    /// What of the batch that has ended, since the last that was asked about, is not its sender's.
    #[inline]
    pub(super) fn of_batch(&mut self) -> u64 {
        std::mem::take(&mut self.of_batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of `cycles` goes to tasks that take `cost` for each of the packets that always wait for them, while others' take 10 000.
    fn held_up(tasks: usize, cost: u64, cycles: u64) -> (u64, u64) {
        let (mut tolls, mut now, mut refused) = (Tolls::default(), 1 << 40, 0);
        let (begin, mut owe, mut spent) = (now, vec![Toll::default(); tasks], 0);
        while now - begin < cycles {
            now += 10_000;
            for task in &mut owe {
                if tolls.lets_pass(task, now) {
                    now += cost;
                    spent += cost;
                    tolls.took(task, 1500, cost);
                } else {
                    refused += 1;
                }
            }
        }
        assert!(tolls.of_batch() <= spent && tolls.of_batch() == 0);
        (spent, refused)
    }

    #[test]
    fn a_task_that_holds_the_worker_up_gets_a_fifth_of_its_time_and_ten_do_not_get_all() {
        let long = 1 << 34;
        for cost in [100_000, 3_000_000, 60_000_000] {
            let (spent, refused) = held_up(1, cost, long);
            assert!(spent <= long / 5 + BURST + cost && spent > long / 6, "{cost}: {spent} of {long}");
            assert!(refused > 0);
            let (spent, _) = held_up(10, cost, long);
            assert!(spent <= long * 10 / 14 + 10 * (BURST + cost), "{cost}: {spent} of {long}");
        }
    }

    #[test]
    fn an_ordinary_delivery_is_its_senders_and_never_refused() {
        for (bytes, cost) in [(100, 60_000), (65_000, 150_000)] {
            let (mut tolls, mut task) = (Tolls::default(), Toll::default());
            for n in 1..10_000 {
                assert!(tolls.lets_pass(&mut task, n * cost));
                tolls.took(&mut task, bytes, cost);
            }
            assert_eq!(tolls.of_batch(), 0);
        }
        let (mut tolls, mut task) = (Tolls::default(), Toll::default());
        tolls.took(&mut task, 100, 150_000);
        assert_eq!((tolls.of_batch(), tolls.of_batch()), (150_000, 0), "taken off its sender's account once");
    }
}
