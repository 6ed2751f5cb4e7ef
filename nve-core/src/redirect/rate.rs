//! How often: a token bucket (GCRA), as `gateway/limits.rs` has by protocol.

use core::time::Duration;

/// Tokens per second in the long run, and at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) each_second: u32,
    pub(super) burst: u32,
}

/// A bucket; a new one is full.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Takes a token at `now`, if there is one. A clock that goes back grants nothing more.
    pub(super) fn take(&mut self, rate: Rate, now: Duration) -> bool {
        let interval = Duration::from_secs(1) / rate.each_second.max(1);
        let then = self.full_at.max(now).saturating_add(interval);
        let granted = then <= now.saturating_add(interval * rate.burst);
        if granted {
            self.full_at = then;
        }
        granted
    }

    /// Whether it is as a new one.
    pub(super) fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}
