//! What each vhost-user message does: the request handler under the `vhost` crate's dispatcher (decision 0001).
//!
//! What must stay true:
//!
//! * The front-end's answer is sent when what the message asks for is done, and the worker has let go of what it changes
//!   ([`Session`]).
//! * Every index, size and address is checked in the width it arrives in.
//! * A refused message ends the connection (the dispatcher says so to the front-end first, where it asked).

use std::fs::File;
use std::io;
use std::sync::Arc;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use super::config_space;
use super::dirty_log::DirtyLog;
use super::event::{PeerEvent, close_on_exec};
use super::features::{Accepted, NotAccepted};
use super::handover::Role;
use super::memory::{GuestMemory, MAX_REGIONS, MemoryError, RegionSpec};
use super::ring::{self, RingAddresses};
use super::session::Session;

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
        // Only a packed ring may have any number (virtio 1.2, 2.7 and 2.8.10.1).
        let is_legal =
            |n: &u16| (1..=ring::MAX_SIZE).contains(n) && (self.features.packed() || n.is_power_of_two());
        let size = u16::try_from(num).ok().filter(is_legal);
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

    /// Where a packed ring begins: where it takes the next buffer (bits 0 to 15) and gives the next one back (16 to 31; DPDK leaves them
    /// zero). A split ring starts at its used index (see [`ring`]), and this is taken note of only.
    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        if !self.features.packed() {
            u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        }
        self.change(index, |ring| {
            ring.base = Some(base);
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
        self.stopped |= matches!(self.role(at), Some(Role::Receive(_)));
        let first = self.features.first_base();
        let ring = self.rings.get_mut(at).ok_or(Error::InvalidParam)?;
        // The ring is stopped until the next kick descriptor. QEMU says only once, at its start, where it wants to hear of faults.
        ring.events.kick = None;
        ring.events.call = None;
        Ok(VhostUserVringState::new(index, ring.base.unwrap_or(first)))
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
