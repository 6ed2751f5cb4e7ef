//! The table of a packed virtqueue and both sides' event suppression (virtio 1.2, 2.8).
//!
//! What must stay true: the first flags of what was added since the last publication are written last, so that the device sees all of it or
//! nothing; an id is with the device, or free.
//!
//! Where the driver is, it counts from the beginning of the ring's life: `count % size` is the place in the table, and in every other lap
//! (`count / size`) the wrap counter is 1, from the first on.

use std::sync::atomic::{Ordering, fence};

use anyhow::{Context, Result, bail};
use virtio_bindings::virtio_ring::VRING_DESC_F_NEXT;
use vm_memory::{Address, Bytes, GuestAddress};

use super::{Part, Places, Raw};

/// Flags of a descriptor (2.8.1).
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Flags of an event suppression structure (2.8.10): nothing; at a place. Zero is everything.
const DISABLE: u16 = 1;
const AT_PLACE: u16 = 2;

/// What is written for an id where none counts: in all descriptors of a chain but the last (2.8.6).
const NO_ID: u16 = 0xbad1;

/// A driver's own books.
pub(super) struct Packed {
    /// The descriptor to be made available next.
    next: u64,
    /// What the device has been shown.
    published: u64,
    /// The flags that show it what follows.
    first: Option<(GuestAddress, u16)>,
    /// Where the next used descriptor will be.
    next_used: u64,
    free: u16,
    ids: Vec<u16>,
    /// Per id: how many descriptors its chain has while the device has it.
    held: Vec<Option<u16>>,
    /// Offset and wrap counter (bit 15) at which the front-end says that the ring begins.
    pub(super) base: u16,
}

impl Packed {
    pub(super) fn new(size: u16) -> Packed {
        Packed {
            next: 0,
            published: 0,
            first: None,
            next_used: 0,
            free: size,
            ids: (0..size).rev().collect(),
            held: vec![None; usize::from(size)],
            base: 0x8000,
        }
    }

    pub(super) fn free(&self) -> usize {
        usize::from(self.free).min(self.ids.len())
    }

    /// There are enough free descriptors.
    pub(super) fn add(&mut self, at: &Places, parts: &[Part]) -> Result<u16> {
        let id = self.ids.pop().context("no id")?;
        let count = u16::try_from(parts.len())?;
        for (part, more) in parts.iter().zip((0..count).rev()) {
            let (link, id) = if more > 0 { (VRING_DESC_F_NEXT, NO_ID) } else { (0, id) };
            self.put(at, (part.address.0, part.length, part.flags() | link, id))?;
        }
        self.hold(id, count)
    }

    pub(super) fn add_table(
        &mut self,
        at: &Places,
        (address, length, flags): (u64, u32, u32),
    ) -> Result<u16> {
        let id = self.ids.pop().context("no id")?;
        self.put(at, (address, length, flags, id))?;
        self.hold(id, 1)
    }

    fn hold(&mut self, id: u16, count: u16) -> Result<u16> {
        *self.held.get_mut(usize::from(id)).context("no such id")? = Some(count);
        self.free = self.free.checked_sub(count).context("no room in the ring")?;
        Ok(id)
    }

    /// Writes the next descriptor, available; the first one's flags later.
    pub(super) fn put(&mut self, at: &Places, (address, length, flags, id): Raw) -> Result<()> {
        let (place, wrap) = place(at, self.next);
        let descriptor = at.descriptor(place);
        at.write_buffer(descriptor, address, length)?;
        at.memory.write_obj(id.to_le(), descriptor.unchecked_add(12))?;
        let flags = u16::try_from(flags)? & !(AVAILABLE | USED) | if wrap { AVAILABLE } else { USED };
        let flags_at = descriptor.unchecked_add(14);
        if self.first.is_none() {
            self.first = Some((flags_at, flags));
        } else {
            at.memory.store(flags.to_le(), flags_at, Ordering::Relaxed)?;
        }
        self.next += 1;
        Ok(())
    }

    pub(super) fn rewind(&mut self) {
        (self.next, self.published, self.first) = (0, 0, None);
    }

    /// Whether the device wants a kick.
    pub(super) fn publish(&mut self, at: &Places) -> Result<bool> {
        let old = std::mem::replace(&mut self.published, self.next);
        if let Some((flags_at, flags)) = self.first.take() {
            at.memory.store(flags.to_le(), flags_at, Ordering::Release)?;
        }
        fence(Ordering::SeqCst);
        let word: u32 = u32::from_le(at.memory.load(at.device.0, Ordering::Acquire)?);
        let (event, wishes) = (word as u16, (word >> 16) as u16);
        Ok(match wishes & 3 {
            DISABLE => false,
            AT_PLACE if at.event_idx => (old..self.next).any(|count| word_of(at, count) == event),
            _ => true,
        })
    }

    /// The next used descriptor; with IN_ORDER it may stand for those before it.
    pub(super) fn used(&self, at: &Places) -> Result<Option<(u16, u32)>> {
        let (place, wrap) = place(at, self.next_used);
        let descriptor = at.descriptor(place);
        let flags: u16 = u16::from_le(at.memory.load(descriptor.unchecked_add(14), Ordering::Acquire)?);
        let whole = if wrap { AVAILABLE | USED } else { 0 };
        if self.next_used == self.published || flags & (AVAILABLE | USED) != whole {
            return Ok(None);
        }
        let length = u32::from_le(at.memory.read_obj(descriptor.unchecked_add(8))?);
        let id = u16::from_le(at.memory.read_obj(descriptor.unchecked_add(12))?);
        Ok(Some((id, length)))
    }

    /// The chains of these ids are ours again.
    pub(super) fn take(&mut self, at: &Places, ids: impl Iterator<Item = u16>) -> Result<()> {
        for id in ids {
            let Some(count) = self.held.get_mut(usize::from(id)).and_then(Option::take) else {
                bail!("id {id} was given back, but the device did not have it");
            };
            self.ids.push(id);
            self.free += count;
            self.next_used += u64::from(count);
        }
        if at.event_idx {
            // Call again for the very next one.
            let word = u32::from(AT_PLACE) << 16 | u32::from(word_of(at, self.next_used));
            at.memory.store(word.to_le(), at.driver.0, Ordering::Release)?;
            fence(Ordering::SeqCst);
        }
        Ok(())
    }
}

/// The descriptor that is number `count` of the ring's life, and the wrap counter there.
fn place(at: &Places, count: u64) -> (u16, bool) {
    let size = u64::from(at.size);
    ((count % size) as u16, (count / size).is_multiple_of(2))
}

/// The same as event suppression has it.
fn word_of(at: &Places, count: u64) -> u16 {
    let (place, wrap) = place(at, count);
    place | u16::from(wrap) << 15
}
