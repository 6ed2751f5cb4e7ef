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
//!   the time ───────────────────> Desks::tick ──┘                         │
//!   frames for attachments <──────────────────────────────── Outbox <─────┘
//! ```
//!
//! One more desk is one more variant of [`Desk`], one field and two lines here.

use core::time::Duration;
use std::sync::Arc;

use crate::gateway::group::Snooper;
use crate::gateway::service::Stacks;
use crate::pipeline::{Desk, Nve, PortId};

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
}

/// Everything that serves punted frames.
pub struct Desks {
    nve: Arc<Nve>,
    service: Stacks,
    groups: Snooper,
}

impl core::fmt::Debug for Desks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Desks").field("stacks", &self.service.len()).finish_non_exhaustive()
    }
}

impl Desks {
    /// Desks of `nve` with nothing on them. `seed`, which nobody should guess, decides the sequence numbers of their connections.
    pub fn new(nve: Arc<Nve>, seed: u64) -> Self {
        Self { nve, service: Stacks::new(seed), groups: Snooper::default() }
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
        }
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Duration, out: &mut Outbox) {
        let world = self.nve.world();
        self.service.tick(&world, now, &mut |port, frame| out.frames.push((port, frame)));
        self.groups.tick(&self.nve, now, &mut |port, frame| out.frames.push((port, frame)));
    }

    /// How long from `now` until [`Desks::tick`] has something to do; `None`: until something else happens.
    pub fn until_tick(&self, now: Duration) -> Option<Duration> {
        let due = self.service.due().into_iter().chain([self.groups.due()]).min();
        due.map(|due| due.saturating_sub(now))
    }

    /// Drops all that is kept for an attachment.
    pub fn forget(&mut self, port: PortId) {
        self.service.forget(port);
        self.groups.forget(port);
    }
}
