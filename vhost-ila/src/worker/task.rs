//! Host tasks: NICs without rings, each a TUN that is read and written a packet at a time.
//!
//! What must stay true: a TUN that is gone is closed, told in its status and to the core, and looked at no more; a look at an idle one is
//! a system call, so it is taken every [`PAUSE`] turns only while there is other work.

use std::io;
use std::sync::Arc;

use nve_core::gateway::GATEWAY_MAC;
use nve_core::packet::ETHERNET_LEN;
use nve_core::pipeline::{PortId, Receiver};

use super::delivery::Outlets;
use super::toll::Toll;
use crate::task::{Nic, Status};
use crate::uplink::Uplink;

/// Turns between two looks at something that had nothing last time.
const PAUSE: u32 = 16;

/// When to look next at what costs a system call to look at.
#[derive(Debug)]
pub(super) struct Look {
    busy: bool,
    skipped: u32,
}

impl Look {
    /// Due at once.
    pub(super) const NOW: Self = Self { busy: true, skipped: 0 };

    /// Whether it is time; to be asked once a turn.
    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        self.skipped += 1;
        self.busy || self.skipped >= PAUSE
    }

    /// The look found so many packets.
    #[inline]
    pub(super) fn found(&mut self, packets: usize) {
        *self = Self { busy: packets > 0, skipped: 0 };
    }
}

/// A task's NIC.
pub(super) struct TaskNic {
    pub(super) tun: Box<dyn Uplink>,
    /// What stands before each packet read from it.
    pub(super) ethernet: [u8; ETHERNET_LEN],
    pub(super) look: Look,
    pub(super) toll: Toll,
    pub(super) status: Arc<Status>,
}

impl std::fmt::Debug for TaskNic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskNic").field("status", &self.status).finish_non_exhaustive()
    }
}

impl From<Nic> for TaskNic {
    fn from(nic: Nic) -> Self {
        let Nic { tun, mac, status } = nic;
        let mut ethernet = [0; ETHERNET_LEN];
        ethernet[..6].copy_from_slice(GATEWAY_MAC.as_bytes());
        ethernet[6..12].copy_from_slice(&mac);
        // Whatever is not IPv6 behind it is refused for what it is.
        ethernet[12..].copy_from_slice(&[0x86, 0xdd]);
        Self { tun, ethernet, look: Look::NOW, toll: Toll::default(), status }
    }
}

impl Outlets {
    /// From now on `port` is served by `nic`.
    pub(super) fn plug(&mut self, port: PortId, nic: Nic) {
        let takes = nic.tun.takes();
        self.admit(port).task = Some(Box::new(nic.into()));
        self.nve.set_receiver(port, takes);
    }

    /// From now on frames for `port` go to `nic`, which another worker reads.
    pub(super) fn reach(&mut self, port: PortId, nic: Nic) {
        self.admit(port).task = Some(Box::new(nic.into()));
    }

    /// The TUN of port `index` has something.
    pub(super) fn look_at_task(&mut self, index: u16) {
        if let Some(task) = self.ports.get_mut(usize::from(index)).and_then(|slot| slot.task.as_mut()) {
            task.look = Look::NOW;
        }
    }

    /// Lets go of the NIC of `port`, if it has one.
    pub(super) fn unplug(&mut self, port: PortId) -> Option<Box<TaskNic>> {
        let task = self.ports.get_mut(usize::from(port.0))?.task.take()?;
        self.nve.set_receiver(port, Receiver::default());
        Some(task)
    }

    /// The NIC of `port` failed for good.
    #[cold]
    pub(super) fn lose_task(&mut self, port: PortId, error: &io::Error) -> Option<Box<TaskNic>> {
        let task = self.unplug(port)?;
        let fault = format!("its TUN is gone, with its namespace or by itself: plug it in again ({error})");
        log::warn!("port {}: {fault}", port.0);
        task.status.lost(fault);
        Some(task)
    }
}
