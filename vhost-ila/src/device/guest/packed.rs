//! The driver of a packed ring (virtio 1.2, 2.8.5 to 2.8.13), as the text has it.
//!
//! What must stay true: the flags of the first descriptor that is exposed are written last, so that the device sees all or nothing; what
//! comes back must be what was given, in its order, each chain or several at once.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};

use super::{Buffer, Ram};
use crate::device::ring::RingAddresses;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// A packed ring's addresses and size.
type Where = (RingAddresses, u16);

/// A descriptor as a packed ring has it: address, length, buffer id, flags.
fn descriptor_bytes(gpa: u64, len: u32, id: u16, flags: u16) -> [u8; 16] {
    super::descriptor_bytes(gpa, len, id, flags)
}

/// Offset, and its wrap counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Spot(u16, bool);

impl Spot {
    fn step(&mut self, size: u16) {
        self.0 += 1;
        if self.0 == size {
            *self = Spot(0, !self.1);
        }
    }
}

/// What a driver remembers.
#[derive(Debug)]
pub(super) struct Side {
    next: Spot,
    used: Spot,
    /// Chains that the device has: id, and how many descriptors.
    given: VecDeque<(u16, u16)>,
    ids: u16,
    /// Where the flags of the first chain not exposed yet go, and these.
    held_back: Option<(u64, u16)>,
}

impl Default for Side {
    fn default() -> Self {
        let begin = Spot(0, true);
        Self { next: begin, used: begin, given: VecDeque::new(), ids: 0, held_back: None }
    }
}

impl Side {
    /// Another id than those the device has, if it returns them in order.
    fn id(&mut self, size: u16) -> u16 {
        let id = self.ids;
        self.ids = (id + 1) % size;
        id
    }

    /// Writes the next descriptor; of the first that is not exposed yet without the flags that make it available.
    fn put(&mut self, ram: &Ram, (at, size): Where, (gpa, len): (u64, u32), id: u16, flags: u16) {
        let flags = flags | if self.next.1 { AVAIL } else { USED };
        let slot = at.descriptors + 16 * u64::from(self.next.0);
        if self.held_back.is_none() {
            let bytes = descriptor_bytes(gpa, len, id, 0);
            ram.write(slot, &bytes[..14]);
            self.held_back = Some((slot + 14, flags));
        } else {
            ram.write(slot, &descriptor_bytes(gpa, len, id, flags));
        }
        self.next.step(size);
    }

    pub(super) fn offer(&mut self, ram: &Ram, at: Where, buffers: &[Buffer]) -> u16 {
        let id = self.id(at.1);
        for (i, buffer) in buffers.iter().enumerate() {
            let more = if i + 1 < buffers.len() { NEXT } else { 0 };
            let flags = more | if buffer.writable { WRITE } else { 0 };
            // The last one's id counts; the others' are anything.
            let id = if more == 0 { id } else { 0xfff0 };
            self.put(ram, at, (buffer.gpa, buffer.len), id, flags);
        }
        self.given.push_back((id, buffers.len() as u16));
        id
    }

    pub(super) fn offer_indirect(&mut self, ram: &Ram, at: Where, table: u64, buffers: &[Buffer]) -> u16 {
        for (i, buffer) in buffers.iter().enumerate() {
            let flags = if buffer.writable { WRITE } else { 0 };
            ram.write(table + 16 * i as u64, &descriptor_bytes(buffer.gpa, buffer.len, 0xfff0, flags));
        }
        let id = self.id(at.1);
        self.put(ram, at, (table, 16 * buffers.len() as u32), id, INDIRECT);
        self.given.push_back((id, 1));
        id
    }

    pub(super) fn expose(&mut self, ram: &Ram) {
        if let Some((gpa, flags)) = self.held_back.take() {
            ram.memory.store(flags, GuestAddress(gpa), Ordering::Release).expect("in memory");
        }
    }

    /// # Panics
    /// Where the device gives back what it does not have.
    pub(super) fn take_used(&mut self, ram: &Ram, (at, size): Where) -> Vec<(u32, u32)> {
        let mut taken = Vec::new();
        while !self.given.is_empty() {
            let slot = at.descriptors + 16 * u64::from(self.used.0);
            let flags: u16 = ram.memory.load(GuestAddress(slot + 14), Ordering::Acquire).expect("in memory");
            if (flags & AVAIL != 0) != self.used.1 || (flags & USED != 0) != self.used.1 {
                break;
            }
            let bytes = ram.read(slot + 8, 6);
            let len = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let last = u16::from_le_bytes([bytes[4], bytes[5]]);
            assert_eq!(flags & WRITE != 0, len > 0, "a used buffer says whether it was written");
            // With IN_ORDER one may stand for all before it.
            loop {
                let (id, slots) = self.given.pop_front().expect("the device has it");
                (0..slots).for_each(|_| self.used.step(size));
                taken.push((id.into(), if id == last { len } else { 0 }));
                if id == last {
                    break;
                }
            }
        }
        taken
    }
}
