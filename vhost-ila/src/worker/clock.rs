//! The time, for a worker that asks in every turn: read from the system once in a while, and told by the processor's counter in between.
//! Asking the system waits for whatever the processor has not finished, which costs a turn some hundred cycles each time.
//!
//! What must stay true: it never goes back, and it is off by no more than what the counter can be off in [`STRIDE`] cycles: some tens of
//! nanoseconds.

use std::time::{Duration, Instant};

/// Cycles until the system is asked again: about a tenth of a millisecond.
const STRIDE: u64 = 1 << 18;

/// A worker's clock.
#[derive(Debug)]
pub(super) struct Clock {
    epoch: Instant,
    /// What the system said last, at this count of cycles.
    read: (Duration, u64),
    /// Nanoseconds of a cycle, in units of 2^-32; zero while that is not known.
    rate: u64,
    /// What was told last.
    told: Duration,
}

impl Clock {
    /// Counts from `epoch`.
    pub(super) fn new(epoch: Instant) -> Self {
        Self { epoch, read: (Duration::ZERO, 0), rate: 0, told: Duration::ZERO }
    }

    /// Time since the epoch, when the processor has counted `cycles`.
    #[inline]
    pub(super) fn at(&mut self, cycles: u64) -> Duration {
        let since = cycles.wrapping_sub(self.read.1);
        if since >= STRIDE || self.rate == 0 {
            return self.ask(cycles, self.epoch.elapsed());
        }
        self.tell(self.read.0 + Duration::from_nanos((since * self.rate) >> 32))
    }

    /// The system says that it is `now`.
    #[cold]
    fn ask(&mut self, cycles: u64, now: Duration) -> Duration {
        let since = cycles.wrapping_sub(self.read.1);
        if since < STRIDE {
            // Too few to tell a rate by: the next question will have more.
            return self.tell(now);
        }
        let passed = u64::try_from(now.saturating_sub(self.read.0).as_nanos()).unwrap_or(u64::MAX);
        // Counters of two processors may differ: what cannot be a rate is none.
        let rate =
            passed.checked_shl(32).filter(|_| passed < 1 << 32).and_then(|passed| passed.checked_div(since));
        self.rate = rate.filter(|rate| since < 1 << 40 && *rate < 1 << 36).unwrap_or(0);
        self.read = (now, cycles);
        self.tell(now)
    }

    #[inline]
    fn tell(&mut self, now: Duration) -> Duration {
        self.told = self.told.max(now);
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_questions_it_goes_on_at_the_counters_rate_and_never_back() {
        let mut clock = Clock::new(Instant::now());
        let micros = Duration::from_micros;
        // Two and a half cycles in a nanosecond.
        assert_eq!(clock.ask(1_000_000, micros(400)), micros(400));
        assert_eq!(clock.ask(2_000_000, micros(800)), micros(800));
        let told = clock.at(2_100_000);
        assert!((micros(839)..=micros(840)).contains(&told), "{told:?}");
        assert_eq!(clock.at(2_050_000), told, "a counter that goes back");
        // The system is behind what was told.
        assert_eq!(clock.ask(2_300_000, micros(810)), told);
    }

    #[test]
    fn a_count_that_cannot_be_is_no_rate() {
        let mut clock = Clock::new(Instant::now());
        clock.ask(1_000_000, Duration::from_micros(400));
        for (cycles, now) in [(900_000, 800), (1 << 50, 1000)] {
            clock.ask(cycles, Duration::from_micros(now));
            assert_eq!(clock.rate, 0, "{cycles}");
        }
        // A sleep too long to be measured; then turns that are shorter than a stride.
        clock.ask(1 << 51, Duration::from_secs(10));
        for turn in 1..40 {
            clock.ask((1 << 51) + turn * 10_000, Duration::from_secs(10) + Duration::from_micros(turn * 4));
        }
        assert!(clock.rate > 0, "it is learned again");
        let before = clock.at(1 << 50);
        assert!(clock.at((1 << 50) + 10) >= before, "the system is asked");
    }
}
