//! Who says that guests have come: to the hosts that had them, a few times each (docs/decisions/0017-migration.md).
//!
//! ```text
//!   Nve::arrivals ──> owed: who, to whom, when ──> Teller::compose ──> datagram: "it lives at my own locator"
//! ```
//!
//! What must stay true: a host is told only of what is here at that moment, in the epoch that it came with; nobody answers, so each is told
//! as often as [`PAUSES`] says, and then no more.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use super::outcome::Outcome;
use super::teller::{Datagram, Teller};
use super::{At, Policy};
use crate::addr::Locator;
use crate::pipeline::{Arrival, Arrived, Nve};

/// Between two times of telling the same: a datagram may be lost, and the old host's daemon may be starting.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_secs(2), Duration::from_secs(8)];
/// Owed at once.
const MOST: usize = 4096;

/// One host that must be told of one identifier.
#[derive(Clone, Copy, Debug)]
struct Owed {
    arrived: Arrived,
    to: Locator,
    next: Duration,
    told: usize,
}

/// One host's voice.
#[derive(Debug)]
pub struct Herald {
    nve: Arc<Nve>,
    owed: VecDeque<Owed>,
}

impl Herald {
    /// A herald of `nve`.
    pub fn new(nve: Arc<Nve>) -> Self {
        Self { nve, owed: VecDeque::new() }
    }

    /// Who has come since the last time this was asked; from now on whoever had them is told. Of more than can be remembered, the operator's
    /// own word must do.
    pub fn arrivals(&mut self, at: At) -> Vec<Arrival> {
        let arrivals = self.nve.arrivals(u64::try_from(at.unix.as_millis()).unwrap_or(u64::MAX));
        for arrived in arrivals.iter().flat_map(|arrival| &arrival.identifiers) {
            if let Some(to) = arrived.from
                && self.owed.len() < MOST
            {
                self.owed.push_back(Owed { arrived: *arrived, to, next: at.now, told: 0 });
            }
        }
        arrivals
    }

    /// One datagram that is due; `None` while there is none.
    ///
    /// # Errors
    /// It cannot be made, as without a key, and nobody is told of it.
    pub fn next(
        &mut self,
        teller: &mut Teller,
        policy: &Policy,
        at: At,
    ) -> Option<Result<Datagram, Outcome>> {
        // Each look takes one of what is owed, and puts back what is due later: this ends.
        for _ in 0..self.owed.len() {
            let mut owed = self.owed.pop_front()?;
            if owed.next > at.now {
                self.owed.push_back(owed);
                continue;
            }
            let Arrived { key, epoch, .. } = owed.arrived;
            let residence = self.nve.residence(key);
            let Some(residence) = residence.filter(|here| here.here && here.epoch == epoch) else { continue };
            let datagram = teller.compose(policy, at, owed.to, (key, residence.locator, epoch));
            if datagram.is_ok()
                && let Some(pause) = PAUSES.get(owed.told)
            {
                (owed.next, owed.told) = (at.now.saturating_add(*pause), owed.told + 1);
                self.owed.push_back(owed);
            }
            return Some(datagram);
        }
        None
    }

    /// When [`Herald::next`] has something.
    pub fn due(&self) -> Option<Duration> {
        self.owed.iter().map(|owed| owed.next).min()
    }
}
