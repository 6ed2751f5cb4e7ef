//! A virtqueue from the driver's side (virtio 1.2, sections 2.7 and 2.8).
//!
//! ```text
//!   add ──> descriptors, not shown yet ──> publish: shown, then a kick if one is wanted
//!   take_used <── what the device gave back                    call: awaited by the owner
//!
//!   split.rs   three parts and their indices       packed.rs   one table, and what each side wants to be told of
//! ```
//!
//! What must stay true: a descriptor is free, or belongs to exactly one chain that the device has not given back. It shares no code with the
//! device.

mod packed;
mod split;

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use vhost_frontend::VringConfigData;
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED};
use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::memory::{Memory, user};
use packed::Packed;
use split::Split;

/// Bytes of a descriptor.
pub const DESCRIPTOR: u64 = 16;

/// A part of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it lies.
    pub address: GuestAddress,
    /// Its bytes.
    pub length: u32,
    /// Whether the device writes it.
    pub writable: bool,
}

impl Part {
    fn flags(&self) -> u32 {
        if self.writable { VRING_DESC_F_WRITE } else { 0 }
    }
}

/// A descriptor with any content whatsoever: address, length, flags, and next (of a split ring) or id (of a packed one).
pub type Raw = (u64, u32, u32, u16);

/// One ring.
pub struct Ring {
    places: Places,
    kind: Kind,
    /// Per id: what the chain that carries it, or carried it last, is made of.
    parts: Vec<Vec<Part>>,
    /// With IN_ORDER: the ids that the device has, oldest first.
    order: Option<VecDeque<u16>>,
    /// Given back, and not asked for yet: with IN_ORDER one used descriptor says it of several chains.
    back: VecDeque<(u16, u32)>,
    /// Written by us: there is something available.
    pub kick: EventFd,
    /// Written by the device: there is something used.
    pub call: EventFd,
}

/// Where a ring lies, and what was negotiated of it.
struct Places {
    memory: Arc<GuestMemoryMmap>,
    size: u16,
    descriptors: GuestAddress,
    /// The available ring, or the driver's event suppression.
    driver: (GuestAddress, u64),
    /// The used ring, or the device's event suppression.
    device: (GuestAddress, u64),
    event_idx: bool,
}

impl Places {
    fn descriptor(&self, index: u16) -> GuestAddress {
        self.descriptors.unchecked_add(u64::from(index) * DESCRIPTOR)
    }

    /// Address and length of a descriptor.
    fn write_buffer(&self, at: GuestAddress, address: u64, length: u32) -> Result<()> {
        self.memory.write_obj(address.to_le(), at)?;
        Ok(self.memory.write_obj(length.to_le(), at.unchecked_add(8))?)
    }
}

enum Kind {
    Split(Split),
    Packed(Packed),
}

impl Ring {
    /// An empty ring of `size` descriptors, as these features have it: EVENT_IDX, RING_PACKED and IN_ORDER.
    ///
    /// # Errors
    ///
    /// Fails when there is no room in `memory`, or the size is none of a split ring.
    pub fn new(memory: &mut Memory, size: u16, features: u64) -> Result<Ring> {
        let has = |bit: u32| features & 1 << bit != 0;
        let entries = u64::from(size);
        let packed = has(VIRTIO_F_RING_PACKED);
        ensure!(packed || size.is_power_of_two(), "a split ring's size is a power of two");
        let (driver, device) = if packed { (4, 4) } else { (6 + 2 * entries, 6 + 8 * entries) };
        Ok(Ring {
            places: Places {
                descriptors: memory.for_ring(entries * DESCRIPTOR)?,
                driver: (memory.for_ring(driver)?, driver),
                device: (memory.for_ring(device)?, device),
                memory: memory.map.clone(),
                size,
                event_idx: has(VIRTIO_RING_F_EVENT_IDX),
            },
            kind: if packed { Kind::Packed(Packed::new(size)) } else { Kind::Split(Split::new(size)) },
            parts: vec![Vec::new(); usize::from(size)],
            order: has(VIRTIO_F_IN_ORDER).then(VecDeque::new),
            back: VecDeque::new(),
            kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            call: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Its place, as SET_VRING_ADDR tells it.
    pub fn config(&self) -> VringConfigData {
        VringConfigData {
            queue_max_size: self.places.size,
            queue_size: self.places.size,
            flags: 0,
            desc_table_addr: user(self.places.descriptors),
            used_ring_addr: user(self.places.device.0),
            avail_ring_addr: user(self.places.driver.0),
            log_addr: None,
        }
    }

    /// As [`Ring::config`], with VHOST_VRING_F_LOG: its device area is logged where it lies.
    pub fn logged_config(&self) -> VringConfigData {
        VringConfigData { flags: 1, log_addr: Some(self.places.device.0.0), ..self.config() }
    }

    /// Where a front-end says that the ring begins: a split one at its used index; a packed one where it was stopped last in order, which is
    /// its beginning if it never was, though a daemon was killed meanwhile.
    ///
    /// # Errors
    ///
    /// Fails when the ring is not in guest memory; it is.
    pub fn base(&self) -> Result<u16> {
        match &self.kind {
            Kind::Split(_) => self.used_index(),
            Kind::Packed(packed) => Ok(packed.base),
        }
    }

    /// The daemon has said that the ring stopped at `base`.
    pub fn stopped_at(&mut self, base: u32) {
        if let Kind::Packed(packed) = &mut self.kind {
            packed.base = base as u16;
        }
    }

    /// The guest-physical address of descriptor `index`, for those who write what no driver would.
    pub fn descriptor(&self, index: u16) -> GuestAddress {
        self.places.descriptor(index)
    }

    /// How many descriptors it has.
    pub fn size(&self) -> u16 {
        self.places.size
    }

    /// Where the device writes, as addresses and bytes: the used ring; or, of a packed ring, the second half of each descriptor, and the
    /// device's event suppression.
    pub fn written_by_the_device(&self) -> Vec<(GuestAddress, u64)> {
        let used = match &self.kind {
            Kind::Split(_) => vec![],
            Kind::Packed(_) => (0..self.size()).map(|at| (self.descriptor(at).unchecked_add(8), 8)).collect(),
        };
        [used, vec![self.places.device]].concat()
    }

    /// The available ring, or the driver's event suppression: only the driver writes it.
    pub fn driver_area(&self) -> std::ops::Range<u64> {
        let (start, bytes) = self.places.driver;
        start.0..start.0 + bytes
    }

    /// The used ring, or the device's event suppression.
    pub fn device_area(&self) -> GuestAddress {
        self.places.device.0
    }

    /// Of a split ring, the used index in memory: where a device that knows nothing goes on.
    ///
    /// # Errors
    ///
    /// Fails when it is a packed ring.
    pub fn used_index(&self) -> Result<u16> {
        self.split()?.used_index(&self.places)
    }

    /// Of a split ring, the available index in memory: what the driver has published so far.
    ///
    /// # Errors
    ///
    /// As [`Ring::used_index`].
    pub fn available_index(&self) -> Result<u16> {
        self.split()?.available_index(&self.places)
    }

    fn split(&self) -> Result<&Split> {
        match &self.kind {
            Kind::Split(split) => Ok(split),
            Kind::Packed(_) => bail!("a packed ring has no indices"),
        }
    }

    /// Whether it is a packed ring.
    pub fn is_packed(&self) -> bool {
        matches!(self.kind, Kind::Packed(_))
    }

    /// How many descriptors are free.
    pub fn free(&self) -> usize {
        match &self.kind {
            Kind::Split(split) => split.free(),
            Kind::Packed(packed) => packed.free(),
        }
    }

    /// Puts a chain of `parts` into the ring, and returns its id: in a split ring its head. The device sees it after [`Ring::publish`].
    ///
    /// # Errors
    ///
    /// Fails when descriptors are lacking.
    pub fn add(&mut self, parts: &[Part]) -> Result<u16> {
        ensure!(!parts.is_empty() && parts.len() <= self.free(), "no room in the ring");
        let id = match &mut self.kind {
            Kind::Split(split) => split.add(&self.places, parts)?,
            Kind::Packed(packed) => packed.add(&self.places, parts)?,
        };
        self.remember(id, parts)
    }

    /// As [`Ring::add`], by one descriptor that refers to a table written at `table`.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn add_indirect(&mut self, parts: &[Part], table: GuestAddress) -> Result<u16> {
        let count = u16::try_from(parts.len())?;
        for (index, part) in (0..count).zip(parts) {
            // A packed ring's table has its entries in order, and no links (2.8.7).
            let next = (index + 1 < count && !self.is_packed()).then_some(index + 1);
            let link = if next.is_some() { VRING_DESC_F_NEXT } else { 0 };
            let at = table.unchecked_add(u64::from(index) * DESCRIPTOR);
            self.write_raw(at, part.address.0, part.length, part.flags() | link, next.unwrap_or(0))?;
        }
        ensure!(self.free() > 0, "no room in the ring");
        let whole = (table.0, u32::from(count) * 16, VRING_DESC_F_INDIRECT);
        let id = match &mut self.kind {
            Kind::Split(split) => split.add_table(&self.places, whole)?,
            Kind::Packed(packed) => packed.add_table(&self.places, whole)?,
        };
        self.remember(id, parts)
    }

    fn remember(&mut self, id: u16, parts: &[Part]) -> Result<u16> {
        let known = self.parts.get_mut(usize::from(id)).context("no such id")?;
        known.clear();
        known.extend_from_slice(parts);
        if let Some(order) = &mut self.order {
            order.push_back(id);
        }
        Ok(id)
    }

    /// What the chain that was given back as `id`, or was added last by that id, is made of.
    pub fn parts(&self, id: u16) -> &[Part] {
        self.parts.get(usize::from(id)).map_or(&[], Vec::as_slice)
    }

    /// Writes a descriptor with any content, at any place of guest memory; `next` is an id in a packed ring.
    ///
    /// # Errors
    ///
    /// Fails when `at` is not in guest memory.
    pub fn write_raw(
        &self,
        at: GuestAddress,
        address: u64,
        length: u32,
        flags: u32,
        next: u16,
    ) -> Result<()> {
        self.places.write_buffer(at, address, length)?;
        let (flags, next) = (u16::try_from(flags)?, next);
        let last = if self.is_packed() { [next, flags] } else { [flags, next] };
        Ok(self.places.memory.write_obj(last.map(u16::to_le), at.unchecked_add(12))?)
    }

    /// Offers `head` of a split ring whatever its descriptors say; it is lost to the ring.
    ///
    /// # Errors
    ///
    /// Fails when it is a packed ring.
    pub fn offer_raw(&mut self, head: u16) -> Result<()> {
        match &mut self.kind {
            Kind::Split(split) => split.offer(&self.places, head),
            Kind::Packed(_) => bail!("a packed ring has no heads"),
        }
    }

    /// Makes `descriptors` available in a packed ring, one behind the other, whatever they say; they are lost to the ring.
    ///
    /// # Errors
    ///
    /// Fails when it is a split ring.
    pub fn put_raw(&mut self, descriptors: &[Raw]) -> Result<()> {
        match &mut self.kind {
            Kind::Packed(packed) => {
                descriptors.iter().try_for_each(|descriptor| packed.put(&self.places, *descriptor))
            }
            Kind::Split(_) => bail!("a split ring's descriptors are offered by their heads"),
        }
    }

    /// Makes nothing available, as if nothing had been offered; for a ring that no device has seen.
    pub fn rewind(&mut self) {
        match &mut self.kind {
            Kind::Split(split) => split.rewind(),
            Kind::Packed(packed) => packed.rewind(),
        }
    }

    /// Lets the available index of a split ring jump by `distance` without entries; seen after [`Ring::publish`].
    ///
    /// # Errors
    ///
    /// Fails when it is a packed ring.
    pub fn skip(&mut self, distance: u16) -> Result<()> {
        match &mut self.kind {
            Kind::Split(split) => split.skip(distance),
            Kind::Packed(_) => bail!("a packed ring has no available index"),
        }
        Ok(())
    }

    /// Shows the device all that was added, and kicks it if it wants to be kicked.
    ///
    /// # Errors
    ///
    /// Fails when the kick does.
    pub fn publish(&mut self) -> Result<()> {
        let wanted = match &mut self.kind {
            Kind::Split(split) => split.publish(&self.places)?,
            Kind::Packed(packed) => packed.publish(&self.places)?,
        };
        if wanted {
            self.kick.write(1)?;
        }
        Ok(())
    }

    /// The next chain that the device gave back, with the number of bytes it says it wrote. Of those that it gives back by a later one's id,
    /// with IN_ORDER, that is all they have.
    ///
    /// # Errors
    ///
    /// Fails when it gives back what it does not have, or, with IN_ORDER, not in order.
    pub fn take_used(&mut self) -> Result<Option<(u16, u32)>> {
        if let Some(back) = self.back.pop_front() {
            return Ok(Some(back));
        }
        let used = match &self.kind {
            Kind::Split(split) => split.used(&self.places)?,
            Kind::Packed(packed) => packed.used(&self.places)?,
        };
        let Some((id, length)) = used else { return Ok(None) };
        if let Some(order) = &mut self.order {
            let place = order.iter().position(|other| *other == id);
            let place =
                place.with_context(|| format!("{id} was given back, but the device did not have it"))?;
            for skipped in order.drain(..=place).filter(|other| *other != id) {
                let parts = self.parts.get(usize::from(skipped)).map_or(&[][..], Vec::as_slice);
                let room = parts.iter().filter(|part| part.writable).map(|part| part.length).sum();
                self.back.push_back((skipped, room));
            }
        }
        self.back.push_back((id, length));
        let ids = self.back.iter().map(|(id, _)| *id);
        match &mut self.kind {
            Kind::Split(split) => split.take(&self.places, ids)?,
            Kind::Packed(packed) => packed.take(&self.places, ids)?,
        }
        Ok(self.back.pop_front())
    }
}
