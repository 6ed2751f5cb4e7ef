//! An identifier leaves for another host, and what becomes of packets that still come for it (draft, appendix B; docs/decisions/0017).
//!
//! ```text
//!   Nve::moved ──> learned: table ──> its attachment waits ──> departures: until when
//!   L:I arrives, I lives elsewhere ──> a departure? ── no, or over ──> not-local
//!                                           └── yes ──> forward (a hop spent; wire.rs) │ redirect, drop: moved
//! ```
//!
//! What must stay true: only a host that had the identifier forwards, for as long as the operator said, and each time costs a hop that nobody
//! gives back; nothing here delivers.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;

use super::enter::Whence;
use super::learned::Word;
use super::look_up::Distant;
use super::nve::Registry;
use super::walk::{Stop, Walk};
use super::wire::{Arriving, may_pass, pass_on};
use super::{Fate, Learned, Lesson, NotLearned, Nve, PortId, Presence, Question, Scratch};
use crate::DropReason;
use crate::addr::{Key, Locator};
use crate::packet::Frame;
use crate::packet::ipv6::Ipv6;
use crate::setup::Stragglers;
use crate::tables::Target;

/// Departures that are remembered at once; of more, packets are refused as if their time was over.
const MOST: usize = 1 << 16;

/// Until when, in milliseconds of the walkers' epoch; zero: nobody has looked at the time since.
type Until = Arc<AtomicU64>;

/// What has left, and until when packets for it have the operator's grace.
#[derive(Default)]
pub(super) struct Departures(ArcSwap<HashMap<Key, Until>>);

/// All that has left.
pub(super) type Departing = Arc<HashMap<Key, Until>>;

impl Departures {
    /// Who has left, as of now.
    pub(super) fn all(&self) -> Departing {
        self.0.load_full()
    }

    /// These have left, and nobody else.
    pub(super) fn put(&self, all: Departing) {
        self.0.store(all);
    }

    /// These have left; their grace ends at `until`, or some time after the first packet.
    pub(super) fn add(&self, keys: Vec<Key>, until: Option<Duration>) {
        if keys.is_empty() {
            return;
        }
        let mut all = HashMap::clone(&self.0.load());
        let until = until.map_or(0, millis);
        let room = MOST.saturating_sub(all.len());
        all.extend(keys.into_iter().take(room).map(|key| (key, Arc::new(AtomicU64::new(until)))));
        self.0.store(Arc::new(all));
    }

    /// This one is back.
    pub(super) fn remove(&self, key: Key) {
        if self.0.load().contains_key(&key) {
            let mut all = HashMap::clone(&self.0.load());
            all.remove(&key);
            self.0.store(Arc::new(all));
        }
    }

    /// Whether a packet for `key` has grace at `now`; the first one begins it where nobody did.
    fn has_grace(&self, key: Key, now: Duration, grace: Duration) -> bool {
        let all = self.0.load();
        let Some(until) = all.get(&key) else { return false };
        let end = millis(now.saturating_add(grace)).max(1);
        let until = until.compare_exchange(0, end, Relaxed, Relaxed).map_or_else(|until| until, |_| end);
        millis(now) < until
    }

    /// When [`Departures::sweep`] has something to do.
    pub(super) fn due(&self) -> Option<Duration> {
        let ends = self.0.load().values().map(|until| until.load(Relaxed)).min();
        ends.map(Duration::from_millis)
    }

    /// Forgets those whose time is over at `now`, and begins that of those nobody asked for.
    pub(super) fn sweep(&self, now: Duration, grace: Duration) {
        let all = self.0.load();
        if all.keys().any(|key| !self.has_grace(*key, now, grace)) {
            let left = all.iter().filter(|(key, _)| self.has_grace(**key, now, grace));
            let left = left.map(|(key, until)| (*key, Arc::clone(until))).collect();
            self.0.store(Arc::new(left));
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Nve {
    /// Learns that `key` has moved to `locator`, also where an attachment of this host has it, which from now on waits for it to
    /// come back: it holds it no more, and is given nothing for it. What arrives here for it has the operator's grace from
    /// `learned.since` on. The word must be the operator's, or proven to be that of the host that has it now.
    ///
    /// # Errors
    /// [`NotLearned`], and nothing has changed. [`NotLearned::Here`]: an attachment has it as one of several, by a prefix or shared.
    pub fn moved(&self, key: Key, locator: Locator, learned: Learned) -> Result<Lesson, NotLearned> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Target::Local(port)) = self.table.get(key) else {
            return self.learn_with(&mut registry, key, locator, learned);
        };
        let word = self.may_depart(&registry, key, (locator, learned))?;
        let lesson = self.learn_with(&mut registry, key, word.0, word.1)?;
        self.depart(&mut registry, port, &[key], learned.since);
        Ok(lesson)
    }

    /// The guest of `port` has moved to `locator` with all its addresses: as [`Nve::moved`] of each, in the epoch of `learned`, or the first
    /// that is later than what is known. False: it had none here.
    ///
    /// # Errors
    /// [`NotLearned`] of one of them, and nothing has changed of any.
    pub fn gone(&self, port: PortId, locator: Locator, learned: Learned) -> Result<bool, NotLearned> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.keys(port);
        let words = own.iter().map(|key| {
            let epoch = learned.epoch.max(registry.epoch_of(*key).saturating_add(1));
            self.may_depart(&registry, *key, (locator, Learned { epoch, ..learned }))
        });
        let words = words.collect::<Result<Vec<_>, _>>()?;
        for (key, (locator, learned)) in own.iter().zip(words) {
            // Only a host without a number can fail, which is the first's to find out.
            self.learn_with(&mut registry, *key, locator, learned)?;
        }
        self.depart(&mut registry, port, &own, learned.since);
        Ok(!own.is_empty())
    }

    /// The word that an key of an attachment lives elsewhere, if it is believed.
    fn may_depart(&self, registry: &Registry, key: Key, word: Word) -> Result<Word, NotLearned> {
        let known = registry.epoch_of(key);
        if word.1.epoch <= known {
            return Err(NotLearned::OldEpoch(known));
        }
        self.judge(registry, &self.world.load(), key, word).map(|_| word)
    }

    /// The attachment of `port` waits for these, which are known to live elsewhere since `since`.
    fn depart(&self, registry: &mut Registry, port: PortId, keys: &[Key], since: Duration) {
        if keys.is_empty() {
            return;
        }
        self.forget_who_came(registry);
        let away: &mut HashSet<Key> = registry.away.entry(port).or_default();
        away.extend(keys);
        self.presences.set(port, Presence::Waiting);
        for key in keys {
            registry.moved_here.remove(key);
        }
        let world = self.world.load().with_away(&registry.away);
        let until = since.saturating_add(world.grace);
        self.world.change(world);
        self.departures.add(keys.to_vec(), Some(until));
    }

    /// The keys of the addresses that the attachment of `port` has here.
    pub fn keys(&self, port: PortId) -> Vec<Key> {
        let here = self.table.iter().filter(|(_, target)| *target == Target::Local(port));
        here.map(|(key, _)| key).collect()
    }
}

/// A packet to our locator whose key lives elsewhere (reading notes, section 5, check 4).
#[cold]
pub(super) fn straggler(
    walk: &mut Walk<'_>,
    distant: &Distant,
    (question, frame, header): (&Question, &Frame<'_>, Ipv6<'_>),
    scratch: &mut Scratch,
) -> Result<Fate, Stop> {
    if !walk.nve.departures.has_grace(distant.key, walk.now, walk.world.grace) {
        return Err(DropReason::NotLocal.into());
    }
    let hop_limit = header.hop_limit().checked_sub(1).filter(|left| *left > 0).ok_or(DropReason::HopLimit)?;
    let arriving = Arriving { question, frame, header, hop_limit, whence: Whence::Fabric };
    match walk.world.stragglers {
        Stragglers::Forward => return pass_on(walk, distant, arriving, scratch),
        Stragglers::Redirect => may_pass(walk, distant, arriving)?,
        Stragglers::Drop => {}
    }
    Err(DropReason::Moved.into())
}
