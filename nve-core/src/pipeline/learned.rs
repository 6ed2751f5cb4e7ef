//! Mappings that are learned while we run: registered with an authority, or told by a redirect (docs/decisions/0015-redirects.md).
//!
//! What must stay true:
//!
//! * **What an attachment of this host has is here**: nothing learned says otherwise.
//! * **Of two words about one identifier the higher epoch counts.** An equal one only confirms what is known, and never shortens it.
//! * **The latest word counts.** What is learned stands before what the setup says, until it ends; then the setup's is back. A reload
//!   that changes what the setup says of an identifier is the later word, and what was learned of it is forgotten.
//! * **A redirect takes nothing away for longer than it lasts**: what an authority said before it counts again after it.
//! * **Bounded**: redirects fill a quarter of the table at most and push out nothing, numbers of hosts do not run out, a sweep ends.
//! * A host that nothing names any more is no host of the fabric from the next sweep on; it keeps its number.
//! * The data path sees none of this: a learned mapping is an entry of the same table, changed by one store.
//!
//! ```text
//!   learn ──> endpoint? not here? locator? epoch? room? ──> entry (since, until, epoch) ──> table
//!   sweep ──> what is registered again, else as forget      apply ──> reconcile: entries that still stand are laid over
//!   forget ──> what the setup says again, or nothing
//! ```

use core::time::Duration;
use std::collections::{BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError, TryLockError};

use super::Nve;
use super::nve::Registry;
use crate::addr::{DomainId, Key, Kind, Locator};
use crate::policy::{LocatorId, World};
use crate::tables::Target;

/// Entries that end in one [`Nve::sweep`] at most.
const SWEEP: usize = 256;

/// Hosts that got their numbers by being learned, at most: numbers are not used again. The setup's own count for nothing here.
const MOST_LEARNED_HOSTS: usize = 1 << 16;

/// Who says where an identifier lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The setup: an attachment or a mapping of the configuration.
    Setup,
    /// An authority, where its holder registered it.
    Registered,
    /// A redirect of an ILA router (draft, section 4.6).
    Redirect,
}

impl Source {
    /// The word of `show mappings`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Registered => "registered",
            Self::Redirect => "redirect",
        }
    }
}

/// What is known of a mapping beside the mapping itself. Times count from the epoch of [`super::Walker::begin`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Learned {
    /// Who says so; [`Source::Setup`] is taken for an authority's word.
    pub source: Source,
    /// The mapping's age in moves: higher is later. What the setup says has zero.
    pub epoch: u64,
    /// When it was learned.
    pub since: Duration,
    /// When it ends by itself; `None`: never.
    pub until: Option<Duration>,
}

/// What was learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lesson {
    /// Where an identifier lives that nothing was learned of before.
    New,
    /// It lived at another host in an older epoch.
    Moved,
    /// What was known: it may now last longer.
    Renewed,
}

/// Why nothing was learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotLearned {
    /// No attachment of any network here could have that address.
    #[error("it is no address of a network that is served here")]
    NoEndpoint,
    /// An attachment of this host has it.
    #[error("an attachment of this host has it")]
    Here,
    /// The setup gives it several locators.
    #[error("the configuration gives it several locators")]
    Several,
    /// This host's own, a SIR prefix, or a tenants' or a NAT64's prefix; or of another domain.
    #[error("its locator is no other host's, or is of another domain")]
    Locator,
    /// Something later is known, or something else of the same epoch.
    #[error("epoch {0} is known")]
    OldEpoch(u64),
    /// There is no room for more of its kind.
    #[error("there is no room for more")]
    Full,
}

/// Where an identifier lives, and who says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Residence {
    /// The host.
    pub locator: Locator,
    /// Of the mapping; zero where the setup says it.
    pub epoch: u64,
    /// Whether an attachment of this host has it.
    pub here: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    locator: Locator,
    learned: Learned,
    /// An authority's word before this redirect; `None` in an authority's own.
    registered: Option<Word>,
    /// What the setup says.
    behind: Option<Target>,
}

/// That it lives at a host, and who says so.
pub(super) type Word = (Locator, Learned);

impl Entry {
    /// What an authority says of it.
    fn registered(&self) -> Option<Word> {
        match self.learned.source {
            Source::Redirect => self.registered,
            Source::Registered | Source::Setup => Some((self.locator, self.learned)),
        }
    }

    /// The hosts that it names.
    fn hosts(&self) -> impl Iterator<Item = Locator> + use<> {
        let registered = self.registered.map(|(locator, _)| locator);
        core::iter::once(self.locator).chain(registered)
    }

    /// What `world` can take of it, and the table's value: its last word, or the authority's before it. `said`: what the setup says.
    fn in_world(
        &self,
        world: &World,
        key: Key,
        (number, said): (impl Fn(Locator) -> Option<LocatorId>, Option<Target>),
    ) -> Option<(Self, Target)> {
        let possible = |word: &Word| is_another_host(world, key, word.0);
        let registered = self.registered.filter(possible);
        let words = [Some((self.locator, self.learned)), registered].into_iter().flatten();
        let target_at = |locator| target(world, key, (number(locator)?, locator));
        let ((locator, learned), target) =
            words.filter(possible).find_map(|word| Some((word, target_at(word.0)?)))?;
        let registered = registered.filter(|_| learned.source == Source::Redirect);
        Some((Self { locator, learned, registered, behind: said }, target))
    }

    /// Whether nobody but a redirect speaks of it.
    fn is_only_redirected(&self) -> bool {
        self.registered().is_none()
    }
}

/// Everything learned, beside the table that has it, too.
#[derive(Debug, Default)]
pub(super) struct Lessons {
    entries: HashMap<Key, Entry>,
    /// Those that end, by when.
    ends: BTreeSet<(Duration, Key)>,
    /// Those that nobody but a redirect speaks of.
    redirects: usize,
    /// How many entries name a host.
    uses: HashMap<Locator, usize>,
    /// Hosts that no entry has named since the last sweep.
    unused: BTreeSet<Locator>,
}

impl Lessons {
    /// Entries that an authority speaks of: a setup must leave room for them.
    pub(super) fn registered(&self) -> usize {
        self.entries.len() - self.redirects
    }

    /// What is known of this key.
    pub(super) fn of(&self, key: Key) -> Option<Learned> {
        self.entries.get(&key).map(|entry| entry.learned)
    }

    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        self.remove(key);
        self.redirects += usize::from(entry.is_only_redirected());
        for host in entry.hosts() {
            *self.uses.entry(host).or_default() += 1;
            self.unused.remove(&host);
        }
        self.ends.extend(entry.learned.until.map(|until| (until, key)));
        self.entries.insert(key, entry);
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.redirects -= usize::from(entry.is_only_redirected());
        if let Some(until) = entry.learned.until {
            self.ends.remove(&(until, key));
        }
        for host in entry.hosts() {
            let Some(uses) = self.uses.get_mut(&host) else { continue };
            *uses -= 1;
            if *uses == 0 {
                self.uses.remove(&host);
                self.unused.insert(host);
            }
        }
        Some(entry)
    }

    /// Lays what still stands over `targets`, which a new setup says, and forgets the rest. `number` has a host's number; no more than
    /// `room` identifiers come of both. What was forgotten or changed, as it was.
    pub(super) fn reconcile(
        &mut self,
        world: &World,
        number: impl Fn(Locator) -> Option<LocatorId>,
        (targets, room): (&mut HashMap<Key, Target>, usize),
    ) -> Vec<(Key, Entry)> {
        let mut all: Vec<_> =
            self.entries.iter().map(|(id, entry)| (entry.is_only_redirected(), *id)).collect();
        // An authority's have room before those of redirects.
        all.sort_unstable();
        let mut changed = Vec::new();
        for (_, key) in all {
            let Some(entry) = self.remove(key) else { continue };
            let said = targets.get(&key).copied();
            let stands = may_live_elsewhere(world, key, said).is_ok()
                && said.is_none_or(|said| entry.behind.is_some_and(|before| same_host(said, before)))
                && (said.is_some() || targets.len() < room);
            let stays = stands.then(|| entry.in_world(world, key, (&number, said))).flatten();
            if let Some((stays, target)) = stays {
                targets.insert(key, target);
                self.insert(key, stays);
            }
            if stays.is_none_or(|(stays, _)| stays != entry) {
                changed.push((key, entry));
            }
        }
        changed
    }

    /// What something is known of.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.entries.keys().copied()
    }

    /// The hosts that entries name, and in which domain.
    pub(super) fn locators(&self) -> impl Iterator<Item = (Locator, DomainId)> {
        self.entries.iter().flat_map(|(key, entry)| entry.hosts().map(|host| (host, key.domain())))
    }
}

impl Nve {
    /// Learns that `key` lives at `locator`.
    ///
    /// # Errors
    /// [`NotLearned`], and nothing has changed.
    pub fn learn(&self, key: Key, locator: Locator, learned: Learned) -> Result<Lesson, NotLearned> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // A guest that was waited for may have come since it was learned where it lives.
        if matches!(self.table.get(key), Some(Target::Local(_))) {
            return Err(NotLearned::Here);
        }
        self.learn_with(&mut registry, key, locator, learned)
    }

    /// [`Nve::learn`] of what no attachment has, or has no more.
    pub(super) fn learn_with(
        &self,
        registry: &mut Registry,
        key: Key,
        locator: Locator,
        learned: Learned,
    ) -> Result<Lesson, NotLearned> {
        let world = self.world.load_full();
        let (lesson, learned, behind) = self.judge(registry, &world, key, (locator, learned))?;
        let known = registry.lessons.entries.get(&key);
        let is_further = learned.source == Source::Redirect && known.is_none();
        let registered = known.and_then(Entry::registered).filter(|_| learned.source == Source::Redirect);
        if is_further && registry.lessons.redirects >= self.table.capacity() / 4 {
            return Err(NotLearned::Full);
        }
        let id = self.number(registry, &world, (locator, key.domain())).ok_or(NotLearned::Full)?;
        let target = target(&world, key, (id, locator)).ok_or(NotLearned::NoEndpoint)?;
        self.table.insert(key, target).map_err(|_| NotLearned::Full)?;
        registry.lessons.insert(key, Entry { locator, learned, registered, behind });
        Ok(lesson)
    }

    /// What [`Nve::learn_with`] would make of this word, if there is room, and what the setup says of it.
    pub(super) fn judge(
        &self,
        registry: &Registry,
        world: &World,
        key: Key,
        (locator, learned): Word,
    ) -> Result<(Lesson, Learned, Option<Target>), NotLearned> {
        let known = registry.lessons.entries.get(&key);
        let said = || self.table.get(key).filter(|said| matches!(said, Target::Remote(..)));
        let behind = known.map_or_else(said, |known| known.behind);
        may_live_elsewhere(world, key, behind)?;
        if !is_another_host(world, key, locator) {
            return Err(NotLearned::Locator);
        }
        match known {
            None => Ok((Lesson::New, learned, behind)),
            Some(known) if learned.epoch > known.learned.epoch => Ok((Lesson::Moved, learned, behind)),
            Some(known) if learned.epoch == known.learned.epoch && locator == known.locator => {
                Ok((Lesson::Renewed, known.learned.confirmed_by(learned), behind))
            }
            Some(known) => Err(NotLearned::OldEpoch(known.learned.epoch)),
        }
    }

    /// Forgets what was learned of `key`; what the setup says counts again. Whether there was anything.
    pub fn forget(&self, key: Key) -> bool {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = registry.lessons.remove(key) else { return false };
        self.now_lives_at(key, entry.behind);
        true
    }

    /// Forgets what has ended at `now`, some of it if that is much; how many. To be called again while it is not zero.
    pub fn sweep(&self, now: Duration) -> usize {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.sweep_with(&mut registry, now)
    }

    /// [`Nve::sweep`] by whoever must not wait for a reload: nothing, while there is one.
    pub fn try_sweep(&self, now: Duration) -> usize {
        self.registry_at_once().map_or(0, |mut registry| self.sweep_with(&mut registry, now))
    }

    fn sweep_with(&self, registry: &mut Registry, now: Duration) -> usize {
        let ended = registry.lessons.ends.iter().take_while(|(until, _)| *until <= now).take(SWEEP);
        let ended: Vec<Key> = ended.map(|(_, key)| *key).collect();
        self.departures.sweep(now, self.world.load().grace);
        let ended = ended.iter().filter(|key| self.end(registry, **key)).count();
        let unused = core::mem::take(&mut registry.lessons.unused);
        if let Some(world) = self.world.load().forgetting(&unused) {
            self.world.change(world);
        }
        ended
    }

    /// When [`Nve::sweep`] has something to do.
    pub fn sweep_due(&self) -> Option<Duration> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.sweep_due_with(&registry)
    }

    /// [`Nve::sweep_due`] for whoever calls [`Nve::try_sweep`]: `later`, while there is a reload.
    pub fn try_sweep_due(&self, later: Duration) -> Option<Duration> {
        self.registry_at_once().map_or(Some(later), |registry| self.sweep_due_with(&registry))
    }

    fn sweep_due_with(&self, registry: &Registry) -> Option<Duration> {
        let ends = registry.lessons.ends.first().map(|(until, _)| *until);
        ends.into_iter().chain(self.departures.due()).min()
    }

    /// The registry, unless somebody has it.
    fn registry_at_once(&self) -> Option<MutexGuard<'_, Registry>> {
        match self.registry.try_lock() {
            Ok(registry) => Some(registry),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Where `key` lives by our mappings, prefixes left aside: no key of one has an epoch.
    pub fn residence(&self, key: Key) -> Option<Residence> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let world = self.world.load();
        let epoch = registry.epoch_of(key);
        match self.table.get(key)? {
            Target::Local(_) => {
                let locator = world.domain(key.domain())?.locator();
                Some(Residence { locator, epoch, here: true })
            }
            Target::Remote(id, _) => Some(Residence { locator: world.locator(id)?, epoch, here: false }),
        }
    }

    /// Ends what was learned last of `key`; what was registered before counts again.
    fn end(&self, registry: &mut Registry, key: Key) -> bool {
        let Some(ended) = registry.lessons.remove(key) else { return false };
        // Worlds know its host for as long as the entry names it.
        let again = ended.registered.and_then(|(locator, learned)| {
            let id = *registry.locator_ids.get(&locator)?;
            let target = target(&self.world.load(), key, (id, locator))?;
            Some((target, Entry { locator, learned, registered: None, behind: ended.behind }))
        });
        let target = again.as_ref().map_or(ended.behind, |(target, _)| Some(*target));
        if self.now_lives_at(key, target)
            && let Some((_, entry)) = again
        {
            registry.lessons.insert(key, entry);
        }
        true
    }

    /// Stores where something lives that was learned to live elsewhere, unless it came here meanwhile.
    fn now_lives_at(&self, key: Key, target: Option<Target>) -> bool {
        match target {
            // A guest that was waited for has come.
            _ if matches!(self.table.get(key), Some(Target::Local(_))) => return false,
            // Its slot is there already: this cannot fail.
            Some(target) => drop(self.table.insert(key, target)),
            None => drop(self.table.remove(key)),
        }
        true
    }

    /// The number of `locator`, which every worker knows by it before a mapping names it.
    fn number(
        &self,
        registry: &mut Registry,
        world: &World,
        (locator, domain): (Locator, DomainId),
    ) -> Option<LocatorId> {
        let numbered = registry.locator_ids.get(&locator).copied();
        if numbered.is_some() && world.known_locator(locator.upper()).is_some() {
            return numbered;
        }
        if numbered.is_none() {
            if registry.learned_hosts >= MOST_LEARNED_HOSTS {
                return None;
            }
            registry.learned_hosts += 1;
        }
        let id = registry.number_of(locator);
        self.world.change(world.knowing(&registry.reaches, [(locator, domain)]));
        Some(id)
    }
}

impl Learned {
    /// The same, which somebody says again.
    fn confirmed_by(self, again: Self) -> Self {
        let until = self.until.zip(again.until).map(|(one, other)| one.max(other));
        // An authority's word is no less than that because a router repeats it.
        let source = if again.source == Source::Redirect { self.source } else { again.source };
        Self { source, until, ..self }
    }
}

/// Whether an endpoint of another host could have `key`; `said`: where the setup says it lives.
pub(super) fn may_live_elsewhere(world: &World, key: Key, said: Option<Target>) -> Result<(), NotLearned> {
    if matches!(said, Some(Target::Local(_))) {
        return Err(NotLearned::Here);
    }
    if world.several(key).is_some() {
        return Err(NotLearned::Several);
    }
    let network = match key.kind() {
        Kind::Local(_) => {
            return if world.domain(key.domain()).is_some() { Ok(()) } else { Err(NotLearned::NoEndpoint) };
        }
        Kind::Ipv4(_, address) => world
            .network_of(key)
            .filter(|(_, network)| network.has_peer4(address) || network.further().leads_out4(address))
            // Whoever it stands for has an address of his own.
            .filter(|(_, network)| !network.has_alias(address)),
        Kind::Ipv6(_, low) => world
            .network_of(key)
            .filter(|(_, network)| network.ipv6.is_some_and(|vnet| network.has_peer6(vnet.address(low)))),
        Kind::Interface(_) | Kind::Multicast(..) => None,
    };
    let (_, network) = network.ok_or(NotLearned::NoEndpoint)?;
    let further = network.further();
    // What is behind a router machine of this host, or shared by attachments of it, is here whoever has it at the moment.
    let here = matches!(further.by_prefix(key), Some(Target::Local(_)));
    if here || further.shared(key).is_some() { Err(NotLearned::Here) } else { Ok(()) }
}

/// Whether `locator` can be another host's in the domain of `key`; that it is a unicast /64 its type says.
fn is_another_host(world: &World, key: Key, locator: Locator) -> bool {
    let upper = locator.upper();
    let mut vnets = world.networks().filter_map(|network| network.ipv6);
    let is_outside = world.networks().any(|network| network.nat64_overlaps(locator));
    let of_another_domain = world.known_locator_in(upper).is_some_and(|(_, domain)| domain != key.domain());
    !world.is_own_locator(locator)
        && world.domain_called(upper).is_none()
        && !of_another_domain
        && !is_outside
        && vnets.all(|vnet| (vnet.prefix().to_bits() >> 64) as u64 != upper)
}

fn same_host(one: Target, other: Target) -> bool {
    match (one, other) {
        (Target::Remote(one, _), Target::Remote(other, _)) => one == other,
        _ => one == other,
    }
}

/// The table's value for `key` at a host; `None` where its network is not known.
fn target(world: &World, key: Key, (id, locator): (LocatorId, Locator)) -> Option<Target> {
    match key.kind() {
        Kind::Local(_) => {}
        Kind::Ipv4(..) | Kind::Ipv6(..) => drop(world.network_of(key)?),
        Kind::Interface(_) | Kind::Multicast(..) => return None,
    }
    Some(Target::Remote(id, world.neutral_to(key, locator)))
}

#[cfg(all(test, feature = "testkit"))]
mod tests;
