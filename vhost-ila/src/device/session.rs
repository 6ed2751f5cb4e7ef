//! What one front-end has set up so far, and the rings' way to the worker and back.
//!
//! What must stay true:
//!
//! * A ring runs exactly while it has a kick, addresses in the present memory, and a legal size; whatever changes one of those, or
//!   the features, first takes the ring back from the worker (`pause`) and afterwards hands it out again (`resume`).
//! * A ring that cannot start because the *guest* wrote nonsense does not end the connection: that is the ring's fault, shown in its
//!   status until it is set up again.
//! * The core takes the attachment for a receiver exactly while a receive ring of it runs and is whole.
//! * Dropping a [`Session`] undoes everything: rings are back, the receiver is down, memory is unmapped.

use std::sync::Arc;

use nve_core::pipeline::{Nve, PortId};
use vhost::vhost_user::{Error, Result};

use super::control_queue::{ControlQueue, Powers};
use super::dirty_log::{DirtyLog, LogSpec};
use super::features::{Accepted, Offer};
use super::handover::{Events, Queue, ReceiveQueue, Role, TransmitQueue, WorkerLink};
use super::memory::GuestMemory;
use super::ring::{self, ControlRing, ReceiveRing, RingAddresses, RingSpec, TransmitRing};
use super::status::Status;
use crate::config::DeviceConfig;

/// What a front-end has said about one ring so far.
#[derive(Debug, Default)]
pub(super) struct RingState {
    pub(super) size: u16,
    pub(super) addresses: Option<RingAddresses>,
    /// Where its used ring is logged, if the front-end said (VHOST_VRING_F_LOG).
    pub(super) log_address: Option<u64>,
    pub(super) events: Events,
    pub(super) enabled: bool,
    /// The worker has it.
    running: bool,
    /// Where the front-end may go on, when the worker does not have it.
    pub(super) base: Option<u32>,
}

/// One front-end's session with one attachment, from connect to disconnect.
#[derive(Debug)]
pub struct Session {
    pub(super) nve: Arc<Nve>,
    pub(super) port: PortId,
    pub(super) mac: [u8; 6],
    pub(super) offer: Offer,
    worker: WorkerLink,
    pub(super) status: Arc<Status>,
    pub(super) features: Accepted,
    pub(super) owned: bool,
    pub(super) memory_max: u64,
    pub(super) memory: Arc<GuestMemory>,
    /// Where dirty pages are marked while VHOST_F_LOG_ALL is set.
    pub(super) log: Option<Arc<DirtyLog>>,
    /// By vhost-user index: two of each pair, and a control queue behind the last.
    pub(super) rings: Vec<RingState>,
    /// What the guest's last VQ_PAIRS_SET said, where the control queue is ours.
    pub(super) pairs: u8,
    /// No receive ring has started since the front-end came, or stopped one: the next is a guest that starts, or goes on here.
    pub(super) stopped: bool,
}

fn no_rings(offer: Offer) -> Vec<RingState> {
    (0..=2 * usize::from(offer.pairs())).map(|_| RingState::default()).collect()
}

impl Session {
    /// A fresh session: nothing negotiated, no memory, no rings. `status` is that of a device with the same `offer`.
    #[must_use]
    pub fn new(
        nve: Arc<Nve>,
        port: PortId,
        config: &DeviceConfig,
        worker: WorkerLink,
        status: Arc<Status>,
    ) -> Self {
        Self {
            nve,
            port,
            mac: config.mac,
            offer: config.offer,
            worker,
            status,
            features: Accepted::default(),
            owned: false,
            memory_max: config.memory_max,
            memory: Arc::new(GuestMemory::of_at_most(config.memory_max)),
            log: None,
            rings: no_rings(config.offer),
            pairs: 1,
            stopped: true,
        }
    }

    /// Undoes everything the front-end set up.
    ///
    /// # Errors
    /// The worker has ended.
    pub fn reset(&mut self) -> Result<()> {
        self.forget_rings()?;
        self.memory = Arc::new(GuestMemory::of_at_most(self.memory_max));
        self.log = None;
        self.owned = false;
        Ok(())
    }

    /// Takes all rings back and forgets their set-up and the features.
    pub(super) fn forget_rings(&mut self) -> Result<()> {
        self.pause_all()?;
        self.rings = no_rings(self.offer);
        self.stopped = true;
        self.features = Accepted::default();
        self.pairs = 1;
        self.status.set_features(0);
        self.status.set_logging(false);
        self.status.nothing_runs();
        Ok(())
    }

    pub(super) fn role(&self, index: usize) -> Option<Role> {
        Role::of(index, self.offer.pairs(), self.features)
    }

    /// Tells the core what the guest takes: something, as long as a receive ring runs that is not `leaving`.
    fn tell_receiver(&self, leaving: Option<usize>) {
        let receives = |(index, ring): (usize, &RingState)| {
            let role = self.role(index).filter(|role| matches!(role, Role::Receive(_)));
            let status = role.and_then(|role| self.status.ring(role));
            ring.running && Some(index) != leaving && status.is_some_and(|status| status.fault().is_none())
        };
        let up = self.rings.iter().enumerate().any(receives);
        self.nve.set_receiver(self.port, self.features.receiver(up));
    }

    /// Takes ring `index` back from the worker, if it has it.
    pub(super) fn pause(&mut self, index: usize) -> Result<()> {
        let running = self.rings.get(index).ok_or(Error::InvalidParam)?.running;
        let Some(role) = self.role(index).filter(|_| running) else { return Ok(()) };
        if matches!(role, Role::Receive(_)) {
            // First, so that other senders stop deciding for it.
            self.tell_receiver(Some(index));
        }
        let queue = self.worker.stop(self.port, role).map_err(Error::ReqHandlerError)?;
        if let Some(Queue::Control(control)) = &queue {
            self.pairs = control.pairs;
        }
        let ring = self.rings.get_mut(index).ok_or(Error::InvalidParam)?;
        ring.running = false;
        if let Some(queue) = queue {
            ring.base = Some(queue.base());
            ring.events = queue.into_events();
        }
        self.show(index);
        Ok(())
    }

    pub(super) fn pause_all(&mut self) -> Result<()> {
        (0..self.rings.len()).try_for_each(|index| self.pause(index))
    }

    /// Hands ring `index` to the worker, if it is complete.
    fn resume(&mut self, index: usize) -> Result<()> {
        let role = self.role(index);
        let ring = self.rings.get_mut(index).ok_or(Error::InvalidParam)?;
        let (Some(role), Some(addresses), true, false) =
            (role, ring.addresses, ring.events.kick.is_some(), ring.running)
        else {
            return Ok(());
        };
        // A disabled receive ring receives nothing; a disabled transmit ring is emptied into nowhere (vhost-user, "Ring states").
        let stands_still = !ring.enabled && !matches!(role, Role::Transmit(_));
        if ring.size == 0 || stands_still {
            self.show(index);
            return Ok(());
        }
        let log = match &self.log {
            _ if !self.features.log_all() => None,
            Some(log) => Some(LogSpec { log: Arc::clone(log), used: ring.log_address }),
            None => {
                // QEMU gives the log last when a device starts in the middle of a migration: the ring waits for it.
                self.fault(role, Some(ring::RingFault::NoLog));
                return Ok(());
            }
        };
        let spec = RingSpec {
            memory: Arc::clone(&self.memory),
            addresses,
            size: ring.size,
            packed: self.features.packed(),
            base: ring.base,
            event_idx: self.features.event_idx(),
            in_order: self.features.in_order(),
            indirect: self.features.indirect(),
            log,
        };
        let bare = match Bare::new(role, &spec, self.features) {
            Ok(bare) => bare,
            Err(fault) => {
                // The descriptors stay: the next message may mend it.
                self.fault(role, Some(fault));
                return Ok(());
            }
        };
        let events = std::mem::take(&mut ring.events);
        let enabled = ring.enabled;
        let queue = self.complete(bare, events, enabled);
        let base = queue.base();
        // Before the worker has it, which may find the next fault at once.
        self.fault(role, None);
        self.worker.start(self.port, queue).map_err(Error::ReqHandlerError)?;
        if let Some(ring) = self.rings.get_mut(index) {
            ring.running = true;
            ring.base = Some(base);
        }
        self.show(index);
        if matches!(role, Role::Receive(_)) {
            self.tell_receiver(None);
            if std::mem::take(&mut self.stopped) {
                // A ring that does not begin at zero has received frames, somewhere else.
                self.nve.started(self.port, base != self.features.first_base());
            }
        }
        Ok(())
    }

    /// From the last to the first: the control queue says how many pairs the guest uses before they run.
    pub(super) fn resume_all(&mut self) -> Result<()> {
        (0..self.rings.len()).rev().try_for_each(|index| self.resume(index))
    }

    fn show(&self, index: usize) {
        let status = self.role(index).and_then(|role| self.status.ring(role));
        if let (Some(ring), Some(status)) = (self.rings.get(index), status) {
            status.set_state(ring.running, ring.enabled, ring.size);
        }
    }

    fn fault(&self, role: Role, fault: Option<ring::RingFault>) {
        if let Some(status) = self.status.ring(role) {
            status.set_fault(fault);
        }
    }

    /// Changes ring `index` while the worker does not have it.
    pub(super) fn change(
        &mut self,
        index: u32,
        change: impl FnOnce(&mut RingState) -> Result<()>,
    ) -> Result<()> {
        let index = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        self.pause(index)?;
        change(self.rings.get_mut(index).ok_or(Error::InvalidParam)?)?;
        self.resume(index)
    }

    /// Changes the memory while the worker has no ring.
    pub(super) fn change_memory(&mut self, new: Result<GuestMemory>) -> Result<()> {
        let new = new?;
        self.pause_all()?;
        self.memory = Arc::new(new);
        self.resume_all()
    }

    /// Everything that goes with a ring.
    fn complete(&self, bare: Bare, events: Events, enabled: bool) -> Queue {
        let (features, status) = (self.features, Arc::clone(&self.status));
        match bare {
            Bare::Receive(pair, ring) => Queue::Receive(Box::new(ReceiveQueue {
                pair,
                ring,
                events,
                verified: features.receiver(true).csum,
                fault: None,
                status,
            })),
            Bare::Transmit(pair, ring) => Queue::Transmit(Box::new(TransmitQueue {
                pair,
                ring,
                events,
                allowed: features.sender(),
                enabled,
                fault: None,
                status,
            })),
            Bare::Control(ring) => Queue::Control(Box::new(ControlQueue {
                ring,
                events,
                powers: Powers {
                    pairs: self.offer.pairs(),
                    multiqueue: features.multiqueue(),
                    announce: features.guest_announce(),
                },
                pairs: self.pairs,
                fault: None,
                status,
            })),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Fails only when the worker has ended, and then it holds nothing.
        let _ = self.reset();
        self.status.disconnected();
    }
}

/// A ring that still wants its descriptors, and its pair.
enum Bare {
    Receive(u8, ReceiveRing),
    Transmit(u8, TransmitRing),
    Control(ControlRing),
}

impl Bare {
    fn new(role: Role, spec: &RingSpec, features: Accepted) -> std::result::Result<Self, ring::RingFault> {
        Ok(match role {
            Role::Receive(pair) => Self::Receive(pair, ReceiveRing::new(spec, features.mergeable())?),
            Role::Transmit(pair) => Self::Transmit(pair, TransmitRing::new(spec)?),
            Role::Control => Self::Control(ControlRing::new(spec)?),
        })
    }
}
