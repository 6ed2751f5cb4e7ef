//! How much of the log one attachment may fill: what a guest or a front-end can cause again and again is written through its journal.
//!
//! What must stay true: over any span `t`, at most [`BURST`] lines and one more per [`INTERVAL`]; nobody's lines are spent by
//! another's; what is left out is counted, and the next line that is written says how much it was.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Lines at once.
const BURST: u32 = 5;
/// One line per, in the long run.
const INTERVAL: Duration = Duration::from_secs(10);

/// One attachment's share of the log, of every level together.
#[derive(Debug)]
pub struct Journal {
    start: Instant,
    /// When the share will be whole again (as in GCRA), nanoseconds after `start`.
    whole_at: AtomicU64,
    left_out: AtomicU64,
}

impl Default for Journal {
    fn default() -> Self {
        Self { start: Instant::now(), whole_at: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }
}

impl Journal {
    /// Writes `what` of attachment or port `name`, if the level is wanted and the share allows.
    pub fn write(&self, level: log::Level, name: &dyn fmt::Display, what: fmt::Arguments<'_>) {
        if !log::log_enabled!(level) {
            return;
        }
        match self.admit(self.start.elapsed()) {
            None => {}
            Some(0) => log::log!(level, "{name}: {what}"),
            Some(left_out) => log::log!(level, "{name}: {what} ({left_out} lines before it were left out)"),
        }
    }

    /// Whether a line may be written at `now`, and then how many before it were not.
    fn admit(&self, now: Duration) -> Option<u64> {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let (now, interval) = (nanos(now), nanos(INTERVAL));
        let taken = self.whole_at.fetch_update(Relaxed, Relaxed, |whole_at| {
            let then = whole_at.max(now).saturating_add(interval);
            (then <= now.saturating_add(interval * u64::from(BURST))).then_some(then)
        });
        if taken.is_err() {
            self.left_out.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_becomes_a_few_that_say_how_many_there_were() {
        let journal = Journal::default();
        let start = Duration::from_secs(100);
        let written = (0..1000).filter(|_| journal.admit(start).is_some()).count();
        assert_eq!(written, 5);
        assert_eq!(journal.admit(start + INTERVAL), Some(995));
        assert_eq!(journal.admit(start + INTERVAL), None);
        assert_eq!(journal.admit(start + 2 * INTERVAL), Some(1));
    }

    #[test]
    fn one_attachments_flood_leaves_another_its_lines() {
        let (flooded, other) = (Journal::default(), Journal::default());
        assert_eq!((0..1000).filter(|_| flooded.admit(Duration::ZERO).is_some()).count(), 5);
        assert_eq!(flooded.admit(Duration::ZERO), None);
        assert_eq!(other.admit(Duration::ZERO), Some(0));
    }
}
