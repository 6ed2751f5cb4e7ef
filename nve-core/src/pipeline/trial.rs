//! A setup that is in force and may still be taken back, as the devices that it needs cannot be made.
//!
//! ```text
//!   try_out ──> Trial ── keep, or dropped ──> in force
//!                  └──── take_back ─────────> the setup before, and what it does not tell: lessons, who waits, holders, departures
//! ```
//!
//! What must stay true:
//!
//! * While a trial lasts nothing is learned, forgotten, moved or told: it holds the registry. So nobody hears of an arrival that only
//!   the trial made.
//! * Neither walkers nor the slow path ([`crate::punt`]) wait for it: a guest that starts or speaks meanwhile, or claims a shared address, did so whatever becomes of the trial.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::departure::Departing;
use super::learned::Entry;
use super::nve::{ApplyError, Nve, Registry};
use super::{PortId, Presence};
use crate::addr::Key;
use crate::policy::{Away, Cell};
use crate::setup::CheckedSetup;

/// A setup that is in force. Whatever asks for what is learned, sweeps or lists mappings waits until it is kept or taken back: not for long, and
/// not by the thread that has it.
#[must_use = "it is kept when dropped"]
pub struct Trial<'a> {
    nve: &'a Nve,
    registry: MutexGuard<'a, Registry>,
    before: Memory,
    replaced: Replaced,
}

/// What putting a setup in force changed that the setup before does not tell.
#[derive(Debug)]
pub(super) struct Replaced {
    /// Ports whose guests it says are here, which were waited for.
    pub(super) declared: Vec<PortId>,
    /// Ports that it said wait, or are here.
    pub(super) placed: Vec<(PortId, Presence)>,
    /// Lessons that were others before, or do not stand.
    pub(super) lessons: Vec<(Key, Entry)>,
}

/// What a setup does not tell, as it was before another came in force.
#[derive(Debug)]
struct Memory {
    ports: HashMap<String, PortId>,
    presences: HashMap<PortId, Presence>,
    away: Away,
    standby: BTreeSet<String>,
    holders: HashMap<Key, (Arc<Cell>, u64)>,
    departing: Departing,
}

impl core::fmt::Debug for Trial<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Trial").field("replaced", &self.replaced).finish_non_exhaustive()
    }
}

impl Memory {
    fn of(nve: &Nve, registry: &Registry) -> Self {
        let holders = registry.holders.iter();
        Self {
            ports: registry.ports.clone(),
            presences: registry.ports.values().map(|port| (*port, nve.presence(*port))).collect(),
            away: registry.away.clone(),
            standby: registry.standby.clone(),
            holders: holders.map(|(id, cell)| (*id, (Arc::clone(cell), cell.word()))).collect(),
            departing: nve.departures.all(),
        }
    }
}

impl Nve {
    /// As [`Nve::apply`], but to be kept or taken back.
    ///
    /// # Errors
    /// See [`ApplyError`]; the running state is as it was.
    pub fn try_out(&self, setup: CheckedSetup) -> Result<Trial<'_>, ApplyError> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Memory::of(self, &registry);
        let replaced = self.replace(&mut registry, &setup)?;
        Ok(Trial { nve: self, registry, before, replaced })
    }
}

impl Trial<'_> {
    /// The setup stays.
    pub fn keep(self) {}

    /// `setup`, which was in force before, is again, with all that was known then.
    ///
    /// # Errors
    /// None, if it is the one that was in force.
    pub fn take_back(mut self, setup: &CheckedSetup) -> Result<(), ApplyError> {
        let Self { nve, registry, before, replaced } = &mut self;
        nve.presences.retract(&nve.world(), &replaced.declared);
        let declared = replaced.declared.iter().map(|port| (*port, Presence::Here));
        for (port, placed) in declared.chain(core::mem::take(&mut replaced.placed)) {
            // A port of the trial alone is nobody's from now on.
            let was = before.presences.get(&port).copied().unwrap_or_default();
            nve.presences.restore(port, placed, was);
        }
        for (key, entry) in core::mem::take(&mut replaced.lessons) {
            registry.lessons.insert(key, entry);
        }
        registry.away = core::mem::take(&mut before.away);
        registry.standby = core::mem::take(&mut before.standby);
        registry.holders =
            before.holders.drain().map(|(id, (cell, word))| (id, cell.restored(word))).collect();
        // Those that the trial left out are not new, and what it alone has rests.
        registry.ports.extend(before.ports.drain());
        let applied = nve.replace(registry, setup).map(drop);
        nve.departures.put(Arc::clone(&before.departing));
        applied
    }
}

#[cfg(all(test, feature = "testkit"))]
mod tests;
