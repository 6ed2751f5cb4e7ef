//! Since when time is counted: one moment for all threads, so that what one worker learns with a time, every other understands.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// That moment.
pub(crate) fn epoch() -> Instant {
    *EPOCH
}

/// Time since then.
pub(crate) fn now() -> Duration {
    EPOCH.elapsed()
}
