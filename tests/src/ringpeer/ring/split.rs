//! Descriptors, available ring and used ring of a split virtqueue (virtio 1.2, 2.7).
//!
//! What must stay true: as in the module above; the used index is at most the ring's size ahead of what was taken.

use std::sync::atomic::{Ordering, fence};

use anyhow::{Context, Result, bail, ensure};
use virtio_bindings::virtio_ring::VRING_DESC_F_NEXT;
use vm_memory::{Address, Bytes};

use super::{Part, Places};

/// A driver's own books.
pub(super) struct Split {
    free: Vec<u16>,
    /// Per head: the descriptors it holds while the device has it.
    held: Vec<Option<Vec<u16>>>,
    next_available: u16,
    published: u16,
    next_used: u16,
}

impl Split {
    pub(super) fn new(size: u16) -> Split {
        Split {
            free: (0..size).rev().collect(),
            held: (0..size).map(|_| None).collect(),
            next_available: 0,
            published: 0,
            next_used: 0,
        }
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    pub(super) fn used_index(&self, at: &Places) -> Result<u16> {
        let index: u16 = at.memory.load(at.device.0.unchecked_add(2), Ordering::Acquire)?;
        Ok(u16::from_le(index))
    }

    pub(super) fn available_index(&self, at: &Places) -> Result<u16> {
        let index: u16 = at.memory.load(at.driver.0.unchecked_add(2), Ordering::Acquire)?;
        Ok(u16::from_le(index))
    }

    /// There are enough free descriptors.
    pub(super) fn add(&mut self, at: &Places, parts: &[Part]) -> Result<u16> {
        let held = self.free.split_off(self.free.len() - parts.len());
        for (index, part) in parts.iter().enumerate() {
            let next = held.get(index + 1).copied();
            let link = if next.is_some() { VRING_DESC_F_NEXT } else { 0 };
            let what = (part.address.0, part.length, part.flags() | link);
            write_descriptor(at, held[index], what, next.unwrap_or(0))?;
        }
        self.hold(at, held)
    }

    pub(super) fn add_table(&mut self, at: &Places, table: (u64, u32, u32)) -> Result<u16> {
        let head = self.free.pop().context("no room in the ring")?;
        write_descriptor(at, head, table, 0)?;
        self.hold(at, vec![head])
    }

    fn hold(&mut self, at: &Places, held: Vec<u16>) -> Result<u16> {
        let head = *held.first().context("an empty chain")?;
        self.held[usize::from(head)] = Some(held);
        self.offer(at, head)?;
        Ok(head)
    }

    pub(super) fn offer(&mut self, at: &Places, head: u16) -> Result<()> {
        let entry = 4 + 2 * u64::from(self.next_available % at.size);
        at.memory.write_obj(head.to_le(), at.driver.0.unchecked_add(entry))?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(())
    }

    pub(super) fn rewind(&mut self) {
        (self.next_available, self.published) = (0, 0);
    }

    pub(super) fn skip(&mut self, distance: u16) {
        self.next_available = self.next_available.wrapping_add(distance);
    }

    /// Whether the device wants a kick.
    pub(super) fn publish(&mut self, at: &Places) -> Result<bool> {
        let old = std::mem::replace(&mut self.published, self.next_available);
        at.memory.store(self.next_available.to_le(), at.driver.0.unchecked_add(2), Ordering::Release)?;
        fence(Ordering::SeqCst);
        if at.event_idx {
            let event = at.device.0.unchecked_add(4 + 8 * u64::from(at.size));
            let event = u16::from_le(at.memory.load(event, Ordering::Acquire)?);
            let passed = self.next_available.wrapping_sub(event).wrapping_sub(1);
            return Ok(passed < self.next_available.wrapping_sub(old));
        }
        let flags: u16 = at.memory.load(at.device.0, Ordering::Acquire)?;
        Ok(u16::from_le(flags) & 1 == 0)
    }

    /// The next used element; with IN_ORDER it may stand for those before it.
    pub(super) fn used(&self, at: &Places) -> Result<Option<(u16, u32)>> {
        let ahead = self.used_index(at)?.wrapping_sub(self.next_used);
        ensure!(ahead <= at.size, "the used index ran ahead by {ahead}");
        if ahead == 0 {
            return Ok(None);
        }
        let element = at.device.0.unchecked_add(4 + 8 * u64::from(self.next_used % at.size));
        let id = u32::from_le(at.memory.read_obj(element)?);
        let length = u32::from_le(at.memory.read_obj(element.unchecked_add(4))?);
        Ok(Some((u16::try_from(id)?, length)))
    }

    /// The chains of these heads are ours again.
    pub(super) fn take(&mut self, at: &Places, heads: impl Iterator<Item = u16>) -> Result<()> {
        for head in heads {
            let Some(held) = self.held.get_mut(usize::from(head)).and_then(Option::take) else {
                bail!("head {head} was given back, but the device did not have it");
            };
            self.free.extend(held);
            self.next_used = self.next_used.wrapping_add(1);
        }
        if at.event_idx {
            // Call again for the very next one.
            let event = at.driver.0.unchecked_add(4 + 2 * u64::from(at.size));
            at.memory.store(self.next_used.to_le(), event, Ordering::Release)?;
            fence(Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Writes descriptor `index`: address, length, flags, and what follows it.
fn write_descriptor(at: &Places, index: u16, what: (u64, u32, u32), next: u16) -> Result<()> {
    let (address, length, flags) = what;
    let descriptor = at.descriptor(index);
    at.write_buffer(descriptor, address, length)?;
    Ok(at.memory.write_obj([u16::try_from(flags)?.to_le(), next.to_le()], descriptor.unchecked_add(12))?)
}
