//! How many ICMP errors are sent: a token bucket and a switch per reason (RFC 7915 4.4, 5.4; RFC 4443 2.4(f)).
//!
//! Time is an argument; it may stand still or step back, then nothing is added.

use crate::refusal::Reason;

/// Decides whether an ICMP error may be sent now. One for each sender that should not starve others.
#[derive(Clone, Debug)]
pub struct Limiter {
    /// Errors per second.
    rate: u32,
    /// Most errors sent at once, in millionths of an error.
    capacity: u64,
    /// What may be sent now, in millionths of an error.
    tokens: u64,
    /// When `tokens` was last filled, microseconds.
    filled: u64,
    /// Reasons that are never answered, a bit each.
    off: u64,
}

const ONE: u64 = 1_000_000;

impl Limiter {
    /// Allows `rate` errors a second on average and `burst` at once.
    pub const fn new(rate: u32, burst: u32) -> Self {
        let capacity = burst as u64 * ONE;
        Limiter { rate, capacity, tokens: capacity, filled: 0, off: 0 }
    }

    /// Switches errors for `reason` on or off; all are on at first.
    pub const fn switch(&mut self, reason: Reason, on: bool) {
        let bit = 1 << reason as u8;
        self.off = if on { self.off & !bit } else { self.off | bit };
    }

    /// Whether errors for `reason` are switched on.
    pub const fn is_on(&self, reason: Reason) -> bool {
        self.off & (1 << reason as u8) == 0
    }

    /// Whether an error for `reason` may be sent at `now` (microseconds of any steady clock); if so it is counted.
    pub fn allow(&mut self, reason: Reason, now: u64) -> bool {
        if !self.is_on(reason) {
            return false;
        }
        let passed = now.saturating_sub(self.filled);
        // One error a second is one millionth of an error a microsecond.
        self.tokens =
            passed.saturating_mul(u64::from(self.rate)).saturating_add(self.tokens).min(self.capacity);
        self.filled = self.filled.max(now);
        match self.tokens.checked_sub(ONE) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}
