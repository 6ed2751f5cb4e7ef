//! Identifiers that each host hands out by itself (draft, appendix A.2): the host's number, then a timestamp that only grows.
//!
//! ```text
//!   │ type 1: 3 │ C │ registrar: 24 │ counter: 36, in 10 ms since 2026 │
//!
//!   counter = the later of { now, the last one + 1 }
//! ```
//!
//! What must stay true: of one registrar, a counter is given out once, whatever the clock says: it goes back, jumps or stands still. So the
//! last one must be remembered; where, is the caller's business (`vhost-ila/src/cli/id/ledger.rs`).

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use super::usable;
use crate::addr::Identifier;

/// A host's number among all that hand out identifiers in a domain, 24 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registrar(u32);

/// The timestamp part of an identifier: 36 bits, in units of 10 ms since [`Counter::EPOCH`], or later where the clock was slower than the
/// tasks. They last 21.8 years from the epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Counter(u64);

/// Every counter of this registrar has been given out. Its time is over: the host needs another number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the 36 bits of registrar {0} are used up: give this host another registrar number")]
pub struct Exhausted(pub Registrar);

/// Why something is no [`Registrar`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a registrar is a number of 24 bits: 0 to 16777215, or 0x0 to 0xffffff")]
pub struct NoRegistrar;

impl Registrar {
    /// A number of 24 bits.
    pub const fn new(number: u32) -> Option<Self> {
        if number >> 24 == 0 { Some(Self(number)) } else { None }
    }

    /// The next identifier at `now`, a time since 1970, and its counter: the `last` for the one after it. `last` is the latest that was
    /// ever given out.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn issue(self, last: Option<Counter>, now: Duration) -> Result<(Identifier, Counter), Exhausted> {
        let next = last.map_or(0, |last| last.0 + 1);
        // A clock beyond the end counts as one that stands still: it must not use up what is left.
        let by_clock = Counter::at(now).map_or(0, |counter| counter.0);
        // No two low words in a row are both unusable, but for one pair: ffff and 0000.
        let first = next.max(by_clock);
        let issued = (first..=Counter::MAX).take(3).find_map(|counter| {
            let identifier = usable(u64::from(self.0) << Counter::BITS | counter)?;
            Some((identifier, Counter(counter)))
        });
        issued.ok_or(Exhausted(self))
    }
}

impl Counter {
    const BITS: u32 = 36;
    const MAX: u64 = (1 << Self::BITS) - 1;
    const TICK: Duration = Duration::from_millis(10);
    /// 2026-01-01 00:00 UTC, since 1970.
    pub const EPOCH: Duration = Duration::from_secs(1_767_225_600);

    /// Of 36 bits.
    pub const fn new(bits: u64) -> Option<Self> {
        if bits <= Self::MAX { Some(Self(bits)) } else { None }
    }
    /// The 36 bits, host byte order.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// What the clock says, `None` before the epoch and behind the last counter.
    fn at(now: Duration) -> Option<Self> {
        let ticks = now.checked_sub(Self::EPOCH)?.as_millis() / Self::TICK.as_millis();
        Self::new(u64::try_from(ticks).ok()?)
    }
}

impl FromStr for Registrar {
    type Err = NoRegistrar;
    fn from_str(text: &str) -> Result<Self, NoRegistrar> {
        let number = match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.ok().and_then(Self::new).ok_or(NoRegistrar)
    }
}

impl fmt::Display for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:06x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::HashSet;

    use super::*;

    const HOST: Registrar = Registrar(0xabcdef);

    fn later(ticks: u64) -> Duration {
        Counter::EPOCH + Counter::TICK * u32::try_from(ticks).unwrap()
    }

    fn bits(issued: Result<(Identifier, Counter), Exhausted>) -> u64 {
        issued.unwrap().0.bits()
    }

    /// By hand: type 1, C = 0, abcdef, then the ticks since 2026.
    #[test]
    fn an_identifier_is_the_registrar_and_the_time() {
        assert_eq!(bits(HOST.issue(None, later(1))), 0x2abc_def0_0000_0001);
        assert_eq!(bits(HOST.issue(None, later(0x1234_5678))), 0x2abc_def0_1234_5678);
        // 2026-11-23 02:30:00 UTC is 326 days, 2 hours and a half later.
        let ticks = (326 * 86400 + 9000) * 100;
        let now = Duration::from_secs(1_795_401_000);
        assert_eq!(bits(HOST.issue(None, now)), 0x2abc_def0_0000_0000 | ticks);
    }

    #[test]
    fn a_clock_that_goes_back_or_stands_repeats_nothing() {
        let (first, last) = HOST.issue(None, later(1000)).unwrap();
        for earlier in [Duration::ZERO, later(0), later(999), later(1000), Duration::MAX] {
            let (second, counter) = HOST.issue(Some(last), earlier).unwrap();
            assert_ne!(first, second);
            assert_eq!(counter, Counter(1001), "and no more than one is used up");
        }
        assert_eq!(HOST.issue(Some(last), later(2000)).unwrap().1, Counter(2000));
    }

    #[test]
    fn low_words_without_a_neutral_form_are_left_out() {
        assert_eq!(HOST.issue(None, later(0)).unwrap().1, Counter(1));
        assert_eq!(HOST.issue(None, later(0x1fffe)).unwrap().1, Counter(0x1fffe));
        assert_eq!(HOST.issue(None, later(0x1ffff)).unwrap().1, Counter(0x20001));
        assert_eq!(HOST.issue(Some(Counter(0x1fffe)), later(0)).unwrap().1, Counter(0x20001));
    }

    #[test]
    fn a_registrar_that_is_used_up_refuses_and_never_begins_anew() {
        let last = Counter::new(Counter::MAX - 2).unwrap();
        let (_, last) = HOST.issue(Some(last), later(5)).unwrap();
        assert_eq!(HOST.issue(Some(last), later(5)), Err(Exhausted(HOST)), "only ffff would be left");
        assert_eq!(HOST.issue(Some(Counter(Counter::MAX)), later(5)), Err(Exhausted(HOST)));
    }

    #[test]
    fn a_registrar_has_24_bits() {
        assert_eq!("0xffffff".parse(), Ok(Registrar(0xff_ffff)));
        assert_eq!("16777215".parse(), Ok(Registrar(0xff_ffff)));
        for wrong in ["0x1000000", "16777216", "-1", "", "0x", "hv1"] {
            assert_eq!(wrong.parse::<Registrar>(), Err(NoRegistrar), "{wrong}");
        }
    }

    proptest! {
        /// Any clock, with the last counter remembered.
        #[test]
        fn no_identifier_is_given_out_twice(times in prop::collection::vec(0u64..0x3_0000, 1..400)) {
            let (mut last, mut seen) = (None, HashSet::new());
            for time in times {
                let (identifier, counter) = HOST.issue(last, later(time)).unwrap();
                prop_assert!(seen.insert(identifier));
                prop_assert!(Some(counter) > last);
                last = Some(counter);
            }
        }
    }
}
