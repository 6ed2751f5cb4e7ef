//! When the virtual gateway speaks unasked: which attachment is due for a router advertisement (RFC 4861, 6.2.4).
//!
//! A guest asks when its link comes up. Unasked it is told what has changed, within a minute of its device's start (the configuration may
//! have changed while the daemon was away), and every half hour, because what it was told lives for 18 hours.
//!
//! What must stay true:
//!
//! * One worker says it: whoever moves the attachment's time on.
//! * While nothing is due, a look costs one load. No lock, no allocation.
//! * What a guest does only delays it: a device that starts again and again is told a minute after its last start.
//!
//! ```text
//!   Nve::set_receiver: up ──> FRESH ──first look──> in a minute ──said──> in half an hour ──said──> ...      down ──> NEVER
//!   Nve::apply: what it was told has changed ──────> at once ─────said──┘
//! ```

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use super::{MAX_PORTS, PortId};

/// Between two advertisements (RFC 4861, 6.2.1: MaxRtrAdvInterval, at most 1800 seconds).
const INTERVAL: Duration = Duration::from_secs(1800);
/// From a device's start to its first.
const AFTER_START: Duration = Duration::from_secs(60);

/// Times that are none: of an attachment that is down; of one that came up and whose minute has not begun.
const NEVER: u64 = u64::MAX;
const FRESH: u64 = u64::MAX - 1;

/// Who is told when.
#[derive(Debug)]
pub(super) struct Announcements {
    /// By port number: milliseconds of the walkers' epoch, or one of the constants above.
    due: Box<[AtomicU64]>,
    /// No time in `due` is earlier.
    earliest: AtomicU64,
}

impl Default for Announcements {
    fn default() -> Self {
        let due = (0..MAX_PORTS).map(|_| AtomicU64::new(NEVER)).collect();
        Self { due, earliest: AtomicU64::new(NEVER) }
    }
}

impl Announcements {
    /// The attachment's device has started.
    pub(super) fn started(&self, port: PortId) {
        self.set(port, FRESH, 0);
    }
    /// Its device has stopped.
    pub(super) fn stopped(&self, port: PortId) {
        self.set(port, NEVER, NEVER);
    }
    /// What it was told is no longer right.
    pub(super) fn changed(&self, port: PortId) {
        let up = |due: &AtomicU64| due.load(Relaxed) != NEVER;
        if self.due.get(usize::from(port.0)).is_some_and(up) {
            self.set(port, 0, 0);
        }
    }

    fn set(&self, port: PortId, due: u64, look: u64) {
        if let Some(cell) = self.due.get(usize::from(port.0)) {
            cell.store(due, Relaxed);
            self.earliest.fetch_min(look, Relaxed);
        }
    }

    /// Time from `now` until somebody may be due; `None` while nobody is up.
    #[inline]
    pub(super) fn wait(&self, now: Duration) -> Option<Duration> {
        match self.earliest.load(Relaxed) {
            NEVER => None,
            earliest => Some(Duration::from_millis(earliest.saturating_sub(millis(now)))),
        }
    }

    /// Somebody of the first `ports` attachments who is due at `now`, and is not any more.
    #[inline]
    pub(super) fn take(&self, now: Duration, ports: usize) -> Option<PortId> {
        if self.earliest.load(Relaxed) > millis(now) { None } else { self.look(now, ports) }
    }

    #[cold]
    fn look(&self, now: Duration, ports: usize) -> Option<PortId> {
        // Whoever becomes due from here on lowers it again.
        self.earliest.store(NEVER, Relaxed);
        let (mut found, mut earliest) = (None, NEVER);
        for (port, cell) in (0..).map(PortId).zip(self.due.iter().take(ports)) {
            let mut due = cell.load(Relaxed);
            let next = match due {
                NEVER => continue,
                FRESH => Some(now + AFTER_START),
                due if due <= millis(now) && found.is_none() => Some(now + INTERVAL),
                _ => None,
            };
            if let Some(next) = next.map(millis)
                && cell.compare_exchange(due, next, Relaxed, Relaxed).is_ok()
            {
                found = found.or((due != FRESH).then_some(port));
                due = next;
            }
            earliest = earliest.min(due);
        }
        self.earliest.fetch_min(earliest, Relaxed);
        found
    }
}

#[inline]
fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PortId = PortId(0);
    const B: PortId = PortId(7);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn due(announcements: &Announcements, now: Duration) -> Vec<PortId> {
        core::iter::from_fn(|| announcements.take(now, 10)).collect()
    }

    #[test]
    fn each_is_told_a_minute_after_its_start_and_every_half_hour() {
        let announcements = Announcements::default();
        assert_eq!((announcements.wait(at(5)), due(&announcements, at(5))), (None, vec![]));
        announcements.started(A);
        assert_eq!(due(&announcements, at(10)), []);
        assert_eq!(announcements.wait(at(10)), Some(at(60)));
        announcements.started(B);
        assert_eq!(due(&announcements, at(20)), []);
        assert_eq!(due(&announcements, at(69)), []);
        assert_eq!(due(&announcements, at(70)), [A]);
        assert_eq!(announcements.wait(at(70)), Some(at(10)));
        assert_eq!(due(&announcements, at(5000)), [A, B]);
        assert_eq!(due(&announcements, at(6799)), []);
        assert_eq!(due(&announcements, at(6800)), [A, B]);
    }

    #[test]
    fn a_change_is_told_at_once_and_only_to_whoever_is_up() {
        let announcements = Announcements::default();
        announcements.started(A);
        announcements.started(B);
        announcements.stopped(B);
        announcements.changed(A);
        announcements.changed(B);
        assert_eq!(due(&announcements, at(1)), [A]);
        assert_eq!(due(&announcements, at(2)), []);
    }

    #[test]
    fn a_device_that_starts_again_and_again_is_told_once_in_the_end() {
        let announcements = Announcements::default();
        for second in 0..600 {
            announcements.stopped(A);
            announcements.started(A);
            assert_eq!(due(&announcements, at(second)), []);
        }
        assert_eq!(due(&announcements, at(660)), [A]);
    }
}
