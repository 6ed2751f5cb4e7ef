//! Which attachments are here, and which wait for a guest that still runs elsewhere (docs/decisions/0017).
//!
//! ```text
//!               rings start            announced, or a frame from its own address
//!   Waiting ──────────────────> Armed ────────────────────────────────────────────> Here ──> Waiting (told that it has moved away)
//!      └──────── rings go on where they were; the operator says so ──────────────────^
//! ```
//!
//! What must stay true:
//!
//! * One byte for each port, which outlives worlds; a world that is made while a byte changes is corrected when it is in force.
//! * From `Armed` to `Here` goes one, whoever is first; whoever goes there stores the attachment's addresses in the mapping table and
//!   leaves an [`Arrival`]. A guest can do so once for each time that it was waited for.
//! * Nothing is sent from here: who must be told is for a slow thread to say ([`Nve::arrivals`]).

use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::nve::{Nve, Registry};
use super::{MAX_PORTS, PortId};
use crate::DropReason;
use crate::addr::{Key, Locator};
use crate::policy::{Attachment, World};
use crate::tables::Target;

/// Where an attachment's guest is, as far as this host knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Presence {
    /// Here: what is for its addresses goes to it.
    #[default]
    Here = 0,
    /// Elsewhere, and nothing has started here since.
    Waiting = 1,
    /// Elsewhere, and its rings have started here: it may speak any moment.
    Armed = 2,
}

impl Presence {
    /// The word of `show attachments`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Waiting => "waiting",
            Self::Armed => "armed",
        }
    }
    fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Waiting,
            2 => Self::Armed,
            _ => Self::Here,
        }
    }
}

/// An attachment that was waited for is here now. Whoever had its addresses does not know it yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// Its name.
    pub attachment: String,
    /// What came with it.
    pub identifiers: Vec<Arrived>,
}

/// An identifier that lives here now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// The identifier, in its domain.
    pub key: Key,
    /// The host that had it, by what was known here.
    pub from: Option<Locator>,
    /// Of the mapping to this host: later than any that is known here.
    pub epoch: u64,
}

/// The bytes of all ports, and who has arrived.
pub(super) struct Presences {
    bytes: Box<[AtomicU8]>,
    /// At most one for each time an attachment was waited for.
    arrived: Mutex<Vec<Arrival>>,
    /// Whoever takes them.
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Default for Presences {
    fn default() -> Self {
        Self {
            bytes: (0..MAX_PORTS).map(|_| AtomicU8::new(0)).collect(),
            arrived: Mutex::default(),
            bell: OnceLock::new(),
        }
    }
}

impl Presences {
    fn byte(&self, port: PortId) -> Option<&AtomicU8> {
        self.bytes.get(usize::from(port.0))
    }
    pub(super) fn get(&self, port: PortId) -> Presence {
        self.byte(port).map_or(Presence::Here, |byte| Presence::of(byte.load(Acquire)))
    }
    pub(super) fn set(&self, port: PortId, presence: Presence) {
        if let Some(byte) = self.byte(port) {
            byte.store(presence as u8, Release);
        }
    }
    /// To `was`, from which a setup that is taken back had put it to `placed`. A guest that has started or come since has done so, and
    /// one that was here is here, whatever its rings did.
    pub(super) fn restore(&self, port: PortId, placed: Presence, was: Presence) {
        if !self.change(port, placed, was) && was == Presence::Here {
            self.set(port, was);
        }
    }
    /// The arrivals of these ports, which nobody was told of, were none.
    pub(super) fn retract(&self, world: &World, ports: &[PortId]) {
        let names: Vec<_> = ports.iter().filter_map(|port| Some(&world.attachment(*port)?.name)).collect();
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.retain(|arrival| !names.contains(&&arrival.attachment));
    }
    /// From `old` to `new`; false: it was not `old`.
    fn change(&self, port: PortId, old: Presence, new: Presence) -> bool {
        self.byte(port)
            .is_some_and(|byte| byte.compare_exchange(old as u8, new as u8, AcqRel, Relaxed).is_ok())
    }
}

impl Nve {
    /// Where the guest of `port` is.
    pub fn presence(&self, port: PortId) -> Presence {
        self.presences.get(port)
    }

    /// A front-end has started the rings of `port`, which it had not, or had stopped. `carried_on`: they go on where they were in another
    /// front-end, so a guest was carried here, and runs. Nothing happens to an attachment that does not wait.
    pub fn started(&self, port: PortId, carried_on: bool) {
        if self.presences.change(port, Presence::Waiting, Presence::Armed) && carried_on {
            self.activate(port);
        }
    }

    /// The guest of this attachment is here: the operator says so. False: it was already.
    pub fn activate(&self, port: PortId) -> bool {
        let world = self.world.load();
        let states = [Presence::Waiting, Presence::Armed];
        world.attachment(port).is_some_and(|attachment| self.arrive(attachment, &states))
    }

    /// Whether `attachment` may use one of the addresses that it waits for: once its rings have started, and its guest is here from then on.
    ///
    /// # Errors
    /// Nothing has started here since the guest was here last: a machine that was left behind.
    #[cold]
    pub(super) fn admit_awaited(&self, attachment: &Attachment) -> Result<(), DropReason> {
        if self.arrive(attachment, &[Presence::Armed]) || self.presence(attachment.port) == Presence::Here {
            return Ok(());
        }
        Err(DropReason::Moved)
    }

    /// From one of `states` to here; whether it was this call that did it.
    fn arrive(&self, attachment: &Attachment, states: &[Presence]) -> bool {
        let port = attachment.port;
        if !states.iter().any(|state| self.presences.change(port, *state, Presence::Here)) {
            return false;
        }
        let world = self.world.load();
        let identifiers = attachment.awaited().map(|key| {
            // Room for it was counted when the setup was applied.
            let before = self.table.insert(key, Target::Local(port)).ok().flatten();
            let from = match before {
                Some(Target::Remote(id, _)) => world.locator(id),
                _ => None,
            };
            // The epoch is the slow thread's to say.
            Arrived { key, from, epoch: 0 }
        });
        let arrival = Arrival { attachment: attachment.name.clone(), identifiers: identifiers.collect() };
        self.presences.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
        if let Some(ring) = self.presences.bell.get() {
            ring();
        }
        true
    }

    /// Has `ring` called whenever [`Nve::arrivals`] has something: by whoever saw it first, a worker perhaps, so it must not wait. The first
    /// to say so is called, and no other.
    pub fn on_arrival(&self, ring: impl Fn() + Send + Sync + 'static) {
        let _ = self.presences.bell.set(Box::new(ring));
    }

    /// Who has arrived since the last time this was asked. The world in force knows them from now on as it knows the others, so that
    /// their packets take the short way. What they brought has the epoch `at_least` (milliseconds since 1970, so that hosts
    /// agree on what is later), or one more than what is known.
    pub fn arrivals(&self, at_least: u64) -> Vec<Arrival> {
        let list = || self.presences.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        if list().is_empty() {
            return Vec::new();
        }
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Not before: a setup that is tried out may take back what it added.
        let mut arrived = core::mem::take(&mut *list());
        if arrived.is_empty() {
            return arrived;
        }
        self.forget_who_came(&mut registry);
        self.world.change(self.world.load().with_away(&registry.away));
        for arrived in arrived.iter_mut().flat_map(|arrival| &mut arrival.identifiers) {
            arrived.epoch = at_least.max(registry.epoch_of(arrived.key).saturating_add(1));
            // It may have left again meanwhile.
            if matches!(self.table.get(arrived.key), Some(Target::Local(_))) {
                registry.lessons.remove(arrived.key);
                registry.moved_here.insert(arrived.key, arrived.epoch);
                self.departures.remove(arrived.key);
            }
        }
        arrived
    }

    /// What attachments wait for that are here is waited for no more.
    pub(super) fn forget_who_came(&self, registry: &mut Registry) {
        registry.away.retain(|port, _| self.presence(*port) != Presence::Here);
    }

    /// Whoever arrived while a setup was applied that says it waits: the mapping table says so again. Its world is for [`Nve::arrivals`].
    pub(super) fn arrived_meanwhile(&self) {
        for attachment in self.world.load().attachments() {
            if attachment.awaited().next().is_some() && self.presence(attachment.port) == Presence::Here {
                for key in attachment.awaited() {
                    // As in `arrive`.
                    let _ = self.table.insert(key, Target::Local(attachment.port));
                }
            }
        }
    }
}
