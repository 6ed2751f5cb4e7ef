//! The slow path: what the gateway cannot answer from a packet alone (docs/decisions/0012-punt.md).
//!
//! What must stay true:
//!
//! * **State that a guest can grow lives here and nowhere else**, capped for each attachment. A worker keeps none of it.
//! * **What is taken here was admitted**: whole, finished, from the attachment's own addresses, within its allowance. Its bytes are as
//!   hostile as any, and no byte of a frame panics.
//! * No I/O, thread or clock: the shell brings frames and the time, and carries what comes out. Whoever has a thread for it (the
//!   daemon) and whoever has none (the world in memory, replay) run the same code.
//!
//! ```text
//!   Fate::Punt(desk) ──> shell ──> Desks::take ──┬─ Desk::Service ──> gateway/service/   one TCP/IP stack for each attachment
//!   the time ───────────────────> Desks::tick ──┤                         │
//!                                               └─ Desk::Dns ──────> gateway/dns/       questions of all, to resolvers of the host's side
//!   what a resolver's socket got ─> Desks::heard ──────────────────────┘  │
//!   frames for attachments, errands on the host's side <──── Outbox <─────┘
//! ```
//!
//! Beside the desks, by time alone: who has a shared address that nobody holds ([`crate::gateway::Asker`]), and what was learned and has
//! ended ([`Nve::try_sweep`]). Nothing here waits for a reload.
//!
//! One more desk is one more variant of [`Desk`], one field and two lines here.

use core::time::Duration;
use std::sync::Arc;

use crate::DropReason;
use crate::counters::{PortCounters, WorkerCells};
use crate::gateway::Asker;
use crate::gateway::dns::{Act, Errand, Forwarder, Heard, Random, Token};
use crate::gateway::group::Snooper;
use crate::gateway::service::Stacks;
use crate::pipeline::{Desk, Nve, PortId};

/// Until a reload that is under way is looked for again.
const RELOAD: Duration = Duration::from_secs(1);

/// A frame on its way to a desk.
#[derive(Clone, Copy, Debug)]
pub struct Punted<'a> {
    /// The attachment that sent it.
    pub port: PortId,
    /// Who serves it.
    pub desk: Desk,
    /// Ethernet, whole, with nothing left to finish.
    pub frame: &'a [u8],
}

/// What the desks want done, in order.
#[derive(Default, Debug)]
pub struct Outbox {
    /// Ethernet frames for attachments of this host.
    pub frames: Vec<(PortId, Vec<u8>)>,
    /// What is to be done on the host's side; what comes of it is told to [`Desks::heard`].
    pub errands: Vec<Errand>,
}

/// Everything that serves punted frames.
pub struct Desks {
    nve: Arc<Nve>,
    service: Stacks,
    groups: Snooper,
    shared: Asker,
    dns: Forwarder,
    cells: Arc<WorkerCells>,
    /// By port number.
    ports: Vec<Arc<PortCounters>>,
}

impl core::fmt::Debug for Desks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Desks")
            .field("stacks", &self.service.len())
            .field("dns", &self.dns)
            .finish_non_exhaustive()
    }
}

impl Desks {
    /// Desks of `nve` with nothing on them. `seed`, which nobody should guess, decides the sequence numbers of their connections, and
    /// `random` the identifications of their questions.
    pub fn new(nve: Arc<Nve>, seed: u64, random: Random) -> Self {
        let cells = nve.register_worker();
        let (service, groups, dns) = (Stacks::new(seed), Snooper::default(), Forwarder::new(random));
        Self { nve, service, groups, shared: Asker::default(), dns, cells, ports: Vec::new() }
    }

    /// Serves one frame at `now`, of the epoch of [`crate::pipeline::Walker::begin`].
    pub fn take(&mut self, now: Duration, punted: &Punted<'_>, out: &mut Outbox) {
        let world = self.nve.world();
        let Punted { port, desk, frame } = *punted;
        match desk {
            Desk::Service => {
                self.service
                    .take(&world, now, (port, frame), &mut |port, frame| out.frames.push((port, frame)));
            }
            Desk::Group => {
                self.groups
                    .take(&self.nve, now, (port, frame), &mut |port, frame| out.frames.push((port, frame)));
            }
            Desk::Dns => {
                self.dns.ask(&world, port, frame, now);
                self.carry_out(out);
            }
        }
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Duration, out: &mut Outbox) {
        let world = self.nve.world();
        self.service.tick(&world, now, &mut |port, frame| out.frames.push((port, frame)));
        self.groups.tick(&self.nve, now, &mut |port, frame| out.frames.push((port, frame)));
        self.shared.tick(&self.nve, now, &mut |port, frame| out.frames.push((port, frame)));
        self.dns.tick(&world, now);
        self.nve.try_sweep(now);
        self.carry_out(out);
    }

    /// Takes what came to the socket of an [`Errand::Send`].
    pub fn heard(&mut self, now: Duration, token: Token, heard: Heard, out: &mut Outbox) {
        let world = self.nve.world();
        self.dns.heard(&world, token, heard, now);
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: &mut Outbox) {
        while let Some(act) = self.dns.poll() {
            match act {
                Act::Errand(errand) => out.errands.push(errand),
                Act::Answer(port, frame) => out.frames.push((port, frame)),
                Act::Dropped(port, reason) => self.dropped(port, reason),
            }
        }
    }

    fn dropped(&mut self, port: PortId, reason: DropReason) {
        let index = usize::from(port.0);
        if self.ports.len() <= index {
            self.ports = self.cells.ports(index + 1);
        }
        if let Some(counters) = self.ports.get(index) {
            counters.dropped(reason);
        }
    }

    /// How long from `now` until [`Desks::tick`] has something to do; `None`: until something else happens.
    pub fn until_tick(&self, now: Duration) -> Option<Duration> {
        let timers =
            [self.groups.due(), self.shared.due()].into_iter().chain(self.nve.try_sweep_due(now + RELOAD));
        let due = self.service.due().into_iter().chain(timers).chain(self.dns.due()).min();
        due.map(|due| due.saturating_sub(now))
    }

    /// Drops all that is kept for an attachment.
    pub fn forget(&mut self, port: PortId) {
        self.service.forget(port);
        self.groups.forget(port);
        self.dns.forget(port);
    }
}
