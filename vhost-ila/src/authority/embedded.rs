//! The registry in this process, on disk: it survives restarts and a loss of power (`redb`, one transaction a change, or for all of a bulk).
//!
//! What must stay true: a change that was answered is on disk; one that was denied left nothing; one process has the file at a time.

use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::path::Path;

use nve_core::addr::{Identifier, Locator, SirAddress, SirPrefix};
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable, Table, TableDefinition};

use super::{Authority, Claimant, Denied, Registration, Unsettled, Update, Wish};
use crate::private;

/// (SIR prefix, identifier) -> (locator, epoch, said by the configuration); prefixes as their upper 64 bits.
const HOLDERS: TableDefinition<'_, (u64, u64), (u64, u64, bool)> = TableDefinition::new("holders");

/// The one row of [`EPOCHS`].
const LAST: &str = "last";

/// The highest epoch ever given out, of any identifier: so no tombstone is needed to keep those of one rising.
const EPOCHS: TableDefinition<'_, &str, u64> = TableDefinition::new("epochs");

/// Bytes of the file that may be in memory.
const CACHE: usize = 4 << 20;

type Holders<'t> = Table<'t, (u64, u64), (u64, u64, bool)>;

/// The registry of the domains that a host serves.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
    domains: Vec<SirPrefix>,
}

/// What [`Embedded::settle`] changed: each row as it was, if there was one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settled(Vec<(SirAddress, Option<Registration>)>);

/// A change under way.
struct Change<'t> {
    holders: Holders<'t>,
    /// The last epoch given out; `None` until it is asked for.
    last: Option<u64>,
    epochs: Table<'t, &'static str, u64>,
    domains: &'t [SirPrefix],
}

impl Embedded {
    /// The registry in the file at `path`, which is made if it is not there. What it has of other domains than these stays, unseen.
    ///
    /// # Errors
    /// Another process has it, it is damaged, or it cannot be made.
    pub fn open(path: &Path, domains: Vec<SirPrefix>) -> Result<Self, Denied> {
        // Another user's lock must not keep us out.
        let file = private::file(path).map_err(redb::Error::from).map_err(fails)?;
        let mut builder = Database::builder();
        // A damaged file is to be refused here, not to end the process later.
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        let database = builder.create_with_backend(FileBackend::new(file).map_err(fails)?).map_err(fails)?;
        let registry = Self { database, domains };
        registry.change(|_| Ok::<_, Denied>(()))?;
        Ok(registry)
    }

    /// Makes the registry agree with a configuration that says `said`: everything it gives to one of `own`, this host's locators, is held
    /// there, and nothing else because of an earlier one. `now`: as for [`Authority::register`]. What it changed, for [`Self::unsettle`].
    ///
    /// # Errors
    /// Others hold something of it; nothing has changed. Or the store fails.
    pub fn settle(
        &self,
        own: &[Locator],
        said: &[(SirAddress, Locator)],
        now: u64,
    ) -> Result<Settled, Unsettled> {
        let said_at: HashSet<_> = said.iter().copied().collect();
        let speaks_of: HashSet<_> = said.iter().map(|(identifier, _)| *identifier).collect();
        let held: HashSet<_> = said.iter().filter(|(_, locator)| own.contains(locator)).copied().collect();
        self.change(|change| {
            let before = change.all()?;
            let disagrees = |known: &&Registration| {
                let ours = own.contains(&known.locator) && known.by == Claimant::Config;
                speaks_of.contains(&known.identifier)
                    && !said_at.contains(&(known.identifier, known.locator))
                    && !ours
            };
            let elsewhere: Vec<_> = before.iter().filter(disagrees).copied().collect();
            if !elsewhere.is_empty() {
                return Err(Unsettled::Elsewhere(elsewhere));
            }
            let own_by_config =
                before.iter().filter(|known| own.contains(&known.locator) && known.by == Claimant::Config);
            let settled: HashSet<_> = own_by_config.map(|known| (known.identifier, known.locator)).collect();
            let mut changed = Vec::new();
            let known_at: HashMap<_, _> = before.iter().map(|known| (known.identifier, *known)).collect();
            for (identifier, _) in settled.difference(&held) {
                change.remove(*identifier)?;
                changed.push((*identifier, known_at.get(identifier).copied()));
            }
            for (identifier, locator) in held.difference(&settled).copied() {
                let (known, by) = (known_at.get(&identifier).copied(), Claimant::Config);
                let new = match known {
                    // What was moved here by request, before the configuration followed, keeps its epoch.
                    Some(known) if known.locator == locator => Registration { by, ..known },
                    // Of several locators that the configuration names, another one's.
                    Some(_) => continue,
                    None => Registration { identifier, locator, epoch: change.next_epoch(now)?, by },
                };
                change.insert(new)?;
                changed.push((identifier, known));
            }
            Ok(Settled(changed))
        })
    }

    /// What [`Self::settle`] changed is as it was: with its epochs, and by whom it was held. The caller lets no change come between.
    ///
    /// # Errors
    /// The store fails; nothing has changed.
    pub fn unsettle(&self, Settled(changed): Settled) -> Result<(), Denied> {
        self.change(|change| {
            changed.into_iter().try_for_each(|(identifier, before)| match before {
                Some(before) => change.insert(before),
                None => change.remove(identifier),
            })
        })
    }

    /// Makes all changes of `updates` that are not denied, in their order, each as by itself; what came of each: the new registration, if one
    /// is left. All are on disk together.
    ///
    /// # Errors
    /// The store fails; nothing has changed.
    pub fn update(&self, updates: &[Update]) -> Result<Vec<Result<Option<Registration>, Denied>>, Denied> {
        self.change(|change| {
            updates
                .iter()
                .map(|Update { identifier, wish, now }| {
                    let outcome = match *wish {
                        Wish::Register(locator) => change.register(*identifier, locator, *now).map(Some),
                        Wish::Move(from, to) => change.move_to(*identifier, (from, to), *now).map(Some),
                        Wish::Unregister(locator) => change.unregister(*identifier, locator).map(|()| None),
                    };
                    match outcome {
                        Err(failed @ Denied::Unavailable(_)) => Err(failed),
                        outcome => Ok(outcome),
                    }
                })
                .collect()
        })
    }

    fn change<T, E: From<Denied>>(&self, work: impl FnOnce(&mut Change<'_>) -> Result<T, E>) -> Result<T, E> {
        // Dropped before it is committed, a transaction leaves nothing.
        let transaction = self.database.begin_write().map_err(fails)?;
        let result = {
            let holders = transaction.open_table(HOLDERS).map_err(fails)?;
            let epochs = transaction.open_table(EPOCHS).map_err(fails)?;
            let mut change = Change { holders, last: None, epochs, domains: &self.domains };
            let result = work(&mut change)?;
            change.keep_epoch()?;
            result
        };
        transaction.commit().map_err(fails)?;
        Ok(result)
    }
}

impl Authority for Embedded {
    fn holder(&self, identifier: SirAddress) -> Result<Option<Registration>, Denied> {
        let transaction = self.database.begin_read().map_err(fails)?;
        let holders = transaction.open_table(HOLDERS).map_err(fails)?;
        let found = holders.get(key(identifier)).map_err(fails)?;
        found.map(|row| registration(identifier, row.value())).transpose()
    }

    fn register(&self, identifier: SirAddress, locator: Locator, now: u64) -> Result<Registration, Denied> {
        self.change(|change| change.register(identifier, locator, now))
    }

    fn move_to(
        &self,
        identifier: SirAddress,
        from: Locator,
        to: Locator,
        now: u64,
    ) -> Result<Registration, Denied> {
        self.change(|change| change.move_to(identifier, (from, to), now))
    }

    fn unregister(&self, identifier: SirAddress, locator: Locator) -> Result<(), Denied> {
        self.change(|change| change.unregister(identifier, locator))
    }

    fn registrations(&self) -> Result<Vec<Registration>, Denied> {
        let transaction = self.database.begin_read().map_err(fails)?;
        let holders = transaction.open_table(HOLDERS).map_err(fails)?;
        all_of(&self.domains, &holders)
    }
}

impl Change<'_> {
    fn get(&self, identifier: SirAddress) -> Result<Option<Registration>, Denied> {
        let found = self.holders.get(key(identifier)).map_err(fails)?;
        found.map(|row| registration(identifier, row.value())).transpose()
    }

    fn all(&self) -> Result<Vec<Registration>, Denied> {
        all_of(self.domains, &self.holders)
    }

    fn insert(&mut self, new: Registration) -> Result<(), Denied> {
        let value = (new.locator.upper(), new.epoch, new.by == Claimant::Config);
        self.holders.insert(key(new.identifier), value).map_err(fails)?;
        Ok(())
    }

    fn remove(&mut self, identifier: SirAddress) -> Result<(), Denied> {
        self.holders.remove(key(identifier)).map_err(fails)?;
        Ok(())
    }

    /// A new epoch of `identifier`, at `locator`.
    fn give(&mut self, identifier: SirAddress, locator: Locator, now: u64) -> Result<Registration, Denied> {
        let epoch = self.next_epoch(now)?;
        let new = Registration { identifier, locator, epoch, by: Claimant::Request };
        self.insert(new)?;
        Ok(new)
    }

    fn next_epoch(&mut self, now: u64) -> Result<u64, Denied> {
        let last = match self.last {
            Some(last) => last,
            None => self.epochs.get(LAST).map_err(fails)?.map_or(0, |last| last.value()),
        };
        let next = last.checked_add(1).ok_or_else(|| Denied::Unavailable("its epochs are used up".into()))?;
        let next = now.max(next);
        self.last = Some(next);
        Ok(next)
    }

    /// To be done before it is committed.
    fn keep_epoch(&mut self) -> Result<(), Denied> {
        if let Some(last) = self.last {
            self.epochs.insert(LAST, last).map_err(fails)?;
        }
        Ok(())
    }

    fn register(
        &mut self,
        identifier: SirAddress,
        locator: Locator,
        now: u64,
    ) -> Result<Registration, Denied> {
        match self.get(identifier)? {
            Some(holder) => Err(Denied::Held(holder)),
            None => self.give(identifier, locator, now),
        }
    }

    fn move_to(
        &mut self,
        identifier: SirAddress,
        (from, to): (Locator, Locator),
        now: u64,
    ) -> Result<Registration, Denied> {
        match self.get(identifier)? {
            Some(holder) if holder.locator == from => self.give(identifier, to, now),
            Some(holder) => Err(Denied::NotHolder(holder)),
            None => Err(Denied::Unknown),
        }
    }

    fn unregister(&mut self, identifier: SirAddress, locator: Locator) -> Result<(), Denied> {
        match self.get(identifier)? {
            Some(holder) if holder.locator == locator => self.remove(identifier),
            Some(holder) => Err(Denied::NotHolder(holder)),
            None => Err(Denied::Unknown),
        }
    }
}

fn key(identifier: SirAddress) -> (u64, u64) {
    (identifier.prefix().upper(), identifier.identifier().bits())
}

fn all_of(
    domains: &[SirPrefix],
    holders: &impl ReadableTable<(u64, u64), (u64, u64, bool)>,
) -> Result<Vec<Registration>, Denied> {
    let mut all = Vec::new();
    for domain in domains {
        let upper = domain.upper();
        for row in holders.range((upper, 0)..=(upper, u64::MAX)).map_err(fails)? {
            let (key, value) = row.map_err(fails)?;
            let identifier = Identifier::from_bits(key.value().1).map_err(|error| damaged(&error))?;
            all.push(registration(domain.address(identifier), value.value())?);
        }
    }
    Ok(all)
}

fn registration(
    identifier: SirAddress,
    (locator, epoch, by_config): (u64, u64, bool),
) -> Result<Registration, Denied> {
    let locator = Ipv6Addr::from_bits(u128::from(locator) << 64);
    let locator = Locator::new(locator).map_err(|error| damaged(&error))?;
    let by = if by_config { Claimant::Config } else { Claimant::Request };
    Ok(Registration { identifier, locator, epoch, by })
}

fn fails(error: impl Into<redb::Error>) -> Denied {
    Denied::Unavailable(error.into().to_string())
}

fn damaged(error: &dyn std::error::Error) -> Denied {
    Denied::Unavailable(format!("it holds what it never stored: {error}"))
}

#[cfg(test)]
mod tests;
