//! The driver's registers as vhost-user messages: what QEMU does between a guest's driver and a back-end.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use vhost_frontend::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};
use vhost_frontend::vhost_user::{Frontend, VhostUserFrontend};
use vhost_frontend::{VhostBackend, VringConfigData};
use vhost_ila_tests::ringpeer::connect;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::hal;

/// How long an answer or a frame may take.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// VHOST_USER_F_PROTOCOL_FEATURES.
const PROTOCOL_FEATURES: u64 = 1 << 30;

const RINGS: usize = 2;

/// A NIC whose device is at the other end of a socket.
pub(super) struct VhostUser {
    frontend: Frontend,
    offered: u64,
    config: Vec<u8>,
    status: DeviceStatus,
    kicks: [EventFd; RINGS],
    calls: Arc<[EventFd; RINGS]>,
    used: [bool; RINGS],
}

/// The interrupts of a NIC.
pub(super) struct Waits(Arc<[EventFd; RINGS]>);

impl VhostUser {
    /// Connects to the daemon at `socket`, as far as it goes before there is a driver.
    pub(super) fn connect(socket: &Path) -> Result<VhostUser> {
        let stream = connect(socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut frontend = Frontend::from_stream(stream, RINGS as u64);
        frontend.set_owner()?;
        let offered = frontend.get_features()?;
        let protocol = VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::CONFIG;
        ensure!(frontend.get_protocol_features()?.contains(protocol), "{protocol:?} are not offered");
        frontend.set_protocol_features(protocol)?;
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let (_, config) = frontend.get_config(0, 12, VhostUserConfigFlags::empty(), &[0; 12])?;
        let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        Ok(VhostUser {
            frontend,
            offered,
            config,
            status: DeviceStatus::empty(),
            kicks: [event()?, event()?],
            calls: Arc::new([event()?, event()?]),
            used: [false; RINGS],
        })
    }

    /// Its interrupts, to be waited for while the driver has the NIC.
    pub(super) fn waits(&self) -> Waits {
        Waits(Arc::clone(&self.calls))
    }

    fn set_up(&mut self, ring: usize, size: u32, [descriptors, driver, device]: [PhysAddr; 3]) -> Result<()> {
        let size = u16::try_from(size)?;
        let config = VringConfigData {
            queue_max_size: size,
            queue_size: size,
            flags: 0,
            desc_table_addr: hal::told(descriptors),
            used_ring_addr: hal::told(device),
            avail_ring_addr: hal::told(driver),
            log_addr: None,
        };
        self.frontend.set_vring_num(ring, size)?;
        self.frontend.set_vring_base(ring, 0)?;
        self.frontend.set_vring_addr(ring, &config)?;
        self.frontend.set_vring_call(ring, &self.calls[ring])?;
        self.frontend.set_vring_kick(ring, &self.kicks[ring])?;
        self.used[ring] = true;
        Ok(())
    }
}

impl Waits {
    /// Sleeps until the receive ring is called.
    pub(super) fn for_a_frame(&self) -> Result<()> {
        let call = &self.0[0];
        let epoll = Epoll::new()?;
        epoll.ctl(ControlOperation::Add, call.as_raw_fd(), EpollEvent::new(EventSet::IN, 0))?;
        let millis = i32::try_from(LIMIT.as_millis())?;
        ensure!(epoll.wait(millis, &mut [EpollEvent::default()])? > 0, "the driver is not called");
        Ok(call.read().map(drop)?)
    }
}

impl Transport for VhostUser {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }

    fn read_device_features(&mut self) -> u64 {
        self.offered & !PROTOCOL_FEATURES
    }

    fn write_driver_features(&mut self, features: u64) {
        self.frontend.set_features(features | PROTOCOL_FEATURES).expect("SET_FEATURES");
    }

    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        1024
    }

    fn notify(&mut self, queue: u16) {
        self.kicks[usize::from(queue)].write(1).expect("a kick");
    }

    fn get_status(&self) -> DeviceStatus {
        self.status
    }

    fn set_status(&mut self, status: DeviceStatus) {
        if status.contains(DeviceStatus::DRIVER_OK) {
            for ring in 0..RINGS {
                self.frontend.set_vring_enable(ring, true).expect("SET_VRING_ENABLE");
            }
        }
        self.status = status;
    }

    fn set_guest_page_size(&mut self, _size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        if self.used == [false; RINGS] {
            self.frontend.set_mem_table(&hal::regions()).expect("SET_MEM_TABLE");
        }
        self.set_up(usize::from(queue), size, [descriptors, driver, device]).expect("the ring's messages");
    }

    fn queue_unset(&mut self, queue: u16) {
        let ring = usize::from(queue);
        self.frontend.set_vring_enable(ring, false).expect("SET_VRING_ENABLE");
        self.frontend.get_vring_base(ring).expect("GET_VRING_BASE");
        self.used[ring] = false;
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.used[usize::from(queue)]
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::QUEUE_INTERRUPT
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> virtio_drivers::Result<T> {
        let bytes = self.config.get(offset..offset + size_of::<T>()).ok_or(Error::ConfigSpaceTooSmall)?;
        T::read_from_bytes(bytes).map_err(|_| Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _offset: usize,
        _value: T,
    ) -> virtio_drivers::Result<()> {
        Err(Error::Unsupported)
    }
}
