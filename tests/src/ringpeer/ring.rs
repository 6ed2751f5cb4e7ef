//! A split virtqueue from the driver's side (virtio 1.2, section 2.7).
//!
//! ```text
//!   add ──> descriptors (linked, or one to a table) ──> available ring ──> publish: index, then a kick if wanted
//!   take_used <── used ring <── the device                                 call: awaited by the owner
//! ```
//!
//! What must stay true: a descriptor is free, or belongs to exactly one head that the device has not given back.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use anyhow::{Context, Result, bail, ensure};
use vhost_frontend::VringConfigData;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::memory::{Memory, user};

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

/// One ring.
pub struct Ring {
    memory: Arc<GuestMemoryMmap>,
    size: u16,
    descriptors: GuestAddress,
    available: GuestAddress,
    used: GuestAddress,
    free: Vec<u16>,
    /// Per head: the descriptors it holds while the device has it.
    held: Vec<Option<Vec<u16>>>,
    next_available: u16,
    published: u16,
    next_used: u16,
    event_idx: bool,
    /// Written by us: there is something in the available ring.
    pub kick: EventFd,
    /// Written by the device: there is something in the used ring.
    pub call: EventFd,
}

impl Ring {
    /// An empty ring of `size` descriptors, a power of two.
    ///
    /// # Errors
    ///
    /// Fails when there is no room in `memory`.
    pub fn new(memory: &mut Memory, size: u16, event_idx: bool) -> Result<Ring> {
        ensure!(size.is_power_of_two(), "a split ring's size is a power of two");
        let entries = u64::from(size);
        Ok(Ring {
            descriptors: memory.for_ring(entries * DESCRIPTOR)?,
            available: memory.for_ring(6 + 2 * entries)?,
            used: memory.for_ring(6 + 8 * entries)?,
            memory: memory.map.clone(),
            size,
            free: (0..size).rev().collect(),
            held: (0..size).map(|_| None).collect(),
            next_available: 0,
            published: 0,
            next_used: 0,
            event_idx,
            kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            call: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Its place, as SET_VRING_ADDR tells it.
    pub fn config(&self) -> VringConfigData {
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: user(self.descriptors),
            used_ring_addr: user(self.used),
            avail_ring_addr: user(self.available),
            log_addr: None,
        }
    }

    /// The guest-physical address of descriptor `index`, for those who write what no driver would.
    pub fn descriptor(&self, index: u16) -> GuestAddress {
        self.descriptors.unchecked_add(u64::from(index) * DESCRIPTOR)
    }

    /// As [`Ring::config`], with VHOST_VRING_F_LOG: its used ring is logged where it lies.
    pub fn logged_config(&self) -> VringConfigData {
        VringConfigData { flags: 1, log_addr: Some(self.used.0), ..self.config() }
    }

    /// Where the device writes: the used ring, as address and bytes.
    pub fn used_part(&self) -> (GuestAddress, u64) {
        (self.used, 6 + 8 * u64::from(self.size))
    }

    /// The available ring, which only the driver writes.
    pub fn driver_area(&self) -> std::ops::Range<u64> {
        self.available.0..self.available.0 + 6 + 2 * u64::from(self.size)
    }

    /// The used index in memory: where a device that knows nothing goes on.
    ///
    /// # Errors
    ///
    /// Fails when the ring is not in guest memory; it is.
    pub fn used_index(&self) -> Result<u16> {
        let index: u16 = self.memory.load(self.used.unchecked_add(2), Ordering::Acquire)?;
        Ok(u16::from_le(index))
    }

    /// The available index in memory: what the driver has published so far.
    ///
    /// # Errors
    ///
    /// As [`Ring::used_index`].
    pub fn available_index(&self) -> Result<u16> {
        let index: u16 = self.memory.load(self.available.unchecked_add(2), Ordering::Acquire)?;
        Ok(u16::from_le(index))
    }

    /// How many descriptors are free.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Puts a chain of `parts` into the available ring, and returns its head. The device sees it after [`Ring::publish`].
    ///
    /// # Errors
    ///
    /// Fails when descriptors are lacking.
    pub fn add(&mut self, parts: &[Part]) -> Result<u16> {
        ensure!(!parts.is_empty() && parts.len() <= self.free.len(), "no room in the ring");
        let held = self.free.split_off(self.free.len() - parts.len());
        for (index, part) in parts.iter().enumerate() {
            let next = held.get(index + 1).copied();
            self.write_descriptor(self.descriptor(held[index]), *part, next)?;
        }
        self.offer(held)
    }

    /// As [`Ring::add`], by one descriptor that refers to a table written at `table`.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn add_indirect(&mut self, parts: &[Part], table: GuestAddress) -> Result<u16> {
        let count = u16::try_from(parts.len())?;
        for (index, part) in (0..count).zip(parts) {
            let next = (index + 1 < count).then_some(index + 1);
            self.write_descriptor(table.unchecked_add(u64::from(index) * DESCRIPTOR), *part, next)?;
        }
        let head = self.free.pop().context("no room in the ring")?;
        let bytes = u32::from(count) * 16;
        self.write_raw(self.descriptor(head), table.0, bytes, VRING_DESC_F_INDIRECT, 0)?;
        self.offer(vec![head])
    }

    /// Writes a descriptor with any content whatsoever.
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
        self.memory.write_obj(address.to_le(), at)?;
        self.memory.write_obj(length.to_le(), at.unchecked_add(8))?;
        self.memory.write_obj(u16::try_from(flags)?.to_le(), at.unchecked_add(12))?;
        Ok(self.memory.write_obj(next.to_le(), at.unchecked_add(14))?)
    }

    /// Offers `head` whatever its descriptors say; it is lost to the ring.
    ///
    /// # Errors
    ///
    /// Fails when the ring is not in guest memory; it is.
    pub fn offer_raw(&mut self, head: u16) -> Result<()> {
        let entry = 4 + 2 * u64::from(self.next_available % self.size);
        self.memory.write_obj(head.to_le(), self.available.unchecked_add(entry))?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(())
    }

    /// Makes nothing available, as if nothing had been offered; for a ring that no device has seen.
    pub fn rewind(&mut self) {
        (self.next_available, self.published) = (0, 0);
    }

    /// Lets the available index jump by `distance` without entries; seen after [`Ring::publish`].
    pub fn skip(&mut self, distance: u16) {
        self.next_available = self.next_available.wrapping_add(distance);
    }

    /// Shows the device all that was added, and kicks it if it wants to be kicked.
    ///
    /// # Errors
    ///
    /// Fails when the kick does.
    pub fn publish(&mut self) -> Result<()> {
        let old = std::mem::replace(&mut self.published, self.next_available);
        self.memory.store(self.next_available.to_le(), self.available.unchecked_add(2), Ordering::Release)?;
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let event: u16 =
                self.memory.load(self.used.unchecked_add(4 + 8 * u64::from(self.size)), Ordering::Acquire)?;
            let event = u16::from_le(event);
            self.next_available.wrapping_sub(event).wrapping_sub(1) < self.next_available.wrapping_sub(old)
        } else {
            let flags: u16 = self.memory.load(self.used, Ordering::Acquire)?;
            u16::from_le(flags) & 1 == 0
        };
        if wanted {
            self.kick.write(1)?;
        }
        Ok(())
    }

    /// The next chain that the device gave back, with the number of bytes it says it wrote.
    ///
    /// # Errors
    ///
    /// Fails when it gives back what it does not have.
    pub fn take_used(&mut self) -> Result<Option<(u16, u32)>> {
        let ahead = self.used_index()?.wrapping_sub(self.next_used);
        ensure!(ahead <= self.size, "the used index ran ahead by {ahead}");
        if ahead == 0 {
            return Ok(None);
        }
        let at = self.used.unchecked_add(4 + 8 * u64::from(self.next_used % self.size));
        let id = u32::from_le(self.memory.read_obj(at)?);
        let length = u32::from_le(self.memory.read_obj(at.unchecked_add(4))?);
        let head = u16::try_from(id)?;
        let Some(held) = self.held.get_mut(usize::from(head)).and_then(Option::take) else {
            bail!("head {id} was given back, but the device did not have it");
        };
        self.free.extend(held);
        self.next_used = self.next_used.wrapping_add(1);
        if self.event_idx {
            // Call again for the very next one.
            let event = self.available.unchecked_add(4 + 2 * u64::from(self.size));
            self.memory.store(self.next_used.to_le(), event, Ordering::Release)?;
            fence(Ordering::SeqCst);
        }
        Ok(Some((head, length)))
    }

    fn offer(&mut self, held: Vec<u16>) -> Result<u16> {
        let head = *held.first().context("an empty chain")?;
        self.held[usize::from(head)] = Some(held);
        self.offer_raw(head)?;
        Ok(head)
    }

    fn write_descriptor(&self, at: GuestAddress, part: Part, next: Option<u16>) -> Result<()> {
        let write = if part.writable { VRING_DESC_F_WRITE } else { 0 };
        let link = if next.is_some() { VRING_DESC_F_NEXT } else { 0 };
        self.write_raw(at, part.address.0, part.length, write | link, next.unwrap_or(0))
    }
}
