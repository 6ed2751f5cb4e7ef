//! A NIC of the generator: memory, a receive ring and a transmit ring, driven by polling (virtio 1.2, section 2.7).
//!
//! ```text
//!   region:  rx ring | tx ring | ... 1 MiB: rx buffers, 2112 bytes apart | tx buffers, as far apart as frames are long
//! ```
//!
//! What must stay true:
//! * A descriptor is the driver's or the device's: it is given out from `free`, and comes back by the used ring.
//! * No system call while it runs, but a kick when the device asks for one.
//! * An unknown head in a used ring is an error, not an index.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering, fence};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost_frontend::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost_frontend::vhost_user::{Frontend, VhostUserFrontend};
use vhost_frontend::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileArrayRef, VolatileMemory, VolatileSlice};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::ringpeer::{bits, connect, header::LENGTH};

/// Descriptors of each ring.
const ENTRIES: u16 = 1024;

/// Where things lie in a ring's part of the region, and how long that part is.
const AVAILABLE: usize = 0x4000;
const USED: usize = 0x5000;
const RING: usize = 0x8000;

/// Where buffers begin.
const RX_BUFFERS: usize = 1 << 20;

/// From one receive buffer to the next: not a power of two, so that their first lines do not share sets of the cache.
const RX_STRIDE: usize = 2112;
const RX_LENGTH: u32 = 2048;

/// Bytes of a NIC's memory: a multiple of a huge page.
const REGION: usize = 8 << 20;

/// What the guest and the messages call the region's first byte.
const GUEST: u64 = 1 << 30;
const USER: u64 = 0x7000_0000_0000;

/// VHOST_USER_F_PROTOCOL_FEATURES.
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// VRING_USED_F_NO_NOTIFY and VRING_AVAIL_F_NO_INTERRUPT.
const UNWANTED: u16 = 1;

const RX: usize = 0;
const TX: usize = 1;

/// A NIC's memory, which outlives it.
pub(super) struct Region {
    map: MmapRegion,
    file: File,
}

impl Region {
    /// On huge pages, or ordinary ones where the machine has none to spare.
    pub(super) fn new(huge: bool) -> Result<Region> {
        let flags = if huge { MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { MemfdFlags::empty() };
        let file = File::from(memfd_create("generator", MemfdFlags::CLOEXEC | flags)?);
        ftruncate(&file, REGION as u64)?;
        let map = MmapRegion::from_file(FileOffset::new(file.try_clone()?, 0), REGION)?;
        Ok(Region { map, file })
    }
}

/// One ring's parts.
struct Ring<'a> {
    descriptors: VolatileArrayRef<'a, [u64; 2]>,
    available: VolatileArrayRef<'a, u16>,
    available_index: &'a AtomicU16,
    used: VolatileArrayRef<'a, [u32; 2]>,
    used_flags: &'a AtomicU16,
    used_index: &'a AtomicU16,
    next_available: u16,
    next_used: u16,
    kick: EventFd,
    call: EventFd,
}

impl<'a> Ring<'a> {
    fn new(region: &'a Region, number: usize) -> Result<Ring<'a>> {
        let map = &region.map;
        let (start, entries) = (number * RING, usize::from(ENTRIES));
        map.get_atomic_ref::<AtomicU16>(start + AVAILABLE)?.store(UNWANTED, Ordering::Relaxed);
        Ok(Ring {
            descriptors: map.get_array_ref(start, entries)?,
            available: map.get_array_ref(start + AVAILABLE + 4, entries)?,
            available_index: map.get_atomic_ref(start + AVAILABLE + 2)?,
            used: map.get_array_ref(start + USED + 4, entries)?,
            used_flags: map.get_atomic_ref(start + USED)?,
            used_index: map.get_atomic_ref(start + USED + 2)?,
            next_available: 0,
            next_used: 0,
            kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            call: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    fn describe(&self, index: u16, offset: usize, length: u32, flags: u32) {
        let second = u64::from(length.to_le()) | u64::from(flags.to_le()) << 32;
        self.descriptors.store(usize::from(index), [(GUEST + offset as u64).to_le(), second]);
    }

    fn offer(&mut self, head: u16) {
        self.available.store(usize::from(self.next_available % ENTRIES), head.to_le());
        self.next_available = self.next_available.wrapping_add(1);
    }

    fn publish(&mut self) -> Result<()> {
        self.available_index.store(self.next_available.to_le(), Ordering::Release);
        fence(Ordering::SeqCst);
        if u16::from_le(self.used_flags.load(Ordering::Relaxed)) & UNWANTED == 0 {
            self.kick.write(1)?;
        }
        Ok(())
    }

    /// How many heads have come back.
    fn returned(&self) -> u16 {
        u16::from_le(self.used_index.load(Ordering::Acquire)).wrapping_sub(self.next_used)
    }

    /// The next of them, with its length.
    fn take(&mut self) -> Result<(u16, u32)> {
        let [id, length] = self.used.load(usize::from(self.next_used % ENTRIES));
        self.next_used = self.next_used.wrapping_add(1);
        let head = u16::try_from(u32::from_le(id)).ok().filter(|head| *head < ENTRIES);
        Ok((head.context("the device gave back a head that there is not")?, u32::from_le(length)))
    }

    fn config(number: usize) -> VringConfigData {
        let start = USER + (number * RING) as u64;
        VringConfigData {
            queue_max_size: ENTRIES,
            queue_size: ENTRIES,
            flags: 0,
            desc_table_addr: start,
            avail_ring_addr: start + AVAILABLE as u64,
            used_ring_addr: start + USED as u64,
            log_addr: None,
        }
    }
}

/// An attached NIC.
pub(super) struct Nic<'a> {
    rx: Ring<'a>,
    tx: Ring<'a>,
    buffers: VolatileSlice<'a>,
    tx_stride: usize,
    free: VecDeque<u16>,
    /// The connection, which is the device's reason to serve the rings.
    _frontend: Frontend,
}

impl<'a> Nic<'a> {
    /// Attaches to who listens on `socket`. Every transmit buffer holds `frame`, if there is one.
    pub(super) fn attach(region: &'a Region, socket: &Path, frame: Option<&[u8]>) -> Result<Nic<'a>> {
        let (mut rx, tx) = (Ring::new(region, RX)?, Ring::new(region, TX)?);
        let buffers = region.map.get_slice(RX_BUFFERS, REGION - RX_BUFFERS)?;
        let bytes = [&[0; LENGTH][..], frame.unwrap_or_default()].concat();
        let tx_start = usize::from(ENTRIES) * RX_STRIDE;
        // One line more than an even number of them: see above.
        let tx_stride = bytes.len().next_multiple_of(128) + 64;
        for index in 0..ENTRIES {
            rx.describe(index, RX_BUFFERS + usize::from(index) * RX_STRIDE, RX_LENGTH, VRING_DESC_F_WRITE);
            rx.offer(index);
            let buffer = tx_start + usize::from(index) * tx_stride;
            buffers.write_slice(&bytes, buffer)?;
            tx.describe(index, RX_BUFFERS + buffer, u32::try_from(bytes.len())?, 0);
        }
        rx.available_index.store(rx.next_available.to_le(), Ordering::Release);
        let frontend = set_up(region, connect(socket)?, [&rx, &tx])?;
        let buffers = buffers.subslice(0, tx_start + usize::from(ENTRIES) * tx_stride)?;
        Ok(Nic { rx, tx, buffers, tx_stride, free: (0..ENTRIES).collect(), _frontend: frontend })
    }

    /// Sends up to `count` frames, each after `patch` had its way with the bytes behind the virtio-net header; how many there was room for.
    pub(super) fn send(&mut self, count: usize, mut patch: impl FnMut(&VolatileSlice<'_>)) -> Result<usize> {
        if self.free.len() < count {
            self.reclaim()?;
        }
        let count = count.min(self.free.len());
        for _ in 0..count {
            let head = self.free.pop_front().context("no free descriptor")?;
            let start = usize::from(ENTRIES) * RX_STRIDE + usize::from(head) * self.tx_stride + LENGTH;
            patch(&self.buffers.subslice(start, self.tx_stride - LENGTH)?);
            self.tx.offer(head);
        }
        if count > 0 {
            self.tx.publish()?;
        }
        Ok(count)
    }

    /// Takes up to 64 frames that have arrived, lets `look` see each with its length, and gives the buffers back.
    pub(super) fn receive(&mut self, mut look: impl FnMut(&VolatileSlice<'_>, usize)) -> Result<usize> {
        let count = self.rx.returned().min(64);
        for _ in 0..count {
            let (head, length) = self.rx.take()?;
            let length = (length as usize).min(RX_LENGTH as usize).saturating_sub(LENGTH);
            look(
                &self
                    .buffers
                    .subslice(usize::from(head) * RX_STRIDE + LENGTH, RX_LENGTH as usize - LENGTH)?,
                length,
            );
            self.rx.offer(head);
        }
        if count > 0 {
            self.rx.publish()?;
        }
        Ok(usize::from(count))
    }

    fn reclaim(&mut self) -> Result<()> {
        for _ in 0..self.tx.returned() {
            let (head, _) = self.tx.take()?;
            ensure!(self.free.len() < usize::from(ENTRIES), "the device gave back what it did not have");
            self.free.push_back(head);
        }
        Ok(())
    }
}

/// Features, memory and rings, in the order in which DPDK's virtio-user says it.
fn set_up(region: &Region, stream: UnixStream, rings: [&Ring<'_>; 2]) -> Result<Frontend> {
    const LIMIT: Duration = Duration::from_secs(10);
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut frontend = Frontend::from_stream(stream, 2);
    frontend.set_owner()?;
    let wanted = bits(&[VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF]) | PROTOCOL_FEATURES;
    let offered = frontend.get_features()?;
    ensure!(wanted & !offered == 0, "features {:#x} are not offered", wanted & !offered);
    frontend.set_features(wanted)?;
    let useful = VhostUserProtocolFeatures::REPLY_ACK & frontend.get_protocol_features()?;
    frontend.set_protocol_features(useful)?;
    if useful.contains(VhostUserProtocolFeatures::REPLY_ACK) {
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }
    frontend.set_mem_table(&[VhostUserMemoryRegionInfo {
        guest_phys_addr: GUEST,
        memory_size: REGION as u64,
        userspace_addr: USER,
        mmap_offset: 0,
        mmap_handle: region.file.as_raw_fd(),
    }])?;
    for (index, ring) in rings.iter().enumerate() {
        frontend.set_vring_num(index, ENTRIES)?;
        frontend.set_vring_base(index, 0)?;
        frontend.set_vring_addr(index, &Ring::config(index))?;
        frontend.set_vring_call(index, &ring.call)?;
        frontend.set_vring_kick(index, &ring.kick)?;
    }
    for index in [RX, TX] {
        frontend.set_vring_enable(index, true)?;
    }
    rings.iter().try_for_each(|ring| ring.kick.write(1))?;
    Ok(frontend)
}
