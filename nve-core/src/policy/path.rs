//! The path to another host: its locator, and how large a packet the fabric is known to carry there (RFC 8201, for all tenants together).
//!
//! What must stay true:
//!
//! * One cell per locator, shared by all workers: a reader loads it once, a writer (a packet-too-big message, rare) swaps it. No lock.
//! * A message only ever lowers it, never below 1280, and for [`Path::LIFETIME`] at most; after that the uplink's MTU is tried again.
//! * Times count from one epoch for all workers.
//!
//! ```text
//!   pipeline/quote.rs: packet too big, judged ──lower──> │ milliseconds until when: 48 │ MTU: 16 │ ──mtu──> rewrite4.rs, rewrite6.rs
//! ```

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::sync::Arc;

use crate::addr::Locator;

/// What every IPv6 link carries (RFC 8200, section 5).
pub(crate) const IPV6_MINIMUM: u16 = 1280;

/// Another host, as far as sending to it goes.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) locator: Locator,
    pub(crate) path: Arc<Path>,
}

impl Reach {
    /// A host that nothing has been learned about.
    pub(crate) fn to(locator: Locator) -> Self {
        Self { locator, path: Arc::default() }
    }
}

/// What has been learned of a path. See the module's picture; zero: nothing.
#[derive(Debug, Default)]
pub(crate) struct Path(AtomicU64);

/// What a path carries for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Learned {
    /// Bytes of an IPv6 packet.
    pub(crate) mtu: u16,
    /// How long that has been known.
    pub(crate) age: Duration,
}

impl Path {
    /// How long a message counts (RFC 8201, section 4, recommends ten minutes).
    pub(crate) const LIFETIME: Duration = Duration::from_secs(600);

    /// Bytes of the largest IPv6 packet for this path at `now`, for an uplink that takes `uplink` of them.
    #[inline]
    pub(crate) fn mtu(&self, now: Duration, uplink: u16) -> u16 {
        match self.0.load(Relaxed) {
            0 => uplink,
            packed if packed >> 16 <= millis(now) => uplink,
            packed => uplink.min(packed as u16),
        }
    }

    /// Learns at `now` that the path carries `mtu` bytes. Refused where that is less than IPv6's minimum, or not less than what is
    /// known already.
    #[cold]
    pub(crate) fn lower(&self, now: Duration, mtu: u16, uplink: u16) -> bool {
        let packed = millis(now + Self::LIFETIME) << 16 | u64::from(mtu);
        let old = self.0.load(Relaxed);
        if mtu < IPV6_MINIMUM || mtu >= self.mtu(now, uplink) {
            return false;
        }
        // Whoever comes in between has learned it from another packet of the same moment; the next message tells who was right.
        self.0.compare_exchange(old, packed, Relaxed, Relaxed).is_ok()
    }

    /// What is known at `now`, if anything.
    pub(crate) fn learned(&self, now: Duration) -> Option<Learned> {
        let packed = self.0.load(Relaxed);
        let left = Duration::from_millis((packed >> 16).saturating_sub(millis(now)));
        let age = Self::LIFETIME.saturating_sub(left);
        (!left.is_zero()).then_some(Learned { mtu: packed as u16, age })
    }
}

/// 48 bits: nine thousand years.
#[inline]
fn millis(time: Duration) -> u64 {
    time.as_millis() as u64 & 0xffff_ffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1);

    #[test]
    fn a_path_carries_what_the_uplink_does_until_it_is_told_less_and_again_ten_minutes_later() {
        let path = Path::default();
        assert_eq!((path.mtu(START, 1500), path.learned(START)), (1500, None));
        assert!(path.lower(START, 1400, 1500));
        let later = START + Duration::from_secs(599);
        assert_eq!((path.mtu(START, 1500), path.mtu(later, 1500)), (1400, 1400));
        assert_eq!(path.learned(later), Some(Learned { mtu: 1400, age: Duration::from_secs(599) }));
        let over = START + Path::LIFETIME;
        assert_eq!((path.mtu(over, 1500), path.learned(over)), (1500, None));
        assert!(path.lower(over, 1450, 1500), "and may be learned anew");
    }

    #[test]
    fn nothing_raises_it_and_nothing_lowers_it_below_what_every_link_carries() {
        let path = Path::default();
        for refused in [0, 68, 1279, 1500, 9000] {
            assert!(!path.lower(START, refused, 1500), "{refused}");
        }
        assert!(path.lower(START, 1280, 1500));
        assert!(!path.lower(START, 1400, 1500));
        assert_eq!((path.mtu(START, 1500), path.mtu(START, 1280)), (1280, 1280));
    }
}
