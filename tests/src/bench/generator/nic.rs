//! A NIC of the generator: memory, and pairs of a receive ring and a transmit ring, driven by polling (virtio 1.2, section 2.7).
//!
//! ```text
//!   region:  rx ring | tx ring | ... 1 MiB: rx buffers, 2112 bytes apart | tx buffers, as far apart as frames are long | the next pair's
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

/// Descriptors of a ring, at most.
const MOST_ENTRIES: usize = 1024;

/// Where things lie in a ring's part of the region, and how long that part is.
const AVAILABLE: usize = 0x4000;
const USED: usize = 0x5000;
const RING: usize = 0x8000;

/// Where buffers begin.
const RX_BUFFERS: usize = 1 << 20;

/// From one receive buffer to the next: not a power of two, so that their first lines do not share sets of the cache.
const RX_STRIDE: usize = 2112;
const RX_LENGTH: u32 = 2048;

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// From one transmit buffer to the next, at most.
const MOST_TX_STRIDE: usize = 2112;

/// What a NIC is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Of rings.
    pub(super) pairs: usize,
    /// Of each ring.
    pub(super) entries: u16,
    /// Pages that its rings lie behind the region's first byte: guests' rings do not all lie at the same place of a huge page, whose lines
    /// would share sets of the cache.
    pub(super) pages: usize,
}

impl Shape {
    /// One pair, of large rings.
    pub(super) const SINGLE: Shape = Shape { pairs: 1, entries: 1024, pages: 0 };

    /// Where a ring begins.
    fn ring(self, number: usize) -> usize {
        // A page more for each pair, for the same reason.
        number * RING + (number / 2 + self.pages) * 4096
    }

    /// Where the buffers of a pair begin.
    fn buffers(self, pair: usize) -> usize {
        RX_BUFFERS + pair * usize::from(self.entries) * (RX_STRIDE + MOST_TX_STRIDE)
    }

    /// Bytes of a NIC's memory: a multiple of a huge page.
    fn bytes(self) -> usize {
        self.buffers(self.pairs).next_multiple_of(HUGE)
    }
}

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
    shape: Shape,
}

impl Region {
    /// On huge pages, or ordinary ones where the machine has none to spare.
    pub(super) fn new(shape: Shape, huge: bool) -> Result<Region> {
        let flags = if huge { MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { MemfdFlags::empty() };
        let file = File::from(memfd_create("generator", MemfdFlags::CLOEXEC | flags)?);
        ensure!(usize::from(shape.entries) <= MOST_ENTRIES, "rings of {} entries", shape.entries);
        ensure!(shape.ring(2 * shape.pairs) <= RX_BUFFERS, "{} pairs do not fit", shape.pairs);
        ftruncate(&file, shape.bytes() as u64)?;
        let map = MmapRegion::from_file(FileOffset::new(file.try_clone()?, 0), shape.bytes())?;
        Ok(Region { map, file, shape })
    }
}

/// One ring's parts.
struct Ring<'a> {
    start: usize,
    entries: u16,
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
        let start = region.shape.ring(number);
        let entries = usize::from(region.shape.entries);
        map.get_atomic_ref::<AtomicU16>(start + AVAILABLE)?.store(UNWANTED, Ordering::Relaxed);
        Ok(Ring {
            start,
            entries: region.shape.entries,
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
        self.available.store(usize::from(self.next_available % self.entries), head.to_le());
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
        let [id, length] = self.used.load(usize::from(self.next_used % self.entries));
        self.next_used = self.next_used.wrapping_add(1);
        let head = u16::try_from(u32::from_le(id)).ok().filter(|head| *head < self.entries);
        Ok((head.context("the device gave back a head that there is not")?, u32::from_le(length)))
    }

    fn config(&self) -> VringConfigData {
        let start = USER + self.start as u64;
        VringConfigData {
            queue_max_size: self.entries,
            queue_size: self.entries,
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
    pub(super) pairs: Vec<Pair<'a>>,
    /// The connection, which is the device's reason to serve the rings.
    _frontend: Frontend,
}

impl<'a> Nic<'a> {
    /// Attaches to who listens on `socket`. The transmit buffers of pair `n` hold `frames[n]`, if there are any: 32 the first, 32 the next.
    pub(super) fn attach(region: &'a Region, socket: &Path, frames: &[Vec<Vec<u8>>]) -> Result<Nic<'a>> {
        let frames = |number| frames.get(number).map_or(&[][..], Vec::as_slice);
        let pair = |number: usize| Pair::new(region, number, frames(number));
        let pairs = (0..region.shape.pairs).map(pair).collect::<Result<Vec<_>>>()?;
        let rings: Vec<&Ring<'_>> = pairs.iter().flat_map(|pair| [&pair.rx, &pair.tx]).collect();
        let frontend = set_up(region, connect(socket)?, &rings)?;
        Ok(Nic { pairs, _frontend: frontend })
    }

    /// The pair of a NIC that has one.
    pub(super) fn only(&mut self) -> Result<&mut Pair<'a>> {
        self.pairs.first_mut().context("a NIC without rings")
    }
}

/// A receive ring and a transmit ring, and their buffers.
pub(super) struct Pair<'a> {
    rx: Ring<'a>,
    tx: Ring<'a>,
    buffers: VolatileSlice<'a>,
    tx_start: usize,
    tx_stride: usize,
    free: VecDeque<u16>,
}

impl<'a> Pair<'a> {
    fn new(region: &'a Region, number: usize, frames: &[Vec<u8>]) -> Result<Pair<'a>> {
        let (mut rx, tx) = (Ring::new(region, 2 * number + RX)?, Ring::new(region, 2 * number + TX)?);
        let shape = region.shape;
        let (entries, first) = (usize::from(shape.entries), shape.buffers(number));
        let headed = |frame: &Vec<u8>| [&[0; LENGTH][..], frame].concat();
        let frames: Vec<Vec<u8>> = frames.iter().map(headed).collect();
        let longest = frames.iter().map(Vec::len).max().unwrap_or(LENGTH);
        let tx_start = entries * RX_STRIDE;
        // One line more than an even number of them: see above.
        let tx_stride = longest.next_multiple_of(128) + 64;
        ensure!(tx_stride <= MOST_TX_STRIDE, "frames of {longest} bytes do not fit");
        let buffers = region.map.get_slice(first, tx_start + entries * tx_stride)?;
        for index in 0..shape.entries {
            rx.describe(index, first + usize::from(index) * RX_STRIDE, RX_LENGTH, VRING_DESC_F_WRITE);
            rx.offer(index);
            let buffer = tx_start + usize::from(index) * tx_stride;
            let Some(frame) = frames.get(usize::from(index) / 32 % frames.len().max(1)) else { continue };
            buffers.write_slice(frame, buffer)?;
            tx.describe(index, first + buffer, u32::try_from(frame.len())?, 0);
        }
        rx.available_index.store(rx.next_available.to_le(), Ordering::Release);
        Ok(Pair { rx, tx, buffers, tx_start, tx_stride, free: (0..shape.entries).collect() })
    }

    /// Sends up to `count` frames, each after `patch` had its way with the bytes behind the virtio-net header; how many there was room for.
    pub(super) fn send(&mut self, count: usize, mut patch: impl FnMut(&VolatileSlice<'_>)) -> Result<usize> {
        if self.free.len() < count {
            self.reclaim()?;
        }
        let count = count.min(self.free.len());
        for _ in 0..count {
            let head = self.free.pop_front().context("no free descriptor")?;
            let start = self.tx_start + usize::from(head) * self.tx_stride + LENGTH;
            patch(&self.buffers.subslice(start, self.tx_stride - LENGTH)?);
            self.tx.offer(head);
        }
        if count > 0 {
            self.tx.publish()?;
        }
        Ok(count)
    }

    /// Takes up to 64 frames that have arrived, lets `look` see each with its length, and gives the buffers back.
    pub(super) fn receive(&mut self, look: impl FnMut(&VolatileSlice<'_>, usize)) -> Result<usize> {
        self.receive_at_most(64, look)
    }

    /// The same of up to so many.
    pub(super) fn receive_at_most(
        &mut self,
        most: u16,
        mut look: impl FnMut(&VolatileSlice<'_>, usize),
    ) -> Result<usize> {
        let count = self.rx.returned().min(most);
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
            ensure!(
                self.free.len() < usize::from(self.tx.entries),
                "the device gave back what it did not have"
            );
            self.free.push_back(head);
        }
        Ok(())
    }
}

/// Features, memory and rings, in the order in which DPDK's virtio-user says it.
fn set_up(region: &Region, stream: UnixStream, rings: &[&Ring<'_>]) -> Result<Frontend> {
    const LIMIT: Duration = Duration::from_secs(10);
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut frontend = Frontend::from_stream(stream, rings.len() as u64);
    frontend.set_owner()?;
    let wanted = bits(&[VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF]) | PROTOCOL_FEATURES;
    let offered = frontend.get_features()?;
    ensure!(wanted & !offered == 0, "features {:#x} are not offered", wanted & !offered);
    frontend.set_features(wanted)?;
    let several =
        if rings.len() > 2 { VhostUserProtocolFeatures::MQ } else { VhostUserProtocolFeatures::empty() };
    let useful = (VhostUserProtocolFeatures::REPLY_ACK | several) & frontend.get_protocol_features()?;
    frontend.set_protocol_features(useful)?;
    if useful.contains(VhostUserProtocolFeatures::REPLY_ACK) {
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }
    frontend.set_mem_table(&[VhostUserMemoryRegionInfo {
        guest_phys_addr: GUEST,
        memory_size: region.shape.bytes() as u64,
        userspace_addr: USER,
        mmap_offset: 0,
        mmap_handle: region.file.as_raw_fd(),
    }])?;
    for (index, ring) in rings.iter().enumerate() {
        frontend.set_vring_num(index, ring.entries)?;
        frontend.set_vring_base(index, 0)?;
        frontend.set_vring_addr(index, &ring.config())?;
        frontend.set_vring_call(index, &ring.call)?;
        frontend.set_vring_kick(index, &ring.kick)?;
    }
    for index in 0..rings.len() {
        frontend.set_vring_enable(index, true)?;
    }
    rings.iter().try_for_each(|ring| ring.kick.write(1))?;
    Ok(frontend)
}
