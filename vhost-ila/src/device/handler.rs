//! What each vhost-user message does: the request handler under the `vhost` crate's dispatcher (decision 0001).
//!
//! What must stay true:
//!
//! * A ring runs exactly while it has a kick, addresses in the present memory, and a legal size; every message that changes one of
//!   those, or the features, first takes the ring back from the worker (`pause`) and afterwards hands it out again (`resume`).
//!   The front-end's answer is sent when that is done.
//! * Every index, size and address is checked in the width it arrives in.
//! * A refused message ends the connection (the dispatcher says so to the front-end first, where it asked); a ring that cannot
//!   start because the *guest* wrote nonsense does not: that is the ring's fault, shown in its status until it is set up again.
//! * Dropping a [`Session`] undoes everything: rings are back, the receiver is down, memory is unmapped.

use std::fs::File;
use std::io;
use std::sync::Arc;

use nve_core::pipeline::{Nve, PortId};
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use super::config_space;
use super::control_queue::{ControlQueue, Powers};
use super::dirty_log::{DirtyLog, LogSpec};
use super::event::{PeerEvent, close_on_exec};
use super::features::{Accepted, NotAccepted, Offer};
use super::handover::{Events, Queue, ReceiveQueue, Role, TransmitQueue, WorkerLink};
use super::memory::{GuestMemory, MAX_REGIONS, MemoryError, RegionSpec};
use super::ring::{self, ControlRing, ReceiveRing, RingAddresses, RingSpec, TransmitRing};
use super::status::Status;
use crate::config::DeviceConfig;

/// What a front-end has said about one ring so far.
#[derive(Debug, Default)]
struct RingState {
    size: u16,
    addresses: Option<RingAddresses>,
    /// Where its used ring is logged, if the front-end said (VHOST_VRING_F_LOG).
    log_address: Option<u64>,
    events: Events,
    enabled: bool,
    /// The worker has it.
    running: bool,
    /// Where the front-end may go on, when the worker does not have it.
    base: u16,
}

/// One front-end's session with one attachment, from connect to disconnect.
#[derive(Debug)]
pub struct Session {
    nve: Arc<Nve>,
    port: PortId,
    mac: [u8; 6],
    offer: Offer,
    worker: WorkerLink,
    status: Arc<Status>,
    features: Accepted,
    owned: bool,
    memory_max: u64,
    memory: Arc<GuestMemory>,
    /// Where dirty pages are marked while VHOST_F_LOG_ALL is set.
    log: Option<Arc<DirtyLog>>,
    /// By vhost-user index: two of each pair, and a control queue behind the last.
    rings: Vec<RingState>,
    /// What the guest's last VQ_PAIRS_SET said, where the control queue is ours.
    pairs: u8,
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
    fn forget_rings(&mut self) -> Result<()> {
        self.pause_all()?;
        self.rings = no_rings(self.offer);
        self.features = Accepted::default();
        self.pairs = 1;
        self.status.set_features(0);
        self.status.set_logging(false);
        self.status.nothing_runs();
        Ok(())
    }

    fn role(&self, index: usize) -> Option<Role> {
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
    fn pause(&mut self, index: usize) -> Result<()> {
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
            ring.base = queue.base();
            ring.events = queue.into_events();
        }
        self.show(index);
        Ok(())
    }

    fn pause_all(&mut self) -> Result<()> {
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
            event_idx: self.features.event_idx(),
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
            ring.base = base;
        }
        self.show(index);
        if matches!(role, Role::Receive(_)) {
            self.tell_receiver(None);
        }
        Ok(())
    }

    /// From the last to the first: the control queue says how many pairs the guest uses before they run.
    fn resume_all(&mut self) -> Result<()> {
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
    fn change(&mut self, index: u32, change: impl FnOnce(&mut RingState) -> Result<()>) -> Result<()> {
        let index = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        self.pause(index)?;
        change(self.rings.get_mut(index).ok_or(Error::InvalidParam)?)?;
        self.resume(index)
    }

    /// Changes the memory while the worker has no ring.
    fn change_memory(&mut self, new: Result<GuestMemory>) -> Result<()> {
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

fn not_accepted(error: NotAccepted) -> Error {
    Error::ReqHandlerError(io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn refused(error: MemoryError) -> Error {
    Error::ReqHandlerError(io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn peer_event(file: Option<File>) -> Result<Option<PeerEvent>> {
    file.map(PeerEvent::new).transpose().map_err(Error::ReqHandlerError)
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        if self.owned {
            return Err(Error::InvalidOperation("already claimed"));
        }
        self.owned = true;
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset()
    }

    /// Rings stop and forget their set-up; memory and protocol features stay, as the front-end's guest is the same.
    fn reset_device(&mut self) -> Result<()> {
        self.forget_rings()?;
        self.status.uses.device_resets.add(1);
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offer.virtio())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let accepted = Accepted::new(features, self.offer).map_err(not_accepted)?;
        // QEMU says it once per queue pair.
        if accepted != self.features {
            self.pause_all()?;
            self.features = accepted;
        }
        self.status.set_features(features);
        self.status.set_logging(accepted.log_all());
        if !accepted.protocol() {
            // Without protocol features there is no SET_VRING_ENABLE: rings start enabled.
            self.rings.iter_mut().for_each(|ring| ring.enabled = true);
        }
        self.resume_all()
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let empty = GuestMemory::of_at_most(self.memory_max);
        let table = regions.iter().zip(&files).try_fold(empty, |table, (region, file)| {
            let spec = RegionSpec {
                gpa: region.guest_phys_addr,
                uva: region.user_addr,
                len: region.memory_size,
                offset: region.mmap_offset,
            };
            table.with(spec, file)
        });
        self.change_memory(table.map_err(refused))?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).ok().filter(|n| n.is_power_of_two() && *n <= ring::MAX_SIZE);
        let size = size.ok_or(Error::InvalidParam)?;
        self.change(index, |ring| {
            ring.size = size;
            Ok(())
        })
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> Result<()> {
        // Whether they lie in memory is asked when the ring starts, and again whenever the memory changes.
        self.change(index, |ring| {
            ring.addresses = Some(RingAddresses { descriptors, available, used });
            ring.log_address = flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG).then_some(log);
            Ok(())
        })
    }

    /// Taken note of only: a split ring starts at its used index (see [`ring`]).
    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.change(index, |ring| {
            ring.base = base;
            Ok(())
        })
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let at = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        self.pause(at)?;
        if self.role(at) == Some(Role::Control) {
            // The guest's driver is gone, and what it commanded with it.
            self.pairs = 1;
        }
        let ring = self.rings.get_mut(at).ok_or(Error::InvalidParam)?;
        // The ring is stopped until the next kick descriptor. QEMU says only once, at its start, where it wants to hear of faults.
        ring.events.kick = None;
        ring.events.call = None;
        Ok(VhostUserVringState::new(index, u32::from(ring.base)))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let Some(kick) = peer_event(fd)? else {
            // We would have to poll for one guest's sake, and never sleep.
            return Err(Error::InvalidOperation("a ring without a kick descriptor"));
        };
        self.change(u32::from(index), |ring| {
            ring.events.kick = Some(kick);
            Ok(())
        })
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let call = peer_event(fd)?;
        self.change(u32::from(index), |ring| {
            ring.events.call = call;
            Ok(())
        })
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let error = peer_event(fd)?;
        self.change(u32::from(index), |ring| {
            ring.events.error = error;
            Ok(())
        })
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(self.offer.protocol())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let surplus = features & !self.offer.protocol().bits();
        if surplus != 0 {
            return Err(not_accepted(NotAccepted::Protocol(surplus)));
        }
        self.status.set_protocol(features);
        Ok(())
    }

    /// Queue pairs, as QEMU and DPDK read it. cloud-hypervisor compares its rings with it: it gets half as many pairs.
    fn get_queue_num(&mut self) -> Result<u64> {
        self.status.uses.queue_numbers_told.add(1);
        Ok(u64::from(self.offer.pairs()))
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.change(index, |ring| {
            ring.enabled = enable;
            Ok(())
        })
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        self.status.uses.configuration_reads.add(1);
        let space = config_space::bytes(self.mac, self.offer.pairs(), self.nve.mtu(self.port));
        config_space::read(&space, offset, size).ok_or(Error::InvalidParam)
    }

    fn set_config(&mut self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation("the configuration space is read only"))
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        fd: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        close_on_exec(&fd).map_err(Error::ReqHandlerError)?;
        let table = self.memory.with(single(region), &fd).map_err(refused);
        self.change_memory(table)?;
        self.status.uses.regions_changed.add(1);
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let table = self.memory.without(&single(region)).map_err(refused);
        self.change_memory(table)?;
        self.status.uses.regions_changed.add(1);
        Ok(())
    }

    /// Rings that log go on in the new log; what they marked so far is in the old one.
    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        close_on_exec(&file).map_err(Error::ReqHandlerError)?;
        let (len, offset) = (log.mmap_size, log.mmap_offset);
        let log = DirtyLog::new(&file, len, offset, &self.memory, self.status.pages_marked())
            .map_err(|e| Error::ReqHandlerError(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
        self.pause_all()?;
        self.log = Some(Arc::new(log));
        self.resume_all()
    }

    // What was never offered is refused.

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("not a GPU"))
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("shared objects were not offered"))
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(Error::InvalidOperation("inflight tracking was not offered"))
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        Err(Error::InvalidOperation("inflight tracking was not offered"))
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidOperation("device state was not offered"))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("device state was not offered"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidOperation("shared memory was not offered"))
    }
}

fn single(region: &VhostUserSingleMemoryRegion) -> RegionSpec {
    RegionSpec {
        gpa: region.guest_phys_addr,
        uva: region.user_addr,
        len: region.memory_size,
        offset: region.mmap_offset,
    }
}
